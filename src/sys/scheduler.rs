//! How the kernel schedules a thread: policy, niceness and slice (sched_setattr(2)).
//!
//! Owns nothing. Used by the tuning lab on the threads of a server that it has started.
#![allow(unsafe_code, reason = "sched_setattr(2) has no safe face in std, libc or nix")]

use std::io;

/// What a thread is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Schedule {
    pub policy: Policy,
    /// -20 .. 19; not used by [`Policy::Fifo`].
    pub nice: i32,
    /// How long it runs at a time, nanoseconds (Linux 6.12); 0: the kernel's own.
    pub slice_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    #[default]
    Other,
    Batch,
    /// Real time, at the lowest priority.
    Fifo,
}

/// `struct sched_attr` of the kernel (include/uapi/linux/sched/types.h), first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = 48;
const _: () = assert!(std::mem::size_of::<Attributes>() == SIZE as usize);

/// Sets a thread's schedule; `thread` is the kernel's number of it, 0 the calling one.
pub fn set(thread: i32, schedule: Schedule) -> io::Result<()> {
    let fifo = schedule.policy == Policy::Fifo;
    let policy = match schedule.policy {
        Policy::Other => libc::SCHED_OTHER,
        Policy::Batch => libc::SCHED_BATCH,
        Policy::Fifo => libc::SCHED_FIFO,
    };
    let attributes = Attributes {
        size: SIZE,
        policy: u32::try_from(policy).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        flags: 0,
        nice: if fifo { 0 } else { schedule.nice },
        priority: u32::from(fifo),
        runtime: if fifo { 0 } else { schedule.slice_ns },
        deadline: 0,
        period: 0,
    };
    // SAFETY: `attributes` is a live local whose first field is its size (asserted above); the kernel reads it and writes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0_u32) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_as_nice_as_it_was_told_and_nonsense_is_refused() {
        let stat = || std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let nice = |stat: String| stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap();
        let seen = std::thread::spawn(move || {
            set(0, Schedule { policy: Policy::Batch, nice: 7, slice_ns: 0 }).unwrap();
            nice(stat())
        });
        assert_eq!(seen.join().unwrap(), 7);
        assert!(set(i32::MAX, Schedule::default()).is_err(), "no such thread");
    }
}
