//! What a seed chooses: shards, limits, fault rates, how many clients and how they behave.

use std::collections::BTreeSet;

use ringroom::config::{RateMode, RoomRule, Settings, SlowReader};
use ringroom::ids::RoomPattern;
use ringroom::ring::fake::{Fault, Random, Rates};

/// One run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shards: u16,
    pub(crate) settings: Settings,
    pub(crate) rates: Rates,
    pub(crate) log: LogFaults,
    /// Logins need tokens; the verifier has these faults.
    pub(crate) verifier: Option<VerifierFaults>,
    /// The embedded log instead of the one with faults.
    pub(crate) real_log: bool,
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: usize,
    pub(crate) submissions: usize,
    /// Bounds of the rules that are no settings.
    pub(crate) requests_per_peer_max: u32,
    pub(crate) deliveries_per_peer_max: u32,
    pub(crate) deferred_max: u32,
    pub(crate) appends_max: u32,
    /// At one time, and the names they share.
    pub(crate) clients: usize,
    pub(crate) users: u64,
    pub(crate) rooms: u64,
    pub(crate) manners: Manners,
    /// Mean time between two acts of a client.
    pub(crate) pause_ns: u64,
    pub(crate) window: usize,
    /// Some limit is far below its default, so that sessions may be ended for it.
    pub(crate) tight: bool,
    /// Rooms that drop the oldest messages of a reader that falls behind.
    pub(crate) dropping: BTreeSet<String>,
    /// How the run ends for the server.
    pub(crate) drains_under_load: bool,
    /// Completions that the load is kept up for.
    pub(crate) completions: u64,
    pub(crate) frozen_shards: bool,
    pub(crate) wall_clock_steps: bool,
}

/// Parts per thousand of a client's acts.
#[derive(Clone, Debug)]
pub(crate) struct Manners {
    pub(crate) garbage: u64,
    pub(crate) bad_frames: u64,
    pub(crate) resets: u64,
    pub(crate) half_closes: u64,
    pub(crate) stops: u64,
    pub(crate) stops_for_ever: u64,
    pub(crate) silences: u64,
    pub(crate) large_bodies: u64,
    pub(crate) byes: u64,
    pub(crate) closes: u64,
    pub(crate) devices: bool,
}

/// Parts per million of the log's answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogFaults {
    pub(crate) delayed: u32,
    pub(crate) repeated: u32,
    pub(crate) lost: u32,
}

/// Parts per million of the questions to the verifier.
#[derive(Clone, Debug, Default)]
pub(crate) struct VerifierFaults {
    pub(crate) late: u32,
    pub(crate) lost: u32,
    pub(crate) repeated: u32,
    /// There was no room for it, or nobody got to look at it.
    pub(crate) full: u32,
    pub(crate) unchecked: u32,
}

/// What a room surely retains, as the settings say it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retained {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) age_ms: u64,
    /// All rooms of a shard together have so little that nothing is sure.
    pub(crate) shard_is_small: bool,
}

impl Default for Retained {
    fn default() -> Self {
        Self { messages_max: usize::MAX, bytes_max: usize::MAX, age_ms: u64::MAX, shard_is_small: false }
    }
}

pub(crate) const SHAPES: [u16; 4] = [1, 2, 3, 8];

