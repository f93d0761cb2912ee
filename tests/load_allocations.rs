//! Once warm, the generator allocates nothing for a message: not when it writes one, not when it reads, checks and records one.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringroom::load::body::{Bodies, Stamp};
use ringroom::load::dialect::{Dialect, Event, Login, Tail, Target, Wanted};
use ringroom::load::ledger::{Ledger, Opening};
use ringroom::load::names::{Names, RunId};
use ringroom::load::page::{Membership, Page, Request};
use ringroom::load::plan::Role;
use ringroom::load::record::Phase;
use ringroom::memory::frames::FrameStore;

/// The system's allocator, which counts per thread (the test's own thread is the only one of interest).
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator as it came, and its answer is handed back; counting touches no memory of either.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this layout, for `alloc` above is the only source.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MEMBERS: u32 = 50;
const ROUND: u32 = 2_000;

struct Generator {
    dialect: Dialect,
    ledger: Ledger,
    pages: Vec<Page>,
    tails: Vec<Tail>,
    frames: FrameStore,
    out: Vec<u8>,
    arrived: Vec<u8>,
    sequence: u32,
}

impl Generator {
    fn new() -> Self {
        let run = RunId::new(7);
        let page = |connection| {
            let mut page = Page::new(connection, Role::Steady);
            let index = usize::try_from(connection).unwrap();
            page.memberships.push(Membership { room: 0, index, local_room: 0, owed: true, inbox: false });
            page
        };
        let mut ledger = Ledger::new(Opening {
            target: Target::Ringroom,
            lanes: 1,
            receivers: vec![MEMBERS],
            shared: vec![false],
            probed: vec![true],
            memberships: usize::try_from(MEMBERS).unwrap(),
            sample_every: 1,
        });
        ledger.interval.restart(Phase::Measured, 0);
        Self {
            dialect: Dialect::new(Target::Ringroom, Names::new(run, 1), Bodies::new(run, "64-700".parse().unwrap())),
            ledger,
            pages: (0..MEMBERS).map(page).collect(),
            tails: (0..MEMBERS).map(|_| Tail::default()).collect(),
            frames: FrameStore::new(64, 64),
            out: Vec::new(),
            arrived: Vec::new(),
            sequence: 0,
        }
    }

    /// A message written, sent, answered, and read by every member in pieces that cut it.
    fn message(&mut self) {
        let sender = self.sequence % MEMBERS;
        let stamp = Stamp {
            room: 0,
            lane: 0,
            sender,
            sequence: self.sequence,
            previous: (self.sequence + 1).saturating_sub(MEMBERS),
            intended_ns: u64::from(self.sequence),
        };
        let page = &mut self.pages[usize::try_from(sender).unwrap()];
        let request =
            Request { room: 0, sequence: stamp.sequence, intended_ns: stamp.intended_ns, handed_ns: 0, alone: false, answered: false };
        let id = self.ledger.enter(page, request);
        self.out.clear();
        self.dialect.publish(id, &stamp, &mut self.out);
        let frame = self.frames.insert_copy(&self.out).unwrap();
        self.frames.release(frame);
        self.ledger.on_event(page, Event::Sent { id: Some(id) }, 1_000_000);
        // As the server would send it on: the body, byte for byte, behind other fields.
        let body = self.out.windows(8).position(|bytes| bytes == br#""body":{"#).unwrap();
        let open =
            &br#"{"type":"message","room":"r0007-00000000","at":"9f2c.1732345678901-0","from":"u0007-00000001","ts":1732345678901,"#[..];
        let length = u32::try_from(open.len() + self.out.len() - body).unwrap();
        self.arrived.clear();
        self.arrived.extend_from_slice(&length.to_be_bytes());
        self.arrived.extend_from_slice(open);
        self.arrived.extend_from_slice(&self.out[body..]);
        for (page, tail) in self.pages.iter_mut().zip(&mut self.tails) {
            for piece in self.arrived.chunks(150) {
                let ledger = &mut self.ledger;
                self.dialect.decode(tail, piece, &mut |event| ledger.on_event(page, event, 2_000_000)).unwrap();
            }
        }
        self.sequence += 1;
    }
}

#[test]
fn a_warm_generator_allocates_nothing_per_message() {
    let mut generator = Generator::new();
    let mut login = Vec::new();
    generator.dialect.login(&Login { connection: 0, rooms: &[Wanted { room: 0, since: None }], inbox: false }, &mut login);
    (0..ROUND).for_each(|_| generator.message());
    let before = ALLOCATIONS.with(Cell::get);
    assert!(before > 0, "the counter does not count");
    (0..ROUND).for_each(|_| generator.message());
    assert_eq!(ALLOCATIONS.with(Cell::get), before);
    // It was real work.
    assert_eq!(generator.ledger.received, u64::from(2 * ROUND * MEMBERS));
    assert_eq!((generator.ledger.unanswered, generator.ledger.incidents.garbled), (0, 0));
}
