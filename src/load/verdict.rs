//! What the run proves: messages lost, doubled or out of order, and whether its figures may be believed.
//!
//! Puts the threads' books side by side: what a lane sent to a room against what each receiver has. Both are told, a fault of the server and a
//! weakness of the generator; with a weak generator the run is invalid, whatever else it is.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::check::differing_orders;
use super::plan::{Plan, as_f64, as_u64};
use super::record::{Histograms, Name};
use super::worker::{Outcome, Seat};

/// Wrong places that are shown one by one.
const EXAMPLES_MAX: usize = 5;
/// The generator's lateness p99 may be this part of the reported median.
const LATE_SHARE: f64 = 0.1;
/// The bulk's p50 and p99 may be this many times those of the probes, and so much more, before the generator is held to be what was slow.
const PROBE_FACTOR: u64 = 2;
const PROBE_NS: u64 = 1_000_000;
/// Samples of both without which they are not compared: the p99 needs so many.
const PROBE_SAMPLES: u64 = 1_000;
/// Busy part of a thread's CPU above which its figures are not believed, and above which it is said.
const BUSY_INVALID: f64 = 0.85;
const BUSY_WARN: f64 = 0.70;
/// The window may take this many times as long as planned.
const STRETCH_MOST: f64 = 1.05;
/// And so much longer in any case: a thread looks at the end of a window that was cut short only so often.
const STRETCH_NS: u64 = 30_000_000;

/// What became of the messages, at all receivers that stayed connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Faults {
    pub lost: u64,
    pub doubled: u64,
    /// A sender's message that came after that sender's later one.
    pub out_of_order: u64,
    /// Members that saw a room's messages in another order than most of its members.
    pub order_differs: u64,
    /// Changed bodies, answers to nothing, messages that nobody sent.
    pub garbled: u64,
    /// Sends without an answer on connections that stayed open.
    pub unanswered: u64,
    /// Connections that the server ended, or that broke.
    pub closed: u64,
}

impl Faults {
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.order_differs += other.order_differs;
        self.garbled += other.garbled;
        self.unanswered += other.unanswered;
        self.closed += other.closed;
    }

    /// One sentence for each kind that occurred.
    pub fn sentences(&self) -> Vec<String> {
        let kinds = [
            (self.lost, "deliveries lost"),
            (self.doubled, "deliveries doubled"),
            (self.out_of_order, "deliveries out of order"),
            (self.order_differs, "members that saw another order than the others"),
            (self.garbled, "objects garbled"),
            (self.unanswered, "sends without an answer"),
            (self.closed, "connections closed"),
        ];
        kinds.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what}: {n}")).collect()
    }
}

impl Remarks {
    fn add(&mut self, other: &Self) {
        add(&mut self.refusals, &other.refusals);
        add(&mut self.closed, &other.closed);
        add(&mut self.closed_readers, &other.closed_readers);
        add(&mut self.connect_failures, &other.connect_failures);
        self.gaps += other.gaps;
        self.missed_by_closed += other.missed_by_closed;
        self.reconnects += other.reconnects;
        self.recovered += other.recovered;
        self.not_recovered += other.not_recovered;
        self.examples.extend(other.examples.iter().take(EXAMPLES_MAX).cloned());
    }
}

/// What happened that is not wrong in itself.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Remarks {
    /// `error` answers by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Ends of connections by reason.
    pub closed: BTreeMap<String, u64>,
    /// Ends of slow and stopped readers by reason: what they are there for.
    pub closed_readers: BTreeMap<String, u64>,
    /// Connections that were to come back and could not, by kind; each is tried again.
    pub connect_failures: BTreeMap<String, u64>,
    pub gaps: u64,
    /// Deliveries that connections missed which were closed, away at the end, or told of a hole.
    pub missed_by_closed: u64,
    /// Connections that came back; rooms they then had without a hole, and with one.
    pub reconnects: u64,
    pub recovered: u64,
    pub not_recovered: u64,
    pub examples: Vec<String>,
}

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Faulty,
    /// An objective was missed.
    Missed,
    Invalid,
}

/// What the threads of one process prove together; those of several processes are added.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Books {
    pub faults: Faults,
    pub remarks: Remarks,
    pub sent: u64,
    pub expected: u64,
    pub received: u64,
    pub excused: u64,
    pub unsent: u64,
    /// Messages in neither `room.last` nor `room.spread`.
    pub unwatched: u64,
    pub threads: Vec<ThreadCost>,
}

/// What a thread cost in the window.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ThreadCost {
    pub lane: u16,
    pub busy_share: f64,
    pub spin_share: f64,
}

