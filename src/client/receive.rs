//! What the server says, and what follows from it: the other half of [`Session`].
//!
//! Owns the rules of recovery. Messages reach the caller through [`Room::take`] alone. A gap in a room is cured by leaving it and joining again from the
//! last message the caller has; until the answer, the room's messages are let go, for they come again. A gap in the inbox, which can't be left, is
//! cured by a new login. Where the server says that it can't bring everything, the caller is told [`Event::Missed`] before the next message.

use std::time::{Duration, Instant};

use crate::limits::POSITION_BYTES_MAX;

use super::codec::{Answer, Fault, Incoming, JoinedAnswer, MemberNews, Outgoing, SentAnswer, Trouble, Welcome, decode};
use super::event::{Change, Down, Event, Join, Joined, Lifetime, Message, Refusal, Sent, Ticket};
use super::requests::{Kind, Request};
use super::room::{Phase, Room, Taken};
use super::session::{REPEAT_MAX, Session, Status, join_request};

/// The shortest heartbeat that is believed.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

impl Session {
    /// The next event. Decodes what has come, so it also makes the answers that the server waits for.
    pub fn event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.is_connected() {
                return None;
            }
            let incoming = match self.inbound.next() {
                Ok(None) => return None,
                Ok(Some(json)) => decode(json),
                Err(fault) => Err(fault),
            };
            match incoming.and_then(|incoming| self.take(incoming, now)) {
                Ok(()) => self.flush(now),
                Err(fault) => self.go_offline(Down::Fault(fault), now),
            }
        }
    }

    fn take(&mut self, incoming: Incoming, now: Instant) -> Result<(), Fault> {
        match incoming {
            Incoming::Message(message) => return self.on_message(message),
            Incoming::Sent(sent) => self.on_sent(sent),
            Incoming::Welcome(welcome) => return self.on_welcome(welcome, now),
            Incoming::Joined(joined) => return self.on_joined(joined),
            Incoming::Left(left) => self.on_left(&left),
            Incoming::Gap(gap) => {
                check_position(&gap.since)?;
                self.on_gap(&gap.room, gap.since, now);
            }
            Incoming::Member(news) => self.on_member(news),
            Incoming::History(page) => {
                if let Some(request) = page.id.and_then(|id| self.requests.answered(id)) {
                    let messages = page.messages.into_iter().map(|past| past.into_message(&page.room)).collect();
                    self.events.push_back(Event::History { ticket: Ticket(request.id), room: page.room, messages, more: page.more });
                }
            }
            Incoming::Presence(answer) => {
                if let Some(request) = answer.id.and_then(|id| self.requests.answered(id)) {
                    let (ticket, room, members) = (Ticket(request.id), answer.room, answer.members);
                    self.events.push_back(Event::Presence { ticket, room, members, users: answer.users, truncated: answer.truncated });
                }
            }
            Incoming::Ping => self.say(&Outgoing::Pong),
            Incoming::Error(trouble) => self.on_error(trouble, now),
            Incoming::Bye(trouble) => self.on_bye(trouble, now),
            Incoming::Pong | Incoming::Unknown => {}
        }
        Ok(())
    }

    fn on_welcome(&mut self, welcome: Welcome, now: Instant) -> Result<(), Fault> {
        check_position(&welcome.inbox.at)?;
        self.heartbeat = Duration::from_millis(welcome.heartbeat_ms).max(HEARTBEAT_MIN);
        if self.status == Status::Online {
            // The answer to a fresh token.
            self.events.push_back(Event::Online { user: welcome.user, expires_at: welcome.expires_at });
            return Ok(());
        }
        self.status = Status::Online;
        self.online_since = Some(now);
        let name = format!("@{}", welcome.user);
        let since = self.options.inbox.take();
        let inbox = self.rooms.entry(name.clone()).or_insert_with(|| Room::new(Join { since, ..Join::default() }));
        inbox.phase = Phase::In;
        if welcome.inbox.replay == 0 {
            inbox.last = Some(welcome.inbox.at);
        }
        self.user = Some(welcome.user.clone());
        self.events.push_back(Event::Online { user: welcome.user, expires_at: welcome.expires_at });
        if welcome.inbox.recovered == Some(false) {
            self.events.push_back(Event::Missed { room: name });
        }
        self.give_up_old_sends(now);
        self.rejoin_all();
        Ok(())
    }

    /// Those that the server may have forgotten the key of.
    fn give_up_old_sends(&mut self, now: Instant) {
        for id in self.requests.sends_tried_before(now.checked_sub(REPEAT_MAX)) {
            if let Some(request) = self.requests.answered(id) {
                self.fail(request, Refusal::local("uncertain", "it may have been sent, and is too old to be repeated safely"));
            }
        }
    }

    fn on_joined(&mut self, joined: JoinedAnswer) -> Result<(), Fault> {
        check_position(&joined.at)?;
        let request = joined.id.and_then(|id| self.requests.answered(id));
        let Some(room) = self.rooms.get_mut(&joined.room) else { return Ok(()) };
        let ticket = request.filter(|request| request.kind == Kind::Join).map(|request| Ticket(request.id));
        room.phase = Phase::In;
        let told = Joined { ticket, room: joined.room, members: joined.members, replay: joined.replay };
        if joined.recovered == Some(false) {
            self.events.push_back(Event::Missed { room: told.room.clone() });
        }
        if joined.replay > 0 && room.last.is_none() {
            room.held = Some(told);
            return Ok(());
        }
        if joined.replay == 0 {
            room.last = Some(joined.at);
        }
        room.ticket = None;
        self.events.push_back(Event::Joined(told));
        Ok(())
    }

    fn on_message(&mut self, message: Message) -> Result<(), Fault> {
        message.at.as_deref().map_or(Ok(()), check_position)?;
        // A room that is not known was left, and its last messages were on their way.
        let Some(room) = self.rooms.get_mut(&message.room) else { return Ok(()) };
        match room.take(&message) {
            Taken::New(joined) => {
                self.events.extend(joined.map(Event::Joined));
                self.events.push_back(Event::Message(message));
            }
            Taken::Dropped => self.doubles += 1,
        }
        Ok(())
    }

    fn on_sent(&mut self, sent: SentAnswer) {
        // An answer that came twice has no request any more.
        if let Some(request) = sent.id.and_then(|id| self.requests.answered(id)) {
            let (ticket, room) = (Ticket(request.id), request.room);
            self.events.push_back(Event::Sent(Sent { ticket, room, at: sent.at, duplicate: sent.duplicate }));
        }
    }

    fn on_left(&mut self, left: &Answer) {
        let Some(request) = left.id.and_then(|id| self.requests.answered(id)) else { return };
        if request.kind == Kind::Leave {
            self.rooms.remove(&request.room);
            self.events.push_back(Event::Left { ticket: Ticket(request.id), room: request.room });
        }
    }

    fn on_gap(&mut self, name: &str, since: String, now: Instant) {
        let (leave, join) = (self.take_id(), self.take_id());
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.phase == Phase::In) else { return };
        room.last.get_or_insert(since);
        if name.starts_with('@') {
            return self.go_offline(Down::Gap, now);
        }
        room.phase = Phase::Out;
        let again = join_request(Kind::Rejoin, (join, name), room);
        self.requests.push_front(again);
        let mut request = Request::new(leave, Kind::CureLeave, name);
        request.frame = super::codec::frame(&Outgoing::Leave { id: leave, room: name }).unwrap_or_default();
        self.requests.push_front(request);
    }

    fn on_member(&mut self, news: MemberNews) {
        let change = match news.event.as_str() {
            "join" => Change::Came,
            "leave" => Change::Went,
            "off" => return self.events.push_back(Event::MembersOff { room: news.room }),
            _ => return,
        };
        if let (Some(user), Some(members)) = (news.user, news.members) {
            self.events.push_back(Event::Member { room: news.room, user, change, members });
        }
    }

    fn on_error(&mut self, trouble: Trouble, now: Instant) {
        let id = trouble.id;
        let refusal = refusal(trouble);
        let Some(mut request) = id.and_then(|id| self.requests.answered(id)) else {
            return self.events.push_back(Event::Error(refusal));
        };
        let repeatable = request.kind != Kind::Send(Lifetime::Ephemeral);
        let fresh = !request.is_send() || request.first.is_none_or(|first| first + REPEAT_MAX > now);
        if refusal.is_temporary() && repeatable && fresh {
            request.postpone(now + self.pace.once(refusal.retry_after));
            return self.requests.put_back(request);
        }
        self.fail(request, refusal);
    }

    /// Nothing more comes of a request.
    fn fail(&mut self, request: Request, refusal: Refusal) {
        if matches!(request.kind, Kind::Join | Kind::Rejoin) {
            self.rooms.remove(&request.room);
        }
        // The caller never asked for the cure of a gap; the join behind it tells how it went.
        if request.kind != Kind::CureLeave {
            self.events.push_back(Event::Failed { ticket: Ticket(request.id), room: request.room, refusal });
        }
    }

    fn on_bye(&mut self, trouble: Trouble, now: Instant) {
        let refusal = refusal(trouble);
        if refusal.code == 0 {
            return self.end(None);
        }
        // Many sessions of ours may be ghosts of connections that broke; who never was in has none.
        let ghosts = refusal.reason == "too_many_sessions" && self.user.is_some();
        if refusal.is_temporary() || ghosts { self.go_offline(Down::Bye(refusal), now) } else { self.end(Some(refusal)) }
    }
}

/// A position is opaque and short.
fn check_position(at: &str) -> Result<(), Fault> {
    if at.len() <= POSITION_BYTES_MAX { Ok(()) } else { Err(Fault::Object) }
}

fn refusal(trouble: Trouble) -> Refusal {
    let Trouble { code, reason, message, retry_after_ms, .. } = trouble;
    Refusal { code, reason, message, retry_after: retry_after_ms.map(Duration::from_millis) }
}
