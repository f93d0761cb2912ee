//! What the tests of the real ring share: a ring with its frame store on this thread, loopback connections, and waiting with a deadline.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ringroom::ids::{Key, ShardId};
use ringroom::memory::frames::{FrameStore, Loan};
use ringroom::ring::{Bells, Buffer, Completion, Errno, Features, Io, Ring, RingSetup, Wait, probe};
use ringroom::sys::clock;

/// No single wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn features() -> Features {
    static FEATURES: OnceLock<Features> = OnceLock::new();
    *FEATURES.get_or_init(|| probe().unwrap())
}

pub(crate) fn key(slot: u32, generation: u32) -> Key {
    Key { slot, generation }
}

pub(crate) fn soon() -> Wait {
    Wait::Until(after(PATIENCE))
}

pub(crate) fn after(time: Duration) -> u64 {
    clock::monotonic_ns() + u64::try_from(time.as_nanos()).unwrap()
}

/// A ring of shard 0 of its own process of one, changed by `change` before it is made.
pub(crate) fn ring_with(change: impl FnOnce(&mut RingSetup)) -> Ring {
    let mut setup = RingSetup::new(ShardId(0), features(), Bells::new(1).unwrap());
    setup.entries = 64;
    setup.buffers = 64;
    change(&mut setup);
    Ring::new(setup).unwrap()
}

pub(crate) fn ring_of(shard: u16, features: Features, bells: &Arc<Bells>) -> Ring {
    let mut setup = RingSetup::new(ShardId(shard), features, bells.clone());
    setup.entries = 64;
    setup.buffers = 64;
    Ring::new(setup).unwrap()
}

/// A loopback connection: the ring's end and the peer's.
pub(crate) fn connection() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_write_timeout(Some(PATIENCE)).unwrap();
    peer.set_nodelay(true).unwrap();
    (listener.accept().unwrap().0.into(), peer)
}

/// The next completion that is no doorbell.
pub(crate) fn next(ring: &mut Ring) -> Completion<OwnedFd> {
    let deadline = after(PATIENCE);
    loop {
        match ring.reap() {
            Some(Completion::Doorbell) => {}
            Some(completion) => return completion,
            None => {
                assert!(clock::monotonic_ns() < deadline, "no completion came");
                ring.enter(Wait::Until(deadline)).unwrap();
            }
        }
    }
}

/// A completion that is there without waiting.
pub(crate) fn next_now(ring: &mut Ring) -> Option<Completion<OwnedFd>> {
    // Twice: the first enter may submit what the second finds completed.
    for _ in 0..2 {
        ring.enter(Wait::No).unwrap();
        while let Some(completion) = ring.reap() {
            if !matches!(completion, Completion::Doorbell) {
                return Some(completion);
            }
        }
    }
    None
}

#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) key: Key,
    pub(crate) result: Result<Option<Buffer>, Errno>,
    pub(crate) more: bool,
}

pub(crate) fn next_received(ring: &mut Ring) -> Received {
    received(next(ring))
}

pub(crate) fn received(completion: Completion<OwnedFd>) -> Received {
    match completion {
        Completion::Received { key, result, more } => Received { key, result, more },
        other => panic!("expected a receive, got {other:?}"),
    }
}

/// The bytes of a receive, its buffer given back.
pub(crate) fn take(ring: &mut Ring, received: Received) -> Vec<u8> {
    let buffer = received.result.unwrap().unwrap();
    let bytes = ring.bytes(&buffer).to_vec();
    ring.recycle(buffer);
    bytes
}

/// Enters until everything queued is with the kernel.
pub(crate) fn submit(ring: &mut Ring) {
    while ring.pending() {
        ring.enter(Wait::No).unwrap();
    }
}

pub(crate) fn store() -> FrameStore {
    FrameStore::new(1024, 16)
}

pub(crate) fn loan(store: &mut FrameStore, bytes: &[u8]) -> Loan {
    let frame = store.insert(Bytes::copy_from_slice(bytes)).unwrap();
    store.lend(frame, 0)
}

pub(crate) fn give_back(store: &mut FrameStore, loan: Loan) {
    let frame = store.give_back(loan);
    store.release(frame);
}

/// Bytes that tell their place in the stream.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from((i * 31 + i / 256) % 251).unwrap()).collect()
}

pub(crate) fn write(peer: &mut TcpStream, bytes: &[u8]) {
    peer.write_all(bytes).unwrap();
}

/// Runs a test body on a thread of its own, so that one that hangs fails.
pub(crate) fn bounded(body: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        body();
        let _ = done.send(());
    });
    match wait.recv_timeout(PATIENCE * 3) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        _ => thread.join().unwrap(),
    }
}
