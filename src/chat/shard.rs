//! One shard's rules: the state of both sides, the entry points, the way of an envelope.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::dedup::KeyHash;
use super::effect::{Effect, Effects, Envelope, Origin, Parcel, Worth};
use super::homes::Homes;
use super::member::{Delivery, Joined};
use super::named::NamedSlab;
use super::outside::OUTSIDE;
use super::presence::Absence;
use super::retention::Retention;
use super::room::{Home, Place};
use super::rules::Rules;
use super::sample::{Meter, Stamp};
use super::session::{Leaving, Session};
use super::users::Users;
use crate::config::RateMode;
use crate::ids::{Key, Now, Position, RequestId, SessionId, SessionRef, ShardId, WirePosition};
use crate::memory::parallel::Parallel;
use crate::memory::slab::Slab;
use crate::protocol::encode::{self, Outgoing};
use crate::protocol::error::{Reason, Refusal};
use crate::protocol::message::Request;

/// What the reader of a session's bytes does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The request is taken.
    Next,
    /// It can't be taken now: the way to this shard is full. Offer it again later, and nothing behind it before.
    Blocked(ShardId),
    /// The user is out of tokens: offer it again then, milliseconds of the monotonic clock.
    Later { at_ms: u64 },
    /// It is a `hello` whose token has to be checked. It is taken; nothing behind it is, until the verdict ([`Shard::handle_renewal`]).
    Verify,
}

/// Counters of the rules; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub logins: u64,
    pub joins: u64,
    pub messages: u64,
    pub ephemeral: u64,
    pub deliveries: u64,
    pub ephemeral_dropped: u64,
    /// Sends that were not sent again because their key was known.
    pub duplicates: u64,
    pub refused: u64,
    /// Users that came back before anybody was told that they had gone.
    pub returns: u64,
    /// Requests that found no token, each time they were offered.
    pub rate_limited: u64,
    pub deferred: u64,
    /// Times a slow reader held back the senders of its rooms, and times it had no budget left to.
    pub stalls: u64,
    pub stalls_refused: u64,
    pub log_late: u64,
    pub log_repeated: u64,
    /// Envelopes for sessions or places that had gone.
    pub stale: u64,
}

/// What a shard holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub sessions: usize,
    pub users: usize,
    /// Users that have gone and whose buckets are not yet full again.
    pub debts: usize,
    pub places: usize,
    pub homes: usize,
    pub appends: usize,
    pub deferred: usize,
    /// Bytes that are retained, and rooms that were forgotten to stay under the budget.
    pub history_bytes: usize,
    /// Bytes in which keys of `send` are remembered.
    pub dedup_bytes: usize,
    /// Rooms and inboxes that retain something; they stay without members.
    pub retained_rooms: usize,
    pub evicted_rooms: u64,
    /// Users that rooms still count although their last session has ended, those that came back among them.
    pub absences: usize,
    pub unanswered: u64,
}

/// The way to another shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peer {
    /// Requests posted and not yet answered.
    pub(super) unanswered: u32,
    /// Envelopes posted and still waiting on this side.
    pub(super) queued: u32,
}

/// An append the log has not answered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) parcel: Parcel,
    pub(super) origin: Origin,
    pub(super) echo: bool,
    pub(super) key: Option<KeyHash>,
    pub(super) home: Key,
    pub(super) deadline_ms: u64,
    /// The sender was told 503: it still counts when the answer comes, but nobody waits for `sent`.
    pub(super) given_up: bool,
    /// When a sampled message was judged.
    pub(super) judged: Stamp,
}

