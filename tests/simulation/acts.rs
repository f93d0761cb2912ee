//! What a client writes: each act makes bytes and notes what must come of them.

use ringroom::ids::Now;
use ringroom::ring::fake::Random;

use super::plan::Plan;
use super::replays::{Question, Range, Stand, Wish};
use super::session::{Asked, Session, Wanted};
use super::tokens::{Charter, Deed, Token};
use super::truth::{Message, MessageId, Truth};
use super::wire::{Place, frame};

/// The run as an act sees it.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) random: &'a mut Random,
    pub(crate) truth: &'a mut Truth,
    pub(crate) step: u64,
    pub(crate) now: Now,
}

impl Stage<'_> {
    /// A token for this user: mostly good, and good for some seconds.
    fn token(&mut self, user: &str, charter: Option<Charter>) -> Token {
        let charter = charter.filter(|_| self.random.percent(80)).unwrap_or_else(|| *self.random.pick(&Charter::ALL));
        let life_ms = *self.random.pick(&[1_500, 20_000, 3_600_000]);
        let now_ms = self.now.unix_ms;
        let (ends_ms, signed) = match self.random.below(100) {
            0..5 => (now_ms + life_ms, false),
            5..9 => (now_ms - self.random.below(10_000), true),
            _ => (now_ms + 200 + self.random.below(life_ms), true),
        };
        Token { user: user.to_owned(), charter, ends_ms, signed }
    }

    /// Where the client stands in a room, or somewhere else that a client may say.
    fn stand(&mut self, room: &str, known: Option<Place>) -> Stand {
        let back = self.random.size(0, 30);
        match self.random.below(20) {
            0 => Stand::Elsewhere,
            // In the future, as if another server had been there.
            1 => Stand::At(Place { ms: u64::MAX / 1_000, n: 7 }),
            2..5 => self.truth.place_back(room, back).or(known).map_or(Stand::Elsewhere, Stand::At),
            _ => known.map_or(Stand::Elsewhere, Stand::At),
        }
    }

    fn wish(&mut self, room: &str, known: Option<Place>) -> Wish {
        let newest = *self.random.pick(&[0, 1, 5, 60, 1_000]);
        match self.random.below(10) {
            0..3 => Wish::Nothing,
            3..5 if newest > 0 => Wish::Newest(newest),
            _ if known.is_some() => Wish::Since(self.stand(room, known), self.random.percent(30).then_some(newest)),
            _ => Wish::Nothing,
        }
    }
}

fn position(stand: Stand) -> String {
    match stand {
        Stand::At(place) => place.text(),
        Stand::Elsewhere => "bad.1700000000000-0".to_owned(),
    }
}