impl Plan {
    pub(crate) fn of_seed(seed: u64) -> Plan {
        let mut random = Random::new(seed ^ 0x51ed_270b);
        let shards = SHAPES[usize::try_from(seed % 4).expect("below four")];
        let mut rates = if random.percent(10) { Rates::quiet() } else { Rates::seeded(&mut random) };
        if random.percent(50) {
            rates.set(Fault::ReceiveReset, 0);
            rates.set(Fault::SendBroken, 0);
        }
        let (mut settings, tight) = settings(&mut random, shards);
        let rooms = random.between(1, 8);
        let dropping = slow_readers(&mut random, &mut settings, rooms);
        Plan {
            seed,
            shards,
            settings,
            rates,
            tight,
            log: log_faults(&mut random),
            verifier: random.percent(40).then(|| verifier_faults(&mut random)),
            real_log: random.percent(20),
            buffers: *random.pick(&[4, 8, 32, 256]),
            buffer_bytes: *random.pick(&[16, 64, 512, 2048]),
            submissions: *random.pick(&[4, 16, 64, 1024]),
            requests_per_peer_max: *random.pick(&[2, 32, 1_024]),
            deliveries_per_peer_max: *random.pick(&[4, 64, 4_096]),
            deferred_max: *random.pick(&[2, 64, 1_024]),
            appends_max: *random.pick(&[8, 256, 4_096]),
            clients: random.size(30, 150),
            users: random.between(4, 60),
            rooms,
            dropping,
            manners: manners(&mut random),
            pause_ns: *random.pick(&[2_000_000, 50_000_000, 500_000_000, 2_000_000_000]),
            window: *random.pick(&[300, 4_000, 60_000, 400_000]),
            drains_under_load: random.percent(30),
            completions: 20_000,
            frozen_shards: random.percent(20),
            wall_clock_steps: random.percent(20),
        }
    }
}

impl Plan {
    /// Users are held to a rate that they can reach.
    pub(crate) fn is_rated(&self) -> bool {
        self.settings.limits.requests_per_s < 1_000 || self.verifier.is_some()
    }

    pub(crate) fn retained(&self) -> Retained {
        let history = &self.settings.history;
        let shard_is_small = history.shard_bytes < SHARD_BYTES_SMALL;
        Retained { messages_max: history.room_messages, bytes_max: history.room_bytes, age_ms: history.age_ms, shard_is_small }
    }
}

/// No run writes as much.
const SHARD_BYTES_SMALL: usize = 64 << 20;

/// Most runs retain everything they write, so that nobody may be told that something is gone; the others forget all the time.
fn history(random: &mut Random, settings: &mut Settings) {
    let history = &mut settings.history;
    history.room_bytes = 16 << 20;
    history.room_messages = 20_000;
    if random.percent(40) {
        history.room_messages = *random.pick(&[3, 20, 200, 1_000]);
    }
    if random.percent(25) {
        history.room_bytes = *random.pick(&[4 << 10, 64 << 10, 1 << 20]);
    }
    if random.percent(20) {
        history.age_ms = *random.pick(&[3_000, 60_000]);
    }
    if random.percent(30) {
        history.shard_bytes = *random.pick(&[8 << 10, 64 << 10, 512 << 10]);
    }
}

