//! The clients' own encoder and decoder, written from protocol.md: it shares no code, and so no mistake, with the server's.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A place in a room's order, without its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub(crate) ms: u64,
    pub(crate) n: u64,
}

/// Of the simulated server's log.
pub(crate) const EPOCH: u32 = 0x51e5;

impl Place {
    pub(crate) fn parse(text: &str) -> Option<(u32, Place)> {
        let (epoch, rest) = text.split_once('.')?;
        let (ms, n) = rest.split_once('-')?;
        Some((u32::from_str_radix(epoch, 16).ok()?, Place { ms: ms.parse().ok()?, n: n.parse().ok()? }))
    }

    /// As a position of the epoch that the simulated server has.
    pub(crate) fn text(self) -> String {
        format!("{EPOCH:x}.{}-{}", self.ms, self.n)
    }
}

/// Any object of the server; unknown fields are the server's mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "every field has a name here, so that an unknown one is found")]
pub(crate) struct Object<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    pub(crate) id: Option<u64>,
    pub(crate) room: Option<&'a str>,
    pub(crate) at: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) ts: Option<u64>,
    #[serde(borrow)]
    pub(crate) body: Option<&'a RawValue>,
    pub(crate) code: Option<u16>,
    pub(crate) reason: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) user: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) members: Option<u32>,
    pub(crate) users: Option<Vec<&'a str>>,
    pub(crate) truncated: Option<bool>,
    pub(crate) replay: Option<u32>,
    pub(crate) recovered: Option<bool>,
    pub(crate) duplicate: Option<bool>,
    pub(crate) version: Option<u32>,
    pub(crate) session: Option<&'a str>,
    pub(crate) node: Option<&'a str>,
    pub(crate) heartbeat_ms: Option<u64>,
    pub(crate) inbox: Option<Inbox<'a>>,
    #[serde(borrow)]
    pub(crate) limits: Option<&'a RawValue>,
    pub(crate) expires_at: Option<u64>,
    #[serde(borrow)]
    pub(crate) messages: Option<&'a RawValue>,
    pub(crate) more: Option<bool>,
    pub(crate) since: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "every field has a name here, so that an unknown one is found")]
pub(crate) struct Inbox<'a> {
    pub(crate) at: &'a str,
    pub(crate) replay: u32,
    pub(crate) recovered: Option<bool>,
}

/// A message of a page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<'a> {
    pub(crate) at: &'a str,
    pub(crate) from: &'a str,
    pub(crate) ts: u64,
    #[serde(borrow)]
    pub(crate) body: &'a RawValue,
}

/// Length and text.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("a test's frame is small");
    let mut bytes = len.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Cuts whole frames off the front of a client's bytes.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    bytes: Vec<u8>,
    start: usize,
}

impl Cutter {
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.start);
        self.start = 0;
        &mut self.bytes
    }

    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let rest = &self.bytes[self.start..];
        let header: [u8; 4] = rest.get(..4)?.try_into().expect("four bytes");
        let len = u32::from_be_bytes(header) as usize;
        assert!(len > 0 && len <= 64 * 1024, "the server sent a frame of {len} bytes");
        let text = rest.get(4..4 + len)?.to_vec();
        self.start += 4 + len;
        Some(text)
    }

    pub(crate) fn is_at_boundary(&self) -> bool {
        self.start == self.bytes.len()
    }
}
