//! Bounds that are not configurable and that more than one module has to know, with what grows if they are raised. A bound that one module alone knows stands in it.
//!
//! A relation between two bounds is a constant assertion under them. Configurable bounds are in `config`.

/// Bytes of one JSON object from a client after `welcome`. Raising it raises the leftover pool and the largest send.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one JSON object before `welcome`: what a stranger can make a shard hold.
pub const FRAME_BYTES_BEFORE_WELCOME_MAX: usize = 4 * 1024;
/// Bytes of a `body`, so that a message with the longest names still fits a frame.
pub const BODY_BYTES_MAX: usize = 60 * 1024;
/// Bytes of the TCP transport's header: a big-endian length.
pub const TCP_HEADER_BYTES: usize = 4;
/// Bytes of a PROXY header, what stands behind its addresses included. Raising it raises what a listed proxy can make a shard hold before a login.
pub const PROXY_HEADER_BYTES_MAX: usize = 2 * 1024;
/// Bytes of one send: a session's share of the socket per turn. Raising it raises the gather pool.
pub const SEND_BYTES_MAX: usize = FRAME_BYTES_MAX + TCP_HEADER_BYTES;
/// Nesting of a client's object, itself counted. Deeper is `malformed`.
pub const JSON_DEPTH_MAX: usize = 16;
/// Bytes of a `device` or a `key`.
pub const DEVICE_BYTES_MAX: usize = 64;
pub const DEDUP_KEY_BYTES_MAX: usize = 64;
/// Bytes of a position on the wire.
pub const POSITION_BYTES_MAX: usize = 64;
/// Bad objects within [`BAD_OBJECTS_WINDOW_MS`] that end a session.
pub const BAD_OBJECTS_MAX: u8 = 8;
pub const BAD_OBJECTS_WINDOW_MS: u64 = 60_000;
/// Keys of a user in a room that are remembered, and for how long, in the log's time.
pub const DEDUP_KEYS_PER_USER_MAX: usize = 128;
pub const DEDUP_WINDOW_MS: u64 = 300_000;
/// A replay: messages, bytes, and messages where the client names no number. It has to fit a session's queue beside what stands there.
pub const REPLAY_MESSAGES_MAX: usize = 1_000;
pub const REPLAY_BYTES_MAX: usize = 512 * 1024;
pub const REPLAY_MESSAGES_DEFAULT: usize = 50;
/// Messages of one `history` page, where the client names no number.
pub const PAGE_MESSAGES_DEFAULT: u32 = 50;
/// Names in one `presence` answer: 500 names of 64 bytes fit a frame.
pub const PRESENCE_NAMES_MAX: usize = 500;
/// Members up to which a room tells who comes and goes.
pub const PRESENCE_ROOM_MAX: usize = 200;
/// Sessions of one user.
pub const SESSIONS_PER_USER_MAX: usize = 16;
/// Shards of one process.
pub const SHARDS_MAX: usize = 256;

/// Bytes of one receive buffer, and so of the largest piece handed to the parser.
pub const RECEIVE_BUFFER_BYTES: usize = 2 * 1024;
/// After a final object: bytes read and thrown away, and the time for it, before the socket closes.
pub const LINGER_BYTES_MAX: usize = 64 * 1024;
pub const LINGER_MS: u64 = 1_000;
/// Time for the queue of a closing session to go out.
pub const CLOSE_FLUSH_MS: u64 = 2_000;
/// A connection whose operations were cut and have not ended is cut again after this.
pub const CUT_AGAIN_MS: u64 = 1_000;
/// How long a draining shard waits for answers to what it has read.
pub const ANSWERING_MS: u64 = 2_000;
/// The longest pause after a failed accept: a descriptor that came free elsewhere is noticed so late.
pub const ACCEPT_BACKOFF_MS_MAX: u64 = 1_000;
/// How long a new server waits for the old one to leave the port before it says so and goes on.
pub const TAKEOVER_MS: u64 = 10_000;

const _: () = assert!(BODY_BYTES_MAX + 1024 < FRAME_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_BEFORE_WELCOME_MAX < FRAME_BYTES_MAX);
const _: () = assert!(PROXY_HEADER_BYTES_MAX <= FRAME_BYTES_BEFORE_WELCOME_MAX);
const _: () = assert!(PRESENCE_NAMES_MAX * (64 + 3) + 512 < FRAME_BYTES_MAX);
const _: () = assert!(PRESENCE_ROOM_MAX <= PRESENCE_NAMES_MAX);
