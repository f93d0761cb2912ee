//! The floor under a chat server: a bare relay with the same operations and no chat.
//!
//! One shard on the same [`Ring`] inside the same executor, with the same frame store, queues, gathered sends and sleep as the server; what
//! it leaves out is what chat costs: no check, no order, no timer, no JSON. It says just enough of the protocol for `ringroom load` to drive it
//! (`support/words.rs`): a canned `welcome`, `joined` and `sent`, and for each `send` a `message` of the same shape and length as the server's.
#![allow(dead_code, reason = "each bench is a crate of its own and uses its part")]

#[path = "../support/words.rs"]
mod words;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};
use ringroom::ids::{Key, ShardId};
use ringroom::limits::FRAME_BYTES_MAX;
use ringroom::memory::frames::{FrameStore, Loan};
use ringroom::memory::gathers::Gathers;
use ringroom::memory::queue::{Queue, QueuePool};
use ringroom::memory::slab::Slab;
use ringroom::protocol::frame::{Cut, cut};
use ringroom::ring::park::ParkFile;
use ringroom::ring::{self, Bells, Buffer, Completion, Errno, Io, ListenerId, Ring, RingSetup, Wait};
use ringroom::sys::clock::monotonic_ns;
use ringroom::sys::sockets::{self, Listen};
use words::Request;

/// As the server's defaults (`config`): the floor has no settings.
const BUFFERS: u16 = 2_048;
const FRAMES_MAX: u32 = 256 * 1024;
const GATHERS_MAX: u32 = 512;
const CHUNKS_MAX: u32 = 1024 * 1024;
const NOTSENT_LOWAT_BYTES: u32 = 64 * 1024;
const REAP_MAX: usize = 1_024;
/// As in `reactor/drive.rs`.
const PARK_AFTER_NS: u64 = 2_000_000_000;
const SLEEP_NS_MAX: u64 = 1_000_000_000;
const ARENA_BYTES: usize = 8 * 1024;
/// The server's hard mark, 1 MiB, in frames of the figures: a reader further behind is closed, so that an overload ends.
const QUEUE_FRAMES_MAX: u32 = 4_600;

/// A relay on a thread of its own.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    bells: Arc<Bells>,
    thread: ExecutorJoinHandle<Totals>,
}

/// What a relay has done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) turns: u64,
    pub(crate) enters: u64,
    pub(crate) sends: u64,
    pub(crate) deliveries: u64,
}

impl Relay {
    pub(crate) fn start(address: SocketAddr, cpu: Option<usize>) -> io::Result<Self> {
        let features = ring::probe().map_err(|error| io::Error::other(error.to_string()))?;
        let listener = sockets::listener(Listen { address, notsent_lowat_bytes: NOTSENT_LOWAT_BYTES })?;
        let address = sockets::local_address(listener.as_fd())?;
        let (bells, stop) = (Bells::new(1)?, Arc::new(AtomicBool::new(false)));
        let mut setup = RingSetup::new(ShardId(0), features, Arc::clone(&bells));
        setup.buffers = BUFFERS;
        setup.listeners = vec![listener];
        let stopped = Arc::clone(&stop);
        let thread = LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
            .name("floor")
            .io_memory(0)
            .ring_depth(64)
            .preempt_timer(Duration::from_secs(24 * 60 * 60))
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .spawn(move || async move { drive(setup, &stopped).await })
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { address, stop, bells, thread })
    }

    pub(crate) fn stop(self) -> Totals {
        self.stop.store(true, Ordering::Relaxed);
        self.bells.wake(ShardId(0));
        self.thread.join().expect("the relay's thread does not panic")
    }
}

async fn drive(setup: RingSetup, stop: &AtomicBool) -> Totals {
    let mut ring = Ring::new(setup).expect("a ring");
    let park = ParkFile::new(&ring).expect("an eventfd to park on");
    ring.accept(ListenerId(0)).expect("an empty submission queue has room");
    let mut turner = Turner { ring, core: Core::new(), retry: VecDeque::new(), gathers: Gathers::default(), totals: Totals::default() };
    let mut busy_ns = monotonic_ns();
    while !stop.load(Ordering::Relaxed) {
        let more = turner.turn();
        let now_ns = monotonic_ns();
        if more || turner.ring.pending() {
            busy_ns = now_ns;
        }
        let ring = &mut turner.ring;
        if more {
            ring.enter(Wait::No).expect("the ring works");
        } else if now_ns - busy_ns < PARK_AFTER_NS {
            ring.enter(Wait::Until(now_ns + SLEEP_NS_MAX)).expect("the ring works");
        } else {
            if ring.prepare_park(now_ns + SLEEP_NS_MAX).expect("the ring works") {
                park.wait().await.expect("the eventfd can be read");
            }
            ring.end_park();
        }
        glommio::executor().yield_if_needed().await;
    }
    turner.totals.enters = turner.ring.stats().enters;
    turner.totals.deliveries = turner.core.deliveries;
    turner.totals
}

