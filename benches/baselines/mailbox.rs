//! What waits to be written to one connection: frames in order, bounded by bytes, taken out as far as the socket took them.

use std::collections::VecDeque;
use std::ops::Deref;

/// The server's hard mark: a reader further behind is closed.
pub(crate) const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// The reader is too far behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// `F` is a counted pointer to the bytes of a frame: they are encoded once, whoever gets them.
#[derive(Debug)]
pub(crate) struct Mailbox<F> {
    frames: VecDeque<F>,
    /// Of the first frame, how much has been written.
    start: usize,
    bytes: usize,
}

impl<F> Default for Mailbox<F> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), start: 0, bytes: 0 }
    }
}

impl<F: Deref<Target = [u8]>> Mailbox<F> {
    pub(crate) fn push(&mut self, frame: F) -> Result<(), Full> {
        if self.bytes + frame.len() > QUEUE_BYTES_MAX {
            return Err(Full);
        }
        self.bytes += frame.len();
        self.frames.push_back(frame);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// What to write next: the one frame that is queued, or as many as `scratch` takes, gathered in it. Empty: nothing.
    pub(crate) fn next<'a>(&'a self, scratch: &'a mut [u8]) -> &'a [u8] {
        let Some(first) = self.frames.front() else { return &[] };
        let first = &first[self.start..];
        if self.frames.len() == 1 || first.len() >= scratch.len() {
            return first;
        }
        scratch[..first.len()].copy_from_slice(first);
        let mut end = first.len();
        for frame in self.frames.iter().skip(1) {
            let Some(place) = scratch.get_mut(end..end + frame.len()) else { break };
            place.copy_from_slice(frame);
            end += frame.len();
        }
        &scratch[..end]
    }

    /// Takes out up to `most` whole frames, of which the writer is then in charge.
    pub(crate) fn take(&mut self, most: usize) -> Vec<F> {
        let frames: Vec<F> = self.frames.drain(..most.min(self.frames.len())).collect();
        self.bytes -= frames.iter().map(|frame| frame.len()).sum::<usize>();
        frames
    }

    /// The socket took `count` bytes of what stands first.
    pub(crate) fn advance(&mut self, count: usize) {
        self.bytes -= count;
        self.start += count;
        while let Some(first) = self.frames.front()
            && self.start >= first.len()
        {
            self.start -= first.len();
            self.frames.pop_front();
        }
    }
}

/// Whatever the pieces the bytes are taken in, they come out as they went in.
pub(crate) fn check() {
    let mut mailbox = Mailbox::default();
    let frames: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; usize::from(n) * 7 % 50 + 1]).collect();
    for piece in [1, 3, 64, 1_000] {
        frames.iter().for_each(|frame| mailbox.push(std::rc::Rc::<[u8]>::from(frame.as_slice())).expect("far below the bound"));
        let (mut out, mut scratch) = (Vec::new(), [0; 64]);
        while !mailbox.is_empty() {
            let next = mailbox.next(&mut scratch);
            let taken = next.len().min(piece);
            out.extend_from_slice(&next[..taken]);
            mailbox.advance(taken);
        }
        assert_eq!(out, frames.concat());
        assert_eq!(mailbox.bytes, 0);
    }
    let large: std::rc::Rc<[u8]> = vec![0; QUEUE_BYTES_MAX / 2].into();
    assert_eq!([(); 3].map(|()| mailbox.push(large.clone())), [Ok(()), Ok(()), Err(Full)]);
}
