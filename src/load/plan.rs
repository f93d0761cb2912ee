//! The plan of a run: who is in which room, who sends how often, and whether that can be done at all.
//!
//! Owns the numbering: connection `c` is user `c`; membership `m` (`0 .. rooms * room_size`) puts connection `m % connections` into room
//! `m / room_size`, so members of a room are neighbours, rooms fill the connections evenly, and connections that no room needs only log in.
//! With direct messages the room number is the receiver's number, and connection `c` writes to `(c + connections / 2) % connections`.
//! Thread `t` owns the connections `c % threads == t`; a message's *lane* is the thread that sent it.
//!
//! A plan that can't be carried out is refused here, before the first connection or, once the server has told its limits, before the first
//! message. It must never be bent silently into one that can.

use std::fmt;
use std::net::SocketAddr;

use crate::limits;

use super::body::{self, Sizes};
use super::dialect::Target;

/// What the connections do once they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Rooms,
    Direct,
    Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// Exponential gaps: many independent senders.
    Poisson,
    /// Equal gaps.
    Constant,
}

/// What the user asked for, as numbers.
#[derive(Clone, Debug)]
pub struct Wish {
    pub target: Target,
    pub address: SocketAddr,
    pub mode: Mode,
    pub connections: u32,
    pub rooms: u32,
    pub room_size: u32,
    pub rate: f64,
    pub sizes: Sizes,
    pub threads: u16,
    pub arrivals: Arrivals,
    pub seed: u64,
    pub warmup_ns: u64,
    pub duration_ns: u64,
    pub grace_ns: u64,
}

/// A wish that makes sense.
#[derive(Clone, Debug)]
pub struct Plan {
    wish: Wish,
}

/// The part of `welcome.limits` that a plan can break; absent is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct ServerLimits {
    pub frame_bytes: Option<u64>,
    pub body_bytes: Option<u64>,
    pub rooms: Option<u64>,
    pub requests_per_s: Option<u64>,
    pub requests_burst: Option<u64>,
}

/// Why a plan is refused; the text is the one line the user sees.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanError {
    RateNotPositive(f64),
    RateTooHigh(f64),
    NoConnections,
    TooManyConnections(u32),
    NoRooms,
    RoomSizeZero,
    RoomOverConnections { room_size: u32, connections: u32 },
    TooManyMemberships(u64),
    DirectNeedsTwo,
    BodyTooSmall { bytes: usize, least: usize },
    BodyTooLarge { bytes: usize, most: u64 },
    NoThreads,
    ThreadsOverConnections { threads: u16, connections: u32 },
    TooManyThreads(u16),
    NoDuration,
    Descriptors { needed: u64, can: u64 },
    UserRate { per_user: f64, limit: u64, users: u32 },
    RoomsPerUser { rooms: u64, limit: u64 },
}

/// Memberships are 4-byte numbers, and a checker's state each.
const MEMBERSHIPS_MAX: u64 = 20_000_000;
/// Descriptors beside the connections: standard streams, rings, files, the probe.
const DESCRIPTORS_SPARE: u64 = 64;
/// Sequence numbers and user numbers are eight and six digits in the body; the rest is out of reach of a machine.
const RATE_MAX: f64 = 10_000_000.0;
const THREADS_MAX: u16 = 64;

impl Plan {
    pub fn new(wish: Wish) -> Result<Self, PlanError> {
        check_numbers(&wish)?;
        check_shape(&wish)?;
        Ok(Self { wish })
    }

    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    /// Rooms with a name of their own; behind them inboxes are numbered.
    pub fn named_rooms(&self) -> u32 {
        match self.wish.mode {
            Mode::Direct => 0,
            Mode::Rooms | Mode::Idle => self.wish.rooms,
        }
    }

    /// Rooms as they are numbered in the bodies: with direct messages one inbox per connection.
    pub fn rooms(&self) -> u32 {
        match self.wish.mode {
            Mode::Direct => self.wish.connections,
            Mode::Rooms | Mode::Idle => self.wish.rooms,
        }
    }

