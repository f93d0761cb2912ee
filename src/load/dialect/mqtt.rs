//! MQTT 3.1.1 at quality of service 0: packets of a type, a length of one to four bytes, and what belongs to the type (OASIS standard, sections 2 and 3).
//!
//! A room is a topic. A client need not wait for the `CONNACK`, the welcome, before it subscribes; the `SUBACK` has a code for each topic. Nothing answers a
//! `PUBLISH`, so the sender's own copy stands in for the answer; order is promised for one sender alone. Keep-alive is off: nobody has to say that it lives.

use crate::limits::BODY_BYTES_MAX;
use crate::load::body::{Bodies, Stamp};
use crate::load::names::Names;

use super::head::{Heads, printable};
use super::{Abilities, Broken, Event, Login, Tail, delivery};

pub const ABILITIES: Abilities = Abilities { answers: false, room_order: false, resume: false, history: false };

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xb0;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;

/// Protocol name and level, "clean session", keep-alive off.
const CONNECT_HEAD: &[u8] = b"\x00\x04MQTT\x04\x02\x00\x00";
/// The one subscription of a connection.
const SUBSCRIPTION: [u8; 2] = [0, 1];
/// A subscription that was not granted.
const FAILURE: u8 = 0x80;
/// What a packet's length may be: a body, a topic and its length.
const LENGTH_MAX: usize = BODY_BYTES_MAX + 2 + 1_024;

#[derive(Debug)]
pub struct Mqtt {
    names: Names,
    bodies: Bodies,
    /// Topics with their length in front.
    heads: Heads,
}

impl Mqtt {
    pub fn new(names: Names, bodies: Bodies) -> Self {
        let heads = Heads::new(&names, |name| {
            let mut topic = Vec::new();
            text(name, &mut topic);
            topic
        });
        Self { names, bodies, heads }
    }

    pub fn login(&self, login: &Login<'_>, out: &mut Vec<u8>) -> u32 {
        let mut connect = CONNECT_HEAD.to_vec();
        text(&self.names.user(login.connection), &mut connect);
        packet(CONNECT, &connect, out);
        let inbox = login.inbox.then(|| self.names.inbox(login.connection));
        let mut topics = 0;
        let mut subscribe = SUBSCRIPTION.to_vec();
        for room in login.rooms.iter().map(|wanted| wanted.room).chain(inbox) {
            text(&self.names.room(room), &mut subscribe);
            // At most quality 0.
            subscribe.push(0);
            topics += 1;
        }
        if topics > 0 {
            packet(SUBSCRIBE, &subscribe, out);
        }
        topics + 1
    }

    pub fn publish(&self, _id: u64, stamp: &Stamp, out: &mut Vec<u8>) {
        let head = 2 + self.names.name_bytes(stamp.room);
        out.push(PUBLISH);
        write_length(head + self.bodies.size_of(stamp), out);
        self.heads.write(&self.names, stamp.room, out);
        self.bodies.write(stamp, out);
    }

    /// Never asked for, since keep-alive is off.
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[PINGREQ, 0]);
    }

    pub fn goodbye(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[DISCONNECT, 0]);
    }

    pub fn decode(&mut self, tail: &mut Tail, bytes: &[u8], on_event: &mut impl FnMut(Event<'_>)) -> Result<(), Broken> {
        tail.cut(bytes, LENGTH_MAX + 5, |bytes| {
            // A type that no server sends: the place of the next packet is lost.
            if !matches!(bytes[0], CONNACK | PUBLISH..0x40 | SUBACK | UNSUBACK | PINGRESP) {
                return Err(Broken(format!("a packet of type {:#04x}", bytes[0])));
            }
            let Some((start, length)) = read_length(bytes)? else { return Ok(None) };
            let Some(whole) = bytes.get(..start + length) else { return Ok(None) };
            self.read(whole, &whole[start..], on_event);
            Ok(Some(whole.len()))
        })
    }

    fn read<'a>(&self, whole: &'a [u8], content: &'a [u8], on_event: &mut impl FnMut(Event<'a>)) {
        match (whole[0], content) {
            // Retained or not; a quality above 0 was not asked for.
            (PUBLISH | 0x31, _) => match split_text(content) {
                Some((topic, body)) => match self.names.number(topic) {
                    Some(room) => on_event(delivery(&self.bodies, room, body, whole)),
                    None => on_event(Event::Other),
                },
                None => on_event(Event::Garbled(whole)),
            },
            (CONNACK, [_, 0]) => on_event(Event::Welcome(Box::default())),
            (CONNACK, [_, code]) => on_event(Event::Bye { reason: refusal(*code) }),
            (SUBACK, [0, 1, codes @ ..]) => codes.iter().for_each(|code| {
                on_event(match *code {
                    FAILURE => Event::Refused { id: None, reason: "SUBACK: a subscription was not granted".into() },
                    _ => Event::Joined { room: None, at: None, replay: 0, recovered: None },
                });
            }),
            (PINGRESP, []) => on_event(Event::Other),
            _ => on_event(Event::Garbled(whole)),
        }
    }
}

/// Section 3.2.2.3.
fn refusal(code: u8) -> String {
    let words = match code {
        1 => "unacceptable protocol version",
        2 => "identifier rejected",
        3 => "server unavailable",
        4 => "bad user name or password",
        5 => "not authorized",
        _ => "unknown code",
    };
    format!("CONNACK {code}: {words}")
}

