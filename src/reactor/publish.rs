//! What a shard lets others see of itself: it writes its levels now and then, and whoever wants them reads the atomics. Nobody asks the shard.

use super::Reactor;
use super::core::Core;
use crate::chat::{Stage, Stamps};
use crate::ids::{Key, Now};
use crate::ring::Io;

/// A high-water mark is kept for one window in full, so that whoever looks more often than that never misses a peak.
const WINDOW_NS: u64 = 10_000_000_000;

/// The most of something in the last one to two windows.
#[derive(Debug, Default)]
pub(super) struct HighWater {
    before: u64,
    now: u64,
    turned_ns: u64,
}

impl HighWater {
    pub(super) fn note(&mut self, value: u64) {
        self.now = self.now.max(value);
    }

    fn read(&mut self, now_ns: u64) -> u64 {
        if now_ns.saturating_sub(self.turned_ns) >= WINDOW_NS {
            (self.before, self.now, self.turned_ns) = (self.now, 0, now_ns);
        }
        self.before.max(self.now)
    }
}

/// A sampled message that waits on one session for its send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) session: Key,
    pub(super) stamps: Stamps,
}

impl<I: Io> Reactor<I> {
    /// Writes all levels, and the counts that are kept elsewhere.
    pub(super) fn publish(&mut self) {
        self.core.publish_counts();
        self.core.publish_levels();
        let (counts, levels, ring) = (&self.core.counters.counts, &self.core.counters.levels, self.io.stats());
        counts.ring_enters.set(ring.enters);
        counts.ring_completions.set(ring.completions);
        counts.ring_enobufs.set(ring.enobufs);
        counts.ring_overflows.set(ring.overflows);
        counts.ring_full.set(ring.full);
        counts.ring_put_off.set(ring.put_off);
        levels.buffers_left.set(u64::from(self.io.buffers_left()));
        levels.starved.set(self.starved.len() as u64);
    }

    /// The send that a probe waited for has been submitted.
    pub(super) fn probe_submitted(&mut self, key: Key) {
        let Some(probe) = self.core.probe.take_if(|probe| probe.session == key) else { return };
        let now = self.io.now();
        self.core.counters.to_submit.record_us(u64::from(probe.stamps.latest.age_us(now)));
        self.core.counters.end_to_end.record_us(u64::from(probe.stamps.received.age_us(now)));
    }

    /// The turn's work is done but for the system call.
    pub(super) fn note_turn(&mut self) {
        let took_ns = self.io.now().mono_ns.saturating_sub(self.core.now.mono_ns);
        self.core.counters.turn_time.record_us(took_ns / 1_000);
    }
}

impl<S> Core<S> {
    pub(super) fn note_stage(&self, stage: Stage, us: u32) {
        let histogram = match stage {
            Stage::ToHome => &self.counters.to_home,
            Stage::ToQueue => &self.counters.to_queue,
        };
        histogram.record_us(u64::from(us));
    }

    /// A sampled message stands in this session's queue. One at a time is followed; one whose session has gone is given up.
    pub(super) fn follow(&mut self, session: Key, stamps: Stamps) {
        let idle = self.probe.is_none_or(|probe| self.connections.get(probe.session).is_none_or(|c| c.queue.is_empty()));
        if stamps.received.is_sampled() && idle {
            self.probe = Some(Probe { session, stamps });
        }
    }

    fn publish_counts(&self) {
        let (seen, counts) = (self.chat.counts(), &self.counters.counts);
        counts.messages.set(seen.messages);
        counts.ephemeral.set(seen.ephemeral);
        counts.ephemeral_dropped.set(seen.ephemeral_dropped);
        counts.duplicates.set(seen.duplicates);
        counts.refused.set(seen.refused);
        counts.joins.set(seen.joins);
        counts.returns.set(seen.returns);
        counts.rate_limited.set(seen.rate_limited);
        counts.deferred.set(seen.deferred);
        counts.stalls.set(seen.stalls);
        counts.stalls_refused.set(seen.stalls_refused);
        counts.log_late.set(seen.log_late);
        counts.log_repeated.set(seen.log_repeated);
        counts.stale.set(seen.stale);
        counts.evicted_rooms.set(self.chat.usage().evicted_rooms);
    }

    fn publish_levels(&mut self) {
        let Now { mono_ns, .. } = self.now;
        let (usage, frames) = (self.chat.usage(), self.frames.usage());
        let levels = &self.counters.levels;
        levels.sessions.set(usage.sessions as u64);
        levels.connections.set(self.connections.len() as u64);
        levels.users.set(usage.users as u64);
        levels.places.set(usage.places as u64);
        levels.homes.set(usage.homes as u64);
        levels.retained_rooms.set(usage.retained_rooms as u64);
        levels.history_bytes.set(usage.history_bytes as u64);
        levels.appends.set(usage.appends as u64);
        levels.waiting.set(usage.deferred as u64);
        levels.unanswered.set(usage.unanswered);
        levels.blocked.set(self.blocked.len() as u64);
        levels.outbox.set(self.port.waiting() as u64);
        levels.outbox_high.set(self.outbox_high.read(mono_ns));
        levels.queue_high.set(self.queue_high.read(mono_ns));
        levels.frame_bytes.set(frames.bytes);
        levels.frames_used.set(u64::from(frames.frames));
        levels.gathers_used.set(u64::from(frames.gathers));
        levels.chunks_used.set(u64::from(self.queues.used()));
        levels.unread_bytes.set(self.unread_bytes as u64);
        levels.verifying.set(self.asked.len() as u64);
        levels.errands_waiting.set(self.errands.waiting() as u64);
        levels.overload.set(self.sheds as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_seen_for_a_window_and_forgotten_after_two() {
        let mut mark = HighWater::default();
        mark.note(7);
        assert_eq!(mark.read(WINDOW_NS), 7);
        mark.note(3);
        assert_eq!(mark.read(2 * WINDOW_NS - 1), 7);
        assert_eq!(mark.read(2 * WINDOW_NS), 3);
        assert_eq!(mark.read(3 * WINDOW_NS), 0);
    }
}