    /// How many connections get a message of a room.
    pub fn receivers_per_room(&self) -> u32 {
        match self.wish.mode {
            Mode::Direct => 1,
            Mode::Rooms | Mode::Idle => self.wish.room_size,
        }
    }

    pub fn memberships(&self) -> u64 {
        u64::from(self.rooms()) * u64::from(self.receivers_per_room())
    }

    pub fn lanes(&self) -> usize {
        usize::from(self.wish.threads)
    }

    pub fn lane_of(&self, connection: u32) -> u16 {
        let lane = connection % u32::from(self.wish.threads);
        u16::try_from(lane).expect("less than the number of threads, a u16")
    }

    /// The connections of a thread, rising.
    pub fn connections_of(&self, lane: u16) -> impl Iterator<Item = u32> + use<> {
        (u32::from(lane)..self.wish.connections).step_by(usize::from(self.wish.threads))
    }

    /// Rooms whose messages a connection gets, rising.
    pub fn rooms_read_by(&self, connection: u32) -> Vec<u32> {
        match self.wish.mode {
            Mode::Direct => vec![connection],
            Mode::Rooms | Mode::Idle => {
                let first = u64::from(connection);
                let step = usize::try_from(self.wish.connections).expect("a u32 fits a usize here");
                let room = |membership: u64| membership / u64::from(self.wish.room_size);
                (first..self.memberships()).step_by(step).map(|m| u32::try_from(room(m)).expect("below rooms, a u32")).collect()
            }
        }
    }

    /// Rooms a connection sends to, rising.
    pub fn rooms_written_by(&self, connection: u32) -> Vec<u32> {
        let connections = self.wish.connections;
        match self.wish.mode {
            Mode::Idle => Vec::new(),
            Mode::Direct => vec![(connection + connections / 2) % connections],
            Mode::Rooms => self.rooms_read_by(connection),
        }
    }

    /// Messages per second of the busiest user, on average.
    pub fn rate_per_user(&self) -> f64 {
        let per_membership = self.wish.rate / as_f64(self.memberships());
        per_membership * as_f64(self.rooms_per_user_max())
    }

    /// Rooms that the fullest connection joins.
    pub fn rooms_per_user_max(&self) -> u64 {
        match self.wish.mode {
            Mode::Direct => 1,
            Mode::Rooms | Mode::Idle => self.memberships().div_ceil(u64::from(self.wish.connections)),
        }
    }

    /// Refuses a plan that needs more descriptors than the process may open.
    pub fn check_descriptors(&self, may_open: u64) -> Result<(), PlanError> {
        let needed = u64::from(self.wish.connections) + DESCRIPTORS_SPARE;
        if needed <= may_open {
            return Ok(());
        }
        Err(PlanError::Descriptors { needed, can: may_open.saturating_sub(DESCRIPTORS_SPARE) })
    }

    /// Refuses a plan above what the server said in `welcome`.
    pub fn check_server(&self, server: &ServerLimits) -> Result<(), PlanError> {
        let bytes = self.wish.sizes.most();
        if let Some(most) = server.body_bytes
            && as_u64(bytes) > most
            && self.wish.mode != Mode::Idle
        {
            return Err(PlanError::BodyTooLarge { bytes, most });
        }
        if let Some(limit) = server.rooms
            && self.wish.mode != Mode::Direct
            && self.rooms_per_user_max() > limit
        {
            return Err(PlanError::RoomsPerUser { rooms: self.rooms_per_user_max(), limit });
        }
        // Zero is how a server says "no limit".
        if let Some(limit) = server.requests_per_s.filter(|limit| *limit > 0)
            && self.wish.mode != Mode::Idle
            && self.rate_per_user() > as_f64(limit)
        {
            let users = (self.wish.rate / as_f64(limit)).ceil();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and at most RATE_MAX")]
            let users = users as u32;
            return Err(PlanError::UserRate { per_user: self.rate_per_user(), limit, users });
        }
        Ok(())
    }
}

