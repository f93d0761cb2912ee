//! What holds for any bytes: shared by the fuzz targets, the corpus replay and the property tests.
//!
//! The message check holds `decode` to a second decoder, written for clarity on top of `serde_json`, so that the
//! hand-written scan is exactly as strict. A check panics where the property is broken.

use std::borrow::Cow;
use std::fmt;

use ringroom::ids::{RequestId, RoomName, UserName};
use ringroom::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, JSON_DEPTH_MAX};
use ringroom::protocol::error::Reason;
use ringroom::protocol::frame::{Cut, FrameError, Transport, cut, transport};
use ringroom::protocol::message::{Hello, Join, Request, Send, decode};
use ringroom::protocol::proxy::{Header, header};
use ringroom::results::hlog;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Cutting all bytes at once and cutting them as they come one by one gives the same frames and the same end.
pub(crate) fn frame(bytes: &[u8]) {
    for frame_bytes_max in [1, 300, FRAME_BYTES_MAX] {
        assert_eq!(cut_whole(bytes, frame_bytes_max), cut_byte_by_byte(bytes, frame_bytes_max));
    }
    transport_decides_once(bytes);
}

/// An interval log is read or refused with its line; what is read adds up. Returns how it came out.
pub(crate) fn interval_log(bytes: &[u8]) -> &'static str {
    let mut samples = 0u64;
    let read = hlog::read(bytes, &mut |interval| {
        let counted: u64 = interval.histogram.iter_recorded().map(|step| step.count_since_last_iteration()).sum();
        assert_eq!(counted, interval.histogram.len(), "samples that no bucket holds");
        samples = samples.checked_add(counted).expect("bounded by the reader for each line");
        Ok(())
    });
    match read {
        Ok(_) if samples > 0 => "samples",
        Ok(_) => "empty",
        Err(damage) => {
            assert!(damage.line >= 1 && damage.line <= bytes.split(|byte| *byte == b'\n').count() && !damage.what.is_empty());
            "damage"
        }
    }
}

type Cuts = (Vec<Vec<u8>>, Option<FrameError>);

fn cut_whole(mut bytes: &[u8], frame_bytes_max: usize) -> Cuts {
    let mut frames = Vec::new();
    loop {
        match cut(bytes, frame_bytes_max) {
            Cut::Frame { json, rest } => {
                assert!(!json.is_empty() && json.len() <= frame_bytes_max);
                assert_eq!(4 + json.len() + rest.len(), bytes.len(), "bytes got lost");
                frames.push(json.to_vec());
                bytes = rest;
            }
            Cut::Incomplete { need } => {
                assert!(need > bytes.len() && need <= 4 + frame_bytes_max.max(1), "{need} bytes are not what is missing");
                return (frames, None);
            }
            Cut::Bad(error) => return (frames, Some(error)),
        }
    }
}

