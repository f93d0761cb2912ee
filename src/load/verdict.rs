//! What the run proves: messages lost, doubled or out of order, and whether its figures may be believed.
//!
//! Puts the threads' books side by side: what a lane sent to a room against what each receiver has. A fault of the server is reported before a
//! weakness of the generator, since a message that came twice came twice however late the generator was.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::check::differing_orders;
use super::plan::{Plan, as_f64, as_u64};
use super::record::Histograms;
use super::worker::{Outcome, Seat};

/// Wrong places that are shown one by one.
const EXAMPLES_MAX: usize = 5;
/// The generator's lateness p99 may be this part of the median of the deliveries, or [`LATE_NS`].
const LATE_SHARE: f64 = 0.1;
const LATE_NS: u64 = 1_000_000;
/// Busy part of a thread's CPU above which its figures are not believed, and above which it is said.
const BUSY_INVALID: f64 = 0.95;
const BUSY_WARN: f64 = 0.70;

/// What became of the messages, at all receivers that stayed connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
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
}

/// What happened that is not wrong in itself.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Remarks {
    /// `error` answers by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Ends of connections by reason.
    pub closed: BTreeMap<String, u64>,
    pub gaps: u64,
    /// Deliveries that closed connections missed.
    pub missed_by_closed: u64,
    pub examples: Vec<String>,
}

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Faulty,
    Invalid,
}

/// Faults and remarks of all threads; `outcomes` by lane.
pub fn count(plan: &Plan, outcomes: &[Outcome]) -> (Faults, Remarks) {
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
        remarks.examples.extend(outcome.incidents.first_garbled.iter().map(|text| format!("garbled: {text}")));
        for (membership, seat) in outcome.seats.iter().enumerate() {
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
    for (lane, sender) in outcomes.iter().enumerate() {
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

/// The busiest generator thread: its part of a CPU.
pub fn busy_share(outcomes: &[Outcome], window_ns: u64) -> f64 {
    let busiest = outcomes.iter().map(|o| o.busy_ns).max().unwrap_or(0);
    as_f64(busiest) / as_f64(window_ns.max(1))
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
    /// Messages were to be sent: not so with `--idle`.
    pub loads: bool,
}

pub fn doubts(histograms: &Histograms, generator: Generator) -> Doubts {
    let mut doubts = Doubts::default();
    if !generator.loads {
        return doubts;
    }
    let median = histograms.delivery.value_at_quantile(0.5);
    let late = histograms.lateness.value_at_quantile(0.99);
    if histograms.lateness.is_empty() {
        doubts.invalid.push("no message was sent in the measured window".into());
    }
    if late > LATE_NS && as_f64(late) > LATE_SHARE * as_f64(median) {
        doubts.invalid.push(format!(
            "the generator was late: p99 {} us, with a median delivery of {} us (lower --rate, more --threads, or more CPUs)",
            late / 1_000,
            median / 1_000
        ));
    }
    if generator.unsent > 0 {
        doubts.invalid.push(format!("{} messages could not be handed to a connection", generator.unsent));
    }
    let percent = generator.busy_share * 100.0;
    if generator.busy_share > BUSY_INVALID {
        doubts.invalid.push(format!("a generator thread was busy {percent:.0} % of its CPU"));
    } else if generator.busy_share > BUSY_WARN {
        doubts.warnings.push(format!("a generator thread was busy {percent:.0} % of its CPU"));
    }
    doubts
}

/// All messages that could not be handed over.
pub fn unsent(outcomes: &[Outcome]) -> u64 {
    outcomes.iter().map(|o| o.unsent).sum()
}

/// All sends that the server refused or that were cut off.
pub fn excused(outcomes: &[Outcome]) -> u64 {
    outcomes.iter().map(|o| as_u64(o.excused.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generator() -> Generator {
        Generator { busy_share: 0.5, unsent: 0, loads: true }
    }

    fn histograms(median_ns: u64, late_ns: u64) -> Histograms {
        let mut histograms = Histograms::new();
        histograms.delivery.saturating_record_n(median_ns, 100);
        histograms.lateness.saturating_record_n(late_ns, 100);
        histograms
    }

    #[test]
    fn lateness_counts_only_when_it_is_large_and_a_large_part() {
        let invalid = |median, late| !doubts(&histograms(median, late), generator()).invalid.is_empty();
        assert!(!invalid(300_000, 900_000), "below a millisecond");
        assert!(!invalid(30_000_000, 2_000_000), "below a tenth of the median");
        assert!(invalid(10_000_000, 2_000_000));
    }

    #[test]
    fn a_generator_over_its_cpu_or_without_a_sample_is_not_believed() {
        let sound = histograms(300_000, 10_000);
        assert!(doubts(&sound, generator()).invalid.is_empty());
        assert!(!doubts(&sound, Generator { busy_share: 0.96, ..generator() }).invalid.is_empty());
        assert_eq!(doubts(&sound, Generator { busy_share: 0.8, ..generator() }).warnings.len(), 1);
        assert!(!doubts(&sound, Generator { unsent: 1, ..generator() }).invalid.is_empty());
        assert!(!doubts(&Histograms::new(), generator()).invalid.is_empty());
        assert!(doubts(&Histograms::new(), Generator { loads: false, ..generator() }).invalid.is_empty());
    }
}
