//! A connection's bytes: what waits to go out, what is in flight, and the unit that has come half.
//!
//! One send in flight per connection; what is due meanwhile waits in one buffer that is used again, and goes out together. A link is *closed* once its
//! receive has ended or its send has failed, and *leaving* when we ended it to come back later; its socket goes when the kernel holds nothing of it.

use std::os::fd::OwnedFd;

use crate::ids::Key;
use crate::limits::SEND_BYTES_MAX;
use crate::memory::frames::{FrameId, FrameStore, Loan};
use crate::ring::{Errno, Io, Side};

use super::dialect::Tail;
use super::page::Page;

/// Bytes that may wait behind a send. Beyond it the server (or the network) takes nothing, and the message is reported as not handed over.
const WAITING_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub struct Link {
    pub connection: u32,
    pub key: Key,
    pub page: Page,
    pub tail: Tail,
    pub socket: Option<OwnedFd>,
    pub receiving: bool,
    /// Not to be read for now: a slow or stopped reader.
    pub paused: bool,
    pub leaving: bool,
    pub started_ns: u64,
    pub closed: Option<String>,
    waiting: Vec<u8>,
    /// What goes out next, or is in flight, and where in it that starts.
    out: Option<(FrameId, u32)>,
    in_flight: bool,
}

/// More waits than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind;

impl Link {
    pub fn new(key: Key, page: Page) -> Self {
        Self {
            connection: page.connection,
            key,
            page,
            tail: Tail::default(),
            socket: None,
            receiving: false,
            paused: false,
            leaving: false,
            started_ns: 0,
            closed: None,
            waiting: Vec::new(),
            out: None,
            in_flight: false,
        }
    }

    pub fn usable(&self) -> bool {
        self.closed.is_none() && self.socket.is_some() && !self.leaving
    }

    /// Logged in, and to be sent to.
    pub fn is_in(&self) -> bool {
        self.usable() && self.page.login_left == 0
    }

    /// Queues bytes. [`Link::flush`] sends them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Behind> {
        if self.waiting.len() + bytes.len() > WAITING_BYTES_MAX {
            return Err(Behind);
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Starts the next send if none is in flight; true when there was no room for it and it has to be tried again.
    pub fn flush<I: Io<Socket = OwnedFd>>(&mut self, io: &mut I, frames: &mut FrameStore) -> bool {
        if self.in_flight || !self.usable() {
            return false;
        }
        if self.out.is_none() && !self.waiting.is_empty() {
            let count = self.waiting.len().min(SEND_BYTES_MAX);
            let Some(frame) = frames.insert_copy(&self.waiting[..count]) else { return true };
            self.waiting.drain(..count);
            self.out = Some((frame, 0));
        }
        let (Some((frame, start)), Some(socket)) = (self.out, &self.socket) else { return false };
        let loan = frames.lend(frame, start);
        match io.send(self.key, socket, loan) {
            Ok(()) => {
                self.in_flight = true;
                false
            }
            Err(loan) => {
                frames.give_back(loan);
                true
            }
        }
    }

    /// A send has ended; true when what follows has to be tried again.
    pub fn on_sent<I: Io<Socket = OwnedFd>>(&mut self, io: &mut I, frames: &mut FrameStore, done: (Loan, Result<u32, Errno>)) -> bool {
        let (loan, result) = done;
        self.in_flight = false;
        let frame = frames.give_back(loan);
        let start = self.out.map_or(0, |(_, start)| start);
        match result {
            Ok(count) if start + count < frames.len_of(frame) => self.out = Some((frame, start + count)),
            Ok(_) => {
                self.out = None;
                frames.release(frame);
            }
            Err(errno) => {
                self.out = None;
                frames.release(frame);
                self.close(format!("send failed: {}", std::io::Error::from_raw_os_error(errno.0)));
            }
        }
        self.flush(io, frames)
    }

    /// Notes why the link is of no more use; the first reason stands, and the server's own words go first.
    pub fn close(&mut self, reason: String) {
        if self.leaving {
            return;
        }
        let reason = self.page.bye.take().unwrap_or(reason);
        self.closed.get_or_insert(reason);
    }

    /// Ends the connection from our side, to come back later.
    pub fn leave<I: Io<Socket = OwnedFd>>(&mut self, io: &mut I) {
        if let Some(socket) = &self.socket {
            self.leaving = true;
            // The receive in flight ends with it.
            io.shutdown(socket, Side::Both);
        }
    }

    /// Lets go of a closed or left link's socket and bytes once the kernel has; true when it just did.
    pub fn release(&mut self, frames: &mut FrameStore) -> bool {
        let over = self.closed.is_some() || self.leaving;
        if !over || self.receiving || self.in_flight {
            return false;
        }
        self.waiting.clear();
        if let Some((frame, _)) = self.out.take() {
            frames.release(frame);
        }
        self.socket.take().is_some()
    }

    /// As new, with a socket that is connected.
    pub fn reopen(&mut self, socket: OwnedFd) {
        self.tail = Tail::default();
        self.page.bye = None;
        self.page.pong_due = false;
        self.leaving = false;
        self.closed = None;
        self.socket = Some(socket);
    }
}
