//! The clocks: monotonic for deadlines, wall for people, CPU time for figures.
//!
//! Owns nothing. Only the driver task and the tools read a clock; everything above them is handed a value ([`crate::ids::Now`]). Monotonic time
//! never goes back; wall time may, and is never compared with a deadline. Each call is one vDSO read or, for CPU time, one system call.
#![allow(unsafe_code, reason = "clock_gettime(2) has no safe face in std for these clocks")]

use crate::ids::Now;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// CLOCK_MONOTONIC, nanoseconds.
pub fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME, milliseconds since 1970.
pub fn unix_ms() -> u64 {
    read(libc::CLOCK_REALTIME) / 1_000_000
}

/// CPU time of the calling thread, nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of the whole process, all threads, nanoseconds.
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Both clocks at once.
pub fn now() -> Now {
    Now { mono_ns: monotonic_ns(), unix_ms: unix_ms() }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live local the call writes once; the four clock ids above exist on every Linux.
    let answer = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(answer, 0, "clock_gettime fails only for a clock that does not exist");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * NS_PER_SECOND + nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back() {
        let mut last = monotonic_ns();
        for _ in 0..10_000 {
            let next = monotonic_ns();
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn wall_time_is_in_milliseconds_since_1970() {
        let year_2020 = 1_577_836_800_000;
        let year_2200 = 7_258_118_400_000;
        assert!((year_2020..year_2200).contains(&unix_ms()));
    }

    #[test]
    fn work_uses_cpu_time_of_thread_and_process() {
        // In this order: what the thread does between the two calls counts for the process too.
        let (process, thread) = (process_cpu_ns(), thread_cpu_ns());
        let mut sum = 0_u64;
        while thread_cpu_ns() < thread + 1_000_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu_ns() >= process + 1_000_000);
    }
}
