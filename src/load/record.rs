//! What is counted: histograms and counters of one second of one thread, and their sums.
//!
//! A worker owns one [`Interval`] at a time, hands it whole to the reporter and gets an empty one back, so nothing is shared while it is
//! written and nothing is allocated per message. Histograms are in nanoseconds, 3 digits, up to a minute; longer values are recorded as a
//! minute and so never vanish.

use hdrhistogram::Histogram;

/// Longer latencies count as this.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What is timed; [`Name::text`] is the word for it everywhere (see `report/FORMAT.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    RoomDelivery,
    RoomLast,
    RoomSpread,
    DirectDelivery,
    Sent,
    /// From the hand-over, and only for messages sent while the connection waited for no other answer: what clients that wait for each answer would
    /// have reported. It hides stalls, and stands beside `Sent` to show by how much.
    Uncorrected,
    Lateness,
    Connect,
    Reconnect,
    History,
    Probe,
    /// Deliveries of the bulk in the rooms that probes read too.
    Probed,
}

impl Name {
    pub const ALL: [Name; 12] = [
        Name::RoomDelivery,
        Name::RoomLast,
        Name::RoomSpread,
        Name::DirectDelivery,
        Name::Sent,
        Name::Uncorrected,
        Name::Lateness,
        Name::Connect,
        Name::Reconnect,
        Name::History,
        Name::Probe,
        Name::Probed,
    ];

    pub fn text(self) -> &'static str {
        match self {
            Self::RoomDelivery => "room.delivery",
            Self::RoomLast => "room.last",
            Self::RoomSpread => "room.spread",
            Self::DirectDelivery => "dm.delivery",
            Self::Sent => "sent",
            Self::Uncorrected => "uncorrected",
            Self::Lateness => "lateness",
            Self::Connect => "connect",
            Self::Reconnect => "reconnect",
            Self::History => "history",
            Self::Probe => "probe",
            Self::Probed => "probed",
        }
    }

    fn place(self) -> usize {
        // In the order of declaration, which is that of `ALL`.
        self as usize
    }
}

/// The name of both kinds of delivery together.
pub const DELIVERY: &str = "delivery";

/// The histograms of a run, a second, or a thread.
#[derive(Clone, Debug)]
pub struct Histograms {
    all: Vec<Histogram<u64>>,
}

impl Histograms {
    pub fn new() -> Self {
        Self { all: std::iter::repeat_with(empty).take(Name::ALL.len()).collect() }
    }

    pub fn record(&mut self, name: Name, ns: u64) {
        self.all[name.place()].saturating_record(ns);
    }

    pub fn of(&self, name: Name) -> &Histogram<u64> {
        &self.all[name.place()]
    }

    pub fn of_mut(&mut self, name: Name) -> &mut Histogram<u64> {
        &mut self.all[name.place()]
    }

    /// Deliveries in rooms and direct messages together.
    pub fn delivery(&self) -> Histogram<u64> {
        let mut sum = self.of(Name::RoomDelivery).clone();
        sum.add(self.of(Name::DirectDelivery)).expect("same bounds");
        sum
    }

    /// Those with samples, in the order they are shown, [`DELIVERY`] first.
    pub fn named(&self) -> Vec<(&'static str, std::borrow::Cow<'_, Histogram<u64>>)> {
        use std::borrow::Cow;
        let mut named = vec![(DELIVERY, Cow::Owned(self.delivery()))];
        named.extend(Name::ALL.into_iter().map(|name| (name.text(), Cow::Borrowed(self.of(name)))));
        named.retain(|(_, histogram)| !histogram.is_empty());
        named
    }

    pub fn add(&mut self, other: &Self) {
        for (sum, part) in self.all.iter_mut().zip(&other.all).filter(|(_, part)| !part.is_empty()) {
            sum.add(part).expect("same bounds");
        }
    }

    pub fn clear(&mut self) {
        self.all.iter_mut().filter(|histogram| !histogram.is_empty()).for_each(Histogram::reset);
    }
}

/// A histogram as all of them are.
pub fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds and digits are within what the crate takes")
}

impl Default for Histograms {
    fn default() -> Self {
        Self::new()
    }
}

/// A later delivery is counted as late.
pub const LATE_NS: u64 = 1_000_000_000;

/// Events of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Messages due by the schedule.
    pub offered: u64,
    /// Messages handed to a connection.
    pub sent: u64,
    /// `sent` answers.
    pub answered: u64,
    /// First arrivals at a receiver.
    pub delivered: u64,
    /// `error` answers.
    pub refused: u64,
    /// Delivered more than [`LATE_NS`] after they were due.
    pub late: u64,
    pub doubled: u64,
    pub out_of_order: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.sent += other.sent;
        self.answered += other.answered;
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.late += other.late;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
    }
}

/// Where in the run a time falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Warmup,
    Measured,
    /// After the last send: waiting for what is on its way. Its arrivals belong to the measured messages.
    Grace,
}

