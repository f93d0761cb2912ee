//! What the kernel does with an operation in flight: one attempt at a time, each with its chance to go wrong.
#![allow(unsafe_code, reason = "a loan is a raw pointer: a kernel reads it without asking, and so does this one")]

use super::connection::{ConnectionId, Server};
use super::faults::{Fault, Stage};
use super::kernel::{Entry, Kernel, Kind, OperationId, breach};
use crate::ids::Key;
use crate::memory::frames::Loan;
use crate::ring::{Errno, ListenerId};

pub(super) const EINTR: Errno = Errno(4);
pub(super) const EPIPE: Errno = Errno(32);
pub(super) const ECONNRESET: Errno = Errno(104);
pub(super) const ENOBUFS: Errno = Errno(105);
pub(super) const ECANCELED: Errno = Errno(125);
pub(super) const ACCEPT_ERRORS: [Errno; 3] = [Errno(23), Errno(24), Errno(103)];

/// The loan's bytes as they are now.
pub(super) fn bytes_of(loan: &Loan) -> &[u8] {
    let len = usize::try_from(loan.len()).expect("usize is 64 bits here");
    // SAFETY: the store that made the loan keeps `len` bytes at this address until the loan is given back (`Loan`'s contract), and the loan is
    // borrowed here, so it has not been. Reading through it after a wrong free is what this fake exists to find, under a test only.
    unsafe { std::slice::from_raw_parts(loan.as_ptr(), len) }
}

impl Kernel {
    pub(super) fn attempt(&mut self, id: OperationId) {
        let Some(operation) = self.operations.get(&id) else { return };
        if operation.ended {
            return;
        }
        let at = (operation.shard, operation.key, operation.connection);
        match (&operation.kind, at) {
            (Kind::Accept { listener }, (shard, ..)) => self.attempt_accept(id, shard, *listener),
            (Kind::ReceiveOnce, (_, Some(key), Some(connection))) => self.attempt_receive(id, key, connection, Shots::One),
            (Kind::ReceiveMultishot, (_, Some(key), Some(connection))) => self.attempt_receive(id, key, connection, Shots::Many),
            (Kind::Send(_), (_, Some(key), Some(connection))) => self.attempt_send(id, key, connection),
            _ => unreachable!("receives and sends have a key and a connection"),
        }
    }

    fn attempt_accept(&mut self, id: OperationId, shard: usize, listener: ListenerId) {
        let place = usize::from(listener.0);
        if self.shards[shard].backlog[place].is_empty() {
            return;
        }
        if self.roll(Fault::AcceptFailed) {
            let error = *self.random.pick(&ACCEPT_ERRORS);
            self.note(Fault::AcceptFailed, None);
            self.post(id, Entry::Accepted { listener, result: Err(error) }, false);
            return;
        }
        let Some(connection) = self.shards[shard].backlog[place].pop_front() else { return };
        self.connections[connection.index()].server = Server::Offered;
        let more = !self.roll(Fault::MultishotEnd);
        if !more {
            self.note(Fault::MultishotEnd, None);
        }
        self.post(id, Entry::Accepted { listener, result: Ok(connection) }, more);
        if more {
            self.plan_attempt(id);
        }
    }

    fn attempt_receive(&mut self, id: OperationId, key: Key, connection: ConnectionId, shots: Shots) {
        let state = &self.connections[connection.index()];
        if state.to_server.is_empty() && state.reset {
            self.post(id, Entry::Received { key, result: Err(ECONNRESET) }, false);
            return;
        }
        if !state.to_server.is_empty() && self.roll_at(Fault::ReceiveReset, connection) {
            self.note(Fault::ReceiveReset, Some(connection));
            self.connections[connection.index()].broken = true;
            self.break_connection(connection);
            self.post(id, Entry::Received { key, result: Err(ECONNRESET) }, false);
            return;
        }
        if self.no_buffer(id, connection) {
            self.post(id, Entry::Received { key, result: Err(ENOBUFS) }, false);
            return;
        }
        self.receive_data(id, key, connection, shots);
    }

