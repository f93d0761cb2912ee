//! A [`Session`] over one TCP connection, for callers that like to wait.
//!
//! Owns the socket and the events that came while an answer was waited for (bounded in bytes; full is an error). Every wait has a deadline. Nothing
//! happens between calls: who does not call [`Client::receive`] for longer than twice the heartbeat is cut off by the server, and comes back, with
//! everything that is retained, at the next call.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::RawValue;

use super::event::{Down, Event, Join, Joined, Lifetime, Message, Page, Post, Refusal, Reject, Sent, Ticket};
use super::session::{Options, Session, Status};

/// Time for a connection to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Time for written bytes to be taken.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// Time for a request to be answered, reconnects included.
const REQUEST_PATIENCE: Duration = Duration::from_secs(60);
/// Time for the answer to a goodbye.
const BYE_PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of events that wait while an answer is waited for.
const BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an event costs beside its body.
const EVENT_BYTES: usize = 256;
const READ_BYTES: usize = 64 * 1024;

/// Why a call failed.
#[derive(Debug)]
pub enum Error {
    /// No server there.
    Unreachable(io::Error),
    /// No login: the server ended the connection, or was silent, or is no ringroom server.
    Login(Down),
    /// The server refuses, for good.
    Refused(Refusal),
    /// The session has ended, as asked or as the server said.
    Ended(Option<Refusal>),
    /// Not answered in time. The request goes on; its answer comes as an event.
    TimedOut,
    /// Too many events wait: take some with [`Client::receive`]. The request goes on; its answer comes as an event.
    Backlog,
    /// The request was not taken.
    Rejected(Reject),
    /// The body can't be written as JSON.
    Body(serde_json::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Unreachable(error) => write!(f, "no server there: {error}"),
            Error::Login(down) => write!(f, "no login: {down}"),
            Error::Refused(refusal) => write!(f, "refused: {refusal}"),
            Error::Ended(None) => f.write_str("the session has ended"),
            Error::Ended(Some(refusal)) => write!(f, "the server ended the session: {refusal}"),
            Error::TimedOut => f.write_str("no answer in time"),
            Error::Backlog => f.write_str("too many events wait to be taken"),
            Error::Rejected(reject) => write!(f, "{reject}"),
            Error::Body(error) => write!(f, "the body is no JSON: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Reject> for Error {
    fn from(reject: Reject) -> Self {
        Error::Rejected(reject)
    }
}

/// A session that connects, reads and writes when it is called.
#[derive(Debug)]
pub struct Client {
    session: Session,
    addresses: Vec<SocketAddr>,
    socket: Option<TcpStream>,
    backlog: VecDeque<Event>,
    backlog_bytes: usize,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and logs in, in one attempt. From then on it reconnects by itself.
    pub fn connect(address: impl ToSocketAddrs, options: Options) -> Result<Self, Error> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(Error::Unreachable)?.collect();
        let mut entropy = [0; 8];
        getrandom::fill(&mut entropy).map_err(|error| Error::Unreachable(io::Error::other(error.to_string())))?;
        let session = Session::new(options, u64::from_ne_bytes(entropy), Instant::now());
        let (backlog, buffer) = (VecDeque::new(), vec![0; READ_BYTES]);
        let mut client = Self { session, addresses, socket: None, backlog, backlog_bytes: 0, buffer };
        client.open().map_err(Error::Unreachable)?;
        let deadline = Instant::now() + super::session::LOGIN_PATIENCE;
        loop {
            match client.next_until(deadline)? {
                Some(Event::Online { .. }) => return Ok(client),
                Some(Event::Offline { why, .. }) => return Err(Error::Login(why)),
                Some(Event::Ended(Some(refusal))) => return Err(Error::Refused(refusal)),
                Some(_) => {}
                None => return Err(Error::Login(Down::LoginTimeout)),
            }
        }
    }

    /// The session, for what it knows and for requests that are not waited for.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        self.session.user().unwrap_or_default()
    }

    /// Joins a room; its history and its messages are events. The room is joined again after a reconnect.
    pub fn join(&mut self, room: &str, join: Join) -> Result<Joined, Error> {
        let ticket = self.session.join(room, join, Instant::now())?;
        self.wait(ticket, |event| match event {
            Event::Joined(joined) if joined.ticket == Some(ticket) => Ok(joined),
            other => Err(other),
        })
    }

    pub fn leave(&mut self, room: &str) -> Result<(), Error> {
        let asked = self.session.leave(room, Instant::now())?;
        self.wait(asked, |event| match event {
            Event::Left { ticket, .. } if ticket == asked => Ok(()),
            other => Err(other),
        })
    }

    /// Sends a message and waits until it has its place in the room's order.
    pub fn send(&mut self, room: &str, body: &impl Serialize) -> Result<Sent, Error> {
        let body = serde_json::value::to_raw_value(body).map_err(Error::Body)?;
        self.send_post(&Post { room, body: &body, key: None, lifetime: Lifetime::Retained })
    }

    /// Sends a message under a key of the caller's: said again within five minutes, in this life or the next, it is sent once.
    pub fn send_with_key(&mut self, room: &str, body: &RawValue, key: &str) -> Result<Sent, Error> {
        self.send_post(&Post { room, body, key: Some(key), lifetime: Lifetime::Retained })
    }

    fn send_post(&mut self, post: &Post<'_>) -> Result<Sent, Error> {
        let ticket = self.post(post)?;
        self.wait(ticket, |event| match event {
            Event::Sent(sent) if sent.ticket == ticket => Ok(sent),
            other => Err(other),
        })
    }