fn cut_byte_by_byte(bytes: &[u8], frame_bytes_max: usize) -> Cuts {
    let mut frames = Vec::new();
    let mut waiting = Vec::new();
    let mut wanted = 4;
    for &byte in bytes {
        waiting.push(byte);
        match cut(&waiting, frame_bytes_max) {
            Cut::Frame { json, rest } => {
                assert_eq!((waiting.len(), rest), (wanted, &[][..]), "a frame is whole exactly when `need` said");
                frames.push(json.to_vec());
                waiting.clear();
                wanted = 4;
            }
            Cut::Incomplete { need } => wanted = need,
            Cut::Bad(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

fn transport_decides_once(bytes: &[u8]) {
    let mut decided = Transport::Undecided;
    for end in 0..=bytes.len().min(8) {
        let now = transport(&bytes[..end]);
        assert!(decided == Transport::Undecided || now == decided, "{decided:?} became {now:?}");
        assert!(end < 4 || now != Transport::Undecided, "four bytes are enough");
        decided = now;
    }
}

/// The header of a load balancer is the same whether it comes at once or byte by byte, and `need` says when it is whole.
pub(crate) fn proxy(bytes: &[u8]) {
    let mut wanted = 16;
    for end in 0..=bytes.len() {
        match header(&bytes[..end]) {
            Header::Incomplete { need } => {
                assert!(need > end && need >= wanted, "{need} bytes at {end}");
                wanted = need;
            }
            Header::Bad(error) => return assert_eq!(header(bytes), Header::Bad(error), "found at {end}"),
            Header::Whole { client, rest } => {
                assert_eq!((end, rest), (wanted, &[][..]), "a header is whole exactly when `need` said");
                return assert_eq!(header(bytes), Header::Whole { client, rest: &bytes[end..] });
            }
        }
    }
}

/// `decode` says what the second decoder says.
pub(crate) fn message(bytes: &[u8]) {
    match (decode(bytes), reference(bytes)) {
        (Ok(decoded), Ok(expected)) => assert_eq!(decoded, expected),
        (Err(refusal), Err((reason, id))) => {
            assert_eq!(refusal.reason, reason, "{refusal:?}");
            // Of a malformed object the second decoder knows nothing.
            assert!(reason == Reason::Malformed || refusal.id == id, "{refusal:?} where the id is {id:?}");
        }
        (decoded, expected) => panic!("{decoded:?} where {expected:?} was expected"),
    }
}

type Refused = (Reason, Option<RequestId>);

fn reference(bytes: &[u8]) -> Result<Request<'_>, Refused> {
    let members: Members<'_> = serde_json::from_slice(bytes).map_err(|_| (Reason::Malformed, None))?;
    if depth(bytes) > JSON_DEPTH_MAX {
        return Err((Reason::Malformed, None));
    }
    let id = members.id().ok().flatten();
    members.request().map_err(|reason| (reason, id))
}

/// Brackets open at once, in a text that is JSON.
fn depth(json: &[u8]) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => open += 1,
            b'}' | b']' if !in_string => open -= 1,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl<'a> Members<'a> {
    fn request(&self) -> Result<Request<'a>, Reason> {
        self.once("id")?;
        let known = self.typed::<String>("type")?.ok_or(Reason::BadField)?;
        let request = match known.as_str() {
            "hello" => Request::Hello(Hello {
                version: self.typed("version")?.ok_or(Reason::BadField)?,
                user: self.parsed("user", |name| UserName::parse(name).ok())?,
                token: self.text("token", usize::MAX)?,
                device: self.text("device", 64)?,
                inbox: self.text("inbox", 64)?,
            }),
            "join" => Request::Join(Join {
                id: self.id()?,
                room: self.room()?,
                since: self.text("since", 64)?,
                history: self.typed("history")?,
                presence: self.typed("presence")?.unwrap_or(false),
                echo: self.typed("echo")?.unwrap_or(true),
            }),
            "leave" => Request::Leave { id: self.id()?, room: self.room()? },
            "send" => Request::Send(Send {
                id: self.id()?,
                room: self.room()?,
                body: self.once("body")?.ok_or(Reason::BadField)?.get(),
                key: self.text("key", 64)?,
                ephemeral: self.typed("ephemeral")?.unwrap_or(false),
            }),
            "history" => Request::History {
                id: self.id()?,
                room: self.room()?,
                before: self.text("before", 64)?,
                after: self.text("after", 64)?,
                limit: self.typed("limit")?,
            },
            "presence" => Request::Presence { id: self.id()?, room: self.room()? },
            "ping" => Request::Ping { id: self.id()? },
            "pong" => Request::Pong,
            "bye" => Request::Bye,
            _ => return Err(Reason::UnknownType),
        };
        together(request)
    }

    fn once(&self, name: &str) -> Result<Option<&'a RawValue>, Reason> {
        let mut found = self.0.iter().filter(|(key, _)| key == name).map(|&(_, value)| value);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Reason::BadField),
            (one, None) => Ok(one),
        }
    }

    /// A field's value, none if it is absent or `null`.
    fn typed<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Reason> {
        let Some(raw) = self.once(name)? else { return Ok(None) };
        serde_json::from_str(raw.get()).map_err(|_| Reason::BadField)
    }

    fn parsed<T>(&self, name: &str, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Reason> {
        let Some(text) = self.typed::<String>(name)? else { return Ok(None) };
        parse(&text).map(Some).ok_or(Reason::BadField)
    }

    fn text(&self, name: &str, bytes_max: usize) -> Result<Option<Cow<'a, str>>, Reason> {
        match self.typed::<String>(name)? {
            Some(text) if text.len() > bytes_max => Err(Reason::BadField),
            text => Ok(text.map(Cow::Owned)),
        }
    }

    fn room(&self) -> Result<RoomName, Reason> {
        self.parsed("room", |name| RoomName::parse(name).ok())?.ok_or(Reason::BadField)
    }

    fn id(&self) -> Result<Option<RequestId>, Reason> {
        match self.typed("id")? {
            Some(id) if id > RequestId::MAX => Err(Reason::BadField),
            id => Ok(id.map(RequestId)),
        }
    }
}

/// The rules between fields.
fn together(request: Request<'_>) -> Result<Request<'_>, Reason> {
    match &request {
        Request::History { before: Some(_), after: Some(_), .. } => Err(Reason::BadField),
        Request::History { limit: Some(limit), .. } if !(1..=1_000).contains(limit) => Err(Reason::BadField),
        Request::Send(send) if send.body.len() > BODY_BYTES_MAX => Err(Reason::BodyTooLarge),
        _ => Ok(request),
    }
}
