//! The member side: requests of this shard's sessions on their way to a room's home, and what comes back.

use bytes::Bytes;

use super::effect::{Class, Effect, Effects, Envelope, Page, PageRange, Replay, Since, Watch, Worth};
use super::rights::Right;
use super::room::{Member, Place};
use super::sample::{Stage, Stamps};
use super::session::Entry;
use super::shard::{Flow, Shard};
use crate::config::SlowReader;
use crate::ids::{Key, Now, Position, RequestId, SessionId, WirePosition};
use crate::limits::PAGE_MESSAGES_DEFAULT;
use crate::mutation::{Mutation, planted};
use crate::protocol::encode::Outgoing;
use crate::protocol::error::{Reason, Refusal};
use crate::protocol::message::{Join, Send};

/// A home's answer to a join.
pub(super) struct Joined {
    pub(super) session: SessionId,
    pub(super) place: Key,
    pub(super) watch: Watch,
    pub(super) sessions: u32,
    pub(super) payload: Bytes,
}

/// A message from a room's home, as [`super::effect::Envelope::Deliver`] says.
pub(super) struct Delivery {
    pub(super) place: Key,
    pub(super) payload: Bytes,
    pub(super) except: Option<SessionId>,
    pub(super) previous: Option<Position>,
    pub(super) sessions: u32,
    pub(super) stamps: Stamps,
}

impl Shard {
    pub(super) fn join(&mut self, session: SessionId, join: &Join<'_>, out: &mut Effects) -> Flow {
        let (id, room) = (join.id, join.room.as_str());
        if join.room.inbox_owner().is_some() {
            return self.refused(session, Refusal { id, reason: Reason::Forbidden, message: "inboxes are never joined" }, out);
        }
        let state = self.session(session).expect("checked by the caller");
        if !state.allows(room, Right::Join) {
            return self.refused(session, forbidden(id, "the token does not allow joining this room"), out);
        }
        if join.presence && !state.allows(room, Right::Presence) {
            return self.refused(session, forbidden(id, "the token does not allow presence in this room"), out);
        }
        let hash = self.hash(room);
        let home = self.home(hash);
        if self.is_full(home) {
            return Flow::Blocked(home);
        }
        let known = self.places.find(hash, room);
        let state = self.session(session).expect("checked by the caller");
        let (user, unanswered) = (state.user, state.unanswered);
        let entry = known.and_then(|place| state.entry_of(place));
        if entry.is_none() && state.rooms.len() >= self.rules.announced.rooms as usize {
            return self.refused(session, Refusal { id, reason: Reason::TooManyRooms, message: "leave a room first" }, out);
        }
        let replay = self.replay_of(join);
        if replay != Replay::Nothing && unanswered > 0 {
            // One replay at a time, so that a session's queue need not take several.
            return Flow::Blocked(home);
        }
        let Some(place) = known.or_else(|| self.new_place(room, hash)) else {
            return self.refused(session, Refusal { id, reason: Reason::Overloaded, message: "too many rooms on this server" }, out);
        };
        let index = entry.unwrap_or_else(|| self.new_entry(session, place));
        let entry = &mut self.session_mut(session).expect("checked by the caller").rooms[index];
        let again = entry.wanted;
        entry.wanted = true;
        entry.echo = join.echo;
        entry.unanswered += 1;
        self.places.get_mut(place).expect("found or made above").joins += 1;
        let parcel = self.parcel_of(room, user, "");
        let origin = self.origin(session, id);
        self.ask(session, home, Envelope::Join { parcel, origin, place, again, watch: join.presence, replay }, out);
        Flow::Next
    }