fn check_numbers(wish: &Wish) -> Result<(), PlanError> {
    // Written so that NaN is refused too.
    let positive = wish.rate > 0.0;
    if !positive && wish.mode != Mode::Idle {
        return Err(PlanError::RateNotPositive(wish.rate));
    }
    if wish.rate > RATE_MAX {
        return Err(PlanError::RateTooHigh(wish.rate));
    }
    if wish.connections == 0 {
        return Err(PlanError::NoConnections);
    }
    if wish.connections > body::USERS_MAX {
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
    if wish.duration_ns == 0 {
        return Err(PlanError::NoDuration);
    }
    Ok(())
}

fn check_shape(wish: &Wish) -> Result<(), PlanError> {
    if wish.mode != Mode::Idle {
        let (bytes, least) = (wish.sizes.most(), body::BODY_BYTES_MIN);
        if wish.sizes.least() < least {
            return Err(PlanError::BodyTooSmall { bytes: wish.sizes.least(), least });
        }
        if bytes > limits::BODY_BYTES_MAX {
            return Err(PlanError::BodyTooLarge { bytes, most: as_u64(limits::BODY_BYTES_MAX) });
        }
    }
    if wish.mode == Mode::Direct {
        return if wish.connections < 2 { Err(PlanError::DirectNeedsTwo) } else { Ok(()) };
    }
    if wish.rooms == 0 {
        return Err(PlanError::NoRooms);
    }
    if wish.room_size == 0 {
        return Err(PlanError::RoomSizeZero);
    }
    if wish.room_size > wish.connections {
        return Err(PlanError::RoomOverConnections { room_size: wish.room_size, connections: wish.connections });
    }
    let memberships = u64::from(wish.rooms) * u64::from(wish.room_size);
    if memberships > MEMBERSHIPS_MAX {
        return Err(PlanError::TooManyMemberships(memberships));
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

pub(super) fn as_u64(count: usize) -> u64 {
    u64::try_from(count).expect("a usize is at most 64 bits")
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateNotPositive(rate) => write!(f, "--rate {rate}: must be above 0 messages/s (to only hold connections use --idle)"),
            Self::RateTooHigh(rate) => write!(f, "--rate {rate}: at most {RATE_MAX} messages/s"),
            Self::NoConnections => write!(f, "--connections 0: there must be at least one"),
            Self::TooManyConnections(n) => write!(f, "--connections {n}: at most {}", body::USERS_MAX),
            Self::NoRooms => write!(f, "--rooms 0: there must be at least one (or use --direct)"),
            Self::RoomSizeZero => write!(f, "--room-size 0: a room needs at least one member"),
            Self::RoomOverConnections { room_size, connections } => {
                write!(f, "--room-size {room_size} is more than --connections {connections}: a connection joins a room once")
            }
            Self::TooManyMemberships(n) => write!(f, "--rooms x --room-size = {n} memberships: at most {MEMBERSHIPS_MAX}"),
            Self::DirectNeedsTwo => write!(f, "--direct needs at least two connections"),
            Self::BodyTooSmall { bytes, least } => {
                write!(f, "--size {bytes}: at least {least} bytes, for the run, sender, sequence and time that the body carries")
            }
            Self::BodyTooLarge { bytes, most } => write!(f, "--size {bytes}: a body is at most {most} bytes"),
            Self::NoThreads => write!(f, "--threads 0: there must be at least one"),
            Self::TooManyThreads(n) => write!(f, "--threads {n}: at most {THREADS_MAX}"),
            Self::ThreadsOverConnections { threads, connections } => {
                write!(f, "--threads {threads} is more than --connections {connections}")
            }
            Self::NoDuration => write!(f, "--duration 0: nothing would be measured"),
            Self::Descriptors { needed, can } => {
                write!(f, "descriptor limit too low: the plan needs {needed}, this process can open {can} connections (raise `ulimit -n`)")
            }
            Self::UserRate { per_user, limit, users } => write!(
                f,
                "{per_user:.1} messages/s per user, but the server allows {limit} requests/s: \
                 lower --rate, or spread it over at least {users} senders"
            ),
            Self::RoomsPerUser { rooms, limit } => {
                write!(f, "{rooms} rooms per user, but the server allows {limit}: more --connections or fewer --rooms")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    pub(crate) fn wish() -> Wish {
        Wish {
            target: Target::Ringroom,
            address: "127.0.0.1:1".parse().unwrap(),
            mode: Mode::Rooms,
            connections: 10,
            rooms: 3,
            room_size: 4,
            rate: 100.0,
            sizes: Sizes::Fixed(128),
            threads: 2,
            arrivals: Arrivals::Poisson,
            seed: 1,
            warmup_ns: 0,
            duration_ns: 1,
            grace_ns: 1,
        }
    }

    #[test]
    fn every_room_has_its_size_and_no_member_twice() {
        for (connections, rooms, room_size) in [(10, 3, 4), (10, 1, 10), (7, 5, 7), (15, 15, 1), (100, 3, 2)] {
            let plan = Plan::new(Wish { connections, rooms, room_size, ..wish() }).unwrap();
            let mut members = vec![Vec::new(); rooms as usize];
            for c in 0..connections {
                let read = plan.rooms_read_by(c);
                assert!(read.windows(2).all(|w| w[0] < w[1]), "rising, so none twice");
                assert!(read.len() as u64 <= plan.rooms_per_user_max());
                for room in read {
                    members[room as usize].push(c);
                }
            }
            assert!(members.iter().all(|m| m.len() == room_size as usize), "{members:?}");
        }
    }

    #[test]
    fn threads_share_out_the_connections() {
        let plan = Plan::new(Wish { threads: 3, ..wish() }).unwrap();
        let mut all: Vec<u32> = (0..3).flat_map(|t| plan.connections_of(t)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
        assert!((0..3).all(|t| plan.connections_of(t).all(|c| plan.lane_of(c) == t)));
    }

    #[test]
    fn direct_messages_reach_every_inbox_from_one_other_user() {
        for connections in [2, 3, 9, 10] {
            let plan = Plan::new(Wish { connections, threads: 1, mode: Mode::Direct, ..wish() }).unwrap();
            let mut written: Vec<u32> = (0..connections).flat_map(|c| plan.rooms_written_by(c)).collect();
            assert!((0..connections).all(|c| plan.rooms_written_by(c) != vec![c]));
            written.sort_unstable();
            assert_eq!(written, (0..connections).collect::<Vec<_>>());
        }
    }

    fn refusal(wish: Wish) -> PlanError {
        Plan::new(wish).unwrap_err()
    }

    #[test]
    fn impossible_plans_are_refused() {
        assert!(matches!(refusal(Wish { rate: 0.0, ..wish() }), PlanError::RateNotPositive(_)));
        assert!(matches!(refusal(Wish { rate: f64::NAN, ..wish() }), PlanError::RateNotPositive(_)));
        assert!(matches!(refusal(Wish { room_size: 11, ..wish() }), PlanError::RoomOverConnections { .. }));
        assert!(matches!(refusal(Wish { sizes: Sizes::Fixed(63), ..wish() }), PlanError::BodyTooSmall { .. }));
        assert!(matches!(refusal(Wish { sizes: Sizes::Fixed(61_441), ..wish() }), PlanError::BodyTooLarge { .. }));
        assert!(matches!(refusal(Wish { threads: 11, ..wish() }), PlanError::ThreadsOverConnections { .. }));
        assert!(matches!(refusal(Wish { connections: 0, ..wish() }), PlanError::NoConnections));
        assert!(Plan::new(Wish { rate: 0.0, mode: Mode::Idle, ..wish() }).is_ok());
    }

    #[test]
    fn a_low_descriptor_limit_says_how_many_can_be_opened() {
        let plan = Plan::new(Wish { connections: 2_000, ..wish() }).unwrap();
        assert_eq!(plan.check_descriptors(256), Err(PlanError::Descriptors { needed: 2_064, can: 192 }));
        assert!(plan.check_descriptors(2_064).is_ok());
    }

    #[test]
    fn a_plan_above_the_servers_limits_is_refused() {
        let plan = Plan::new(Wish { rate: 1_000.0, ..wish() }).unwrap();
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
}
