//! What the events that arrive mean: answers matched with requests, deliveries checked and recorded.
//!
//! The books of one thread. A connection's part is its [`Page`]; everything that spans connections is the [`Ledger`]. Neither knows sockets:
//! events come in with the time they arrived, and what must be answered (a ping) is left as a mark on the page.

use std::collections::BTreeMap;

use hashbrown::HashSet;

use super::body::Stamp;
use super::check::{Arrival, Checker, Place};
use super::dialect::{Event, Target};
use super::page::{HISTORY_ID_FIRST, Membership, Page, Request, SEND_ID_FIRST};
use super::plan::Role;
use super::record::{Counts, Interval, LATE_NS, Name, PARTIALS_MAX, Partial, Phase, Waiting};

/// Things that should not happen, by what the server said.
#[derive(Debug, Default)]
pub struct Incidents {
    /// A body that came back changed, an object that is none, an answer to nothing, a message for somebody else.
    pub garbled: u64,
    pub gaps: u64,
    pub refusals: BTreeMap<String, u64>,
    pub first_garbled: Option<String>,
    /// Rooms that a returning connection got without a hole, and with one.
    pub recovered: u64,
    pub not_recovered: u64,
}

/// What the books of a thread are opened with.
#[derive(Debug)]
pub struct Opening {
    pub target: Target,
    pub lanes: usize,
    /// By local room: steady receivers on this thread.
    pub receivers: Vec<u32>,
    /// By local room: other threads have steady receivers too.
    pub shared: Vec<bool>,
    /// By local room: probes read it too.
    pub probed: Vec<bool>,
    pub memberships: usize,
    /// One receiver in this many is timed.
    pub sample_every: u32,
}

/// The books of a thread.
#[derive(Debug)]
pub struct Ledger {
    opening: Opening,
    /// The target answers messages; else the sender's own copy stands in.
    answers: bool,
    pub checker: Checker,
    /// Local room x lane.
    waiting: Vec<Waiting>,
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
    /// Memberships that came back with a hole that the server admitted.
    pub excused_seats: HashSet<usize>,
    pub incidents: Incidents,
    /// Messages that another thread's receivers have to complete, and that found no place in the interval.
    untold: u64,
}

impl Ledger {
    pub fn new(opening: Opening) -> Self {
        Self {
            answers: opening.target.abilities().answers,
            checker: Checker::new(opening.memberships, opening.lanes),
            waiting: std::iter::repeat_with(Waiting::default).take(opening.receivers.len() * opening.lanes).collect(),
            interval: Box::default(),
            received: 0,
            unanswered: 0,
            start_ns: 0,
            window_start_ns: 0,
            excused: HashSet::new(),
            excused_seats: HashSet::new(),
            incidents: Incidents::default(),
            untold: 0,
            opening,
        }
    }

    /// Something has arrived on a connection at `now_ns` of the monotonic clock.
    pub fn on_event(&mut self, page: &mut Page, event: Event<'_>, now_ns: u64) {
        match event {
            Event::Delivery { stamp, whole } => {
                if self.on_delivery(page, &stamp, now_ns)
                    && let Some(membership) = page.find(stamp.room)
                {
                    page.note_position(membership, self.opening.target.position(whole));
                }
            }
            Event::Sent { id } => self.on_sent(page, id, now_ns),
            Event::Welcome(_) => page.login_left = page.login_left.saturating_sub(1),
            Event::Joined { room, at, recovered, .. } => self.on_joined(page, (room, at), recovered),
            Event::Ping => page.pong_due = true,
            Event::History { id, .. } => self.on_history(page, id, now_ns),
            Event::Refused { id, reason } => self.on_refused(page, id, reason),
            Event::Bye { reason } => page.bye = Some(reason),
            Event::Gap => self.incidents.gaps += 1,
            Event::Garbled(bytes) => self.incidents.note_garbled(bytes),
            Event::Other => {}
        }
    }

