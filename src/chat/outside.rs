//! The rules as somebody beside the sessions uses them: publishing without being a member, and a look at rooms and sessions.
//!
//! A request from outside has an origin of its own, which is no session: its answer comes out as [`Effect::Tell`]. Everything else of it goes the way
//! of a session's request, so it has the same promises. Looks are cut into slots, so that the caller can stop after any of them.

use super::effect::{Effect, Effects, Envelope, Origin};
use super::room::Home;
use super::sample::Loud;
use super::shard::Shard;
use crate::ids::{Key, Now, RoomName, SessionId, SessionRef, UserName};
use crate::limits::PRESENCE_NAMES_MAX;
use crate::protocol::encode::Outgoing;
use crate::protocol::error::Reason;

/// The slot of who is no session: slabs end long before.
pub(super) const OUTSIDE: u32 = u32::MAX;

const _: () = assert!((OUTSIDE as u64) > 1 << Key::SLOT_BITS);

pub(super) fn is_outside(origin: Origin) -> bool {
    origin.from.session.slot == OUTSIDE
}

/// A `send` that no session makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub room: RoomName,
    /// In whose name; dedup goes by it.
    pub from: UserName,
    /// One JSON value, carried byte for byte.
    pub body: String,
    pub key: Option<String>,
    pub ephemeral: bool,
}

/// A room as its home sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomView {
    pub room: String,
    /// Distinct users.
    pub members: u32,
    pub sessions: u32,
    /// The newest position.
    pub at: String,
    /// Messages that are retained.
    pub retained: usize,
    /// Requests that wait in the room's order.
    pub deferred: usize,
}

/// A session as its rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    pub session: SessionId,
    pub user: String,
    pub device: Option<String>,
    pub rooms: Vec<String>,
    /// Requests without an answer.
    pub unanswered: u32,
}

impl Shard {
    /// Publishes, at the room's home. The answer is an [`Effect::Tell`] with this ticket, now or by the log's deadline.
    pub fn handle_publish(&mut self, now: Now, ticket: u32, publish: &Publish, out: &mut Effects) {
        let from = SessionRef { shard: self.rules.shard, session: Key { slot: OUTSIDE, generation: ticket } };
        let origin = Origin { from, id: None };
        let (room, user) = (publish.room.as_str(), publish.from.as_str());
        let refusal = if self.home_of_user(room) != self.rules.shard {
            Some((Reason::Internal, "this shard is not the room's home"))
        } else if self.draining {
            Some((Reason::Draining, "this server is going"))
        } else if self.refuse_sends {
            Some((Reason::Overloaded, "this server can't keep up"))
        } else {
            None
        };
        if let Some((reason, message)) = refusal {
            self.counts.refused += 1;
            let payload = self.encode(&Outgoing::Error { id: None, reason, message, retry_after_ms: None });
            return out.push(Effect::Tell { ticket, payload });
        }
        let mut parcel = self.parcel(room, user, &publish.body);
        parcel.received = self.meter.send(now, room, user);
        let key = publish.key.as_deref().filter(|_| !publish.ephemeral).map(|key| self.key_hash(user, key));
        let request = Envelope::Publish { parcel, origin, ephemeral: publish.ephemeral, echo: true, key };
        self.post(self.rules.shard, request, out);
        self.settle(now, out);
    }

    /// Slots of rooms that have their home here.
    pub fn room_slots(&self) -> u32 {
        self.homes.slots()
    }

    /// The room in a slot, inboxes left out.
    pub fn room_at(&self, slot: u32) -> Option<RoomView> {
        let home = self.homes.get(self.homes.key_at(slot)?)?;
        (!home.name.starts_with('@')).then(|| self.view(home))
    }

    /// A room that has its home here, with the names of some of its members.
    pub fn room_named(&self, name: &str) -> Option<(RoomView, Vec<String>)> {
        let home = self.homes.get(self.homes.find(self.hash(name), name)?)?;
        let users = home.users.keys().take(PRESENCE_NAMES_MAX).map(|slot| self.users.name_at(*slot).to_owned());
        Some((self.view(home), users.collect()))
    }

    fn view(&self, home: &Home) -> RoomView {
        RoomView {
            room: home.name.to_string(),
            members: home.members(),
            sessions: home.shards.iter().map(|s| s.sessions).sum(),
            at: self.wire(home.at).to_string(),
            retained: home.history.as_ref().map_or(0, |history| history.len()),
            deferred: home.deferred.len(),
        }
    }

    /// The sessions of one of this shard's own users.
    pub fn sessions_of(&self, user: &str) -> Vec<SessionView> {
        let Some(key) = self.users.find(self.hash(user), user) else { return Vec::new() };
        self.users.get(key).sessions.iter().filter_map(|session| self.session_view(*session)).collect()
    }

    fn session_view(&self, id: SessionId) -> Option<SessionView> {
        let state = self.session(id)?;
        let room = |place| self.places.get(place).expect("a place lives while an entry points to it").name.to_string();
        Some(SessionView {
            session: id,
            user: self.users.name(state.user).to_owned(),
            device: state.device.as_deref().map(str::to_owned),
            rooms: state.rooms.iter().filter(|entry| entry.is_member()).map(|entry| room(entry.place)).collect(),
            unanswered: state.unanswered,
        })
    }

    pub fn user_of(&self, session: SessionId) -> Option<&str> {
        self.session(session).map(|state| self.users.name(state.user))
    }

    /// The rooms that this shard's sessions send most to.
    pub fn loudest_rooms(&mut self, now: Now, most: usize) -> Vec<Loud> {
        self.meter.rooms.loudest(now, most)
    }

    /// The users of this shard that send most.
    pub fn loudest_senders(&mut self, now: Now, most: usize) -> Vec<Loud> {
        self.meter.senders.loudest(now, most)
    }
}
