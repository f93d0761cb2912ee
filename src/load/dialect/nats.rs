//! NATS: lines that end in CR LF, a message's payload behind its line ("Client Protocol" of the NATS documentation).
//!
//! A room is a subject. The server speaks first: its `INFO` is the welcome; a `PING` behind the subscriptions is answered when they are all in force. Nothing
//! answers a `PUB` (verbose is off), so the sender's own copy stands in for the answer. Publishers are served apart from each other, so subscribers
//! may see two publishers' messages in different orders. With protocol 0 the server sends no second `INFO`.

use serde::Deserialize;

use crate::limits::BODY_BYTES_MAX;
use crate::load::body::{Bodies, Stamp};
use crate::load::names::Names;
use crate::load::plan::ServerLimits;

use super::head::{Heads, line, printable, read_number, write_number};
use super::{Abilities, Broken, Event, Login, Tail, delivery};

pub const ABILITIES: Abilities = Abilities { answers: false, room_order: false, resume: false, history: false };

/// Of an `INFO`, by far the longest: the addresses of a cluster are in it.
const LINE_BYTES_MAX: usize = 32 * 1024;
const UNIT_BYTES_MAX: usize = LINE_BYTES_MAX + BODY_BYTES_MAX + 2;
const END: &[u8] = b"\r\n";

#[derive(Debug)]
pub struct Nats {
    names: Names,
    bodies: Bodies,
    heads: Heads,
}

impl Nats {
    pub fn new(names: Names, bodies: Bodies) -> Self {
        let heads = Heads::new(&names, |name| format!("PUB {name} ").into_bytes());
        Self { names, bodies, heads }
    }

    pub fn login(&self, login: &Login<'_>, out: &mut Vec<u8>) -> u32 {
        let user = self.names.user(login.connection);
        let options = format!(
            r#"{{"verbose":false,"pedantic":false,"tls_required":false,"echo":true,"name":"{user}","lang":"ringroom","version":"1","protocol":0}}"#
        );
        out.extend_from_slice(format!("CONNECT {options}\r\n").as_bytes());
        let inbox = login.inbox.then(|| self.names.inbox(login.connection));
        for (id, room) in (1..).zip(login.rooms.iter().map(|wanted| wanted.room).chain(inbox)) {
            out.extend_from_slice(format!("SUB {} {id}\r\n", self.names.room(room)).as_bytes());
        }
        out.extend_from_slice(b"PING\r\n");
        2
    }

    pub fn publish(&self, _id: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        self.heads.write(&self.names, stamp.room, out);
        write_number(self.bodies.size_of(stamp), out);
        out.extend_from_slice(END);
        self.bodies.write(stamp, out);
        out.extend_from_slice(END);
    }

    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PONG\r\n");
    }

    pub fn decode(&mut self, tail: &mut Tail, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), Broken> {
        tail.cut(bytes, UNIT_BYTES_MAX, |bytes| self.unit(bytes, on_event))
    }

    /// A line, and the payload that it announces.
    fn unit(&self, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<Option<usize>, Broken> {
        let Some((line, taken)) = line(bytes, LINE_BYTES_MAX)? else { return Ok(None) };
        let Some(words) = line.strip_prefix(b"MSG ") else {
            on_event(read_line(line));
            return Ok(Some(taken));
        };
        let (subject, size) = read_message(words).ok_or_else(|| Broken(format!("the line {}", printable(line))))?;
        if size > BODY_BYTES_MAX {
            return Err(Broken(format!("a message of {size} bytes")));
        }
        let Some(whole) = bytes.get(..taken + size + END.len()) else { return Ok(None) };
        let body = whole[taken..].strip_suffix(END).ok_or_else(|| Broken("a message longer than announced".into()))?;
        match self.names.number(subject) {
            Some(room) => on_event(delivery(&self.bodies, room, body, whole)),
            None => on_event(Event::Other),
        }
        Ok(Some(whole.len()))
    }
}

/// Subject and size of `subject sid [reply-to] size`.
fn read_message(words: &[u8]) -> Option<(&[u8], usize)> {
    let mut words = words.split(|byte| *byte == b' ');
    let (subject, _sid) = (words.next()?, words.next()?);
    let (third, fourth) = (words.next()?, words.next());
    if words.next().is_some() {
        return None;
    }
    Some((subject, read_number(fourth.unwrap_or(third))?))
}

#[cold]
fn read_line(line: &[u8]) -> Event<'_> {
    match line {
        b"PING" => Event::Ping,
        b"PONG" => Event::Joined { room: None, at: None, replay: 0, recovered: None },
        b"+OK" => Event::Other,
        _ => {
            if let Some(info) = line.strip_prefix(b"INFO ") {
                return welcome(info, line);
            }
            match line.strip_prefix(b"-ERR ") {
                Some(reason) => refusal(reason),
                None => Event::Garbled(line),
            }
        }
    }
}

/// The field of an `INFO` that a plan can break.
#[derive(Deserialize)]
struct Info {
    max_payload: Option<u64>,
}

