//! Bytes from a client: cut into frames where they lie, decoded, handed to the rules. Only an incomplete tail is copied.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::connection::{Phase, Unread, Waits};
use super::core::Core;
use super::effects::Ending;
use crate::chat::{Flow, Grant, Login};
use crate::config::Deadline;
use crate::ids::{Key, SessionRef, ShardId};
use crate::limits::{FRAME_BYTES_BEFORE_WELCOME_MAX, FRAME_BYTES_MAX, LINGER_BYTES_MAX};
use crate::mesh::directory::Registered;
use crate::mesh::{Envelope, Move};
use crate::mutation::{Mutation, planted};
use crate::protocol::error::{Reason, Refusal};
use crate::protocol::frame::{Cut, Transport, cut, transport};
use crate::protocol::message::{Request, decode};

/// Bytes a session may have unread: one frame and what a multishot receive can bring before its cancel takes effect.
const UNREAD_BYTES_MAX: usize = 512 * 1024;
/// Bytes a session may have unread while memory for them is short: enough for any ordinary frame.
const UNDER_PRESSURE_UNREAD_BYTES_MAX: usize = 8 * 1024;
/// Unread buffers kept for the next session, and how large one may be to be kept.
const SPARE_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 8 * 1024;

const _: () = assert!(UNREAD_BYTES_MAX >= 4 * FRAME_BYTES_MAX);
const _: () = assert!(LINGER_BYTES_MAX <= u32::MAX as usize);

/// What became of the bytes given to the parser.
pub(super) enum Parsed {
    /// This many are judged; the rest is incomplete or must wait.
    Used(usize),
    /// The connection is no longer here: ended, or on its way to another shard.
    Over,
}

impl<S> Core<S> {
    /// Bytes have come in.
    pub(super) fn bytes_in(&mut self, key: Key, bytes: &[u8]) {
        let now_ms = self.now_ms();
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.read_ms = now_ms;
        connection.pinged = false;
        self.counters.bytes_in.add(bytes.len() as u64);
        match connection.phase {
            Phase::Handshake | Phase::Open => {}
            Phase::Closing | Phase::Lingering | Phase::Joining => {
                let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                connection.discarded = connection.discarded.saturating_add(count);
                if connection.discarded as usize >= LINGER_BYTES_MAX {
                    self.want_rearm(key);
                }
                return;
            }
        }
        if connection.unread.is_none() {
            let parsed = self.parse(key, bytes);
            if let Parsed::Used(used) = parsed {
                self.keep_unread(key, &bytes[used..]);
            }
        } else {
            self.keep_unread(key, bytes);
            self.parse_unread(key);
        }
    }

