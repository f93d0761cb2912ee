//! The real ring on real sockets: what goes in comes out once and in order, every buffer and every loan comes back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod ring_support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use ring_support::*;
use ringroom::memory::frames::FrameStore;
use ringroom::ring::{Completion, Errno, Features, Full, Io, ListenerId, Ring, Side, Wait};
use ringroom::sys::sockets::{self, Listen};

fn listener() -> OwnedFd {
    sockets::listener(Listen { address: "127.0.0.1:0".parse().unwrap(), notsent_lowat_bytes: 64 * 1024 }).unwrap()
}

/// An echo server for as many connections as come until `closed` of them have ended.
struct Echo {
    ring: Ring,
    store: FrameStore,
    sockets: HashMap<u32, OwnedFd>,
    slots: u32,
    ended: usize,
}

impl Echo {
    fn run(&mut self, closed: usize) {
        self.ring.accept(ListenerId(0)).unwrap();
        while self.ended < closed {
            let completion = next(&mut self.ring);
            self.handle(completion);
        }
    }

    fn handle(&mut self, completion: Completion<OwnedFd>) {
        match completion {
            Completion::Accepted { result, more, .. } => {
                assert!(more, "a multishot accept goes on");
                let socket = result.unwrap();
                self.slots += 1;
                // The first piece by a single receive, as before a login.
                self.ring.receive_once(key(self.slots, 1), &socket).unwrap();
                self.sockets.insert(self.slots, socket);
            }
            // One piece at a time per connection: the next is read when the echo is out.
            Completion::Received { key, result: Ok(Some(buffer)), more } => {
                assert!(!more);
                let loan = loan(&mut self.store, self.ring.bytes(&buffer));
                self.ring.recycle(buffer);
                self.ring.send(key, &self.sockets[&key.slot], loan).unwrap();
            }
            Completion::Received { key, result, more } => {
                assert!(!more && result.unwrap().is_none());
                self.sockets.remove(&key.slot);
                self.ended += 1;
            }
            Completion::Sent { key, loan, result } => {
                assert_eq!(result, Ok(loan.len()));
                give_back(&mut self.store, loan);
                self.ring.receive_once(key, &self.sockets[&key.slot]).unwrap();
            }
            Completion::Doorbell => {}
        }
    }
}

fn echoes_with(features: Features) {
    let listener = listener();
    let address = sockets::local_address(listener.as_fd()).unwrap();
    let clients: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                for round in 0..50 {
                    let sent = pattern(1 + (client * 977 + round * 331) % 9_000);
                    stream.write_all(&sent).unwrap();
                    let mut back = vec![0; sent.len()];
                    stream.read_exact(&mut back).unwrap();
                    assert!(back == sent);
                }
            })
        })
        .collect();
    let ring = ring_with(|setup| {
        setup.features = features;
        setup.listeners = vec![listener];
    });
    let mut echo = Echo { ring, store: store(), sockets: HashMap::new(), slots: 0, ended: 0 };
    echo.run(clients.len());
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(echo.ring.buffers_left(), 64);
    assert_eq!(echo.store.usage().frames, 0);
}

#[test]
fn an_echo_returns_every_byte_in_order() {
    bounded(|| echoes_with(features()));
}

#[test]
fn an_echo_returns_every_byte_in_order_on_the_least_kernel() {
    bounded(|| echoes_with(Features::LEAST));
}

#[test]
fn a_multishot_receive_goes_on_until_the_stream_ends() {
    let mut ring = ring_with(|_| {});
    let (socket, mut peer) = connection();
    ring.receive_multishot(key(7, 3), &socket).unwrap();
    for round in 1..=100_usize {
        write(&mut peer, &pattern(round * 7));
        let mut got = Vec::new();
        while got.len() < round * 7 {
            let received = next_received(&mut ring);
            assert!(received.more && received.key == key(7, 3));
            got.extend(take(&mut ring, received));
        }
        assert!(got == pattern(round * 7));
    }
    drop(peer);
    let last = next_received(&mut ring);
    assert!(matches!(last.result, Ok(None)) && !last.more);
    assert_eq!(ring.buffers_left(), 64);
}

