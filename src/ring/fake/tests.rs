//! The fake itself: what it promises its users, shown with a small echo server in place of the reactor.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::ids::{Key, ShardId};
use crate::memory::frames::FrameStore;
use crate::ring::{Completion, Io, Wait};

const SHARD: ShardId = ShardId(0);
const LISTENER: ListenerId = ListenerId(0);

fn settings(seed: u64, rates: Rates) -> KernelSettings {
    KernelSettings {
        seed,
        shards: 1,
        listeners: 1,
        buffers: 4,
        buffer_bytes: 32,
        submissions: 8,
        rates,
        classify: |bytes| bytes.starts_with(b"hello").then_some(Stage::OpenIdle),
    }
}

struct Peer {
    socket: FakeSocket,
    key: Key,
    receiving: bool,
    sending: bool,
    ended: bool,
    queue: Vec<u8>,
}

/// Echoes what it reads; re-arms whatever ended; closes at the end of the stream.
struct Echo {
    io: FakeIo,
    store: FrameStore,
    peers: BTreeMap<u32, Peer>,
    next_slot: u32,
    accepting: bool,
}

impl Echo {
    fn new(kernel: &FakeKernel) -> Self {
        Self { io: kernel.io(SHARD), store: FrameStore::new(1024, 4), peers: BTreeMap::new(), next_slot: 0, accepting: false }
    }

    fn turn(&mut self) {
        while let Some(completion) = self.io.reap() {
            self.handle(completion);
        }
        self.accepting = self.accepting || self.io.accept(LISTENER).is_ok();
        let mut full = !self.accepting;
        for peer in self.peers.values_mut() {
            if !peer.receiving && !peer.ended {
                peer.receiving = self.io.receive_multishot(peer.key, &peer.socket).is_ok();
                full |= !peer.receiving;
            }
            if !peer.sending && !peer.queue.is_empty() {
                let Ok(frame) = self.store.insert(Bytes::from(std::mem::take(&mut peer.queue))) else { panic!("the store is full") };
                match self.io.send(peer.key, &peer.socket, self.store.lend(frame, 0)) {
                    Ok(()) => peer.sending = true,
                    Err(loan) => {
                        full = true;
                        let frame = self.store.give_back(loan);
                        peer.queue = self.store.bytes(frame).to_vec();
                        self.store.release(frame);
                    }
                }
            }
        }
        self.peers.retain(|_, peer| !peer.ended || peer.sending || peer.receiving || !peer.queue.is_empty());
        self.io.enter(if full { Wait::No } else { Wait::Until(u64::MAX) }).unwrap();
    }

    fn handle(&mut self, completion: Completion<FakeSocket>) {
        match completion {
            Completion::Accepted { result, more, .. } => {
                self.accepting = more;
                let Ok(socket) = result else { return };
                let key = Key { slot: self.next_slot, generation: 1 };
                self.next_slot += 1;
                self.peers.insert(key.slot, Peer { socket, key, receiving: false, sending: false, ended: false, queue: Vec::new() });
            }
            Completion::Received { key, result, more } => {
                let peer = self.peers.get_mut(&key.slot).unwrap();
                peer.receiving = more;
                match result {
                    Ok(Some(buffer)) => {
                        peer.queue.extend_from_slice(self.io.bytes(&buffer));
                        self.io.recycle(buffer);
                    }
                    Ok(None) => peer.ended = true,
                    Err(error) => peer.ended = error != progress::ENOBUFS,
                }
            }
            Completion::Sent { key, loan, result } => {
                let peer = self.peers.get_mut(&key.slot).unwrap();
                peer.sending = false;
                let frame = self.store.give_back(loan);
                let rest = match result {
                    Ok(sent) => self.store.bytes(frame)[usize::try_from(sent).unwrap()..].to_vec(),
                    Err(_) => {
                        peer.ended = true;
                        peer.queue.clear();
                        Vec::new()
                    }
                };
                peer.queue.splice(..0, rest);
                self.store.release(frame);
            }
            Completion::Doorbell => {}
        }
    }
}

