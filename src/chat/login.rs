//! Sessions come and go: login, a second `hello`, one device replacing itself, the end.

use super::effect::{Effect, Effects, Envelope, Replay, Since};
use super::retention::Replayed;
use super::session::Session;
use super::shard::{Flow, Shard};
use crate::ids::{SessionId, UserName, WirePosition};
use crate::protocol::encode::{Outgoing, Welcome};
use crate::protocol::error::Reason;
use crate::protocol::message::Hello;

/// A `hello` that was found good on the accepting shard, on its way to the user's shard.
#[derive(Debug)]
pub struct Login {
    pub user: UserName,
    pub device: Option<Box<str>>,
    /// The inbox position the client has seen, if it said one: known here (`Some(Some)`) or not a position of this epoch.
    pub inbox: Option<Option<WirePosition>>,
}

/// The protocol's version that this server speaks.
const VERSION: u64 = 1;

impl Login {
    /// Checks a `hello` as far as it can be without the user's shard (auth = open). The error is a `bye`.
    pub fn check(hello: &Hello<'_>) -> Result<Self, (Reason, &'static str)> {
        if hello.version != VERSION {
            return Err((Reason::Version, "versions spoken: 1"));
        }
        let Some(user) = hello.user else {
            return Err((Reason::BadField, "user is missing: this server's auth mode is open"));
        };
        let device = hello.device.as_deref().map(Box::from);
        let inbox = hello.inbox.as_deref().map(WirePosition::parse);
        Ok(Self { user, device, inbox })
    }
}

impl Shard {
    /// A checked `hello` has arrived on its user's shard: `welcome`, or `bye`. `public_id` is what the client reads as `session`.
    pub fn handle_login(&mut self, session: SessionId, login: Login, public_id: u64, out: &mut Effects) {
        let name = login.user.as_str();
        let hash = self.hash(name);
        let Some(user) = self.users.find_or_add(hash, name) else {
            out.push(Effect::Close { session, reason: Reason::Overloaded, message: Some("too many users") });
            return;
        };
        if let Some(device) = &login.device {
            self.replace_device(user, device, out);
        }
        if self.users.get(user).sessions.len() >= self.rules.sessions_per_user_max {
            self.users.release(user);
            out.push(Effect::Close { session, reason: Reason::TooManySessions, message: None });
            return;
        }
        let owner = self.users.get_mut(user);
        owner.sessions.push(session);
        owner.living += 1;
        let before = self.sessions.put(session.slot, Session::new(session, user, login.device));
        assert!(before.is_none(), "a slot's session is taken out when it closes");
        self.counts.logins += 1;
        let replay = match login.inbox {
            None => Replay::Nothing,
            Some(Some(at)) if at.epoch == self.rules.epoch => Replay::Since(Since::At(at.position), None),
            Some(_) => Replay::Since(Since::Unknown, None),
        };
        // The inbox's home is this shard, so what is retained and what comes live meet without a gap.
        let replayed = self.replay(self.inbox_of(user), replay);
        self.welcome(session, public_id, &replayed, out);
        for payload in replayed.pieces {
            out.queue(session, payload);
        }
    }

    /// A session has ended, for whatever reason; it leaves its rooms without an answer.
    pub fn handle_closed(&mut self, now: crate::ids::Now, session: SessionId, out: &mut Effects) {
        if self.session(session).is_none() {
            return;
        }
        while let Some(index) = self.session(session).and_then(|s| s.rooms.len().checked_sub(1)) {
            self.forget_room(session, index, out);
        }
        let state = self.sessions.take(session.slot).expect("looked up above");
        let user = self.users.get_mut(state.user);
        user.sessions.retain(|s| *s != session);
        user.living -= 1;
        self.users.release(state.user);
        self.settle(now, out);
    }

    /// A second `hello`: the same user gets a new `welcome` and no replay.
    pub(super) fn renew(&mut self, session: SessionId, hello: &Hello<'_>, out: &mut Effects) -> Flow {
        let login = match Login::check(hello) {
            Ok(login) => login,
            Err((reason, message)) => {
                out.push(Effect::Close { session, reason, message: Some(message) });
                return Flow::Next;
            }
        };
        let user = self.session(session).expect("checked by the caller").user;
        if self.users.name(user) == login.user.as_str() {
            let public_id = self.session(session).expect("checked by the caller").public_id;
            self.welcome(session, public_id, &Replayed::default(), out);
        } else {
            out.push(Effect::Close { session, reason: Reason::Forbidden, message: Some("the session belongs to another user") });
        }
        Flow::Next
    }

    fn welcome(&mut self, session: SessionId, public_id: u64, replayed: &Replayed, out: &mut Effects) {
        let state = self.sessions.get_mut(session.slot).expect("the session has just logged in");
        state.public_id = public_id;
        let user = state.user;
        let retained = self.inbox_of(user).and_then(|home| self.homes.get(home)).map(|state| state.at);
        let at = retained.unwrap_or_else(|| self.users.get(user).inbox_at);
        let payload = super::shard::pack(
            &mut self.arena,
            &Outgoing::Welcome(Welcome {
                user: self.users.name(user),
                session: public_id,
                node: &self.rules.node,
                heartbeat_ms: self.rules.heartbeat_ms,
                inbox_at: WirePosition { epoch: self.rules.epoch, position: at },
                inbox_replay: replayed.count,
                inbox_recovered: replayed.recovered,
                limits: self.rules.announced,
                expires_at: None,
            }),
        );
        out.queue(session, payload);
    }

    /// The home of a user's inbox, if it holds anything.
    fn inbox_of(&self, user: crate::ids::Key) -> Option<crate::ids::Key> {
        let name = self.users.name(user);
        self.homes.find(self.hash(name), &format!("@{name}"))
    }

    fn replace_device(&mut self, user: crate::ids::Key, device: &str, out: &mut Effects) {
        let sessions = &self.sessions;
        let same = |id: &&SessionId| sessions.get(id.slot).is_some_and(|s| s.device.as_deref() == Some(device));
        let old = self.users.get(user).sessions.iter().find(same).copied();
        let Some(old) = old else { return };
        // Out of the user's list at once, so that the new one finds its place; its rooms go when the reactor reports it closed.
        self.users.get_mut(user).sessions.retain(|s| *s != old);
        self.sessions.get_mut(old.slot).expect("found above").device = None;
        out.push(Effect::Close { session: old, reason: Reason::Replaced, message: None });
    }

    /// Takes a room out of a closing session's list; the home hears of it if it counts the session.
    fn forget_room(&mut self, session: SessionId, index: usize, out: &mut Effects) {
        let state = self.session(session).expect("checked by the caller");
        let (entry, user) = (state.rooms[index], state.user);
        if entry.is_member() {
            self.remove_member(session, index);
        }
        let place = self.places.get(entry.place).expect("a place lives while an entry points to it");
        let (room, home) = (place.name.clone(), place.home);
        if entry.wanted {
            let name: Box<str> = self.users.name(user).into();
            let parcel = self.parcel(&room, &name, "");
            let from = self.origin(session, None).from;
            self.post(home, Envelope::Gone { parcel, from }, out);
        }
        self.remove_entry(session, index);
    }
}
