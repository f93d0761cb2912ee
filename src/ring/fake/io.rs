//! One shard's view of the fake kernel: the [`Io`] that a reactor under simulation is given.

use std::cell::RefCell;
use std::rc::Rc;

use super::FakeSocket;
use super::connection::{ConnectionId, Server};
use super::faults::Fault;
use super::kernel::{Entry, Kernel, Kind, Lent, Posted, Submission, breach};
use super::progress::bytes_of;
use crate::ids::{Key, Now, ShardId};
use crate::memory::frames::Loan;
use crate::ring::{Buffer, Completion, Errno, Full, Io, ListenerId, Side, Wait};

/// What a recycled buffer is filled with, so that a late reader sees it.
const POISON: u8 = 0xDD;

/// See the module. Dropping it closes the shard's listeners.
#[derive(Debug)]
pub struct FakeIo {
    shard: usize,
    kernel: Rc<RefCell<Kernel>>,
    buffers: Vec<Vec<u8>>,
    held: Vec<bool>,
}

impl FakeIo {
    pub(super) fn new(shard: usize, kernel: Rc<RefCell<Kernel>>) -> Self {
        let count = usize::from(kernel.borrow().settings.buffers);
        Self { shard, kernel, buffers: vec![Vec::new(); count], held: vec![false; count] }
    }

    fn has_room(&self, kernel: &mut Kernel, connection: Option<ConnectionId>) -> Result<(), Full> {
        let state = &kernel.shards[self.shard];
        if state.submissions.len() < state.submissions_max {
            return Ok(());
        }
        kernel.note(Fault::QueueFull, connection);
        Err(Full)
    }

    fn check_socket(&self, socket: &FakeSocket) {
        if !Rc::ptr_eq(&self.kernel, &socket.kernel) {
            breach("a socket of another kernel");
        }
    }

    fn receive(&mut self, key: Key, socket: &FakeSocket, kind: Kind) -> Result<(), Full> {
        self.check_socket(socket);
        let mut kernel = self.kernel.borrow_mut();
        self.has_room(&mut kernel, Some(socket.connection))?;
        let mut operation = Kernel::operation(self.shard, kind);
        operation.key = Some(key);
        operation.connection = Some(socket.connection);
        kernel.begin(operation);
        Ok(())
    }

    /// Turns a posted entry into a completion, and gives up the operation's claims when it is the last.
    fn complete(&mut self, posted: Posted) -> Completion<FakeSocket> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.completions += 1;
        let Posted { entry, operation, more } = posted;
        let finished = match operation {
            Some(id) if !more => Some(kernel.finish(id)),
            _ => None,
        };
        match entry {
            Entry::Doorbell => {
                kernel.shards[self.shard].bells_under_way -= 1;
                kernel.mix(1);
                Completion::Doorbell
            }
            Entry::Accepted { listener, result } => {
                kernel.mix(2 | result.map_or(0, |c| u64::from(c.0) << 8));
                let result = result.map(|connection| {
                    kernel.connections[connection.index()].server = Server::Open;
                    FakeSocket { connection, kernel: Rc::clone(&self.kernel) }
                });
                Completion::Accepted { listener, result, more }
            }
            Entry::Received { key, result } => {
                kernel.mix(key.pack(3));
                let result = result.map(|data| {
                    data.map(|(id, bytes)| {
                        kernel.mix_bytes(&bytes);
                        let len = u32::try_from(bytes.len()).expect("a buffer is small");
                        self.held[usize::from(id)] = true;
                        self.buffers[usize::from(id)] = bytes;
                        Buffer { id, len }
                    })
                });
                Completion::Received { key, result, more }
            }
            Entry::Sent { key, result } => {
                kernel.mix(key.pack(4));
                let operation = finished.expect("a send completes once");
                let Kind::Send(Lent { loan: Some(loan), copy, .. }) = operation.kind else { unreachable!("a send holds its loan") };
                if bytes_of(&loan) != copy.as_slice() {
                    breach(&format!("the bytes lent to the send of {key:?} changed while it was in flight"));
                }
                // Not the bytes: they hold the directory's ids, which depend on the thread. Clients mix in what they read of them.
                kernel.mix(copy.len() as u64);
                Completion::Sent { key, loan, result }
            }
        }
    }
}

impl Io for FakeIo {
    type Socket = FakeSocket;