#[derive(Debug)]
pub struct Shard {
    pub(super) rules: Rules,
    names: Homes,
    pub(super) sessions: Parallel<Session>,
    pub(super) users: Users,
    pub(super) places: NamedSlab<Place>,
    pub(super) homes: NamedSlab<Home>,
    pub(super) pending: Slab<Pending>,
    pub(super) peers: Vec<Peer>,
    loopback: VecDeque<Envelope>,
    /// Homes with deferred requests.
    pub(super) waiting: Vec<Key>,
    pub(super) deferred: u32,
    pub(super) arena: BytesMut,
    pub(super) retention: Retention,
    /// The last moment for which any room of this shard is stalled.
    pub(super) stalled_until_ms: u64,
    /// Users that rooms still count, the one that went first in front.
    pub(super) absences: VecDeque<Absence>,
    pub(super) refuse_sends: bool,
    pub(super) draining: bool,
    pub(super) counts: Counts,
    pub(super) meter: Meter,
    /// Of the request that is being judged.
    pub(super) now: Now,
}

/// Bytes of the piece that payloads are cut from. A payload keeps its whole piece alive: larger saves allocations, smaller saves memory under slow readers.
const ARENA_BYTES: usize = 8 * 1024;
/// Room for any object without a body; the encoder reserves as much.
const SMALL_OBJECT_BYTES: usize = 512;
/// An append nobody waits for is forgotten after this many deadlines.
const LOG_DEADLINES_MAX: u64 = 12;

impl Shard {
    pub fn new(rules: Rules) -> Self {
        let peers = vec![Peer::default(); usize::from(rules.shards)];
        let most = 1 << Key::SLOT_BITS;
        Self {
            names: Homes::new(rules.hash_seeds, rules.shards),
            sessions: Parallel::default(),
            users: Users::new(most),
            places: NamedSlab::new(most),
            homes: NamedSlab::new(most),
            pending: Slab::new(rules.appends_max),
            peers,
            loopback: VecDeque::new(),
            waiting: Vec::new(),
            deferred: 0,
            arena: BytesMut::with_capacity(ARENA_BYTES),
            retention: Retention::default(),
            stalled_until_ms: 0,
            absences: VecDeque::new(),
            refuse_sends: false,
            draining: false,
            counts: Counts::default(),
            meter: Meter::default(),
            now: Now { mono_ns: 0, unix_ms: 0 },
            rules,
        }
    }

    /// Where a user's sessions and inbox live, or a room's order is made.
    pub fn home_of_user(&self, user: &str) -> ShardId {
        self.home(self.hash(user))
    }

