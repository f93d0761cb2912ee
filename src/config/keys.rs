//! The table of all keys: what each means, its range, and what raising it costs.
//!
//! One row per field of [`Settings`]; reading, printing and range checks walk this table, so a key exists once. A test holds that no field is
//! missing. Defaults are not repeated here: they stand in `Settings::default`.

use std::ops::RangeInclusive;

use super::Settings;
use super::slot::{Number, Slot};
use crate::ids::Key;
use crate::limits;

/// A key of the file.
pub(super) struct KeySpec {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// What it is, with its unit.
    pub(super) meaning: &'static str,
    /// The cost of more: what grows or suffers when it is raised; empty where it is no quantity.
    pub(super) cost: &'static str,
    pub(super) slot: fn(&mut Settings) -> Slot<'_>,
}

impl KeySpec {
    /// `section.key`, as errors name it.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// A running server takes a new value (`reload`).
    pub(super) fn reloads(&self) -> bool {
        (self.section == "limits" && !self.name.starts_with("connections_")) || self.section == "log"
    }
}

/// The sections in the file's order, with what they hold.
pub(super) const SECTIONS: [(&str, &str); 8] = [
    ("server", "Where it listens and on which CPUs it runs."),
    ("auth", "Who may log in."),
    ("limits", "Counts and deadlines."),
    ("history", "What rooms and inboxes retain, in memory."),
    ("queues", "What may wait, and how much is sent per turn."),
    ("ring", "Sizes of each shard's io_uring and of its sockets' kernel queues."),
    ("admin", "The control plane: metrics, health, admin and publish API, over HTTP on a thread of its own."),
    ("log", "What is logged (standard error)."),
];

const SHARDS: u64 = limits::SHARDS_MAX as u64;
const SESSIONS: u64 = limits::SESSIONS_PER_USER_MAX as u64;
const FRAME_BYTES: u64 = (limits::FRAME_BYTES_MAX + limits::TCP_HEADER_BYTES) as u64;
/// Less, and a session could be ended for what one send holds while the next one waits.
const HARD_MARK_MIN: u64 = 2 * limits::SEND_BYTES_MAX as u64;
/// Less, and one room could not fill its own bound.
const HISTORY_MIN: u64 = 1 << 20;
/// Less, and one user could not have the keys of one room remembered.
const DEDUP_MIN: u64 = 16 * 1024;
/// Less, and one stranger could not say a whole `hello`.
const HELLO_BYTES: u64 = (limits::FRAME_BYTES_BEFORE_WELCOME_MAX + limits::TCP_HEADER_BYTES + limits::PROXY_HEADER_BYTES_MAX) as u64;
/// A month.
const DAYS: u64 = 31 * 24 * 3_600_000;
/// Slots of a slab: what a key can name.
const SLOTS: u64 = 1 << Key::SLOT_BITS;
/// Room for any host of today, and far from overflow.
const BYTES: u64 = 1 << 30;

fn number(place: &mut dyn Number, range: RangeInclusive<u64>) -> Slot<'_> {
    Slot::Number(place, range)
}

