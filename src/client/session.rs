//! A session without a socket: bytes in, events out; requests in, bytes out; the time as an argument.
//!
//! Owns everything that has to outlive a connection: the rooms and where the caller stands in each, the requests without an answer, the pace of
//! reconnecting. It never waits, never reads a clock and never touches a socket, so any executor or thread can drive it:
//!
//! - [`Session::status`] says what to do: connect when `Offline` and its time has come, drop the connection when it turns `Offline`, stop at `Ended`.
//! - [`Session::connected`], [`Session::received`], [`Session::disconnected`], [`Session::tick`] (at [`Session::deadline`]) tell it what happens.
//! - [`Session::outgoing`] is to be written, [`Session::written`] says how much was; [`Session::event`] is to be called until it returns `None`
//!   before more is read: that is what bounds the bytes that wait.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use crate::ids::RoomName;
use crate::limits::{BODY_BYTES_MAX, DEDUP_KEY_BYTES_MAX, DEDUP_KEYS_PER_USER_MAX, DEDUP_WINDOW_MS, POSITION_BYTES_MAX};

use super::backoff::{Backoff, Dice, Pace};
use super::codec::{Inbound, Outgoing, frame};
use super::event::{Down, Event, Join, Lifetime, Page, Post, Refusal, Reject, Ticket};
use super::requests::{Gate, Kind, Request, Requests};
use super::room::{Phase, Room};

/// Time for `welcome`.
pub(super) const LOGIN_PATIENCE: Duration = Duration::from_secs(15);
/// Time for the answer to a request. A server that holds its reading back (rate, a stalled room) answers within 10 s.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a success: the next delay is a short one again.
const STABLE: Duration = Duration::from_secs(10);
/// How long after its first try a `send` may be repeated: the server knows its key for longer.
pub(super) const REPEAT_MAX: Duration = Duration::from_millis(DEDUP_WINDOW_MS * 4 / 5);
/// Sends in flight that the server is sure to recognise.
const IN_FLIGHT_MAX: usize = DEDUP_KEYS_PER_USER_MAX / 2;
pub(super) const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(25);

/// Who logs in, and the session's bounds.
#[derive(Clone, Debug)]
pub struct Options {
    pub login: Login,
    /// A name for this device: its new session replaces its old one. Made up for each [`Session`] by default.
    pub device: Option<String>,
    /// Where the caller stands in the inbox, from an earlier life.
    pub inbox: Option<String>,
    pub backoff: Backoff,
    /// Sends without an answer yet, at most 64. 1 keeps the order even where the server refuses one for a while.
    pub sends_in_flight: usize,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// For a server without authentication.
    User(String),
    Token(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Login::User(user) => f.debug_tuple("User").field(user).finish(),
            Login::Token(_) => f.write_str("Token(..)"),
        }
    }
}

impl Options {
    pub fn user(name: impl Into<String>) -> Self {
        Self::new(Login::User(name.into()))
    }

    pub fn token(token: impl Into<String>) -> Self {
        Self::new(Login::Token(token.into()))
    }

    fn new(login: Login) -> Self {
        Self { login, device: None, inbox: None, backoff: Backoff::default(), sends_in_flight: 16 }
    }
}

/// What the session needs from whoever drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// No connection; make one at this time, not before.
    Offline {
        retry_at: Instant,
    },
    LoggingIn {
        until: Instant,
    },
    Online,
    Ended,
}

#[derive(Debug)]
pub struct Session {
    pub(super) options: Options,
    pub(super) device: String,
    key_prefix: u64,
    next_id: u64,
    pub(super) user: Option<String>,
    pub(super) status: Status,
    pub(super) inbound: Inbound,
    pub(super) outbound: Vec<u8>,
    pub(super) events: VecDeque<Event>,
    pub(super) rooms: BTreeMap<String, Room>,
    pub(super) requests: Requests,
    pub(super) pace: Pace,
    pub(super) heartbeat: Duration,
    pub(super) last_in: Instant,
    pub(super) pinged: bool,
    pub(super) online_since: Option<Instant>,
    pub(super) doubles: u64,
}

