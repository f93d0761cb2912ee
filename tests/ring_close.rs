//! The end of rings: nothing leaks, whatever is in flight. Alone in its process, because it counts descriptors; its tests take turns.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ring_support;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use ring_support::*;
use ringroom::ids::ShardId;
use ringroom::ring::{Bells, Completion, Errno, Io, ListenerId, Ring, Wait};
use ringroom::sys::sockets::{self, Listen};

fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A closed io_uring lets go of its files a little later, on a kernel thread.
fn wait_for_descriptors(count: usize) {
    let deadline = after(PATIENCE);
    while descriptors() != count {
        assert!(ringroom::sys::clock::monotonic_ns() < deadline, "{} descriptors, {count} before", descriptors());
        thread::yield_now();
    }
}

fn listener() -> OwnedFd {
    sockets::listener(Listen { address: "127.0.0.1:0".parse().unwrap(), notsent_lowat_bytes: 64 * 1024 }).unwrap()
}

#[test]
fn a_thousand_rings_with_everything_in_flight_leave_no_descriptor() {
    let _turn = alone();
    bounded(|| {
        features();
        let before = descriptors();
        for cycle in 0..1_000_u32 {
            let bells = Bells::new(2).unwrap();
            let listener = listener();
            let address = sockets::local_address(listener.as_fd()).unwrap();
            let mut ring = ring_with(|setup| {
                setup.entries = 16;
                setup.buffers = 4;
                setup.bells = bells.clone();
                setup.listeners = vec![listener];
            });
            let mut store = store();
            let (socket, peer) = connection();
            socket2::SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
            ring.accept(ListenerId(0)).unwrap();
            ring.receive_multishot(key(1, cycle), &socket).unwrap();
            ring.receive_once(key(2, cycle), &socket).unwrap();
            ring.send(key(1, cycle), &socket, loan(&mut store, &[1; 100_000])).unwrap();
            ring.ring(ShardId(1)).unwrap();
            // Some end before anything was submitted, some with an accepted socket that nobody has reaped.
            if cycle % 3 != 0 {
                ring.enter(Wait::No).unwrap();
            }
            let _visitor = TcpStream::connect(address).unwrap();
            if cycle % 3 == 2 {
                ring.prepare_park(after(PATIENCE)).unwrap();
            }
            drop(ring);
            drop((socket, peer));
        }
        wait_for_descriptors(before);
    });
}

/// A file that the kernel still held would keep the stream open: no end would be seen.
#[test]
fn when_a_ring_has_ended_closing_a_socket_ends_the_peers_stream() {
    let _turn = alone();
    let mut ring = ring_with(|_| {});
    let mut store = store();
    let (socket, mut peer) = connection();
    ring.receive_multishot(key(1, 1), &socket).unwrap();
    ring.send(key(1, 1), &socket, loan(&mut store, &vec![1; 8_000_000])).unwrap();
    submit(&mut ring);
    drop(ring);
    drop(socket);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(got.len() < 8_000_000);
}

/// Kernel threads that work for this thread's rings.
fn workers() -> usize {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let name = format!("iou-wrk-{}\n", own.file_name().unwrap().to_str().unwrap());
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm == name)).count()
}

/// A client that closes its side and does not read makes the kernel block its send on a thread of its own.
#[test]
fn readers_that_stop_hold_few_kernel_threads_and_none_when_the_ring_has_ended() {
    const READERS: u32 = 3 * Ring::WORKERS_MAX;
    let _turn = alone();
    bounded(|| {
        let before = descriptors();
        let mut ring = ring_with(|_| {});
        let mut store = store();
        let mut ends: Vec<_> = (0..READERS).map(|_| connection()).collect();
        for (slot, (socket, _)) in (0..READERS).zip(&ends) {
            ring.send(key(slot, 1), socket, loan(&mut store, &vec![1; 8_000_000])).unwrap();
        }
        submit(&mut ring);
        ends.iter_mut().for_each(|(_, peer)| peer.shutdown(std::net::Shutdown::Write).unwrap());
        let deadline = after(PATIENCE);
        while workers() < Ring::WORKERS_MAX as usize {
            assert!(ringroom::sys::clock::monotonic_ns() < deadline, "{} workers", workers());
            ring.enter(Wait::Until(after(std::time::Duration::from_millis(10)))).unwrap();
        }
        for _ in 0..20 {
            ring.enter(Wait::Until(after(std::time::Duration::from_millis(10)))).unwrap();
        }
        assert_eq!(workers(), Ring::WORKERS_MAX as usize);
        drop(ring);
        for (socket, mut peer) in ends {
            drop(socket);
            // No thread holds the socket any longer: the stream ends.
            let mut got = Vec::new();
            peer.read_to_end(&mut got).unwrap();
            assert!(got.len() < 8_000_000);
        }
        wait_for_descriptors(before);
    });
}

