//! The plan of a run: who is in which room, who sends how often, and whether that can be done at all.
//!
//! Owns the numbering: connection `c` is user `c`; room `r` has the memberships `starts[r] .. starts[r + 1]`; membership `m` puts connection
//! `m % connections` into its room, so members of a room are neighbours, rooms fill the connections evenly, and connections that no room needs only log
//! in. Behind the rooms inboxes are numbered: connection `c` writes to the inbox of `(c + connections / 2) % connections`. Behind the connections stand
//! the probes, each one more member of some room. Thread `t` owns the connections `c % threads == t`, one more thread the probes; a message's *lane* is
//! the thread that sent it.
//!
//! A plan that can't be carried out is refused here, before the first connection or, once the server has told its limits, before the first
//! message. It must never be bent silently into one that can.

use std::net::{IpAddr, SocketAddr};

use crate::limits;

use super::body::{self, Sizes};
use super::dialect::Target;
use super::refusal::PlanError;
use super::rooms::RoomSizes;
use super::schedule::Stretch;

/// Gaps between messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Exponential gaps: many independent senders.
    Poisson,
    /// Equal gaps.
    Constant,
    /// This many at once, exponential gaps between the bursts.
    Burst(u32),
}

impl std::str::FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| text.parse().ok().filter(|size| (1..=BURST_MAX).contains(size));
        match (text, text.strip_prefix("burst:").and_then(size)) {
            ("poisson", _) => Ok(Self::Poisson),
            ("constant", _) => Ok(Self::Constant),
            (_, Some(size)) => Ok(Self::Burst(size)),
            _ => Err(format!("poisson, constant or burst:K with K from 1 to {BURST_MAX}")),
        }
    }
}

impl std::fmt::Display for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Poisson => f.write_str("poisson"),
            Self::Constant => f.write_str("constant"),
            Self::Burst(size) => write!(f, "burst:{size}"),
        }
    }
}

/// What a connection does besides reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends, reads everything, stays.
    Steady,
    /// Reads, goes away and comes back from the position it had; does not send.
    Churner,
    /// Reads at a set pace; may be ended by the server for it.
    Slow,
    /// Reads nothing once the window has begun.
    Stopped,
    /// Reads a room of the bulk on a thread that has nothing else to do.
    Probe,
}

impl Role {
    /// Every message has to reach it.
    pub fn is_owed(self) -> bool {
        !matches!(self, Self::Slow | Self::Stopped)
    }
}

/// A part of the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    pub name: String,
    pub stretch: Stretch,
}

/// How many connections have another role than sending and reading, and what they do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Troubles {
    pub churners: u32,
    /// Churners that go away per second.
    pub churn_per_s: f64,
    /// How long each stays away.
    pub away_ns: u64,
    /// Moments in the window at which all churners go away at once.
    pub storms_ns: Vec<u64>,
    pub slow: u32,
    pub slow_bytes_per_s: u32,
    pub stopped: u32,
    /// Requests for past messages per second.
    pub history_per_s: f64,
    pub history_limit: u32,
}

/// What the user asked for, as numbers.
#[derive(Clone, Debug)]
pub struct Wish {
    pub target: Target,
    pub address: SocketAddr,
    pub connections: u32,
    pub rooms: u32,
    pub room_sizes: RoomSizes,
    /// Part of the messages that go to inboxes.
    pub direct_share: f64,
    /// Nothing is sent.
    pub idle: bool,
    /// The window, part by part.
    pub stages: Vec<Stage>,
    pub sizes: Sizes,
    pub threads: u16,
    pub arrivals: Arrivals,
    pub seed: u64,
    pub warmup_ns: u64,
    pub grace_ns: u64,
    /// One receiver in this many is timed; all are checked.
    pub sample_every: u32,
    pub probes: u32,
    pub troubles: Troubles,
    /// Logins begun per second; none: as fast as they are answered.
    pub connect_per_s: Option<f64>,
    /// Messages under way at once instead of a schedule: for the highest throughput.
    pub closed: Option<u32>,
    pub sources: Vec<IpAddr>,
}

