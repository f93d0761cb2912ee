//! One client's connection: what it asked for, what it was told, and whether the two agree.
//!
//! Everything a reader can judge at once is judged here, frame by frame; what needs the whole run goes to [`Truth`].

use std::collections::{BTreeMap, BTreeSet};

use ringroom::reactor::Doing;
use ringroom::ring::fake::{ConnectionId, End};

use super::memory::Memory;
use super::replays::{Page, Question, Said, Stand, Wish};
use super::tokens::{Deed, Shown};
use super::truth::{Gap, Membership, MessageId, SessionNumber, Truth};
use super::wire::{Cutter, EPOCH, Line, Object, Place};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connected; `hello` may be on its way.
    Strange,
    Open,
    /// `bye` has come; the end of the stream must follow.
    Farewell,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    All,
    /// This many bytes at a time.
    Slow(usize),
    /// Nothing before this time.
    StoppedUntil(u64),
    Never,
}

#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Join { room: String, presence: bool, wish: Wish },
    Leave { room: String },
    Send { room: String, message: MessageId, wanted: bool, keyed: bool, at_ms: u64 },
    Presence { room: String },
    History(Question),
    Ping,
    Refused,
}

/// What the client knows of a room it is in.
#[derive(Debug)]
pub(crate) struct Inside {
    /// Index of its [`Membership`].
    pub(crate) membership: usize,
    pub(crate) presence: bool,
    pub(crate) users: BTreeMap<String, bool>,
    /// Index of the replay whose messages come next.
    pub(crate) replay: Option<usize>,
}

/// What the client has done that the server may hold against it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sins {
    /// It went away in some manner, or stopped sending for good.
    pub(crate) left: bool,
    pub(crate) bye: bool,
    pub(crate) garbage: u32,
    pub(crate) bad_frame: bool,
    pub(crate) silent: bool,
    /// It did not read for a time, or reads slowly.
    pub(crate) slow: bool,
    pub(crate) wrong_hello: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: SessionNumber,
    pub(crate) connection: ConnectionId,
    pub(crate) user: String,
    pub(crate) device: Option<String>,
    pub(crate) phase: Phase,
    pub(crate) reading: Reading,
    pub(crate) next_id: u64,
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// By its own last word on each room, in the order written.
    pub(crate) wanted: BTreeMap<String, Wanted>,
    pub(crate) inside: BTreeMap<String, Inside>,
    /// Positions and numbers of its own messages that were answered with `sent`.
    pub(crate) sent: BTreeSet<MessageId>,
    pub(crate) ephemeral_seen: BTreeSet<MessageId>,
    /// Per room, its inbox among them: all that was there up to here, from where it began, has been read.
    pub(crate) stands: BTreeMap<String, Place>,
    /// Rooms in which it was told a gap and has not looked for the rest: it stands where the gap began.
    pub(crate) gapped: BTreeMap<String, Place>,
    /// Where its inbox stood when it said so in its `hello`.
    pub(crate) inbox: Option<Stand>,
    /// Messages with a key that it does not know to be sent.
    pub(crate) unsent: Vec<MessageId>,
    pub(crate) shown: Shown,
    pub(crate) hellos: u32,
    left_replaying: bool,
    pub(crate) sins: Sins,
    pub(crate) end: Option<End>,
    pub(crate) farewell: Option<String>,
    /// The rest of a frame whose beginning was written.
    pub(crate) unwritten: Vec<u8>,
    pub(crate) stop_talking: bool,
    cutter: Cutter,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) member: bool,
    pub(crate) echo: bool,
    /// A join was refused: what followed it may be refused too.
    pub(crate) doubtful: bool,
}

pub(crate) struct Context<'a> {
    pub(crate) truth: &'a mut Truth,
    pub(crate) step: u64,
    pub(crate) now_ms: u64,
    /// The clock on the wall may step.
    pub(crate) clock_steps: bool,
    /// Logins need tokens.
    pub(crate) tokens: bool,
    /// Shards stand still at times.
    pub(crate) frozen: bool,
    /// Requests above a user's rate are refused.
    pub(crate) rejects: bool,
    /// The log's deadline.
    pub(crate) log_ms: u64,
    pub(crate) draining: bool,
    /// Rooms that drop the oldest messages of slow readers.
    pub(crate) dropping: &'a BTreeSet<String>,
    /// Refusals for want of room are to be expected.
    pub(crate) tight: bool,
    /// Even who reads all at once may fall behind.
    pub(crate) narrow: bool,
}

