//! Cuts a byte stream into frames: a 4-byte big-endian length, then that many bytes of JSON.
//!
//! Owns the TCP transport's header and the choice of a transport by a connection's first bytes
//! (`protocol.md` section 1). It keeps nothing between calls: the caller holds the bytes and asks again with more of
//! them, so a stream gives the same frames in whatever pieces it comes. It never reserves, copies or looks into the
//! JSON, and it judges a length as soon as the header is whole, before any of the announced bytes are waited for.

use crate::limits::{FRAME_BYTES_MAX, TCP_HEADER_BYTES};
use crate::protocol::error::Reason;
use crate::protocol::proxy::SIGNATURE;

/// What stands at the front of a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A whole frame, and the bytes behind it.
    Frame { json: &'a [u8], rest: &'a [u8] },
    /// More bytes are wanted. `need` counts from the front of the stream: the whole frame with its header, or the
    /// header alone while that is incomplete.
    Incomplete { need: usize },
    /// The stream can't be cut any further.
    Bad(FrameError),
}

/// A length that ends the connection: there is no way to find the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    Empty,
    TooLarge { announced: u32 },
}

impl FrameError {
    /// What the `bye` says.
    pub fn reason(self) -> Reason {
        match self {
            FrameError::Empty => Reason::BadFrame,
            FrameError::TooLarge { .. } => Reason::FrameTooLarge,
        }
    }
}

/// Looks at the front of `bytes`; a frame's JSON may have at most `frame_bytes_max` bytes.
pub fn cut(bytes: &[u8], frame_bytes_max: usize) -> Cut<'_> {
    let Some((header, behind)) = bytes.split_first_chunk::<TCP_HEADER_BYTES>() else {
        return Cut::Incomplete { need: TCP_HEADER_BYTES };
    };
    let announced = u32::from_be_bytes(*header);
    if announced == 0 {
        return Cut::Bad(FrameError::Empty);
    }
    match usize::try_from(announced) {
        Ok(length) if length <= frame_bytes_max => match behind.split_at_checked(length) {
            Some((json, rest)) => Cut::Frame { json, rest },
            None => Cut::Incomplete { need: TCP_HEADER_BYTES + length },
        },
        _ => Cut::Bad(FrameError::TooLarge { announced }),
    }
}

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Frames of [`cut`]. Also what is no transport at all: its length is then refused by [`cut`].
    Tcp,
    WebSocket,
    Tls,
    /// The header of a load balancer, of either version: no transport, but what stands in front of one.
    Proxy,
    /// The bytes so far could still become more than one transport.
    Undecided,
}

const WEB_SOCKET_START: &[u8] = b"GET ";
const TLS_START: &[u8] = &[0x16, 0x03];
/// The first bytes of PROXY headers, version 2 and version 1.
const PROXY_STARTS: [&[u8]; 2] = [SIGNATURE.first_chunk::<4>().expect("it has twelve"), b"PROX"];

// All starts, read as a length, are above every limit, so no TCP frame is ever mistaken for them.
const _: () = assert!(FRAME_BYTES_MAX < 0x0d0a_0000);

/// Decides by the first bytes of a connection; four are always enough, and a decision never changes with more.
pub fn transport(first: &[u8]) -> Transport {
    if first.starts_with(WEB_SOCKET_START) {
        Transport::WebSocket
    } else if first.starts_with(TLS_START) {
        Transport::Tls
    } else if PROXY_STARTS.iter().any(|start| first.starts_with(start)) {
        Transport::Proxy
    } else if [WEB_SOCKET_START, TLS_START].iter().chain(&PROXY_STARTS).any(|start| start.starts_with(first)) {
        Transport::Undecided
    } else {
        Transport::Tcp
    }
}