fn welcome<'a>(info: &'a [u8], line: &'a [u8]) -> Event<'a> {
    match serde_json::from_slice::<Info>(info) {
        Ok(Info { max_payload }) => Event::Welcome(Box::new(ServerLimits { body_bytes: max_payload, ..ServerLimits::default() })),
        Err(_) => Event::Garbled(line),
    }
}

/// All errors end the connection but these two.
fn refusal(reason: &[u8]) -> Event<'static> {
    let text = printable(reason);
    let goes_on = ["Permissions Violation", "Invalid Subject"].iter().any(|start| text.trim_start_matches(['\'', '\\']).starts_with(start));
    if goes_on { Event::Refused { id: None, reason: text } } else { Event::Bye { reason: text } }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::names::RunId;
    use super::super::Wanted;
    use super::*;

    const STAMP: Stamp = Stamp { room: 3, lane: 0, sender: 7, sequence: 1, previous: 0, intended_ns: 5 };

    fn nats(size: usize) -> Nats {
        let run = RunId::new(12_345_678);
        Nats::new(Names::new(run, 50), Bodies::new(run, size.to_string().parse().unwrap()))
    }

    fn body(stamp: &Stamp) -> String {
        let mut out = Vec::new();
        nats(128).bodies.write(stamp, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What the events of `text` are, each in a word, and how it ended.
    fn read(text: &str) -> (Vec<String>, Result<(), Broken>) {
        let mut events = Vec::new();
        let end = nats(128).decode(&mut Tail::default(), text.as_bytes(), &mut |event| events.push(format!("{event:?}")));
        (events, end)
    }

    #[test]
    fn a_login_connects_subscribes_and_asks_for_an_answer_behind_all_of_it() {
        let rooms = [Wanted { room: 3, since: None }, Wanted { room: 4, since: None }];
        let mut out = Vec::new();
        assert_eq!(nats(128).login(&Login { connection: 7, rooms: &rooms, inbox: true }, &mut out), 2);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines[0].starts_with("CONNECT {") && lines[0].contains(r#""echo":true"#) && lines[0].contains(r#""verbose":false"#));
        assert_eq!(lines[1..], ["SUB r614e-00000003 1", "SUB r614e-00000004 2", "SUB @u614e-00000007 3", "PING", ""]);
    }

    #[test]
    fn a_message_is_published_with_its_size() {
        for (room, size) in [(3, 128), (57, 61_440)] {
            let mut out = Vec::new();
            nats(size).publish(0, &Stamp { room, ..STAMP }, &mut out);
            let text = String::from_utf8(out).unwrap();
            let (line, rest) = text.split_once("\r\n").unwrap();
            let subject = if room == 3 { "r614e-00000003" } else { "@u614e-00000007" };
            assert_eq!(line, format!("PUB {subject} {size}"));
            assert_eq!((rest.len(), &rest[size..]), (size + 2, "\r\n"));
        }
    }

    #[test]
    fn a_message_is_told_by_subject_and_body_with_a_reply_subject_or_without() {
        let body = body(&STAMP);
        for words in ["r614e-00000003 1 128", "r614e-00000003 9 reply.to 128"] {
            let (events, end) = read(&format!("MSG {words}\r\n{body}\r\n"));
            assert_eq!(end, Ok(()));
            assert!(events[0].starts_with("Delivery") && events[0].contains("room: 3") && events.len() == 1, "{events:?}");
        }
        assert_eq!(read(&format!("MSG lobby 1 128\r\n{body}\r\n")).0, ["Other"]);
        assert!(read(&format!("MSG r614e-00000004 1 128\r\n{body}\r\n")).0[0].starts_with("Garbled"));
        assert!(read(&format!("MSG r614e-00000003 1 127\r\n{}\r\n", &body[..127])).0[0].starts_with("Garbled"));
    }

    #[test]
    fn words_of_the_server_are_told_apart() {
        let (events, end) =
            read("INFO {\"server_id\":\"x\",\"max_payload\":1048576}\r\n+OK\r\nPING\r\nPONG\r\n-ERR 'Slow Consumer'\r\nwhat\r\n");
        assert_eq!(end, Ok(()));
        assert!(events[0].starts_with("Welcome") && events[0].contains("body_bytes: Some(1048576)"), "{events:?}");
        assert_eq!(events[1..3], ["Other", "Ping"]);
        assert!(events[3].starts_with("Joined") && events[4].starts_with("Bye") && events[4].contains("Slow Consumer"), "{events:?}");
        assert!(events[5].starts_with("Garbled"));
        let refused = "-ERR 'Permissions Violation for Subscription to \"r614e-00000003\"'\r\n";
        assert!(read(refused).0[0].starts_with("Refused"));
    }

    #[test]
    fn what_can_t_be_cut_is_broken_before_it_is_waited_for() {
        let long = "x".repeat(LINE_BYTES_MAX);
        for text in ["MSG a 1 61441\r\n", "MSG a 1\r\n", "MSG a 1 b 5 6\r\n", "MSG a 1 -5\r\n", "MSG a 1 2\r\n123456", "PING\n", &long] {
            assert!(read(text).1.is_err(), "{text}");
        }
    }
}