impl Books {
    pub fn of(plan: &Plan, outcomes: &[Outcome]) -> Self {
        let (faults, remarks) = count(plan, outcomes);
        let share = |ns: u64, o: &Outcome| as_f64(ns) / as_f64(o.spent.window_ns.max(1));
        let cost = |o: &Outcome| ThreadCost { lane: o.lane, busy_share: share(o.spent.busy_ns, o), spin_share: share(o.spent.spun_ns, o) };
        let messages = || outcomes.iter().flat_map(|o| &o.sent);
        Self {
            faults,
            remarks,
            sent: messages().map(|(_, count)| u64::from(*count)).sum(),
            expected: messages().map(|(room, count)| u64::from(*count) * u64::from(plan.owed(*room))).sum(),
            received: outcomes.iter().map(|o| o.received).sum(),
            excused: outcomes.iter().map(|o| as_u64(o.excused.len())).sum(),
            unsent: outcomes.iter().map(|o| o.unsent).sum(),
            unwatched: outcomes.iter().map(|o| o.unwatched).sum(),
            threads: outcomes.iter().map(cost).collect(),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.faults.add(&other.faults);
        self.remarks.add(&other.remarks);
        self.sent += other.sent;
        self.expected += other.expected;
        self.received += other.received;
        self.excused += other.excused;
        self.unsent += other.unsent;
        self.unwatched += other.unwatched;
        self.threads.extend(&other.threads);
    }

    /// The busiest generator thread: its part of a CPU.
    pub fn busy_share(&self) -> f64 {
        self.threads.iter().map(|cost| cost.busy_share).fold(0.0, f64::max)
    }
}

/// Faults and remarks of all threads; `outcomes` by lane.
fn count(plan: &Plan, outcomes: &[Outcome]) -> (Faults, Remarks) {
    let (mut faults, mut remarks) = (Faults::default(), Remarks::default());
    let mut orders: HashMap<u32, Vec<u64>> = HashMap::new();
    // In a room with refused messages some members may have got one of those and some not: their orders can't be compared.
    let excused: HashSet<u32> = outcomes.iter().flat_map(|o| &o.excused).map(|(room, _)| *room).collect();
    for outcome in outcomes {
        let wrong = outcome.checker.faults;
        faults.doubled += wrong.doubled;
        faults.out_of_order += wrong.out_of_order;
        faults.garbled += outcome.incidents.garbled;
        faults.unanswered += outcome.unanswered;
        faults.closed += outcome.closed.values().sum::<u64>();
        remarks.gaps += outcome.incidents.gaps;
        add(&mut remarks.refusals, &outcome.incidents.refusals);
        add(&mut remarks.closed, &outcome.closed);
        add(&mut remarks.closed_readers, &outcome.closed_readers);
        add(&mut remarks.connect_failures, &outcome.connect_failures);
        remarks.reconnects += outcome.reconnects;
        remarks.recovered += outcome.incidents.recovered;
        remarks.not_recovered += outcome.incidents.not_recovered;
        remarks.examples.extend(outcome.incidents.first_garbled.iter().map(|text| format!("garbled: {text}")));
        for (membership, seat) in outcome.seats.iter().enumerate().filter(|(_, seat)| seat.owed) {
            let (lost, beyond) = at_seat(outcome, membership, outcomes);
            faults.garbled += u64::from(beyond);
            if seat.closed {
                remarks.missed_by_closed += lost;
                continue;
            }
            faults.lost += lost;
            if lost > 0 && remarks.examples.len() < EXAMPLES_MAX {
                remarks.examples.push(example(plan, seat, lost));
            }
            if lost == 0 && plan.wish().target.abilities().room_order && !excused.contains(&seat.room) {
                orders.entry(seat.room).or_default().push(outcome.checker.order(membership));
            }
        }
    }
    faults.order_differs = orders.values_mut().map(|o| differing_orders(o)).sum();
    (faults, remarks)
}

/// Messages lost at one receiver, and whether it got some that nobody sent.
fn at_seat(outcome: &Outcome, membership: usize, outcomes: &[Outcome]) -> (u64, bool) {
    let room = outcome.seats[membership].room;
    let (mut lost, mut beyond) = (0, false);
    // Outcomes stand by lane; the probes' is the last and sends nothing.
    for (lane, sender) in outcomes.iter().enumerate().take(outcome.checker.lanes()) {
        let sent = sender.sent.get(&room).copied().unwrap_or(0);
        let account = outcome.checker.account(membership, lane);
        lost += account.lost(sent, |sequence| sender.excused.contains(&(room, sequence)));
        beyond |= account.beyond(sent);
    }
    (lost, beyond)
}

fn example(plan: &Plan, seat: &Seat, lost: u64) -> String {
    format!("lost: {lost} of room {} at connection {} (thread {})", seat.room, seat.connection, plan.lane_of(seat.connection))
}

fn add(sum: &mut BTreeMap<String, u64>, part: &BTreeMap<String, u64>) {
    for (key, count) in part {
        *sum.entry(key.clone()).or_default() += count;
    }
}

/// What speaks against the figures, and what only deserves a word.
#[derive(Clone, Debug, Default)]
pub struct Doubts {
    pub invalid: Vec<String>,
    pub warnings: Vec<String>,
}

/// What the generator did that the figures depend on.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    pub busy_share: f64,
    pub unsent: u64,
    pub unwatched: u64,
    /// The measured window: as planned (or cut short), and as it was. It goes on until what was due in it is sent.
    pub planned_ns: u64,
    pub window_ns: u64,
    /// Messages were to be sent: not so with `--idle`.
    pub loads: bool,
    /// No schedule: nothing can be late.
    pub closed: bool,
}