/// Three clients send texts and read echoes; returns what each read, and the trace.
fn run(seed: u64, rates: Rates) -> (Vec<Vec<u8>>, u64, Table) {
    let kernel = FakeKernel::new(settings(seed, rates));
    let mut echo = Echo::new(&kernel);
    let clients: Vec<_> = (0..3).map(|_| kernel.connect(SHARD, LISTENER, 50)).collect();
    for (place, client) in clients.iter().enumerate() {
        for round in 0..20 {
            kernel.client_write(*client, format!("hello {place} {round};").as_bytes());
        }
        kernel.client_half_close(*client);
    }
    let mut echoes = vec![Vec::new(); clients.len()];
    let mut ended = vec![false; clients.len()];
    for _ in 0..100_000 {
        if kernel.is_awake(SHARD) {
            kernel.advance_to(kernel.now_ns() + 1_000);
            echo.turn();
        } else {
            kernel.advance_to(kernel.next_event_ns().unwrap_or_default());
        }
        for (place, client) in clients.iter().enumerate() {
            ended[place] |= kernel.client_read(*client, 7, &mut echoes[place]).is_some();
        }
        if ended.iter().all(|e| *e) && echo.peers.is_empty() {
            break;
        }
    }
    assert!(ended.iter().all(|e| *e), "every connection ends");
    (echoes, kernel.trace(), kernel.table())
}

fn expected(place: usize) -> Vec<u8> {
    (0..20).flat_map(|round| format!("hello {place} {round};").into_bytes()).collect()
}

#[test]
fn without_faults_every_byte_comes_back() {
    let (echoes, _, table) = run(1, Rates::quiet());
    for (place, echo) in echoes.iter().enumerate() {
        assert_eq!(*echo, expected(place));
    }
    assert!(table.cells[Fault::WindowFull as usize].iter().sum::<u64>() > 0, "a window of 50 bytes was full once");
}

#[test]
fn faults_cut_streams_short_but_never_reorder_them() {
    let mut table = Table::default();
    for seed in 0..200 {
        let rates = Rates::seeded(&mut Random::new(seed));
        let (echoes, _, faults) = run(seed, rates);
        table.add(&faults);
        for (place, echo) in echoes.iter().enumerate() {
            assert!(expected(place).starts_with(echo), "seed {seed}: {:?}", String::from_utf8_lossy(echo));
        }
    }
    for fault in [Fault::ReceiveSplit, Fault::SendShort, Fault::MultishotEnd, Fault::NoBuffersAtRandom, Fault::AcceptFailed, Fault::Delayed]
    {
        assert!(table.cells[fault as usize].iter().sum::<u64>() > 0, "{fault:?} was met");
    }
}

#[test]
fn a_seed_replays_exactly_and_another_one_differs() {
    let rates = || Rates::seeded(&mut Random::new(5));
    let (first, second, other) = (run(9, rates()), run(9, rates()), run(10, rates()));
    assert_eq!((first.0, first.1), (second.0, second.1));
    assert_ne!(first.1, other.1);
}

#[test]
fn a_doorbell_is_late_but_never_lost() {
    let mut rates = Rates::quiet();
    rates.set(Fault::BellDelayed, 1_000_000);
    let kernel = FakeKernel::new(settings(3, rates));
    let mut io = kernel.io(SHARD);
    io.enter(Wait::Until(u64::MAX)).unwrap();
    kernel.ring(SHARD);
    assert!(!kernel.is_awake(SHARD));
    kernel.advance_to(kernel.next_event_ns().unwrap());
    assert!(kernel.is_awake(SHARD));
    assert!(matches!(io.reap(), Some(Completion::Doorbell)));
}

#[test]
fn a_wait_ends_at_its_time() {
    let kernel = FakeKernel::new(settings(3, Rates::quiet()));
    let mut io = kernel.io(SHARD);
    let until_ns = kernel.now_ns() + 500;
    io.enter(Wait::Until(until_ns)).unwrap();
    assert!(!kernel.is_awake(SHARD));
    kernel.advance_to(until_ns);
    assert!(kernel.is_awake(SHARD));
}

// ---- breaches ---------------------------------------------------------------------------------------------------------------------------------------

/// A kernel with one accepted connection.
fn accepted() -> (FakeKernel, FakeIo, FakeSocket, ConnectionId) {
    let kernel = FakeKernel::new(settings(7, Rates::quiet()));
    let mut io = kernel.io(SHARD);
    let client = kernel.connect(SHARD, LISTENER, 1 << 16);
    io.accept(LISTENER).unwrap();
    io.enter(Wait::No).unwrap();
    let Completion::Accepted { result: Ok(socket), .. } = next(&kernel, &mut io) else { panic!("a connection") };
    (kernel, io, socket, client)
}

fn next(kernel: &FakeKernel, io: &mut FakeIo) -> Completion<FakeSocket> {
    for _ in 0..100 {
        if let Some(completion) = io.reap() {
            return completion;
        }
        kernel.advance_to(kernel.next_event_ns().unwrap());
        io.enter(Wait::No).unwrap();
    }
    panic!("no completion")
}

const KEY: Key = Key { slot: 5, generation: 1 };