    fn no_buffer(&mut self, id: OperationId, connection: ConnectionId) -> bool {
        let shard = self.operations[&id].shard;
        if self.shards[shard].free_buffers.is_empty() {
            self.note(Fault::NoBuffersEmpty, Some(connection));
            return true;
        }
        let unlucky = self.roll_at(Fault::NoBuffersAtRandom, connection);
        if unlucky {
            self.note(Fault::NoBuffersAtRandom, Some(connection));
        }
        unlucky
    }

    fn receive_data(&mut self, id: OperationId, key: Key, connection: ConnectionId, shots: Shots) {
        let waiting = self.connections[connection.index()].to_server.len();
        if waiting == 0 {
            let state = &self.connections[connection.index()];
            if state.client_fin || state.server_deaf {
                self.post(id, Entry::Received { key, result: Ok(None) }, false);
            }
            return;
        }
        let mut take = waiting.min(self.settings.buffer_bytes);
        if take > 1 && self.roll(Fault::ReceiveSplit) {
            self.note(Fault::ReceiveSplit, Some(connection));
            take = if self.random.percent(30) { 1 } else { self.random.size(1, take - 1) };
        }
        let shard = self.operations[&id].shard;
        let buffer = self.shards[shard].free_buffers.pop().expect("checked by no_buffer");
        let state = &mut self.connections[connection.index()];
        state.read_once = true;
        let cancelling = state.cancelling;
        let data: Vec<u8> = state.to_server.drain(..take).collect();
        if cancelling {
            self.note(Fault::DataAfterCancel, Some(connection));
        }
        let mut more = shots == Shots::Many;
        if more && self.roll_at(Fault::MultishotEnd, connection) {
            self.note(Fault::MultishotEnd, Some(connection));
            more = false;
        }
        self.post(id, Entry::Received { key, result: Ok(Some((buffer, data))) }, more);
        if more {
            self.plan_attempt(id);
        }
    }

    fn attempt_send(&mut self, id: OperationId, key: Key, connection: ConnectionId) {
        let state = &self.connections[connection.index()];
        let broken = state.reset || state.client_gone || state.server_fin;
        if broken {
            let error = if self.random.percent(50) { EPIPE } else { ECONNRESET };
            if self.connections[connection.index()].client_gone {
                self.break_connection(connection);
            }
            self.end_send(id, key, Err(error));
            return;
        }
        if self.roll_at(Fault::SendBroken, connection) {
            self.note(Fault::SendBroken, Some(connection));
            self.connections[connection.index()].broken = true;
            self.break_connection(connection);
            let error = if self.random.percent(50) { EPIPE } else { ECONNRESET };
            self.end_send(id, key, Err(error));
            return;
        }
        self.send_data(id, key, connection);
    }

    fn send_data(&mut self, id: OperationId, key: Key, connection: ConnectionId) {
        let room = self.connections[connection.index()].room();
        let (left, done) = {
            let lent = self.lent(id);
            (lent.copy.len() - lent.done, lent.done)
        };
        let mut take = left.min(room);
        let short = take > 1 && self.roll_at(Fault::SendShort, connection);
        if short {
            self.note(Fault::SendShort, Some(connection));
            take = self.random.size(1, take - 1);
        }
        if take > 0 {
            let operation = &self.operations[&id];
            let Kind::Send(lent) = &operation.kind else { unreachable!("a send") };
            let loan = lent.loan.as_ref().expect("in flight");
            let state = &mut self.connections[connection.index()];
            state.to_client.extend(&bytes_of(loan)[done..done + take]);
            state.went_out = state.went_out.wrapping_add(u32::try_from(take).expect("a loan's length is 32 bits"));
            self.lent(id).done += take;
            self.client_looks(connection);
        }
        if short || take == left {
            self.end_send(id, key, Ok(()));
        } else {
            self.note(Fault::WindowFull, Some(connection));
        }
    }

    pub(super) fn lent(&mut self, id: OperationId) -> &mut super::kernel::Lent {
        match &mut self.operations.get_mut(&id).expect("live").kind {
            Kind::Send(lent) => lent,
            _ => unreachable!("a send"),
        }
    }

