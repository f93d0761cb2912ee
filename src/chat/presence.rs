//! Who is in a room: the home's list of users, what its members hear of it.

use std::collections::BTreeMap;

use super::effect::{Effects, Envelope, Origin, Parcel};
use super::shard::{Shard, pack};
use crate::ids::{Key, ShardId};
use crate::limits::{PRESENCE_NAMES_MAX, PRESENCE_ROOM_MAX};
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

impl Shard {
    /// Walks the room's lists: for checks only.
    pub fn roll(&self, room: &str) -> Roll {
        let hash = self.hash(room);
        let place = self.places.find(hash, room).and_then(|place| self.places.get(place));
        let members = place.map_or(0, |place| place.members.len());
        let Some(home) = self.homes.find(hash, room).and_then(|home| self.homes.get(home)) else {
            return Roll { members, ..Roll::default() };
        };
        let users = home.users.iter().map(|(slot, sessions)| (self.users.name_at(*slot).to_owned(), *sessions)).collect();
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

    /// Adds a session of the user to the room's list; tells the others when it is the user's first.
    pub(super) fn user_came(&mut self, home: Key, user: &str, out: &mut Effects) {
        let hash = self.hash(user);
        let key = self.users.find_or_add(hash, user).expect("as many users as slots: sessions end before that");
        let state = self.homes.get_mut(home).expect("found by the caller");
        let sessions = state.users.entry(key.slot).or_insert(0);
        *sessions += 1;
        if *sessions == 1 {
            let over = state.users.len() == PRESENCE_ROOM_MAX + 1;
            self.users.get_mut(key).rooms += 1;
            if over {
                self.tell_off(home, out);
            } else {
                self.tell(home, user, MemberEvent::Join, out);
            }
        }
    }

    /// Takes a session of the user off the room's list; `true` when it was the user's last.
    pub(super) fn user_went(&mut self, home: Key, user: &str) -> bool {
        let key = self.users.find(self.hash(user), user).expect("a room's member is a known user");
        let state = self.homes.get_mut(home).expect("found by the caller");
        let sessions = state.users.get_mut(&key.slot).expect("a session leaves a room that its user is in");
        *sessions -= 1;
        if *sessions > 0 {
            return false;
        }
        state.users.remove(&key.slot);
        self.users.get_mut(key).rooms -= 1;
        self.users.release(key);
        true
    }

    /// Tells all shards of the room; those without watchers ignore it.
    pub(super) fn tell(&mut self, home: Key, user: &str, event: MemberEvent, out: &mut Effects) {
        let state = self.homes.get(home).expect("found by the caller");
        let members = state.members();
        if !state.watched || self.draining || members as usize > PRESENCE_ROOM_MAX {
            return;
        }
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
