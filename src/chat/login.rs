//! Sessions come and go: login, a second `hello`, one device replacing itself, the end.

use std::num::NonZeroU64;

use super::effect::{Effect, Effects, Envelope, Replay, Since};
use super::retention::Replayed;
use super::rights::{Grant, Right};
use super::session::Session;
use super::shard::{Flow, Shard};
use crate::ids::{Now, SessionId, UserName, WirePosition};
use crate::mutation::{Mutation, planted};
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
    pub grant: Grant,
}

/// What a `hello` says beside who is speaking: kept while its token is being checked.
#[derive(Debug)]
pub struct Attachments {
    pub device: Option<Box<str>>,
    pub inbox: Option<Option<WirePosition>>,
}

impl Attachments {
    pub fn of(hello: &Hello<'_>) -> Self {
        Self { device: hello.device.as_deref().map(Box::from), inbox: hello.inbox.as_deref().map(WirePosition::parse) }
    }
}

/// The protocol's version that this server speaks.
const VERSION: u64 = 1;

impl Login {
    /// Checks a `hello` as far as it can be without the user's shard (auth = open). The error is a `bye`.
    pub fn check(hello: &Hello<'_>) -> Result<Self, (Reason, &'static str)> {
        Self::check_version(hello)?;
        let Some(user) = hello.user else {
            return Err((Reason::BadField, "user is missing: this server's auth mode is open"));
        };
        let Attachments { device, inbox } = Attachments::of(hello);
        Ok(Self { user, device, inbox, grant: Grant::default() })
    }

    /// The token of a `hello`, to be checked elsewhere (auth = jwt); a `user` beside it is not looked at. The error is a `bye`.
    pub fn token<'a>(hello: &'a Hello<'_>) -> Result<&'a str, (Reason, &'static str)> {
        Self::check_version(hello)?;
        hello.token.as_deref().ok_or((Reason::BadToken, "token is missing: this server's auth mode is jwt"))
    }

    fn check_version(hello: &Hello<'_>) -> Result<(), (Reason, &'static str)> {
        if hello.version == VERSION { Ok(()) } else { Err((Reason::Version, "versions spoken: 1")) }
    }
}

