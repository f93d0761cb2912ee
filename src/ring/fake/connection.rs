//! One TCP connection between a simulated client and the server: two byte streams and their ends.

use std::collections::VecDeque;

use super::faults::Stage;
use super::kernel::OperationId;
use crate::ids::Key;

/// A connection of the fake kernel, the same number for both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u32);

impl ConnectionId {
    pub(super) fn index(self) -> usize {
        usize::try_from(self.0).expect("usize is 64 bits here")
    }
}

/// How a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// End of stream, after every byte.
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) to_server: VecDeque<u8>,
    pub(super) to_client: VecDeque<u8>,
    /// Bytes `to_client` holds at most: the client's receive window and the server's send buffer together.
    pub(super) window: usize,
    /// Bytes that ever went into `to_client`.
    pub(super) went_out: u32,
    pub(super) client_fin: bool,
    /// The client has closed both ways: what the server sends breaks the connection.
    pub(super) client_gone: bool,
    /// No byte passes any longer in either direction.
    pub(super) reset: bool,
    /// A fault broke it, not one of its two ends.
    pub(super) broken: bool,
    /// A completion of it came seconds late.
    pub(super) delayed: bool,
    pub(super) server_fin: bool,
    pub(super) server_deaf: bool,
    pub(super) server: Server,
    pub(super) receive: Option<OperationId>,
    pub(super) send: Option<OperationId>,
    pub(super) cancelling: bool,
    pub(super) read_once: bool,
    pub(super) opened: bool,
    pub(super) closing: bool,
    /// The slot that last had an operation on it, for messages.
    pub(super) key: Option<Key>,
}

/// The server's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Backlog,
    /// In a completion that has not been reaped.
    Offered,
    Open,
    Closed,
}

impl Connection {
    pub(super) fn new(window: usize) -> Self {
        Self {
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            window,
            went_out: 0,
            client_fin: false,
            client_gone: false,
            reset: false,
            broken: false,
            delayed: false,
            server_fin: false,
            server_deaf: false,
            server: Server::Backlog,
            receive: None,
            send: None,
            cancelling: false,
            read_once: false,
            opened: false,
            closing: false,
            key: None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        if matches!(self.server, Server::Backlog | Server::Offered | Server::Closed) {
            return Stage::Outside;
        }
        if self.closing || self.server_fin {
            return Stage::Closing;
        }
        if !self.opened {
            let idle = self.receive.is_none() && self.send.is_none();
            return if idle && self.read_once { Stage::Moving } else { Stage::Handshake };
        }
        if self.cancelling {
            return Stage::Cancelling;
        }
        if self.send.is_some() { Stage::OpenSending } else { Stage::OpenIdle }
    }

    /// Bytes that still fit towards the client.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.to_client.len())
    }

    /// What the client reads next: at most `max` bytes, and the end when nothing stands before it.
    pub(super) fn read(&mut self, max: usize, into: &mut Vec<u8>) -> Option<End> {
        let count = max.min(self.to_client.len());
        into.extend(self.to_client.drain(..count));
        if !self.to_client.is_empty() {
            return None;
        }
        if self.reset {
            return Some(End::Reset);
        }
        (self.server_fin || self.server == Server::Closed).then_some(End::Fin)
    }
}
