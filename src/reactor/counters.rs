//! What a shard counts: one writer, any number of readers, no locks.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::protocol::error::Reason;

/// Why a connection ended. Every end is counted under exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server said `bye` with this reason.
    Said(Reason),
    /// The client closed its side.
    PeerClosed,
    /// Reset, timed out or unreachable: the socket gave an error.
    PeerLost,
    /// WebSocket or TLS on a port that does not speak them yet.
    OtherTransport,
    /// Accepted, but there was no place to keep it.
    NoPlace,
    /// The process stopped before the connection had ended.
    Stopped,
}

impl Ended {
    /// The metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Said(reason) => reason.name(),
            Ended::PeerClosed => "peer_closed",
            Ended::PeerLost => "peer_lost",
            Ended::OtherTransport => "other_transport",
            Ended::NoPlace => "no_place",
            Ended::Stopped => "stopped",
        }
    }

    const OTHERS: [Ended; 5] = [Ended::PeerClosed, Ended::PeerLost, Ended::OtherTransport, Ended::NoPlace, Ended::Stopped];
    /// All reasons, in the order of their counters.
    pub const COUNT: usize = Reason::ALL.len() + Self::OTHERS.len();

    pub fn all() -> impl Iterator<Item = Ended> {
        Reason::ALL.into_iter().map(Ended::Said).chain(Self::OTHERS)
    }

    fn index(self) -> usize {
        Self::all().position(|ended| ended == self).expect("every reason is in the list")
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// One shard's counters. They only grow.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)+ ended: EndedCounters }

        impl Counters {
            /// Name and value of every counter but the ends.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

counters! {
    turns,
    accepted,
    /// accept(2) failed; EMFILE and ENFILE among them
    accept_errors,
    logins,
    /// logins and renewals whose token was not good
    logins_failed,
    /// logins turned away unchecked, because their address had failed too often
    logins_limited,
    /// tokens that nobody had time to check
    verdicts_missed,
    /// verdicts for connections that were gone or no longer waited
    verdicts_stale,
    moved,
    /// sockets taken in that other shards had accepted
    moved_in,
    frames_in,
    bytes_in,
    bytes_out,
    sends,
    /// frames that went out in a buffer gathered for this session or another one
    gathered,
    /// sends whose gathered buffer another session had made in the same turn
    gather_shared,
    deliveries,
    messages,
    /// ephemeral messages that a session did not get because it did not read
    dropped_ephemeral,
    /// messages that a session did not get because it did not read, in rooms that drop their oldest
    dropped_oldest,
    /// gaps announced in their place
    gaps,
    /// sessions ended because the messages of the shard were over their budget
    evicted,
    /// ephemeral messages that nobody got because the way to another shard was full
    dropped_full,
    /// times a slow reader held back the senders of its rooms
    stalls,
    /// requests that found too few tokens, each time they were offered
    rate_limited,
    /// users that came back before anybody was told that they had gone
    returns,
    /// receives that ended for lack of buffers
    starved,
    receive_cancels,
    /// times the shard began to turn connections away because work waited too long
    overloads,
    /// requests that had to wait because the way to another shard was full
    blocked,
    pings,
    decode_panics,
    /// envelopes received from other shards
    envelopes_in,
    rung,
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        // One writer: a load and a store, no locked instruction.
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct EndedCounters([Counter; Ended::COUNT]);

impl Default for EndedCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Counters {
    pub fn end(&self, ended: Ended) {
        self.ended.0[ended.index()].add(1);
    }

    /// Ends so far, by reason; those that never happened are left out.
    pub fn ends(&self) -> Vec<(&'static str, u64)> {
        let all = Ended::all().zip(&self.ended.0).map(|(ended, counter)| (ended.name(), counter.get()));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// What all shards of a process share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Connections of the process, from accept to release.
    pub connections: AtomicUsize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_its_own_counter() {
        let counters = Counters::default();
        for ended in Ended::all() {
            counters.end(ended);
        }
        let ends = counters.ends();
        assert_eq!(ends.len(), Ended::COUNT);
        assert!(ends.iter().all(|(_, count)| *count == 1));
    }
}