/// The relay's side of the kernel.
struct Turner {
    ring: Ring,
    core: Core,
    retry: VecDeque<(Key, Loan)>,
    gathers: Gathers,
    totals: Totals,
}

impl Turner {
    /// One round; `true` when there is more to do.
    fn turn(&mut self) -> bool {
        self.totals.turns += 1;
        let mut more = true;
        for _ in 0..REAP_MAX {
            let Some(completion) = self.ring.reap() else {
                more = false;
                break;
            };
            match completion {
                Completion::Accepted { result: Ok(socket), .. } => self.core.take_in(socket),
                Completion::Accepted { result: Err(errno), .. } => panic!("accept failed with errno {}", errno.0),
                Completion::Received { key, result, more } => self.received(key, result, more),
                Completion::Sent { key, loan, result } => self.sent(key, loan, result),
                Completion::Doorbell => {}
            }
        }
        while let Some(key) = self.core.arm.pop_front() {
            let Some(peer) = self.core.peers.get_mut(key) else { continue };
            if self.ring.receive_multishot(key, &peer.socket).is_err() {
                self.core.arm.push_front(key);
                return true;
            }
            peer.receiving = true;
        }
        self.flush() || more
    }

    fn received(&mut self, key: Key, result: Result<Option<Buffer>, Errno>, more: bool) {
        if !more && let Some(peer) = self.core.peers.get_mut(key) {
            peer.receiving = false;
        }
        match result {
            Ok(Some(buffer)) => {
                self.core.bytes_in(key, self.ring.bytes(&buffer));
                self.ring.recycle(buffer);
            }
            Err(Errno(libc::ENOBUFS)) => {}
            Ok(None) | Err(_) => self.core.gone(key),
        }
        match self.core.peers.get(key) {
            Some(peer) if peer.gone => self.core.release(key),
            Some(peer) if !peer.receiving => self.core.arm.push_back(key),
            _ => {}
        }
    }

    /// Sends to every session that has something queued; `true` when the submission queue is full.
    fn flush(&mut self) -> bool {
        let full = self.send_all();
        self.gathers.forget(&mut self.core.frames);
        full
    }

    fn send_all(&mut self) -> bool {
        while let Some((key, loan)) = self.retry.pop_front() {
            if !self.submit(key, loan) {
                return true;
            }
        }
        while let Some(key) = self.core.dirty.pop_front() {
            let Some(peer) = self.core.peers.get_mut(key) else { continue };
            peer.dirty = false;
            if peer.sending || peer.queue.is_empty() {
                continue;
            }
            peer.sending = true;
            peer.send_start = 0;
            let next = self.gathers.next(&mut peer.queue, &mut self.core.queues, &mut self.core.frames);
            if !self.submit(key, next.loan) {
                return true;
            }
        }
        false
    }

    fn submit(&mut self, key: Key, loan: Loan) -> bool {
        let peer = self.core.peers.get(key).expect("a peer stays while its loan is out");
        match self.ring.send(key, &peer.socket, loan) {
            Ok(()) => self.totals.sends += 1,
            Err(loan) => {
                self.retry.push_front((key, loan));
                return false;
            }
        }
        true
    }

    fn sent(&mut self, key: Key, loan: Loan, result: Result<u32, Errno>) {
        let lent = loan.len();
        let frame = self.core.frames.give_back(loan);
        let peer = self.core.peers.get_mut(key).expect("a peer stays while its loan is out");
        match result {
            Ok(sent) if sent > 0 && sent < lent && !peer.gone => {
                peer.send_start += sent;
                let loan = self.core.frames.lend(frame, peer.send_start);
                return self.retry.push_back((key, loan));
            }
            Ok(sent) if sent > 0 => {}
            _ => peer.gone = true,
        }
        peer.sending = false;
        self.core.frames.release(frame);
        if peer.gone {
            self.core.release(key);
        } else if !peer.queue.is_empty() {
            self.core.mark_dirty(key);
        }
    }
}

/// A connection.
struct Peer {
    socket: OwnedFd,
    queue: Queue,
    receiving: bool,
    sending: bool,
    dirty: bool,
    gone: bool,
    send_start: u32,
    /// An incomplete frame.
    tail: Vec<u8>,
}

/// The relay without its kernel.
struct Core {
    peers: Slab<Peer>,
    frames: FrameStore,
    queues: QueuePool,
    rooms: Vec<Vec<Key>>,
    by_name: HashMap<Vec<u8>, usize>,
    dirty: VecDeque<Key>,
    arm: VecDeque<Key>,
    arena: BytesMut,
    deliveries: u64,
}

impl Core {
    fn new() -> Self {
        Self {
            peers: Slab::new(1 << Key::SLOT_BITS),
            frames: FrameStore::new(FRAMES_MAX, GATHERS_MAX),
            queues: QueuePool::new(CHUNKS_MAX),
            rooms: Vec::new(),
            by_name: HashMap::new(),
            dirty: VecDeque::new(),
            arm: VecDeque::new(),
            arena: BytesMut::new(),
            deliveries: 0,
        }
    }

