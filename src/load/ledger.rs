//! What the objects that arrive mean: answers matched with requests, deliveries checked and recorded.
//!
//! The books of one thread. A connection's part is its [`Page`]; everything that spans connections is the [`Ledger`]. Neither knows sockets:
//! frames come in with the time they arrived, and what must be answered (a ping) is left as a mark on the page.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashSet;
use smallvec::SmallVec;

use super::body::Stamp;
use super::check::{Arrival, Checker, Place};
use super::dialect::{Abilities, Event};
use super::record::{Interval, Phase, Waiting};

/// Request numbers of sends start here, so that all have ten digits.
pub const SEND_ID_FIRST: u64 = 1_000_000_000;

/// A room that a connection reads.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    pub room: u32,
    /// Place among the memberships of this thread.
    pub index: usize,
    /// Place among the rooms of this thread.
    pub local_room: usize,
}

/// A `send` that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub room: u32,
    pub sequence: u32,
    pub intended_ns: u64,
    pub handed_ns: u64,
    /// The connection waited for no other answer: a client that waits for each would have sent it too.
    pub alone: bool,
    pub answered: bool,
}

/// A connection's part of the books.
#[derive(Debug, Default)]
pub struct Page {
    pub connection: u32,
    /// Rising by room.
    pub memberships: SmallVec<[Membership; 1]>,
    /// `joined`s (and the `welcome`, as one more) still missing.
    pub login_left: u32,
    /// Request number of `requests[0]`.
    first_id: u64,
    requests: VecDeque<Request>,
    pub pong_due: bool,
    /// Why the server ended the session.
    pub bye: Option<String>,
}

impl Page {
    pub fn new(connection: u32) -> Self {
        Self { connection, ..Self::default() }
    }

    /// Enters a request; its number is the answer.
    pub fn enter(&mut self, request: Request) -> u64 {
        // The front is never an answered one.
        self.requests.push_back(Request { alone: self.requests.is_empty(), ..request });
        SEND_ID_FIRST + self.first_id + super::plan::as_u64(self.requests.len()) - 1
    }

    /// Takes the request out, when it has not been answered before.
    fn answer(&mut self, id: u64) -> Option<Request> {
        let offset = id.checked_sub(SEND_ID_FIRST)?.checked_sub(self.first_id)?;
        let request = self.requests.get_mut(usize::try_from(offset).ok()?)?;
        if request.answered {
            return None;
        }
        request.answered = true;
        let request = *request;
        while self.requests.front().is_some_and(|r| r.answered) {
            self.requests.pop_front();
            self.first_id += 1;
        }
        Some(request)
    }

    /// The number of the request that sent a message.
    fn request_of(&self, stamp: &Stamp) -> Option<u64> {
        let at = self.requests.iter().position(|r| (r.room, r.sequence) == (stamp.room, stamp.sequence))?;
        Some(SEND_ID_FIRST + self.first_id + super::plan::as_u64(at))
    }

    /// The number of the oldest request without an answer.
    fn oldest(&self) -> Option<u64> {
        (!self.requests.is_empty()).then_some(SEND_ID_FIRST + self.first_id)
    }

    /// Requests without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|r| !r.answered)
    }
}

/// Things that should not happen, by what the server said.
#[derive(Debug, Default)]
pub struct Incidents {
    /// A body that came back changed, an object that is none, an answer to nothing, a message for somebody else.
    pub garbled: u64,
    pub gaps: u64,
    pub refusals: BTreeMap<String, u64>,
    pub first_garbled: Option<String>,
}

/// The books of a thread.
#[derive(Debug)]
pub struct Ledger {
    abilities: Abilities,
    lanes: usize,
    pub checker: Checker,
    /// Local room x lane.
    waiting: Vec<Waiting>,
    /// Receivers of each local room on this thread.
    receivers: Vec<u32>,
    pub interval: Box<Interval>,
    /// First arrivals since the start, and answers still missing.
    pub received: u64,
    pub unanswered: u64,
    /// Start of the run on the monotonic clock.
    pub start_ns: u64,
    /// Messages intended before this are not measured.
    pub window_start_ns: u64,
    /// Refused messages: (room, sequence). Nobody promised that they arrive.
    pub excused: HashSet<(u32, u32)>,
    pub incidents: Incidents,
}

impl Ledger {
    /// `receivers`: of each local room, on this thread.
    pub fn new(abilities: Abilities, lanes: usize, receivers: Vec<u32>) -> Self {
        let memberships = receivers.iter().map(|n| usize::try_from(*n).expect("a u32 fits")).sum();
        Self {
            abilities,
            lanes,
            checker: Checker::new(memberships, lanes),
            waiting: std::iter::repeat_with(Waiting::default).take(receivers.len() * lanes).collect(),
            receivers,
            interval: Box::default(),
            received: 0,
            unanswered: 0,
            start_ns: 0,
            window_start_ns: 0,
            excused: HashSet::new(),
            incidents: Incidents::default(),
        }
    }

