//! `ringroom chat` from a script: what goes in comes out on the other side, and the end says how it went.
#![allow(clippy::unwrap_used, reason = "tests")]

mod client_support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Output, Stdio};

use client_support::{Proxy, Server, eager, ringroom};
use ringroom::client::{Client, Join};
use serde_json::Value;

/// The program with its streams in our hands; killed when dropped.
struct Chat(Child);

impl Chat {
    fn start(server: &str, args: &[&str]) -> Self {
        let mut command = ringroom();
        command.args(["chat", "--connect", server]).args(args);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn end(mut self, input: &str) -> Output {
        self.0.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let child = std::mem::replace(&mut self.0, ringroom().arg("--version").stdout(Stdio::null()).spawn().unwrap());
        child.wait_with_output().unwrap()
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn each_line_of_a_pipe_is_a_message_and_all_are_acknowledged_at_the_end() {
    let server = Server::start();
    let address = server.address.to_string();
    let mut listener = Chat::start(&address, &["--user", "bob", "--json", "--history", "1000"]);
    let mut heard = BufReader::new(listener.0.stdout.take().unwrap()).lines();
    let lines: Vec<String> = (0..150).map(|n| format!("/line {n} é")).collect();
    let said = Chat::start(&address, &["--user", "alice"]).end(&format!("{}\n\n", lines.join("\n")));
    assert_eq!((said.status.code(), text(&said.stdout), text(&said.stderr)), (Some(0), String::new(), String::new()));
    for line in &lines {
        let message: Value = serde_json::from_str(&heard.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (message["body"]["text"].as_str(), message["from"].as_str(), message["room"].as_str()),
            (Some(&**line), Some("alice"), Some("lobby"))
        );
        assert!(message["at"].is_string() && message["ts"].is_u64());
    }
    drop(listener.0.stdin.take());
    assert!(heard.next().is_none());
    assert_eq!(listener.0.wait().unwrap().code(), Some(0));
}

#[test]
fn history_is_shown_however_short_the_input_is_and_others_bytes_are_escaped() {
    let server = Server::start();
    let address = server.address.to_string();
    let mut client = Client::connect(server.address, eager("eve")).unwrap();
    client.join("lobby", Join::default()).unwrap();
    client.send("lobby", &serde_json::json!({"text": "\u{1b}[2Jboo"})).unwrap();
    client.send("lobby", &serde_json::json!({"x": [1]})).unwrap();
    let shown = Chat::start(&address, &["--user", "bob", "--history", "20"]).end("");
    let shown_text = text(&shown.stdout);
    let lines: Vec<&str> = shown_text.lines().collect();
    assert_eq!((shown.status.code(), lines.len()), (Some(0), 2), "{lines:?}");
    assert!(lines[0].ends_with(" lobby eve: \\u{1b}[2Jboo") && lines[1].ends_with(" lobby eve: {\"x\":[1]}"), "{lines:?}");
    let nothing = Chat::start(&address, &["--user", "bob"]).end("");
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(0), 0));
}

#[test]
fn a_pipe_goes_on_after_the_server_came_back() {
    let first = Server::start();
    let proxy = Proxy::start(first.address, 1);
    let mut chat = Chat::start(&proxy.address.to_string(), &["--user", "alice"]);
    let mut client = Client::connect(first.address, eager("bob")).unwrap();
    client.join("lobby", Join::default()).unwrap();
    chat.0.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    assert_eq!(next_text(&mut client), "one");
    let second = Server::start();
    proxy.point_to(second.address);
    drop(first);
    let said = chat.end("two\nthree\n");
    assert_eq!(said.status.code(), Some(0));
    assert!(text(&said.stderr).contains("online again"), "{}", text(&said.stderr));
    let mut client = Client::connect(second.address, eager("bob")).unwrap();
    client.join("lobby", Join { history: 10, ..Join::default() }).unwrap();
    assert_eq!([next_text(&mut client), next_text(&mut client)], ["two", "three"]);
}

fn next_text(client: &mut Client) -> String {
    client
        .events(client_support::PATIENCE)
        .find_map(|event| match event.unwrap() {
            ringroom::client::Event::Message(message) => message.text(),
            _ => None,
        })
        .unwrap()
}

#[test]
fn how_it_ends_is_told_by_its_exit_code() {
    let server = Server::start();
    let address = server.address.to_string();
    let code = |server: &str, args: &[&str], input: &str| {
        let output = Chat::start(server, args).end(input);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    for wrong in [&[][..], &["--user", "a b"], &["--user", "a", "--room", "@b"], &["--user", "a", "--history", "1001"]] {
        assert_eq!(code(&address, wrong, "").0, 64, "{wrong:?}");
    }
    assert_eq!(code("localhost", &["--user", "a"], "").0, 64, "an address without a port");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (exit, said) = code(&nobody, &["--user", "a"], "");
    assert!(exit == 69 && said.contains(&nobody) && said.lines().count() == 1, "{exit} {said}");
    let (exit, said) = code(&address, &["--token", "x.y.z"], "");
    assert!(exit == 77 && said.contains("refuse"), "{exit} {said}");
    let (exit, said) = code(&address, &["--user", "a"], &format!("{}\nshort\n", "x".repeat(70_000)));
    assert!(exit == 1 && said.contains("longer"), "{exit} {said}");
}