#[test]
fn a_reset_is_told_from_the_end_of_the_stream() {
    let mut ring = ring_with(|_| {});
    let (socket, peer) = connection();
    ring.receive_multishot(key(0, 0), &socket).unwrap();
    socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(peer);
    let last = next_received(&mut ring);
    assert!(matches!(last.result, Err(Errno(libc::ECONNRESET))) && !last.more);
}

#[test]
fn our_shutdown_of_both_sides_ends_the_receive() {
    let mut ring = ring_with(|_| {});
    let (socket, mut peer) = connection();
    ring.receive_multishot(key(0, 0), &socket).unwrap();
    submit(&mut ring);
    ring.shutdown(&socket, Side::Both);
    let last = next_received(&mut ring);
    assert!(matches!(last.result, Ok(None)) && !last.more);
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
}

/// 100 senders and 4 buffers: receives end for want of buffers, and each goes on when buffers have come back, with nothing lost.
#[test]
fn receives_starved_of_buffers_go_on_when_buffers_return() {
    const SENDERS: u32 = 100;
    const PIECES: u8 = 5;
    let mut ring = ring_with(|setup| {
        setup.entries = 256;
        setup.buffers = 4;
    });
    let mut ends: Vec<_> = (0..SENDERS).map(|_| connection()).collect();
    for (slot, (socket, _)) in (0..SENDERS).zip(&ends) {
        ring.receive_multishot(key(slot, 1), socket).unwrap();
    }
    submit(&mut ring);
    let mut got = vec![Vec::new(); SENDERS as usize];
    for piece in 0..PIECES {
        ends.iter_mut().for_each(|(_, peer)| write(peer, &[piece; 100]));
        let mut held = Vec::new();
        let mut starved = Vec::new();
        while got.iter().any(|bytes: &Vec<u8>| bytes.len() < 100 * (usize::from(piece) + 1)) {
            // Buffers come back only when all are out or nothing else happens, so that receives starve for certain.
            let completion = next_now(&mut ring);
            if held.len() == 4 || completion.is_none() {
                held.drain(..).for_each(|buffer| ring.recycle(buffer));
                assert_eq!(ring.buffers_left(), 4);
                for key in starved.drain(..) {
                    ring.receive_multishot(key, &ends[key.slot as usize].0).unwrap();
                }
            }
            let Some(completion) = completion else { continue };
            let received = received(completion);
            match received.result {
                Ok(buffer) => {
                    let buffer = buffer.unwrap();
                    got[received.key.slot as usize].extend_from_slice(ring.bytes(&buffer));
                    held.push(buffer);
                }
                Err(errno) => {
                    assert_eq!(errno, Errno(libc::ENOBUFS));
                    assert!(!received.more, "a starved receive has ended");
                }
            }
            if !received.more {
                starved.push(received.key);
            }
        }
        held.drain(..).for_each(|buffer| ring.recycle(buffer));
        for key in starved {
            ring.receive_multishot(key, &ends[key.slot as usize].0).unwrap();
        }
    }
    let wanted: Vec<u8> = (0..PIECES).flat_map(|piece| [piece; 100]).collect();
    assert!(got.iter().all(|bytes| *bytes == wanted));
    assert!(ring.stats().enobufs > 0);
    assert_eq!(ring.buffers_left(), 4);
}

/// Data still comes after a cancel, the receive's own last completion closes it, and nothing comes between that and the next receive.
#[test]
fn a_cancelled_receive_delivers_its_data_and_then_ends() {
    bounded(|| {
        // Buffers enough for everything: only the cancel can end a receive.
        let mut ring = ring_with(|setup| setup.buffers = 1024);
        let (socket, mut peer) = connection();
        let sent = pattern(400_000);
        let copy = sent.clone();
        // The peer stays open: the end of the stream can't end a receive.
        let writer = thread::spawn(move || {
            write(&mut peer, &copy);
            peer
        });
        let mut got = Vec::new();
        let mut after_cancel = 0_u32;
        let mut generation = 0;
        while got.len() < sent.len() {
            generation += 1;
            ring.receive_multishot(key(3, generation), &socket).unwrap();
            let first = next_received(&mut ring);
            assert!(first.more);
            got.extend(take(&mut ring, first));
            ring.cancel_receive(key(3, generation)).unwrap();
            loop {
                let received = next_received(&mut ring);
                assert_eq!(received.key, key(3, generation));
                let more = received.more;
                match received.result {
                    Ok(Some(_)) => {
                        after_cancel += 1;
                        got.extend(take(&mut ring, received));
                    }
                    Err(errno) => assert!(errno == Errno(libc::ECANCELED) && !more),
                    Ok(None) => panic!("the stream has not ended"),
                }
                if !more {
                    break;
                }
            }
            assert!(next_now(&mut ring).is_none(), "a receive that has ended delivers nothing");
        }
        drop(writer.join().unwrap());
        assert!(got == sent);
        assert!(after_cancel > 0, "the case of data behind a cancel came up");
        assert_eq!(ring.buffers_left(), 1024);
    });
}