fn packet(kind: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    write_length(content.len(), out);
    out.extend_from_slice(content);
}

/// A text with its length in two bytes in front (section 1.5.3).
fn text(text: &str, out: &mut Vec<u8>) {
    let length = u16::try_from(text.len()).expect("names have at most 66 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Seven bits a byte, the lowest first; the eighth says that more follow (section 2.2.3).
fn write_length(length: usize, out: &mut Vec<u8>) {
    let mut rest = length;
    loop {
        let low = u8::try_from(rest % 128).expect("seven bits");
        rest /= 128;
        out.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            return;
        }
    }
}

/// Where a packet's content begins and how long it is; `None` while that has not come.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Broken> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if length > LENGTH_MAX {
            return Err(Broken(format!("a packet {} of more than {LENGTH_MAX} bytes", printable(&bytes[..1]))));
        }
        if byte & 0x80 == 0 {
            return Ok(Some((at + 2, length)));
        }
    }
    if bytes.len() > 4 { Err(Broken("a length of more than four bytes".into())) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::names::RunId;
    use super::super::Wanted;
    use super::*;

    const STAMP: Stamp = Stamp { room: 3, lane: 0, sender: 7, sequence: 1, previous: 0, intended_ns: 5 };

    fn mqtt(size: usize) -> Mqtt {
        let run = RunId::new(12_345_678);
        Mqtt::new(Names::new(run, 50), Bodies::new(run, size.to_string().parse().unwrap()))
    }

    fn read(bytes: &[u8]) -> (Vec<String>, Result<(), Broken>) {
        let mut events = Vec::new();
        let end = mqtt(128).decode(&mut Tail::default(), bytes, &mut |event| events.push(format!("{event:?}")));
        (events, end)
    }

    #[test]
    fn a_login_connects_and_subscribes_to_all_topics_in_one_packet() {
        let rooms = [Wanted { room: 3, since: None }];
        let mut out = Vec::new();
        assert_eq!(mqtt(128).login(&Login { connection: 7, rooms: &rooms, inbox: true }, &mut out), 3);
        let connect = b"\x10\x1a\x00\x04MQTT\x04\x02\x00\x00\x00\x0eu614e-00000007";
        let subscribe = b"\x82\x25\x00\x01\x00\x0er614e-00000003\x00\x00\x0f@u614e-00000007\x00";
        assert_eq!(out.escape_ascii().to_string(), [&connect[..], subscribe].concat().escape_ascii().to_string());
        let mut out = Vec::new();
        assert_eq!(mqtt(128).login(&Login { connection: 7, rooms: &[], inbox: false }, &mut out), 1);
        assert_eq!(out, connect);
    }

    #[test]
    fn a_published_message_comes_back_as_a_delivery_whatever_its_length() {
        for (room, size) in [(3, 64), (3, 110), (57, 111), (57, 128), (3, 16_383), (3, 61_440)] {
            let mut out = Vec::new();
            mqtt(size).publish(0, &Stamp { room, ..STAMP }, &mut out);
            let mut events = Vec::new();
            let note =
                &mut |event: Event<'_>| events.push(matches!(event, Event::Delivery { stamp, .. } if stamp == Stamp { room, ..STAMP }));
            mqtt(size).decode(&mut Tail::default(), &out, note).unwrap();
            assert_eq!(events, [true], "{size}");
        }
    }

    #[test]
    fn a_message_is_told_by_topic_and_body() {
        let mut out = Vec::new();
        mqtt(128).publish(0, &STAMP, &mut out);
        assert_eq!(out[..5], [0x30, 0x90, 0x01, 0x00, 0x0e]);
        let changed = |at: usize, byte: u8| {
            let mut bytes = out.clone();
            bytes[at] = byte;
            bytes
        };
        assert!(read(&changed(18, b'4')).0[0].starts_with("Garbled"), "another room");
        assert_eq!(read(&changed(5, b'l')).0, ["Other"], "another run");
        assert!(read(&changed(30, b'!')).0[0].starts_with("Garbled"), "another body");
        assert!(read(&changed(0, 0x32)).0[0].starts_with("Garbled"), "quality 1");
        assert!(read(&changed(4, 0xff)).0[0].starts_with("Garbled"), "a topic longer than the packet");
        assert!(read(&changed(0, 0x31)).0[0].starts_with("Delivery"), "retained");
    }

    #[test]
    fn answers_are_told_apart() {
        let (events, end) = read(b"\x20\x02\x00\x00\x90\x05\x00\x01\x00\x80\x00\xd0\x00\x20\x02\x00\x05\xb0\x00");
        assert_eq!(end, Ok(()));
        let starts = ["Welcome", "Joined", "Refused", "Joined", "Other", "Bye", "Garbled"];
        assert_eq!(events.len(), starts.len(), "{events:?}");
        assert!(events.iter().zip(starts).all(|(event, start)| event.starts_with(start)), "{events:?}");
        assert!(events[5].contains("CONNACK 5: not authorized"));
    }

    #[test]
    fn what_can_t_be_cut_is_broken_before_it_is_waited_for() {
        assert!(read(b"\x30\xff\xff\x7f").1.is_err());
        assert!(read(b"\x30\x80\x80\x80\x80").1.is_err());
        assert!(read(b"\x30\x80\x80\x80").1.is_ok());
        assert!(read(b"\x70").1.is_err() && read(b"\x00\x00").1.is_err());
    }
}