impl Session {
    fn ask_for(&mut self, asked: Asked) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, asked);
        id
    }

    pub(crate) fn hello(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        self.hellos += 1;
        let device = self.device.as_ref().map_or_else(String::new, |d| format!(r#","device":"{d}""#));
        let inbox = self.inbox.map_or_else(String::new, |stand| format!(r#","inbox":"{}""#, position(stand)));
        if stage.plan.verifier.is_none() {
            return frame(&format!(r#"{{"type":"hello","version":1,"user":"{}"{device}{inbox}}}"#, self.user));
        }
        let charter = self.shown.tokens.first().map(|token| token.charter);
        let token = stage.token(&self.user, charter);
        self.shown.show(&token, stage.now);
        // Whose token is not good is sent away.
        self.stop_talking |= self.hellos > 1 && (self.shown.bad || self.shown.expired);
        frame(&format!(r#"{{"type":"hello","version":1,"token":"{}"{device}{inbox}}}"#, token.text()))
    }

    /// Says in the `hello` to come where its inbox stood when it was last here.
    pub(crate) fn resume_inbox(&mut self, stage: &mut Stage<'_>) {
        let room = format!("@{}", self.user);
        if let Some(known) = self.stands.get(&room).copied() {
            self.inbox = Some(stage.stand(&room, Some(known)));
        }
    }

    /// Rooms where it has been before.
    pub(crate) fn rooms_known(&self) -> Vec<String> {
        self.stands.keys().filter(|room| !room.starts_with('@')).cloned().collect()
    }

    pub(crate) fn join(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        let room = self.some_room(stage);
        self.join_room(stage, room)
    }

    pub(crate) fn join_room(&mut self, stage: &mut Stage<'_>, room: String) -> Vec<u8> {
        let wish = stage.wish(&room, self.stands.get(&room).copied());
        let (presence, echo) = (stage.random.percent(40), !stage.random.percent(15));
        let allowed = self.shown.allows(&room, Deed::Join);
        let allowed = allowed.zip(if presence { self.shown.allows(&room, Deed::Presence) } else { Some(true) });
        let before = self.wanted.get(&room).copied();
        let wanted = self.wanted.entry(room.clone()).or_insert(Wanted { member: true, echo, doubtful: false });
        wanted.member = true;
        wanted.echo = echo;
        match (allowed, before) {
            (Some((true, true)), _) => {}
            // It is going to be refused, and changes nothing.
            (Some(_), Some(before)) => *wanted = before,
            (Some(_), None) => wanted.member = false,
            (None, _) => wanted.doubtful = true,
        }
        let id = self.ask_for(Asked::Join { room: room.clone(), presence, wish });
        let history = |newest: Option<u32>| newest.map_or_else(String::new, |n| format!(r#","history":{n}"#));
        let replay = match wish {
            Wish::Nothing => String::new(),
            Wish::Newest(newest) => history(Some(newest)),
            Wish::Since(stand, newest) => format!(r#","since":"{}"{}"#, position(stand), history(newest)),
        };
        frame(&format!(r#"{{"type":"join","id":{id},"room":"{room}","presence":{presence},"echo":{echo}{replay}}}"#))
    }

    pub(crate) fn leave(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        let room = self.own_room(stage).unwrap_or_else(|| self.some_room(stage));
        if let Some(wanted) = self.wanted.get_mut(&room) {
            wanted.member = false;
        }
        let id = self.ask_for(Asked::Leave { room: room.clone() });
        frame(&format!(r#"{{"type":"leave","room":"{room}","id":{id}}}"#))
    }

    /// To a room it is in, to somebody's inbox, or (refused) to any room.
    pub(crate) fn send(&mut self, stage: &mut Stage<'_>, body_bytes: usize) -> Vec<u8> {
        let room = match stage.random.below(100) {
            0..15 => format!("@u{}", stage.random.below(stage.plan.users)),
            15..18 => self.some_room(stage),
            _ => self.own_room(stage).unwrap_or_else(|| self.some_room(stage)),
        };
        let inbox = room.starts_with('@');
        let wanted = self.wanted.get(&room).copied();
        let ephemeral = stage.random.percent(8);
        let message = stage.truth.next_id();
        let body = body(stage.random, message, body_bytes);
        let key = (!ephemeral && stage.random.percent(40)).then(|| stage.truth.next_key(&self.user, &room));
        let keyed = key.is_some();
        let suffix = key.as_ref().map_or_else(String::new, |key| format!(r#","key":"{key}""#));
        stage.truth.messages.push(Message {
            session: self.number,
            user: self.user.clone(),
            room: room.clone(),
            body: body.clone(),
            ephemeral,
            echo: inbox || wanted.is_none_or(|w| w.echo),
            echo_doubtful: wanted.is_some_and(|w| w.doubtful),
            written_step: stage.step,
            key,
            repeaters: Vec::new(),
        });
        let member = inbox || wanted.is_some_and(|w| w.member);
        let id = self.ask_for(Asked::Send { room: room.clone(), message, wanted: member, keyed, at_ms: stage.now.mono_ms() });
        let flag = if ephemeral { r#","ephemeral":true"# } else { "" };
        frame(&format!(r#"{{"type":"send","id":{id},"room":"{room}","body":{body}{flag}{suffix}}}"#))
    }

    /// Sends once more, with its key, what may have been sent or not; sometimes what surely was.
    pub(crate) fn repeat(&mut self, stage: &mut Stage<'_>, sure: bool) -> Option<Vec<u8>> {
        let message = if sure {
            let sent: Vec<MessageId> = self.sent.iter().rev().take(20).copied().collect();
            *sent.get(stage.random.index(sent.len().max(1)))?
        } else {
            self.unsent.pop()?
        };
        let at = usize::try_from(message).expect("an index");
        let (number, now_ms) = (self.number, stage.now.mono_ms());
        let written = &mut stage.truth.messages[at];
        let (key, room, body) = (written.key.clone()?, written.room.clone(), written.body.clone());
        written.repeaters.push(number);
        let member = room.starts_with('@') || self.wanted.get(&room).is_some_and(|wanted| wanted.member);
        let id = self.ask_for(Asked::Send { room: room.clone(), message, wanted: member, keyed: true, at_ms: now_ms });
        Some(frame(&format!(r#"{{"type":"send","id":{id},"room":"{room}","key":"{key}","body":{body}}}"#)))
    }

    pub(crate) fn ask(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        match stage.random.below(4) {
            0 => {
                let id = self.ask_for(Asked::Ping);
                frame(&format!(r#"{{"type":"ping","id":{id}}}"#))
            }
            1 => {
                let room = self.own_room(stage).unwrap_or_else(|| format!("@{}", self.user));
                self.read_page(stage, room)
            }
            2 => {
                let id = self.ask_for(Asked::Refused);
                frame(&format!(r#"{{"type":"join","id":{id},"room":"@u0"}}"#))
            }
            _ => {
                let room = self.own_room(stage).unwrap_or_else(|| format!("@{}", self.user));
                self.who(&room)
            }
        }
    }

    fn read_page(&mut self, stage: &mut Stage<'_>, room: String) -> Vec<u8> {
        let known = self.stands.get(&room).copied();
        let back = stage.random.size(0, 30);
        let gap = self.gapped.get(&room).copied();
        let place = gap.or_else(|| stage.truth.place_back(&room, back));
        let (range, side) = match (stage.random.below(10), place) {
            (0, _) => (Range::BeforeElsewhere, format!(r#","before":"{}""#, position(Stand::Elsewhere))),
            // All that is retained is behind an earlier life of the log.
            (1, _) => (Range::After(Place::default()), format!(r#","after":"{}""#, position(Stand::Elsewhere))),
            (2..5, Some(place)) => (Range::Before(place), format!(r#","before":"{}""#, place.text())),
            (5..8, Some(place)) => (Range::After(place), format!(r#","after":"{}""#, place.text())),
            _ => (Range::Newest, String::new()),
        };
        let limit = stage.random.percent(70).then(|| *stage.random.pick(&[1, 3, 50, 1_000]));
        let count = limit.map_or_else(String::new, |limit| format!(r#","limit":{limit}"#));
        let question = Question { room: room.clone(), range, limit: limit.unwrap_or(50), known };
        let id = self.ask_for(Asked::History(question));
        frame(&format!(r#"{{"type":"history","id":{id},"room":"{room}"{side}{count}}}"#))
    }

    pub(crate) fn who(&mut self, room: &str) -> Vec<u8> {
        let id = self.ask_for(Asked::Presence { room: room.to_owned() });
        frame(&format!(r#"{{"type":"presence","id":{id},"room":"{room}"}}"#))
    }

    pub(crate) fn pong() -> Vec<u8> {
        frame(r#"{"type":"pong"}"#)
    }

    pub(crate) fn say_bye(&mut self) -> Vec<u8> {
        self.sins.bye = true;
        self.stop_talking = true;
        frame(r#"{"type":"bye"}"#)
    }

    pub(crate) fn garbage(&mut self, random: &mut Random) -> Vec<u8> {
        self.sins.garbage += 1;
        let deep = "[".repeat(40);
        let texts = [
            "nonsense",
            "[]",
            "{\"type\":\"send\"",
            r#"{"type":"join","room":"not a name"}"#,
            r#"{"type":"join","room":7}"#,
            r#"{"type":"send","room":"r0"}"#,
            r#"{"type":"fly"}"#,
            r#"{"type":"join","room":"r0","room":"r1"}"#,
            "{\"type\":\"\u{0}\"}",
            deep.as_str(),
        ];
        frame(texts[random.index(texts.len())])
    }

    pub(crate) fn bad_frame(&mut self, random: &mut Random) -> Vec<u8> {
        self.sins.bad_frame = true;
        self.stop_talking = true;
        let len: u32 = *random.pick(&[0, 64 * 1024 + 1, 1 << 31, u32::MAX]);
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.extend_from_slice(b"whatever");
        bytes
    }

    pub(crate) fn second_hello(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        if stage.random.percent(80) {
            return self.hello(stage);
        }
        self.hellos += 1;
        self.sins.wrong_hello = true;
        self.stop_talking = true;
        self.shown.bad |= stage.plan.verifier.is_some();
        match stage.plan.verifier {
            Some(_) if stage.random.percent(70) => {
                let ends_ms = stage.now.unix_ms + 60_000;
                let token = Token { user: "somebody-else".into(), charter: Charter::Everything, ends_ms, signed: true };
                frame(&format!(r#"{{"type":"hello","version":1,"token":"{}"}}"#, token.text()))
            }
            _ => frame(r#"{"type":"hello","version":1,"user":"somebody-else"}"#),
        }
    }

    fn some_room(&self, stage: &mut Stage<'_>) -> String {
        format!("r{}", stage.random.below(stage.plan.rooms))
    }

    fn own_room(&self, stage: &mut Stage<'_>) -> Option<String> {
        let own: Vec<&String> = self.wanted.iter().filter(|(_, wanted)| wanted.member).map(|(room, _)| room).collect();
        if own.is_empty() { None } else { Some((*stage.random.pick(&own)).clone()) }
    }
}

/// JSON in one of several hands: it has to arrive byte for byte.
fn body(random: &mut Random, message: u64, bytes: usize) -> String {
    let pad: String = std::iter::repeat_n('x', bytes).collect();
    match random.below(4) {
        0 => format!(r#"{{"n":{message},"pad":"{pad}"}}"#),
        1 => format!("{{ \"n\" :  {message} ,\t\"pad\":\"\\u0041é{pad}\"}}"),
        2 => format!("{{\"n\":{message},\"list\":[1,2.50,-0,1e3,null,true],\"pad\":\"{pad}\"}}"),
        _ => format!("{{\n\"n\": {message},\n\"pad\": \"{pad}\\\\\\\"\"\n}}"),
    }
}