    /// Sends a message and does not wait: [`Event::Sent`] or [`Event::Failed`] answers the ticket.
    pub fn post(&mut self, post: &Post<'_>) -> Result<Ticket, Error> {
        let ticket = self.session.send(post, Instant::now())?;
        self.write();
        Ok(ticket)
    }

    /// At most `limit` messages of a room's past, and whether there are more in that direction.
    pub fn history(&mut self, room: &str, page: &Page, limit: u32) -> Result<(Vec<Message>, bool), Error> {
        let asked = self.session.history(room, page, limit, Instant::now())?;
        self.wait(asked, |event| match event {
            Event::History { ticket, messages, more, .. } if ticket == asked => Ok((messages, more)),
            other => Err(other),
        })
    }

    /// Who is in a room: at most 500 names.
    pub fn presence(&mut self, room: &str) -> Result<Vec<String>, Error> {
        let asked = self.session.presence(room, Instant::now())?;
        self.wait(asked, |event| match event {
            Event::Presence { ticket, users, .. } if ticket == asked => Ok(users),
            other => Err(other),
        })
    }

    /// The next event, or `None` when there was none in time.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        if let Some(event) = self.backlog.pop_front() {
            self.backlog_bytes -= cost(&event);
            return Ok(Some(event));
        }
        self.next_until(Instant::now() + timeout)
    }

    /// Events until there was none for `timeout`, or the session has ended.
    pub fn events(&mut self, timeout: Duration) -> Events<'_> {
        Events { client: self, timeout }
    }

    /// Says goodbye, so that the server need not find out.
    pub fn close(mut self) {
        self.session.bye();
        let deadline = Instant::now() + BYE_PATIENCE;
        while let Ok(Some(event)) = self.next_until(deadline) {
            if matches!(event, Event::Ended(_) | Event::Offline { .. }) {
                return;
            }
        }
    }

    /// Waits for the answer to a request; what comes meanwhile waits for [`Client::receive`].
    fn wait<T>(&mut self, asked: Ticket, mut pick: impl FnMut(Event) -> Result<T, Event>) -> Result<T, Error> {
        let deadline = Instant::now() + REQUEST_PATIENCE;
        loop {
            let Some(event) = self.next_until(deadline)? else { return Err(Error::TimedOut) };
            match pick(event) {
                Ok(answer) => return Ok(answer),
                Err(Event::Failed { ticket, refusal, .. }) if ticket == asked => return Err(Error::Refused(refusal)),
                Err(Event::Ended(refusal)) => return Err(Error::Ended(refusal)),
                Err(other) => {
                    self.backlog_bytes += cost(&other);
                    self.backlog.push_back(other);
                    if self.backlog_bytes > BACKLOG_BYTES_MAX {
                        return Err(Error::Backlog);
                    }
                }
            }
        }
    }

    fn next_until(&mut self, deadline: Instant) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.session.event(Instant::now()) {
                // What the event made the session say goes out with it.
                self.write();
                return Ok(Some(event));
            }
            let now = Instant::now();
            match self.session.status() {
                Status::Ended => return Err(Error::Ended(None)),
                Status::Offline { retry_at } => {
                    self.socket = None;
                    if deadline < retry_at {
                        pause_until(deadline);
                        return Ok(None);
                    }
                    pause_until(retry_at);
                    if let Err(error) = self.open() {
                        self.session.disconnected(Down::Transport(error.to_string()), Instant::now());
                    }
                }
                Status::LoggingIn { .. } | Status::Online => {
                    self.write();
                    let due = self.session.deadline(now).map_or(deadline, |due| due.min(deadline));
                    let came = self.read_until(due);
                    let now = Instant::now();
                    self.session.tick(now);
                    if !came && now >= deadline {
                        return Ok(self.session.event(now));
                    }
                }
            }
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in &self.addresses {
            match TcpStream::connect_timeout(address, CONNECT_PATIENCE) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_write_timeout(Some(WRITE_PATIENCE))?;
                    self.socket = Some(socket);
                    self.session.connected(Instant::now());
                    self.write();
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes what the session has to say.
    fn write(&mut self) {
        while !self.session.outgoing().is_empty() {
            let Some(socket) = &mut self.socket else { return };
            match socket.write(self.session.outgoing()) {
                Ok(count) if count > 0 => self.session.written(count, Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) => return self.lose("the connection takes no more bytes"),
                Err(error) => return self.lose(&error.to_string()),
            }
        }
    }

    /// Waits for bytes; true if some came or the connection ended.
    fn read_until(&mut self, due: Instant) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let wait = due.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let result = socket.set_read_timeout(Some(wait)).and_then(|()| socket.read(&mut self.buffer));
        match result {
            Ok(0) => self.lose("the connection was closed"),
            Ok(count) => self.session.received(&self.buffer[..count], Instant::now()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => return false,
                _ => self.lose(&error.to_string()),
            },
        }
        true
    }

    fn lose(&mut self, why: &str) {
        self.socket = None;
        self.session.disconnected(Down::Transport(why.into()), Instant::now());
    }
}

/// See [`Client::events`].
#[derive(Debug)]
pub struct Events<'a> {
    client: &'a mut Client,
    timeout: Duration,
}

impl Iterator for Events<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.client.receive(self.timeout) {
            Err(Error::Ended(_)) => None,
            other => other.transpose(),
        }
    }
}

fn cost(event: &Event) -> usize {
    let bodies = |messages: &[Message]| messages.iter().map(|message| message.body.get().len() + EVENT_BYTES).sum();
    match event {
        Event::Message(message) => bodies(std::slice::from_ref(message)),
        Event::History { messages, .. } => bodies(messages),
        _ => EVENT_BYTES,
    }
}

/// Waits without a socket to wait on.
fn pause_until(when: Instant) {
    loop {
        let left = when.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
