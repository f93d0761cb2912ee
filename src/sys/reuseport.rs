//! Which of the listeners that share an address gets the next connections.
//!
//! Owns nothing. The kernel keeps the listeners of one address and user (SO_REUSEPORT) in a list, in the order in which they began to listen, and chooses
//! by a hash, or by a program that any of them may attach for all. When one closes, the last of the list takes its place.
#![allow(unsafe_code, reason = "SO_ATTACH_REUSEPORT_CBPF has no safe face in std or socket2")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// include/uapi/asm-generic/socket.h; libc does not have the second one for all targets.
const SO_ATTACH_REUSEPORT_CBPF: libc::c_int = 51;
const SO_DETACH_REUSEPORT_BPF: libc::c_int = 68;
/// include/uapi/linux/bpf_common.h: return a constant.
const BPF_RET_K: u16 = 0x06;

/// From now on the listener at `place` gets all new connections, as long as there is one at that place; where there is none, the hash chooses.
pub fn choose(listener: BorrowedFd<'_>, place: u32) -> io::Result<()> {
    let mut code = libc::sock_filter { code: BPF_RET_K, jt: 0, jf: 0, k: place };
    let program = libc::sock_fprog { len: 1, filter: &raw mut code };
    set(listener, SO_ATTACH_REUSEPORT_CBPF, (&raw const program).cast(), size_of::<libc::sock_fprog>())
}

/// The hash chooses again.
pub fn choose_none(listener: BorrowedFd<'_>) -> io::Result<()> {
    let unused: libc::c_int = 0;
    set(listener, SO_DETACH_REUSEPORT_BPF, (&raw const unused).cast(), size_of::<libc::c_int>())
}

fn set(socket: BorrowedFd<'_>, option: libc::c_int, value: *const libc::c_void, length: usize) -> io::Result<()> {
    let length = libc::socklen_t::try_from(length).expect("an option is a few bytes");
    // SAFETY: the descriptor is open while it is borrowed; `value` points to `length` bytes of a local of the caller, which the call reads (with the
    // program it names) and does not keep.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sys::sockets::{self, Listen};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};

    fn group(count: usize) -> (std::net::SocketAddr, Vec<OwnedFd>) {
        let mut address = "127.0.0.1:0".parse().unwrap();
        let mut all = Vec::new();
        for _ in 0..count {
            let listener = sockets::listener(Listen { address, notsent_lowat_bytes: 65_536 }).unwrap();
            address = sockets::local_address(listener.as_fd()).unwrap();
            all.push(listener);
        }
        (address, all)
    }

    fn waiting(listener: &OwnedFd) -> usize {
        let listener = TcpListener::from(listener.try_clone().unwrap());
        listener.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn all_go_to_the_chosen_place_until_none_is_chosen() {
        let (address, listeners) = group(3);
        choose(listeners[2].as_fd(), 1).unwrap();
        let clients: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(listeners.iter().map(waiting).collect::<Vec<_>>(), [0, 50, 0]);
        choose_none(listeners[0].as_fd()).unwrap();
        let more: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
        let spread: Vec<usize> = listeners.iter().map(waiting).collect();
        assert!(spread.iter().all(|count| *count > 0) && spread.iter().sum::<usize>() == 200, "{spread:?}");
        drop((clients, more));
    }

    /// What a takeover relies on: with as many new listeners as old ones, the first new one's place is never an old one's, in whatever order the old
    /// ones close.
    #[test]
    fn the_first_new_place_stays_a_new_one_while_the_old_ones_close() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let (address, mut all) = group(6);
            let new = all.split_off(3);
            let mut old: Vec<Option<OwnedFd>> = all.into_iter().map(Some).collect();
            choose(new[0].as_fd(), 3).unwrap();
            let mut clients = Vec::new();
            for index in order {
                clients.extend((0..30).map(|_| TcpStream::connect(address).unwrap()));
                assert_eq!(old.iter().flatten().map(waiting).sum::<usize>(), 0, "{order:?}");
                old[index] = None;
            }
            clients.extend((0..30).map(|_| TcpStream::connect(address).unwrap()));
            assert_eq!(new.iter().map(waiting).sum::<usize>(), 120);
        }
    }
}