/// One second (or what is left of a phase) of one thread.
#[derive(Debug)]
pub struct Interval {
    pub phase: Phase,
    /// Nanoseconds since the start of the run.
    pub start_ns: u64,
    pub end_ns: u64,
    pub histograms: Histograms,
    pub counts: Counts,
    /// Connections open at its end.
    pub open: u64,
    /// Messages that this thread's receivers of a room all have, where other threads have receivers of it too.
    pub partials: Vec<Partial>,
}

/// What one thread knows about the arrivals of a message; times on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    pub room: u32,
    pub lane: u16,
    pub sequence: u32,
    pub due_ns: u64,
    pub first_ns: u64,
    pub last_ns: u64,
}

/// Partials of one interval; beyond it messages are not watched any longer, which is counted.
pub const PARTIALS_MAX: usize = 1 << 18;

impl Interval {
    pub fn new() -> Self {
        Self {
            phase: Phase::Warmup,
            start_ns: 0,
            end_ns: 0,
            histograms: Histograms::new(),
            counts: Counts::default(),
            open: 0,
            partials: Vec::new(),
        }
    }

    pub fn restart(&mut self, phase: Phase, start_ns: u64) {
        self.histograms.clear();
        self.counts = Counts::default();
        self.partials.clear();
        self.open = 0;
        (self.phase, self.start_ns, self.end_ns) = (phase, start_ns, start_ns);
    }

    /// Adds another thread's same second.
    pub fn add(&mut self, other: &Self) {
        self.histograms.add(&other.histograms);
        self.counts.add(&other.counts);
        self.open += other.open;
        self.end_ns = self.end_ns.max(other.end_ns);
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self::new()
    }
}

/// Messages of a lane in a room that some of this thread's receivers still lack: gives the moment the first one came when the last one arrives.
#[derive(Debug, Default)]
pub struct Waiting {
    base: u32,
    open: std::collections::VecDeque<Open>,
    /// Messages that were given up before all had them.
    pub unwatched: u64,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    lacking: u32,
    first_ns: u64,
}

/// Messages watched at once per room and lane; beyond it the oldest is no longer watched.
const WAITING_MAX: usize = 65_536;

impl Waiting {
    /// One of `receivers` has got `sequence` at `now_ns`. When it was the last of them: when the first one got it.
    pub fn arrive(&mut self, sequence: u32, receivers: u32, now_ns: u64) -> Option<u64> {
        let offset = usize::try_from(sequence.checked_sub(self.base)?).expect("a u32 fits a usize here");
        if offset >= self.open.len() {
            let given_up = self.give_up(offset);
            self.open.resize(offset + 1 - given_up, Open { lacking: receivers, first_ns: u64::MAX });
        }
        let offset = usize::try_from(sequence - self.base).expect("a u32 fits a usize here");
        let open = &mut self.open[offset];
        open.lacking = open.lacking.saturating_sub(1);
        open.first_ns = open.first_ns.min(now_ns);
        let complete = (open.lacking == 0).then_some(open.first_ns);
        while self.open.front().is_some_and(|open| open.lacking == 0) {
            self.open.pop_front();
            self.base += 1;
        }
        complete
    }

    /// Makes room for the message that stands `offset` behind the oldest: gives up as many of the oldest as are in its way, and no more. How many.
    fn give_up(&mut self, offset: usize) -> usize {
        let excess = (offset + 1).saturating_sub(WAITING_MAX);
        let known = excess.min(self.open.len());
        let incomplete = self.open.drain(..known).filter(|open| open.lacking > 0).count();
        // Of the others none has come anywhere yet.
        self.unwatched += super::plan::as_u64(incomplete + excess - known);
        self.base += u32::try_from(excess).expect("at most a sequence");
        excess
    }
}

/// Puts the partials of several threads together.
#[derive(Debug)]
pub struct Joiner {
    /// By room: on how many threads it has receivers.
    threads: Vec<u8>,
    /// Partials of messages that were given up.
    pub given_up: u64,
    open: hashbrown::HashMap<(u32, u16, u32), (u8, Partial)>,
}

/// Messages that wait for a thread's partial; beyond it all of them are given up, which is counted: some thread has lost its own.
const JOINS_MAX: usize = 1 << 20;

impl Joiner {
    pub fn new(threads: Vec<u8>) -> Self {
        Self { threads, given_up: 0, open: hashbrown::HashMap::new() }
    }