pub fn doubts(histograms: &Histograms, generator: Generator) -> Doubts {
    let mut doubts = Doubts::default();
    if !generator.loads {
        return doubts;
    }
    let lateness = histograms.of(Name::Lateness);
    if lateness.is_empty() {
        doubts.invalid.push("no message was sent in the measured window".into());
    }
    if !generator.closed {
        doubts.invalid.extend(late(histograms));
    }
    doubts.invalid.extend(probes_disagree(histograms));
    if generator.unsent > 0 {
        doubts.invalid.push(format!("{} messages or requests could not be handed to a connection", generator.unsent));
    }
    doubts.invalid.extend(stretched(generator));
    if generator.unwatched > 0 {
        doubts.warnings.push(format!(
            "{} messages are in neither room.last nor room.spread: too many later ones came before all had them",
            generator.unwatched
        ));
    }
    let percent = generator.busy_share * 100.0;
    if generator.busy_share > BUSY_INVALID {
        doubts.invalid.push(format!("a generator thread was busy {percent:.0} % of its CPU (more --threads, or more CPUs)"));
    } else if generator.busy_share > BUSY_WARN {
        doubts.warnings.push(format!("a generator thread was busy {percent:.0} % of its CPU"));
    }
    doubts
}

/// Why the generator's own lateness spoils the figures, if it does.
fn late(histograms: &Histograms) -> Option<String> {
    let median = histograms.delivery().value_at_quantile(0.5);
    let late = histograms.of(Name::Lateness).value_at_quantile(0.99);
    (as_f64(late) > LATE_SHARE * as_f64(median)).then(|| {
        format!(
            "the generator was late: p99 {} us, over a tenth of the median delivery of {} us (lower --rate, more --threads, or more CPUs)",
            late / 1_000,
            median / 1_000
        )
    })
}

/// The generator was so far behind at the end of the window that it was another load than the one asked for.
fn stretched(generator: Generator) -> Option<String> {
    let (planned_ns, window_ns) = (generator.planned_ns, generator.window_ns);
    (as_f64(window_ns) > STRETCH_MOST * as_f64(planned_ns) && window_ns > planned_ns + STRETCH_NS).then(|| {
        format!(
            "the generator was behind: what was due in {} ms took it {} ms to send (lower --rate, more --threads, or more CPUs)",
            planned_ns / 1_000_000,
            window_ns / 1_000_000
        )
    })
}

/// The bulk's receivers say something else than the probes, which read the same messages and have nothing else to do. Only the bulk being slower speaks against
/// the generator: a probe may have to wait for a CPU that the bulk has.
fn probes_disagree(histograms: &Histograms) -> Option<String> {
    let (bulk, probes) = (histograms.of(Name::Probed), histograms.of(Name::Probe));
    if bulk.len() < PROBE_SAMPLES || probes.len() < PROBE_SAMPLES {
        return None;
    }
    [("p50", 0.5), ("p99", 0.99)].into_iter().find_map(|(name, quantile)| {
        let (bulk, probes) = (bulk.value_at_quantile(quantile), probes.value_at_quantile(quantile));
        (bulk > PROBE_FACTOR * probes + PROBE_NS).then(|| {
            format!(
                "probes disagree: {name} of the same messages is {} us for them and {} us for the bulk, so the generator is what was slow",
                probes / 1_000,
                bulk / 1_000
            )
        })
    })
}