type Verdict = Result<(), String>;

impl Asked {
    /// The message that may be sent again.
    pub(crate) fn keyed_message(&self) -> Option<MessageId> {
        match self {
            Asked::Send { message, keyed: true, .. } => Some(*message),
            _ => None,
        }
    }
}

impl Session {
    pub(crate) fn new(number: SessionNumber, connection: ConnectionId, memory: Memory) -> Self {
        let Memory { user, device, stands, unsent } = memory;
        Self {
            number,
            connection,
            user,
            device,
            phase: Phase::Strange,
            reading: Reading::All,
            next_id: 1,
            asked: BTreeMap::new(),
            wanted: BTreeMap::new(),
            inside: BTreeMap::new(),
            sent: BTreeSet::new(),
            ephemeral_seen: BTreeSet::new(),
            stands,
            gapped: BTreeMap::new(),
            inbox: None,
            unsent,
            shown: Shown::default(),
            hellos: 0,
            left_replaying: false,
            sins: Sins::default(),
            end: None,
            farewell: None,
            unwritten: Vec::new(),
            stop_talking: false,
            cutter: Cutter::default(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Messages of a replay are still to come, or were when it left.
    pub(crate) fn is_replaying(&self) -> bool {
        self.left_replaying || self.inside.values().any(|inside| inside.replay.is_some())
    }

    /// It has not read the answer to a join with a replay, and its shard has nothing left to take or to answer: both are on their way.
    pub(crate) fn is_owed_a_replay(&self, doing: Doing) -> bool {
        let asked = |asked: &Asked| matches!(asked, Asked::Join { wish: Wish::Newest(_) | Wish::Since(..), .. });
        !doing.is_something() && self.hellos > 0 && self.asked.values().any(asked)
    }

    /// It is in no room any longer.
    pub(crate) fn forget_rooms(&mut self) {
        self.left_replaying = self.is_replaying();
        self.inside.clear();
    }

    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.cutter.buffer()
    }

    /// Judges whatever whole frames have come. The texts of pings to be answered are counted in the result.
    pub(crate) fn read(&mut self, context: &mut Context<'_>) -> Result<u32, String> {
        let mut pings = 0;
        while let Some(text) = self.cutter.next() {
            let object: Object<'_> = serde_json::from_slice(&text)
                .map_err(|e| format!("not an object of the protocol: {e}: {}", String::from_utf8_lossy(&text)))?;
            pings += u32::from(object.kind == "ping");
            self.judge(&object, context).map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&text)))?;
        }
        Ok(pings)
    }

    /// The stream has ended; `broken` when the kernel did it.
    pub(crate) fn finish(&mut self, end: End, broken: bool, context: &mut Context<'_>) -> Verdict {
        self.end = Some(end);
        let before = std::mem::replace(&mut self.phase, Phase::Ended);
        self.forget_rooms();
        // Who was never accepted is not spoken to.
        let unheard = before == Phase::Strange && context.draining;
        let excused = broken || unheard || self.sins.left || self.sins.slow;
        if end == End::Fin && !self.cutter.is_at_boundary() && !excused {
            return Err("the stream ended inside a frame".into());
        }
        if before != Phase::Farewell && !excused && !context.tight {
            let (draining, sins, asked) = (context.draining, self.sins, &self.asked);
            return Err(format!(
                "the connection ended ({end:?}) in phase {before:?} without a bye, draining {draining}, {sins:?}, asked {asked:?}"
            ));
        }
        Ok(())
    }

    fn judge(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        match self.phase {
            Phase::Strange if !matches!(object.kind, "welcome" | "bye") => return Err("the first object is neither welcome nor bye".into()),
            Phase::Farewell | Phase::Ended => return Err("an object behind bye".into()),
            _ => {}
        }
        match object.kind {
            "welcome" => self.welcome(object, context),
            "joined" => self.joined(object, context),
            "left" => self.left(object, context),
            "sent" => self.sent(object, context),
            "message" => self.message(object, context),
            "presence" => self.presence(object),
            "history" => self.page(object, context),
            "member" => self.member(object),
            "gap" => self.gap(object, context),
            "ping" => Ok(()),
            "pong" => self.answer(object, "pong", |asked| matches!(asked, Asked::Ping)),
            "error" => self.error(object, context),
            "bye" => self.bye(object, context),
            kind => Err(format!("an object of type {kind}")),
        }
    }

    fn welcome(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        if self.hellos == 0 || object.user != Some(&self.user) || object.version != Some(1) {
            return Err("a welcome to somebody else".into());
        }
        self.shown.welcomed(object.expires_at)?;
        let inbox = object.inbox.as_ref().ok_or("a welcome without inbox")?;
        let said = Said { at: position(Some(inbox.at))?, replay: inbox.replay, recovered: inbox.recovered };
        let again = self.phase == Phase::Open;
        let wish = self.inbox.filter(|_| !again).map_or(Wish::Nothing, |stand| Wish::Since(stand, None));
        let room = format!("@{}", self.user);
        if again {
            return context.truth.begin_replay(self.number, &room, wish, said).map(|_| ());
        }
        self.phase = Phase::Open;
        self.enter(room.clone(), said.at, false, context);
        self.follow(&room, wish, said, context)
    }

    fn enter(&mut self, room: String, since: Place, presence: bool, context: &mut Context<'_>) {
        let membership = context.truth.memberships.len();
        let (session, joined_step) = (self.number, context.step);
        context.truth.memberships.push(Membership {
            session,
            room: room.clone(),
            since,
            joined_step,
            seen: Vec::new(),
            gaps: Vec::new(),
            stayed: false,
        });
        self.inside.insert(room, Inside { membership, presence, users: BTreeMap::new(), replay: None });
    }

    /// An answer has come that a replay may follow.
    fn follow(&mut self, room: &str, wish: Wish, said: Said, context: &mut Context<'_>) -> Verdict {
        let inside = self.inside.get_mut(room).expect("entered by the caller");
        if inside.replay.is_some() {
            return Err("a replay was cut short by another answer".into());
        }
        let index = context.truth.begin_replay(self.number, room, wish, said)?;
        inside.replay = (said.replay > 0).then_some(index);
        match (wish, said.recovered) {
            // Everything behind the position follows, whatever the room says of itself.
            (Wish::Since(Stand::At(place), _), Some(true)) => {
                let membership = &mut context.truth.memberships[inside.membership];
                if membership.seen.is_empty() && membership.gaps.is_empty() {
                    membership.since = membership.since.max(place);
                }
                if said.replay == 0 {
                    self.stands.insert(room.to_owned(), place.max(said.at));
                }
            }
            _ if said.replay == 0 => {
                self.stands.insert(room.to_owned(), said.at);
            }
            _ => {
                self.stands.remove(room);
            }
        }
        Ok(())
    }

    /// Takes the question an answer belongs to.
    fn question(&mut self, object: &Object<'_>) -> Result<Option<Asked>, String> {
        let Some(id) = object.id else { return Ok(None) };
        self.asked.remove(&id).map(Some).ok_or_else(|| "an answer to nothing, or a second one".into())
    }

    fn answer(&mut self, object: &Object<'_>, name: &str, fits: impl Fn(&Asked) -> bool) -> Verdict {
        match self.question(object)? {
            Some(asked) if !fits(&asked) => Err(format!("{name} answers {asked:?}")),
            _ => Ok(()),
        }
    }

    fn joined(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let room = object.room.ok_or("joined without room")?;
        let since = position(object.at)?;
        let Some(Asked::Join { room: asked, presence, wish }) = self.question(object)? else {
            return Err("joined was not asked for".into());
        };
        let replay = object.replay.ok_or("joined without replay")?;
        if asked != room || object.members.is_none_or(|m| m == 0) {
            return Err("joined does not fit the request".into());
        }
        self.may(room, Deed::Join)?;
        if presence {
            self.may(room, Deed::Presence)?;
        }
        if let Some(inside) = self.inside.get_mut(room) {
            inside.presence = presence;
            inside.users.clear();
        } else {
            self.enter(room.to_owned(), since, presence, context);
        }
        self.gapped.remove(room);
        self.follow(room, wish, Said { at: since, replay, recovered: object.recovered }, context)
    }

    /// The server has done what needs this right.
    fn may(&self, room: &str, deed: Deed) -> Verdict {
        let own_inbox = deed == Deed::Presence && room.starts_with('@');
        let allowed = own_inbox || self.shown.allows(room, deed) != Some(false);
        if allowed { Ok(()) } else { Err(format!("{deed:?} in {room} is not allowed by {:?}", self.shown)) }
    }

    /// Whether a refusal for want of rights is deserved.
    fn may_not(&self, asked: &Asked) -> bool {
        let refused = |room: &str, deed| self.shown.allows(room, deed) != Some(true);
        match asked {
            Asked::Refused => true,
            Asked::Join { room, presence, .. } => refused(room, Deed::Join) || (*presence && refused(room, Deed::Presence)),
            Asked::Send { room, .. } => refused(room, Deed::Send),
            Asked::Presence { room } => !room.starts_with('@') && refused(room, Deed::Presence),
            Asked::Leave { .. } | Asked::History(_) | Asked::Ping => false,
        }
    }

    fn left(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let room = object.room.ok_or("left without room")?;
        let question = self.question(object)?;
        if question.is_none() && self.shown.mixed {
            // A fresh token does not allow the room any longer.
            self.wanted.entry(room.to_owned()).and_modify(|wanted| wanted.doubtful = true);
            context.truth.doubt_echo(self.number, room);
            self.inside.remove(room);
            return Ok(());
        }
        match question {
            Some(Asked::Leave { room: asked }) if asked == room => match self.inside.remove(room) {
                Some(Inside { replay: Some(_), .. }) => Err("a replay was cut short by left".into()),
                _ => Ok(()),
            },
            asked => Err(format!("left answers {asked:?}")),
        }
    }

    fn sent(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let room = object.room.ok_or("sent without room")?;
        let Some(Asked::Send { room: asked, message, .. }) = self.question(object)? else { return Err("sent was not asked for".into()) };
        let written = context.truth.message(message).ok_or("sent of what nobody wrote")?;
        if asked != room || written.ephemeral != object.at.is_none() {
            return Err("sent does not fit the request".into());
        }
        if object.duplicate.is_some() && (object.duplicate == Some(false) || written.repeaters.is_empty()) {
            return Err("a duplicate of what was sent once".into());
        }
        self.may(room, Deed::Send)?;
        self.sent.insert(message);
        self.unsent.retain(|unsent| *unsent != message);
        if written.ephemeral {
            return Ok(());
        }
        let at = position(object.at)?;
        if object.duplicate.is_some() { context.truth.place(message, at) } else { context.truth.sent_first(message, at) }
    }

    fn message(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let room = object.room.ok_or("a message without room")?;
        let body = object.body.ok_or("a message without body")?.get();
        let id = message_number(body).ok_or("a body that nobody wrote")?;
        let written = context.truth.message(id).ok_or("a message that nobody wrote")?;
        if written.body != body || written.room != room || Some(written.user.as_str()) != object.from || object.ts.is_none() {
            return Err(format!("a message other than it was written: {written:?}"));
        }
        let (ephemeral, echo) = (written.ephemeral, written.echo);
        // Who repeats a message may have been its sender, or not.
        let own = written.session == self.number && written.repeaters.is_empty();
        let doubtful = written.echo_doubtful || self.wanted.get(room).is_some_and(|wanted| wanted.doubtful);
        let Some(inside) = self.inside.get_mut(room) else { return Err("a message of a room that the session is not in".into()) };
        let membership = inside.membership;
        if let Some(index) = inside.replay {
            let at = position(object.at)?;
            if context.truth.replayed(index, at, id)? {
                inside.replay = None;
            }
            self.stand_at(room, at);
            return context.truth.place(id, at);
        }
        if own && !echo && !doubtful {
            return Err("an own message without echo".into());
        }
        if own && !self.sent.contains(&id) && !self.gave_up(id) {
            return Err("an own message before its sent".into());
        }
        if ephemeral {
            let once = self.ephemeral_seen.insert(id) && object.at.is_none();
            return if once { Ok(()) } else { Err("an ephemeral message twice, or with a position".into()) };
        }
        let at = position(object.at)?;
        let membership = &mut context.truth.memberships[membership];
        if membership.seen.last().is_some_and(|(before, _)| *before >= at) || at <= membership.since {
            return Err(format!("a position that does not rise: {at:?} behind {:?} and {:?}", membership.since, membership.seen.last()));
        }
        membership.seen.push((at, id));
        self.stand_at(room, at);
        let late = self.shown.last_end_ms().is_some_and(|end_ms| at.ms > end_ms + 5_000);
        if late && !context.clock_steps {
            return Err(format!("a message that was sent when the token had ended, {:?}", self.shown));
        }
        context.truth.place(id, at)
    }

    fn gap(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let room = object.room.ok_or("a gap without room")?;
        let since = position(object.since)?;
        if !context.dropping.contains(room) {
            return Err("a gap in a room that drops nothing".into());
        }
        let Some(inside) = self.inside.get(room).filter(|inside| inside.replay.is_none()) else {
            return Err("a gap in a room that the session is not in, or inside a replay".into());
        };
        let membership = &mut context.truth.memberships[inside.membership];
        let behind = membership.seen.last().map_or(membership.since, |(at, _)| *at);
        if since < behind || membership.gaps.last().is_some_and(|gap| gap.since >= since) {
            return Err(format!("a gap since {since:?} where {behind:?} was read, behind {:?}", membership.gaps.last()));
        }
        membership.gaps.push(Gap { behind, since });
        context.truth.gaps += 1;
        let stand = *self.gapped.entry(room.to_owned()).or_insert(since);
        self.stands.insert(room.to_owned(), stand);
        Ok(())
    }

    fn stand_at(&mut self, room: &str, at: Place) {
        if self.gapped.contains_key(room) {
            return;
        }
        let stand = self.stands.entry(room.to_owned()).or_insert(at);
        *stand = at.max(*stand);
    }

    /// A page of history: its messages as they were written, its place in the order judged at the end.
    fn page(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let asked = self.question(object)?;
        let Some(Asked::History(question)) = asked else { return Err(format!("history answers {asked:?}")) };
        let (Some(messages), Some(more)) = (object.messages, object.more) else { return Err("history without messages or more".into()) };
        let messages: Vec<Line<'_>> = serde_json::from_str(messages.get()).map_err(|e| format!("not messages: {e}"))?;
        if object.room != Some(&question.room) || messages.len() > question.limit as usize {
            return Err("history does not fit the request".into());
        }
        let mut seen = Vec::with_capacity(messages.len());
        for line in messages {
            let at = position(Some(line.at))?;
            let id = message_number(line.body.get()).ok_or("a body that nobody wrote")?;
            let written = context.truth.message(id).ok_or("a message that nobody wrote")?;
            let same = written.body == line.body.get() && written.room == question.room && written.user == line.from && !written.ephemeral;
            if !same || line.ts != at.ms {
                return Err(format!("a page holds a message other than it was written: {written:?}"));
            }
            context.truth.place(id, at)?;
            seen.push((at, id));
        }
        let forgetful = context.truth.evictions > 0;
        context.truth.pages.push(Page { session: self.number, question, more, seen, forgetful, read_ms: context.truth.wall_ms });
        Ok(())
    }

    /// Its `send` was answered with "unknown or not sent", so the message may come without `sent`.
    fn gave_up(&self, id: MessageId) -> bool {
        !self.asked.values().any(|asked| matches!(asked, Asked::Send { message, .. } if *message == id))
    }

    fn presence(&mut self, object: &Object<'_>) -> Verdict {
        let users = object.users.as_ref().ok_or("presence without users")?;
        let distinct: BTreeSet<_> = users.iter().collect();
        if distinct.len() != users.len() || object.members != u32::try_from(users.len()).ok() || object.truncated != Some(false) {
            return Err("presence counts wrong".into());
        }
        self.may(object.room.ok_or("presence without room")?, Deed::Presence)?;
        self.answer(object, "presence", |asked| matches!(asked, Asked::Presence { .. }))
    }

    fn member(&mut self, object: &Object<'_>) -> Verdict {
        let room = object.room.ok_or("member without room")?;
        let Some(inside) = self.inside.get_mut(room) else { return Err("member of a room that the session is not in".into()) };
        if !inside.presence {
            return Err("member without having asked for it".into());
        }
        let (Some(user), Some(event)) = (object.user, object.event) else { return Err("member without user or event".into()) };
        let here = match event {
            "join" => true,
            "leave" => false,
            _ => return Err("an unknown event".into()),
        };
        if inside.users.insert(user.to_owned(), here) == Some(here) {
            return Err(format!("{user} did {event} twice"));
        }
        Ok(())
    }

    fn error(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let reason = object.reason.ok_or("an error without reason")?;
        if object.id.is_none() {
            // A second `hello` has no number.
            let renewal = self.hellos > 1 && (reason == "overloaded" || (reason == "rate_limited" && context.rejects));
            let guilty = self.sins.garbage > 0 || renewal;
            return if guilty { Ok(()) } else { Err("an error about nothing".into()) };
        }
        let asked = self.question(object)?.ok_or("checked above")?;
        if reason == "rate_limited" {
            self.unsent.extend(asked.keyed_message());
            if !context.rejects || object.retry_after_ms.is_none_or(|ms| ms == 0) {
                return Err("not above any rate, or without a time to wait".into());
            }
        }
        let fits = match (&asked, reason) {
            (Asked::Refused, _) => true,
            (Asked::Join { room, .. } | Asked::Leave { room }, "too_many_rooms" | "overloaded" | "rate_limited") => {
                if let Some(wanted) = self.wanted.get_mut(room) {
                    wanted.doubtful = true;
                }
                context.truth.doubt_echo(self.number, room);
                true
            }
            (Asked::Send { at_ms, .. }, "log_unavailable") => {
                self.unsent.extend(asked.keyed_message());
                context.now_ms >= at_ms + context.log_ms
            }
            (_, "overloaded") => {
                self.unsent.extend(asked.keyed_message());
                true
            }
            (_, "rate_limited") => true,
            (_, "forbidden") => {
                if let Asked::Join { room, .. } = &asked {
                    self.wanted.entry(room.clone()).and_modify(|wanted| wanted.doubtful = true);
                    context.truth.doubt_echo(self.number, room);
                }
                self.may_not(&asked)
            }
            (_, "not_joined") if self.shown.mixed => true,
            (Asked::Send { room, wanted, .. }, "not_joined") => !wanted || self.wanted.get(room).is_some_and(|w| w.doubtful),
            (Asked::Presence { room } | Asked::History(Question { room, .. }), "not_joined") => {
                self.wanted.get(room).is_some_and(|w| w.doubtful)
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("an error that {asked:?} does not deserve")) }
    }

    fn bye(&mut self, object: &Object<'_>, context: &mut Context<'_>) -> Verdict {
        let reason = object.reason.ok_or("a bye without reason")?;
        self.phase = Phase::Farewell;
        self.farewell = Some(reason.to_owned());
        self.forget_rooms();
        let sins = self.sins;
        let fits = match reason {
            "bye" => sins.bye,
            "protocol_error" => sins.garbage >= 8,
            "bad_frame" | "frame_too_large" => sins.bad_frame,
            "malformed" | "bad_field" | "hello_first" | "version" | "unknown_type" => {
                sins.garbage > 0 || sins.bad_frame || sins.wrong_hello
            }
            "forbidden" => sins.wrong_hello || self.shown.mixed,
            "bad_token" => self.shown.bad,
            "token_expired" => self.shown.expired || context.clock_steps || context.now_ms >= self.shown.first_end_ms,
            // Completions that are seconds late can make these of honest clients.
            "handshake_timeout" | "frame_timeout" => true,
            // Who has said his last word does not answer pings while his requests wait for their answers.
            "idle" => sins.silent || sins.slow || sins.left || self.stop_talking,
            "slow_consumer" => sins.slow || context.tight || context.narrow,
            // Nobody had time for the token; or a shard stood still for so long that it turned newcomers away when it went on.
            "overloaded" => context.tight || context.tokens || context.frozen,
            "replaced" => self.device.is_some(),
            "too_many_sessions" => true,
            "draining" => context.draining,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("a bye that the client does not deserve: {sins:?}")) }
    }
}

fn position(text: Option<&str>) -> Result<Place, String> {
    match Place::parse(text.ok_or("no position")?).ok_or("not a position")? {
        (EPOCH, place) => Ok(place),
        (epoch, _) => Err(format!("a position of the epoch {epoch:x}")),
    }
}

/// A body begins with its number, in whatever white space.
pub(crate) fn message_number(body: &str) -> Option<MessageId> {
    let (_, rest) = body.split_once(':')?;
    let digits = rest.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    digits[..end].parse().ok()
}
