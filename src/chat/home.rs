//! The home side: who is a member, which message comes when. It alone gives positions.
//!
//! A publish has two steps: the home asks the log for a position, and only the log's answer makes the message exist: `sent` to the sender's shard,
//! behind it on the same queue the message to every shard with members.

use super::effect::{Appended, Effect, Effects, Entry, Envelope, Origin, Parcel, Since, Token, Watch};
use super::room::{Deferred, Home};
use super::shard::{Pending, Shard, pack};
use crate::ids::{Key, Now, SessionRef, ShardId};
use crate::limits::PRESENCE_ROOM_MAX;
use crate::protocol::encode::{MemberEvent, Outgoing};
use crate::protocol::error::Reason;

impl Shard {
    /// A request of some shard's member side: judged now, or deferred behind what it must not overtake.
    pub(super) fn handle_home_request(&mut self, now: Now, envelope: Envelope, out: &mut Effects) {
        let Some((home, from)) = self.home_and_sender(&envelope) else {
            return self.judge(now, envelope, out);
        };
        let state = self.homes.get(home).expect("just found");
        let behind = state.deferred.iter().any(|d| d.from == from);
        let settled = if matches!(envelope, Envelope::Leave { .. }) { state.appends } else { 0 };
        let publishes = matches!(envelope, Envelope::Publish { ephemeral: false, .. });
        let queued = publishes && state.deferred.iter().any(|d| matches!(d.envelope, Envelope::Publish { .. }));
        let full = publishes && self.is_congested(Some(home), from.shard);
        if behind || queued || full || settled > state.settled {
            self.defer(now, home, Deferred { envelope, from, settled, deadline_ms: 0, held: false }, out);
        } else {
            self.judge(now, envelope, out);
        }
    }

    fn home_and_sender(&self, envelope: &Envelope) -> Option<(Key, SessionRef)> {
        let (parcel, from) = match envelope {
            Envelope::Join { parcel, origin, .. }
            | Envelope::Leave { parcel, origin, .. }
            | Envelope::Publish { parcel, origin, .. }
            | Envelope::Who { parcel, origin } => (parcel, origin.from),
            Envelope::Gone { parcel, from } => (parcel, *from),
            _ => return None,
        };
        let home = self.homes.find(self.hash(parcel.room()), parcel.room())?;
        Some((home, from))
    }

    /// Carries a request out.
    fn judge(&mut self, now: Now, envelope: Envelope, out: &mut Effects) {
        match envelope {
            Envelope::Join { parcel, origin, place, again, watch, since } => {
                let home = self.home_join(&parcel, origin.from.shard, place, again, out);
                self.answer_join(home, origin, place, watch, since, out);
            }
            Envelope::Leave { parcel, origin, place, counted } => self.home_leave(&parcel, origin, place, counted, out),
            // A session ended without a word.
            Envelope::Gone { parcel, from } => self.session_went(&parcel, from.shard, out),
            Envelope::Publish { parcel, origin, ephemeral: true, echo } => {
                self.publish_ephemeral(now, &Message { parcel, origin, echo }, out);
            }
            Envelope::Publish { parcel, origin, ephemeral: false, echo } => {
                self.publish(now, Message { parcel, origin, echo }, out);
            }
            Envelope::Who { parcel, origin } => self.home_who(&parcel, origin, out),
            _ => unreachable!("only requests are judged"),
        }
    }

    fn home_join(&mut self, parcel: &Parcel, shard: ShardId, place: Key, again: bool, out: &mut Effects) -> Key {
        let room = parcel.room();
        let hash = self.hash(room);
        let home = self.homes.find(hash, room).unwrap_or_else(|| {
            let made = self.homes.insert(Home::new(room, hash));
            made.expect("places are limited so that their homes fit")
        });
        if !again {
            self.counts.joins += 1;
            self.user_came(home, parcel.user(), out);
            self.homes.get_mut(home).expect("found above").add_session(shard, place);
        }
        home
    }

