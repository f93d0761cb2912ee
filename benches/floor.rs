//! The floor as a program: what a relay without chat costs on the same ring (`floor/relay.rs`).
//!
//! Without arguments it shows in a moment that the relay relays; `--serve ADDR [--cpu N]` serves until SIGTERM, for scripts that drive
//! it with `ringroom load` side by side with the server.

#[path = "floor/relay.rs"]
mod relay;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use relay::{Relay, Totals};

fn main() {
    // Cargo adds `--bench` of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--serve", address] => serve(address, None),
        ["--serve", address, "--cpu", cpu] => serve(address, Some(cpu.parse().expect("--cpu takes a number"))),
        // Anything else is a filter for a harness that this bench does not have.
        _ => check(),
    }
}

#[allow(clippy::print_stdout, reason = "a program for scripts")]
fn serve(address: &str, cpu: Option<usize>) {
    let (news, signals) = crossbeam_channel::bounded(2);
    ringroom::sys::signals::install(news).expect("signals");
    ringroom::sys::rlimit::raise(ringroom::sys::rlimit::Resource::Files).expect("open files");
    let relay = Relay::start(address.parse().expect("--serve takes an address"), cpu).expect("the floor starts");
    println!("floor ready on {}", relay.address);
    let _ = signals.recv();
    let Totals { turns, enters, sends, deliveries } = relay.stop();
    println!("floor: turns={turns} enters={enters} sends={sends} deliveries={deliveries}");
}

/// Two members of a room and one of another: each message reaches its room, once, with its body unchanged.
#[allow(clippy::print_stdout, reason = "a bench prints what it has shown")]
fn check() {
    let relay = Relay::start("127.0.0.1:0".parse().expect("an address"), None).expect("the floor starts");
    let mut clients: Vec<TcpStream> = ["a", "a", "b"].into_iter().map(|room| client(relay.address, room)).collect();
    let body = r#"{"h":"1234","x":"xxxxxxxxxxxxxxxx"}"#;
    for (from, room, at_sender) in [(0, "a", 2), (1, "a", 2), (2, "b", 2)] {
        say(&mut clients[from], &format!(r#"{{"type":"send","id":1000000000,"room":"{room}","body":{body}}}"#));
        let mut texts: Vec<String> = (0..at_sender).map(|_| hear(&mut clients[from])).collect();
        if room == "a" {
            texts.push(hear(&mut clients[1 - from]));
        }
        assert!(texts[0].starts_with(r#"{"type":"sent","id":1000000000"#), "{texts:?}");
        let whole = |text: &String| text.starts_with(r#"{"type":"message""#) && text.ends_with(&format!("{body}}}"));
        assert!(texts[1..].iter().all(whole), "{texts:?}");
    }
    drop(clients);
    let totals = relay.stop();
    assert_eq!(totals.deliveries, 5);
    println!("floor: relayed {} deliveries in {} turns with {} system calls", totals.deliveries, totals.turns, totals.enters);
}

fn client(address: SocketAddr, room: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the floor accepts");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    say(&mut stream, r#"{"type":"hello","version":1,"user":"u"}"#);
    say(&mut stream, &format!(r#"{{"type":"join","id":0,"room":"{room}"}}"#));
    assert!(hear(&mut stream).starts_with(r#"{"type":"welcome""#));
    assert!(hear(&mut stream).starts_with(r#"{"type":"joined","id":0"#));
    stream
}

fn say(stream: &mut TcpStream, text: &str) {
    let length = u32::try_from(text.len()).expect("a small frame");
    stream.write_all(&[&length.to_be_bytes()[..], text.as_bytes()].concat()).expect("the floor reads");
}

fn hear(stream: &mut TcpStream) -> String {
    let mut header = [0; 4];
    stream.read_exact(&mut header).expect("an answer in time");
    let mut text = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut text).expect("a whole answer");
    String::from_utf8(text).expect("text")
}