    /// The keyed hash under which the directory knows a user.
    pub fn hash_of_user(&self, user: &str) -> u64 {
        self.hash(user)
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn usage(&self) -> Usage {
        Usage {
            sessions: self.sessions.len(),
            users: self.users.len(),
            debts: self.users.debts(),
            places: self.places.len(),
            homes: self.homes.len(),
            appends: self.pending.len(),
            deferred: self.deferred as usize,
            history_bytes: self.retention.cost,
            dedup_bytes: self.retention.keys_cost,
            retained_rooms: self.retention.rooms,
            evicted_rooms: self.retention.evicted_rooms,
            absences: self.absences.len(),
            unanswered: self.peers.iter().map(|peer| u64::from(peer.unanswered)).sum(),
        }
    }

    /// Whether the session waits for answers: to a join or a leave, to anything else.
    pub fn asks(&self, session: SessionId) -> (bool, bool) {
        let Some(state) = self.session(session) else { return (false, false) };
        let moves: u32 = state.rooms.iter().map(|entry| u32::from(entry.unanswered)).sum();
        (moves > 0, state.unanswered > moves)
    }

    /// Users that have more tokens than their burst; never any. Walks all users: for checks only.
    pub fn buckets_over(&self) -> usize {
        self.users.buckets_over(&self.rules.rate)
    }

    /// No more `member` objects: everybody is about to leave.
    pub fn handle_drain(&mut self) {
        self.draining = true;
    }

    /// Settings were read again: their limits count from the next request on.
    pub fn handle_limits(&mut self, settings: &crate::config::Settings) {
        self.rules.take_limits(settings);
    }

    /// `send`s are refused while the shard can't keep up, and everything else goes on.
    pub fn handle_load(&mut self, refuse_sends: bool) {
        self.refuse_sends = refuse_sends;
    }

    /// A session's request. [`Flow::Blocked`] changes nothing.
    pub fn handle_request(&mut self, now: Now, session: SessionId, request: &Request<'_>, out: &mut Effects) -> Flow {
        if self.session(session).is_none_or(|state| state.leaving != Leaving::No) {
            return Flow::Next;
        }
        self.now = now;
        let cost = self.cost(session, request);
        if let Some(flow) = self.out_of_tokens(now, session, (request, cost), out) {
            return flow;
        }
        let flow = match request {
            Request::Hello(hello) => self.renew(session, hello, out),
            Request::Join(join) => self.join(session, join, out),
            Request::Leave { id, room } => self.leave(session, *id, room.as_str(), out),
            Request::Send(send) => self.send(session, send, out),
            Request::History { id, room, before, after, limit } => {
                let page = self.page_of(before.as_deref(), after.as_deref(), *limit);
                self.history(session, *id, (room.as_str(), page), out)
            }
            Request::Presence { id, room } => self.who(session, *id, room.as_str(), out),
            Request::Ping { id } => {
                let payload = self.encode(&Outgoing::Pong { id: *id, ts: now.unix_ms });
                out.queue(session, payload);
                Flow::Next
            }
            Request::Pong => Flow::Next,
            Request::Bye => {
                self.leave_soon(session, Leaving::Bye, out);
                Flow::Next
            }
        };
        self.settle(now, out);
        if matches!(flow, Flow::Next | Flow::Verify) && cost > 0 {
            self.take_tokens(session, cost);
        }
        flow
    }

    /// Tokens that a request takes: one, or where it is configured, for a `send` more by how many sessions its room has. That is what the room's home said
    /// with the newest message, or the newest `joined`, that came to this shard: the bucket is here, and nothing is charged afterwards.
    fn cost(&self, session: SessionId, request: &Request<'_>) -> u32 {
        match request {
            Request::Ping { .. } | Request::Pong | Request::Bye => 0,
            Request::Send(send) if self.rules.rate.recipients_per_token > 0 => {
                let state = self.session(session).expect("checked by the caller");
                let rate = self.users.get(state.user).rate(&self.rules.rate);
                let room = send.room.as_str();
                // Nobody gets what somebody sends who is not in the room, and an inbox has few sessions.
                let place = self.places.find(self.hash(room), room).filter(|place| state.entry_of(*place).is_some());
                rate.cost(place.and_then(|place| self.places.get(place)).map_or(0, |place| place.sessions))
            }
            _ => 1,
        }
    }

    /// What to do with a request that has not the tokens it costs; `None` when it has them, or needs none.
    fn out_of_tokens(&mut self, now: Now, session: SessionId, what: (&Request<'_>, u32), out: &mut Effects) -> Option<Flow> {
        let (request, cost) = what;
        if cost == 0 {
            return None;
        }
        let user = self.session(session).expect("checked by the caller").user;
        let user = self.users.get_mut(user);
        let rate = user.rate(&self.rules.rate);
        let at_ms = user.bucket.look(now.mono_ms(), cost, &rate).err()?;
        self.counts.rate_limited += 1;
        if self.rules.rate.mode == RateMode::Wait {
            return Some(Flow::Later { at_ms });
        }
        self.counts.refused += 1;
        let retry_after_ms = Some(at_ms - now.mono_ms());
        let message = "more requests than this user may make";
        let payload = self.encode(&Outgoing::Error { id: request.id(), reason: Reason::RateLimited, message, retry_after_ms });
        out.queue(session, payload);
        Some(Flow::Next)
    }

    fn take_tokens(&mut self, session: SessionId, cost: u32) {
        if let Some(user) = self.session(session).map(|state| state.user) {
            self.users.get_mut(user).bucket.take(cost);
        }
    }

    /// What a session is told in the place of messages that were dropped for it, the first of which stood behind `since`.
    pub fn gap(&mut self, room: &str, since: Position) -> Bytes {
        let since = self.wire(since);
        self.encode(&Outgoing::Gap { room, since })
    }

    /// An object that could not be decoded, from a session that is logged in.
    pub fn handle_bad_object(&mut self, now: Now, session: SessionId, refusal: &Refusal, out: &mut Effects) {
        let counts = matches!(refusal.reason, Reason::Malformed | Reason::BadField);
        let Some(state) = self.sessions.get_mut(session.slot).filter(|s| s.is(session)) else { return };
        if counts && state.misbehaved(now.mono_ms()) {
            out.push(Effect::Close { session, reason: Reason::ProtocolError, message: Some(refusal.message) });
            return;
        }
        self.refuse(session, refusal, out);
    }

    /// The client has closed its side of the stream.
    pub fn handle_end_of_stream(&mut self, session: SessionId, out: &mut Effects) {
        self.leave_soon(session, Leaving::EndOfStream, out);
    }

    /// The session goes as soon as everything it asked is answered; every answer has a deadline.
    fn leave_soon(&mut self, session: SessionId, leaving: Leaving, out: &mut Effects) {
        let Some(state) = self.session_mut(session) else { return };
        if state.leaving == Leaving::No {
            state.leaving = leaving;
        }
        self.leave_if_answered(session, out);
    }

    fn leave_if_answered(&mut self, session: SessionId, out: &mut Effects) {
        let Some(state) = self.session(session).filter(|state| state.unanswered == 0) else { return };
        match state.leaving {
            Leaving::No => {}
            Leaving::Bye => out.push(Effect::Close { session, reason: Reason::Bye, message: None }),
            Leaving::EndOfStream => out.push(Effect::HangUp { session }),
        }
    }

    /// A request of this shard's session, posted to a room's home.
    pub(super) fn ask(&mut self, session: SessionId, home: ShardId, request: Envelope, out: &mut Effects) {
        self.session_mut(session).expect("checked by the caller").unanswered += 1;
        self.post(home, request, out);
    }

    /// One of the session's requests is answered.
    pub(super) fn take_answer(&mut self, session: SessionId, answer: (Bytes, Worth), out: &mut Effects) {
        if session.slot == OUTSIDE {
            return out.push(Effect::Tell { ticket: session.generation, payload: answer.0 });
        }
        let Some(state) = self.session_mut(session) else {
            self.counts.stale += 1;
            return;
        };
        state.unanswered = state.unanswered.checked_sub(1).expect("every answer belongs to one request");
        let (payload, worth) = answer;
        out.push(Effect::Queue { session, payload, worth });
    }

    /// A request that could not be taken, or not for too long.
    pub fn handle_overload(&mut self, session: SessionId, refusal: &Refusal, out: &mut Effects) {
        if self.session(session).is_some() {
            self.refuse(session, refusal, out);
        }
    }

    /// An envelope of another shard, in the order of its queue.
    pub fn handle_envelope(&mut self, now: Now, from: ShardId, envelope: Envelope, out: &mut Effects) {
        if envelope.answers().is_some() {
            let peer = &mut self.peers[from.index()];
            peer.unanswered = peer.unanswered.checked_sub(1).expect("every answer belongs to one request");
        }
        self.dispatch(now, envelope, out);
        self.settle(now, out);
    }

    /// The outbox to `to` now holds this many envelopes.
    pub fn handle_outbox(&mut self, to: ShardId, queued: usize) {
        self.peers[to.index()].queued = u32::try_from(queued).unwrap_or(u32::MAX);
    }

    /// Deadlines of appends and deferred `send`s, another try for what waits, and what it is time to forget. Worth its while whenever the shard is awake.
    pub fn handle_tick(&mut self, now: Now, out: &mut Effects) {
        if !self.pending.is_empty() {
            self.expire_appends(now, out);
        }
        self.retry_deferred(now, out);
        self.expire_history(now);
        self.users.expire_debts(now.mono_ms());
        self.expire_absences(now, out);
        self.settle(now, out);
    }

    /// Something waits for a deadline or for room in a queue: wake for [`Shard::handle_tick`] soon. What is only to be forgotten wakes nobody.
    pub fn wants_tick(&self) -> bool {
        !self.pending.is_empty() || self.deferred > 0 || !self.absences.is_empty()
    }

    /// Requests wait for room in a queue: call [`Shard::handle_tick`] when an outbox has drained.
    pub fn wants_room(&self) -> bool {
        self.deferred > 0
    }

    fn expire_appends(&mut self, now: Now, out: &mut Effects) {
        let now_ms = now.mono_ms();
        for slot in 0..self.pending.slots() {
            let Some(key) = self.pending.key_at(slot) else { continue };
            let Some(pending) = self.pending.get_mut(key) else { continue };
            if now_ms < pending.deadline_ms {
                continue;
            }
            if pending.given_up {
                self.pending.remove(key);
                continue;
            }
            pending.given_up = true;
            pending.deadline_ms = now_ms + self.rules.log_ms * LOG_DEADLINES_MAX;
            let (origin, home) = (pending.origin, pending.home);
            self.counts.log_late += 1;
            self.refuse_origin(origin, Reason::LogUnavailable, "the log did not answer in time", out);
            self.append_settled(now, home, out);
        }
    }

    fn dispatch(&mut self, now: Now, envelope: Envelope, out: &mut Effects) {
        let answered = envelope.answers();
        self.dispatch_to_side(now, envelope, out);
        if let Some(session) = answered {
            self.leave_if_answered(session, out);
        }
    }

    fn dispatch_to_side(&mut self, now: Now, envelope: Envelope, out: &mut Effects) {
        match envelope {
            Envelope::Join { .. }
            | Envelope::Leave { .. }
            | Envelope::Gone { .. }
            | Envelope::Publish { .. }
            | Envelope::Page { .. }
            | Envelope::Who { .. } => self.handle_home_request(now, envelope, out),
            Envelope::More { session, payload } => self.more(session, payload, out),
            Envelope::Stall { parcel, reader, ms } => self.home_stall(now, parcel.room(), (reader, ms), out),
            Envelope::Joined { session, place, watch, sessions, payload } => {
                self.joined(Joined { session, place, watch, sessions, payload }, out);
            }
            Envelope::Left { session, place, payload } => self.left(session, place, payload, out),
            Envelope::Answer { session, payload } => self.take_answer(session, (payload, Worth::Kept), out),
            Envelope::Deliver { place, payload, except, previous, sessions, stamps } => {
                self.deliver(now, Delivery { place, payload, except, previous, sessions, stamps }, out);
            }
            Envelope::Inbox { user, payload, ephemeral, stamps } => {
                let worth = if ephemeral { Worth::Ephemeral } else { Worth::Kept };
                self.deliver_inbox(now, user, (payload, stamps, worth), out);
            }
            Envelope::Member { place, payload } => self.member_event(place, payload, out),
            Envelope::MemberOff { place, payload } => self.member_off(place, payload, out),
            Envelope::Hold { session } => self.if_living(session, Effect::Hold { session }, out),
            Envelope::Release { session } => self.if_living(session, Effect::Release { session }, out),
        }
    }

    /// Judges what this shard has posted to itself, until nothing is left.
    pub(super) fn settle(&mut self, now: Now, out: &mut Effects) {
        while let Some(envelope) = self.loopback.pop_front() {
            self.dispatch(now, envelope, out);
        }
    }

    fn if_living(&mut self, session: SessionId, effect: Effect, out: &mut Effects) {
        if self.session(session).is_some() {
            out.push(effect);
        } else {
            self.counts.stale += 1;
        }
    }

    /// Posts an envelope; requests to another shard are counted until their answer.
    pub(super) fn post(&mut self, to: ShardId, envelope: Envelope, out: &mut Effects) {
        if to == self.rules.shard {
            self.loopback.push_back(envelope);
            return;
        }
        let peer = &mut self.peers[to.index()];
        peer.queued += 1;
        peer.unanswered += u32::from(envelope.is_request());
        out.push(Effect::Post { to, envelope });
    }

    /// There is no room for one more request to `home`.
    pub(super) fn is_full(&self, home: ShardId) -> bool {
        home != self.rules.shard && self.peers[home.index()].unanswered >= self.rules.requests_per_peer_max
    }

    /// What the session's client reads as `session`; `None` when the rules do not know the session.
    pub fn public_id(&self, session: SessionId) -> Option<u64> {
        self.session(session).map(|state| state.public_id)
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id.slot).filter(|session| session.is(id))
    }

    pub(super) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(id.slot).filter(|session| session.is(id))
    }