impl Shard {
    /// A checked `hello` has arrived on its user's shard: `welcome`, or `bye`. `public_id` is what the client reads as `session`.
    pub fn handle_login(&mut self, now: Now, session: SessionId, login: Login, public_id: u64, out: &mut Effects) {
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
            self.release_user(now, user);
            out.push(Effect::Close { session, reason: Reason::TooManySessions, message: None });
            return;
        }
        let owner = self.users.get_mut(user);
        owner.sessions.push(session);
        owner.living += 1;
        self.users.set_rate(user, login.grant.rate, &self.rules.rate);
        let mut state = Session::new(session, user, login.device);
        (state.rights, state.expires_at) = (login.grant.rights, login.grant.expires_at);
        let before = self.sessions.put(session.slot, state);
        assert!(before.is_none(), "a slot's session is taken out when it closes");
        self.counts.logins += 1;
        let replay = match login.inbox {
            None => Replay::Nothing,
            Some(Some(at)) if at.epoch == self.rules.epoch => Replay::Since(Since::At(at.position), None),
            Some(_) => Replay::Since(Since::Unknown, None),
        };
        // The inbox's home is this shard, so what is retained and what comes live meet without a gap.
        let inbox = self.inbox_of(user);
        self.forget_aged(now, inbox);
        let replayed = self.replay(inbox, replay);
        self.welcome(session, public_id, &replayed, out);
        for payload in replayed.pieces {
            out.queue(session, payload);
        }
    }

    /// A session has ended, for whatever reason; it leaves its rooms without an answer.
    pub fn handle_closed(&mut self, now: Now, session: SessionId, out: &mut Effects) {
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
        self.release_user(now, state.user);
        self.settle(now, out);
    }

    /// A second `hello`: the same user gets a new `welcome` and no replay. Whoever came with a token is asked for one again.
    pub(super) fn renew(&mut self, session: SessionId, hello: &Hello<'_>, out: &mut Effects) -> Flow {
        if self.session(session).expect("checked by the caller").expires_at.is_some() {
            let Err((reason, message)) = Login::token(hello) else { return Flow::Verify };
            out.push(Effect::Close { session, reason, message: Some(message) });
            return Flow::Next;
        }
        let login = match Login::check(hello) {
            Ok(login) => login,
            Err((reason, message)) => {
                out.push(Effect::Close { session, reason, message: Some(message) });
                return Flow::Next;
            }
        };
        if self.belongs_to(session, &login.user, out) {
            self.welcome_again(session, out);
        }
        Flow::Next
    }

    /// The fresh token of a second `hello` was found good: the session has its rights, its rate and its end from now on. Rooms it may no longer be
    /// in are left, as if it had asked to. `false` when the session has ended, or ends for it.
    pub fn handle_renewal(&mut self, now: Now, session: SessionId, fresh: (UserName, Grant), out: &mut Effects) -> bool {
        let (user, grant) = fresh;
        if self.session(session).is_none() || !self.belongs_to(session, &user, out) {
            return false;
        }
        let state = self.session_mut(session).expect("looked up above");
        (state.rights, state.expires_at) = (grant.rights, grant.expires_at);
        let user = state.user;
        self.users.set_rate(user, grant.rate, &self.rules.rate);
        self.welcome_again(session, out);
        let left = self.leave_forbidden(session, out);
        if !left {
            out.push(Effect::Close {
                session,
                reason: Reason::Forbidden,
                message: Some("the fresh token does not allow this session's rooms"),
            });
        }
        self.settle(now, out);
        left
    }

    pub(super) fn release_user(&mut self, now: Now, user: crate::ids::Key) {
        self.users.release(now.mono_ms(), user, &self.rules.rate);
    }

    fn belongs_to(&self, session: SessionId, user: &UserName, out: &mut Effects) -> bool {
        let own = self.session(session).expect("checked by the caller").user;
        let same = self.users.name(own) == user.as_str();
        if !same {
            out.push(Effect::Close { session, reason: Reason::Forbidden, message: Some("the session belongs to another user") });
        }
        same
    }

    fn welcome_again(&mut self, session: SessionId, out: &mut Effects) {
        let public_id = self.session(session).expect("checked by the caller").public_id;
        self.welcome(session, public_id, &Replayed::default(), out);
    }

    /// Takes a session out of rooms that its rights do not name. `false` when the way to one of them is full: it can't stay that long.
    fn leave_forbidden(&mut self, session: SessionId, out: &mut Effects) -> bool {
        let mut left = true;
        for index in 0..self.session(session).expect("checked by the caller").rooms.len() {
            let state = self.session(session).expect("checked by the caller");
            let entry = state.rooms[index];
            let room = self.places.get(entry.place).expect("a place lives while an entry points to it").name.clone();
            if entry.wanted && !state.allows(&room, Right::Join) {
                left &= self.leave(session, None, &room, out) == Flow::Next;
            } else if entry.is_member() && !state.allows(&room, Right::Presence) {
                self.set_watch(session, index, false);
            }
        }
        left
    }

    fn welcome(&mut self, session: SessionId, public_id: u64, replayed: &Replayed, out: &mut Effects) {
        let state = self.sessions.get_mut(session.slot).expect("the session has just logged in");
        state.public_id = public_id;
        let (user, expires_at) = (state.user, state.expires_at);
        let rate = self.users.get(user).rate(&self.rules.rate);
        let mut limits = self.rules.announced;
        (limits.requests_per_s, limits.requests_burst) = (rate.requests_per_s, rate.burst);
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
                limits,
                expires_at: expires_at.map(NonZeroU64::get),
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
        if entry.wanted && !planted(Mutation::KeepGhost) {
            let name: Box<str> = self.users.name(user).into();
            let parcel = self.parcel(&room, &name, "");
            let from = self.origin(session, None).from;
            self.post(home, Envelope::Gone { parcel, from }, out);
        }
        self.remove_entry(session, index);
    }
}