#[test]
fn cancels_that_find_nothing_are_silent() {
    let mut ring = ring_with(|setup| setup.listeners = vec![listener()]);
    ring.cancel_receive(key(1, 1)).unwrap();
    ring.cancel_send(key(1, 1)).unwrap();
    ring.cancel_accept(ListenerId(0)).unwrap();
    assert!(next_now(&mut ring).is_none());
    // The ring's own poll on its doorbell is all there is.
    assert_eq!(ring.in_flight(), 1);
}

/// A slot used again: what is left of its former life comes with the former generation.
#[test]
fn completions_keep_the_generation_they_were_submitted_with() {
    let mut ring = ring_with(|_| {});
    let (first, _first_peer) = connection();
    let (second, mut second_peer) = connection();
    ring.receive_multishot(key(5, 1), &first).unwrap();
    ring.cancel_receive(key(5, 1)).unwrap();
    ring.receive_multishot(key(5, 2), &second).unwrap();
    write(&mut second_peer, b"new");
    let mut seen = [next_received(&mut ring), next_received(&mut ring)];
    seen.sort_by_key(|received| received.key.generation);
    let [old, new] = seen;
    assert_eq!((old.key, new.key), (key(5, 1), key(5, 2)));
    assert!(matches!(old.result, Err(Errno(libc::ECANCELED))) && !old.more);
    assert_eq!(take(&mut ring, new), b"new");
}

#[test]
fn a_send_larger_than_every_socket_buffer_goes_out_whole_at_the_readers_pace() {
    bounded(|| {
        let mut ring = ring_with(|_| {});
        let mut store = store();
        let (socket, mut peer) = connection();
        socket2::SockRef::from(&socket).set_send_buffer_size(16_384).unwrap();
        socket2::SockRef::from(&peer).set_recv_buffer_size(16_384).unwrap();
        let sent = pattern(300_000);
        ring.send(key(9, 1), &socket, loan(&mut store, &sent)).unwrap();
        assert!(next_now(&mut ring).is_none(), "300 kB do not fit the sockets");
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            let mut piece = [0; 1_500];
            while got.len() < 300_000 {
                let count = peer.read(&mut piece).unwrap();
                got.extend_from_slice(&piece[..count]);
            }
            got
        });
        let Completion::Sent { key: at, loan, result } = next(&mut ring) else { panic!("a send was expected") };
        assert_eq!((at, result), (key(9, 1), Ok(300_000)));
        give_back(&mut store, loan);
        assert!(reader.join().unwrap() == sent);
        assert_eq!(store.usage().frames, 0);
    });
}

#[test]
fn a_cancelled_send_gives_its_loan_back_with_what_went_out() {
    let mut ring = ring_with(|_| {});
    let mut store = store();
    let (socket, mut peer) = connection();
    ring.send(key(9, 1), &socket, loan(&mut store, &pattern(16_000_000))).unwrap();
    assert!(next_now(&mut ring).is_none());
    ring.cancel_send(key(9, 1)).unwrap();
    let Completion::Sent { loan, result, .. } = next(&mut ring) else { panic!("a send was expected") };
    give_back(&mut store, loan);
    assert_eq!(store.usage().frames, 0);
    let out = match result {
        Ok(count) => count as usize,
        Err(errno) => {
            assert_eq!(errno, Errno(libc::ECANCELED));
            0
        }
    };
    drop(socket);
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(out < 16_000_000 && got == pattern(16_000_000)[..out]);
}

#[test]
fn sending_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
    let mut ring = ring_with(|_| {});
    let mut store = store();
    let (socket, peer) = connection();
    drop(peer);
    for _ in 0..2 {
        ring.send(key(1, 1), &socket, loan(&mut store, b"hello")).unwrap();
        let Completion::Sent { loan, result, .. } = next(&mut ring) else { panic!("a send was expected") };
        give_back(&mut store, loan);
        if let Err(errno) = result {
            assert!(matches!(errno, Errno(libc::EPIPE | libc::ECONNRESET)));
            return;
        }
    }
    panic!("the second send can't succeed: the first was answered by a reset");
}