    /// The hash of a room is its owner's if it is an inbox, so that a direct message takes one hop.
    pub(super) fn hash(&self, name: &str) -> u64 {
        self.names.hash(name)
    }

    pub(super) fn home(&self, hash: u64) -> ShardId {
        self.names.of_hash(hash)
    }

    /// A user's key, so that neither half can be made to collide.
    pub(super) fn key_hash(&self, user: &str, key: &str) -> KeyHash {
        KeyHash { user: self.names.hash_of(user), key: self.names.hash_of((user, key)) }
    }

    pub(super) fn origin(&self, session: SessionId, id: Option<RequestId>) -> Origin {
        Origin { from: SessionRef { shard: self.rules.shard, session }, id }
    }

    pub(super) fn wire(&self, position: Position) -> WirePosition {
        WirePosition { epoch: self.rules.epoch, position }
    }

    pub(super) fn parcel(&mut self, room: &str, user: &str, body: &str) -> Parcel {
        let len = room.len() + user.len() + body.len();
        let arena = &mut self.arena;
        make_room(arena, len);
        for text in [room, user, body] {
            arena.extend_from_slice(text.as_bytes());
        }
        Parcel::new(arena.split().freeze(), room, user)
    }

    pub(super) fn encode(&mut self, object: &Outgoing<'_>) -> Bytes {
        pack(&mut self.arena, object)
    }