fn settings(random: &mut Random, shards: u16) -> (Settings, bool) {
    let mut settings = Settings::default();
    settings.server.shards = usize::from(shards);
    settings.server.node = "sim".into();
    // Most runs drive the server harder than any one user may.
    let (per_s, burst) =
        if random.percent(65) { (1_000_000, 1_000_000) } else { *random.pick(&[(50, 100), (20, 5), (10, 30), (3, 4), (100, 1)]) };
    settings.limits.requests_per_s = per_s;
    settings.limits.requests_burst = burst;
    settings.limits.rate_mode = *random.pick(&[RateMode::Wait, RateMode::Reject]);
    if per_s > 1_000 && random.percent(40) {
        settings.limits.recipients_per_token = *random.pick(&[1, 5]);
        // Enough that what the load leaves behind is worked off in the calm.
        settings.limits.requests_per_s = 20_000;
        settings.limits.requests_burst = 500;
    }
    settings.auth.verify_ms = *random.pick(&[300, 2_000]);
    settings.limits.absence_ms = *random.pick(&[0, 1_000, 1_000, 10_000]);
    settings.queues.frames_max = 64 * 1024;
    settings.queues.out_chunks_max = 64 * 1024;
    settings.queues.gather_buffers = *random.pick(&[0, 1, 4, 64]);
    settings.queues.mesh_depth = *random.pick(&[4, 16, 256, 4_096]);
    settings.queues.sends_per_turn_interactive = *random.pick(&[1, 8, 1_024]);
    settings.queues.sends_per_turn_bulk = *random.pick(&[1, 8, 256]);
    settings.queues.bulk_room_members = *random.pick(&[2, 10, 512]);
    history(random, &mut settings);
    settings.limits.heartbeat_ms = *random.pick(&[10_000, 25_000]);
    let mut tight = false;
    if random.percent(30) {
        tight = true;
        settings.queues.hard_mark_bytes = 160 * 1024;
        settings.queues.soft_mark_bytes = 40 * 1024;
        if random.percent(40) {
            settings.queues.shard_bytes_max = *random.pick(&[30 * 1024, 100 * 1024, 200 * 1024]);
        }
    }
    if random.percent(20) {
        tight = true;
        settings.queues.no_progress_ms = 1_500;
    }
    if random.percent(15) {
        tight = true;
        settings.queues.frames_max = 256;
    }
    if random.percent(15) {
        tight = true;
        settings.queues.out_chunks_max = 64;
    }
    if random.percent(15) {
        tight = true;
        settings.queues.leftover_bytes_max = *random.pick(&[32 * 1024, 128 * 1024]);
    }
    if random.percent(15) {
        tight = true;
        settings.limits.connections_per_shard_max = 20;
    }
    if random.percent(20) {
        settings.limits.sessions_per_user = *random.pick(&[1, 2, 3]);
    }
    if random.percent(20) {
        settings.limits.rooms_per_session = *random.pick(&[1, 2]);
    }
    (settings, tight)
}

/// What becomes of slow readers, by room; gives the rooms that drop their oldest messages.
fn slow_readers(random: &mut Random, settings: &mut Settings, rooms: u64) -> BTreeSet<String> {
    const POLICIES: [SlowReader; 3] = [SlowReader::Stall, SlowReader::Close, SlowReader::DropOldest];
    settings.queues.slow_reader = *random.pick(&POLICIES);
    if random.percent(50) {
        settings.queues.soft_mark_bytes = *random.pick(&[1_024, 5_000, 20_000]);
    }
    let mut dropping = BTreeSet::new();
    for room in 0..rooms {
        let name = format!("r{room}");
        let mut slow_reader = settings.queues.slow_reader;
        if random.percent(50) {
            slow_reader = *random.pick(&POLICIES);
            let pattern = RoomPattern::parse(&name).expect("a good name");
            settings.rooms.push(RoomRule { pattern, slow_reader });
        }
        if slow_reader == SlowReader::DropOldest {
            dropping.insert(name);
        }
    }
    dropping
}

fn log_faults(random: &mut Random) -> LogFaults {
    let mut rate = |ceiling: u64| if random.percent(50) { 0 } else { u32::try_from(random.below(ceiling)).expect("small") };
    LogFaults { delayed: rate(300_000), repeated: rate(100_000), lost: rate(20_000) }
}

fn verifier_faults(random: &mut Random) -> VerifierFaults {
    let mut rate = |ceiling: u64| if random.percent(40) { 0 } else { u32::try_from(random.below(ceiling)).expect("small") };
    VerifierFaults { late: rate(300_000), lost: rate(60_000), repeated: rate(300_000), full: rate(60_000), unchecked: rate(60_000) }
}

fn manners(random: &mut Random) -> Manners {
    let mut some = |ceiling: u64| if random.percent(40) { 0 } else { random.between(1, ceiling) };
    Manners {
        garbage: some(20),
        bad_frames: some(3),
        resets: some(6),
        half_closes: some(6),
        stops: some(15),
        stops_for_ever: some(3),
        silences: some(8),
        large_bodies: some(12),
        byes: some(10),
        closes: some(10),
        devices: some(2) > 0,
    }
}
