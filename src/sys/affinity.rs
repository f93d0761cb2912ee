//! CPUs: which ones this process may use, pinning a thread, and lists of them as people write them (`0-3,6`).
//!
//! Owns nothing. Never widens what the process was given: pinning to a CPU outside the set is an error that names it.
#![allow(unsafe_code, reason = "sched_getaffinity(2) and sched_setaffinity(2) have no safe face in std")]

use std::fmt;
use std::io;
use std::mem;

/// A CPU as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cpu(pub u16);

impl Cpu {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// CPUs a `cpu_set_t` can name; a number at or above it is not a CPU here.
const CPUS_MAX: u16 = 1024;
const _: () = assert!(CPUS_MAX as usize == mem::size_of::<libc::cpu_set_t>() * 8);

/// Why a text is not a list of CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuListError {
    Empty,
    /// Not a number, or one at or above 1,024.
    NotACpu(String),
    /// `5-3`
    Backwards(String),
    Twice(Cpu),
}

impl fmt::Display for CpuListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the CPU list is empty; write it like 0-3,6"),
            Self::NotACpu(text) => write!(f, "{text:?} is not a CPU number (0 to {}); write the list like 0-3,6", CPUS_MAX - 1),
            Self::Backwards(text) => write!(f, "the CPU range {text:?} runs backwards; write the lower number first"),
            Self::Twice(cpu) => write!(f, "CPU {cpu} stands twice in the list; name each once"),
        }
    }
}

impl std::error::Error for CpuListError {}

/// Parses `0-3,6` into the CPUs in the order written. Blanks around numbers are allowed.
pub fn parse_list(text: &str) -> Result<Vec<Cpu>, CpuListError> {
    if text.trim().is_empty() {
        return Err(CpuListError::Empty);
    }
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (parse_cpu(first)?, parse_cpu(last)?),
            None => (parse_cpu(part)?, parse_cpu(part)?),
        };
        if first > last {
            return Err(CpuListError::Backwards(part.trim().into()));
        }
        for cpu in (first.0..=last.0).map(Cpu) {
            if cpus.contains(&cpu) {
                return Err(CpuListError::Twice(cpu));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

fn parse_cpu(text: &str) -> Result<Cpu, CpuListError> {
    let text = text.trim();
    // `u16::from_str` takes a plus sign, which nobody means here.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number < CPUS_MAX => Ok(Cpu(number)),
        _ => Err(CpuListError::NotACpu(text.into())),
    }
}

/// The CPUs the calling thread may run on, in rising order.
pub fn available() -> io::Result<Vec<Cpu>> {
    let mut set = empty_set();
    // SAFETY: `set` is a live local of exactly the size passed; pid 0 names the calling thread.
    let answer = unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw mut set) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..CPUS_MAX).map(Cpu).filter(|cpu| contains(&set, *cpu)).collect())
}

/// Lets the calling thread run on this CPU alone.
pub fn pin_current_thread(cpu: Cpu) -> io::Result<()> {
    pin_current_thread_to(&[cpu])
}

/// Lets the calling thread run on these CPUs alone.
pub fn pin_current_thread_to(cpus: &[Cpu]) -> io::Result<()> {
    let mut set = empty_set();
    for cpu in cpus {
        if cpu.0 >= CPUS_MAX {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the index is below CPUS_MAX, the number of bits of the set (checked above and by the constant assertion).
        unsafe { libc::CPU_SET(cpu.index(), &mut set) };
    }
    // SAFETY: `set` is a live local of exactly the size passed; pid 0 names the calling thread.
    let answer = unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const set) };
    if answer != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is an array of integers, for which all bits zero is a value (the empty set).
    unsafe { mem::zeroed() }
}

fn contains(set: &libc::cpu_set_t, cpu: Cpu) -> bool {
    // SAFETY: callers walk 0 .. CPUS_MAX, the number of bits of the set.
    unsafe { libc::CPU_ISSET(cpu.index(), set) }
}

/// Lowers the calling thread's priority: setpriority(2) of a thread's own id, as Linux has it. Raising it again takes a right.
pub fn be_nice(niceness: i32) -> io::Result<()> {
    // SAFETY: touches no memory; 0 is the calling thread.
    let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<u16> {
        parse_list(text).unwrap().into_iter().map(|cpu| cpu.0).collect()
    }

    #[test]
    fn lists_are_read_as_people_write_them() {
        assert_eq!(numbers("0"), [0]);
        assert_eq!(numbers("0-3,6"), [0, 1, 2, 3, 6]);
        assert_eq!(numbers("6, 0-1"), [6, 0, 1]);
        assert_eq!(numbers("1023"), [1023]);
        assert_eq!(numbers("5-5"), [5]);
    }

    #[test]
    fn a_bad_list_names_its_bad_part() {
        let not = |text: &str| CpuListError::NotACpu(text.into());
        assert_eq!(parse_list(""), Err(CpuListError::Empty));
        assert_eq!(parse_list("  "), Err(CpuListError::Empty));
        assert_eq!(parse_list("1,,2"), Err(not("")));
        assert_eq!(parse_list("a"), Err(not("a")));
        assert_eq!(parse_list("+1"), Err(not("+1")));
        assert_eq!(parse_list("1024"), Err(not("1024")));
        assert_eq!(parse_list("70000"), Err(not("70000")));
        assert_eq!(parse_list("-3"), Err(not("")));
        assert_eq!(parse_list("1-2-3"), Err(not("2-3")));
        assert_eq!(parse_list("3-1"), Err(CpuListError::Backwards("3-1".into())));
        assert_eq!(parse_list("0-3,2"), Err(CpuListError::Twice(Cpu(2))));
        assert!(parse_list("0-3,2").unwrap_err().to_string().contains("CPU 2"));
    }

    #[test]
    fn a_pinned_thread_may_use_that_cpu_alone() {
        let cpus = available().unwrap();
        let last = *cpus.last().unwrap();
        let seen = std::thread::spawn(move || {
            pin_current_thread(last).unwrap();
            available().unwrap()
        });
        assert_eq!(seen.join().unwrap(), [last]);
        assert_eq!(available().unwrap(), cpus);
    }

    #[test]
    fn pinning_to_a_cpu_that_is_not_there_fails() {
        let seen = std::thread::spawn(|| pin_current_thread(Cpu(1023)).is_err() && pin_current_thread(Cpu(u16::MAX)).is_err());
        assert!(seen.join().unwrap());
    }
}