#[test]
#[should_panic(expected = "io contract: two receives in flight")]
fn a_second_receive_is_a_breach() {
    let (_kernel, mut io, socket, _) = accepted();
    io.receive_once(KEY, &socket).unwrap();
    let _ = io.receive_multishot(KEY, &socket);
}

#[test]
#[should_panic(expected = "io contract: two receives in flight on Key")]
fn a_second_receive_before_the_cancelled_one_has_ended_is_a_breach() {
    let (_kernel, mut io, socket, _) = accepted();
    io.receive_multishot(KEY, &socket).unwrap();
    io.enter(Wait::No).unwrap();
    io.cancel_receive(KEY).unwrap();
    io.enter(Wait::No).unwrap();
    let _ = io.receive_multishot(KEY, &socket);
}

#[test]
#[should_panic(expected = "io contract: two sends in flight")]
fn a_second_send_is_a_breach() {
    let (_kernel, mut io, socket, _) = accepted();
    let mut store = FrameStore::new(8, 1);
    for _ in 0..2 {
        let frame = store.insert(Bytes::from_static(b"text")).unwrap();
        let _ = io.send(KEY, &socket, store.lend(frame, 0));
    }
}

#[test]
#[should_panic(expected = "is closed with an operation in flight")]
fn closing_under_an_operation_is_a_breach() {
    let (_kernel, mut io, socket, _) = accepted();
    io.receive_once(KEY, &socket).unwrap();
    drop(socket);
}

#[test]
#[should_panic(expected = "io contract: slot 5 is used as")]
fn using_a_slot_again_under_an_operation_is_a_breach() {
    let (kernel, mut io, socket, _) = accepted();
    io.receive_once(KEY, &socket).unwrap();
    kernel.connect(SHARD, LISTENER, 100);
    let Completion::Accepted { result: Ok(second), .. } = next(&kernel, &mut io) else { panic!("a connection") };
    let _ = io.receive_once(Key { generation: 2, ..KEY }, &second);
}

/// Memory that a test can write to while it is lent: the store itself does not let that happen.
struct Shared(std::sync::Arc<[std::sync::atomic::AtomicU8; 3]>);

impl AsRef<[u8]> for Shared {
    #[allow(unsafe_code, reason = "atomics seen as the bytes they are")]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: an `AtomicU8` has the layout of a `u8`; the one thread of the test does not write while a slice of it is in use.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len()) }
    }
}

#[test]
#[should_panic(expected = "changed while it was in flight")]
fn bytes_that_change_while_lent_are_a_breach() {
    let (kernel, mut io, socket, _) = accepted();
    let memory = std::sync::Arc::new([const { std::sync::atomic::AtomicU8::new(b'x') }; 3]);
    let mut store = FrameStore::new(8, 4);
    let frame = store.insert(Bytes::from_owner(Shared(std::sync::Arc::clone(&memory)))).unwrap();
    io.send(KEY, &socket, store.lend(frame, 0)).unwrap();
    io.enter(Wait::No).unwrap();
    memory[1].store(b'y', std::sync::atomic::Ordering::Relaxed);
    let _ = next(&kernel, &mut io);
}

#[test]
#[should_panic(expected = "recycled twice")]
fn recycling_a_buffer_twice_is_a_breach() {
    let (kernel, mut io, socket, client) = accepted();
    io.receive_once(KEY, &socket).unwrap();
    io.enter(Wait::No).unwrap();
    kernel.client_write(client, b"text");
    let Completion::Received { result: Ok(Some(buffer)), .. } = next(&kernel, &mut io) else { panic!("data") };
    let (id, len) = (buffer.id, buffer.len);
    io.recycle(buffer);
    io.recycle(crate::ring::Buffer { id, len });
}

#[test]
#[should_panic(expected = "were never recycled")]
fn losing_a_buffer_is_a_breach() {
    let (kernel, mut io, socket, client) = accepted();
    io.receive_once(KEY, &socket).unwrap();
    io.enter(Wait::No).unwrap();
    kernel.client_write(client, b"text");
    let _ = next(&kernel, &mut io);
    drop(socket);
    drop(io);
}

#[test]
#[should_panic(expected = "the server ended and left")]
fn an_operation_left_behind_is_a_breach() {
    let (kernel, _io, _socket, _) = accepted();
    kernel.assert_nothing_left();
}

#[test]
fn closing_with_unread_bytes_resets_the_client() {
    let (kernel, _io, socket, client) = accepted();
    kernel.client_write(client, b"unread");
    drop(socket);
    let mut bytes = Vec::new();
    assert_eq!(kernel.client_read(client, 100, &mut bytes), Some(End::Reset));
}
