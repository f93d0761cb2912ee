//! The allocator's free memory, given back to the system.
//!
//! Owns nothing. Never to be called by a busy thread: the walk over the free lists takes the allocator's locks, and milliseconds on a large heap.
#![allow(unsafe_code, reason = "malloc_trim(3) has no safe face")]

/// Gives whole pages of freed memory back, also those between pieces in use. Does nothing with an allocator that is not glibc's.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: touches only memory that the allocator knows to be free, under its own locks.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