    /// Records in the interval what its partials complete.
    pub fn join(&mut self, interval: &mut Interval) {
        let mut partials = std::mem::take(&mut interval.partials);
        for partial in partials.drain(..) {
            let wanted = usize::try_from(partial.room).ok().and_then(|room| self.threads.get(room)).copied().unwrap_or(1);
            if self.open.len() > JOINS_MAX {
                self.given_up += super::plan::as_u64(self.open.len());
                self.open.clear();
            }
            let key = (partial.room, partial.lane, partial.sequence);
            let (count, sum) = self.open.entry(key).or_insert((0, partial));
            *count += 1;
            sum.first_ns = sum.first_ns.min(partial.first_ns);
            sum.last_ns = sum.last_ns.max(partial.last_ns);
            if *count >= wanted {
                let whole = *sum;
                self.open.remove(&key);
                interval.histograms.record(Name::RoomLast, whole.last_ns.saturating_sub(whole.due_ns));
                interval.histograms.record(Name::RoomSpread, whole.last_ns - whole.first_ns);
            }
        }
        // Its memory goes back to the thread that fills it.
        interval.partials = partials;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn sums_keep_every_sample() {
        let (mut a, mut b) = (Interval::new(), Interval::new());
        a.histograms.record(Name::RoomDelivery, 5);
        b.histograms.record(Name::RoomDelivery, u64::MAX);
        b.histograms.record(Name::DirectDelivery, 7);
        b.counts.delivered = 2;
        a.add(&b);
        assert_eq!((a.histograms.of(Name::RoomDelivery).len(), a.counts.delivered), (2, 2));
        assert!(a.histograms.of(Name::RoomDelivery).max() >= LATENCY_NS_MAX);
        assert_eq!(a.histograms.delivery().len(), 3);
        assert_eq!(a.histograms.named().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["delivery", "room.delivery", "dm.delivery"]);
        a.restart(Phase::Measured, 9);
        assert_eq!((a.histograms.delivery().len(), a.counts.delivered, a.start_ns), (0, 0, 9));
    }

    #[test]
    fn the_last_receiver_is_the_last_in_any_order() {
        let mut waiting = Waiting::default();
        let arrivals = [(0, None), (1, None), (1, None), (0, None), (1, Some(101)), (0, Some(100)), (2, None)];
        for (now, (sequence, last)) in (100..).zip(arrivals) {
            assert_eq!(waiting.arrive(sequence, 3, now), last, "{sequence}");
        }
        assert_eq!(waiting.base, 2);
    }

    #[test]
    fn a_message_that_never_completes_does_not_grow_the_list() {
        let mut waiting = Waiting::default();
        for sequence in 0..200_000 {
            waiting.arrive(sequence, 2, 1);
        }
        assert!(waiting.open.len() <= WAITING_MAX);
        assert_eq!(waiting.unwatched, 200_000 - super::super::plan::as_u64(WAITING_MAX));
    }

    #[test]
    fn only_the_messages_that_are_too_far_behind_are_given_up() {
        let mut waiting = Waiting::default();
        let most = u32::try_from(WAITING_MAX).unwrap();
        for sequence in 0..most + 10 {
            waiting.arrive(sequence, 2, 1);
        }
        assert_eq!(waiting.unwatched, 10);
        for sequence in 0..most + 10 {
            assert_eq!(waiting.arrive(sequence, 2, 2), (sequence >= 10).then_some(1), "{sequence}");
        }
        assert!(waiting.open.is_empty());
        // A number that nobody sent.
        waiting.arrive(u32::MAX - 1, 2, 3);
        assert!(waiting.open.len() <= WAITING_MAX);
    }

    #[test]
    fn joins_that_are_given_up_are_counted() {
        let mut joiner = Joiner::new(vec![2]);
        let mut interval = Interval::new();
        for sequence in 0..=u32::try_from(JOINS_MAX).unwrap() + 1 {
            interval.partials.push(Partial { room: 0, lane: 0, sequence, due_ns: 0, first_ns: 1, last_ns: 1 });
        }
        joiner.join(&mut interval);
        assert_eq!((joiner.given_up, joiner.open.len()), (super::super::plan::as_u64(JOINS_MAX) + 1, 1));
    }

    #[test]
    fn a_message_is_complete_when_every_thread_with_receivers_has_it() {
        let mut joiner = Joiner::new(vec![2, 1]);
        let partial = |room, first_ns, last_ns| Partial { room, lane: 0, sequence: 4, due_ns: 100, first_ns, last_ns };
        let mut one = Interval::new();
        one.partials.extend([partial(0, 150, 160), partial(1, 110, 110)]);
        joiner.join(&mut one);
        assert_eq!(one.histograms.of(Name::RoomLast).len(), 1, "the room of one thread");
        let mut two = Interval::new();
        two.partials.push(partial(0, 130, 190));
        joiner.join(&mut two);
        assert_eq!((two.histograms.of(Name::RoomLast).max(), two.histograms.of(Name::RoomSpread).max()), (90, 60));
        assert!(joiner.open.is_empty());
    }

    #[test]
    fn names_stand_in_their_place() {
        for (place, name) in Name::ALL.into_iter().enumerate() {
            assert_eq!(name.place(), place, "{name:?}");
        }
    }
}