    /// Something has arrived on a connection at `now_ns` of the monotonic clock.
    pub fn on_event(&mut self, page: &mut Page, event: Event<'_>, now_ns: u64) {
        match event {
            Event::Delivery { stamp, .. } => self.on_delivery(page, &stamp, now_ns),
            Event::Sent { id } => self.on_sent(page, id, now_ns),
            Event::Welcome(_) | Event::Joined { .. } => page.login_left = page.login_left.saturating_sub(1),
            Event::Ping => page.pong_due = true,
            Event::Refused { id, reason } => self.on_refused(page, id, reason),
            Event::Bye { reason } => page.bye = Some(reason),
            Event::Gap => self.incidents.gaps += 1,
            Event::Garbled(bytes) => self.incidents.note_garbled(bytes),
            Event::History { .. } | Event::Other => {}
        }
    }

    fn on_delivery(&mut self, page: &mut Page, stamp: &Stamp, now_ns: u64) {
        let Some(membership) = find(&page.memberships, stamp.room) else {
            self.incidents.note_garbled(b"a message of a room that this connection is not in");
            return;
        };
        if usize::from(stamp.lane) >= self.lanes {
            self.incidents.note_garbled(b"a lane that this run does not have");
            return;
        }
        let Stamp { lane, sequence, previous, .. } = *stamp;
        let place = Place { membership: membership.index, lane, sequence, previous };
        if self.checker.arrive(place) == Arrival::Doubled {
            return;
        }
        self.received += 1;
        self.interval.counts.delivered += 1;
        let waiting = &mut self.waiting[membership.local_room * self.lanes + usize::from(lane)];
        let last = waiting.arrive(sequence, self.receivers[membership.local_room]);
        if self.is_measured(stamp.intended_ns) {
            let latency = now_ns.saturating_sub(self.start_ns + stamp.intended_ns);
            self.interval.histograms.delivery.saturating_record(latency);
            if last {
                self.interval.histograms.last.saturating_record(latency);
            }
        }
        if !self.abilities.answers
            && stamp.sender == page.connection
            && let Some(id) = page.request_of(stamp)
        {
            self.on_sent(page, Some(id), now_ns);
        }
    }

    fn on_sent(&mut self, page: &mut Page, id: Option<u64>, now_ns: u64) {
        let Some(request) = id.or_else(|| page.oldest()).and_then(|id| page.answer(id)) else {
            self.incidents.note_garbled(b"an answer to a request that was not made");
            return;
        };
        self.unanswered -= 1;
        if self.is_measured(request.intended_ns) {
            self.interval.counts.answered += 1;
            let since = |ns: u64| now_ns.saturating_sub(ns);
            let histograms = &mut self.interval.histograms;
            histograms.sent.saturating_record(since(self.start_ns + request.intended_ns));
            if request.alone {
                histograms.sent_waiting.saturating_record(since(request.handed_ns));
            }
        }
    }

    /// A message is about to be sent; its request number. Waits for an answer where there will be one.
    pub fn enter(&mut self, page: &mut Page, request: Request) -> u64 {
        if !self.abilities.answers && find(&page.memberships, request.room).is_none() {
            return SEND_ID_FIRST;
        }
        self.unanswered += 1;
        page.enter(request)
    }

    /// A message never left the generator.
    pub fn withdraw(&mut self, page: &mut Page, id: u64, message: (u32, u32)) {
        self.unanswered -= u64::from(page.answer(id).is_some());
        self.excused.insert(message);
    }

    fn on_refused(&mut self, page: &mut Page, id: Option<u64>, reason: String) {
        *self.incidents.refusals.entry(reason).or_default() += 1;
        if let Some(request) = id.and_then(|id| page.answer(id)) {
            self.unanswered -= 1;
            self.interval.counts.refused += u64::from(self.is_measured(request.intended_ns));
            self.excused.insert((request.room, request.sequence));
        }
    }

    /// In the warm-up everything is recorded (for the live line); behind it only messages that were due behind it.
    pub fn is_measured(&self, intended_ns: u64) -> bool {
        self.interval.phase == Phase::Warmup || intended_ns >= self.window_start_ns
    }
}

impl Incidents {
    #[cold]
    pub fn note_garbled(&mut self, bytes: &[u8]) {
        self.garbled += 1;
        self.first_garbled.get_or_insert_with(|| bytes.escape_ascii().to_string().chars().take(300).collect());
    }
}