/// Connections pour in while the accept is cancelled again and again: each is either accepted, as a socket that can be closed, or still queued.
#[test]
fn an_accept_cancelled_under_load_closes_every_descriptor() {
    const VISITS: usize = 600;
    let _turn = alone();
    bounded(|| {
        features();
        let before = descriptors();
        let listener = listener();
        let address = sockets::local_address(listener.as_fd()).unwrap();
        let visitors: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn(move || {
                    for _ in 0..VISITS / 2 {
                        let mut visitor = TcpStream::connect(address).unwrap();
                        visitor.set_read_timeout(Some(PATIENCE)).unwrap();
                        // Whoever accepted closes at once; a descriptor that got lost would keep this open.
                        assert_eq!(visitor.read(&mut [0; 1]).unwrap(), 0);
                    }
                })
            })
            .collect();
        let mut ring = ring_with(|setup| setup.listeners = vec![listener]);
        let mut accepted = 0;
        let mut cancels = 0;
        while accepted < VISITS {
            ring.accept(ListenerId(0)).unwrap();
            ring.enter(Wait::No).unwrap();
            ring.cancel_accept(ListenerId(0)).unwrap();
            cancels += 1;
            loop {
                let Completion::Accepted { result, more, .. } = next(&mut ring) else { panic!("an accept was expected") };
                match result {
                    Ok(socket) => {
                        accepted += 1;
                        drop(socket);
                    }
                    Err(errno) => assert_eq!(errno, Errno(libc::ECANCELED)),
                }
                if !more {
                    break;
                }
            }
        }
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
        assert!(cancels > 1);
        drop(ring);
        wait_for_descriptors(before);
    });
}

/// Sockets that are accepted but not reaped when the ring ends are closed, not lost.
#[test]
fn sockets_nobody_reaped_are_closed_with_the_ring() {
    let _turn = alone();
    let listener = listener();
    let address = sockets::local_address(listener.as_fd()).unwrap();
    let mut ring = ring_with(|setup| setup.listeners = vec![listener]);
    ring.accept(ListenerId(0)).unwrap();
    ring.enter(Wait::No).unwrap();
    let mut visitors: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    while !ring.ready() {
        thread::yield_now();
    }
    ring.enter(Wait::No).unwrap();
    drop(ring);
    for visitor in &mut visitors {
        visitor.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(visitor.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

/// Out of descriptors, an accept ends with that error, and goes on when armed again after some have been freed.
#[test]
fn an_accept_without_descriptors_ends_and_can_be_armed_again() {
    let _turn = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut ring: Ring = ring_with(|setup| setup.listeners = vec![listener.into()]);
    let visitor = TcpStream::connect(address).unwrap();
    let old = set_descriptors_max(0);
    ring.accept(ListenerId(0)).unwrap();
    let starved = next(&mut ring);
    set_descriptors_max(old);
    assert!(matches!(starved, Completion::Accepted { result: Err(Errno(libc::EMFILE)), more: false, .. }), "{starved:?}");
    ring.accept(ListenerId(0)).unwrap();
    let Completion::Accepted { result, more, .. } = next(&mut ring) else { panic!("an accept was expected") };
    let peer = sockets::peer_address(result.unwrap().as_fd()).unwrap();
    assert!(more && peer == visitor.local_addr().unwrap());
}

/// Sets the soft limit of open files and gives back the old one.
fn set_descriptors_max(soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one live local.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let old = limit.rlim_cur;
    limit.rlim_cur = soft;
    // SAFETY: the call reads one live local.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    old
}