    pub(super) fn leave(&mut self, session: SessionId, id: Option<RequestId>, room: &str, out: &mut Effects) -> Flow {
        if room.starts_with('@') {
            return self.refused(session, Refusal { id, reason: Reason::Forbidden, message: "inboxes are never left" }, out);
        }
        let hash = self.hash(room);
        let home = self.home(hash);
        let known = self.places.find(hash, room);
        let state = self.session(session).expect("checked by the caller");
        let user = state.user;
        let Some((place, index)) = known.and_then(|place| Some((place, state.entry_of(place)?))) else {
            let payload = self.encode(&Outgoing::Left { id, room });
            out.queue(session, payload);
            return Flow::Next;
        };
        if self.is_full(home) {
            return Flow::Blocked(home);
        }
        let entry = &mut self.session_mut(session).expect("checked by the caller").rooms[index];
        let counted = entry.wanted;
        entry.wanted = false;
        entry.unanswered += 1;
        let parcel = self.parcel_of(room, user, "");
        let origin = self.origin(session, id);
        self.ask(session, home, Envelope::Leave { parcel, origin, place, counted }, out);
        Flow::Next
    }

    pub(super) fn send(&mut self, session: SessionId, send: &Send<'_>, out: &mut Effects) -> Flow {
        let room = send.room.as_str();
        let hash = self.hash(room);
        let home = self.home(hash);
        let state = self.session(session).expect("checked by the caller");
        let user = state.user;
        if !state.allows(room, Right::Send) {
            return self.refused(session, forbidden(send.id, "the token does not allow sending to this room"), out);
        }
        let mut echo = true;
        if send.room.inbox_owner().is_none() {
            let place = self.places.find(hash, room);
            let entry = place.and_then(|place| state.entry_of(place)).map(|index| state.rooms[index]);
            let Some(entry) = entry.filter(|entry| entry.wanted) else {
                return self.refused(session, Refusal { id: send.id, reason: Reason::NotJoined, message: "join the room first" }, out);
            };
            echo = entry.echo;
        }
        if self.refuse_sends {
            let refusal = Refusal { id: send.id, reason: Reason::Overloaded, message: "this server can't keep up" };
            return self.refused(session, refusal, out);
        }
        if self.is_full(home) {
            return Flow::Blocked(home);
        }
        let mut parcel = self.parcel_of(room, user, send.body);
        parcel.received = self.meter.send(self.now, room, parcel.user());
        let origin = self.origin(session, send.id);
        let key = send.key.as_deref().filter(|_| !send.ephemeral).map(|key| self.key_hash(parcel.user(), key));
        self.ask(session, home, Envelope::Publish { parcel, origin, ephemeral: send.ephemeral, echo, key }, out);
        Flow::Next
    }

    pub(super) fn history(&mut self, session: SessionId, id: Option<RequestId>, what: (&str, Page), out: &mut Effects) -> Flow {
        let (room, page) = what;
        if let Err(refusal) = self.may_read(session, id, room) {
            self.refuse(session, &refusal, out);
            return Flow::Next;
        }
        let home = self.home(self.hash(room));
        let state = self.session(session).expect("checked by the caller");
        if self.is_full(home) || state.unanswered > 0 {
            return Flow::Blocked(home);
        }
        let parcel = self.parcel_of(room, state.user, "");
        let origin = self.origin(session, id);
        self.ask(session, home, Envelope::Page { parcel, origin, page }, out);
        Flow::Next
    }

    pub(super) fn page_of(&self, before: Option<&str>, after: Option<&str>, limit: Option<u32>) -> Page {
        let limit = limit.unwrap_or(PAGE_MESSAGES_DEFAULT);
        let range = match (before.map(|text| self.position_of(text)), after.map(|text| self.position_of(text))) {
            (Some(Some(position)), _) => PageRange::Before(position),
            (Some(None), _) => PageRange::Nothing,
            (None, Some(Some(position))) => PageRange::After(position),
            // Everything that is retained is behind a position of an earlier life of the log.
            (None, Some(None)) => PageRange::After(Position::default()),
            (None, None) => PageRange::Newest,
        };
        Page { range, limit }
    }

    /// A position of this life of the log.
    pub(super) fn position_of(&self, text: &str) -> Option<Position> {
        WirePosition::parse(text).filter(|at| at.epoch == self.rules.epoch).map(|at| at.position)
    }

