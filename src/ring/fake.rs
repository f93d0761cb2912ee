//! A seeded kernel for simulation: the second implementation of [`Io`](super::Io).
//!
//! One [`FakeKernel`] stands under all shards of a simulated server. It owns virtual time, the connections between simulated clients and the server,
//! and every operation in flight. What it does to an operation (when, how much, which error) comes from its seed alone, so a run replays exactly.
//!
//! It stays truthful: bytes of one stream keep their order, what is accepted was connected, a doorbell is late but never lost, and every errno is one
//! that Linux returns there. It must never do what a kernel cannot do, or the reactor would be hardened against dreams.
//!
//! A reactor that breaks the contract of [`Io`](super::Io) ends the run with a panic that begins `io contract:`: two receives or two sends on one key or
//! socket, a socket closed or a slot used again under an operation in flight, bytes that change while they are lent, a buffer recycled twice or lost.
//!
//! The harness drives clients and time through [`FakeKernel`]; the reactor sees only [`FakeIo`] and [`FakeSocket`]. It lives in one thread.

use std::cell::RefCell;
use std::rc::Rc;

use crate::ids::{Key, Now, ShardId};
use crate::ring::ListenerId;

mod connection;
mod faults;
mod io;
mod kernel;
mod progress;
mod random;

pub use connection::{ConnectionId, End};
pub use faults::{Fault, Rates, Stage, Table};
pub use io::FakeIo;
pub use kernel::KernelSettings;
pub use random::Random;

use connection::{Connection, Server};
use kernel::{Kernel, breach};

/// The harness' handle on the kernel. Clones are the same kernel.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    kernel: Rc<RefCell<Kernel>>,
}

/// The server's end of a connection; dropping it closes it.
pub struct FakeSocket {
    connection: ConnectionId,
    kernel: Rc<RefCell<Kernel>>,
}

impl std::fmt::Debug for FakeSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeSocket({})", self.connection.0)
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        if std::thread::panicking() || self.kernel.borrow().abandoned {
            return;
        }
        self.kernel.borrow_mut().close(self.connection);
    }
}

/// What the kernel still holds: all zero when a server has ended as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub operations: usize,
    pub open_connections: usize,
    pub buffers_missing: usize,
}

impl FakeKernel {
    pub fn new(settings: KernelSettings) -> Self {
        Self { kernel: Rc::new(RefCell::new(Kernel::new(settings))) }
    }

    /// The seam of one shard; to be made once per shard.
    pub fn io(&self, shard: ShardId) -> FakeIo {
        FakeIo::new(shard.index(), Rc::clone(&self.kernel))
    }

    // ---- time -------------------------------------------------------------------------------------------------------------------------------------

    pub fn now_ns(&self) -> u64 {
        self.kernel.borrow().now_ns
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        let kernel = self.kernel.borrow();
        Now { mono_ns: kernel.now_ns, unix_ms: kernel.unix_ms }
    }

    /// Moves virtual time and lets happen what falls due.
    pub fn advance_to(&self, now_ns: u64) {
        self.kernel.borrow_mut().advance_to(now_ns);
    }

