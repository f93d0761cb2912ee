//! The process's limits: open files and locked memory.
//!
//! Owns nothing. Raises a soft limit up to its hard one, which needs no right; never touches a hard limit.
#![allow(unsafe_code, reason = "getrlimit(2) and setrlimit(2) have no safe face in std")]

use std::fs;
use std::io;

/// A limit; [`Limit::INFINITY`] is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds now.
    pub soft: u64,
    /// What the process may raise it to.
    pub hard: u64,
}

impl Limit {
    pub const INFINITY: u64 = libc::RLIM_INFINITY;
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open descriptors (`ulimit -n`).
    Files,
    /// Bytes of locked memory (`ulimit -l`, there in KiB).
    LockedMemory,
}

impl Resource {
    #[cfg(target_env = "gnu")]
    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Resource::Files => libc::RLIMIT_NOFILE,
            Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }

    #[cfg(not(target_env = "gnu"))]
    fn number(self) -> libc::c_int {
        match self {
            Resource::Files => libc::RLIMIT_NOFILE,
            Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }
}

/// The limit as it stands.
pub fn read(resource: Resource) -> io::Result<Limit> {
    let mut raw = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `raw` is a live local that the call fills.
    let answer = unsafe { libc::getrlimit(resource.number(), &raw mut raw) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Limit { soft: raw.rlim_cur, hard: raw.rlim_max })
}

/// Raises the soft limit to the hard one and returns what holds then.
pub fn raise(resource: Resource) -> io::Result<Limit> {
    let limit = read(resource)?;
    if limit.soft == limit.hard {
        return Ok(limit);
    }
    let raw = libc::rlimit { rlim_cur: limit.hard, rlim_max: limit.hard };
    // SAFETY: `raw` is a live local that the call only reads.
    let answer = unsafe { libc::setrlimit(resource.number(), &raw const raw) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    read(resource)
}

/// The process may lock memory without limit (CAP_IPC_LOCK).
pub fn may_lock_any_memory() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| has_capability(&status, CAP_IPC_LOCK))
}

/// linux/capability.h
const CAP_IPC_LOCK: u32 = 14;

fn has_capability(status: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> capability & 1 == 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn raising_reaches_the_hard_limit_and_leaves_it() {
        let before = read(Resource::Files).unwrap();
        assert!(before.soft <= before.hard);
        let after = raise(Resource::Files).unwrap();
        assert_eq!(after, Limit { soft: before.hard, hard: before.hard });
        assert_eq!(read(Resource::Files).unwrap(), after);
        assert!(read(Resource::LockedMemory).unwrap().soft > 0);
    }

    #[test]
    fn a_capability_is_one_bit_of_the_effective_set() {
        let status = |hex: &str| format!("Name:\tx\nCapPrm:\tffffffffffffffff\nCapEff:\t{hex}\n");
        assert!(has_capability(&status("0000000000004000"), CAP_IPC_LOCK));
        assert!(has_capability(&status("000001ffffffffff"), CAP_IPC_LOCK));
        assert!(!has_capability(&status("ffffffffffffbfff"), CAP_IPC_LOCK));
        assert!(!has_capability("CapPrm:\tffffffffffffffff\n", CAP_IPC_LOCK));
        assert!(!has_capability(&status("zz"), CAP_IPC_LOCK));
    }
}