    fn replay_of(&self, join: &Join<'_>) -> Replay {
        match (join.since.as_deref(), join.history) {
            (None, None | Some(0)) => Replay::Nothing,
            (None, Some(newest)) => Replay::Newest(newest),
            (Some(since), newest) => Replay::Since(self.position_of(since).map_or(Since::Unknown, Since::At), newest),
        }
    }

    /// More of an answer: if the session has ended, nobody misses it.
    pub(super) fn more(&mut self, session: SessionId, payload: Bytes, out: &mut Effects) {
        if self.session(session).is_some() {
            out.queue(session, payload);
        }
    }

    pub(super) fn who(&mut self, session: SessionId, id: Option<RequestId>, room: &str, out: &mut Effects) -> Flow {
        // Who is in one's own inbox is no secret to keep from its owner.
        let inbox = room.starts_with('@');
        if !inbox && !self.session(session).expect("checked by the caller").allows(room, Right::Presence) {
            return self.refused(session, forbidden(id, "the token does not allow presence in this room"), out);
        }
        if let Err(refusal) = self.may_read(session, id, room) {
            self.refuse(session, &refusal, out);
            return Flow::Next;
        }
        let home = self.home(self.hash(room));
        if self.is_full(home) {
            return Flow::Blocked(home);
        }
        let user = self.session(session).expect("checked by the caller").user;
        let parcel = self.parcel_of(room, user, "");
        let origin = self.origin(session, id);
        self.ask(session, home, Envelope::Who { parcel, origin }, out);
        Flow::Next
    }

    /// A room is its members' to read, an inbox its owner's.
    fn may_read(&self, session: SessionId, id: Option<RequestId>, room: &str) -> Result<(), Refusal> {
        let state = self.session(session).expect("checked by the caller");
        if let Some(owner) = room.strip_prefix('@') {
            let owns = owner == self.users.name(state.user);
            return if owns { Ok(()) } else { Err(Refusal { id, reason: Reason::Forbidden, message: "another user's inbox" }) };
        }
        let place = self.places.find(self.hash(room), room);
        let entry = place.and_then(|place| state.entry_of(place)).map(|index| state.rooms[index]);
        match entry.filter(|entry| entry.wanted) {
            Some(_) => Ok(()),
            None => Err(Refusal { id, reason: Reason::NotJoined, message: "join the room first" }),
        }
    }

    pub(super) fn joined(&mut self, joined: Joined, out: &mut Effects) {
        let place = joined.place;
        let state = self.places.get_mut(place).expect("a place outlives the joins that name it");
        state.joins -= 1;
        state.sessions = joined.sessions;
        self.joined_session(joined, out);
        self.release_place(place);
    }

    fn joined_session(&mut self, joined: Joined, out: &mut Effects) {
        let Joined { session, place, watch, payload, .. } = joined;
        let Some(index) = self.answered_entry(session, place) else { return };
        if !self.session(session).expect("found above").rooms[index].is_member() {
            self.add_member(session, index);
        }
        self.set_watch(session, index, watch == Watch::Yes);
        let drops = self.places.get(place).is_some_and(|place| place.slow_reader == SlowReader::DropOldest);
        self.take_answer(session, (payload, if drops { Worth::Joined { place } } else { Worth::Kept }), out);
        if watch == Watch::TooLarge {
            let room = self.places.get(place).expect("an entry points to it").name.clone();
            let off = self.encode(&Outgoing::MemberOff { room: &room });
            out.queue(session, off);
        }
    }

    pub(super) fn left(&mut self, session: SessionId, place: Key, payload: Bytes, out: &mut Effects) {
        let Some(index) = self.answered_entry(session, place) else { return };
        let entry = self.session(session).expect("found above").rooms[index];
        if entry.is_member() {
            self.remove_member(session, index);
        }
        if entry.unanswered == 0 && !entry.wanted {
            self.remove_entry(session, index);
        }
        self.take_answer(session, (payload, Worth::Kept), out);
    }

