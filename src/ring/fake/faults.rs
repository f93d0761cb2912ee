//! What the fake kernel can do to an operation, how often, and in which stage of a connection it did it.

use super::random::Random;

/// A fault, named by what the reactor sees of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Fault {
    /// A receive hands over fewer bytes than there are.
    ReceiveSplit,
    /// A send ends before its last byte.
    SendShort,
    /// A multishot receive ends for no reason.
    MultishotEnd,
    /// ENOBUFS although buffers are left (another thread's view of the ring was older).
    NoBuffersAtRandom,
    /// ENOBUFS because the pool is empty.
    NoBuffersEmpty,
    /// EMFILE, ENFILE or ECONNABORTED; the multishot accept ends.
    AcceptFailed,
    /// Data between a cancel and its end.
    DataAfterCancel,
    /// The cancel comes after the operation's own end.
    CancelTooLate,
    /// The cancel finds nothing although the operation goes on: it was just being handed to a worker. Only of connections that are being closed.
    CancelMissed,
    /// The cancelled send was a worker's: EINTR, not ECANCELED.
    CancelInterrupts,
    /// ECONNRESET seen by the receive first.
    ReceiveReset,
    /// EPIPE or ECONNRESET seen by the send first.
    SendBroken,
    /// The peer sends its end of stream and goes on reading.
    PeerHalfClose,
    /// The peer closes both ways.
    PeerClose,
    /// The peer resets.
    PeerReset,
    /// The peer's window is full; the send waits for it to read.
    WindowFull,
    /// The completion is seen seconds later.
    Delayed,
    /// The submission queue is full.
    QueueFull,
    /// A doorbell takes long.
    BellDelayed,
}

impl Fault {
    pub const COUNT: usize = 19;
    pub const ALL: [Fault; Self::COUNT] = [
        Fault::ReceiveSplit,
        Fault::SendShort,
        Fault::MultishotEnd,
        Fault::NoBuffersAtRandom,
        Fault::NoBuffersEmpty,
        Fault::AcceptFailed,
        Fault::DataAfterCancel,
        Fault::CancelTooLate,
        Fault::CancelMissed,
        Fault::CancelInterrupts,
        Fault::ReceiveReset,
        Fault::SendBroken,
        Fault::PeerHalfClose,
        Fault::PeerClose,
        Fault::PeerReset,
        Fault::WindowFull,
        Fault::Delayed,
        Fault::QueueFull,
        Fault::BellDelayed,
    ];
}

/// Where a connection stands, as the kernel can tell from its operations and the `classify` of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Stage {
    /// No connection of the server yet: in a listener's queue, or a fault of the shard as a whole.
    Outside,
    /// Accepted, nothing sent to it yet.
    Handshake,
    /// As before, but read at least once and without an operation: on its way to another shard.
    Moving,
    OpenIdle,
    OpenSending,
    /// Its receive is being cancelled.
    Cancelling,
    /// Its last object was handed to the kernel, or its writing side is shut down.
    Closing,
}

impl Stage {
    pub const COUNT: usize = 7;
    pub const ALL: [Stage; Self::COUNT] =
        [Stage::Outside, Stage::Handshake, Stage::Moving, Stage::OpenIdle, Stage::OpenSending, Stage::Cancelling, Stage::Closing];
}

/// How often each fault is rolled for, in parts per million of its occasions.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    parts_per_million: [u32; Fault::COUNT],
}

impl Rates {
    /// No faults.
    pub fn quiet() -> Self {
        Self::default()
    }

    /// Each fault off in a third of the seeds, else between rare and its own ceiling.
    pub fn seeded(random: &mut Random) -> Self {
        let mut rates = Self::quiet();
        for fault in Fault::ALL {
            let ceiling = ceiling(fault);
            let on = random.below(3) > 0;
            let rate = random.between(u64::from(ceiling) / 20, u64::from(ceiling));
            if on {
                rates.set(fault, u32::try_from(rate).expect("below the ceiling"));
            }
        }
        rates
    }

    pub fn set(&mut self, fault: Fault, parts_per_million: u32) {
        self.parts_per_million[fault as usize] = parts_per_million;
    }

    pub fn get(&self, fault: Fault) -> u32 {
        self.parts_per_million[fault as usize]
    }
}

/// The highest rate: often enough to be met in a run, rare enough that sessions live.
fn ceiling(fault: Fault) -> u32 {
    match fault {
        Fault::ReceiveSplit => 600_000,
        Fault::SendShort => 200_000,
        Fault::MultishotEnd => 100_000,
        Fault::NoBuffersAtRandom => 30_000,
        Fault::AcceptFailed => 200_000,
        Fault::DataAfterCancel | Fault::CancelInterrupts => 500_000,
        Fault::CancelMissed => 50_000,
        Fault::ReceiveReset | Fault::SendBroken => 2_000,
        Fault::Delayed => 2_000,
        Fault::QueueFull => 300_000,
        Fault::BellDelayed => 50_000,
        // Met by what the peers do, not rolled for.
        Fault::NoBuffersEmpty | Fault::CancelTooLate | Fault::PeerHalfClose | Fault::PeerClose | Fault::PeerReset | Fault::WindowFull => 0,
    }
}

/// How often each fault met a connection in each stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub cells: [[u64; Stage::COUNT]; Fault::COUNT],
}

impl Table {
    pub fn note(&mut self, fault: Fault, stage: Stage) {
        self.cells[fault as usize][stage as usize] += 1;
    }

    pub fn add(&mut self, other: &Table) {
        for (row, more) in self.cells.iter_mut().zip(&other.cells) {
            for (cell, count) in row.iter_mut().zip(more) {
                *cell += count;
            }
        }
    }
}