    fn answer_join(&mut self, home: Key, origin: Origin, place: Key, watch: bool, since: Since, out: &mut Effects) {
        let state = self.homes.get_mut(home).expect("made by the caller");
        state.watched |= watch;
        let watch = match watch {
            false => Watch::No,
            true if state.users.len() > PRESENCE_ROOM_MAX => Watch::TooLarge,
            true => Watch::Yes,
        };
        let recovered = match since {
            Since::NotSaid => None,
            Since::Unknown => Some(false),
            // Nothing is retained, so only the newest position has nothing missing behind it; an empty room may have lost its past.
            Since::At(position) => Some(position == state.at && position.ms > 0),
        };
        let members = state.members();
        let at = crate::ids::WirePosition { epoch: self.rules.epoch, position: state.at };
        let object = Outgoing::Joined { id: origin.id, room: &state.name, at, members, replay: 0, recovered };
        let payload = pack(&mut self.arena, &object);
        let session = origin.from.session;
        self.post(origin.from.shard, Envelope::Joined { session, place, watch, payload }, out);
    }

    fn home_leave(&mut self, parcel: &Parcel, origin: Origin, place: Key, counted: bool, out: &mut Effects) {
        let room = parcel.room();
        let payload = self.encode(&Outgoing::Left { id: origin.id, room });
        let session = origin.from.session;
        self.post(origin.from.shard, Envelope::Left { session, place, payload }, out);
        if counted {
            self.session_went(parcel, origin.from.shard, out);
        }
    }

    fn session_went(&mut self, parcel: &Parcel, shard: ShardId, out: &mut Effects) {
        let found = self.homes.find(self.hash(parcel.room()), parcel.room());
        let home = found.expect("a room lives while it has a session");
        self.homes.get_mut(home).expect("found above").remove_session(shard);
        if self.user_went(home, parcel.user()) {
            self.tell(home, parcel.user(), MemberEvent::Leave, out);
        }
        self.release_home(home);
    }

    fn release_home(&mut self, home: Key) {
        if self.homes.get(home).is_some_and(Home::is_idle) {
            self.homes.remove(home);
        }
    }

    fn publish(&mut self, now: Now, message: Message, out: &mut Effects) {
        let Message { parcel, origin, echo } = message;
        let room = parcel.room();
        let home = self.homes.find(self.hash(room), room);
        if home.is_none() && !room.starts_with('@') {
            return self.refuse_origin(origin, Reason::NotJoined, "join the room first", out);
        }
        let deadline_ms = now.mono_ms() + self.rules.log_ms;
        let pending = Pending { parcel: parcel.clone(), origin, echo, home, deadline_ms, given_up: false };
        let Ok(key) = self.pending.insert(pending) else {
            return self.refuse_origin(origin, Reason::Overloaded, "too many messages wait for the log", out);
        };
        if let Some(home) = home {
            self.homes.get_mut(home).expect("found above").appends += 1;
        }
        out.push(Effect::Append { token: Token(key), entry: Entry { parcel } });
    }

    /// Ephemeral messages have no position, are not in the log, and are the first to go when a queue is full.
    fn publish_ephemeral(&mut self, now: Now, message: &Message, out: &mut Effects) {
        let room = message.parcel.room();
        let home = self.homes.find(self.hash(room), room);
        if home.is_none() && !room.starts_with('@') {
            return self.refuse_origin(message.origin, Reason::NotJoined, "join the room first", out);
        }
        let sent = self.encode(&Outgoing::Sent { id: message.origin.id, room, at: None, duplicate: false });
        let dropped = self.is_congested(home, message.origin.from.shard);
        self.counts.ephemeral += 1;
        self.answer(message.origin, sent, out);
        if dropped {
            self.counts.ephemeral_dropped += 1;
            return;
        }
        let (from, body) = (message.parcel.user(), message.parcel.body());
        let payload = self.encode(&Outgoing::Message { room, at: None, from, ts: now.unix_ms, body });
        self.spread(home, message, payload, out);
    }

    /// The log's answer: the message exists.
    pub fn handle_appended(&mut self, now: Now, appended: Appended, out: &mut Effects) {
        let Some(pending) = self.pending.remove(appended.token.0) else {
            self.counts.log_repeated += 1;
            return;
        };
        self.counts.messages += 1;
        let position = appended.position;
        let (room, from, body) = (pending.parcel.room(), pending.parcel.user(), pending.parcel.body());
        let at = Some(self.wire(position));
        if !pending.given_up {
            let sent = self.encode(&Outgoing::Sent { id: pending.origin.id, room, at, duplicate: false });
            self.answer(pending.origin, sent, out);
        }
        let payload = self.encode(&Outgoing::Message { room, at, from, ts: position.ms, body });
        match pending.home.and_then(|home| self.homes.get_mut(home)) {
            Some(state) => {
                assert!(position > state.at, "the log's order of a room never goes back");
                state.at = position;
            }
            None => self.inbox_rises(room, position),
        }
        let message = Message { parcel: pending.parcel, origin: pending.origin, echo: pending.echo };
        self.spread(pending.home, &message, payload, out);
        if let Some(home) = pending.home.filter(|_| !pending.given_up) {
            self.append_settled(now, home, out);
        }
        self.settle(now, out);
    }