    pub(super) fn deliver(&mut self, now: Now, delivery: Delivery, out: &mut Effects) {
        let Delivery { place, payload, except, previous, sessions, stamps } = delivery;
        let Some(state) = self.places.get_mut(place) else {
            self.counts.stale += 1;
            return;
        };
        state.sessions = sessions;
        let worth = match previous {
            None => Worth::Ephemeral,
            Some(previous) if state.slow_reader == SlowReader::DropOldest => Worth::Oldest { place, previous },
            Some(_) => Worth::Kept,
        };
        let start = out.targets.len();
        out.targets.extend(state.members.iter().map(|member| member.session).filter(|session| Some(*session) != except));
        if planted(Mutation::CutFanout) {
            let half = start + (out.targets.len() - start).div_ceil(2);
            out.targets.truncate(half);
        }
        let bulk = state.members.len() >= self.rules.bulk_room_members;
        let class = if bulk { Class::Bulk } else { Class::Interactive };
        self.fanout(now, (payload, stamps), (start, class, worth), out);
    }

    pub(super) fn deliver_inbox(&mut self, now: Now, user: Key, what: (Bytes, Stamps, Worth), out: &mut Effects) {
        let (payload, stamps, worth) = what;
        let start = out.targets.len();
        out.targets.extend(self.users.get(user).sessions.iter().copied());
        self.fanout(now, (payload, stamps), (start, Class::Interactive, worth), out);
    }

    /// To the targets from `start` on.
    fn fanout(&mut self, now: Now, what: (Bytes, Stamps), how: (usize, Class, Worth), out: &mut Effects) {
        let ((payload, mut stamps), (start, class, worth)) = (what, how);
        out.sample(Stage::ToQueue, stamps.latest, now);
        stamps.latest = stamps.latest.next(now);
        let targets = start..out.targets.len();
        self.counts.deliveries += targets.len() as u64;
        if !targets.is_empty() {
            out.push(Effect::Fanout { payload, targets, class, worth, stamps });
        }
    }

    pub(super) fn member_event(&mut self, place: Key, payload: Bytes, out: &mut Effects) {
        let Some(state) = self.places.get(place).filter(|state| state.watchers > 0) else { return };
        let start = out.targets.len();
        out.targets.extend(state.members.iter().filter(|member| member.watch).map(|member| member.session));
        let targets = start..out.targets.len();
        let stamps = Stamps::default();
        out.push(Effect::Fanout { payload, targets, class: Class::Interactive, worth: Worth::Kept, stamps });
    }

    pub(super) fn member_off(&mut self, place: Key, payload: Bytes, out: &mut Effects) {
        self.member_event(place, payload, out);
        if let Some(state) = self.places.get_mut(place) {
            state.watchers = 0;
            for member in &mut state.members {
                member.watch = false;
            }
        }
    }

    fn refused(&mut self, session: SessionId, refusal: Refusal, out: &mut Effects) -> Flow {
        self.refuse(session, &refusal, out);
        Flow::Next
    }

    pub(super) fn parcel_of(&mut self, room: &str, user: Key, body: &str) -> super::effect::Parcel {
        let name = crate::ids::UserName::parse(self.users.name(user)).expect("a user's name was checked at login");
        self.parcel(room, name.as_str(), body)
    }

    fn new_place(&mut self, room: &str, hash: u64) -> Option<Key> {
        if self.places.len() >= self.rules.places_max as usize {
            return None;
        }
        self.places
            .insert(Place {
                name: room.into(),
                hash,
                home: self.home(hash),
                members: Vec::new(),
                watchers: 0,
                entries: 0,
                joins: 0,
                sessions: 0,
                slow_reader: self.rules.slow_reader_of(room),
            })
            .ok()
    }

    fn new_entry(&mut self, session: SessionId, place: Key) -> usize {
        self.places.get_mut(place).expect("found or made by the caller").entries += 1;
        let rooms = &mut self.session_mut(session).expect("checked by the caller").rooms;
        rooms.push(Entry { place, member: Entry::NO_MEMBER, unanswered: 0, wanted: false, echo: true });
        rooms.len() - 1
    }

