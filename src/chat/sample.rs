//! A look at few messages: when a sampled one began each stage of its way, and which rooms and senders are the loudest.
//!
//! Bounded work: of many `send`s one in [`EVERY`] is looked at, and stands for those before it. Names are kept here, in two short lists, and leave
//! the shard on request only.

use crate::ids::Now;

/// Of so many `send`s one is looked at.
const EVERY: u64 = 16;
/// After this long the next one is looked at in any case.
const PAUSE_NS: u64 = 1_000_000;
/// Names in a list; a name beside them takes the place of the quietest.
const NAMES: usize = 32;
/// A weight falls by a tenth in each of these.
const STEP_NS: u64 = 1_000_000_000;
/// Weights are kept in this fraction of a message, so that they fall smoothly.
const ONE: u64 = 1_000;
/// A steady sender's weight ends at ten times its rate per second.
const STEPS_HELD: u64 = 10;

/// When a sampled message came to where it is: microseconds of the monotonic clock, their lower half. Zero: it is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u32);

impl Stamp {
    pub(super) fn at(now: Now) -> Self {
        Self(low_us(now).max(1))
    }

    /// The same message has come to its next stage; one that is not looked at stays so.
    pub(super) fn next(self, now: Now) -> Self {
        if self.is_sampled() { Self::at(now) } else { self }
    }

    pub fn is_sampled(self) -> bool {
        self.0 != 0
    }

    /// Microseconds since then.
    pub fn age_us(self, now: Now) -> u32 {
        let age = low_us(now).wrapping_sub(self.0);
        // The clock's lower half may have been rounded up to one at the start.
        if age > u32::MAX / 2 { 0 } else { age }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low_us(now: Now) -> u32 {
    (now.mono_ns / 1_000) as u32
}

/// When a message was read, and when its room's home judged it or its member's shard queued it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    pub received: Stamp,
    pub latest: Stamp,
}

/// A part of a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From reading it to its room's home, the wait in the room's order included.
    ToHome,
    /// From there to its members' queues, the log's answer included.
    ToQueue,
}

/// A name and how many messages a second it has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loud {
    pub name: String,
    pub per_s: u64,
}

/// What a shard knows of its loudest rooms and senders.
#[derive(Debug, Default)]
pub(super) struct Meter {
    sends: u64,
    looked_ns: u64,
    pub(super) rooms: Loudest,
    pub(super) senders: Loudest,
}

impl Meter {
    /// A `send` was taken.
    pub(super) fn send(&mut self, now: Now, room: &str, user: &str) -> Stamp {
        self.sends += 1;
        if self.sends < EVERY && now.mono_ns.saturating_sub(self.looked_ns) < PAUSE_NS {
            return Stamp::default();
        }
        let weight = std::mem::take(&mut self.sends);
        self.looked_ns = now.mono_ns;
        self.rooms.add(now, room, weight);
        self.senders.add(now, user, weight);
        Stamp::at(now)
    }
}

/// A short list of names with weights (Space-Saving: a new name takes over the weight of the one it displaces, so a loud one is never missed).
#[derive(Debug, Default)]
pub(super) struct Loudest {
    names: Vec<(String, u64)>,
    fallen_ns: u64,
}

impl Loudest {
    fn add(&mut self, now: Now, name: &str, weight: u64) {
        self.fall(now);
        let weight = weight * ONE;
        if let Some((_, sum)) = self.names.iter_mut().find(|(known, _)| known == name) {
            *sum += weight;
        } else if self.names.len() < NAMES {
            self.names.push((name.to_owned(), weight));
        } else if let Some((known, sum)) = self.names.iter_mut().min_by_key(|(_, sum)| *sum) {
            known.clear();
            known.push_str(name);
            *sum += weight;
        }
    }

    fn fall(&mut self, now: Now) {
        let steps = now.mono_ns.saturating_sub(self.fallen_ns) / STEP_NS;
        if steps == 0 {
            return;
        }
        self.fallen_ns = now.mono_ns;
        for (_, sum) in &mut self.names {
            for _ in 0..steps.min(100) {
                *sum = *sum / 10 * 9;
            }
        }
        self.names.retain(|(_, sum)| *sum > 0);
    }

    /// The loudest so many, the loudest first.
    pub(super) fn loudest(&mut self, now: Now, most: usize) -> Vec<Loud> {
        self.fall(now);
        let mut all: Vec<Loud> =
            self.names.iter().map(|(name, sum)| Loud { name: name.clone(), per_s: sum.div_ceil(ONE * STEPS_HELD) }).collect();
        all.sort_by(|a, b| b.per_s.cmp(&a.per_s).then_with(|| a.name.cmp(&b.name)));
        all.truncate(most);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_ns: ms * 1_000_000, unix_ms: 0 }
    }

    #[test]
    fn a_loud_room_among_a_thousand_quiet_ones_is_found_with_its_rate() {
        let mut meter = Meter::default();
        for ms in 0..30_000u64 {
            meter.send(at(ms), if ms % 2 == 0 { "loud" } else { "x" }, "alice");
            meter.send(at(ms), &format!("quiet-{}", ms % 1_000), "bob");
        }
        let rooms = meter.rooms.loudest(at(30_000), 1);
        assert_eq!(rooms[0].name, "loud");
        assert!((300..=1_100).contains(&rooms[0].per_s), "{rooms:?}");
        assert!(meter.rooms.names.len() <= NAMES);
    }

    #[test]
    fn what_has_fallen_silent_is_forgotten() {
        let mut meter = Meter::default();
        meter.send(at(1), "a", "b");
        assert_eq!(meter.senders.loudest(at(2), 10).len(), 1);
        assert!(meter.senders.loudest(at(200_000), 10).is_empty());
    }

    #[test]
    fn of_many_sends_one_in_sixteen_is_stamped_and_its_age_survives_the_clocks_wrap() {
        let mut meter = Meter::default();
        let stamped = (0..1_600).filter(|_| meter.send(at(5), "a", "b").is_sampled()).count();
        assert!((100..=101).contains(&stamped), "{stamped}");
        let wrap_us = u64::from(u32::MAX);
        let stamp = Stamp::at(Now { mono_ns: (wrap_us - 5) * 1_000, unix_ms: 0 });
        assert_eq!(stamp.age_us(Now { mono_ns: (wrap_us + 15) * 1_000, unix_ms: 0 }), 20);
    }
}
