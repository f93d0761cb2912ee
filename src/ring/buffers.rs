//! The shard's receive buffers: one ring of buffers shared with the kernel, which takes the next one when data has arrived and not before.
//!
//! Owns the buffers' memory and the ring of their descriptors, both mapped, so untouched buffers cost nothing. A buffer is either the kernel's or
//! *out* (with the caller, from [`BufferRing::take`] to [`BufferRing::recycle`]); `out` says which, and everything is checked against it, so a forged
//! or doubled [`Buffer`] is a panic and never a race with the kernel. Given-back buffers are published together, by one store, before each enter: with
//! deferred task work the kernel takes buffers only inside an enter of ours.
//!
//! The memory has to stay until the kernel has forgotten the group: [`super::real::Ring`] unregisters it first or leaks it.
#![allow(unsafe_code, reason = "memory shared with the kernel")]

use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;

use super::Buffer;
use super::op::BUFFER_GROUP;
use crate::limits::RECEIVE_BUFFER_BYTES;

/// Entries the kernel allows in one group.
pub(super) const BUFFERS_MAX: u16 = 1 << 15;

/// `struct io_uring_buf`; in entry 0 the last field is the ring's tail, so entries are written field by field and never whole.
#[repr(C)]
struct Descriptor {
    address: u64,
    len: u32,
    id: u16,
    tail: u16,
}

const _: () = assert!(size_of::<Descriptor>() == 16);

pub(super) struct BufferRing {
    descriptors: Mapping,
    memory: Mapping,
    entries: u16,
    /// Ours; the shared one follows at [`BufferRing::publish`].
    tail: u16,
    /// Given back since the last publish.
    unpublished: u16,
    /// With the kernel, published.
    left: u32,
    /// By buffer id: with the caller.
    out: Box<[bool]>,
}

impl BufferRing {
    /// All buffers are the kernel's once [`BufferRing::register`] has been called. `entries` is a power of two up to [`BUFFERS_MAX`].
    pub(super) fn new(entries: u16) -> io::Result<Self> {
        assert!(entries.is_power_of_two() && entries <= BUFFERS_MAX, "checked by the ring's set-up");
        let count = usize::from(entries);
        let mut ring = Self {
            descriptors: Mapping::new(count * size_of::<Descriptor>())?,
            memory: Mapping::new(count * RECEIVE_BUFFER_BYTES)?,
            entries,
            tail: 0,
            unpublished: 0,
            left: 0,
            out: vec![false; count].into_boxed_slice(),
        };
        (0..entries).for_each(|id| ring.append(id));
        ring.publish();
        Ok(ring)
    }

