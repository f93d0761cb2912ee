//! What is counted: histograms and counters of one second of one thread, and their sums.
//!
//! A worker owns one [`Interval`] at a time, hands it whole to the reporter and gets an empty one back, so nothing is shared while it is
//! written and nothing is allocated per message. Histograms are in nanoseconds, 3 digits, up to a minute; longer values are recorded as a
//! minute and so never vanish.

use hdrhistogram::Histogram;

/// Longer latencies count as this.
pub const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// The histograms of a run.
#[derive(Clone, Debug)]
pub struct Histograms {
    /// Per delivery: arrival minus intended time.
    pub delivery: Histogram<u64>,
    /// Per message: the last of its receivers on the thread that reads them.
    pub last: Histogram<u64>,
    /// Arrival of `sent` minus intended time.
    pub sent: Histogram<u64>,
    /// What clients that wait for each answer would have reported: from the hand-over, and only for sends made while the connection waited for
    /// no other answer. It hides stalls, and stands beside the other to show by how much.
    pub sent_waiting: Histogram<u64>,
    /// The generator's own fault: hand-over to the connection minus intended time.
    pub lateness: Histogram<u64>,
    /// From connect(2) to the last `joined`.
    pub connect: Histogram<u64>,
}

/// Name and histogram, in the order they are shown.
pub type Named<'a> = (&'static str, &'a Histogram<u64>);

impl Histograms {
    pub fn new() -> Self {
        let empty = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds and digits are within what the crate takes");
        Self { delivery: empty(), last: empty(), sent: empty(), sent_waiting: empty(), lateness: empty(), connect: empty() }
    }

    pub fn named(&self) -> [Named<'_>; 6] {
        [
            ("delivery", &self.delivery),
            ("last", &self.last),
            ("sent", &self.sent),
            ("sent.waiting", &self.sent_waiting),
            ("lateness", &self.lateness),
            ("connect", &self.connect),
        ]
    }

    fn all_mut(&mut self) -> [&mut Histogram<u64>; 6] {
        [&mut self.delivery, &mut self.last, &mut self.sent, &mut self.sent_waiting, &mut self.lateness, &mut self.connect]
    }

    pub fn add(&mut self, other: &Self) {
        for (sum, (_, part)) in self.all_mut().into_iter().zip(other.named()) {
            sum.add(part).expect("same bounds");
        }
    }

    pub fn clear(&mut self) {
        self.all_mut().into_iter().for_each(Histogram::reset);
    }
}

impl Default for Histograms {
    fn default() -> Self {
        Self::new()
    }
}

/// Events of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
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
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.sent += other.sent;
        self.answered += other.answered;
        self.delivered += other.delivered;
        self.refused += other.refused;
    }
}

/// Where in the run a time falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

impl Interval {
    pub fn new() -> Self {
        Self { phase: Phase::Warmup, start_ns: 0, end_ns: 0, histograms: Histograms::new(), counts: Counts::default() }
    }

    pub fn restart(&mut self, phase: Phase, start_ns: u64) {
        self.histograms.clear();
        self.counts = Counts::default();
        (self.phase, self.start_ns, self.end_ns) = (phase, start_ns, start_ns);
    }

    /// Adds another thread's same second.
    pub fn add(&mut self, other: &Self) {
        self.histograms.add(&other.histograms);
        self.counts.add(&other.counts);
        self.end_ns = self.end_ns.max(other.end_ns);
    }
}

impl Default for Interval {
    fn default() -> Self {
        Self::new()
    }
}

/// Messages of a lane in a room that some of this thread's receivers still lack: gives the moment the last one arrives.
#[derive(Debug, Default)]
pub struct Waiting {
    base: u32,
    lacking: std::collections::VecDeque<u32>,
}

/// Messages watched at once per room and lane; beyond it the oldest is no longer watched.
const WAITING_MAX: usize = 65_536;

impl Waiting {
    /// One of `receivers` has got `sequence`; true when it was the last of them.
    pub fn arrive(&mut self, sequence: u32, receivers: u32) -> bool {
        let Some(offset) = sequence.checked_sub(self.base) else { return false };
        let offset = usize::try_from(offset).expect("a u32 fits a usize here");
        if offset >= self.lacking.len() {
            if offset >= WAITING_MAX {
                self.lacking.clear();
                self.base = sequence;
                return self.arrive(sequence, receivers);
            }
            self.lacking.resize(offset + 1, receivers);
        }
        let lacking = &mut self.lacking[offset];
        *lacking = lacking.saturating_sub(1);
        let complete = *lacking == 0;
        while self.lacking.front() == Some(&0) {
            self.lacking.pop_front();
            self.base += 1;
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_every_sample() {
        let (mut a, mut b) = (Interval::new(), Interval::new());
        a.histograms.delivery.saturating_record(5);
        b.histograms.delivery.saturating_record(u64::MAX);
        b.counts.delivered = 2;
        a.add(&b);
        assert_eq!((a.histograms.delivery.len(), a.counts.delivered), (2, 2));
        assert!(a.histograms.delivery.max() >= LATENCY_NS_MAX);
        a.restart(Phase::Measured, 9);
        assert_eq!((a.histograms.delivery.len(), a.counts.delivered, a.start_ns), (0, 0, 9));
    }

    #[test]
    fn the_last_receiver_is_the_last_in_any_order() {
        let mut waiting = Waiting::default();
        let arrivals = [(0, false), (1, false), (1, false), (0, false), (1, true), (0, true), (2, false)];
        for (sequence, last) in arrivals {
            assert_eq!(waiting.arrive(sequence, 3), last, "{sequence}");
        }
        assert_eq!(waiting.base, 2);
    }

    #[test]
    fn a_message_that_never_completes_does_not_grow_the_list() {
        let mut waiting = Waiting::default();
        for sequence in 0..200_000 {
            waiting.arrive(sequence, 2);
        }
        assert!(waiting.lacking.len() <= WAITING_MAX);
    }
}
