//! The header by which a load balancer says whom it speaks for: PROXY protocol, version 2 (haproxy.org, `doc/proxy-protocol.txt`, section 2.2).
//!
//! It stands once, in front of everything else that a connection brings. As in [`super::frame`] nothing is kept between calls: the caller holds the
//! bytes and asks again with more of them. What stands behind the addresses (TLVs) is passed over. Whether whoever sends a header may do so is the
//! caller's business: the header proves nothing.

// Addresses without sockets: `std::net` would bring both.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// What every header begins with. Read as a frame's length it is above every limit, so no frame is ever mistaken for it.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length of the rest.
const FIXED_BYTES: usize = 16;

const _: () =
    assert!(u32::from_be_bytes([SIGNATURE[0], SIGNATURE[1], SIGNATURE[2], SIGNATURE[3]]) as usize > crate::limits::FRAME_BYTES_MAX);
const _: () = assert!(FIXED_BYTES + 36 <= PROXY_HEADER_BYTES_MAX);

/// What stands at the front of a connection from a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// Whom the proxy speaks for; `None`: for itself (a health check), or for somebody whose address is of no kind we know. `rest` is the client's.
    Whole {
        client: Option<IpAddr>,
        rest: &'a [u8],
    },
    /// More bytes are wanted. `need` counts from the front: the whole header, or its fixed part while that is incomplete.
    Incomplete {
        need: usize,
    },
    Bad(HeaderError),
}

/// Why the bytes are no header that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// No header at all: a proxy that does not send one, or sends version 1, which is text.
    Signature,
    /// Another version, a command, a family or a protocol that the specification does not have.
    Word,
    /// Too short for the addresses that it says it has.
    Short,
    /// Over [`PROXY_HEADER_BYTES_MAX`].
    TooLarge,
}

impl HeaderError {
    /// For a person.
    pub fn message(self) -> &'static str {
        match self {
            HeaderError::Signature => "this proxy has to send a PROXY header of version 2 first",
            HeaderError::Word => "the PROXY header has a version, command or family that is not known",
            HeaderError::Short => "the PROXY header is too short for its addresses",
            HeaderError::TooLarge => "the PROXY header is too large",
        }
    }
}

/// Who the header says is the client, before its addresses are looked at.
#[derive(Clone, Copy)]
enum Family {
    /// The proxy itself, or a kind of address that we don't use.
    Other,
    Inet,
    Inet6,
}

/// Looks at the front of `bytes`. A wrong byte is found as soon as it is there.
pub fn header(bytes: &[u8]) -> Header<'_> {
    let first = bytes.len().min(SIGNATURE.len());
    if bytes[..first] != SIGNATURE[..first] {
        return Header::Bad(HeaderError::Signature);
    }
    let family = match (bytes.get(12), bytes.get(13)) {
        (None, _) => Ok(Family::Other),
        // LOCAL: what stands behind is to be passed over, whatever it is.
        (Some(0x20), _) | (Some(0x21), None) => Ok(Family::Other),
        (Some(0x21), Some(family)) => family_of(*family),
        (Some(_), _) => Err(HeaderError::Word),
    };
    let family = match family {
        Ok(family) => family,
        Err(error) => return Header::Bad(error),
    };
    let Some((fixed, behind)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        return Header::Incomplete { need: FIXED_BYTES };
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > PROXY_HEADER_BYTES_MAX {
        return Header::Bad(HeaderError::TooLarge);
    }
    if length < address_bytes(family) {
        return Header::Bad(HeaderError::Short);
    }
    match behind.split_at_checked(length) {
        Some((said, rest)) => Header::Whole { client: source(family, said), rest },
        None => Header::Incomplete { need: FIXED_BYTES + length },
    }
}

/// The byte of family and protocol. Datagrams and UNIX sockets are valid, and fall back to UNSPEC as the specification allows.
fn family_of(byte: u8) -> Result<Family, HeaderError> {
    match byte {
        0x11 => Ok(Family::Inet),
        0x21 => Ok(Family::Inet6),
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => Ok(Family::Other),
        _ => Err(HeaderError::Word),
    }
}

/// Both addresses and both ports.
fn address_bytes(family: Family) -> usize {
    match family {
        Family::Other => 0,
        Family::Inet => 12,
        Family::Inet6 => 36,
    }
}

/// The source address stands first.
fn source(family: Family, said: &[u8]) -> Option<IpAddr> {
    match family {
        Family::Other => None,
        Family::Inet => said.first_chunk::<4>().map(|four| IpAddr::V4(Ipv4Addr::from(*four))),
        Family::Inet6 => said.first_chunk::<16>().map(|six| IpAddr::V6(Ipv6Addr::from(*six))),
    }
}
