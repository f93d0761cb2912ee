//! `serve --takeover`: a new server takes over the port of a running one, and no client is refused meanwhile.
//!
//! The old server is found by its listeners (`/proc`), so there is no file that could be stale; it has to be of the same user, as SO_REUSEPORT asks. The
//! new one opens its listeners beside the old ones and starts its shards. Then, on a thread of its own: new connections go to the new server alone
//! (`sys::reuseport`), handshakes that are under way get time to end, the old server gets SIGTERM, drains its accept queues to the end and says `bye` to
//! its sessions; when its listeners are gone the kernel spreads connections by itself again. While the old ones close, one place in the kernel's list is
//! sure to be a new one, as long as there are no fewer new listeners than old ones: hence that condition.
//!
//! It never touches a process that does not listen on a configured address, nor one of another user or name.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use super::{StartError, exit};
use crate::limits::TAKEOVER_MS;
use crate::sys::process::{self, Process};
use crate::sys::reuseport;

/// How long handshakes that are under way have until the old listeners close: a first retransmission of either side. What takes longer is
/// reset, unless the kernel hands it on (net.ipv4.tcp_migrate_req=1).
const SETTLE: Duration = Duration::from_millis(1_000);
/// The old server's listeners are looked for again after this.
const LOOK: Duration = Duration::from_millis(20);
/// What this program's processes are called.
const NAME: &str = "ringroom";

/// Whose port is taken over.
#[derive(Debug)]
pub struct Takeover {
    old: Process,
    addresses: Vec<Held>,
}

/// An address on which the old server listens.
#[derive(Debug)]
struct Held {
    address: SocketAddr,
    /// Its listeners there.
    inodes: Vec<u64>,
    /// One of ours there, once they are open.
    ours: Option<OwnedFd>,
}

impl Takeover {
    /// Finds the server that listens on `addresses`; `shards` is how many listeners each of them will get here.
    pub(super) fn find(addresses: &[SocketAddr], shards: u16) -> Result<Self, StartError> {
        let mut held = Vec::new();
        for address in addresses.iter().filter(|address| address.port() != 0) {
            let found = process::listening(*address).map_err(|why| unseen(&why))?;
            if let Some(other) = found.iter().find(|found| found.user != process::user()) {
                let message = format!("can't take over {address}: user {} listens there; a takeover needs the same user", other.user);
                return Err(StartError::new(exit::PERMISSION, message));
            }
            if found.len() > usize::from(shards) {
                let count = found.len();
                let message = format!(
                    "can't take over {address}: the running server has {count} shards and this one {shards}; a takeover needs as many at least (--shards {count})"
                );
                return Err(StartError::new(exit::USAGE, message));
            }
            if !found.is_empty() {
                held.push(Held { address: *address, inodes: found.iter().map(|found| found.inode).collect(), ours: None });
            }
        }
        if held.is_empty() {
            let list: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            let message = format!("nobody listens on {}: there is no server to take over from; start without --takeover", list.join(", "));
            return Err(StartError::new(exit::ADDRESS, message));
        }
        Ok(Self { old: holder(&held)?, addresses: held })
    }

    /// The old server listens there, so that the address is not free and yet may be used.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        self.addresses.iter().any(|held| held.address == address)
    }

    /// Our own first listener on an address.
    pub(super) fn opened(&mut self, address: SocketAddr, listener: &OwnedFd) -> io::Result<()> {
        if let Some(held) = self.addresses.iter_mut().find(|held| held.address == address && held.ours.is_none()) {
            held.ours = Some(listener.try_clone()?);
        }
        Ok(())
    }

    /// Everything from here on, beside the running shards.
    pub(super) fn start(self) -> io::Result<()> {
        thread::Builder::new().name("takeover".into()).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        let number = self.old.number();
        self.choose_ours();
        if !self.old.ended_within(SETTLE)
            && let Err(why) = self.old.terminate()
        {
            log::error!("takeover: process {number} can't be told to drain: {why}; stop it with kill -TERM {number}");
        }
        let deadline = Instant::now() + Duration::from_millis(TAKEOVER_MS);
        while self.still_listens() {
            if Instant::now() >= deadline {
                log::error!("takeover: process {number} still listens after {TAKEOVER_MS} ms; new connections come here, stop it by hand");
                return;
            }
            self.old.ended_within(LOOK);
        }
        self.choose_none();
        log::info!("takeover: process {number} has left the port; it drains what it has");
    }

    /// The old listeners stand first in the kernel's list, so the first new one has their number as its place.
    fn choose_ours(&self) {
        for held in &self.addresses {
            let place = u32::try_from(held.inodes.len()).expect("no more than shards");
            let Some(ours) = &held.ours else { continue };
            if let Err(why) = reuseport::choose(ours.as_fd(), place) {
                log::warn!("takeover: {}: {why}; some connections may be reset while the old server closes its listeners", held.address);
            }
        }
    }

    fn choose_none(&mut self) {
        for held in &mut self.addresses {
            let Some(ours) = held.ours.take() else { continue };
            if let Err(why) = reuseport::choose_none(ours.as_fd()) {
                log::warn!("takeover: {}: {why}; one shard accepts all connections there", held.address);
            }
        }
    }

    fn still_listens(&self) -> bool {
        self.addresses.iter().any(|held| {
            let now = process::listening(held.address).unwrap_or_default();
            now.iter().any(|found| held.inodes.contains(&found.inode))
        })
    }
}

/// The one process that holds the listeners.
fn holder(held: &[Held]) -> Result<Process, StartError> {
    let inodes: Vec<u64> = held.iter().flat_map(|held| held.inodes.iter().copied()).collect();
    let address = held[0].address;
    let refuse = |exit, why: String| Err(StartError::new(exit, format!("can't take over {address}: {why}")));
    let number = match process::holders(&inodes).map_err(|why| unseen(&why))?[..] {
        [number] => number,
        [] => {
            let why = "the process that listens there can't be seen (another container, or /proc hides it); start on the shared port by hand: stop it first";
            return refuse(exit::PERMISSION, why.to_owned());
        }
        [..] => return refuse(exit::ADDRESS, "more than one process listens there, maybe a takeover is going on already".to_owned()),
    };
    let gone = |why: io::Error| StartError::new(exit::ADDRESS, format!("can't take over {address}: process {number}: {why}"));
    let process = Process::open(number).map_err(gone)?;
    let name = process::name_of(number).map_err(gone)?;
    if !name.starts_with(NAME) {
        return refuse(
            exit::ADDRESS,
            format!("process {number} listens there and is called {name:?}, not {NAME}; stop it or choose another port"),
        );
    }
    // Still the same one, now that it can't be mistaken any longer.
    if process::holders(&inodes).map_err(|why| unseen(&why))? != [number] {
        return refuse(exit::ADDRESS, format!("process {number} is just ending; start without --takeover"));
    }
    Ok(process)
}

fn unseen(why: &io::Error) -> StartError {
    StartError::new(exit::PERMISSION, format!("can't look for the running server: {why}; a takeover needs /proc"))
}
