//! The configuration: one TOML file and a few flags become [`Settings`], plain values that nobody parses again.
//!
//! Owns every bound and switch that an operator may change, with its default, its range, its meaning and what raising it costs (`keys`).
//! It never looks at the machine: whether an address is free, a CPU is there or the kernel is new enough is asked by `serve::checks`.
//! In: a file's text and the flags (`file`). Out: [`Settings`] that passed [`Settings::validate`], or a [`ConfigError`] that names the file, the
//! line, the key and what is allowed; `print` writes the settings back as a commented file that reads as the same settings.

use std::net::{Ipv4Addr, SocketAddr};

use crate::limits::SHARDS_MAX;

mod cpus;
mod deadlines;
mod error;
mod file;
mod keys;
mod network;
mod print;
mod reload;
mod rooms;
mod slot;
mod validate;

pub use cpus::{CPUS_MAX, parse as parse_cpus, print as print_cpus};
pub use deadlines::{Deadline, Row};
pub use error::{ConfigError, Place};
pub use file::{Flags, LoadError, load, nearest, parse};
pub use network::Network;
pub use print::print;
pub use reload::{Reloaded, reload};
pub use rooms::RoomRule;
pub use slot::parse_address;

/// The port when nothing is configured.
pub const DEFAULT_PORT: u16 = 7777;
/// Where the control plane listens when it is asked for without an address.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:7778";

/// All that can be configured, in the sections of the file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    pub server: Server,
    pub auth: Auth,
    pub limits: Limits,
    pub history: History,
    pub queues: Queues,
    pub ring: Ring,
    pub admin: Admin,
    pub log: Log,
    /// `[[rooms]]`: rooms that differ from the rest; the first whose pattern matches counts.
    pub rooms: Vec<RoomRule>,
}

/// `[server]`: where it listens and on which CPUs it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub listen: Vec<SocketAddr>,
    /// 0: one per available CPU.
    pub shards: usize,
    /// CPUs to pin to, in the order given, none twice; empty: the ones this process may run on.
    pub cpus: Vec<usize>,
    /// Microseconds to look for work before sleeping.
    pub spin_us: u64,
    /// This server's name in `welcome`; empty: the host's name.
    pub node: String,
    /// Load balancers, which say in a PROXY header whom they speak for.
    pub proxies: Vec<Network>,
}

/// `[auth]`: who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    pub mode: AuthMode,
    /// `open` on an address that others can reach has to be asked for by name.
    pub insecure_open: bool,
    /// Files of keys that tokens are checked with.
    pub keys: Vec<String>,
    /// What `iss` and `aud` of a token have to be or to hold; empty: anything.
    pub issuer: String,
    pub audience: String,
    pub leeway_s: u64,
    /// Threads that check tokens, and checks of a shard that may wait or run.
    pub verify_threads: usize,
    pub verify_queue: usize,
    pub verify_ms: u64,
    /// Tokens found good that are remembered.
    pub verify_cache: usize,
    /// Failed logins of one address: refilled so many a minute, and at most so many at once.
    pub failures_per_min: u32,
    pub failures_burst: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Whoever connects names himself.
    Open,
    /// Whoever connects shows a signed token.
    Jwt,
}

/// What becomes of a reader that falls behind, and of the senders of its rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowReader {
    /// A short, bounded wait; then it is on its own.
    Stall,
    /// Nothing: it is on its own at once.
    Close,
    /// Nothing: it loses the oldest messages that wait for it, and is told so.
    DropOldest,
}

/// What happens to a request above its user's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateMode {
    /// It stays unread until there is a token for it.
    Wait,
    /// It is answered with 429 and the time until there is one.
    Reject,
}

/// `[limits]`: counts and deadlines of protocol.md. Milliseconds end in `_ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole process. 0: what the limit of open files allows.
    pub connections_max: usize,
    pub connections_per_shard_max: usize,
    /// Of those, the ones before their login.
    pub handshakes_per_shard: usize,
    pub rooms_per_session: usize,
    pub rooms_per_shard: usize,
    pub sessions_per_user: usize,
    pub requests_per_s: u32,
    pub requests_burst: u32,
    /// Recipients of a `send` that cost one more token; 0: a `send` costs one, whoever gets it.
    pub recipients_per_token: u32,
    pub rate_mode: RateMode,
    pub handshake_ms: u64,
    pub frame_ms: u64,
    pub heartbeat_ms: u64,
    pub join_ms: u64,
    pub log_ms: u64,
    /// How long a room still counts a user whose last session has ended.
    pub absence_ms: u64,
    pub drain_ms: u64,
}

