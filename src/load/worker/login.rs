//! Logging in: the first packet of each connection, some at a time, until all are in.

use std::io::Write;
use std::os::fd::OwnedFd;

use crate::load::connect;
use crate::load::dialect::{Dialect, Login, Wanted};
use crate::load::link::Link;
use crate::load::plan::{as_f64, as_u64};
use crate::ring::{Io, Wait};
use crate::sys::clock::monotonic_ns;

use super::{MS, SECOND, WAIT_MAX_NS, Worker};

/// Logins under way at once in one thread: below what a listener's queue holds.
const LOGINS_MAX: usize = 512;
/// Login gives up when this long nothing has come.
const LOGIN_STALL_NS: u64 = 15 * SECOND;
/// Connects between two looks at what has come.
const CONNECTS_PER_TURN: usize = 16;

impl<I: Io<Socket = OwnedFd>> Worker<I> {
    pub(super) fn log_in(&mut self) -> Result<(), String> {
        let all = self.links.len();
        let start_ns = monotonic_ns();
        let (mut opened, mut last, mut last_ns) = (0, 0, start_ns);
        while self.logged_in < as_u64(all) {
            let room = LOGINS_MAX.saturating_sub(opened - usize::try_from(self.logged_in).expect("at most all"));
            let batch = room.min(CONNECTS_PER_TURN).min(self.may_be_open(monotonic_ns() - start_ns).saturating_sub(opened));
            for index in opened..opened + batch {
                self.open(index)?;
            }
            opened += batch;
            let wait = if batch > 0 { Wait::No } else { Wait::Until(monotonic_ns() + MS.min(WAIT_MAX_NS)) };
            self.serve(wait)?;
            self.check_abort()?;
            if let Some(link) = self.links.iter().find(|link| link.closed.is_some()) {
                return Err(format!("login of user {} failed: {}", link.connection, link.closed.as_deref().unwrap_or_default()));
            }
            let now = monotonic_ns();
            if self.logged_in > last || batch > 0 {
                (last, last_ns) = (self.logged_in, now);
            } else if opened > 0 && now > last_ns + LOGIN_STALL_NS {
                return Err(format!("{} of {all} logins answered, then none for {} s", self.logged_in, LOGIN_STALL_NS / SECOND));
            }
        }
        Ok(())
    }

    /// Connections that may have been opened by now.
    fn may_be_open(&self, since_ns: u64) -> usize {
        let all = self.links.len();
        let Some(rate) = self.setup.plan.wish().connect_per_s else { return all };
        let share = as_f64(as_u64(all)) / f64::from(self.setup.plan.wish().connections);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; the cast saturates")]
        let by_now = (as_f64(since_ns) / 1e9 * rate * share) as usize;
        all.min(by_now + 1)
    }

    fn open(&mut self, index: usize) -> Result<(), String> {
        let plan = &self.setup.plan;
        let link = &mut self.links[index];
        self.scratch.clear();
        greet(&self.dialect, link, &mut self.scratch);
        link.started_ns = monotonic_ns();
        let made = connect::open(plan, link.connection).and_then(|mut stream| stream.write_all(&self.scratch).map(|()| stream));
        let failed = |error| format!("connection {} to {}: {} ({error})", link.connection, plan.wish().address, connect::kind(&error));
        link.socket = Some(made.map_err(failed)?.into());
        self.arm(index);
        Ok(())
    }
}

/// The first packet of a connection: from where it was, if it was there before.
pub(super) fn greet(dialect: &Dialect, link: &mut Link, out: &mut Vec<u8>) {
    let page = &link.page;
    let came_back = page.back_ns > 0;
    let named = page.memberships.iter().enumerate().filter(|(_, m)| !m.inbox);
    let since = |place| page.position(place).filter(|_| came_back).map(super::super::page::Position::as_bytes);
    let rooms: Vec<Wanted<'_>> = named.map(|(place, m)| Wanted { room: m.room, since: since(place) }).collect();
    let inbox = rooms.len() < page.memberships.len();
    let left = dialect.login(&Login { connection: link.connection, rooms: &rooms, inbox }, out);
    link.page.login_left = left;
}