    /// Ends a send: what went out counts before the error does.
    fn end_send(&mut self, id: OperationId, key: Key, result: Result<(), Errno>) {
        let done = u32::try_from(self.lent(id).done).expect("a loan's length is 32 bits");
        let result = match result {
            Err(error) if done == 0 => Err(error),
            _ => Ok(done),
        };
        self.post(id, Entry::Sent { key, result }, false);
    }

    pub(super) fn cancel(&mut self, id: OperationId) {
        let Some(operation) = self.operations.get(&id) else {
            self.note(Fault::CancelTooLate, None);
            return;
        };
        let (connection, key) = (operation.connection, operation.key);
        if operation.ended {
            self.note(Fault::CancelTooLate, connection);
            return;
        }
        if connection.is_some_and(|connection| self.cancel_misses(connection)) {
            return;
        }
        match (&self.operations[&id].kind, key, connection) {
            (Kind::Accept { listener }, ..) => {
                let listener = *listener;
                self.post(id, Entry::Accepted { listener, result: Err(ECANCELED) }, false);
            }
            (Kind::Send(_), Some(key), Some(connection)) => {
                let interrupts = self.roll(Fault::CancelInterrupts);
                if interrupts {
                    self.note(Fault::CancelInterrupts, Some(connection));
                }
                self.end_send(id, key, Err(if interrupts { EINTR } else { ECANCELED }));
            }
            (_, Some(key), Some(connection)) => self.cancel_receive(id, key, connection),
            _ => unreachable!("receives and sends have a key and a connection"),
        }
    }

    fn cancel_misses(&mut self, connection: ConnectionId) -> bool {
        let misses = self.connections[connection.index()].stage() == Stage::Closing && self.roll_at(Fault::CancelMissed, connection);
        if misses {
            self.note(Fault::CancelMissed, Some(connection));
        }
        misses
    }

    fn cancel_receive(&mut self, id: OperationId, key: Key, connection: ConnectionId) {
        let data = !self.connections[connection.index()].to_server.is_empty();
        if data && self.roll_at(Fault::DataAfterCancel, connection) {
            self.attempt(id);
        }
        if !self.operations[&id].ended {
            self.post(id, Entry::Received { key, result: Err(ECANCELED) }, false);
        }
    }

    /// The connection is no more, for both sides; what was on the way to the client may be lost.
    pub(super) fn break_connection(&mut self, connection: ConnectionId) {
        let keep = {
            let waiting = self.connections[connection.index()].to_client.len();
            if waiting > 0 && self.random.percent(50) { self.random.size(0, waiting) } else { waiting }
        };
        let discard = self.random.percent(50);
        let state = &mut self.connections[connection.index()];
        state.reset = true;
        state.to_client.truncate(keep);
        if discard {
            state.to_server.clear();
        }
        self.client_looks(connection);
        self.stir(connection);
    }

    /// A listener has closed: what waits at it gets a reset.
    pub(super) fn refuse_waiting(&mut self, shard: usize, place: usize) {
        for connection in std::mem::take(&mut self.shards[shard].backlog[place]) {
            self.connections[connection.index()].server = Server::Closed;
            self.break_connection(connection);
        }
    }

    /// The server's descriptor closes.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        let state = &self.connections[connection.index()];
        if state.receive.is_some() || state.send.is_some() {
            breach(&format!("{connection:?} of {:?} is closed with an operation in flight", state.key));
        }
        let unread = !state.to_server.is_empty() && !state.reset;
        self.connections[connection.index()].server = Server::Closed;
        if unread {
            self.break_connection(connection);
        }
        self.client_looks(connection);
    }

    pub(super) fn classify(&mut self, connection: ConnectionId, bytes: &[u8]) {
        let stage = (self.settings.classify)(bytes);
        let state = &mut self.connections[connection.index()];
        match stage {
            Some(Stage::OpenIdle) => state.opened = true,
            Some(Stage::Closing) => state.closing = true,
            _ => {}
        }
    }
}

/// Whether a receive goes on after its first data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shots {
    One,
    Many,
}
