//! What a driver and its agents say to each other: length, a JSON head, and histograms in their own binary form behind it.
//!
//! Every message has a bound and every read a deadline; a version that differs is an error at the first message.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::load::plan::ServerLimits;
use crate::load::record::{Counts, Histograms, Interval, LATENCY_NS_MAX, Name, Phase};
use crate::load::verdict::Books;

/// Rises with every change of a message.
pub(super) const VERSION: u32 = 2;
const MESSAGE_BYTES_MAX: u32 = 32 << 20;

/// A driver's words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// What to do: the scenario as text, where the target is, and which part of how many this agent is.
    Prepare { version: u32, scenario: String, connect: String, part: u32, parts: u32 },
    /// Everybody is logged in: the first message may be due this long from now.
    Begin { in_ns: u64 },
    /// End the window now.
    End,
}

/// An agent's words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum News {
    /// Logged in; the histograms are those of the logins.
    Ready {
        version: u32,
        connections: u32,
        limits: ServerLimits,
    },
    /// A second; its histograms follow.
    Second {
        phase: Phase,
        start_ns: u64,
        end_ns: u64,
        counts: Counts,
        open: u64,
        missing: u64,
    },
    Done(Box<Books>),
    Failed {
        exit: u8,
        text: String,
    },
}

/// Sends a message and histograms behind it.
pub(super) fn send<T: Serialize>(mut to: &TcpStream, message: &T, histograms: &Histograms) -> io::Result<()> {
    let head = serde_json::to_vec(message)?;
    let mut bytes = Vec::with_capacity(head.len() + 64);
    let put = |bytes: &mut Vec<u8>, part: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(part);
    };
    put(&mut bytes, &head);
    for name in Name::ALL {
        let histogram = histograms.of(name);
        let mut encoded = Vec::new();
        if !histogram.is_empty() {
            V2DeflateSerializer::new().serialize(histogram, &mut encoded).map_err(|error| io::Error::other(error.to_string()))?;
        }
        put(&mut bytes, &encoded);
    }
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a message over its bound"))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&bytes)
}

/// Reads a message, waiting at most so long for each piece of it.
pub(super) fn receive<T: for<'a> Deserialize<'a>>(mut from: &TcpStream, patience: Duration) -> io::Result<(T, Histograms)> {
    from.set_read_timeout(Some(patience))?;
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        return Err(bad("a message over its bound"));
    }
    let mut bytes = Vec::new();
    if from.take(length.into()).read_to_end(&mut bytes)? != usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut rest = bytes.as_slice();
    let message = serde_json::from_slice(part(&mut rest)?).map_err(|error| bad(&error.to_string()))?;
    let mut histograms = Histograms::new();
    for name in Name::ALL {
        let encoded = part(&mut rest)?;
        if !encoded.is_empty() {
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &encoded[..]).map_err(|error| bad(&error.to_string()))?;
            if histogram.high() > LATENCY_NS_MAX {
                return Err(bad("a histogram with other bounds"));
            }
            histograms.of_mut(name).add(&histogram).map_err(|error| bad(&error.to_string()))?;
        }
    }
    Ok((message, histograms))
}

fn part<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let cut = || bad("a message cut short");
    let length = u32::from_be_bytes(*rest.first_chunk().ok_or_else(cut)?);
    let end = usize::try_from(length).ok().and_then(|length| length.checked_add(4)).ok_or_else(cut)?;
    let part = rest.get(4..end).ok_or_else(cut)?;
    *rest = &rest[end..];
    Ok(part)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// An agent's second as the reporter takes it.
pub(super) fn interval(
    (phase, start_ns, end_ns): (Phase, u64, u64),
    (counts, open): (Counts, u64),
    histograms: Histograms,
) -> Box<Interval> {
    Box::new(Interval { phase, start_ns, end_ns, histograms, counts, open, partials: Vec::new() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn a_message_arrives_with_every_sample() {
        let (one, two) = pair();
        let mut histograms = Histograms::new();
        (1..1_000).for_each(|n| histograms.record(Name::RoomDelivery, n * 1_000));
        histograms.record(Name::Probe, 77);
        send(&one, &Order::Begin { in_ns: 5 }, &histograms).unwrap();
        let (order, got): (Order, Histograms) = receive(&two, Duration::from_secs(5)).unwrap();
        assert!(matches!(order, Order::Begin { in_ns: 5 }));
        for name in Name::ALL {
            assert_eq!(got.of(name), histograms.of(name), "{name:?}");
        }
    }

    #[test]
    fn nonsense_and_silence_are_errors() {
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 6, 0, 0, 0, 200, 1, 2], &[0, 0, 0, 2, 0, 0]] {
            let (mut one, two) = pair();
            one.write_all(bytes).unwrap();
            drop(one);
            assert!(receive::<Order>(&two, Duration::from_secs(5)).is_err(), "{bytes:?}");
        }
        let (_one, two) = pair();
        assert!(receive::<Order>(&two, Duration::from_millis(20)).is_err());
    }
}
