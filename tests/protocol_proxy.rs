//! The header of a load balancer: every word of it, in whatever pieces it comes.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;

use proptest::prelude::*;
use ringroom::limits::PROXY_HEADER_BYTES_MAX;
use ringroom::protocol::proxy::{Header, HeaderError, SIGNATURE, header};

#[path = "fuzz/check.rs"]
#[allow(dead_code, reason = "one of its checks is for this file")]
mod check;

fn bytes_of(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
    let length = u16::try_from(said.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, said].concat()
}

fn addresses(source: &str) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    let destination = if source.contains(':') { "2001:db8::2" } else { "198.51.100.9" };
    [octets(source.parse().unwrap()), octets(destination.parse().unwrap()), vec![0x9c, 0x40, 0x1e, 0x61]].concat()
}

#[test]
fn the_source_address_is_taken_and_the_rest_is_the_clients() {
    for (family, source) in [(0x11, "192.0.2.1"), (0x21, "2001:db8::1")] {
        for tlvs in [&b""[..], b"\x04\0\x03abc"] {
            let bytes = [bytes_of(0x21, family, &[&addresses(source), tlvs].concat()), b"rest".to_vec()].concat();
            assert_eq!(header(&bytes), Header::Whole { client: Some(source.parse().unwrap()), rest: b"rest" });
        }
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_names_nobody() {
    for (command, family, said) in [
        (0x20, 0x00, &b""[..]),
        (0x20, 0x11, &addresses("192.0.2.1")),
        (0x21, 0x00, b"tlv"),
        (0x21, 0x31, &[0; 216]),
        (0x21, 0x12, &[0; 12]),
    ] {
        let bytes = bytes_of(command, family, said);
        assert_eq!(header(&bytes), Header::Whole { client: None, rest: b"" }, "{command:x} {family:x}");
    }
}

#[test]
fn a_wrong_byte_is_refused_as_soon_as_it_is_there() {
    let good = bytes_of(0x21, 0x11, &addresses("192.0.2.1"));
    for at in 0..14 {
        let mut bytes = good[..=at].to_vec();
        bytes[at] ^= 0x44;
        let expected = if at < 12 { HeaderError::Signature } else { HeaderError::Word };
        assert_eq!(header(&bytes), Header::Bad(expected), "byte {at}");
    }
    assert_eq!(header(b"PROXY TCP4 192.0.2.1 198.51.100.9 1 2\r\n"), Header::Bad(HeaderError::Signature));
}

#[test]
fn a_length_is_judged_before_its_bytes_are_waited_for() {
    let with_length = |family: u8, length: usize| {
        let mut bytes = bytes_of(0x21, family, b"");
        bytes[14..].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        bytes
    };
    let most = PROXY_HEADER_BYTES_MAX - 16;
    assert_eq!(header(&with_length(0x11, most)), Header::Incomplete { need: PROXY_HEADER_BYTES_MAX });
    assert_eq!(header(&with_length(0x11, most + 1)), Header::Bad(HeaderError::TooLarge));
    assert_eq!(header(&with_length(0x11, 65_535)), Header::Bad(HeaderError::TooLarge));
    assert_eq!(header(&with_length(0x11, 11)), Header::Bad(HeaderError::Short));
    assert_eq!(header(&with_length(0x21, 35)), Header::Bad(HeaderError::Short));
    assert_eq!(header(&with_length(0x11, 12)), Header::Incomplete { need: 28 });
}

/// Bytes that are a header, or nearly one.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![4 => Just(0x21u8), 1 => Just(0x20), 1 => any::<u8>()];
    let family = prop_oneof![Just(0x11u8), Just(0x21), Just(0x00), any::<u8>()];
    let said = prop::collection::vec(any::<u8>(), 0..80);
    (word, family, said, prop::option::weighted(0.3, (0usize..120, any::<u8>())), any::<u8>()).prop_map(
        |(word, family, said, wrong, cut)| {
            let mut bytes = bytes_of(word, family, &said);
            bytes.extend_from_slice(b"rest");
            if let Some((at, byte)) = wrong
                && at < bytes.len()
            {
                bytes[at] = byte;
            }
            let kept = bytes.len() - usize::from(cut) % 8;
            bytes.truncate(kept);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_header_does_not_depend_on_the_pieces_it_comes_in(bytes in nearly()) {
        check::proxy(&bytes);
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check::proxy(&bytes);
    }
}
