//! A connection's bytes: what is queued to go out, what is in flight, and the frame that has come half.
//!
//! One send in flight per connection; what is due meanwhile waits and goes out gathered. A link is *closed* once its receive has ended or its
//! send has failed; its socket goes when the kernel holds nothing of it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use crate::ids::Key;
use crate::limits::SEND_BYTES_MAX;
use crate::memory::frames::{FrameId, FrameStore, Loan};
use crate::ring::{Errno, Io};

use super::dialect::Tail;
use super::ledger::Page;

/// Frames gathered into one send.
const GATHER_FRAMES_MAX: usize = 64;

#[derive(Debug)]
pub struct Link {
    pub connection: u32,
    pub key: Key,
    pub page: Page,
    pub tail: Tail,
    pub socket: Option<OwnedFd>,
    pub receiving: bool,
    pub started_ns: u64,
    pub closed: Option<String>,
    queue: VecDeque<FrameId>,
    /// Where in its frame the send in flight starts.
    sending: Option<u32>,
}

/// The store has no room: the generator is far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFull;

impl Link {
    pub fn new(connection: u32, key: Key, page: Page) -> Self {
        Self {
            connection,
            key,
            page,
            tail: Tail::default(),
            socket: None,
            receiving: false,
            started_ns: 0,
            closed: None,
            queue: VecDeque::new(),
            sending: None,
        }
    }

    pub fn usable(&self) -> bool {
        self.closed.is_none() && self.socket.is_some()
    }

    /// Queues a frame. [`Link::flush`] sends it.
    pub fn push(&mut self, frames: &mut FrameStore, bytes: &[u8]) -> Result<(), StoreFull> {
        let frame = frames.insert(Bytes::copy_from_slice(bytes)).map_err(|_| StoreFull)?;
        self.queue.push_back(frame);
        Ok(())
    }

    /// Starts the next send if none is in flight; true when the ring had no room for it.
    pub fn flush<I: Io<Socket = OwnedFd>>(&mut self, io: &mut I, frames: &mut FrameStore) -> bool {
        if self.sending.is_some() || !self.usable() {
            return false;
        }
        let Some(frame) = self.next_frame(frames) else { return false };
        let loan = frames.lend(frame, 0);
        self.submit(io, frames, loan)
    }

    fn next_frame(&mut self, frames: &mut FrameStore) -> Option<FrameId> {
        if self.queue.len() > 1 {
            let mut bytes = 0;
            let fits = |frame: &&FrameId| {
                bytes += frames.bytes(**frame).len();
                bytes <= SEND_BYTES_MAX
            };
            let parts: Vec<FrameId> = self.queue.iter().take(GATHER_FRAMES_MAX).take_while(fits).copied().collect();
            if let Some(whole) = frames.gather(&parts) {
                self.queue.drain(..parts.len()).for_each(|frame| frames.release(frame));
                return Some(whole);
            }
        }
        self.queue.pop_front()
    }

    fn submit<I: Io<Socket = OwnedFd>>(&mut self, io: &mut I, frames: &mut FrameStore, loan: Loan) -> bool {
        let Some(socket) = &self.socket else {
            let frame = frames.give_back(loan);
            frames.release(frame);
            return false;
        };
        self.sending = Some(0);
        if let Err(loan) = io.send(self.key, socket, loan) {
            self.sending = None;
            self.queue.push_front(frames.give_back(loan));
            return true;
        }
        false
    }

    /// A send has ended; true when the ring had no room for what follows.
    pub fn on_sent<I: Io<Socket = OwnedFd>>(&mut self, io: &mut I, frames: &mut FrameStore, done: (Loan, Result<u32, Errno>)) -> bool {
        let (loan, result) = done;
        let start = self.sending.take().unwrap_or(0);
        let frame = frames.give_back(loan);
        match result {
            Ok(count) if start + count < frames.len_of(frame) && self.usable() => {
                let start = start + count;
                let rest = frames.lend(frame, start);
                let full = self.submit(io, frames, rest);
                if full {
                    // The start of what is left can't be kept in the queue: cut the frame instead.
                    let frame = self.queue.pop_front().expect("submit put it there");
                    let rest = Bytes::copy_from_slice(&frames.bytes(frame)[start as usize..]);
                    frames.release(frame);
                    let frame = frames.insert(rest).expect("one has just been released");
                    self.queue.push_front(frame);
                } else {
                    self.sending = Some(start);
                }
                full
            }
            Ok(_) => {
                frames.release(frame);
                self.flush(io, frames)
            }
            Err(errno) => {
                frames.release(frame);
                self.close(format!("send failed: {}", std::io::Error::from_raw_os_error(errno.0)));
                false
            }
        }
    }

    /// Notes why the link is of no more use; the first reason stands, and the server's own words go first.
    pub fn close(&mut self, reason: String) {
        let reason = self.page.bye.take().unwrap_or(reason);
        self.closed.get_or_insert(reason);
    }

    /// Lets go of a closed link's socket and queue once the kernel has.
    pub fn release(&mut self, frames: &mut FrameStore) {
        if self.closed.is_some() && !self.receiving && self.sending.is_none() {
            self.socket = None;
            self.queue.drain(..).for_each(|frame| frames.release(frame));
        }
    }
}