    fn now(&mut self) -> Now {
        let kernel = self.kernel.borrow();
        Now { mono_ns: kernel.now_ns, unix_ms: kernel.unix_ms }
    }

    /// Told apart by connection; nobody is listed as a proxy unless a test says so.
    fn address_of(socket: &FakeSocket) -> Option<std::net::IpAddr> {
        Some(std::net::Ipv4Addr::from_bits(0x0a00_0000 | socket.connection.0).into())
    }

    fn accept(&mut self, listener: ListenerId) -> Result<(), Full> {
        let mut kernel = self.kernel.borrow_mut();
        self.has_room(&mut kernel, None)?;
        let place = usize::from(listener.0);
        if kernel.shards[self.shard].accepts[place].is_some() {
            breach(&format!("two accepts in flight on {listener:?}"));
        }
        let id = kernel.begin(Kernel::operation(self.shard, Kind::Accept { listener }));
        kernel.shards[self.shard].accepts[place] = Some(id);
        Ok(())
    }

    fn cancel_accept(&mut self, listener: ListenerId) -> Result<(), Full> {
        let mut kernel = self.kernel.borrow_mut();
        self.has_room(&mut kernel, None)?;
        let Some(id) = kernel.shards[self.shard].accepts[usize::from(listener.0)] else {
            breach(&format!("cancel of an accept that is not in flight, {listener:?}"))
        };
        kernel.shards[self.shard].submissions.push(Submission::Cancel(id));
        Ok(())
    }

    fn accept_waiting(&mut self, listener: ListenerId) -> Option<FakeSocket> {
        let mut kernel = self.kernel.borrow_mut();
        let place = usize::from(listener.0);
        if kernel.shards[self.shard].accepts[place].is_some() {
            breach(&format!("an accept on the spot beside one in flight, {listener:?}"));
        }
        let connection = kernel.shards[self.shard].backlog[place].pop_front()?;
        kernel.connections[connection.index()].server = Server::Open;
        kernel.mix(5 | u64::from(connection.0) << 8);
        Some(FakeSocket { connection, kernel: Rc::clone(&self.kernel) })
    }

    fn close_listener(&mut self, listener: ListenerId) {
        let mut kernel = self.kernel.borrow_mut();
        let place = usize::from(listener.0);
        if kernel.shards[self.shard].accepts[place].is_some() {
            breach(&format!("a listener is closed with its accept in flight, {listener:?}"));
        }
        kernel.shards[self.shard].closed[place] = true;
        kernel.refuse_waiting(self.shard, place);
    }

    fn receive_once(&mut self, key: Key, socket: &FakeSocket) -> Result<(), Full> {
        self.receive(key, socket, Kind::ReceiveOnce)
    }

    fn receive_multishot(&mut self, key: Key, socket: &FakeSocket) -> Result<(), Full> {
        self.receive(key, socket, Kind::ReceiveMultishot)
    }

    fn cancel_receive(&mut self, key: Key) -> Result<(), Full> {
        let mut kernel = self.kernel.borrow_mut();
        let held = kernel.shards[self.shard].slots.get(&key.slot).and_then(|used| used.receive);
        let Some((_, id)) = held.filter(|(owner, _)| *owner == key) else {
            breach(&format!("cancel of a receive that is not in flight, {key:?}"))
        };
        let connection = kernel.operations[&id].connection;
        self.has_room(&mut kernel, connection)?;
        if let Some(connection) = connection {
            kernel.connections[connection.index()].cancelling = true;
            kernel.cancelled.push(connection);
        }
        kernel.shards[self.shard].submissions.push(Submission::Cancel(id));
        Ok(())
    }

    fn send(&mut self, key: Key, socket: &FakeSocket, loan: Loan) -> Result<(), Loan> {
        self.check_socket(socket);
        let mut kernel = self.kernel.borrow_mut();
        if self.has_room(&mut kernel, Some(socket.connection)).is_err() {
            return Err(loan);
        }
        let copy = bytes_of(&loan).to_vec();
        if copy.is_empty() {
            breach(&format!("an empty send on {key:?}"));
        }
        kernel.classify(socket.connection, &copy);
        let mut operation = Kernel::operation(self.shard, Kind::Send(Lent { loan: Some(loan), copy, done: 0 }));
        operation.key = Some(key);
        operation.connection = Some(socket.connection);
        kernel.begin(operation);
        Ok(())
    }

