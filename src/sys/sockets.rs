//! Sockets as the ring wants them: blocking mode, closed on exec, every option that accepted sockets inherit set on the listener.
//!
//! Owns nothing; each call is one or a few system calls. Never sets O_NONBLOCK: io_uring answers EAGAIN at once on such a descriptor instead of
//! waiting. TCP_NODELAY, TCP_NOTSENT_LOWAT and the buffer sizes of an accepted socket come from its listener, so accept costs no further call.
#![allow(unsafe_code, reason = "TCP_INFO and IP_BIND_ADDRESS_NO_PORT have no safe face in std or socket2")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait for accept; the kernel cuts it to net.core.somaxconn.
pub const BACKLOG: i32 = 4096;

/// A listener to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    pub address: SocketAddr,
    /// TCP_NOTSENT_LOWAT: unsent bytes in the kernel above which a socket counts as not writable.
    pub notsent_lowat_bytes: u32,
}

/// Opens a listening socket that shares its port with the others of this process (SO_REUSEPORT): the kernel spreads connections over them.
pub fn listener(listen: Listen) -> io::Result<OwnedFd> {
    let socket = stream_socket(listen.address)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(listen.notsent_lowat_bytes)?;
    socket.bind(&listen.address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Fails with AddrInUse when somebody listens on `address`: binds *without* SO_REUSEPORT, which a second server's [`listener`] would pass over.
///
/// Call it before the first listener of this process. Sockets of an earlier run in TIME_WAIT do not count.
pub fn probe_port(address: SocketAddr) -> io::Result<()> {
    stream_socket(address)?.bind(&address.into())
}

/// The address a socket is bound to: with port 0, the port the kernel chose.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    inet(SockRef::from(&socket).local_addr()?)
}

/// Who is at the other end.
pub fn peer_address(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    inet(SockRef::from(&socket).peer_addr()?)
}

/// A connection that waits to be accepted; `None` when there is none. The listener answers at once from now on: no operation of a ring may wait on it.
pub fn accept_waiting(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let listener = SockRef::from(&listener);
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((socket, _)) => return Ok(Some(socket.into())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // The one in front has gone; the next one waits.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Binds a socket that is about to connect to a source address, and leaves the port to connect(2) (IP_BIND_ADDRESS_NO_PORT): a port can then be used
/// once per destination, not once in all.
pub fn bind_source(socket: &Socket, source: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four bytes");
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads `length` bytes of `on`, a live local, within the call.
    let answer =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, (&raw const on).cast(), length) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Bytes that the other end has acknowledged, the lower half of them: a fraction of a microsecond, and nothing in flight is disturbed.
#[allow(clippy::cast_possible_truncation, reason = "the lower half, as said")]
pub fn bytes_acked(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).expect("a few hundred bytes");
    // SAFETY: `info` is a live local of `length` bytes, into which the kernel writes that many at most.
    let answer =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers alone, for which zeroes and whatever the kernel writes are values.
    Ok(unsafe { info.assume_init() }.tcpi_bytes_acked as u32)
}

/// shutdown(2), on the spot: IORING_OP_SHUTDOWN always goes to a kernel worker thread.
pub fn shutdown(socket: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    SockRef::from(&socket).shutdown(how)
}

/// Ends both directions at once, and lets the kernel throw away what has not gone out when the socket is closed: it would else keep that for minutes, for a peer
/// that does not read.
pub fn abort(socket: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    socket.set_linger(Some(std::time::Duration::ZERO))?;
    socket.shutdown(Shutdown::Both)
}

/// Blocking and CLOEXEC, as socket2 makes them; an IPv6 socket takes IPv6 alone, so that `0.0.0.0` and `[::]` can both be listened on.
fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn inet(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    fn open(address: &str) -> OwnedFd {
        listener(Listen { address: address.parse().unwrap(), notsent_lowat_bytes: 64 * 1024 }).unwrap()
    }

    /// Open flags as the kernel prints them, in octal: the only safe way to see O_CLOEXEC.
    fn flags(fd: &impl AsRawFd) -> i32 {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(octal.trim(), 8).unwrap()
    }

    #[test]
    fn accepted_sockets_inherit_the_listeners_options_and_block() {
        let fd = open("127.0.0.1:0");
        assert_eq!(flags(&fd) & libc::O_NONBLOCK, 0);
        assert_eq!(flags(&fd) & libc::O_CLOEXEC, libc::O_CLOEXEC);
        let address = local_address(fd.as_fd()).unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (accepted, peer) = TcpListener::from(fd).accept().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(peer_address(accepted.as_fd()).unwrap(), peer);
        assert!(accepted.nodelay().unwrap());
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().unwrap(), 64 * 1024);
        assert_eq!(flags(&accepted) & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn listeners_share_a_port_but_a_second_server_is_refused() {
        let first = open("127.0.0.1:0");
        let address = local_address(first.as_fd()).unwrap();
        let second = listener(Listen { address, notsent_lowat_bytes: 1 << 16 }).unwrap();
        assert_eq!(probe_port(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((first, second));
        probe_port(address).unwrap();
    }

    #[test]
    fn connections_of_an_earlier_run_do_not_hold_the_port() {
        let fd = open("127.0.0.1:0");
        let address = local_address(fd.as_fd()).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let listener = TcpListener::from(fd);
        // The server closes first, so TIME_WAIT stands on its side.
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        drop((client, listener));
        probe_port(address).unwrap();
        open(&address.to_string());
    }

    #[test]
    fn both_families_can_take_one_port() {
        let four = open("0.0.0.0:0");
        let port = local_address(four.as_fd()).unwrap().port();
        // A machine without IPv6 has nothing to show here.
        if TcpListener::bind("[::1]:0").is_err() {
            return;
        }
        let six = open(&format!("[::]:{port}"));
        assert!(local_address(six.as_fd()).unwrap().is_ipv6());
    }

    #[test]
    fn all_that_wait_are_accepted_and_then_none() {
        let fd = open("127.0.0.1:0");
        let address = local_address(fd.as_fd()).unwrap();
        let mut clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        SockRef::from(&clients.remove(1)).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        let accepted: Vec<OwnedFd> = std::iter::from_fn(|| accept_waiting(fd.as_fd()).unwrap()).collect();
        // One that was reset in the queue may still be there, as a socket that says so.
        assert!((2..=3).contains(&accepted.len()));
        assert!(accepted.iter().all(|socket| flags(socket) & libc::O_NONBLOCK == 0 && flags(socket) & libc::O_CLOEXEC != 0));
        assert!(accept_waiting(fd.as_fd()).unwrap().is_none());
    }

    #[test]
    fn shutdown_ends_the_peers_stream() {
        let fd = open("127.0.0.1:0");
        let mut client = TcpStream::connect(local_address(fd.as_fd()).unwrap()).unwrap();
        let (accepted, _) = TcpListener::from(fd).accept().unwrap();
        shutdown(accepted.as_fd(), Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn an_aborted_socket_leaves_the_kernel_nothing_to_keep() {
        use std::io::Write;
        let fd = open("127.0.0.1:0");
        let mut client = TcpStream::connect(local_address(fd.as_fd()).unwrap()).unwrap();
        let (mut accepted, _) = TcpListener::from(fd).accept().unwrap();
        accepted.set_nonblocking(true).unwrap();
        while accepted.write(&[7; 65_536]).is_ok() {}
        abort(accepted.as_fd()).unwrap();
        drop(accepted);
        // What had arrived is read, then the reset: no orphan stands behind it and sends the rest.
        let mut arrived = Vec::new();
        let end = client.read_to_end(&mut arrived).unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