    /// A message of ours; true when its position is to be kept.
    fn on_delivery(&mut self, page: &mut Page, stamp: &Stamp, now_ns: u64) -> bool {
        let Some(membership) = page.find(stamp.room) else {
            self.incidents.note_garbled(b"a message of a room that this connection is not in");
            return false;
        };
        if usize::from(stamp.lane) >= self.opening.lanes {
            self.incidents.note_garbled(b"a lane that this run does not have");
            return false;
        }
        if !membership.owed {
            return false;
        }
        let Stamp { lane, sequence, previous, .. } = *stamp;
        let faults = self.checker.faults;
        let arrival = self.checker.arrive(Place { membership: membership.index, lane, sequence, previous });
        let counts = &mut self.interval.counts;
        counts.out_of_order += self.checker.faults.out_of_order - faults.out_of_order;
        if arrival == Arrival::Doubled {
            counts.doubled += 1;
            return false;
        }
        self.received += 1;
        counts.delivered += 1;
        self.time(page, (membership, stamp), now_ns);
        if !self.answers
            && stamp.sender == page.connection
            && let Some(id) = page.request_of(stamp)
        {
            self.on_sent(page, Some(id), now_ns);
        }
        page.role == Role::Churner
    }

    /// Records how long a delivery took. What was due before the connection came back is a replay's, and no delivery's time.
    fn time(&mut self, page: &Page, (membership, stamp): (Membership, &Stamp), now_ns: u64) {
        let due_ns = self.start_ns + stamp.intended_ns;
        if !self.is_measured(stamp.intended_ns) || due_ns < page.back_ns {
            return;
        }
        let latency = now_ns.saturating_sub(due_ns);
        let room = membership.local_room;
        let interval = &mut self.interval;
        interval.counts.late += u64::from(latency > LATE_NS);
        let name = match (page.role, membership.inbox) {
            (Role::Probe, _) => Name::Probe,
            (_, true) => Name::DirectDelivery,
            (_, false) => Name::RoomDelivery,
        };
        let sampled = self.opening.sample_every == 1 || membership.index % usize::try_from(self.opening.sample_every).unwrap_or(1) == 0;
        if sampled || name == Name::Probe {
            interval.histograms.record(name, latency);
            if name == Name::RoomDelivery && self.opening.probed[room] {
                interval.histograms.record(Name::Probed, latency);
            }
        }
        if page.role != Role::Steady || membership.inbox {
            return;
        }
        let waiting = &mut self.waiting[room * self.opening.lanes + usize::from(stamp.lane)];
        let Some(first_ns) = waiting.arrive(stamp.sequence, self.opening.receivers[room], now_ns) else { return };
        if !self.opening.shared[room] {
            interval.histograms.record(Name::RoomLast, latency);
            if self.opening.receivers[room] > 1 {
                interval.histograms.record(Name::RoomSpread, now_ns - first_ns);
            }
        } else if interval.partials.len() < PARTIALS_MAX {
            let Stamp { room, lane, sequence, .. } = *stamp;
            interval.partials.push(Partial { room, lane, sequence, due_ns, first_ns, last_ns: now_ns });
        } else {
            self.untold += 1;
        }
    }