    pub(super) fn refuse(&mut self, session: SessionId, refusal: &Refusal, out: &mut Effects) {
        self.counts.refused += 1;
        let Refusal { id, reason, message } = *refusal;
        let payload = self.encode(&Outgoing::Error { id, reason, message, retry_after_ms: None });
        out.queue(session, payload);
    }

    pub(super) fn refuse_origin(&mut self, origin: Origin, reason: Reason, message: &'static str, out: &mut Effects) {
        self.counts.refused += 1;
        let payload = self.encode(&Outgoing::Error { id: origin.id, reason, message, retry_after_ms: None });
        self.answer(origin, payload, out);
    }

    /// Sends an answer that changes nothing on the member side.
    pub(super) fn answer(&mut self, origin: Origin, payload: Bytes, out: &mut Effects) {
        self.post(origin.from.shard, Envelope::Answer { session: origin.from.session, payload }, out);
    }
}

/// Encodes one frame into its own piece of the arena.
pub(super) fn pack(arena: &mut BytesMut, object: &Outgoing<'_>) -> Bytes {
    if let Outgoing::Message { room, from, body, .. } = object {
        make_room(arena, encode::message_bytes_max(room, from, body));
    } else {
        make_room(arena, SMALL_OBJECT_BYTES);
    }
    encode::frame(object, arena);
    arena.split().freeze()
}

/// A large payload gets memory of its own, so that it keeps no small ones alive and none of them keeps it.
fn make_room(arena: &mut BytesMut, len: usize) {
    if arena.capacity() < len {
        *arena = BytesMut::with_capacity(len.max(ARENA_BYTES));
    }
}
