//! Cutting a stream into frames and choosing its transport: `protocol.md` section 1.

use ringroom::limits::{FRAME_BYTES_BEFORE_WELCOME_MAX, FRAME_BYTES_MAX};
use ringroom::protocol::error::Reason;
use ringroom::protocol::frame::{Cut, FrameError, Transport, cut, transport};

fn announced(length: u32) -> Vec<u8> {
    length.to_be_bytes().to_vec()
}

#[test]
fn a_frame_is_cut_off_and_the_rest_is_left() {
    let bytes = b"\0\0\0\x02{}\0\0\0\x03";
    assert_eq!(cut(bytes, 2), Cut::Frame { json: b"{}", rest: b"\0\0\0\x03" });
}

#[test]
fn an_incomplete_frame_says_how_many_bytes_it_takes_in_all() {
    for header in [&b""[..], b"\0", b"\0\0", b"\0\0\0", b"\xff\xff\xff"] {
        assert_eq!(cut(header, 100), Cut::Incomplete { need: 4 });
    }
    assert_eq!(cut(b"\0\0\0\x05", 100), Cut::Incomplete { need: 9 });
    assert_eq!(cut(b"\0\0\0\x05{\"a\"", 100), Cut::Incomplete { need: 9 });
}

#[test]
fn a_length_of_nothing_is_a_bad_frame() {
    assert_eq!(cut(b"\0\0\0\0{}", 100), Cut::Bad(FrameError::Empty));
    assert_eq!(FrameError::Empty.reason(), Reason::BadFrame);
}

#[test]
fn a_length_is_refused_by_its_header_alone_when_it_is_over_the_limit() {
    for limit in [FRAME_BYTES_BEFORE_WELCOME_MAX, FRAME_BYTES_MAX] {
        let most = u32::try_from(limit).expect("a limit fits a header");
        assert_eq!(cut(&announced(most), limit), Cut::Incomplete { need: limit + 4 });
        let whole = [announced(most), vec![b' '; limit]].concat();
        assert!(matches!(cut(&whole, limit), Cut::Frame { json, rest: [] } if json.len() == limit));
        for length in [most + 1, 1 << 24, 1 << 31, (1 << 31) - 1, u32::MAX] {
            assert_eq!(cut(&announced(length), limit), Cut::Bad(FrameError::TooLarge { announced: length }));
        }
    }
    assert_eq!(FrameError::TooLarge { announced: 1 }.reason(), Reason::FrameTooLarge);
}

#[test]
fn the_transport_shows_in_the_first_four_bytes() {
    assert_eq!(transport(b"\0\0\0\x02{}"), Transport::Tcp);
    assert_eq!(transport(b"GET / HTTP/1.1\r\n"), Transport::WebSocket);
    assert_eq!(transport(b"\x16\x03\x01\x02\0"), Transport::Tls);
    assert_eq!(transport(b"\r\n\r\n\0\r\nQUIT\n"), Transport::Proxy);
    assert_eq!(transport(b"PROXY TCP4 192.0.2.1"), Transport::Proxy);
}

#[test]
fn what_could_still_become_two_transports_is_undecided() {
    for first in [&b""[..], b"G", b"GE", b"GET", b"\x16", b"\r", b"\r\n\r", b"P", b"PRO"] {
        assert_eq!(transport(first), Transport::Undecided, "{first:x?}");
    }
    for first in [&b"\0"[..], b"GX", b"GETX", b"POST", b"SSH-2.0", b"\x16\x02", b"get "] {
        assert_eq!(transport(first), Transport::Tcp, "{first:x?}");
    }
    assert_eq!(transport(b"\x16\x03"), Transport::Tls);
}

#[test]
fn what_is_no_transport_is_refused_as_a_frame() {
    for first in [&b"POST"[..], b"SSH-", b"GETX", b"GET ", b"\x16\x03\x01\0", b"\r\n\r\n", b"PROX", b"{\"ty"] {
        assert!(matches!(cut(first, FRAME_BYTES_MAX), Cut::Bad(FrameError::TooLarge { .. })), "{first:x?}");
    }
}
