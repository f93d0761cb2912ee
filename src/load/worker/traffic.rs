//! Sending: messages that are due by the schedule, or as many as are under way at once.

use std::os::fd::OwnedFd;

use crate::load::body::Stamp;
use crate::load::page::Request;
use crate::load::record::{Name, Phase};
use crate::load::senders::Turn;
use crate::ring::Io;
use crate::sys::clock::monotonic_ns;

use super::Worker;

/// Messages handed over between two looks at what has come, when behind.
const SENDS_PER_TURN: usize = 128;

/// A thread's part of the messages under way, at least one.
pub(super) fn part(window: u32, share: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the window, not negative")]
    let part = (f64::from(window) * share).round() as u64;
    part.max(1)
}

impl<I: Io<Socket = OwnedFd>> Worker<I> {
    /// Hands over what is due by `until`, up to a turn's bound; how many.
    pub(super) fn issue_due(&mut self, until: u64) -> usize {
        let mut issued = 0;
        while issued < SENDS_PER_TURN {
            let Some(schedule) = self.schedule.as_mut().filter(|schedule| schedule.due_ns() <= until) else { break };
            let intended_ns = schedule.due_ns();
            schedule.advance();
            let links = &self.links;
            let turn = self.senders.next(schedule.random(), |link| links[link].is_in());
            self.issue(turn, intended_ns);
            issued += 1;
        }
        issued
    }

    /// Hands over what has become due while completions are being read. Stays within the interval that is being filled.
    pub(super) fn issue_between(&mut self) {
        if self.schedule.is_none() || self.ledger.start_ns == 0 {
            return;
        }
        let border = match self.ledger.interval.phase {
            Phase::Warmup => self.ledger.window_start_ns,
            Phase::Measured => self.setup.shared.end_ns.load(std::sync::atomic::Ordering::Relaxed),
            Phase::Grace => 0,
        };
        if let Some(last) = border.checked_sub(1) {
            self.issue_due(self.since_start().min(last));
        }
    }

    /// Closed loop: keeps as many messages under way as the plan says; how many were handed over.
    pub(super) fn issue_window(&mut self, now: u64) -> usize {
        let mut issued = 0;
        while self.ledger.unanswered < self.closed_window && issued < SENDS_PER_TURN {
            let links = &self.links;
            let turn = self.senders.next(&mut self.random, |link| links[link].is_in());
            self.issue(turn, now);
            issued += 1;
        }
        issued
    }

    fn issue(&mut self, turn: Option<Turn>, intended_ns: u64) {
        // A warm-up message that is late does not count into the window.
        let counted = self.ledger.is_measured(intended_ns);
        self.ledger.counts().offered += u64::from(counted);
        let Some(turn) = turn else {
            self.unsent += 1;
            return;
        };
        let link = &mut self.links[turn.link];
        let handed_ns = monotonic_ns();
        let request = Request { room: turn.room, sequence: turn.sequence, intended_ns, handed_ns, alone: false, answered: false };
        let id = self.ledger.enter(&mut link.page, request);
        let stamp = Stamp {
            room: turn.room,
            lane: self.setup.lane,
            sender: link.connection,
            sequence: turn.sequence,
            previous: turn.previous,
            intended_ns,
        };
        self.scratch.clear();
        self.dialect.publish(id, &stamp, &mut self.scratch);
        if link.push(&self.scratch).is_err() {
            self.ledger.withdraw(&mut link.page, id, (turn.room, turn.sequence));
            self.unsent += 1;
            return;
        }
        self.flush(turn.link);
        self.owed += u64::from(self.setup.plan.owed(turn.room));
        if counted {
            self.ledger.counts().sent += 1;
            let late_ns = handed_ns.saturating_sub(self.ledger.start_ns + intended_ns);
            self.ledger.interval.histograms.record(Name::Lateness, late_ns);
        }
    }
}
