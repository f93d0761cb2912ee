//! The home side: who is a member, which message comes when. It alone gives positions.
//!
//! A publish has two steps: the home asks the log for a position, and only the log's answer makes the message exist: `sent` to the sender's shard,
//! behind it on the same queue the message to every shard with members.

use bytes::Bytes;

use super::dedup::KeyHash;
use super::effect::{Appended, Effect, Effects, Entry, Envelope, Origin, Page, Parcel, Replay, Token, Watch};
use super::outside::{OUTSIDE, is_outside};
use super::presence::Parting;
use super::room::{Deferred, Home};
use super::sample::{Stage, Stamp, Stamps};
use super::shard::{Pending, Shard, pack};
use crate::ids::{Key, Now, Position, SessionRef, ShardId, WirePosition};
use crate::limits::PRESENCE_ROOM_MAX;
use crate::mutation::{Mutation, planted};
use crate::protocol::encode::Outgoing;
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
        let full = publishes && (self.is_congested(Some(home), from.shard) || self.is_stalled(home, now));
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
            | Envelope::Page { parcel, origin, .. }
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
            Envelope::Join { parcel, origin, place, again, watch, replay } => {
                let home = self.home_join(&parcel, origin.from.shard, place, again, out);
                self.forget_aged(now, Some(home));
                self.answer_join(home, origin, place, watch, replay, out);
            }
            Envelope::Leave { parcel, origin, place, counted } => self.home_leave(now, (&parcel, origin), (place, counted), out),
            // A session ended without a word.
            Envelope::Gone { parcel, from } => self.session_went(now, &parcel, (from.shard, Parting::Silent), out),
            Envelope::Publish { parcel, origin, ephemeral: true, echo, .. } => {
                self.publish_ephemeral(now, &Message::of(parcel, origin, echo), out);
            }
            Envelope::Publish { parcel, origin, ephemeral: false, echo, key } => {
                self.publish(now, Message { key, ..Message::of(parcel, origin, echo) }, out);
            }
            Envelope::Page { parcel, origin, page } => self.home_page(now, (&parcel, origin), page, out),
            Envelope::Who { parcel, origin } => self.home_who(&parcel, origin, out),
            _ => unreachable!("only requests are judged"),
        }
    }

    fn home_join(&mut self, parcel: &Parcel, shard: ShardId, place: Key, again: bool, out: &mut Effects) -> Key {
        let home = self.find_or_make_home(parcel.room());
        if !again {
            self.counts.joins += 1;
            self.user_came(home, parcel.user(), out);
            self.homes.get_mut(home).expect("found above").add_session(shard, place);
        }
        home
    }

    /// The room's home, made when it is new.
    fn find_or_make_home(&mut self, room: &str) -> Key {
        let hash = self.hash(room);
        if let Some(home) = self.homes.find(hash, room) {
            return home;
        }
        self.make_room_for_a_home();
        let made = self.homes.insert(Home::new(room, hash, self.retention.through));
        made.expect("places, appends and what is deferred are limited so that their homes fit")
    }

    fn answer_join(&mut self, home: Key, origin: Origin, place: Key, watch: bool, replay: Replay, out: &mut Effects) {
        let state = self.homes.get_mut(home).expect("made by the caller");
        state.watched |= watch;
        let watch = match watch {
            false => Watch::No,
            true if state.users.len() > PRESENCE_ROOM_MAX => Watch::TooLarge,
            true => Watch::Yes,
        };
        let replayed = self.replay(Some(home), replay);
        let state = self.homes.get(home).expect("made by the caller");
        let object = Outgoing::Joined {
            id: origin.id,
            room: &state.name,
            at: WirePosition { epoch: self.rules.epoch, position: state.at },
            members: state.members(),
            replay: replayed.count,
            recovered: replayed.recovered,
        };
        let payload = pack(&mut self.arena, &object);
        let SessionRef { shard, session } = origin.from;
        let sessions = state.sessions();
        self.post(shard, Envelope::Joined { session, place, watch, sessions, payload }, out);
        for payload in replayed.pieces {
            if planted(Mutation::ReplayTwice) {
                self.post(shard, Envelope::More { session, payload: payload.clone() }, out);
            }
            self.post(shard, Envelope::More { session, payload }, out);
        }
    }

    fn home_leave(&mut self, now: Now, asked: (&Parcel, Origin), what: (Key, bool), out: &mut Effects) {
        let ((parcel, origin), (place, counted)) = (asked, what);
        let room = parcel.room();
        let payload = self.encode(&Outgoing::Left { id: origin.id, room });
        let session = origin.from.session;
        self.post(origin.from.shard, Envelope::Left { session, place, payload }, out);
        if counted {
            self.session_went(now, parcel, (origin.from.shard, Parting::Said), out);
        }
    }

    fn session_went(&mut self, now: Now, parcel: &Parcel, how: (ShardId, Parting), out: &mut Effects) {
        let (shard, parting) = how;
        let found = self.homes.find(self.hash(parcel.room()), parcel.room());
        let home = found.expect("a room lives while it has a session");
        self.homes.get_mut(home).expect("found above").remove_session(shard);
        self.user_went(now, home, (parcel.user(), parting), out);
        self.release_home(home);
    }

    fn release_home(&mut self, home: Key) {
        if self.homes.get(home).is_some_and(Home::is_idle) {
            self.homes.remove(home);
        }
    }

    fn home_page(&mut self, now: Now, asked: (&Parcel, Origin), page: Page, out: &mut Effects) {
        let (parcel, origin) = asked;
        let room = parcel.room();
        let home = self.homes.find(self.hash(room), room);
        self.forget_aged(now, home);
        let (messages, more) = self.page(home, page);
        let payload = self.encode(&Outgoing::History { id: origin.id, room, messages: &messages, more });
        self.answer(origin, payload, out);
    }

    fn publish(&mut self, now: Now, message: Message, out: &mut Effects) {
        let Message { parcel, origin, echo, key, .. } = message;
        let room = parcel.room();
        let is_inbox = room.starts_with('@');
        let known = self.homes.find(self.hash(room), room);
        if known.is_none() && !is_inbox && !is_outside(origin) {
            return self.refuse_origin(origin, Reason::NotJoined, "join the room first", out);
        }
        if let Some(first) = known.zip(key).and_then(|(home, key)| self.used_before(home, key, now.unix_ms)) {
            return self.answer_duplicate(origin, room, first, out);
        }
        if key.is_some() && self.is_full_of_keys(now.unix_ms) {
            return self.refuse_origin(origin, Reason::Overloaded, "too many keys are remembered", out);
        }
        if self.pending.len() >= self.rules.appends_max as usize {
            return self.refuse_origin(origin, Reason::Overloaded, "too many messages wait for the log", out);
        }
        let home = self.find_or_make_home(room);
        let deadline_ms = now.mono_ms() + self.rules.log_ms;
        out.sample(Stage::ToHome, parcel.received, now);
        let judged = parcel.received.next(now);
        let pending = Pending { parcel: parcel.clone(), origin, echo, key, home, deadline_ms, given_up: false, judged };
        let key = self.pending.insert(pending).expect("counted above");
        self.homes.get_mut(home).expect("found above").appends += 1;
        out.push(Effect::Append { token: Token(key), entry: Entry { parcel } });
    }

    fn used_before(&self, home: Key, key: KeyHash, now_ms: u64) -> Option<Position> {
        self.homes.get(home)?.dedup.as_ref()?.find(key, now_ms).filter(|_| !planted(Mutation::ForgetKey))
    }

    fn answer_duplicate(&mut self, origin: Origin, room: &str, first: Position, out: &mut Effects) {
        self.counts.duplicates += 1;
        let at = Some(self.wire(first));
        let sent = self.encode(&Outgoing::Sent { id: origin.id, room, at, duplicate: true });
        self.answer(origin, sent, out);
    }

    /// Ephemeral messages have no position, are not in the log, and are the first to go when a queue is full.
    fn publish_ephemeral(&mut self, now: Now, message: &Message, out: &mut Effects) {
        let room = message.parcel.room();
        let home = self.homes.find(self.hash(room), room);
        if home.is_none() && !room.starts_with('@') && !is_outside(message.origin) {
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
        self.spread(home, message, (payload, None), out);
    }

    /// The log's answer: the message exists, unless its key was used before it in the log's order.
    pub fn handle_appended(&mut self, now: Now, appended: Appended, out: &mut Effects) {
        let Token(key) = appended.token;
        let stale = planted(Mutation::TakeStaleToken);
        let key = self.pending.key_at(key.slot).filter(|_| stale).unwrap_or(key);
        let Some(pending) = self.pending.remove(key) else {
            self.counts.log_repeated += 1;
            return;
        };
        let (position, room) = (appended.position, pending.parcel.room());
        // A home that went meanwhile had given up on this message and was idle: it comes back with what it has to remember.
        let home = if self.homes.get(pending.home).is_some() { pending.home } else { self.find_or_make_home(room) };
        let first = pending.key.and_then(|key| self.used_before(home, key, position.ms));
        match first {
            // Nobody waits for the answer any longer.
            Some(_) if pending.given_up => {}
            Some(first) => self.answer_duplicate(pending.origin, room, first, out),
            None => self.message_exists(home, &pending, position, out),
        }
        if !pending.given_up {
            self.append_settled(now, home, out);
        }
        self.settle(now, out);
    }

    fn message_exists(&mut self, home: Key, pending: &Pending, position: Position, out: &mut Effects) {
        self.counts.messages += 1;
        let (room, from, body) = (pending.parcel.room(), pending.parcel.user(), pending.parcel.body());
        let at = Some(self.wire(position));
        if !pending.given_up {
            let sent = self.encode(&Outgoing::Sent { id: pending.origin.id, room, at, duplicate: false });
            self.answer(pending.origin, sent, out);
        }
        let payload = self.encode(&Outgoing::Message { room, at, from, ts: position.ms, body });
        let state = self.homes.get_mut(home).expect("found by the caller");
        assert!(position > state.at, "the log's order of a room never goes back");
        // A room that was forgotten may have had messages up to there.
        let previous = if state.complete_after < position { state.at.max(state.complete_after) } else { state.at };
        state.at = position;
        self.inbox_rises(room, position);
        self.retain(home, position, &payload);
        if let Some(key) = pending.key {
            self.remember_key(home, key, position);
        }
        let message = Message { judged: pending.judged, ..Message::of(pending.parcel.clone(), pending.origin, pending.echo) };
        self.spread(Some(home), &message, (payload, Some(previous)), out);
    }

    fn inbox_rises(&mut self, room: &str, position: Position) {
        let Some(owner) = room.strip_prefix('@') else { return };
        if let Some(user) = self.users.find(self.hash(owner), owner) {
            self.users.get_mut(user).inbox_at = position;
        }
    }

    /// To every shard with members of the room, or to the inbox's owner. Without a position before it a message is ephemeral.
    fn spread(&mut self, home: Option<Key>, message: &Message, what: (Bytes, Option<Position>), out: &mut Effects) {
        let (payload, previous) = what;
        let stamps = Stamps { received: message.parcel.received, latest: message.judged };
        if let Some(owner) = message.parcel.room().strip_prefix('@') {
            if let Some(user) = self.users.find(self.hash(owner), owner) {
                self.post(self.rules.shard, Envelope::Inbox { user, payload, ephemeral: previous.is_none(), stamps }, out);
            }
            return;
        }
        let Some(home) = home else { return };
        let state = self.homes.get(home).expect("found above");
        let (shards, sessions) = (state.shards.len(), state.sessions());
        for index in 0..shards {
            let to = self.homes.get(home).expect("found above").shards[index];
            let from = message.origin.from;
            let except = (!message.echo && to.shard == from.shard).then_some(from.session);
            let deliver = Envelope::Deliver { place: to.place, payload: payload.clone(), except, previous, sessions, stamps };
            self.post(to.shard, deliver, out);
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
            if !is_outside(origin) {
                self.post(origin.from.shard, Envelope::Hold { session: origin.from.session }, out);
            }
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
            let full = publishes && (self.is_congested(Some(home), first.from.shard) || self.is_stalled(home, now));
            if first.settled > state.settled || (full && !late) {
                return;
            }
            let state = self.homes.get_mut(home).expect("found above");
            let first = state.deferred.pop_front().expect("looked at above");
            self.deferred -= 1;
            if first.held && first.from.session.slot != OUTSIDE && !planted(Mutation::LoseRelease) {
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
    key: Option<KeyHash>,
    /// When a sampled one was judged.
    judged: Stamp,
}

impl Message {
    fn of(parcel: Parcel, origin: Origin, echo: bool) -> Self {
        Self { parcel, origin, echo, key: None, judged: Stamp::default() }
    }
}