impl Session {
    /// `entropy` has to differ from session to session: keys, the device's name and the jitter are made of it.
    pub fn new(options: Options, entropy: u64, now: Instant) -> Self {
        let mut dice = Dice(entropy);
        let (device, key_prefix) = (dice.roll(), dice.roll());
        Self {
            device: options.device.clone().unwrap_or_else(|| format!("client-{device:016x}")),
            key_prefix,
            next_id: 1,
            user: None,
            status: Status::Offline { retry_at: now },
            inbound: Inbound::default(),
            outbound: Vec::new(),
            events: VecDeque::new(),
            rooms: BTreeMap::new(),
            requests: Requests::default(),
            pace: Pace::new(options.backoff, dice),
            heartbeat: HEARTBEAT_DEFAULT,
            last_in: now,
            pinged: false,
            online_since: None,
            doubles: 0,
            options,
        }
    }

    pub fn status(&self) -> Status {
        self.status
    }

    /// The user's name, once logged in.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Where the caller stands in a room, to be kept for `since` in a later life.
    pub fn position(&self, room: &str) -> Option<&str> {
        self.rooms.get(room)?.last.as_deref()
    }

    /// Rooms joined, or being joined; the inbox is not among them.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.keys().map(String::as_str).filter(|room| !room.starts_with('@'))
    }

    /// Sends that have no answer yet.
    pub fn unanswered_sends(&self) -> usize {
        self.requests.sends()
    }

    /// Messages that came again and were not given to the caller again.
    pub fn doubles_dropped(&self) -> u64 {
        self.doubles
    }

    /// A transport is up.
    pub fn connected(&mut self, now: Instant) {
        if !matches!(self.status, Status::Offline { .. }) {
            return;
        }
        self.status = Status::LoggingIn { until: now + LOGIN_PATIENCE };
        (self.last_in, self.pinged) = (now, false);
        let (user, token) = match &self.options.login {
            Login::User(user) => (Some(user.as_str()), None),
            Login::Token(token) => (None, Some(token.as_str())),
        };
        let inbox = self.user.as_ref().and_then(|user| self.rooms.get(&format!("@{user}"))?.last.as_deref());
        let inbox = inbox.or(self.options.inbox.as_deref());
        let hello = Outgoing::Hello { version: 1, user, token, device: Some(&self.device), inbox };
        // A token over the limit is cut off by the server with a reason; an empty frame would not be.
        self.outbound = frame(&hello).unwrap_or_default();
    }

    /// The transport failed or ended.
    pub fn disconnected(&mut self, why: Down, now: Instant) {
        self.go_offline(why, now);
    }

    /// Bytes have come. Take all events before reading more.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        if !self.is_connected() {
            return;
        }
        (self.last_in, self.pinged) = (now, false);
        if let Err(fault) = self.inbound.push(bytes) {
            self.go_offline(Down::Fault(fault), now);
        }
    }

    /// To be written to the transport.
    pub fn outgoing(&self) -> &[u8] {
        &self.outbound
    }

    /// The first `count` bytes of [`Session::outgoing`] are written.
    pub fn written(&mut self, count: usize, now: Instant) {
        self.outbound.drain(..count.min(self.outbound.len()));
        self.flush(now);
    }

    /// When [`Session::tick`] is due, if nothing happens before.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self.status {
            Status::Offline { retry_at } => Some(retry_at),
            Status::LoggingIn { until } => Some(until),
            Status::Online => {
                let beat = self.last_in + self.heartbeat * if self.pinged { 2 } else { 1 };
                Some(self.requests.deadline(ANSWER_PATIENCE, now).map_or(beat, |due| due.min(beat)))
            }
            Status::Ended => None,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        match self.status {
            Status::LoggingIn { until } if until <= now => self.go_offline(Down::LoginTimeout, now),
            Status::Online if self.last_in + self.heartbeat * 2 <= now => self.go_offline(Down::Silent, now),
            Status::Online if self.requests.is_overdue(ANSWER_PATIENCE, now) => self.go_offline(Down::AnswerTimeout, now),
            Status::Online => {
                if !self.pinged && self.last_in + self.heartbeat <= now {
                    self.pinged = true;
                    self.say(&Outgoing::Ping);
                }
                self.flush(now);
            }
            Status::LoggingIn { .. } | Status::Offline { .. } | Status::Ended => {}
        }
    }

    /// Joins a room and stays in it over reconnects. A room that is joined already is joined again from where it stands.
    pub fn join(&mut self, room: &str, join: Join, now: Instant) -> Result<Ticket, Reject> {
        let id = self.begin(room, 0)?;
        if room.starts_with('@') {
            return Err(Reject::Name);
        }
        if join.since.as_ref().is_some_and(|since| since.len() > POSITION_BYTES_MAX) {
            return Err(Reject::TooLarge);
        }
        match self.rooms.get_mut(room) {
            Some(known) => known.wanted = join,
            None => drop(self.rooms.insert(room.to_owned(), Room::new(join))),
        }
        let known = self.rooms.get_mut(room).expect("just inserted");
        known.ticket = Some(id);
        let request = join_request(Kind::Join, (id, room), known);
        self.requests.push(request);
        self.flush(now);
        Ok(Ticket(id))
    }

    pub fn leave(&mut self, room: &str, now: Instant) -> Result<Ticket, Reject> {
        let id = self.begin(room, 0)?;
        self.ask(Request::new(id, Kind::Leave, room), &Outgoing::Leave { id, room }, now)
    }

    /// Sends a message; [`Event::Sent`] or [`Event::Failed`] answers. Said again by itself, under the same key, until it is answered.
    pub fn send(&mut self, post: &Post<'_>, now: Instant) -> Result<Ticket, Reject> {
        if post.body.get().len() > BODY_BYTES_MAX || post.key.is_some_and(|key| key.len() > DEDUP_KEY_BYTES_MAX) {
            return Err(Reject::TooLarge);
        }
        let id = self.begin(post.room, post.body.get().len())?;
        let own = format!("{:016x}-{id}", self.key_prefix);
        let key = match post.lifetime {
            Lifetime::Retained => Some(post.key.unwrap_or(&own)),
            Lifetime::Ephemeral => post.key,
        };
        let ephemeral = post.lifetime == Lifetime::Ephemeral;
        let object = Outgoing::Send { id, room: post.room, body: post.body, key, ephemeral };
        self.ask(Request::new(id, Kind::Send(post.lifetime), post.room), &object, now)
    }

    /// Sends `{"text": ...}`.
    pub fn send_text(&mut self, room: &str, text: &str, now: Instant) -> Result<Ticket, Reject> {
        let body = text_body(text);
        self.send(&Post { room, body: &body, key: None, lifetime: Lifetime::Retained }, now)
    }

    /// Asks for at most `limit` messages of a room's past.
    pub fn history(&mut self, room: &str, page: &Page, limit: u32, now: Instant) -> Result<Ticket, Reject> {
        let id = self.begin(room, 0)?;
        let (before, after) = match page {
            Page::Newest => (None, None),
            Page::Before(at) => (Some(at.as_str()), None),
            Page::After(at) => (None, Some(at.as_str())),
        };
        self.ask(Request::new(id, Kind::History, room), &Outgoing::History { id, room, before, after, limit }, now)
    }

    /// Asks who is in a room.
    pub fn presence(&mut self, room: &str, now: Instant) -> Result<Ticket, Reject> {
        let id = self.begin(room, 0)?;
        self.ask(Request::new(id, Kind::Presence, room), &Outgoing::Presence { id, room }, now)
    }

    /// Logs in from the next connection on with a fresh token, and renews the session if there is one.
    pub fn renew(&mut self, token: impl Into<String>) {
        let token = token.into();
        if self.status == Status::Online {
            self.say(&Outgoing::Hello { version: 1, user: None, token: Some(&token), device: Some(&self.device.clone()), inbox: None });
        }
        self.options.login = Login::Token(token);
    }

    /// Says goodbye; [`Event::Ended`] follows. Without a connection the session ends here.
    pub fn bye(&mut self) {
        if self.status == Status::Online {
            self.say(&Outgoing::Bye);
        } else {
            self.end(None);
        }
    }

    /// Checks a request and gives it its number.
    fn begin(&mut self, room: &str, bytes: usize) -> Result<u64, Reject> {
        if self.status == Status::Ended {
            return Err(Reject::Ended);
        }
        RoomName::parse(room).map_err(|_| Reject::Name)?;
        self.requests.admit(bytes)?;
        Ok(self.take_id())
    }

    pub(super) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn ask(&mut self, mut request: Request, object: &Outgoing<'_>, now: Instant) -> Result<Ticket, Reject> {
        request.frame = frame(object).ok_or(Reject::TooLarge)?;
        let ticket = Ticket(request.id);
        self.requests.push(request);
        self.flush(now);
        Ok(ticket)
    }

    /// Writes an object that is not repeated.
    pub(super) fn say(&mut self, object: &Outgoing<'_>) {
        self.outbound.extend(frame(object).unwrap_or_default());
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.status, Status::LoggingIn { .. } | Status::Online)
    }

    pub(super) fn flush(&mut self, now: Instant) {
        if self.status == Status::Online {
            let rooms = &self.rooms;
            // The server says it better than we could where a room is not known.
            let open = |room: &str| rooms.get(room).is_none_or(|room| room.phase == Phase::In);
            let gate = Gate { window: self.options.sends_in_flight.clamp(1, IN_FLIGHT_MAX), open: &open };
            self.requests.write(now, &mut self.outbound, &gate);
        }
    }

    /// Asks for every room again, before everything else that waits.
    pub(super) fn rejoin_all(&mut self) {
        self.requests.drop_joins();
        let mut next = self.next_id;
        for (name, room) in self.rooms.iter().filter(|(name, _)| !name.starts_with('@')) {
            next += 1;
            let id = room.ticket.unwrap_or(next);
            let kind = if room.ticket.is_some() { Kind::Join } else { Kind::Rejoin };
            self.requests.push_front(join_request(kind, (id, name), room));
        }
        self.next_id = next;
    }

    pub(super) fn go_offline(&mut self, why: Down, now: Instant) {
        if self.status == Status::Ended {
            return;
        }
        if self.online_since.take().is_some_and(|since| since + STABLE <= now) {
            self.pace.reset();
        }
        let asked = if let Down::Bye(refusal) = &why { refusal.retry_after } else { None };
        let retry_in = self.pace.next(asked);
        self.status = Status::Offline { retry_at: now + retry_in };
        self.forget_connection();
        self.events.push_back(Event::Offline { why, retry_in });
    }

    pub(super) fn end(&mut self, refusal: Option<Refusal>) {
        if self.status != Status::Ended {
            self.status = Status::Ended;
            self.inbound.clear();
            self.outbound.clear();
            self.events.push_back(Event::Ended(refusal));
        }
    }

    fn forget_connection(&mut self) {
        self.inbound.clear();
        self.outbound.clear();
        self.rooms.values_mut().for_each(Room::disconnect);
        let events = &mut self.events;
        self.requests.disconnect(|request| {
            let why = match request.kind {
                // Joins are made anew from where the rooms stand then.
                Kind::Join | Kind::Rejoin | Kind::CureLeave => return false,
                Kind::Send(Lifetime::Ephemeral) if request.first.is_some() => "the connection broke",
                Kind::Send(_) | Kind::Leave | Kind::History | Kind::Presence => return true,
            };
            let refusal = Refusal::local("uncertain", why);
            events.push_back(Event::Failed { ticket: Ticket(request.id), room: request.room.clone(), refusal });
            false
        });
    }
}

/// The frame of a join from where the room stands.
pub(super) fn join_request(kind: Kind, (id, name): (u64, &str), room: &Room) -> Request {
    let history = room.last.is_none().then_some(room.wanted.history);
    let Join { presence, echo, .. } = room.wanted;
    let object = Outgoing::Join { id, room: name, since: room.last.as_deref(), history, presence, echo };
    let mut request = Request::new(id, kind, name);
    request.frame = frame(&object).expect("names and positions are short");
    request
}

/// A body that people's programs agree on.
pub fn text_body(text: &str) -> Box<RawValue> {
    let text = serde_json::to_string(text).expect("a string is JSON");
    RawValue::from_string(format!("{{\"text\":{text}}}")).expect("an object with a string is JSON")
}
