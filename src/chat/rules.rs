//! What the rules are told once: who they are, and the bounds of the configuration in their own words.

use super::bucket::RateRules;
use super::retention::RetentionRules;
use crate::config::{Deadline, RoomRule, Settings, SlowReader};
use crate::ids::{Epoch, Key, ShardId};
use crate::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, REPLAY_MESSAGES_MAX, SHARDS_MAX};
use crate::protocol::encode::AnnouncedLimits;

/// Requests to one other shard without an answer. Raising it lets a slow shard collect more work; the outboxes grow by as much.
const REQUESTS_PER_PEER_MAX: u32 = 4096;
/// Envelopes that may wait for one other shard before positions are held back. About 100 bytes and a payload each.
const DELIVERIES_PER_PEER_MAX: u32 = 16_384;
/// `send`s of a shard's rooms that may wait for room in a queue, for a slow reader or for an append before them.
const DEFERRED_MAX: u32 = 16_384;
/// Appends of a shard that may wait for the log.
const APPENDS_MAX: u32 = 65_536;
/// Users that rooms of a shard wait for; above it who goes is told at once. About 32 bytes each.
const ABSENCES_MAX: usize = 16_384;
/// Homes of a shard: what a key can name.
const HOMES_MAX: u32 = 1 << Key::SLOT_BITS;

const _: () = assert!((HOMES_MAX - APPENDS_MAX - DEFERRED_MAX) as usize / SHARDS_MAX > 0);

/// Which shard, of which process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub shard: ShardId,
    pub shards: u16,
    pub epoch: Epoch,
    pub node: String,
    /// Secret, the same on all shards of a process: names are chosen by clients.
    pub hash_seeds: [u64; 4],
}

/// The bounds and the identity of one shard's rules.
#[derive(Clone, Debug)]
pub struct Rules {
    pub shard: ShardId,
    pub shards: u16,
    pub epoch: Epoch,
    pub node: String,
    /// Secret, the same on all shards of a process: names are chosen by clients.
    pub hash_seeds: [u64; 4],
    pub heartbeat_ms: u64,
    pub announced: AnnouncedLimits,
    pub sessions_per_user_max: usize,
    /// Rooms with members on this shard; `shards` times this, and what waits for the log, stay under the slab's 2^24.
    pub places_max: u32,
    /// Rooms and inboxes whose home is this shard, the ones that only retain something included: above it those are forgotten.
    pub homes_max: u32,
    pub retention: RetentionRules,
    pub rate: RateRules,
    /// What becomes of readers that fall behind, and where it is something else: the first that matches counts.
    pub slow_reader: SlowReader,
    pub rooms: Vec<RoomRule>,
    /// An append that is not answered for this long is refused with 503.
    pub log_ms: u64,
    /// A `send` that finds no room in a queue for this long is refused with 503.
    pub hold_ms: u64,
    /// Requests to one other shard that are not answered yet.
    pub requests_per_peer_max: u32,
    /// Envelopes of this shard that wait for one other shard, above which positions are not given.
    pub deliveries_per_peer_max: u32,
    /// `send`s of this shard's rooms that may wait.
    pub deferred_max: u32,
    /// Appends of this shard's rooms that may wait for the log.
    pub appends_max: u32,
    /// Members on one shard from which a room's messages are bulk.
    pub bulk_room_members: usize,
    /// How long a room still counts a user whose last session has ended, and how many such users of a shard's rooms may be waited for.
    pub absence_ms: u64,
    pub absences_max: usize,
}

impl Rules {
    /// Takes the limits of settings that were read again; who and where the shard is stays, and so does what memory was laid out for.
    pub(super) fn take_limits(&mut self, settings: &Settings) {
        let identity =
            Identity { shard: self.shard, shards: self.shards, epoch: self.epoch, node: String::new(), hash_seeds: self.hash_seeds };
        let fresh = Rules::new(identity, settings);
        self.heartbeat_ms = fresh.heartbeat_ms;
        self.announced = fresh.announced;
        self.sessions_per_user_max = fresh.sessions_per_user_max;
        self.places_max = fresh.places_max;
        self.absence_ms = fresh.absence_ms;
        self.rate = fresh.rate;
        (self.log_ms, self.hold_ms) = (fresh.log_ms, fresh.hold_ms);
    }

    /// What becomes of a room's members that fall behind. An inbox loses nothing: where others drop their oldest, its owner is on its own.
    pub(super) fn slow_reader_of(&self, room: &str) -> SlowReader {
        if room.starts_with('@') {
            return if self.slow_reader == SlowReader::DropOldest { SlowReader::Close } else { self.slow_reader };
        }
        self.rooms.iter().find(|rule| rule.pattern.matches(room)).map_or(self.slow_reader, |rule| rule.slow_reader)
    }

    /// The rules of a shard under validated settings.
    pub fn new(identity: Identity, settings: &Settings) -> Self {
        let limits = &settings.limits;
        let bytes = |count: usize| u32::try_from(count).expect("a limit below 2^32");
        Self {
            places_max: bytes(limits.rooms_per_shard).min((HOMES_MAX - APPENDS_MAX - DEFERRED_MAX) / u32::from(identity.shards)),
            homes_max: HOMES_MAX,
            shard: identity.shard,
            shards: identity.shards,
            epoch: identity.epoch,
            node: identity.node,
            hash_seeds: identity.hash_seeds,
            heartbeat_ms: limits.heartbeat_ms,
            announced: AnnouncedLimits {
                frame_bytes: bytes(FRAME_BYTES_MAX),
                body_bytes: bytes(BODY_BYTES_MAX),
                rooms: bytes(limits.rooms_per_session),
                replay: bytes(REPLAY_MESSAGES_MAX),
                requests_per_s: limits.requests_per_s,
                requests_burst: limits.requests_burst,
            },
            sessions_per_user_max: limits.sessions_per_user,
            retention: RetentionRules {
                messages_max: settings.history.room_messages,
                bytes_max: settings.history.room_bytes,
                age_ms: settings.history.age_ms,
                shard_bytes_max: settings.history.shard_bytes,
                dedup_bytes_max: settings.history.dedup_bytes,
            },
            rate: RateRules {
                requests_per_s: limits.requests_per_s,
                burst: limits.requests_burst,
                recipients_per_token: limits.recipients_per_token,
                mode: limits.rate_mode,
            },
            slow_reader: settings.queues.slow_reader,
            rooms: settings.rooms.clone(),
            log_ms: Deadline::Log.ms(settings),
            hold_ms: Deadline::Held.ms(settings),
            requests_per_peer_max: REQUESTS_PER_PEER_MAX,
            deliveries_per_peer_max: DELIVERIES_PER_PEER_MAX,
            deferred_max: DEFERRED_MAX,
            appends_max: APPENDS_MAX,
            bulk_room_members: settings.queues.bulk_room_members,
            absence_ms: Deadline::Absence.ms(settings),
            absences_max: ABSENCES_MAX,
        }
    }
}