    /// Gives the group to the kernel.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.descriptors.start.as_ptr() as u64;
        // SAFETY: the mapping holds `entries` descriptors, page aligned, and lives as long as `self`; the ring's owner keeps `self` until the group
        // is unregistered or leaks it (Ring::drop).
        unsafe { submitter.register_buf_ring_with_flags(address, self.entries, BUFFER_GROUP, 0) }
    }

    /// The kernel put `len` bytes into buffer `id`: it is the caller's now.
    pub(super) fn take(&mut self, id: u16, len: u32) -> Buffer {
        let out = &mut self.out[usize::from(id)];
        assert!(!*out, "the kernel used a buffer it did not have");
        assert!(len as usize <= RECEIVE_BUFFER_BYTES);
        *out = true;
        self.left -= 1;
        Buffer { id, len }
    }

    pub(super) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        let (id, len) = (usize::from(buffer.id), buffer.len as usize);
        assert!(self.out[id], "this buffer is the kernel's");
        assert!(len <= RECEIVE_BUFFER_BYTES);
        // SAFETY: `out` has one flag per buffer, so id < entries and the offset lies inside the mapping.
        let start = unsafe { self.memory.start.add(id * RECEIVE_BUFFER_BYTES) };
        // SAFETY: the buffer's RECEIVE_BUFFER_BYTES are mapped and zeroed by mmap; while `out` is set its descriptor is not in the ring, so the kernel
        // does not write to it, and `recycle`, which changes that, takes `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), len) }
    }

    pub(super) fn recycle(&mut self, buffer: Buffer) {
        let out = &mut self.out[usize::from(buffer.id)];
        assert!(*out, "a buffer came back twice");
        *out = false;
        self.append(buffer.id);
    }

    /// Lets the kernel see what was given back.
    pub(super) fn publish(&mut self) {
        if self.unpublished == 0 {
            return;
        }
        self.left += u32::from(self.unpublished);
        self.unpublished = 0;
        self.shared_tail().store(self.tail, Ordering::Release);
    }

    /// With the kernel, or on the way there.
    pub(super) fn left(&self) -> u32 {
        self.left + u32::from(self.unpublished)
    }

    fn append(&mut self, id: u16) {
        let place = usize::from(self.tail & (self.entries - 1));
        // SAFETY: id < entries: from `new`, or checked against `out` by `recycle`.
        let buffer = unsafe { self.memory.start.add(usize::from(id) * RECEIVE_BUFFER_BYTES) };
        // SAFETY: place < entries by the mask, and the mapping holds that many descriptors.
        let descriptor = unsafe { self.descriptors.start.cast::<Descriptor>().add(place) }.as_ptr();
        let len = u32::try_from(RECEIVE_BUFFER_BYTES).expect("a buffer is far below 4 GiB");
        // SAFETY: inside the mapping, aligned (16-byte entries from a page boundary); the kernel reads no entry at or past the shared tail, and there
        // are never more than `entries` buffers in the ring (`out` admits each id once), so this place is not in use.
        unsafe { (*descriptor).address = buffer.as_ptr() as u64 };
        // SAFETY: as above.
        unsafe { (*descriptor).len = len };
        // SAFETY: as above; `tail`, the field behind, is left alone.
        unsafe { (*descriptor).id = id };
        self.tail = self.tail.wrapping_add(1);
        self.unpublished += 1;
    }

    fn shared_tail(&self) -> &AtomicU16 {
        let first = self.descriptors.start.cast::<Descriptor>().as_ptr();
        // SAFETY: entry 0 is inside the mapping; only the address of its field is taken.
        let tail = unsafe { &raw mut (*first).tail };
        // SAFETY: aligned for u16, mapped as long as `self`, and touched on this side through this function alone (`append` leaves the field out).
        unsafe { AtomicU16::from_ptr(tail) }
    }
}

impl fmt::Debug for BufferRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferRing").field("entries", &self.entries).field("left", &self.left()).finish_non_exhaustive()
    }
}

/// Anonymous memory from mmap(2): page aligned, zeroed, not touched until used.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping where the kernel likes; no existing memory is touched.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap(2) without MAP_FIXED never answers address 0");
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, once; borrows of it are tied to the owner's life, and the kernel's use has ended (module doc).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_buffer_is_the_callers_from_take_to_recycle() {
        let mut ring = BufferRing::new(4).expect("memory");
        assert_eq!(ring.left(), 4);
        let buffer = ring.take(2, 10);
        assert_eq!((ring.bytes(&buffer), ring.left()), (&[0_u8; 10][..], 3));
        ring.recycle(buffer);
        assert_eq!(ring.shared_tail().load(Ordering::Acquire), 4);
        ring.publish();
        assert_eq!((ring.left(), ring.shared_tail().load(Ordering::Acquire)), (4, 5));
    }

    #[test]
    fn the_tail_survives_the_rewriting_of_the_first_descriptor() {
        let mut ring = BufferRing::new(2).expect("memory");
        for turn in 0..70_000_u32 {
            let buffer = ring.take((turn % 2) as u16, 1);
            ring.recycle(buffer);
            ring.publish();
            assert_eq!(ring.shared_tail().load(Ordering::Acquire), ring.tail);
        }
    }

    #[test]
    fn forged_and_doubled_buffers_panic() {
        let mut ring = BufferRing::new(4).expect("memory");
        let refused = |f: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(f)).is_err();
        assert!(refused(&mut || ring.recycle(Buffer { id: 1, len: 0 })));
        assert!(refused(&mut || ring.recycle(Buffer { id: 4, len: 0 })));
        assert!(refused(&mut || {
            ring.bytes(&Buffer { id: 0, len: 1 });
        }));
        let buffer = ring.take(0, 5);
        assert!(refused(&mut || {
            ring.bytes(&Buffer { id: 0, len: 4096 });
        }));
        ring.recycle(buffer);
        assert!(refused(&mut || ring.recycle(Buffer { id: 0, len: 5 })));
    }
}