/// Every key, grouped by section in the order of [`SECTIONS`].
pub(super) const KEYS: &[KeySpec] = &[
    KeySpec {
        section: "server",
        name: "listen",
        meaning: "Addresses to listen on: IPv4:port or [IPv6]:port, several allowed.",
        cost: "one more listening socket per shard for each.",
        slot: |s| Slot::Addresses(&mut s.server.listen),
    },
    KeySpec {
        section: "server",
        name: "shards",
        meaning: "Shards: threads that each own a part of the sessions. 0: one per CPU this process may use (or per CPU of `cpus`).",
        cost: "queues grow with the square; above the number of CPUs shards are not pinned and latency suffers.",
        slot: |s| number(&mut s.server.shards, 0..=SHARDS),
    },
    KeySpec {
        section: "server",
        name: "cpus",
        meaning: "CPUs to pin the shards to, in this order, like \"0-3,6\". Empty: all this process may use.",
        cost: "",
        slot: |s| Slot::Cpus(&mut s.server.cpus),
    },
    KeySpec {
        section: "server",
        name: "spin_us",
        meaning: "Microseconds a shard looks for new work before it sleeps.",
        cost: "CPU time burnt on every shard, in exchange for latency when traffic is thin.",
        slot: |s| number(&mut s.server.spin_us, 0..=1_000_000),
    },
    KeySpec {
        section: "server",
        name: "node",
        meaning: "This server's name, as `welcome` shows it: 1 to 64 of A-Z a-z 0-9 _ . : -. Empty: the host's name.",
        cost: "",
        slot: |s| Slot::Text(&mut s.server.node),
    },
    KeySpec {
        section: "server",
        name: "proxies",
        meaning: "Load balancers, as addresses or networks like [\"10.0.0.7\", \"fd00::/8\"], that begin every connection with a PROXY header of version 2: from them the client's address is taken, and failed logins are counted by it. A listed one has to send the header, one that is not listed may not.",
        cost: "whoever is listed can claim any address; about 40 bytes for each connection through one.",
        slot: |s| Slot::Networks(&mut s.server.proxies),
    },
    KeySpec {
        section: "auth",
        name: "mode",
        meaning: "How clients prove who they are. \"open\": not at all, a client names itself. \"jwt\": with a signed token.",
        cost: "",
        slot: |s| Slot::Word(&mut s.auth.mode),
    },
    KeySpec {
        section: "auth",
        name: "insecure_open",
        meaning: "true allows mode \"open\" on an address other than loopback: anybody who reaches the port can be anybody.",
        cost: "",
        slot: |s| Slot::Switch(&mut s.auth.insecure_open),
    },
    KeySpec {
        section: "auth",
        name: "keys",
        meaning: "Files that tokens are checked with, any of them (mode \"jwt\"): public keys in PEM (RSA: RS256, P-256: ES256, Ed25519: EdDSA), any other file is a secret of at least 32 bytes (HS256). A token's `kid`, where it has one, names a file without its ending. SIGHUP reads the files again.",
        cost: "each key of the token's algorithm is tried in turn.",
        slot: |s| Slot::Texts(&mut s.auth.keys),
    },
    KeySpec {
        section: "auth",
        name: "issuer",
        meaning: "What a token's `iss` has to be. Empty: anything.",
        cost: "",
        slot: |s| Slot::Text(&mut s.auth.issuer),
    },
    KeySpec {
        section: "auth",
        name: "audience",
        meaning: "What a token's `aud` has to be, or to hold. Empty: anything.",
        cost: "",
        slot: |s| Slot::Text(&mut s.auth.audience),
    },
    KeySpec {
        section: "auth",
        name: "leeway_s",
        meaning: "Seconds by which the clocks of this server and of whoever makes tokens may differ: a token counts from so much before its `nbf` until so much after its `exp`.",
        cost: "tokens are good for longer than they say.",
        slot: |s| number(&mut s.auth.leeway_s, 0..=300),
    },
    KeySpec {
        section: "auth",
        name: "verify_threads",
        meaning: "Threads that check tokens, beside the shards and with a lower priority.",
        cost: "a log-in storm takes more CPU time from rooms.",
        slot: |s| number(&mut s.auth.verify_threads, 1..=64),
    },
    KeySpec {
        section: "auth",
        name: "verify_queue",
        meaning: "Tokens that may wait to be checked, for each shard and in all; above it a login is told 503.",
        cost: "up to 4 KB for each; logins wait longer before they are turned away.",
        slot: |s| number(&mut s.auth.verify_queue, 1..=1_000_000),
    },
    KeySpec {
        section: "auth",
        name: "verify_ms",
        meaning: "Milliseconds that the check of a token may take; then 503.",
        cost: "clients of an overloaded server wait longer for bad news.",
        slot: |s| number(&mut s.auth.verify_ms, 10..=60_000),
    },
    KeySpec {
        section: "auth",
        name: "verify_cache",
        meaning: "Tokens found good that are remembered until they end, so that a reconnect needs no signature check. 0: none.",
        cost: "about 200 bytes each, and more with `rooms` in the token.",
        slot: |s| number(&mut s.auth.verify_cache, 0..=10_000_000),
    },
    KeySpec {
        section: "auth",
        name: "failures_per_min",
        meaning: "Failed logins a minute that one address may make (a /64 counts as one address); above it a login is told 429 unchecked.",
        cost: "whoever guesses may guess more often.",
        slot: |s| number(&mut s.auth.failures_per_min, 1..=60_000),
    },
    KeySpec {
        section: "auth",
        name: "failures_burst",
        meaning: "Failed logins that one address may make at once.",
        cost: "whoever guesses may guess more often; fewer: one broken client shuts out its neighbours behind the same address.",
        slot: |s| number(&mut s.auth.failures_burst, 1..=60_000),
    },
    KeySpec {
        section: "limits",
        name: "connections_max",
        meaning: "Connections of the whole process. 0: as many as the limit of open files allows, less a reserve for all else (64, and 13 or so per shard).",
        cost: "up to 5 KB of kernel and 0.5 KB of process memory for each, idle.",
        slot: |s| number(&mut s.limits.connections_max, 0..=SLOTS * SHARDS),
    },
    KeySpec {
        section: "limits",
        name: "connections_per_shard_max",
        meaning: "Connections of one shard.",
        cost: "as connections_max.",
        slot: |s| number(&mut s.limits.connections_per_shard_max, 1..=SLOTS),
    },
    KeySpec {
        section: "limits",
        name: "handshakes_per_shard",
        meaning: "Connections of one shard that have not logged in; above it a new one is told 503.",
        cost: "what strangers can make the server hold, for handshake_ms each.",
        slot: |s| number(&mut s.limits.handshakes_per_shard, 1..=SLOTS),
    },
    KeySpec {
        section: "limits",
        name: "rooms_per_session",
        meaning: "Rooms that one session may be in.",
        cost: "memory per membership, and the work of one disconnect.",
        slot: |s| number(&mut s.limits.rooms_per_session, 1..=65_535),
    },
    KeySpec {
        section: "limits",
        name: "rooms_per_shard",
        meaning: "Rooms that the sessions of one shard are in together; above it a `join` of a further one is told 503. With many shards it is less: all of them together know 16 million rooms.",
        cost: "about 0.5 KB for each, and what one crowd of clients that makes up names can take.",
        slot: |s| number(&mut s.limits.rooms_per_shard, 1..=SLOTS),
    },
    KeySpec {
        section: "limits",
        name: "sessions_per_user",
        meaning: "Sessions of one user at a time.",
        cost: "each gets every message of the user's inbox.",
        slot: |s| number(&mut s.limits.sessions_per_user, 1..=SESSIONS),
    },
    KeySpec {
        section: "limits",
        name: "requests_per_s",
        meaning: "Requests per second that a user, with all its sessions, may make, as `welcome` announces.",
        cost: "the work that one user can ask for.",
        slot: |s| number(&mut s.limits.requests_per_s, 1..=1_000_000),
    },
    KeySpec {
        section: "limits",
        name: "requests_burst",
        meaning: "Requests that a user, with all its sessions, may make at once, as `welcome` announces.",
        cost: "the work that one user can ask for in one go.",
        slot: |s| number(&mut s.limits.requests_burst, 1..=1_000_000),
    },
    KeySpec {
        section: "limits",
        name: "recipients_per_token",
        meaning: "Recipients of a `send` that cost one more token: with 100, a `send` to a room of 250 sessions costs 3, never more than requests_burst. The room is counted as it was when its newest message, or the newest answer to a `join`, came to the sender's shard. 0: a `send` costs one, whoever gets it.",
        cost: "large rooms are cheaper to write to.",
        slot: |s| number(&mut s.limits.recipients_per_token, 0..=1_000_000),
    },
    KeySpec {
        section: "limits",
        name: "rate_mode",
        meaning: "A request above the rate: \"wait\": stays unread until it may be made; \"reject\": is answered with 429 at once.",
        cost: "",
        slot: |s| Slot::Word(&mut s.limits.rate_mode),
    },
    KeySpec {
        section: "limits",
        name: "handshake_ms",
        meaning: "Milliseconds from accept to a whole `hello`.",
        cost: "strangers who say nothing hold their connection longer.",
        slot: |s| number(&mut s.limits.handshake_ms, 100..=600_000),
    },
    KeySpec {
        section: "limits",
        name: "frame_ms",
        meaning: "Milliseconds from a frame's first byte to its last.",
        cost: "half frames hold their memory longer.",
        slot: |s| number(&mut s.limits.frame_ms, 100..=600_000),
    },
    KeySpec {
        section: "limits",
        name: "heartbeat_ms",
        meaning: "Milliseconds of silence after which the server sends `ping`; after twice that it ends the session.",
        cost: "a dead peer is noticed later.",
        slot: |s| number(&mut s.limits.heartbeat_ms, 1_000..=3_600_000),
    },
    KeySpec {
        section: "limits",
        name: "join_ms",
        meaning: "Milliseconds that a `join` may wait for the way to its room's shard, or, when it wants messages from before, for the answers to what its session asked earlier; then 503.",
        cost: "requests behind a join that finds no way wait longer.",
        slot: |s| number(&mut s.limits.join_ms, 100..=600_000),
    },
    KeySpec {
        section: "limits",
        name: "log_ms",
        meaning: "Milliseconds that a `send` may wait for its place in the log; then 503.",
        cost: "senders wait longer for bad news.",
        slot: |s| number(&mut s.limits.log_ms, 100..=600_000),
    },
    KeySpec {
        section: "limits",
        name: "absence_ms",
        meaning: "Milliseconds for which a room still counts a user whose last session there has ended without `leave`, so that who comes back in time neither leaves nor joins (`member`). 0: not at all.",
        cost: "who is gone is shown for longer.",
        slot: |s| number(&mut s.limits.absence_ms, 0..=60_000),
    },
    KeySpec {
        section: "limits",
        name: "drain_ms",
        meaning: "Milliseconds from SIGTERM to exit, at most.",
        cost: "a restart takes longer when a client does not read. A service manager must wait longer than this before it kills.",
        slot: |s| number(&mut s.limits.drain_ms, 100..=3_600_000),
    },
    KeySpec {
        section: "history",
        name: "room_messages",
        meaning: "Messages that one room or inbox retains.",
        cost: "memory, up to room_bytes for each busy room.",
        slot: |s| number(&mut s.history.room_messages, 1..=1_000_000),
    },
    KeySpec {
        section: "history",
        name: "room_bytes",
        meaning: "Bytes that one room or inbox retains.",
        cost: "memory, up to shard_bytes for all rooms of a shard.",
        slot: |s| number(&mut s.history.room_bytes, FRAME_BYTES..=BYTES),
    },
    KeySpec {
        section: "history",
        name: "age_ms",
        meaning: "Milliseconds that a message is retained. At least as long as keys of `send` are remembered.",
        cost: "quiet rooms keep their memory for as long.",
        slot: |s| number(&mut s.history.age_ms, limits::DEDUP_WINDOW_MS..=DAYS),
    },
    KeySpec {
        section: "history",
        name: "shard_bytes",
        meaning: "Bytes that all rooms of a shard retain together; above it the room written longest ago is forgotten whole.",
        cost: "memory of every shard.",
        slot: |s| number(&mut s.history.shard_bytes, HISTORY_MIN..=1 << 40),
    },
    KeySpec {
        section: "history",
        name: "dedup_bytes",
        meaning: "Bytes per shard in which keys of `send` are remembered, about 50 for each; when they are used up a `send` with a new key is told 503 until older keys are five minutes old.",
        cost: "memory of every shard.",
        slot: |s| number(&mut s.history.dedup_bytes, DEDUP_MIN..=1 << 40),
    },
    KeySpec {
        section: "queues",
        name: "soft_mark_bytes",
        meaning: "Bytes waiting for one session above which the senders of its rooms are to be held back. Below hard_mark_bytes.",
        cost: "memory per slow reader.",
        slot: |s| number(&mut s.queues.soft_mark_bytes, 1_024..=BYTES),
    },
    KeySpec {
        section: "queues",
        name: "hard_mark_bytes",
        meaning: "Bytes waiting for one session above which it is ended (429 slow_consumer). At least two sends (131,080).",
        cost: "memory per slow reader, and the age of what it reads.",
        slot: |s| number(&mut s.queues.hard_mark_bytes, HARD_MARK_MIN..=BYTES),
    },
    KeySpec {
        section: "queues",
        name: "slow_reader",
        meaning: "A reader over the soft mark: \"stall\": holds back the senders of its rooms, 50 ms in 10 s at most; \"close\": holds back nobody; \"drop_oldest\": holds back nobody, loses the oldest messages that wait for it and is told `gap` (never in an inbox: \"close\" there). Under [[rooms]] by room.",
        cost: "",
        slot: |s| Slot::Word(&mut s.queues.slow_reader),
    },
    KeySpec {
        section: "queues",
        name: "no_progress_ms",
        meaning: "Milliseconds in which not one waiting byte went out, after which the session is ended.",
        cost: "a reader that hangs holds its queue longer.",
        slot: |s| number(&mut s.queues.no_progress_ms, 100..=600_000),
    },
    KeySpec {
        section: "queues",
        name: "gather_buffers",
        meaning: "Buffers of 64 KiB per shard in which several messages become one send.",
        cost: "64 KiB each once used.",
        slot: |s| number(&mut s.queues.gather_buffers, 1..=65_536),
    },
    KeySpec {
        section: "queues",
        name: "out_chunks_max",
        meaning: "Pieces of all sessions' out-queues of a shard.",
        cost: "about 64 bytes each once used; fewer: sessions end as slow_consumer when all are taken.",
        slot: |s| number(&mut s.queues.out_chunks_max, 1_024..=SLOTS),
    },
    KeySpec {
        section: "queues",
        name: "frames_max",
        meaning: "Encoded messages that a shard holds at once, each counted once however many sessions wait for it.",
        cost: "memory for each message that any session still waits for.",
        slot: |s| number(&mut s.queues.frames_max, 1_024..=SLOTS),
    },
    KeySpec {
        section: "queues",
        name: "shard_bytes_max",
        meaning: "Bytes of encoded messages that a shard holds at once, waiting or in flight, each counted once however many sessions wait for it. Above it the sessions with the most bytes waiting are ended (429 slow_consumer). At least hard_mark_bytes.",
        cost: "memory that slow readers can hold.",
        slot: |s| number(&mut s.queues.shard_bytes_max, HARD_MARK_MIN..=1 << 40),
    },
    KeySpec {
        section: "queues",
        name: "leftover_bytes_max",
        meaning: "Bytes per shard of frames that have not come whole.",
        cost: "memory that clients which stop in the middle of a frame can hold.",
        slot: |s| number(&mut s.queues.leftover_bytes_max, FRAME_BYTES..=BYTES),
    },
    KeySpec {
        section: "queues",
        name: "handshake_bytes_max",
        meaning: "Bytes per shard of what connections have sent before their login and was not judged yet; above it whoever sends more is told 503. Never more than half of leftover_bytes_max, so that strangers leave room for sessions.",
        cost: "memory that strangers can hold.",
        slot: |s| number(&mut s.queues.handshake_bytes_max, HELLO_BYTES..=BYTES),
    },
    KeySpec {
        section: "queues",
        name: "mesh_depth",
        meaning: "Envelopes in the queue from one shard to another. Falls with the number of shards, so that all queues stay under 64 MB.",
        cost: "memory (times shards x shards), and the age of what waits.",
        slot: |s| number(&mut s.queues.mesh_depth, 16..=65_536),
    },
    KeySpec {
        section: "queues",
        name: "sends_per_turn_interactive",
        meaning: "Sends that a shard starts per turn for small rooms and answers.",
        cost: "a turn takes longer: latency given up for throughput.",
        slot: |s| number(&mut s.queues.sends_per_turn_interactive, 1..=65_536),
    },
    KeySpec {
        section: "queues",
        name: "sends_per_turn_bulk",
        meaning: "Sends that a shard starts per turn for large rooms.",
        cost: "large rooms go faster, and delay everybody else.",
        slot: |s| number(&mut s.queues.sends_per_turn_bulk, 1..=65_536),
    },
    KeySpec {
        section: "queues",
        name: "bulk_room_members",
        meaning: "Members of a room on one shard from which its deliveries go into the bulk share.",
        cost: "larger rooms compete with answers and direct messages.",
        slot: |s| number(&mut s.queues.bulk_room_members, 1..=SLOTS),
    },
    KeySpec {
        section: "ring",
        name: "entries",
        meaning: "Entries of each shard's submission queue.",
        cost: "locked kernel memory, 64 bytes each and 16 for each of twice as many completions.",
        slot: |s| number(&mut s.ring.entries, 64..=32_768),
    },
    KeySpec {
        section: "ring",
        name: "buffers",
        meaning: "Receive buffers of 2 KiB per shard; a power of two.",
        cost: "2 KiB each.",
        slot: |s| number(&mut s.ring.buffers, 16..=32_768),
    },
    KeySpec {
        section: "ring",
        name: "notsent_lowat_bytes",
        meaning: "Unsent bytes that the kernel takes for a socket (TCP_NOTSENT_LOWAT); what is above waits in the session's own queue.",
        cost: "kernel memory per slow reader, which the marks do not see.",
        slot: |s| number(&mut s.ring.notsent_lowat_bytes, 4_096..=BYTES),
    },
    KeySpec {
        section: "ring",
        name: "backlog",
        meaning: "Connections per listening socket that wait to be accepted; the kernel cuts it to net.core.somaxconn.",
        cost: "log-in storms wait longer instead of being dropped.",
        slot: |s| number(&mut s.ring.backlog, 1..=65_535),
    },
    KeySpec {
        section: "admin",
        name: "listen",
        meaning: "Addresses of the control plane, like [\"127.0.0.1:7778\"]. Empty: none. Anything but loopback needs `token_file`.",
        cost: "",
        slot: |s| Slot::Addresses(&mut s.admin.listen),
    },
    KeySpec {
        section: "admin",
        name: "token_file",
        meaning: "File with the token that requests show as `Authorization: Bearer ...`: at least 16 letters. Only /healthz, /readyz and the page itself come without. Empty: no token, on loopback only. SIGHUP reads the file again.",
        cost: "",
        slot: |s| Slot::Text(&mut s.admin.token_file),
    },
    KeySpec {
        section: "log",
        name: "level",
        meaning: "What is logged: \"info\" is the life of the server, \"debug\" adds each session. The variable RUST_LOG, where set, wins.",
        cost: "disk and CPU per connection at \"debug\", per operation at \"trace\".",
        slot: |s| Slot::Word(&mut s.log.level),
    },
];