/// How the run ends. A generator that was late may itself be why something did not come in time, so its faults are told and blamed on nobody;
/// objectives come last.
pub fn judge(faults: &Faults, invalid: Vec<String>, missed: Vec<String>) -> (Verdict, Vec<String>) {
    let verdict = match () {
        () if !invalid.is_empty() => Verdict::Invalid,
        () if faults.any() => Verdict::Faulty,
        () if !missed.is_empty() => Verdict::Missed,
        () => Verdict::Ok,
    };
    (verdict, [faults.sentences(), invalid, missed].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator() -> Generator {
        let second = 1_000_000_000;
        Generator { busy_share: 0.5, unsent: 0, unwatched: 0, planned_ns: second, window_ns: second, loads: true, closed: false }
    }

    fn histograms(median_ns: u64, late_ns: u64) -> Histograms {
        let mut histograms = Histograms::new();
        histograms.of_mut(Name::RoomDelivery).saturating_record_n(median_ns, 100);
        histograms.of_mut(Name::Lateness).saturating_record_n(late_ns, 100);
        histograms
    }

    #[test]
    fn lateness_over_a_tenth_of_the_median_makes_the_run_invalid() {
        let invalid = |median, late| doubts(&histograms(median, late), generator()).invalid;
        assert!(invalid(300_000, 29_000).is_empty());
        assert!(invalid(300_000, 32_000)[0].contains("late: p99 32 us"), "{:?}", invalid(300_000, 32_000));
        let closed = Generator { closed: true, ..generator() };
        assert!(doubts(&histograms(300_000, 300_000), closed).invalid.is_empty(), "nothing is due in a closed loop");
    }

    #[test]
    fn a_bulk_that_is_slower_than_its_probes_makes_the_run_invalid() {
        let with = |bulk, probe, count| {
            let mut histograms = histograms(10_000_000, 1);
            histograms.of_mut(Name::Probed).saturating_record_n(bulk, count);
            histograms.of_mut(Name::Probe).saturating_record_n(probe, count);
            doubts(&histograms, generator()).invalid
        };
        assert!(with(10_000_000, 2_000_000, 2_000)[0].contains("probes disagree"));
        assert!(with(10_000_000, 6_000_000, 2_000).is_empty());
        assert!(with(2_000_000, 10_000_000, 2_000).is_empty(), "a probe that waited for a CPU");
        assert!(with(10_000_000, 2_000_000, 500).is_empty(), "too few to say");
    }

    #[test]
    fn a_generator_over_its_cpu_or_without_a_sample_is_not_believed() {
        let sound = histograms(300_000, 10_000);
        assert!(doubts(&sound, generator()).invalid.is_empty());
        assert!(!doubts(&sound, Generator { busy_share: 0.86, ..generator() }).invalid.is_empty());
        assert_eq!(doubts(&sound, Generator { busy_share: 0.8, ..generator() }).warnings.len(), 1);
        assert!(!doubts(&sound, Generator { unsent: 1, ..generator() }).invalid.is_empty());
        assert!(doubts(&sound, Generator { unwatched: 7, ..generator() }).warnings[0].starts_with("7 messages"));
        assert!(doubts(&sound, Generator { window_ns: 1_049_000_000, ..generator() }).invalid.is_empty());
        let stretched = Generator { window_ns: 1_060_000_000, ..generator() };
        assert!(doubts(&sound, stretched).invalid[0].contains("due in 1000 ms took it 1060 ms"));
        assert!(!doubts(&Histograms::new(), generator()).invalid.is_empty());
        assert!(doubts(&Histograms::new(), Generator { loads: false, ..generator() }).invalid.is_empty());
    }

    #[test]
    fn a_doubted_run_blames_nobody_and_tells_its_faults_all_the_same() {
        let lost = Faults { lost: 1, ..Faults::default() };
        let one = || vec!["x".to_owned()];
        let (verdict, reasons) = judge(&lost, one(), one());
        assert_eq!((verdict, reasons), (Verdict::Invalid, vec!["deliveries lost: 1".into(), "x".into(), "x".into()]));
        assert_eq!(judge(&lost, vec![], one()).0, Verdict::Faulty);
        assert_eq!(judge(&Faults::default(), one(), one()), (Verdict::Invalid, vec!["x".into(), "x".into()]));
        assert_eq!(judge(&Faults::default(), vec![], one()).0, Verdict::Missed);
        assert_eq!(judge(&Faults::default(), vec![], vec![]).0, Verdict::Ok);
    }
}
