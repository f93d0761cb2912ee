//! The server process seen from outside: which one it is, what CPU time and memory it has used.
//!
//! Reads /proc only, needs no right beyond being the same user (or root), and works for any server, so that others can be compared. A server
//! on another host, or one of another user, is simply not observed: `None`, never an error.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use hashbrown::HashSet;

/// A process that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
}

/// From /proc/PID/smaps_rollup, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    pub rss_bytes: u64,
    pub pss_bytes: u64,
}

impl Process {
    /// Who listens on `address`, if that is on this host and visible.
    pub fn listening_on(address: SocketAddr) -> Option<Self> {
        // Only an address of this host can be bound.
        UdpSocket::bind((address.ip(), 0)).ok()?;
        let mut inodes = HashSet::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = fs::read_to_string(table).unwrap_or_default();
            inodes.extend(text.lines().filter_map(|line| listener_inode(line, address)));
        }
        let named = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        let mut pids: Vec<u32> = fs::read_dir("/proc").ok()?.flatten().filter_map(named).collect();
        pids.sort_unstable();
        pids.into_iter().map(|pid| Process { pid }).find(|process| process.holds(&inodes))
    }

    fn holds(self, inodes: &HashSet<String>) -> bool {
        let Ok(descriptors) = fs::read_dir(self.path("fd")) else { return false };
        let target = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
        descriptors.flatten().filter_map(target).any(|link| link.to_str().is_some_and(|name| inodes.contains(name)))
    }

    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    pub fn exists(self) -> bool {
        self.path("stat").exists()
    }

    /// CPU time of all its threads, ns: from schedstat, or in steps of a clock tick from stat.
    pub fn cpu_ns(self) -> Option<u64> {
        self.cpu_ns_of_threads().or_else(|| self.cpu_ns_in_ticks())
    }

    fn cpu_ns_of_threads(self) -> Option<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(self.path("task")).ok()?.flatten() {
            // A thread may end while we read.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            sum += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
        }
        // Zero: the kernel does not keep it.
        (sum > 0).then_some(sum)
    }

    fn cpu_ns_in_ticks(self) -> Option<u64> {
        /// USER_HZ: 100 on every architecture this runs on.
        const TICK_NS: u64 = 10_000_000;
        let text = fs::read_to_string(self.path("stat")).ok()?;
        // The name in parentheses may hold blanks; utime and stime are fields 14 and 15.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some((ticks(11)? + ticks(12)?) * TICK_NS)
    }

    pub fn memory(self) -> Option<Memory> {
        let text = fs::read_to_string(self.path("smaps_rollup")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some(Memory { rss_bytes: field("Rss:")?, pss_bytes: field("Pss:")? })
    }
}

/// `socket:[inode]` of a line of /proc/net/tcp that is a listener on this port and address, or on all addresses.
fn listener_inode(line: &str, address: SocketAddr) -> Option<String> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (*fields.get(1)?, *fields.get(3)?, *fields.get(9)?);
    let (ip, port) = local.split_once(':')?;
    let same_port = u16::from_str_radix(port, 16).is_ok_and(|port| port == address.port());
    let everywhere = ip.bytes().all(|digit| digit == b'0');
    let same_ip = everywhere || ip.eq_ignore_ascii_case(&as_kernel_prints(address.ip()));
    (state == LISTEN && same_port && same_ip).then(|| format!("socket:[{inode}]"))
}

/// Addresses in /proc/net are words in host order, in hexadecimal.
fn as_kernel_prints(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let word = |chunk: &[u8]| format!("{:08X}", u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    bytes.chunks_exact(4).map(word).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;

    #[test]
    fn finds_this_process_by_its_listener() {
        for ip in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(ip) else { continue };
            let port = listener.local_addr().unwrap().port();
            let ask: SocketAddr = if ip.starts_with('[') { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") }.parse().unwrap();
            assert_eq!(Process::listening_on(ask), Some(Process { pid: std::process::id() }), "{ip}");
            drop(listener);
            assert_eq!(Process::listening_on(ask), None, "{ip}");
        }
    }

    #[test]
    fn an_address_of_another_host_is_not_observed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(Process::listening_on(format!("192.0.2.1:{port}").parse().unwrap()), None);
    }

    #[test]
    fn cpu_time_and_memory_can_be_read() {
        let own = Process { pid: std::process::id() };
        assert!(own.exists());
        assert!(own.cpu_ns_in_ticks().is_some());
        let before = own.cpu_ns().unwrap();
        let memory = own.memory().unwrap();
        assert!(memory.rss_bytes > 100_000 && memory.pss_bytes <= memory.rss_bytes, "{memory:?}");
        assert!(own.cpu_ns().unwrap() >= before);
    }
}