/// `[history]`: what rooms and inboxes retain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub room_messages: usize,
    pub room_bytes: usize,
    pub age_ms: u64,
    pub shard_bytes: usize,
    /// Of all keys of `send` that a shard's rooms remember.
    pub dedup_bytes: usize,
}

/// `[queues]`: what may wait, and how much is sent per turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    pub soft_mark_bytes: usize,
    pub hard_mark_bytes: usize,
    pub slow_reader: SlowReader,
    pub no_progress_ms: u64,
    pub gather_buffers: usize,
    pub out_chunks_max: usize,
    pub frames_max: usize,
    /// Bytes of those messages; above it the largest queues are ended.
    pub shard_bytes_max: usize,
    pub leftover_bytes_max: usize,
    /// Of those, the ones of connections before their login.
    pub handshake_bytes_max: usize,
    /// Envelopes of one queue between two shards, before it falls with their number: [`Queues::mesh_depth_for`].
    pub mesh_depth: usize,
    pub sends_per_turn_interactive: usize,
    pub sends_per_turn_bulk: usize,
    pub bulk_room_members: usize,
}

/// `[ring]`: sizes of each shard's ring and of its sockets' kernel queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    pub entries: u32,
    /// Receive buffers, a power of two.
    pub buffers: u16,
    pub notsent_lowat_bytes: u32,
    pub backlog: u32,
}

/// `[admin]`: the control plane's own listener.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Admin {
    /// Empty: there is none.
    pub listen: Vec<SocketAddr>,
    /// Holds the token that a request has to show; empty: none, which is for loopback only.
    pub token_file: String,
}

/// `[log]`: what is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: log::LevelFilter,
}

impl Queues {
    /// Bytes of all queues between shards together.
    pub const MESH_BYTES_MAX: usize = 64 * 1024 * 1024;
    /// No queue is shorter, whatever the envelope's size.
    pub const MESH_DEPTH_MIN: usize = 4;

    /// The depth of each of the `shards` x `shards` queues, so that all of them stay under [`Queues::MESH_BYTES_MAX`].
    pub fn mesh_depth_for(&self, shards: usize, envelope_bytes: usize) -> usize {
        let lanes = shards.saturating_mul(shards).max(1);
        let share = Self::MESH_BYTES_MAX / lanes / envelope_bytes.max(1);
        self.mesh_depth.min(share).max(Self::MESH_DEPTH_MIN)
    }
}

// With the most shards, envelopes of 256 bytes still fit the budget at the least depth.
const _: () = assert!(SHARDS_MAX * SHARDS_MAX * Queues::MESH_DEPTH_MIN * 256 <= Queues::MESH_BYTES_MAX);

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))],
            shards: 0,
            cpus: Vec::new(),
            spin_us: 0,
            node: String::new(),
            proxies: Vec::new(),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Open,
            insecure_open: false,
            keys: Vec::new(),
            issuer: String::new(),
            audience: String::new(),
            leeway_s: 5,
            verify_threads: 2,
            verify_queue: 4_096,
            verify_ms: 2_000,
            verify_cache: 16_384,
            failures_per_min: 30,
            failures_burst: 20,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 0,
            connections_per_shard_max: 1_000_000,
            handshakes_per_shard: 16_384,
            rooms_per_session: 128,
            rooms_per_shard: 1_000_000,
            sessions_per_user: 16,
            requests_per_s: 50,
            requests_burst: 100,
            recipients_per_token: 0,
            rate_mode: RateMode::Wait,
            handshake_ms: 5_000,
            frame_ms: 10_000,
            heartbeat_ms: 25_000,
            join_ms: 5_000,
            log_ms: 5_000,
            absence_ms: 1_000,
            drain_ms: 30_000,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self { room_messages: 1_000, room_bytes: 1 << 20, age_ms: 3_600_000, shard_bytes: 256 << 20, dedup_bytes: 128 << 20 }
    }
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            soft_mark_bytes: 256 * 1024,
            hard_mark_bytes: 1024 * 1024,
            slow_reader: SlowReader::Stall,
            no_progress_ms: 10_000,
            gather_buffers: 512,
            out_chunks_max: 1024 * 1024,
            frames_max: 256 * 1024,
            shard_bytes_max: 256 * 1024 * 1024,
            leftover_bytes_max: 32 * 1024 * 1024,
            handshake_bytes_max: 16 * 1024 * 1024,
            mesh_depth: 4_096,
            sends_per_turn_interactive: 1_024,
            sends_per_turn_bulk: 256,
            bulk_room_members: 512,
        }
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self { entries: 4_096, buffers: 2_048, notsent_lowat_bytes: 64 * 1024, backlog: 4_096 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: log::LevelFilter::Info }
    }
}
