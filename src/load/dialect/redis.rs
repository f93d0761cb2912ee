//! Redis pub/sub: RESP 3, the version in which one connection may subscribe and publish ("Redis serialization protocol specification").
//!
//! A room is a channel. `HELLO 3` is answered by a map, the welcome; each subscription by a push, and so does each message come; a `PUBLISH` by a number, in the order of
//! the requests. One thread carries out all commands, so all subscribers see one order. A server before 6.0 does not know `HELLO` and says so.

use crate::limits::BODY_BYTES_MAX;
use crate::load::body::{Bodies, Stamp};
use crate::load::names::Names;

use super::head::{Heads, line, printable, read_number, write_number};
use super::{Abilities, Broken, Event, Login, Tail, delivery};

pub const ABILITIES: Abilities = Abilities { answers: true, room_order: true, resume: false, history: false };

/// Of simple strings, errors and lengths.
const LINE_BYTES_MAX: usize = 4 * 1024;
const UNIT_BYTES_MAX: usize = BODY_BYTES_MAX + LINE_BYTES_MAX;
/// Aggregates within aggregates; the answer to `HELLO` has two.
const DEPTH_MAX: u32 = 8;
const END: &[u8] = b"\r\n";
const MESSAGE_OPEN: &[u8] = b">3\r\n$7\r\nmessage\r\n";
const SUBSCRIBED_OPEN: &[u8] = b">3\r\n$9\r\nsubscribe\r\n";

#[derive(Debug)]
pub struct Redis {
    names: Names,
    bodies: Bodies,
    heads: Heads,
}

impl Redis {
    pub fn new(names: Names, bodies: Bodies) -> Self {
        let heads = Heads::new(&names, |name| {
            let mut head = command(&["PUBLISH", name]);
            // The body is the third word.
            head[1] = b'3';
            head.push(b'$');
            head
        });
        Self { names, bodies, heads }
    }

    pub fn login(&self, login: &Login<'_>, out: &mut Vec<u8>) -> u32 {
        out.extend_from_slice(&command(&["HELLO", "3"]));
        let inbox = login.inbox.then(|| self.names.inbox(login.connection));
        let rooms: Vec<String> = login.rooms.iter().map(|wanted| wanted.room).chain(inbox).map(|room| self.names.room(room)).collect();
        if !rooms.is_empty() {
            let words: Vec<&str> = std::iter::once("SUBSCRIBE").chain(rooms.iter().map(String::as_str)).collect();
            out.extend_from_slice(&command(&words));
        }
        u32::try_from(rooms.len() + 1).expect("rooms are numbered by u32")
    }

    pub fn publish(&self, _id: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        self.heads.write(&self.names, stamp.room, out);
        write_number(self.bodies.size_of(stamp), out);
        out.extend_from_slice(END);
        self.bodies.write(stamp, out);
        out.extend_from_slice(END);
    }

    /// Redis asks for no sign of life.
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&command(&["PING"]));
    }

    pub fn decode(&mut self, tail: &mut Tail, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), Broken> {
        tail.cut(bytes, UNIT_BYTES_MAX, |bytes| {
            let Some(taken) = value(bytes, DEPTH_MAX)? else { return Ok(None) };
            if taken > UNIT_BYTES_MAX {
                return Err(Broken(format!("a value of {taken} bytes")));
            }
            on_event(self.read(&bytes[..taken]));
            Ok(Some(taken))
        })
    }

    fn read<'a>(&self, whole: &'a [u8]) -> Event<'a> {
        if let Some(rest) = whole.strip_prefix(MESSAGE_OPEN) {
            return match bulk(rest).and_then(|(channel, rest)| Some((channel, bulk(rest)?.0))) {
                Some((channel, body)) => match self.names.number(channel) {
                    Some(room) => delivery(&self.bodies, room, body, whole),
                    None => Event::Other,
                },
                None => Event::Garbled(whole),
            };
        }
        match whole[0] {
            b':' => Event::Sent { id: None },
            b'>' if whole.starts_with(SUBSCRIBED_OPEN) => Event::Joined { room: None, at: None, replay: 0, recovered: None },
            b'%' => Event::Welcome(Box::default()),
            b'-' | b'!' => Event::Refused { id: None, reason: printable(&whole[1..whole.len() - END.len()]) },
            _ => Event::Other,
        }
    }
}

/// An array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| text.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    text.into_bytes()
}

/// The bulk string at the front of a whole value, and what stands behind it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, taken) = line(bytes.strip_prefix(b"$")?, LINE_BYTES_MAX).ok()??;
    let text = bytes.get(1 + taken..)?;
    let length = read_number(length)?;
    Some((text.get(..length)?, text.get(length + END.len()..)?))
}

/// How many bytes the value at the front takes, with all that is in it; `None` while it is incomplete.
fn value(bytes: &[u8], depth: u32) -> Result<Option<usize>, Broken> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(None) };
    if !b"+-:_,#($!=*~>%|".contains(kind) {
        return Err(Broken(format!("a value of type {}", printable(&[*kind]))));
    }
    let Some((head, taken)) = line(rest, LINE_BYTES_MAX)? else { return Ok(None) };
    let start = 1 + taken;
    let count = || match head {
        // Of RESP 2: nothing there.
        b"-1" => Ok(None),
        _ => read_number(head).map(Some).ok_or_else(|| Broken(format!("the length {}", printable(head)))),
    };
    match kind {
        b'$' | b'!' | b'=' => match count()? {
            None => Ok(Some(start)),
            Some(length) => text(bytes, start, length),
        },
        b'*' | b'~' | b'>' => values(bytes, start, (count()?.unwrap_or(0), depth)),
        b'%' | b'|' => values(bytes, start, (count()?.unwrap_or(0) * 2, depth)),
        _ => Ok(Some(start)),
    }
}