#[test]
fn a_full_queue_refuses_without_loss_and_takes_again_after_an_enter() {
    let mut ring = ring_with(|setup| setup.entries = 8);
    let mut store = store();
    let ends: Vec<_> = (0..20).map(|_| connection()).collect();
    let mut refused = 0;
    for (slot, (socket, _)) in (0..20).zip(&ends) {
        if ring.receive_multishot(key(slot, 1), socket) == Err(Full) {
            refused += 1;
            let back = ring.send(key(slot, 1), socket, loan(&mut store, b"kept")).unwrap_err();
            assert_eq!(back.len(), 4);
            give_back(&mut store, back);
            assert_eq!(ring.cancel_receive(key(slot, 1)), Err(Full));
            ring.enter(Wait::No).unwrap();
            ring.receive_multishot(key(slot, 1), socket).unwrap();
        }
    }
    assert!(refused > 0 && ring.stats().full > 0);
    submit(&mut ring);
    // 20 receives and the doorbell's poll: the refused ones left no trace.
    assert_eq!((ring.in_flight(), store.usage().frames), (21, 0));
    for (slot, (_, mut peer)) in (0..20).zip(ends.iter().map(|(a, b)| (a, b.try_clone().unwrap()))) {
        write(&mut peer, b"x");
        let received = next_received(&mut ring);
        assert_eq!(received.key, key(slot, 1));
        assert_eq!(take(&mut ring, received), b"x");
    }
}

/// More completions than the queue holds: the kernel keeps them, and every one comes.
#[test]
fn nothing_is_lost_when_the_completion_queue_overflows() {
    const SOCKETS: u32 = 200;
    let mut ring = ring_with(|setup| {
        setup.entries = 8;
        setup.buffers = 1024;
    });
    let mut ends: Vec<_> = (0..SOCKETS).map(|_| connection()).collect();
    for (slot, (socket, _)) in (0..SOCKETS).zip(&ends) {
        while ring.receive_multishot(key(slot, 1), socket).is_err() {
            ring.enter(Wait::No).unwrap();
        }
    }
    submit(&mut ring);
    ends.iter_mut().for_each(|(_, peer)| write(peer, b"once"));
    while ring.stats().overflows == 0 {
        ring.enter(soon()).unwrap();
        assert!(ring.stats().enters < 10_000, "64 completions of 200 fit, so the queue has to overflow");
    }
    let mut seen = vec![0; SOCKETS as usize];
    while seen.contains(&0) {
        // Without waiting: what the kernel holds back has to come for a mere turn.
        let received = received(next_now(&mut ring).expect("the kernel holds more completions"));
        seen[received.key.slot as usize] += 1;
        // Receives may have ended under such pressure, with their data; the reactor would arm them again.
        assert_eq!(take(&mut ring, received), b"once");
    }
    assert!(next_now(&mut ring).is_none());
    assert!(seen.iter().all(|count| *count == 1));
}

#[test]
fn an_idle_turn_makes_no_system_call() {
    let mut ring = ring_with(|_| {});
    let (socket, _peer) = connection();
    ring.receive_multishot(key(1, 1), &socket).unwrap();
    submit(&mut ring);
    let before = ring.stats().enters;
    for _ in 0..100 {
        ring.enter(Wait::No).unwrap();
        assert!(ring.reap().is_none() && !ring.ready());
    }
    assert_eq!(ring.stats().enters, before);
}

#[test]
fn a_wait_ends_at_its_deadline_and_not_before() {
    let mut ring = ring_with(|_| {});
    ring.enter(Wait::No).unwrap();
    for ms in [0, 1, 15] {
        let deadline = after(std::time::Duration::from_millis(ms));
        while ringroom::sys::clock::monotonic_ns() < deadline {
            ring.enter(Wait::Until(deadline)).unwrap();
            assert!(ring.reap().is_none());
        }
        assert!(ring.now().mono_ns >= deadline);
    }
    // Three waits, none of them spinning; a signal may end one early.
    assert!(ring.stats().enters < 20, "{:?}", ring.stats());
}
