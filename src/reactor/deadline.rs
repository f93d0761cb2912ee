//! Every waiting state of a connection has a deadline, from the table of `config`; the wheel looks, this file judges.
//!
//! An entry is lazy: it stands at or before the earliest deadline, is compared when it expires and linked again, so that receiving a byte costs a
//! store and no work on the wheel.

use super::Reactor;
use super::connection::{Phase, Waits};
use super::core::{Core, Drain};
use super::effects::Ending;
use crate::config::Deadline;
use crate::ids::Key;
use crate::protocol::encode::{self, Outgoing};
use crate::protocol::error::Reason;
use crate::ring::{Io, Side};

/// A send in flight is looked into so many times within the time that it may stand still: what is found to have gone out went out at some time since
/// the last look, so that the end of a reader that takes nothing comes late by one step at most, and never early.
pub(super) const LOOKS: u64 = 10;

/// What a look at a connection has found.
enum Verdict {
    /// Nothing yet; look again then (milliseconds of the monotonic clock).
    Wait(u64),
    End(Reason),
    Ping,
    /// The check of its token has not come back in time.
    Unchecked,
    /// The time for going out in order has passed.
    Cut,
}

impl<I: Io> Reactor<I> {
    /// Looks at the connections whose entries have expired, at most `budget` of each wheel; `true` when more are waiting.
    pub(super) fn look_at_deadlines(&mut self, budget: usize) -> bool {
        let now_ns = self.core.now.mono_ns;
        let mut expired = std::mem::take(&mut self.expired);
        let mut more = self.core.deadlines.advance(now_ns, budget, &mut expired);
        for slot in expired.drain(..) {
            if let Some(key) = self.core.connections.key_at(slot) {
                self.look(key);
            }
        }
        more |= self.core.stalls.advance(now_ns, budget, &mut expired);
        for slot in expired.drain(..) {
            self.core.waited(slot);
        }
        self.expired = expired;
        more
    }

    fn look(&mut self, key: Key) {
        if let Some(connection) = self.core.connections.get_mut(key) {
            connection.check_ms = u64::MAX;
        }
        self.look_at_send(key);
        let verdict = self.core.judge(key);
        match verdict {
            Verdict::Wait(until_ms) => self.core.check_no_later(key, until_ms),
            Verdict::End(reason) => self.core.end_and_settle(key, Ending::said(reason, None)),
            Verdict::Ping | Verdict::Unchecked => {
                match verdict {
                    Verdict::Ping => self.core.ping(key),
                    _ => {
                        self.core.unchecked(key);
                        self.core.go_on(key);
                    }
                }
                if let Verdict::Wait(until_ms) = self.core.judge(key) {
                    self.core.check_no_later(key, until_ms);
                }
            }
            Verdict::Cut => self.cut(key),
        }
    }

    /// Whether the client has taken anything of a send that has been in flight for some time. The send ends whole, so its completion does not tell.
    fn look_at_send(&mut self, key: Key) {
        let now_ms = self.core.now_ms();
        let step_ms = Deadline::Progress.ms(&self.core.settings) / LOOKS;
        let Some(connection) = self.core.connections.get_mut(key).filter(|c| c.sending && now_ms >= c.progress_ms + step_ms) else {
            return;
        };
        let acked = self.io.acked(&connection.socket);
        if acked != connection.acked {
            connection.acked = acked;
            connection.progress_ms = now_ms;
        }
    }

    /// Ends what is in flight on a connection whose time is up, again and again until nothing is.
    fn cut(&mut self, key: Key) {
        if let Some(connection) = self.core.connections.get(key).filter(|c| c.phase == Phase::Joining) {
            // Cut before: a cancel has found nothing, or is late. A socket that is shut down ends whatever waits for it.
            self.io.shutdown(&connection.socket, Side::Both);
            if connection.sending && !self.core.cut.contains(&key) {
                self.core.cut.push(key);
            }
        }
        self.join(key);
        self.core.want_rearm(key);
        self.core.check_no_later(key, self.core.due_ms(Deadline::Cut));
    }
}

impl<S> Core<S> {
    fn judge(&mut self, key: Key) -> Verdict {
        let now_ms = self.now_ms();
        let reading = self.drain == Drain::No;
        let settings = &self.settings;
        let Some(connection) = self.connections.get_mut(key) else { return Verdict::Wait(u64::MAX) };
        let checked_ms = if connection.waits == Waits::Verdict { connection.waiting_ms + Deadline::Verdict.ms(settings) } else { u64::MAX };
        match connection.phase {
            // Its `hello` was in time: it is the server that is late.
            Phase::Handshake if connection.waits == Waits::Verdict => {
                let until_ms = checked_ms.min(connection.deadline_ms);
                return if now_ms >= until_ms { Verdict::Unchecked } else { Verdict::Wait(until_ms) };
            }
            Phase::Handshake if now_ms >= connection.deadline_ms => return Verdict::End(Reason::HandshakeTimeout),
            Phase::Handshake => return Verdict::Wait(connection.deadline_ms),
            Phase::Closing | Phase::Lingering if now_ms < connection.deadline_ms => return Verdict::Wait(connection.deadline_ms),
            Phase::Closing | Phase::Lingering | Phase::Joining => return Verdict::Cut,
            Phase::Open => {}
        }
        let paused = connection.holds > 0 || connection.waits != Waits::No || connection.starved || !reading;
        if paused {
            // The clock stands still while the server itself is not reading.
            connection.read_ms = now_ms;
        }
        let frame_ms = if connection.waiting_ms == 0 || paused { u64::MAX } else { connection.waiting_ms + Deadline::Frame.ms(settings) };
        let no_progress_ms = Deadline::Progress.ms(settings);
        let (stopped_ms, look_ms) = match connection.sending {
            true => (connection.progress_ms + no_progress_ms, connection.look_ms(now_ms, no_progress_ms)),
            false => (u64::MAX, u64::MAX),
        };
        let ping_ms = if connection.pinged { u64::MAX } else { connection.read_ms + Deadline::Ping.ms(settings) };
        let idle_ms = connection.read_ms + Deadline::Idle.ms(settings);
        if now_ms >= frame_ms {
            Verdict::End(Reason::FrameTimeout)
        } else if now_ms >= stopped_ms {
            // What is in flight goes on, because a `bye` stands behind a whole frame only.
            Verdict::End(Reason::SlowConsumer)
        } else if now_ms >= connection.deadline_ms {
            Verdict::End(Reason::TokenExpired)
        } else if now_ms >= checked_ms {
            Verdict::Unchecked
        } else if now_ms >= idle_ms {
            Verdict::End(Reason::Idle)
        } else if now_ms >= ping_ms {
            Verdict::Ping
        } else {
            let ours_ms = connection.deadline_ms.min(checked_ms);
            Verdict::Wait(frame_ms.min(look_ms).min(ping_ms).min(idle_ms).min(ours_ms))
        }
    }

    fn ping(&mut self, key: Key) {
        self.connections.get_mut(key).expect("judged by the caller").pinged = true;
        self.counters.pings.add(1);
        let mut out = bytes::BytesMut::with_capacity(32);
        encode::frame(&Outgoing::Ping, &mut out);
        self.queue_payload(key, out.freeze());
        self.settle();
    }
}
