//! Who is in a room: the home's list of users, what its members hear of it.
//!
//! A user whose last session ends without `leave` is counted for a moment longer, so that a connection that breaks and comes back is no news to anybody.

use std::collections::BTreeMap;

use super::effect::{Effects, Envelope, Origin, Parcel};
use super::room::Presence;
use super::shard::{Shard, pack};
use super::stall::low;
use crate::ids::{Key, Now, ShardId, UserName};
use crate::limits::{PRESENCE_NAMES_MAX, PRESENCE_ROOM_MAX};
use crate::mutation::{Mutation, planted};
use crate::protocol::encode::{MemberEvent, Outgoing};
use crate::protocol::error::Reason;

/// Who is in a room, as one shard knows it: for checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// Users and how many sessions of each, where the shard is the room's home.
    pub users: BTreeMap<String, u32>,
    /// Sessions by shard, as the home counts them.
    pub sessions: u32,
    /// Members on this shard.
    pub members: usize,
}

/// How a session has left a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// With `leave`.
    Said,
    /// It has ended: who comes back in time was never away.
    Silent,
}

/// A user whose last session in a room has ended, and of whom nobody was told yet. It stands for nothing when the room's list has another word on the user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    home: Key,
    /// Slot of the user.
    user: u32,
    /// When it went, in the room's list too: who goes again meanwhile has a newer one.
    stamp: u32,
    /// When it went, milliseconds of the monotonic clock; how long that may last is asked when the time has come.
    went_ms: u64,
}

impl Shard {
    /// Walks the room's lists: for checks only.
    pub fn roll(&self, room: &str) -> Roll {
        let hash = self.hash(room);
        let place = self.places.find(hash, room).and_then(|place| self.places.get(place));
        let members = place.map_or(0, |place| place.members.len());
        let Some(home) = self.homes.find(hash, room).and_then(|home| self.homes.get(home)) else {
            return Roll { members, ..Roll::default() };
        };
        let users = home.users.iter().map(|(slot, user)| (self.users.name_at(*slot).to_owned(), user.sessions())).collect();
        Roll { users, sessions: home.shards.iter().map(|shard| shard.sessions).sum(), members }
    }

    /// Answers a `presence` request of a member.
    pub(super) fn home_who(&mut self, parcel: &Parcel, origin: Origin, out: &mut Effects) {
        let room = parcel.room();
        let hash = self.hash(room);
        let (members, users, truncated) = if room.starts_with('@') {
            (1, format!("\"{}\"", parcel.user()), false)
        } else {
            let Some(home) = self.homes.find(hash, room) else {
                return self.refuse_origin(origin, Reason::NotJoined, "join the room first", out);
            };
            let state = self.homes.get(home).expect("found above");
            let mut users = String::new();
            for slot in state.users.keys().take(PRESENCE_NAMES_MAX) {
                if !users.is_empty() {
                    users.push(',');
                }
                users.push('"');
                users.push_str(self.users.name_at(*slot));
                users.push('"');
            }
            (state.members(), users, state.users.len() > PRESENCE_NAMES_MAX)
        };
        let payload = self.encode(&Outgoing::Presence { id: origin.id, room, members, users: &users, truncated });
        self.answer(origin, payload, out);
    }

    /// Adds a session of the user to the room's list; tells the others when it is the user's first, and nobody who has just gone and come back.
    pub(super) fn user_came(&mut self, home: Key, user: &str, out: &mut Effects) {
        let hash = self.hash(user);
        let key = self.users.find_or_add(hash, user).expect("as many users as slots: sessions end before that");
        let state = self.homes.get_mut(home).expect("found by the caller");
        if let Some(presence) = state.users.get_mut(&key.slot) {
            self.counts.returns += u64::from(presence.is_absent());
            *presence = presence.with_one_more();
            return;
        }
        state.users.insert(key.slot, Presence::ONE);
        let over = state.users.len() == PRESENCE_ROOM_MAX + 1;
        self.users.get_mut(key).rooms += 1;
        if over {
            self.tell_off(home, out);
        } else {
            self.tell(home, user, MemberEvent::Join, out);
        }
    }