    fn take_in(&mut self, socket: OwnedFd) {
        let (receiving, sending, dirty, gone) = (false, false, false, false);
        let peer = Peer { socket, queue: Queue::default(), receiving, sending, dirty, gone, send_start: 0, tail: Vec::new() };
        let key = self.peers.insert(peer).ok().expect("fewer peers than slots");
        self.arm.push_back(key);
    }

    fn bytes_in(&mut self, key: Key, bytes: &[u8]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.tail.is_empty() {
            let used = self.parse(key, bytes);
            self.keep(key, &bytes[used..]);
        } else {
            peer.tail.extend_from_slice(bytes);
            let tail = std::mem::take(&mut peer.tail);
            let used = self.parse(key, &tail);
            self.keep(key, &tail[used..]);
        }
    }

    fn keep(&mut self, key: Key, rest: &[u8]) {
        if !rest.is_empty()
            && let Some(peer) = self.peers.get_mut(key)
        {
            peer.tail.extend_from_slice(rest);
        }
    }

    fn parse(&mut self, key: Key, bytes: &[u8]) -> usize {
        let mut used = 0;
        while let Cut::Frame { json, rest } = cut(&bytes[used..], FRAME_BYTES_MAX) {
            self.object(key, json);
            used = bytes.len() - rest.len();
        }
        used
    }

    fn object(&mut self, key: Key, json: &[u8]) {
        match Request::read(json) {
            Some(Request::Send { id, room, body }) => self.relay(key, id, (room, body)),
            Some(Request::Join { id, room }) => {
                self.join(key, room);
                self.say(key, &words::joined(id, room));
            }
            Some(Request::Hello { user }) => {
                self.join(key, &words::inbox(user));
                self.say(key, &[words::WELCOME]);
            }
            Some(Request::Ping) => self.say(key, &[words::PONG]),
            None => self.gone(key),
        }
    }

    fn join(&mut self, key: Key, room: &[u8]) {
        let index = *self.by_name.entry(room.to_vec()).or_insert_with(|| {
            self.rooms.push(Vec::new());
            self.rooms.len() - 1
        });
        self.rooms[index].push(key);
    }

    /// The body to every member of the room, `sent` to its sender before it.
    fn relay(&mut self, key: Key, id: &[u8], (room, body): (&[u8], &[u8])) {
        self.say(key, &words::sent(id, room));
        let payload = self.pack(&words::message(room, body));
        let Some(index) = self.by_name.get(room).copied() else { return };
        let frame = self.frames.insert(payload).expect("the frame store has room");
        let mut taken = 0;
        // Backwards: releasing a peer takes it out of the list.
        for member in (0..self.rooms[index].len()).rev() {
            let Some(member) = self.rooms[index].get(member).copied() else { continue };
            let Some(peer) = self.peers.get_mut(member) else { continue };
            if peer.gone {
                continue;
            }
            if peer.queue.len() == QUEUE_FRAMES_MAX {
                self.gone(member);
                self.release(member);
                continue;
            }
            self.queues.push(&mut peer.queue, frame).expect("the queues have room");
            taken += 1;
            if !peer.sending {
                self.mark_dirty(member);
            }
        }
        self.frames.retain(frame, taken);
        self.frames.release(frame);
        self.deliveries += u64::from(taken);
    }

    fn say(&mut self, key: Key, parts: &[&[u8]]) {
        let payload = self.pack(parts);
        let Some(peer) = self.peers.get_mut(key) else { return };
        let frame = self.frames.insert(payload).expect("the frame store has room");
        self.queues.push(&mut peer.queue, frame).expect("the queues have room");
        if !peer.sending {
            self.mark_dirty(key);
        }
    }

    fn pack(&mut self, parts: &[&[u8]]) -> Bytes {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.arena.capacity() < len + 4 {
            self.arena = BytesMut::with_capacity(ARENA_BYTES.max(len + 4));
        }
        self.arena.extend_from_slice(&u32::try_from(len).expect("a small frame").to_be_bytes());
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        self.arena.split().freeze()
    }

    fn mark_dirty(&mut self, key: Key) {
        let peer = self.peers.get_mut(key).expect("found by the caller");
        if !peer.dirty {
            peer.dirty = true;
            self.dirty.push_back(key);
        }
    }

    fn gone(&mut self, key: Key) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.gone = true;
        }
    }

    /// Frees the slot when the kernel holds nothing of it.
    fn release(&mut self, key: Key) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.sending {
            // A send that waits for a reader ends with its socket.
            let _ = sockets::shutdown(peer.socket.as_fd(), std::net::Shutdown::Both);
            return;
        }
        // Ends the receive, whose last completion comes back here.
        let _ = sockets::shutdown(peer.socket.as_fd(), std::net::Shutdown::Both);
        if peer.receiving {
            return;
        }
        let frames = &mut self.frames;
        self.queues.clear(&mut peer.queue, |frame| frames.release(frame));
        self.peers.remove(key);
        for room in &mut self.rooms {
            room.retain(|member| *member != key);
        }
    }
}