    fn inbox_rises(&mut self, room: &str, position: crate::ids::Position) {
        let Some(owner) = room.strip_prefix('@') else { return };
        if let Some(user) = self.users.find(self.hash(owner), owner) {
            self.users.get_mut(user).inbox_at = position;
        }
    }

    /// To every shard with members of the room, or to the inbox's owner.
    fn spread(&mut self, home: Option<Key>, message: &Message, payload: bytes::Bytes, out: &mut Effects) {
        let Some(home) = home.filter(|home| self.homes.get(*home).is_some()) else {
            let Some(owner) = message.parcel.room().strip_prefix('@') else { return };
            if let Some(user) = self.users.find(self.hash(owner), owner) {
                self.post(self.rules.shard, Envelope::Inbox { user, payload }, out);
            }
            return;
        };
        let shards = self.homes.get(home).expect("found above").shards.len();
        for index in 0..shards {
            let to = self.homes.get(home).expect("found above").shards[index];
            let from = message.origin.from;
            let except = (!message.echo && to.shard == from.shard).then_some(from.session);
            self.post(to.shard, Envelope::Deliver { place: to.place, payload: payload.clone(), except }, out);
        }
    }

    /// An append was answered or given up: what waited behind it may go on.
    pub(super) fn append_settled(&mut self, now: Now, home: Key, out: &mut Effects) {
        let Some(state) = self.homes.get_mut(home) else { return };
        state.settled += 1;
        if state.deferred.is_empty() {
            self.release_home(home);
        } else {
            self.retry_home(now, home, out);
        }
    }

    fn defer(&mut self, now: Now, home: Key, mut deferred: Deferred, out: &mut Effects) {
        if let Envelope::Publish { origin, .. } = &deferred.envelope {
            let origin = *origin;
            if self.deferred >= self.rules.deferred_max {
                return self.refuse_origin(origin, Reason::Overloaded, "too many messages wait", out);
            }
            deferred.deadline_ms = now.mono_ms() + self.rules.hold_ms;
            deferred.held = true;
            self.post(origin.from.shard, Envelope::Hold { session: origin.from.session }, out);
        }
        self.deferred += 1;
        self.counts.deferred += 1;
        let state = self.homes.get_mut(home).expect("found by the caller");
        state.deferred.push_back(deferred);
        if state.deferred.len() == 1 {
            self.waiting.push(home);
        }
    }

    pub(super) fn retry_deferred(&mut self, now: Now, out: &mut Effects) {
        for index in (0..self.waiting.len()).rev() {
            let home = self.waiting[index];
            self.retry_home(now, home, out);
        }
        let homes = &self.homes;
        self.waiting.retain(|home| homes.get(*home).is_some_and(|state| !state.deferred.is_empty()));
    }

    /// Judges what is deferred from the front, as far as it may.
    fn retry_home(&mut self, now: Now, home: Key, out: &mut Effects) {
        while let Some(first) = self.homes.get(home).and_then(|state| state.deferred.front()) {
            let state = self.homes.get(home).expect("found above");
            let publishes = matches!(first.envelope, Envelope::Publish { ephemeral: false, .. });
            let late = first.held && now.mono_ms() >= first.deadline_ms;
            let full = publishes && self.is_congested(Some(home), first.from.shard);
            if first.settled > state.settled || (full && !late) {
                return;
            }
            let state = self.homes.get_mut(home).expect("found above");
            let first = state.deferred.pop_front().expect("looked at above");
            self.deferred -= 1;
            if first.held {
                self.post(first.from.shard, Envelope::Release { session: first.from.session }, out);
            }
            match first.envelope {
                Envelope::Publish { origin, .. } if full => {
                    self.refuse_origin(origin, Reason::Overloaded, "no room in a queue for too long", out);
                }
                envelope => self.judge(now, envelope, out),
            }
        }
        self.release_home(home);
    }
}

/// A message on its way out.
struct Message {
    parcel: Parcel,
    origin: Origin,
    echo: bool,
}