/// A wish that makes sense.
#[derive(Clone, Debug)]
pub struct Plan {
    wish: Wish,
    /// First membership of each room, and behind the last one the number of all.
    starts: Vec<u64>,
    /// By room: receivers that a message has to reach.
    owed: Vec<u32>,
    /// By room: memberships of senders.
    writers: u64,
    steady: u32,
    /// By room: threads with steady receivers.
    threads_of_rooms: Vec<u8>,
}

/// The part of the server's limits that a plan can break; absent is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(default)]
pub struct ServerLimits {
    pub frame_bytes: Option<u64>,
    pub body_bytes: Option<u64>,
    pub rooms: Option<u64>,
    pub requests_per_s: Option<u64>,
    pub requests_burst: Option<u64>,
}

/// Memberships are 4-byte numbers, and a checker's state each.
pub const MEMBERSHIPS_MAX: u64 = 20_000_000;
/// Descriptors beside the connections: standard streams, rings, files, the probe of the server, sockets on their way out.
const DESCRIPTORS_SPARE: u64 = 64;
/// Sequence numbers and user numbers are eight and six digits in the body; the rest is out of reach of a machine.
pub const RATE_MAX: f64 = 10_000_000.0;
pub const THREADS_MAX: u16 = 63;
pub const BURST_MAX: u32 = 100_000;
pub const PROBES_MAX: u32 = 64;
/// Ports of one source address to one server address, in Linux's usual range.
pub const PORTS_PER_SOURCE: u32 = 28_000;

impl Plan {
    pub fn new(wish: Wish) -> Result<Self, PlanError> {
        check_numbers(&wish)?;
        check_shape(&wish)?;
        check_troubles(&wish)?;
        let sizes = wish.room_sizes.draw(wish.rooms, wish.seed);
        let most = sizes.iter().copied().max().unwrap_or(0);
        if most > wish.connections {
            return Err(PlanError::RoomOverConnections { room_size: most, connections: wish.connections });
        }
        let mut starts = vec![0];
        for size in &sizes {
            starts.push(starts.last().copied().unwrap_or(0) + u64::from(*size));
        }
        let memberships = starts.last().copied().unwrap_or(0);
        if memberships > MEMBERSHIPS_MAX {
            return Err(PlanError::TooManyMemberships(memberships));
        }
        let mut plan = Self { owed: vec![0; sizes.len()], threads_of_rooms: vec![0; sizes.len()], wish, starts, writers: 0, steady: 0 };
        plan.count();
        if plan.steady == 0 && !plan.wish.idle {
            return Err(PlanError::NobodySends);
        }
        Ok(plan)
    }

    /// Walks over all memberships once.
    fn count(&mut self) {
        let connections = self.wish.connections;
        self.steady = (0..connections).map(|c| u32::from(self.role(c) == Role::Steady)).sum();
        for room in 0..self.owed.len() {
            let (mut owed, mut writers, mut lanes) = (0, 0, 0u64);
            for membership in self.starts[room]..self.starts[room + 1] {
                let connection = u32::try_from(membership % u64::from(connections)).expect("below a u32");
                let role = self.role(connection);
                owed += u32::from(role.is_owed());
                if role == Role::Steady {
                    writers += 1;
                    lanes |= 1 << self.lane_of(connection);
                }
            }
            self.writers += writers;
            self.owed[room] = owed;
            self.threads_of_rooms[room] = u8::try_from(lanes.count_ones()).expect("at most 64");
        }
        for probe in 0..self.wish.probes {
            let room = self.probed_room(probe);
            self.owed[at(room)] += 1;
        }
    }

    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    /// Rooms with a name of their own; behind them inboxes are numbered.
    pub fn named_rooms(&self) -> u32 {
        self.wish.rooms
    }

    pub fn room_size(&self, room: u32) -> u32 {
        u32::try_from(self.starts[at(room) + 1] - self.starts[at(room)]).expect("at most the connections")
    }

    /// How many connections a message to a room or inbox has to reach.
    pub fn owed(&self, number: u32) -> u32 {
        match number.checked_sub(self.wish.rooms) {
            // A churner's inbox can't be resumed without a position, so nothing is owed there.
            Some(connection) => u32::from(matches!(self.role(connection), Role::Steady)),
            None => self.owed[at(number)],
        }
    }