/// Where a text of `length` bytes that begins at `start` is over, its end with it.
fn text(bytes: &[u8], start: usize, length: usize) -> Result<Option<usize>, Broken> {
    if length > BODY_BYTES_MAX {
        return Err(Broken(format!("a text of {length} bytes")));
    }
    let end = start + length + END.len();
    match bytes.get(start + length..end) {
        None => Ok(None),
        Some(END) => Ok(Some(end)),
        Some(_) => Err(Broken("a text longer than announced".into())),
    }
}

/// Where `count` values that begin at `start` are over.
fn values(bytes: &[u8], start: usize, (count, depth): (usize, u32)) -> Result<Option<usize>, Broken> {
    let Some(depth) = depth.checked_sub(1) else { return Err(Broken("values within values, too deep".into())) };
    // Each takes three bytes at least.
    if count > UNIT_BYTES_MAX / 3 {
        return Err(Broken(format!("an aggregate of {count} values")));
    }
    let mut end = start;
    for _ in 0..count {
        let Some(taken) = value(&bytes[end..], depth)? else { return Ok(None) };
        end += taken;
    }
    Ok(Some(end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::names::RunId;
    use super::super::Wanted;
    use super::*;

    const STAMP: Stamp = Stamp { room: 3, lane: 0, sender: 7, sequence: 1, previous: 0, intended_ns: 5 };

    fn redis(size: usize) -> Redis {
        let run = RunId::new(12_345_678);
        Redis::new(Names::new(run, 50), Bodies::new(run, size.to_string().parse().unwrap()))
    }

    fn body() -> String {
        let mut out = Vec::new();
        redis(128).bodies.write(&STAMP, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn read(text: &str) -> (Vec<String>, Result<(), Broken>) {
        let mut events = Vec::new();
        let end = redis(128).decode(&mut Tail::default(), text.as_bytes(), &mut |event| events.push(format!("{event:?}")));
        (events, end)
    }

    #[test]
    fn a_login_asks_for_the_version_and_for_all_channels() {
        let rooms = [Wanted { room: 3, since: None }];
        let mut out = Vec::new();
        assert_eq!(redis(128).login(&Login { connection: 7, rooms: &rooms, inbox: true }, &mut out), 3);
        let hello = "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
        let subscribe = "*3\r\n$9\r\nSUBSCRIBE\r\n$14\r\nr614e-00000003\r\n$15\r\n@u614e-00000007\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{hello}{subscribe}"));
        let mut out = Vec::new();
        assert_eq!(redis(128).login(&Login { connection: 7, rooms: &[], inbox: false }, &mut out), 1);
        assert_eq!(out, hello.as_bytes());
    }

    #[test]
    fn a_message_is_published_with_its_size() {
        for (room, channel) in [(3, "$14\r\nr614e-00000003"), (57, "$15\r\n@u614e-00000007")] {
            let mut out = Vec::new();
            redis(200).publish(0, &Stamp { room, ..STAMP }, &mut out);
            let text = String::from_utf8(out).unwrap();
            let head = format!("*3\r\n$7\r\nPUBLISH\r\n{channel}\r\n$200\r\n");
            assert!(text.starts_with(&head), "{text}");
            assert_eq!((text.len(), &text[head.len() + 200..]), (head.len() + 202, "\r\n"));
        }
    }

    #[test]
    fn a_message_is_told_by_channel_and_body() {
        let push =
            |channel: &str, body: &str| format!(">3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{body}\r\n", channel.len(), body.len());
        let (events, end) = read(&push("r614e-00000003", &body()));
        assert_eq!(end, Ok(()));
        assert!(events[0].starts_with("Delivery") && events.len() == 1, "{events:?}");
        assert_eq!(read(&push("lobby", &body())).0, ["Other"]);
        assert!(read(&push("r614e-00000004", &body())).0[0].starts_with("Garbled"));
        assert!(read(&push("r614e-00000003", &body()[1..])).0[0].starts_with("Garbled"));
    }

    #[test]
    fn answers_are_told_apart() {
        let hello = "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*1\r\n%1\r\n+name\r\n:1\r\n";
        let subscribed = ">3\r\n$9\r\nsubscribe\r\n$5\r\nlobby\r\n:1\r\n";
        let (events, end) = read(&format!("{hello}{subscribed}:100\r\n-NOAUTH log in\r\n+OK\r\n_\r\n$-1\r\n"));
        assert_eq!(end, Ok(()));
        assert!(events[0].starts_with("Welcome") && events[1].starts_with("Joined"), "{events:?}");
        assert_eq!(events[2], "Sent { id: None }");
        assert!(events[3].starts_with("Refused") && events[3].contains("NOAUTH log in"), "{events:?}");
        assert_eq!(events[4..], ["Other", "Other", "Other"]);
    }

    #[test]
    fn what_can_t_be_cut_is_broken_before_it_is_waited_for() {
        let long = format!("+{}", "x".repeat(LINE_BYTES_MAX));
        let deep = "*1\r\n".repeat(20);
        for text in ["x\r\n", "$61441\r\n", "$1x\r\n", "$-2\r\n", "*99999999\r\n", "$2\r\n123456", "+a\n", &long, &deep] {
            assert!(read(text).1.is_err(), "{text}");
        }
    }
}
