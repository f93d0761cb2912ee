//! What a client writes: each act makes bytes and notes what must come of them.

use ringroom::ring::fake::Random;

use super::plan::Plan;
use super::session::{Asked, Session, Wanted};
use super::truth::{Message, Truth};
use super::wire::{Place, frame};

/// The run as an act sees it.
pub(crate) struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) random: &'a mut Random,
    pub(crate) truth: &'a mut Truth,
    pub(crate) step: u64,
}

impl Session {
    fn ask_for(&mut self, asked: Asked) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, asked);
        id
    }

    pub(crate) fn hello(&mut self) -> Vec<u8> {
        self.said_hello = true;
        let device = self.device.as_ref().map_or_else(String::new, |d| format!(r#","device":"{d}""#));
        frame(&format!(r#"{{"type":"hello","version":1,"user":"{}"{device}}}"#, self.user))
    }

    pub(crate) fn join(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        let room = self.some_room(stage);
        let (presence, echo) = (stage.random.percent(40), !stage.random.percent(15));
        let wanted = self.wanted.entry(room.clone()).or_insert(Wanted { member: true, echo, doubtful: false });
        wanted.member = true;
        wanted.echo = echo;
        let id = self.ask_for(Asked::Join { room: room.clone(), presence });
        frame(&format!(r#"{{"type":"join","id":{id},"room":"{room}","presence":{presence},"echo":{echo}}}"#))
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
        stage.truth.messages.push(Message {
            session: self.number,
            user: self.user.clone(),
            room: room.clone(),
            body: body.clone(),
            ephemeral,
            echo: inbox || wanted.is_none_or(|w| w.echo),
            echo_doubtful: wanted.is_some_and(|w| w.doubtful),
            written_step: stage.step,
        });
        let member = inbox || wanted.is_some_and(|w| w.member);
        let id = self.ask_for(Asked::Send { room: room.clone(), message, wanted: member });
        let flag = if ephemeral { r#","ephemeral":true"# } else { "" };
        frame(&format!(r#"{{"type":"send","id":{id},"room":"{room}","body":{body}{flag}}}"#))
    }

    pub(crate) fn ask(&mut self, stage: &mut Stage<'_>) -> Vec<u8> {
        match stage.random.below(4) {
            0 => {
                let id = self.ask_for(Asked::Ping);
                frame(&format!(r#"{{"type":"ping","id":{id}}}"#))
            }
            1 => {
                let room = self.own_room(stage).unwrap_or_else(|| format!("@{}", self.user));
                let after = self.gaps.remove(&room);
                let place = after.as_deref().and_then(|text| Place::parse(text).map(|(_, place)| place));
                let id = self.ask_for(Asked::History { room: room.clone(), after: place });
                let after = after.map_or_else(String::new, |after| format!(r#","after":"{after}","limit":1000"#));
                frame(&format!(r#"{{"type":"history","id":{id},"room":"{room}"{after}}}"#))
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

    pub(crate) fn second_hello(&mut self, random: &mut Random) -> Vec<u8> {
        if random.percent(80) {
            return self.hello();
        }
        self.sins.wrong_hello = true;
        self.stop_talking = true;
        frame(r#"{"type":"hello","version":1,"user":"somebody-else"}"#)
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