    /// Judges what was kept.
    pub(super) fn parse_unread(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mut unread) = connection.unread.take() else { return };
        let len = unread.bytes.len();
        self.unread_shrinks(key, len);
        match self.parse(key, &unread.bytes) {
            Parsed::Used(used) if used < len => {
                unread.bytes.drain(..used);
                self.unread_grows(key, unread.bytes.len());
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.unread = Some(unread);
                }
                self.start_waiting(key, used > 0);
            }
            _ => self.spare_buffer(unread),
        }
    }

    fn keep_unread(&mut self, key: Key, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let strangers_max = self.stranger_bytes_max();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let before = connection.unread.as_ref().map_or(0, |unread| unread.bytes.len());
        let (own, all) = (before + bytes.len(), self.unread_bytes + bytes.len());
        let most = self.settings.queues.leftover_bytes_max;
        // Before nobody's frame may come in pieces any longer, those go whose pieces are large.
        let greedy = own > UNDER_PRESSURE_UNREAD_BYTES_MAX && own < all && all > most / 4 * 3;
        if own > UNREAD_BYTES_MAX || all > most || greedy {
            let message = "too many bytes wait to be read";
            return self.end_and_settle(key, Ending::said(Reason::Overloaded, Some(message)));
        }
        let before_login = connection.phase == Phase::Handshake;
        if before_login && self.stranger_bytes + bytes.len() > strangers_max {
            let message = "too many bytes wait before their login";
            return self.end_and_settle(key, Ending::said(Reason::Overloaded, Some(message)));
        }
        let spare = &mut self.spare;
        connection.unread.get_or_insert_with(|| spare.pop().unwrap_or_default()).bytes.extend_from_slice(bytes);
        self.unread_grows(key, bytes.len());
        self.start_waiting(key, before == 0);
    }

    /// A frame's first byte has come without its last: it must be whole in time.
    fn start_waiting(&mut self, key: Key, fresh: bool) {
        let (now_ms, whole_ms) = (self.now_ms(), self.due_ms(Deadline::Frame));
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.waits != Waits::No {
            return;
        }
        if fresh || connection.waiting_ms == 0 {
            connection.waiting_ms = now_ms;
            self.check_no_later(key, whole_ms);
        }
    }

    pub(super) fn forget_unread(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.waiting_ms = 0;
        let Some(unread) = connection.unread.take() else { return };
        self.unread_shrinks(key, unread.bytes.len());
        self.spare_buffer(unread);
    }

    fn spare_buffer(&mut self, mut unread: Box<Unread>) {
        if unread.bytes.capacity() <= SPARE_BYTES_MAX && self.spare.len() < SPARE_MAX {
            unread.bytes.clear();
            self.spare.push(unread);
        }
    }

    fn parse(&mut self, key: Key, bytes: &[u8]) -> Parsed {
        let mut used = 0;
        if self.connections.get(key).is_some_and(|c| c.proxied) {
            match self.proxy_header(key, bytes) {
                Parsed::Used(header) if header > 0 => used = header,
                other => return other,
            }
        }
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return Parsed::Over };
            let max = match connection.phase {
                Phase::Handshake => FRAME_BYTES_BEFORE_WELCOME_MAX,
                Phase::Open => FRAME_BYTES_MAX,
                _ => return Parsed::Over,
            };
            if connection.waits != Waits::No {
                return Parsed::Used(used);
            }
            if connection.queued_bytes as usize > self.settings.queues.soft_mark_bytes {
                self.wait_for(key, Waits::Reader);
                return Parsed::Used(used);
            }
            match cut(&bytes[used..], max) {
                Cut::Incomplete { .. } => return Parsed::Used(used),
                Cut::Bad(error) => {
                    self.bad_frame(key, &bytes[used..], error.reason());
                    return Parsed::Over;
                }
                Cut::Frame { json, rest } => {
                    connection.waiting_ms = 0;
                    self.counters.frames_in.add(1);
                    let next = bytes.len() - rest.len();
                    if connection.phase == Phase::Handshake {
                        return self.first_word(key, json, rest, next);
                    }
                    if self.object(key, json) == Flow::Next {
                        used = next;
                    }
                }
            }
        }
    }

    /// The stream can't be followed any further; before `hello` it may be another transport.
    fn bad_frame(&mut self, key: Key, bytes: &[u8], reason: Reason) {
        let first = self.connections.get(key).is_some_and(|c| c.phase == Phase::Handshake);
        match transport(bytes) {
            other @ (Transport::WebSocket | Transport::Tls | Transport::Proxy) if first => self.wrong_start(key, other),
            _ => self.end_and_settle(key, Ending::said(reason, None)),
        }
    }

    /// Judges one object of a session that is logged in.
    fn object(&mut self, key: Key, json: &[u8]) -> Flow {
        let decoded = self.decode(key, json);
        let flow = match &decoded {
            None => Flow::Next,
            Some(Ok(request)) => self.chat.handle_request(self.now, key, request, &mut self.effects),
            Some(Err(refusal)) => {
                self.chat.handle_bad_object(self.now, key, refusal, &mut self.effects);
                Flow::Next
            }
        };
        self.settle();
        match flow {
            Flow::Next => {}
            Flow::Verify => {
                if let Some(Ok(Request::Hello(hello))) = &decoded {
                    self.fresh_token(key, hello);
                }
                return Flow::Next;
            }
            Flow::Blocked(_) => {
                let joins = matches!(decoded, Some(Ok(Request::Join(_))));
                self.wait_for_the_way(key, if joins { Deadline::Join } else { Deadline::Blocked });
            }
            Flow::Later { at_ms } => {
                self.wait_for(key, Waits::Rate);
                self.stalls.schedule(key.slot, at_ms * 1_000_000);
            }
        }
        flow
    }

    /// Decoding is a pure function of a client's bytes: should it panic, that client's session ends and nobody else's.
    fn decode<'a>(&mut self, key: Key, json: &'a [u8]) -> Option<Result<Request<'a>, Refusal>> {
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(json)));
        if decoded.is_err() {
            self.counters.decode_panics.add(1);
            log::error!("decoding an object panicked: the session was ended; please report it");
            self.end_and_settle(key, Ending::said(Reason::Internal, None));
        }
        decoded.ok()
    }

    /// The first request in what is unread can't be taken now: nothing more is read from the session until it is.
    pub(super) fn wait_for(&mut self, key: Key, waits: Waits) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key).filter(|c| matches!(c.phase, Phase::Handshake | Phase::Open)) else { return };
        connection.waits = waits;
        connection.waiting_ms = now.mono_ms();
        self.want_rearm(key);
    }

    /// The way to another shard is full, or an answer before the request is still due.
    fn wait_for_the_way(&mut self, key: Key, state: Deadline) {
        self.wait_for(key, Waits::Mesh);
        if self.connections.get(key).is_some_and(|c| c.waits == Waits::Mesh) {
            self.counters.blocked.add(1);
            self.blocked.push_back(key);
            self.stalls.schedule_no_later(key.slot, self.due_ms(state) * 1_000_000);
        }
    }

    /// Offers again the requests that wait for the mesh or found their reader reading, each once.
    pub(super) fn retry_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            let Some(key) = self.blocked.pop_front() else { break };
            self.offer_again(key);
        }
    }

    fn offer_again(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.waits != Waits::No) else { return };
        connection.waits = Waits::No;
        connection.waiting_ms = 0;
        connection.read_ms = now_ms;
        self.go_on(key);
    }

    /// The session waits for nothing any longer: what it has sent meanwhile is judged, and it is read from again.
    pub(super) fn go_on(&mut self, key: Key) {
        self.parse_unread(key);
        if self.connections.get(key).is_none_or(|c| c.waits != Waits::No) {
            return;
        }
        self.stalls.cancel(key.slot);
        self.want_rearm(key);
        self.hang_up_if_judged(key);
    }

    /// The session's queue has gone out far enough for its next request.
    pub(super) fn reader_reads(&mut self, key: Key) {
        let mark = self.settings.queues.soft_mark_bytes / 2;
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.queued_bytes as usize <= mark) else { return };
        if connection.waits == Waits::Reader {
            self.blocked.push_back(key);
        }
        if connection.slow {
            connection.slow = false;
            self.marks.push((key, false));
            self.settle();
        }
        self.crowd.forget(key);
    }

    /// A time has come that a request waited for: its token, or its deadline.
    pub(super) fn waited(&mut self, slot: u32) {
        let Some(key) = self.connections.key_at(slot) else { return };
        match self.connections.get(key).map(|c| c.waits) {
            Some(Waits::Rate) => self.offer_again(key),
            Some(Waits::Mesh) => self.refuse_blocked(key),
            _ => {}
        }
    }

    /// A blocked request has waited too long: it is refused, what stands behind it goes on.
    fn refuse_blocked(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let unread = connection.unread.take().expect("a request that waits is unread");
        connection.waits = Waits::No;
        connection.waiting_ms = 0;
        self.unread_shrinks(key, unread.bytes.len());
        let Cut::Frame { json, rest } = cut(&unread.bytes, FRAME_BYTES_MAX) else {
            unreachable!("a request that waits stands first in what is unread")
        };
        if let Some(Ok(request)) = self.decode(key, json) {
            let refusal = Refusal { id: request.id(), reason: Reason::Overloaded, message: "the way to the room is full" };
            self.chat.handle_overload(key, &refusal, &mut self.effects);
            self.settle();
        }
        self.keep_unread(key, rest);
        self.spare_buffer(unread);
        self.parse_unread(key);
        self.want_rearm(key);
        self.hang_up_if_judged(key);
    }

    /// The client has closed its side: once all it has sent is judged, what it has asked is answered, then it goes. A request that waits and what
    /// stands behind it are not judged yet.
    pub(super) fn hang_up_if_judged(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.eof && connection.waits == Waits::No && connection.phase == Phase::Open {
            self.chat.handle_end_of_stream(key, &mut self.effects);
            self.settle();
        }
    }

    /// Before `welcome` only `hello` is read.
    fn first_word(&mut self, key: Key, json: &[u8], rest: &[u8], next: usize) -> Parsed {
        let hello = match self.decode(key, json) {
            None => return Parsed::Over,
            Some(Ok(Request::Hello(hello))) if self.login.is_some() => {
                self.first_token(key, &hello);
                let waits = self.connections.get(key).is_some_and(|c| c.waits == Waits::Verdict);
                return if waits { Parsed::Used(next) } else { Parsed::Over };
            }
            Some(Ok(Request::Hello(hello))) => Login::check(&hello),
            Some(Err(refusal)) if says_hello(json) => Err((refusal.reason, refusal.message)),
            Some(_) => Err((Reason::HelloFirst, "hello comes first")),
        };
        match hello {
            Err((reason, message)) => {
                self.end_and_settle(key, Ending::said(reason, Some(message)));
                Parsed::Over
            }
            Ok(login) => {
                let home = self.chat.home_of_user(login.user.as_str());
                if home == self.shard {
                    self.log_in(key, login);
                    // What stands behind `hello` was waiting for `welcome`.
                    return match self.parse(key, rest) {
                        Parsed::Used(used) => Parsed::Used(next + used),
                        Parsed::Over => Parsed::Over,
                    };
                }
                self.move_out(key, home, login, rest.to_vec());
                Parsed::Over
            }
        }
    }

    /// The socket goes to its user's shard, with what the client has sent behind its `hello`.
    pub(super) fn move_out(&mut self, key: Key, home: ShardId, login: Login, unread: Vec<u8>) {
        let client = self.clients.get(&key).copied();
        let connection = self.take_out(key).expect("a handshake's connection is here");
        self.counters.moved.add(1);
        let moved = Move { socket: connection.socket, login, client, deadline_ms: connection.deadline_ms, unread };
        self.port.post(home, Envelope::Move(Box::new(moved)));
    }

    /// The session lives here from now on.
    pub(super) fn log_in(&mut self, key: Key, login: Login) {
        let at = SessionRef { shard: self.shard, session: key };
        let registered = Registered { at, user_hash: self.chat.hash_of_user(login.user.as_str()) };
        let Some(public_id) = self.directory.insert(registered) else {
            return self.end_and_settle(key, Ending::said(Reason::Overloaded, Some("the session directory is full")));
        };
        let now_ms = self.now_ms();
        let end_ms = self.end_of(&login.grant);
        let check_ms = end_ms.min(self.due_ms(Deadline::Ping));
        self.no_longer_a_stranger(key);
        let connection = self.connections.get_mut(key).expect("found by the caller");
        connection.phase = Phase::Open;
        connection.deadline_ms = end_ms;
        connection.read_ms = now_ms;
        connection.check_ms = u64::MAX;
        self.check_no_later(key, check_ms);
        self.want_rearm(key);
        self.counters.logins.add(1);
        self.chat.handle_login(self.now, key, login, public_id, &mut self.effects);
        if self.chat.public_id(key).is_none() {
            // Not let in: its `bye` is among the effects.
            self.directory.remove(public_id);
        }
        self.settle();
    }

    /// When a session's token ends, milliseconds of the monotonic clock.
    pub(super) fn end_of(&self, grant: &Grant) -> u64 {
        let left_ms = |at: NonZeroU64| at.get().saturating_sub(self.now.unix_ms);
        grant.expires_at.filter(|_| !planted(Mutation::OutliveToken)).map_or(u64::MAX, |at| self.now_ms().saturating_add(left_ms(at)))
    }

    pub(super) fn end_and_settle(&mut self, key: Key, ending: Ending) {
        self.end(key, ending);
        self.settle();
    }
}

/// The object is a `hello`, whatever is wrong with the rest of it.
fn says_hello(json: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Kind<'_>>(json).is_ok_and(|kind| kind.kind == "hello")
}