    pub fn memberships(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub fn role(&self, connection: u32) -> Role {
        let (connections, troubles) = (self.wish.connections, &self.wish.troubles);
        if connection >= connections {
            return Role::Probe;
        }
        let special = troubles.churners + troubles.slow + troubles.stopped;
        // Spread evenly: the special ones are where this number steps.
        let place = |c: u32| u64::from(c) * u64::from(special) / u64::from(connections);
        if place(connection) == place(connection + 1) {
            return Role::Steady;
        }
        let number = place(connection);
        match () {
            () if number < u64::from(troubles.churners) => Role::Churner,
            () if number < u64::from(troubles.churners + troubles.slow) => Role::Slow,
            () => Role::Stopped,
        }
    }

    /// Threads that send; the probes have one more.
    pub fn lanes(&self) -> usize {
        usize::from(self.wish.threads)
    }

    /// Threads in all.
    pub fn workers(&self) -> u16 {
        self.wish.threads + u16::from(self.wish.probes > 0)
    }

    pub fn lane_of(&self, connection: u32) -> u16 {
        if connection >= self.wish.connections {
            return self.wish.threads;
        }
        u16::try_from(connection % u32::from(self.wish.threads)).expect("less than the number of threads, a u16")
    }

    /// The connections of a thread, rising.
    pub fn connections_of(&self, lane: u16) -> Vec<u32> {
        let connections = self.wish.connections;
        if lane == self.wish.threads {
            return (connections..connections + self.wish.probes).collect();
        }
        (u32::from(lane)..connections).step_by(usize::from(self.wish.threads)).collect()
    }

    /// The room that a probe reads: spread over all of them.
    fn probed_room(&self, probe: u32) -> u32 {
        let room = u64::from(probe) * u64::from(self.wish.rooms) / u64::from(self.wish.probes.max(1));
        u32::try_from(room).expect("below the rooms, a u32")
    }

    pub fn is_probed(&self, room: u32) -> bool {
        (0..self.wish.probes).any(|probe| self.probed_room(probe) == room)
    }

    /// Rooms and inboxes whose messages a connection gets, rising.
    pub fn rooms_read_by(&self, connection: u32) -> Vec<u32> {
        let connections = self.wish.connections;
        if let Some(probe) = connection.checked_sub(connections) {
            return vec![self.probed_room(probe)];
        }
        let step = usize::try_from(connections).expect("a u32 fits a usize here");
        let mut rooms: Vec<u32> = (u64::from(connection)..self.memberships()).step_by(step).map(|m| self.room_of(m)).collect();
        if self.wish.direct_share > 0.0 {
            rooms.push(self.wish.rooms + connection);
        }
        rooms
    }

    fn room_of(&self, membership: u64) -> u32 {
        let room = self.starts.partition_point(|start| *start <= membership) - 1;
        u32::try_from(room).expect("below the rooms, a u32")
    }

    /// Rooms a connection sends to, rising; the inbox it writes to is [`Plan::partner`]'s.
    pub fn rooms_written_by(&self, connection: u32) -> Vec<u32> {
        if self.wish.idle || self.role(connection) != Role::Steady {
            return Vec::new();
        }
        let mut rooms = self.rooms_read_by(connection);
        rooms.retain(|number| *number < self.wish.rooms);
        rooms
    }

    /// The inbox that a connection writes to, if it does.
    pub fn partner(&self, connection: u32) -> Option<u32> {
        let connections = self.wish.connections;
        let writes = self.wish.direct_share > 0.0 && !self.wish.idle && self.role(connection) == Role::Steady;
        writes.then(|| self.wish.rooms + (connection + connections / 2) % connections)
    }

    /// Messages per second to rooms, for each sending membership, and to inboxes, for each sender, at a rate of one in all.
    pub fn shares(&self) -> (f64, f64) {
        let direct = self.wish.direct_share;
        let room = if self.writers == 0 { 0.0 } else { (1.0 - direct) / as_f64(self.writers) };
        (room, direct / f64::from(self.steady.max(1)))
    }

    pub fn steady(&self) -> u32 {
        self.steady
    }

    /// By room: threads with steady receivers.
    pub fn threads_of_rooms(&self) -> &[u8] {
        &self.threads_of_rooms
    }

    /// The rate's course over warm-up and window.
    pub fn course(&self) -> Vec<Stretch> {
        let first = self.wish.stages.first().map_or(0.0, |stage| stage.stretch.from);
        let warm_up = Stretch { length_ns: self.wish.warmup_ns, from: first, to: first };
        std::iter::once(warm_up).chain(self.wish.stages.iter().map(|stage| stage.stretch)).collect()
    }

    pub fn duration_ns(&self) -> u64 {
        self.wish.stages.iter().map(|stage| stage.stretch.length_ns).sum()
    }

    /// The highest rate of the window.
    pub fn rate_most(&self) -> f64 {
        self.wish.stages.iter().map(|stage| stage.stretch.from.max(stage.stretch.to)).fold(0.0, f64::max)
    }

    /// Messages per second of the busiest user, on average, at the highest rate.
    pub fn rate_per_user(&self) -> f64 {
        let (room, direct) = self.shares();
        self.rate_most() * (room * as_f64(self.rooms_per_user_max()) + direct)
    }

    /// Rooms that the fullest connection joins.
    pub fn rooms_per_user_max(&self) -> u64 {
        self.memberships().div_ceil(u64::from(self.wish.connections))
    }

    /// Refuses a plan that needs more descriptors than the process may open.
    pub fn check_descriptors(&self, may_open: u64) -> Result<(), PlanError> {
        let needed = u64::from(self.wish.connections) + u64::from(self.wish.probes) + DESCRIPTORS_SPARE;
        if needed <= may_open {
            return Ok(());
        }
        Err(PlanError::Descriptors { needed, can: may_open.saturating_sub(DESCRIPTORS_SPARE) })
    }

    /// Refuses a plan above what the server said when it let us in.
    pub fn check_server(&self, server: &ServerLimits) -> Result<(), PlanError> {
        let bytes = self.wish.sizes.most();
        if let Some(most) = server.body_bytes
            && as_u64(bytes) > most
            && !self.wish.idle
        {
            return Err(PlanError::BodyTooLarge { bytes, most });
        }
        if let Some(limit) = server.rooms
            && self.rooms_per_user_max() > limit
        {
            return Err(PlanError::RoomsPerUser { rooms: self.rooms_per_user_max(), limit });
        }
        // Zero is how a server says "no limit".
        if let Some(limit) = server.requests_per_s.filter(|limit| *limit > 0)
            && !self.wish.idle
            && self.wish.closed.is_none()
            && self.rate_per_user() > as_f64(limit)
        {
            let users = (self.rate_most() / as_f64(limit)).ceil();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and at most RATE_MAX")]
            let users = users as u32;
            return Err(PlanError::UserRate { per_user: self.rate_per_user(), limit, users });
        }
        Ok(())
    }
}

fn check_numbers(wish: &Wish) -> Result<(), PlanError> {
    for stage in wish.stages.iter().filter(|_| !wish.idle && wish.closed.is_none()) {
        for rate in [stage.stretch.from, stage.stretch.to] {
            // Written so that NaN is refused too.
            let sensible = rate >= 0.0;
            if !sensible || stage.stretch.from + stage.stretch.to <= 0.0 {
                return Err(PlanError::RateNotPositive(rate));
            }
            if rate > RATE_MAX {
                return Err(PlanError::RateTooHigh(rate));
            }
        }
    }
    if wish.connections == 0 {
        return Err(PlanError::NoConnections);
    }
    if wish.connections >= body::USERS_MAX - PROBES_MAX {
        return Err(PlanError::TooManyConnections(wish.connections));
    }
    if wish.threads == 0 {
        return Err(PlanError::NoThreads);
    }
    if wish.threads > THREADS_MAX {
        return Err(PlanError::TooManyThreads(wish.threads));
    }
    if u32::from(wish.threads) > wish.connections {
        return Err(PlanError::ThreadsOverConnections { threads: wish.threads, connections: wish.connections });
    }
    if wish.stages.iter().map(|stage| stage.stretch.length_ns).sum::<u64>() == 0 {
        return Err(PlanError::NoDuration);
    }
    if wish.sample_every == 0 {
        return Err(PlanError::SampleZero);
    }
    if wish.closed == Some(0) {
        return Err(PlanError::ClosedZero);
    }
    Ok(())
}

fn check_shape(wish: &Wish) -> Result<(), PlanError> {
    if !wish.idle {
        let (bytes, least) = (wish.sizes.most(), body::BODY_BYTES_MIN);
        if wish.sizes.least() < least {
            return Err(PlanError::BodyTooSmall { bytes: wish.sizes.least(), least });
        }
        if bytes > limits::BODY_BYTES_MAX {
            return Err(PlanError::BodyTooLarge { bytes, most: as_u64(limits::BODY_BYTES_MAX) });
        }
    }
    if !(0.0..=1.0).contains(&wish.direct_share) {
        return Err(PlanError::DirectShare(wish.direct_share));
    }
    if wish.direct_share > 0.0 && wish.connections < 2 {
        return Err(PlanError::DirectNeedsTwo);
    }
    if wish.direct_share < 1.0 && wish.rooms == 0 && !wish.idle {
        return Err(PlanError::NoRooms);
    }
    if u64::from(wish.rooms) + u64::from(wish.connections) > MEMBERSHIPS_MAX {
        return Err(PlanError::TooManyMemberships(u64::from(wish.rooms)));
    }
    if wish.rooms > 0 && wish.room_sizes.least() == 0 {
        return Err(PlanError::RoomSizeZero);
    }
    check_sources(wish)
}

fn check_sources(wish: &Wish) -> Result<(), PlanError> {
    if let Some(source) = wish.sources.iter().find(|source| source.is_ipv4() != wish.address.is_ipv4()) {
        return Err(PlanError::SourceFamily(*source));
    }
    let sources = u32::try_from(wish.sources.len()).unwrap_or(u32::MAX);
    let most = sources.saturating_mul(PORTS_PER_SOURCE);
    if sources > 0 && wish.connections > most {
        return Err(PlanError::TooFewSources { connections: wish.connections, most });
    }
    Ok(())
}

fn check_troubles(wish: &Wish) -> Result<(), PlanError> {
    let troubles = &wish.troubles;
    let sum = u64::from(troubles.churners) + u64::from(troubles.slow) + u64::from(troubles.stopped);
    if sum > u64::from(wish.connections) {
        return Err(PlanError::RolesOverConnections { roles: sum, connections: wish.connections });
    }
    let comings = troubles.churn_per_s > 0.0 || !troubles.storms_ns.is_empty();
    if comings != (troubles.churners > 0) {
        return Err(PlanError::ChurnHalf);
    }
    if !(troubles.churn_per_s >= 0.0
        && troubles.churn_per_s <= 100_000.0
        && troubles.history_per_s >= 0.0
        && troubles.history_per_s <= 100_000.0)
    {
        return Err(PlanError::TroubleRate);
    }
    if troubles.slow > 0 && troubles.slow_bytes_per_s == 0 {
        return Err(PlanError::SlowPaceZero);
    }
    if troubles.history_per_s > 0.0 && (!wish.target.abilities().history || wish.rooms == 0) {
        return Err(PlanError::NoHistory(wish.target.name()));
    }
    if wish.closed.is_some() && wish.direct_share > 0.0 && !wish.target.abilities().answers {
        return Err(PlanError::ClosedUnanswered(wish.target.name()));
    }
    if wish.probes > PROBES_MAX {
        return Err(PlanError::TooManyProbes(wish.probes));
    }
    if wish.probes > 0 && (wish.rooms == 0 || wish.idle) {
        return Err(PlanError::ProbesNeedRooms);
    }
    if wish.connect_per_s.is_some_and(|rate| !(rate > 0.0 && rate <= 1e6)) {
        return Err(PlanError::ConnectRate);
    }
    Ok(())
}

fn at(room: u32) -> usize {
    usize::try_from(room).expect("a u32 fits a usize here")
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

pub(super) fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a usize is at most 64 bits")
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    pub(in crate::load) fn wish() -> Wish {
        let stage = Stage { name: "hold".into(), stretch: Stretch { length_ns: 1, from: 100.0, to: 100.0 } };
        Wish {
            target: Target::Ringroom,
            address: "127.0.0.1:1".parse().unwrap(),
            connections: 10,
            rooms: 3,
            room_sizes: RoomSizes::Fixed(4),
            direct_share: 0.0,
            idle: false,
            stages: vec![stage],
            sizes: Sizes::Fixed(128),
            threads: 2,
            arrivals: Arrivals::Poisson,
            seed: 1,
            warmup_ns: 0,
            grace_ns: 1,
            sample_every: 1,
            probes: 0,
            troubles: Troubles::default(),
            connect_per_s: None,
            closed: None,
            sources: Vec::new(),
        }
    }

    fn level(rate: f64) -> Vec<Stage> {
        vec![Stage { name: "hold".into(), stretch: Stretch { length_ns: 1, from: rate, to: rate } }]
    }

    #[test]
    fn every_room_has_its_size_and_no_member_twice() {
        for (connections, rooms, sizes) in
            [(10, 3, "4"), (10, 1, "10"), (7, 5, "7"), (15, 15, "1"), (100, 30, "2-50"), (100, 40, "zipf:90:1")]
        {
            let room_sizes: RoomSizes = sizes.parse().unwrap();
            let plan = Plan::new(Wish { connections, rooms, room_sizes, ..wish() }).unwrap();
            let mut members = vec![Vec::new(); rooms as usize];
            for c in 0..connections {
                let read = plan.rooms_read_by(c);
                assert!(read.windows(2).all(|w| w[0] < w[1]), "rising, so none twice");
                assert!(read.len() as u64 <= plan.rooms_per_user_max());
                read.into_iter().for_each(|room| members[room as usize].push(c));
            }
            for (room, members) in (0..).zip(members) {
                assert_eq!((u32::try_from(members.len()).unwrap(), plan.owed(room)), (plan.room_size(room), plan.room_size(room)));
            }
        }
    }

    #[test]
    fn threads_share_out_the_connections_and_probes_have_their_own() {
        let plan = Plan::new(Wish { threads: 3, probes: 2, ..wish() }).unwrap();
        let mut all: Vec<u32> = (0..3).flat_map(|t| plan.connections_of(t)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert_eq!((plan.workers(), plan.connections_of(3)), (4, vec![10, 11]));
        assert!((0..4).all(|t| plan.connections_of(t).iter().all(|c| plan.lane_of(*c) == t)));
        assert_eq!((plan.rooms_read_by(10), plan.rooms_read_by(11), plan.owed(0), plan.owed(1), plan.owed(2)), (vec![0], vec![1], 5, 5, 4));
        assert!(plan.rooms_written_by(10).is_empty() && plan.role(11) == Role::Probe && plan.is_probed(1) && !plan.is_probed(2));
        assert_eq!(plan.threads_of_rooms(), [3, 3, 3]);
    }

    #[test]
    fn direct_messages_reach_every_inbox_from_one_other_user() {
        for connections in [2, 3, 9, 10] {
            let plan = Plan::new(Wish { connections, threads: 1, rooms: 0, direct_share: 1.0, ..wish() }).unwrap();
            let mut written: Vec<u32> = (0..connections).filter_map(|c| plan.partner(c)).collect();
            assert!((0..connections).all(|c| plan.partner(c) != Some(c) && plan.rooms_read_by(c) == [c] && plan.owed(c) == 1));
            written.sort_unstable();
            assert_eq!(written, (0..connections).collect::<Vec<_>>());
        }
    }

    #[test]
    fn roles_are_spread_and_only_the_steady_send() {
        let troubles = Troubles { churners: 10, churn_per_s: 1.0, slow: 5, slow_bytes_per_s: 1_000, stopped: 5, ..Troubles::default() };
        let plan = Plan::new(Wish { connections: 100, rooms: 10, room_sizes: RoomSizes::Fixed(10), direct_share: 0.5, troubles, ..wish() })
            .unwrap();
        let count = |role| (0..100).filter(|c| plan.role(*c) == role).count();
        assert_eq!((count(Role::Churner), count(Role::Slow), count(Role::Stopped), plan.steady()), (10, 5, 5, 80));
        for c in 0..100 {
            let sends = plan.partner(c).is_some();
            assert_eq!(sends, plan.role(c) == Role::Steady);
            assert_eq!(!plan.rooms_written_by(c).is_empty(), sends);
        }
        let owed: u32 = (0..10).map(|room| plan.owed(room)).sum();
        assert_eq!(owed, 90);
        let (room, direct) = plan.shares();
        assert!((room * 80.0 - 0.5).abs() < 1e-9 && (direct * 80.0 - 0.5).abs() < 1e-9);
    }

    fn refusal(wish: Wish) -> PlanError {
        Plan::new(wish).unwrap_err()
    }

    #[test]
    fn impossible_plans_are_refused() {
        assert!(matches!(refusal(Wish { stages: level(0.0), ..wish() }), PlanError::RateNotPositive(_)));
        assert!(matches!(refusal(Wish { stages: level(f64::NAN), ..wish() }), PlanError::RateNotPositive(_)));
        assert!(matches!(refusal(Wish { room_sizes: RoomSizes::Fixed(11), ..wish() }), PlanError::RoomOverConnections { .. }));
        assert!(matches!(refusal(Wish { sizes: Sizes::Fixed(63), ..wish() }), PlanError::BodyTooSmall { .. }));
        assert!(matches!(refusal(Wish { sizes: Sizes::Fixed(61_441), ..wish() }), PlanError::BodyTooLarge { .. }));
        assert!(matches!(refusal(Wish { threads: 11, ..wish() }), PlanError::ThreadsOverConnections { .. }));
        assert!(matches!(refusal(Wish { connections: 0, ..wish() }), PlanError::NoConnections));
        assert!(matches!(refusal(Wish { direct_share: 1.5, ..wish() }), PlanError::DirectShare(_)));
        assert!(matches!(refusal(Wish { sample_every: 0, ..wish() }), PlanError::SampleZero));
        assert!(matches!(refusal(Wish { sources: vec!["::1".parse().unwrap()], ..wish() }), PlanError::SourceFamily(_)));
        let all = Troubles { stopped: 10, ..Troubles::default() };
        assert!(matches!(refusal(Wish { troubles: all, ..wish() }), PlanError::NobodySends));
        let half = Troubles { churners: 3, ..Troubles::default() };
        assert!(matches!(refusal(Wish { troubles: half, ..wish() }), PlanError::ChurnHalf));
        assert!(Plan::new(Wish { stages: level(0.0), idle: true, ..wish() }).is_ok());
    }

    #[test]
    fn a_low_descriptor_limit_says_how_many_can_be_opened() {
        let plan = Plan::new(Wish { connections: 2_000, ..wish() }).unwrap();
        assert_eq!(plan.check_descriptors(256), Err(PlanError::Descriptors { needed: 2_064, can: 192 }));
        assert!(plan.check_descriptors(2_064).is_ok());
    }

    #[test]
    fn a_plan_above_the_servers_limits_is_refused() {
        let plan = Plan::new(Wish { stages: level(1_000.0), ..wish() }).unwrap();
        // 12 memberships on 10 connections: the busiest user is in two rooms and sends 2/12 of the rate.
        let limits = ServerLimits { requests_per_s: Some(166), ..ServerLimits::default() };
        assert!(matches!(plan.check_server(&limits), Err(PlanError::UserRate { limit: 166, .. })));
        let limits = ServerLimits { requests_per_s: Some(167), ..limits };
        assert!(plan.check_server(&limits).is_ok());
        let limits = ServerLimits { requests_per_s: Some(0), ..limits };
        assert!(plan.check_server(&limits).is_ok());
        let limits = ServerLimits { rooms: Some(1), ..limits };
        assert!(matches!(plan.check_server(&limits), Err(PlanError::RoomsPerUser { rooms: 2, limit: 1 })));
        let limits = ServerLimits { body_bytes: Some(127), ..ServerLimits::default() };
        assert!(matches!(plan.check_server(&limits), Err(PlanError::BodyTooLarge { most: 127, .. })));
    }

    #[test]
    fn arrivals_are_read_and_printed() {
        for text in ["poisson", "constant", "burst:10"] {
            assert_eq!(text.parse::<Arrivals>().unwrap().to_string(), text);
        }
        assert!(["", "burst", "burst:0", "burst:x", "Poisson"].iter().all(|text| text.parse::<Arrivals>().is_err()));
    }
}