    /// Takes a session of the user off the room's list, which no longer holds the session's place. When it was the user's last, the others are told: at
    /// once, or, after an end without a word, when the user has not come back in time.
    pub(super) fn user_went(&mut self, now: Now, home: Key, gone: (&str, Parting), out: &mut Effects) {
        let (user, parting) = gone;
        let key = self.users.find(self.hash(user), user).expect("a room's member is a known user");
        let state = self.homes.get_mut(home).expect("found by the caller");
        let presence = state.users.get_mut(&key.slot).expect("a session leaves a room that its user is in");
        if let Some(fewer) = presence.with_one_less() {
            *presence = fewer;
            return;
        }
        if state.shards.is_empty() {
            return self.forget_users(now, home);
        }
        let waits = parting == Parting::Silent && self.rules.absence_ms > 0 && self.absences.len() < self.rules.absences_max;
        if waits && self.tells(home) {
            let stamp = low(now.mono_ms()) >> 1;
            let state = self.homes.get_mut(home).expect("found by the caller");
            state.users.insert(key.slot, Presence::absent(stamp));
            self.absences.push_back(Absence { home, user: key.slot, stamp, went_ms: now.mono_ms() });
        } else {
            self.remove_user(now, home, key, out);
        }
    }

    /// The time has come for users that have not come back.
    pub(super) fn expire_absences(&mut self, now: Now, out: &mut Effects) {
        let absence_ms = self.rules.absence_ms;
        while let Some(absence) = self.absences.front().filter(|absence| absence.went_ms + absence_ms <= now.mono_ms()) {
            let Absence { home, user, stamp, .. } = *absence;
            self.absences.pop_front();
            let presence = self.homes.get(home).and_then(|state| state.users.get(&user));
            if presence == Some(&Presence::absent(stamp)) {
                self.remove_user(now, home, self.users.key_at(user), out);
            } else if presence.is_some() && planted(Mutation::ForgetReturn) {
                let name = self.users.name_at(user).to_owned();
                self.tell(home, &name, MemberEvent::Leave, out);
            }
        }
    }

    fn remove_user(&mut self, now: Now, home: Key, key: Key, out: &mut Effects) {
        self.homes.get_mut(home).expect("found by the caller").users.remove(&key.slot);
        let name = UserName::parse(self.users.name(key)).expect("a user's name was checked at login");
        self.tell(home, name.as_str(), MemberEvent::Leave, out);
        self.users.get_mut(key).rooms -= 1;
        self.release_user(now, key);
    }

    /// The room's last session has gone: whoever is still counted is so for nobody.
    fn forget_users(&mut self, now: Now, home: Key) {
        let users = std::mem::take(&mut self.homes.get_mut(home).expect("found by the caller").users);
        for slot in users.into_keys() {
            let key = self.users.key_at(slot);
            self.users.get_mut(key).rooms -= 1;
            self.release_user(now, key);
        }
    }

    /// Somebody may want to hear of who comes and goes, and is told.
    fn tells(&self, home: Key) -> bool {
        let state = self.homes.get(home).expect("found by the caller");
        state.watched && !self.draining && state.users.len() <= PRESENCE_ROOM_MAX
    }

    /// Tells all shards of the room; those without watchers ignore it.
    pub(super) fn tell(&mut self, home: Key, user: &str, event: MemberEvent, out: &mut Effects) {
        if !self.tells(home) {
            return;
        }
        let state = self.homes.get(home).expect("found by the caller");
        let members = state.members();
        let object = Outgoing::Member { room: &state.name, user, event, members };
        let payload = pack(&mut self.arena, &object);
        self.post_all(home, |place| Envelope::Member { place, payload: payload.clone() }, out);
    }

    fn tell_off(&mut self, home: Key, out: &mut Effects) {
        let state = self.homes.get(home).expect("found by the caller");
        if !state.watched || self.draining {
            return;
        }
        let payload = pack(&mut self.arena, &Outgoing::MemberOff { room: &state.name });
        self.post_all(home, |place| Envelope::MemberOff { place, payload: payload.clone() }, out);
    }

    /// Posts to every shard that has members of the room.
    pub(super) fn post_all(&mut self, home: Key, mut make: impl FnMut(Key) -> Envelope, out: &mut Effects) {
        let shards = self.homes.get(home).expect("found by the caller").shards.len();
        for index in 0..shards {
            let to = self.homes.get(home).expect("found by the caller").shards[index];
            self.post(to.shard, make(to.place), out);
        }
    }

    /// A shard of the room, or its sender's, has no room for a delivery.
    pub(super) fn is_congested(&self, home: Option<Key>, sender: ShardId) -> bool {
        // Every append in the log may yet need one place on every way, so all of them are counted on each.
        let appends = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        let most = self.rules.deliveries_per_peer_max;
        let full = |shard: ShardId| shard != self.rules.shard && self.peers[shard.index()].queued.saturating_add(appends) >= most;
        let shards = home.and_then(|home| self.homes.get(home)).map(|state| &state.shards);
        full(sender) || shards.is_some_and(|shards| shards.iter().any(|s| full(s.shard)))
    }
}