    /// Steps the clock on the wall, which may go back.
    pub fn step_wall_clock(&self, by_ms: i64) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.unix_ms = kernel.unix_ms.saturating_add_signed(by_ms);
    }

    pub fn next_event_ns(&self) -> Option<u64> {
        self.kernel.borrow().next_event_ns()
    }

    /// Whether the shard may run: it is not in an enter, or that enter has something to return for.
    pub fn is_awake(&self, shard: ShardId) -> bool {
        self.kernel.borrow().is_awake(shard.index())
    }

    /// When the shard's enter returns by itself; `None` when it is not in one.
    pub fn waits_until_ns(&self, shard: ShardId) -> Option<u64> {
        self.kernel.borrow().shards[shard.index()].waits_until_ns
    }

    /// A signal: the shard's enter returns with nothing.
    pub fn interrupt(&self, shard: ShardId) {
        self.kernel.borrow_mut().deliver(shard.index());
    }

    /// The doorbell as a thread without a ring rings it.
    pub fn ring(&self, shard: ShardId) {
        self.kernel.borrow_mut().bell(shard.index());
    }

    /// Doorbells of the shard that it has not reaped yet.
    pub fn bells_under_way(&self, shard: ShardId) -> u64 {
        self.kernel.borrow().shards[shard.index()].bells_under_way
    }

    // ---- clients ----------------------------------------------------------------------------------------------------------------------------------

    /// A client connects; its window holds `window` bytes that it has not read.
    pub fn connect(&self, shard: ShardId, listener: ListenerId, window: usize) -> ConnectionId {
        let mut kernel = self.kernel.borrow_mut();
        let id = ConnectionId(u32::try_from(kernel.connections.len()).expect("a run has few connections"));
        kernel.connections.push(Connection::new(window));
        let place = usize::from(listener.0);
        if kernel.shards[shard.index()].closed[place] {
            kernel.connections[id.index()].server = Server::Closed;
            kernel.break_connection(id);
            return id;
        }
        kernel.shards[shard.index()].backlog[place].push_back(id);
        if let Some(accept) = kernel.shards[shard.index()].accepts[place] {
            kernel.plan_attempt(accept);
        }
        id
    }

    /// The client writes; into a connection that the server has closed, it earns a reset.
    pub fn client_write(&self, client: ConnectionId, bytes: &[u8]) {
        let mut kernel = self.kernel.borrow_mut();
        let state = &mut kernel.connections[client.index()];
        if state.reset || state.client_fin {
            return;
        }
        if state.server == Server::Closed {
            kernel.break_connection(client);
            return;
        }
        state.to_server.extend(bytes);
        kernel.stir(client);
    }

    /// Appends at most `max` bytes to `into`; the end once nothing stands before it.
    pub fn client_read(&self, client: ConnectionId, max: usize, into: &mut Vec<u8>) -> Option<End> {
        let mut kernel = self.kernel.borrow_mut();
        let end = kernel.connections[client.index()].read(max, into);
        kernel.stir(client);
        end
    }

    /// Bytes the client could read now.
    pub fn client_readable(&self, client: ConnectionId) -> usize {
        self.kernel.borrow().connections[client.index()].to_client.len()
    }

    pub fn client_half_close(&self, client: ConnectionId) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.note(Fault::PeerHalfClose, Some(client));
        kernel.connections[client.index()].client_fin = true;
        kernel.stir(client);
    }

    /// close(2): an end of stream, or a reset when something was left unread.
    pub fn client_close(&self, client: ConnectionId) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.note(Fault::PeerClose, Some(client));
        let state = &mut kernel.connections[client.index()];
        state.client_fin = true;
        state.client_gone = true;
        let unread = !state.to_client.is_empty();
        state.to_client.clear();
        if unread {
            state.reset = true;
        }
        kernel.stir(client);
    }

    pub fn client_reset(&self, client: ConnectionId) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.note(Fault::PeerReset, Some(client));
        let state = &mut kernel.connections[client.index()];
        state.client_gone = true;
        state.to_client.clear();
        kernel.break_connection(client);
    }

    /// Connections whose client has news since the last call, each once, in their order.
    pub fn take_readable(&self) -> Vec<ConnectionId> {
        let mut readable = std::mem::take(&mut self.kernel.borrow_mut().readable);
        readable.sort_unstable();
        readable.dedup();
        readable
    }

    /// A fault of the kernel broke the connection.
    pub fn was_broken(&self, client: ConnectionId) -> bool {
        self.kernel.borrow().connections[client.index()].broken
    }

    /// Some completion of the connection came seconds late: a deadline may have passed for it that its client kept.
    pub fn was_delayed(&self, client: ConnectionId) -> bool {
        self.kernel.borrow().connections[client.index()].delayed
    }

    /// Connections whose receive was told to end since the last call: the moment for a client to write once more.
    pub fn take_cancelled(&self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.kernel.borrow_mut().cancelled)
    }

    pub fn stage(&self, client: ConnectionId) -> Stage {
        self.kernel.borrow().connections[client.index()].stage()
    }

    /// The connection that a shard knows by this key, once it has had an operation under it.
    pub fn connection_of(&self, shard: ShardId, key: Key) -> Option<ConnectionId> {
        self.kernel.borrow().keys.get(&(shard.index(), key)).copied()
    }

    /// The server closed its end (or never got to know the connection and is gone).
    pub fn server_closed(&self, client: ConnectionId) -> bool {
        self.kernel.borrow().connections[client.index()].server == Server::Closed
    }

    /// A connection in words, for a failing run.
    pub fn describe(&self, client: ConnectionId) -> String {
        let kernel = self.kernel.borrow();
        let state = &kernel.connections[client.index()];
        let (unread, unsent) = (state.to_server.len(), state.to_client.len());
        let (receive, send, stage) = (state.receive.is_some(), state.send.is_some(), state.stage());
        format!(
            "{stage:?}, {unread} bytes unread by the server, {unsent} by the client, receive in flight {receive}, send {send}, {:?}",
            state.key
        )
    }

    // ---- what the oracle asks ---------------------------------------------------------------------------------------------------------------------

    pub fn set_rates(&self, rates: Rates) {
        self.kernel.borrow_mut().settings.rates = rates;
    }

    pub fn table(&self) -> Table {
        self.kernel.borrow().table.clone()
    }

    /// A hash over everything reaped so far.
    pub fn trace(&self) -> u64 {
        self.kernel.borrow().trace
    }

    pub fn completions(&self) -> u64 {
        self.kernel.borrow().completions
    }

    /// Sockets that the server holds: reaped from an accept and not dropped.
    pub fn open_sockets(&self) -> usize {
        self.kernel.borrow().connections.iter().filter(|c| c.server == Server::Open).count()
    }

    pub fn leftovers(&self) -> Leftovers {
        let kernel = self.kernel.borrow();
        let buffers = usize::from(kernel.settings.buffers);
        Leftovers {
            operations: kernel.operations.len(),
            open_connections: kernel.connections.iter().filter(|c| matches!(c.server, Server::Open | Server::Offered)).count(),
            buffers_missing: kernel.shards.iter().map(|s| buffers - s.free_buffers.len()).sum(),
        }
    }

    /// The run has failed for another reason: what is taken apart now is not checked.
    pub fn abandon(&self) {
        self.kernel.borrow_mut().abandoned = true;
    }

    /// Ends the run with a breach unless the kernel holds nothing of the server any more.
    pub fn assert_nothing_left(&self) {
        let left = self.leftovers();
        if left != Leftovers::default() {
            breach(&format!("the server ended and left {left:?}"));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