    /// Counts an answer off; `None` when the session has ended meanwhile.
    fn answered_entry(&mut self, session: SessionId, place: Key) -> Option<usize> {
        let Some(index) = self.session(session).and_then(|state| state.entry_of(place)) else {
            self.counts.stale += 1;
            return None;
        };
        let entry = &mut self.session_mut(session).expect("found above").rooms[index];
        entry.unanswered = entry.unanswered.checked_sub(1).expect("every answer belongs to one request");
        Some(index)
    }

    fn add_member(&mut self, session: SessionId, index: usize) {
        let place = self.session(session).expect("checked by the caller").rooms[index].place;
        let members = &mut self.places.get_mut(place).expect("an entry points to it").members;
        let entry = u16::try_from(index).expect("a session is in few rooms");
        members.push(Member { session, entry, watch: false });
        let member = u32::try_from(members.len() - 1).expect("fewer members than slots");
        self.session_mut(session).expect("checked by the caller").rooms[index].member = member;
    }

    /// O(1): the last member takes the free place, and its session is told.
    pub(super) fn remove_member(&mut self, session: SessionId, index: usize) {
        let entry = &mut self.session_mut(session).expect("checked by the caller").rooms[index];
        let (place, at) = (entry.place, entry.member as usize);
        entry.member = Entry::NO_MEMBER;
        let state = self.places.get_mut(place).expect("an entry points to it");
        let gone = state.members.swap_remove(at);
        assert_eq!(gone.session, session, "a session knows its place in the list");
        state.watchers -= u32::from(gone.watch);
        if let Some(moved) = state.members.get(at).copied() {
            let entry = &mut self.session_mut(moved.session).expect("a member is a living session").rooms[usize::from(moved.entry)];
            entry.member = u32::try_from(at).expect("fewer members than slots");
        }
        if state_is_sparse(self.places.get(place)) {
            let members = &mut self.places.get_mut(place).expect("an entry points to it").members;
            members.shrink_to(members.len() * 2);
        }
    }

    /// Takes an entry, member of nothing any longer, out of the session's list; the place goes with its last entry.
    pub(super) fn remove_entry(&mut self, session: SessionId, index: usize) {
        let state = self.session_mut(session).expect("checked by the caller");
        let entry = state.rooms.swap_remove(index);
        let moved = state.rooms.get(index).copied();
        if let Some(moved) = moved.filter(Entry::is_member) {
            let members = &mut self.places.get_mut(moved.place).expect("an entry points to it").members;
            members[moved.member as usize].entry = u16::try_from(index).expect("a session is in few rooms");
        }
        let place = self.places.get_mut(entry.place).expect("an entry points to it");
        place.entries -= 1;
        self.release_place(entry.place);
    }

    fn release_place(&mut self, place: Key) {
        let state = self.places.get(place).expect("held by the caller");
        if state.entries == 0 && state.joins == 0 {
            assert!(state.members.is_empty(), "a member has an entry");
            self.places.remove(place);
        }
    }

    pub(super) fn set_watch(&mut self, session: SessionId, index: usize, watch: bool) {
        let entry = self.session(session).expect("checked by the caller").rooms[index];
        let place = self.places.get_mut(entry.place).expect("an entry points to it");
        let member = &mut place.members[entry.member as usize];
        place.watchers = place.watchers - u32::from(member.watch) + u32::from(watch);
        member.watch = watch;
    }
}

fn forbidden(id: Option<RequestId>, message: &'static str) -> Refusal {
    Refusal { id, reason: Reason::Forbidden, message }
}

fn state_is_sparse(place: Option<&Place>) -> bool {
    place.is_some_and(|p| p.members.capacity() > 64 && p.members.len() < p.members.capacity() / 4)
}

impl Effects {
    /// Whether any effect closes the session.
    pub fn closes(&self, session: SessionId) -> bool {
        self.list.iter().any(|effect| matches!(effect, Effect::Close { session: closed, .. } if *closed == session))
    }
}