/// Most connections are in one room; the rest search.
fn find(memberships: &[Membership], room: u32) -> Option<Membership> {
    if let [only] = memberships {
        return (only.room == room).then_some(*only);
    }
    memberships.binary_search_by_key(&room, |m| m.room).ok().map(|at| memberships[at])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::dialect::Target;
    use super::*;

    fn ledger() -> (Ledger, Page) {
        let page = Page { memberships: SmallVec::from_iter([Membership { room: 3, index: 0, local_room: 0 }]), ..Page::default() };
        (Ledger::new(Target::Ringroom.abilities(), 1, vec![1]), page)
    }

    fn request(sequence: u32) -> Request {
        Request { room: 3, sequence, intended_ns: 10, handed_ns: 20, alone: false, answered: false }
    }

    fn sent(id: u64) -> Event<'static> {
        Event::Sent { id: Some(id) }
    }

    fn delivery(stamp: Stamp) -> Event<'static> {
        Event::Delivery { stamp, whole: b"" }
    }

    #[test]
    fn without_answers_the_senders_own_copy_is_the_answer() {
        let (ledger, mut page) = ledger();
        let mut ledger = Ledger { abilities: Abilities { answers: false, ..ledger.abilities }, ..ledger };
        page.connection = 7;
        for sequence in 0..3 {
            page.enter(request(sequence));
        }
        ledger.unanswered = 3;
        for (sender, sequence) in [(7, 0), (8, 0), (7, 2), (7, 1)] {
            let lane = u16::from(sender == 8);
            let stamp = Stamp { room: 3, lane: 0, sender, sequence: sequence + 10 * u32::from(lane), previous: 0, intended_ns: 10 };
            ledger.on_event(&mut page, delivery(stamp), 50);
        }
        assert_eq!((ledger.unanswered, ledger.interval.counts.answered), (0, 3));
        assert_eq!(ledger.interval.histograms.sent.len(), 3);
    }

    #[test]
    fn an_answer_without_a_number_is_the_oldest_requests() {
        let (mut ledger, mut page) = ledger();
        for sequence in 0..2 {
            page.enter(request(sequence));
        }
        ledger.unanswered = 2;
        ledger.on_event(&mut page, Event::Sent { id: None }, 50);
        assert_eq!(page.unanswered().map(|r| r.sequence).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn answers_may_come_in_any_order_but_only_once() {
        let (mut ledger, mut page) = ledger();
        let ids: Vec<u64> = (0..3).map(|s| page.enter(request(s))).collect();
        ledger.unanswered = 3;
        for id in [ids[1], ids[0], ids[2]] {
            ledger.on_event(&mut page, sent(id), 100);
        }
        assert_eq!((ledger.unanswered, ledger.interval.counts.answered), (0, 3));
        assert_eq!(page.unanswered().count(), 0);
        for id in [ids[1], ids[2] + 1, 0] {
            ledger.on_event(&mut page, sent(id), 100);
        }
        assert_eq!(ledger.incidents.garbled, 3);
    }

    #[test]
    fn a_refused_message_is_excused() {
        let (mut ledger, mut page) = ledger();
        let id = page.enter(request(0));
        ledger.unanswered = 1;
        let reason = "503 overloaded: later".to_owned();
        ledger.on_event(&mut page, Event::Refused { id: Some(id), reason }, 50);
        assert!(ledger.excused.contains(&(3, 0)));
        assert_eq!((ledger.unanswered, ledger.interval.counts.refused), (0, 1));
        assert_eq!(ledger.incidents.refusals["503 overloaded: later"], 1);
    }

    #[test]
    fn a_waiting_client_would_not_have_seen_the_stall_behind_which_it_waited() {
        let (mut ledger, mut page) = ledger();
        // Ten requests a tenth of a second apart, all answered at once after a stall of a second.
        let ids: Vec<u64> = (0..10u32)
            .map(|n| {
                let due = u64::from(n) * 100_000_000;
                page.enter(Request { intended_ns: due, handed_ns: due, ..request(n) })
            })
            .collect();
        ledger.unanswered = 10;
        for (n, id) in (0..).zip(ids) {
            ledger.on_event(&mut page, sent(id), 1_000_000_000 + n);
        }
        let over = |h: &hdrhistogram::Histogram<u64>| h.count_between(150_000_000, u64::MAX);
        assert_eq!(over(&ledger.interval.histograms.sent), 9);
        assert_eq!(over(&ledger.interval.histograms.sent_waiting), 1);
    }

    #[test]
    fn only_messages_due_in_the_window_are_measured_and_all_are_checked() {
        let (mut ledger, mut page) = ledger();
        ledger.interval.restart(Phase::Measured, 1_000);
        ledger.window_start_ns = 1_000;
        for (sequence, intended_ns) in [(0, 999), (1, 1_000), (1, 1_000)] {
            let stamp = Stamp { room: 3, lane: 0, sender: 0, sequence, previous: sequence, intended_ns };
            ledger.on_event(&mut page, delivery(stamp), 5_000);
        }
        assert_eq!(ledger.interval.histograms.delivery.len(), 1);
        assert_eq!((ledger.received, ledger.checker.faults.doubled), (2, 1));
    }
}
