//! What a shard counts: one writer, any number of readers, no locks.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::histogram::Histogram;
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

/// A number with its place in the metrics: `ringroom_<family>`, with at most one label beside the shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The field.
    pub name: &'static str,
    /// The metric without `ringroom_` and, for a counter, without `_total`.
    pub family: &'static str,
    pub label: Option<(&'static str, &'static str)>,
    pub help: &'static str,
    pub value: u64,
}

/// Fields with a doc, the metric's name where it is another one, and a label where several fields are one family: `field = "family" { "label": "value" }`.
macro_rules! samples {
    ($(#[$about:meta])* $owner:ident: $($(#[doc = $doc:literal])* $name:ident $(= $family:literal $({ $label:literal : $value:literal })?)?),+ $(,)?) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $owner { $($(#[doc = $doc])* pub $name: Counter,)+ }

        impl $owner {
            pub fn samples(&self) -> Vec<Sample> {
                vec![$(Sample {
                    name: stringify!($name),
                    family: [stringify!($name) $(, $family)?].last().expect("the field's name is there"),
                    label: [None $($(, Some(($label, $value)))?)?].last().copied().flatten(),
                    help: concat!($($doc,)* ""),
                    value: self.$name.get(),
                },)+]
            }
        }
    };
}

samples! {
    /// What a shard has counted.
    Counts:
    /// Rounds of the shard's loop
    turns,
    /// Connections accepted
    accepted = "accepts",
    /// Calls of accept(2) that failed, EMFILE and ENFILE among them
    accept_errors,
    /// Connections turned away because there were as many as may be
    shed_limit = "sheds" { "reason": "limit" },
    /// Connections turned away because work waited too long
    shed_overload = "sheds" { "reason": "overload" },
    /// Connections turned away because the server drains
    shed_draining = "sheds" { "reason": "draining" },
    /// Sessions begun
    logins,
    /// Logins and renewals whose token was not good
    logins_failed,
    /// Logins turned away unchecked, because their address had failed too often
    logins_limited,
    /// Tokens that nobody had time to check
    verdicts_missed,
    /// Verdicts for connections that were gone or no longer waited
    verdicts_stale,
    /// PROXY headers of listed proxies that were taken
    proxy_headers,
    /// Connections of listed proxies that began with something else
    proxy_headers_bad,
    /// PROXY headers from addresses that are not listed
    proxy_headers_refused,
    /// Sockets that reached their user's shard after their handshake's deadline
    moved_late = "sockets_moved_late",
    /// Sockets handed to their user's shard
    moved = "sockets_moved",
    /// Sockets taken in that other shards had accepted
    moved_in = "sockets_moved_in",
    /// Frames received
    frames_in = "received_frames",
    /// Bytes received
    bytes_in = "received_bytes",
    /// Bytes sent
    bytes_out = "sent_bytes",
    /// Sends submitted
    sends,
    /// Frames that went out in a buffer gathered for this session or another one
    gathered = "gathered_frames",
    /// Sends whose gathered buffer another session had made in the same turn
    gather_shared,
    /// Messages queued on sessions
    deliveries,
    /// Messages that were given a position
    messages,
    /// Ephemeral messages
    ephemeral = "ephemeral_messages",
    /// Ephemeral messages that were dropped: a queue between shards was full, or a session did not read; messages of rooms that drop their oldest
    ephemeral_dropped = "drops" { "reason": "ephemeral" },
    /// Ephemeral messages that a session did not get because it did not read
    dropped_ephemeral = "drops" { "reason": "ephemeral_reader" },
    /// Messages that a session did not get because it did not read, in rooms that drop their oldest
    dropped_oldest = "drops" { "reason": "oldest" },
    /// Gaps announced in their place
    gaps,
    /// Sessions ended because the messages of the shard were over their budget
    evicted = "sessions_evicted",
    /// Users that came back before anybody was told that they had gone
    returns,
    /// Sends that were not sent again because their key was known
    duplicates,
    /// Requests refused with an error
    refused = "requests_refused",
    /// Joins
    joins,
    /// Requests that found no token of their user's rate
    rate_limited = "rate_limit_waits",
    /// Sends that waited for room in a queue or for a slow reader
    deferred = "sends_deferred",
    /// Times a slow reader held back the senders of its rooms
    stalls,
    /// Times a slow reader had no budget left to hold anybody back
    stalls_refused,
    /// Messages that the log did not answer in time
    log_late,
    /// Answers of the log that came twice
    log_repeated,
    /// Envelopes for sessions or places that had gone
    stale = "envelopes_stale",
    /// Rooms whose history was forgotten to stay under the shard's budget
    evicted_rooms = "history_evicted_rooms",
    /// Receives that ended for lack of buffers
    starved = "receives_starved",
    /// Receives cancelled because the session was not to be read
    receive_cancels,
    /// Times the shard began to turn connections away because work waited too long
    overloads,
    /// Requests that had to wait because the way to another shard was full
    blocked = "requests_blocked",
    /// Heartbeats sent
    pings,
    /// Objects whose decoding panicked
    decode_panics,
    /// Envelopes received from other shards
    envelopes_in = "mesh_envelopes",
    /// Times somebody rang the shard
    rung = "doorbells",
    /// Requests of the control plane taken
    errands,
    /// System calls io_uring_enter(2)
    ring_enters,
    /// Completions reaped
    ring_completions,
    /// Receives that ended because no buffer was left
    ring_enobufs,
    /// Enters after which the kernel held completions for which the queue had no room
    ring_overflows,
    /// Submissions that found no room
    ring_full,
    /// Enters that the kernel put off
    ring_put_off,
}

samples! {
    /// What a shard held when it last looked, at most about a second ago.
    Levels:
    /// Sessions that are logged in
    sessions,
    /// Connections in any state
    connections,
    /// Users known to the shard
    users,
    /// Rooms with members on the shard
    places = "rooms",
    /// Rooms whose order the shard makes
    homes = "home_rooms",
    /// Rooms and inboxes that retain something
    retained_rooms = "history_rooms",
    /// Bytes that rooms retain
    history_bytes,
    /// Messages handed to the log and not answered
    appends = "log_pending",
    /// Requests that wait in a room's order
    waiting = "requests_deferred",
    /// Requests to other shards without an answer
    unanswered = "requests_unanswered",
    /// Connections with a request that waits for another shard
    blocked = "connections_blocked",
    /// Connections whose receive found no buffer
    starved = "connections_starved",
    /// Envelopes that wait on this side for room in a queue to another shard
    outbox = "mesh_outbox_envelopes",
    /// The most of them in the last ten to twenty seconds
    outbox_high = "mesh_outbox_envelopes_high",
    /// Bytes that wait for the slowest session: the most in the last ten to twenty seconds
    queue_high = "queue_bytes_high",
    /// Bytes of frames and of gathered buffers
    frame_bytes,
    /// Frames in the store, of queues.frames_max
    frames_used = "pool_frames_used",
    /// Gathered buffers in use, of queues.gather_buffers
    gathers_used = "pool_gathers_used",
    /// Queue chunks in use, of queues.out_chunks_max
    chunks_used = "pool_chunks_used",
    /// Bytes received and not yet judged, of queues.leftover_bytes_max
    unread_bytes = "pool_unread_bytes",
    /// Receive buffers that the kernel has left
    buffers_left = "ring_buffers_left",
    /// Tokens of the shard's connections that are being checked
    verifying = "logins_verifying",
    /// Requests of the control plane that wait
    errands_waiting,
    /// 1: turns new connections away because work waits too long; 2: refuses sends as well
    overload = "overload_level",
}

/// One shard's counters, levels and histograms. It alone writes them.
#[derive(Debug, Default)]
pub struct Counters {
    pub counts: Counts,
    pub levels: Levels,
    /// From reading a `send` to its room's home shard, one message in sixteen under load.
    pub to_home: Histogram,
    /// From there to the members' queues, the log's answer included.
    pub to_queue: Histogram,
    /// From there to the submission of the send, for one member.
    pub to_submit: Histogram,
    /// From reading to submission, for members on the last shard of the way.
    pub end_to_end: Histogram,
    /// Time of a turn, without the system call.
    pub turn_time: Histogram,
    /// How long work that was ready waited for its turn.
    pub loop_lag: Histogram,
    ended: EndedCounters,
}

impl std::ops::Deref for Counters {
    type Target = Counts;
    fn deref(&self) -> &Counts {
        &self.counts
    }
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
    /// Name and value of every counter but the ends.
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        self.counts.samples().into_iter().map(|sample| (sample.name, sample.value)).collect()
    }

    pub fn end(&self, ended: Ended) {
        self.ended.0[ended.index()].add(1);
    }

    /// Ends so far, by every reason there is.
    pub fn all_ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Ended::all().zip(&self.ended.0).map(|(ended, counter)| (ended.name(), counter.get()))
    }

    /// Ends so far, by reason; those that never happened are left out.
    pub fn ends(&self) -> Vec<(&'static str, u64)> {
        self.all_ends().filter(|(_, count)| *count > 0).collect()
    }
}

/// What all shards of a process share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Connections of the process, from accept to release.
    pub connections: AtomicUsize,
    /// The process was told to drain.
    pub draining: AtomicBool,
    /// Tasks of shards that ended without being told to; the process ends with the first.
    pub tasks_failed: AtomicU64,
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
