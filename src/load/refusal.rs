//! Why a plan is refused; the text is the one line the user sees.

use std::fmt;
use std::net::IpAddr;

use super::body;
use super::plan::{BURST_MAX, MEMBERSHIPS_MAX, PORTS_PER_SOURCE, PROBES_MAX, RATE_MAX, THREADS_MAX};

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
    DirectShare(f64),
    NobodySends,
    BodyTooSmall { bytes: usize, least: usize },
    BodyTooLarge { bytes: usize, most: u64 },
    NoThreads,
    ThreadsOverConnections { threads: u16, connections: u32 },
    TooManyThreads(u16),
    NoDuration,
    SampleZero,
    ClosedZero,
    ClosedUnanswered(&'static str),
    Descriptors { needed: u64, can: u64 },
    UserRate { per_user: f64, limit: u64, users: u32 },
    RoomsPerUser { rooms: u64, limit: u64 },
    RolesOverConnections { roles: u64, connections: u32 },
    ChurnHalf,
    TroubleRate,
    SlowPaceZero,
    NoHistory(&'static str),
    TooManyProbes(u32),
    ProbesNeedRooms,
    ConnectRate,
    SourceFamily(IpAddr),
    TooFewSources { connections: u32, most: u32 },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateNotPositive(rate) => write!(f, "--rate {rate}: must be above 0 messages/s (to only hold connections use --idle)"),
            Self::RateTooHigh(rate) => write!(f, "--rate {rate}: at most {RATE_MAX} messages/s"),
            Self::NoConnections => write!(f, "--connections 0: there must be at least one"),
            Self::TooManyConnections(n) => write!(f, "--connections {n}: fewer than {}", body::USERS_MAX - PROBES_MAX),
            Self::NoRooms => write!(f, "--rooms 0: there must be at least one (or use --direct)"),
            Self::RoomSizeZero => write!(f, "--room-size 0: a room needs at least one member"),
            Self::RoomOverConnections { room_size, connections } => {
                write!(f, "--room-size {room_size} is more than --connections {connections}: a connection joins a room once")
            }
            Self::TooManyMemberships(n) => write!(f, "--rooms x --room-size = {n} memberships: at most {MEMBERSHIPS_MAX}"),
            Self::DirectNeedsTwo => write!(f, "direct messages need at least two connections"),
            Self::DirectShare(share) => write!(f, "--direct-share {share}: from 0 (all to rooms) to 1 (all direct)"),
            Self::NobodySends => write!(f, "all connections churn, are slow or stopped: nobody is left to send"),
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
            Self::SampleZero => write!(f, "--sample 0: one receiver in how many is timed; 1 is all"),
            Self::ClosedZero => write!(f, "--closed 0: how many messages are under way at once; at least 1"),
            _ => self.more(f),
        }
    }
}

impl PlanError {
    /// What concerns the server, the machine and the connections with a role.
    fn more(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
            Self::RolesOverConnections { roles, connections } => {
                write!(f, "{roles} churning, slow and stopped connections are more than --connections {connections}")
            }
            Self::ChurnHalf => write!(f, "churn needs both: --churners (how many) and --churn (how many per second) or a storm"),
            Self::TroubleRate => write!(f, "--churn and --history: from 0 to 100000 per second"),
            Self::SlowPaceZero => write!(f, "slow readers need a pace above 0 bytes/s (to read nothing use --stopped)"),
            Self::ClosedUnanswered(target) => {
                write!(f, "--closed: {target} answers no direct message, so nothing says when the next may go")
            }
            Self::NoHistory(target) => write!(f, "--history: {target} has no rooms whose past can be asked for in this plan"),
            Self::TooManyProbes(n) => write!(f, "--probes {n}: at most {PROBES_MAX}"),
            Self::ProbesNeedRooms => write!(f, "--probes: probes read rooms in which the others write, and there are none in this plan"),
            Self::ConnectRate => write!(f, "--connect-rate: above 0 and at most 1000000 per second"),
            Self::SourceFamily(source) => write!(f, "--source {source}: the server's address is of the other family"),
            Self::TooFewSources { connections, most } => {
                write!(f, "--source: {connections} connections need more addresses: {PORTS_PER_SOURCE} ports each, so {most} with these")
            }
            other => write!(f, "{other:?} (bursts are at most {BURST_MAX})"),
        }
    }
}