    /// Messages that are in neither `room.last` nor `room.spread`, because too many were waited for at once.
    pub fn unwatched(&self) -> u64 {
        self.untold + self.waiting.iter().map(|waiting| waiting.unwatched).sum::<u64>()
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
            histograms.record(Name::Sent, since(self.start_ns + request.intended_ns));
            if request.alone {
                histograms.record(Name::Uncorrected, since(request.handed_ns));
            }
        }
    }

    fn on_joined(&mut self, page: &mut Page, (room, at): (Option<u32>, Option<&[u8]>), recovered: Option<bool>) {
        page.login_left = page.login_left.saturating_sub(1);
        let Some(membership) = room.and_then(|room| page.find(room)).filter(|_| page.role == Role::Churner) else { return };
        let came_back = page.back_ns > 0;
        match recovered {
            Some(true) => self.incidents.recovered += 1,
            // The replay's messages bring their positions themselves.
            _ if came_back => {
                self.incidents.not_recovered += 1;
                self.excused_seats.insert(membership.index);
                page.note_position(membership, at);
            }
            _ => page.note_position(membership, at),
        }
    }

    fn on_history(&mut self, page: &mut Page, id: u64, now_ns: u64) {
        if let Some(due_ns) = page.history_due_ns.take()
            && id >= HISTORY_ID_FIRST
        {
            self.interval.histograms.record(Name::History, now_ns.saturating_sub(due_ns));
        }
    }

    /// A message is about to be sent; its request number. Waits for an answer where there will be one.
    pub fn enter(&mut self, page: &mut Page, request: Request) -> u64 {
        if !self.answers && page.find(request.room).is_none() {
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

    /// The answers that a closed connection still owes will not come.
    pub fn give_up(&mut self, page: &mut Page) {
        while let Some(request) = page.oldest().and_then(|id| page.answer(id)) {
            self.unanswered -= 1;
            self.excused.insert((request.room, request.sequence));
        }
    }

    fn on_refused(&mut self, page: &mut Page, id: Option<u64>, reason: String) {
        *self.incidents.refusals.entry(reason).or_default() += 1;
        if id.is_some_and(|id| id >= HISTORY_ID_FIRST) {
            page.history_due_ns = None;
        }
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

    pub fn counts(&mut self) -> &mut Counts {
        &mut self.interval.counts
    }
}

impl Incidents {
    #[cold]
    pub fn note_garbled(&mut self, bytes: &[u8]) {
        self.garbled += 1;
        self.first_garbled.get_or_insert_with(|| bytes.escape_ascii().to_string().chars().take(300).collect());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::page::Position;
    use super::*;

    fn ledger() -> (Ledger, Page) {
        let mut page = Page::new(0, Role::Steady);
        page.memberships.push(Membership { room: 3, index: 0, local_room: 0, owed: true, inbox: false });
        let opening = Opening {
            target: Target::Ringroom,
            lanes: 1,
            receivers: vec![1],
            shared: vec![false],
            probed: vec![false],
            memberships: 1,
            sample_every: 1,
        };
        (Ledger::new(opening), page)
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
        let (mut ledger, mut page) = ledger();
        ledger.answers = false;
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
        assert_eq!(ledger.interval.histograms.of(Name::Sent).len(), 3);
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
        let over = |name| ledger.interval.histograms.of(name).count_between(150_000_000, u64::MAX);
        assert_eq!(over(Name::Sent), 9);
        assert_eq!(over(Name::Uncorrected), 1);
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
        assert_eq!(ledger.interval.histograms.of(Name::RoomDelivery).len(), 1);
        assert_eq!((ledger.received, ledger.checker.faults.doubled), (2, 1));
    }

    #[test]
    fn a_replayed_message_is_checked_and_not_timed() {
        let (mut ledger, mut page) = ledger();
        page.role = Role::Churner;
        page.back_ns = 1_000;
        ledger.interval.restart(Phase::Measured, 0);
        for (sequence, intended_ns) in [(0, 900), (1, 1_100), (0, 900)] {
            let stamp = Stamp { room: 3, lane: 0, sender: 0, sequence, previous: sequence, intended_ns };
            ledger.on_event(&mut page, delivery(stamp), 5_000);
        }
        assert_eq!(ledger.interval.histograms.of(Name::RoomDelivery).len(), 1);
        assert_eq!((ledger.received, ledger.interval.counts.doubled), (2, 1));
    }

    #[test]
    fn a_hole_that_the_server_admits_excuses_the_seat_and_only_that() {
        let (mut ledger, mut page) = ledger();
        page.role = Role::Churner;
        let joined = |recovered| Event::Joined { room: Some(3), at: Some(b"9f.7-0"), replay: 0, recovered };
        ledger.on_event(&mut page, joined(None), 10);
        assert_eq!(page.position(0).map(Position::as_bytes), Some(&b"9f.7-0"[..]), "a first join says where it begins");
        page.back_ns = 20;
        ledger.on_event(&mut page, joined(Some(true)), 30);
        assert_eq!((ledger.incidents.recovered, ledger.excused_seats.len()), (1, 0));
        ledger.on_event(&mut page, joined(Some(false)), 40);
        assert_eq!((ledger.incidents.not_recovered, ledger.excused_seats.len()), (1, 1));
    }

    #[test]
    fn a_receiver_to_whom_nothing_is_owed_is_not_checked() {
        let (mut ledger, mut page) = ledger();
        page.memberships[0].owed = false;
        let stamp = Stamp { room: 3, lane: 0, sender: 0, sequence: 5, previous: 0, intended_ns: 0 };
        (0..2).for_each(|_| ledger.on_event(&mut page, delivery(stamp), 10));
        assert_eq!((ledger.received, ledger.interval.counts), (0, Counts::default()));
    }
}
