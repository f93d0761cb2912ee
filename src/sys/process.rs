//! Other processes of this host: who listens on an address, asking one to end, waiting for its end.
//!
//! Owns a descriptor of the process it names ([`Process`]), so that a number that has gone to somebody else meanwhile is never signalled. Reads `/proc`;
//! what this user may not see there counts as not there.
#![allow(unsafe_code, reason = "pidfd_open(2), pidfd_send_signal(2) and poll(2) have no safe face in std")]

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A listening TCP socket of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    pub inode: u64,
    /// The user who opened it.
    pub user: u32,
}

/// The sockets that listen on exactly this address, port and family.
pub fn listening(address: SocketAddr) -> io::Result<Vec<Listening>> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let wanted = as_the_kernel_writes(address);
    Ok(fs::read_to_string(table)?.lines().skip(1).filter_map(|line| listens(line, &wanted)).collect())
}

/// `sl local_address rem_address st queues timer retransmits uid timeout inode ..`; state 0A is LISTEN.
fn listens(line: &str, wanted: &str) -> Option<Listening> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, "0A", _, _, _, user, _, inode, ..] = fields[..] else { return None };
    (local == wanted).then_some(())?;
    Some(Listening { inode: inode.parse().ok()?, user: user.parse().ok()? })
}

/// The address as 32-bit words in the machine's byte order, the port as a number, all in hexadecimal.
fn as_the_kernel_writes(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().expect("chunks of four")));
    let words: String = words.map(|word| format!("{word:08X}")).collect();
    format!("{words}:{:04X}", address.port())
}

/// The processes that hold one of these sockets open, as far as this user may see.
pub fn holders(inodes: &[u64]) -> io::Result<Vec<u32>> {
    let names: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let mut targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        if targets.any(|target| target.to_str().is_some_and(|target| names.iter().any(|name| name == target))) {
            holders.push(number);
        }
    }
    Ok(holders)
}

/// What the process calls itself, cut to 15 bytes by the kernel.
pub fn name_of(number: u32) -> io::Result<String> {
    Ok(fs::read_to_string(format!("/proc/{number}/comm"))?.trim_end().to_owned())
}

/// This process's effective user.
pub fn user() -> u32 {
    // SAFETY: geteuid(2) takes nothing and can't fail.
    unsafe { libc::geteuid() }
}

/// A process that keeps its identity: a number can go to another one.
#[derive(Debug)]
pub struct Process {
    number: u32,
    descriptor: OwnedFd,
}

impl Process {
    pub fn open(number: u32) -> io::Result<Self> {
        let pid = libc::pid_t::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        // SAFETY: pidfd_open(2) takes a number and flags, none here.
        let outcome = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let raw = i32::try_from(outcome).ok().filter(|raw| *raw >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the call has just returned this descriptor, and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { number, descriptor })
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    /// SIGTERM.
    pub fn terminate(&self) -> io::Result<()> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open; without a siginfo the kernel fills in what kill(2) would; there are no flags.
        let outcome = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.descriptor.as_raw_fd(), libc::SIGTERM, none, 0) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits for its end, at most this long; `true` when it has ended. A signal to this process may end the wait early.
    pub fn ended_within(&self, wait: Duration) -> bool {
        let mut poll = libc::pollfd { fd: self.descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let wait_ms = libc::c_int::try_from(wait.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `poll` is one live local.
        let ready = unsafe { libc::poll(&raw mut poll, 1, wait_ms) };
        ready > 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    #[test]
    fn a_listener_is_found_with_its_user_and_its_process() {
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to show here.
            let Ok(listener) = TcpListener::bind(bound) else { continue };
            let address = listener.local_addr().unwrap();
            let client = TcpStream::connect(address).unwrap();
            let found = listening(address).unwrap();
            assert_eq!(found.len(), 1, "the connection is no listener: {found:?}");
            assert_eq!(found[0].user, user());
            assert_eq!(holders(&[found[0].inode]).unwrap(), [std::process::id()]);
            drop((listener, client));
            assert_eq!(listening(address).unwrap(), []);
        }
        assert!(holders(&[]).unwrap().is_empty());
        assert!(!name_of(std::process::id()).unwrap().is_empty());
    }

    #[test]
    fn a_process_is_asked_to_end_and_its_end_is_seen() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(!process.ended_within(Duration::ZERO));
        process.terminate().unwrap();
        assert!(process.ended_within(Duration::from_secs(20)));
        assert!(!child.wait().unwrap().success());
        assert!(process.terminate().is_err(), "it is gone, and its number may be somebody else's");
    }
}