    fn cancel_send(&mut self, key: Key) -> Result<(), Full> {
        let mut kernel = self.kernel.borrow_mut();
        let held = kernel.shards[self.shard].slots.get(&key.slot).and_then(|used| used.send);
        let Some((_, id)) = held.filter(|(owner, _)| *owner == key) else {
            breach(&format!("cancel of a send that is not in flight, {key:?}"))
        };
        let connection = kernel.operations[&id].connection;
        self.has_room(&mut kernel, connection)?;
        kernel.shards[self.shard].submissions.push(Submission::Cancel(id));
        Ok(())
    }

    fn ring(&mut self, shard: ShardId) -> Result<(), Full> {
        let mut kernel = self.kernel.borrow_mut();
        self.has_room(&mut kernel, None)?;
        kernel.shards[self.shard].submissions.push(Submission::Ring(shard.index()));
        Ok(())
    }

    /// Never blocks: with [`Wait::Until`] and nothing there, the shard counts as asleep and the harness must not run it until
    /// [`super::FakeKernel::is_awake`] says so.
    fn enter(&mut self, wait: Wait) -> Result<(), Errno> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.submit(self.shard);
        let now_ns = kernel.now_ns;
        kernel.advance_to(now_ns);
        kernel.deliver(self.shard);
        if let Wait::Until(until_ns) = wait
            && kernel.shards[self.shard].queue.is_empty()
        {
            kernel.shards[self.shard].waits_until_ns = Some(until_ns);
        }
        Ok(())
    }

    fn pending(&self) -> bool {
        !self.kernel.borrow().shards[self.shard].submissions.is_empty()
    }

    fn ready(&mut self) -> bool {
        let kernel = self.kernel.borrow();
        let state = &kernel.shards[self.shard];
        !state.queue.is_empty() || !state.arrived.is_empty()
    }

    fn reap(&mut self) -> Option<Completion<FakeSocket>> {
        let posted = {
            let mut kernel = self.kernel.borrow_mut();
            if kernel.shards[self.shard].waits_until_ns.is_some() {
                kernel.deliver(self.shard);
            }
            kernel.shards[self.shard].queue.pop_front()?
        };
        Some(self.complete(posted))
    }

    fn bytes(&self, buffer: &Buffer) -> &[u8] {
        let place = usize::from(buffer.id);
        if !self.held[place] {
            breach(&format!("buffer {} is read after it was recycled", buffer.id));
        }
        &self.buffers[place]
    }

    fn recycle(&mut self, buffer: Buffer) {
        let place = usize::from(buffer.id);
        if !std::mem::replace(&mut self.held[place], false) {
            breach(&format!("buffer {} is recycled twice", buffer.id));
        }
        self.buffers[place].fill(POISON);
        self.kernel.borrow_mut().shards[self.shard].free_buffers.push(buffer.id);
    }

    fn buffers_left(&self) -> u32 {
        let held = self.held.iter().filter(|held| **held).count();
        u32::try_from(self.held.len() - held).expect("buffers are numbered with 16 bits")
    }

    fn acked(&mut self, socket: &FakeSocket) -> u32 {
        self.check_socket(socket);
        self.kernel.borrow().connections[socket.connection.index()].went_out
    }

    fn shutdown(&mut self, socket: &FakeSocket, side: Side) {
        self.check_socket(socket);
        let mut kernel = self.kernel.borrow_mut();
        let state = &mut kernel.connections[socket.connection.index()];
        state.server_fin = true;
        if side == Side::Both {
            state.server_deaf = true;
        }
        kernel.client_looks(socket.connection);
        kernel.stir(socket.connection);
    }
}

impl Drop for FakeIo {
    fn drop(&mut self) {
        if std::thread::panicking() || self.kernel.borrow().abandoned {
            return;
        }
        let mut kernel = self.kernel.borrow_mut();
        for place in 0..kernel.shards[self.shard].backlog.len() {
            kernel.shards[self.shard].closed[place] = true;
            kernel.refuse_waiting(self.shard, place);
        }
        let lost = self.held.iter().filter(|held| **held).count();
        if lost > 0 {
            breach(&format!("{lost} receive buffers were never recycled"));
        }
    }
}
