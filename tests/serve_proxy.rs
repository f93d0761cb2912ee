//! Behind a load balancer: whom a PROXY header names, who may send one, who has to.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::IpAddr;
use std::path::Path;

use serde_json::json;
use support::{Client, Server, assert_bye, frame, hello};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header as the specification writes it, with a TLV behind the addresses.
fn header(client: &str) -> Vec<u8> {
    let (family, mut said) = match client.parse().unwrap() {
        IpAddr::V4(four) => (0x11, [four.octets(), [127, 0, 0, 1]].concat()),
        IpAddr::V6(six) => (0x21, [six.octets(), [0; 16]].concat()),
    };
    said.extend([0x9c, 0x40, 0x1e, 0x61]);
    said.extend(b"\x04\x00\x02ok");
    let length = u16::try_from(said.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x21, family], &length, &said].concat()
}

/// LOCAL: the proxy looks whether the server is well.
fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

fn key(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name).to_str().unwrap().to_owned()
}

/// Tokens are asked for, and an address may fail twice.
fn with_tokens(proxies: &str) -> String {
    let key = key("hs.secret");
    format!("[server]\nproxies = [{proxies}]\n[auth]\nmode = \"jwt\"\nkeys = [{key:?}]\nfailures_burst = 2\nfailures_per_min = 1\n")
}

fn token(user: &str) -> String {
    let program = env!("CARGO_BIN_EXE_ringroom");
    let output = std::process::Command::new(program).args(["token", "--key", &key("hs.secret"), "--user", user]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The answer to a `hello` with this token behind these bytes, in one piece.
fn login(server: &Server, before: &[u8], token: &str) -> support::Value {
    let mut client = Client::connect(server.address());
    let hello = json!({"type": "hello", "version": 1, "token": token}).to_string();
    client.raw(&[before, &frame(&hello)].concat());
    client.next()
}

#[test]
fn failed_logins_are_counted_by_the_address_that_a_listed_proxy_names() {
    let server = Server::start(3, &with_tokens("\"127.0.0.0/8\""));
    let good = token("alice");
    for (bad, neighbour) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1")] {
        for _ in 0..2 {
            assert_bye(&login(&server, &header(bad), "nonsense"), 401, "bad_token");
        }
        assert_bye(&login(&server, &header(bad), &good), 429, "rate_limited");
        assert_eq!(login(&server, &header(neighbour), &good)["type"], "welcome");
    }
    // A proxy that speaks for itself has its own address.
    for _ in 0..2 {
        assert_bye(&login(&server, &local(), "nonsense"), 401, "bad_token");
    }
    assert_bye(&login(&server, &local(), &good), 429, "rate_limited");
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!((ended.counter("proxy_headers"), ended.counter("logins_limited")), (11, 3), "{:?}", ended.counters);
}

#[test]
fn a_listed_proxy_has_to_send_the_header_and_others_may_not() {
    let listed = Server::start(2, "[server]\nproxies = [\"127.0.0.1\"]\n");
    let bad: [&[u8]; 4] =
        [&frame(&hello("ann")), b"PROXY TCP4 192.0.2.1 198.51.100.9 1 2\r\n", &[SIGNATURE, b"\x31"].concat(), b"GET / HTTP/1.1\r\n"];
    for bytes in bad {
        let mut client = Client::connect(listed.address());
        client.raw(bytes);
        assert_bye(&client.bye(), 400, "bad_frame");
    }
    let ended = listed.stop();
    ended.assert_clean();
    assert_eq!((ended.counter("proxy_headers_bad"), ended.ends("bad_frame")), (4, 4));
    let others = Server::start(1, "[server]\nproxies = [\"127.0.0.2\", \"10.0.0.0/8\"]\n");
    for bytes in [header("192.0.2.1"), b"PROXY TCP4 192.0.2.1 198.51.100.9 1 2\r\n".to_vec()] {
        let mut client = Client::connect(others.address());
        client.raw(&bytes);
        assert_bye(&client.bye(), 403, "forbidden");
    }
    Client::login(others.address(), "ann").sync();
    let ended = others.stop();
    ended.assert_clean();
    assert_eq!((ended.counter("proxy_headers_refused"), ended.ends("forbidden")), (2, 2));
    assert_eq!(ended.log.matches("a PROXY header from 127.0.0.1").count(), 1, "said once: {}", ended.log);
}

#[test]
fn a_session_behind_a_header_that_drips_is_a_session_like_any_other() {
    let server = Server::start(3, "[server]\nproxies = [\"127.0.0.1\"]\n");
    let mut members: Vec<Client> = (0..6)
        .map(|n| {
            let mut client = Client::connect(server.address());
            let bytes = [header("192.0.2.1"), frame(&hello(&format!("u{n}"))), frame(r#"{"type":"join","room":"lobby"}"#)].concat();
            let piece = if n == 0 { 1 } else { 7 * n };
            bytes.chunks(piece).for_each(|piece| client.raw(piece));
            client.find("joined");
            client
        })
        .collect();
    members[0].send("lobby", "1");
    members.iter_mut().for_each(|member| assert_eq!(member.find("message")["body"], 1));
    server.stop().assert_clean();
}

#[test]
fn a_header_that_stops_half_way_ends_at_the_handshakes_deadline() {
    let server = Server::start(2, "[server]\nproxies = [\"127.0.0.1\"]\n[limits]\nhandshake_ms = 500\n");
    for end in [0, 5, 15, 20] {
        let mut client = Client::connect(server.address());
        client.raw(&header("192.0.2.1")[..end]);
        assert_bye(&client.bye(), 408, "handshake_timeout");
    }
    // A health check says that it is the proxy's own, and goes.
    let mut check = Client::connect(server.address());
    check.raw(&local());
    check.finish();
    check.assert_closed();
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!((ended.ends("handshake_timeout"), ended.ends("peer_closed")), (4, 1), "{:?}", ended.ends);
}
