//! Once and in order: the same sequence at every member, answers in the order of requests, whatever others do to their connections.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;

use support::{Client, Server, Value, assert_bye, frame, hello, place_in_order};

fn send_frame(room: &str, id: usize, body: &str) -> Vec<u8> {
    frame(&format!(r#"{{"type":"send","id":{id},"room":"{room}","body":"{body}"}}"#))
}

/// Writes on a thread of its own, so that a client reads while it sends.
fn write_aside(client: &Client, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    let stream = client.stream.clone();
    thread::spawn(move || (&*stream).write_all(&bytes).unwrap())
}

/// What a member has seen of a room.
#[derive(Debug, Default)]
struct Seen {
    /// Position and body, in the order they came.
    messages: Vec<((u64, u64), String)>,
    sent: BTreeMap<u64, (u64, u64)>,
}

/// Reads until so many messages and `sent` are there; a client's own message comes behind its `sent`.
fn read(client: &mut Client, user: &str, messages: usize, sent: usize) -> Seen {
    let mut seen = Seen::default();
    while seen.messages.len() < messages || seen.sent.len() < sent {
        let object = client.next();
        match object["type"].as_str().unwrap() {
            "sent" => {
                let id = object["id"].as_u64().unwrap();
                assert!(seen.sent.insert(id, place_in_order(&object["at"])).is_none(), "sent twice: {object}");
            }
            "message" => {
                let (at, body) = (place_in_order(&object["at"]), object["body"].as_str().unwrap().to_owned());
                if object["from"] == user {
                    let id = body.rsplit_once(' ').unwrap().1.parse().unwrap();
                    assert_eq!(seen.sent.get(&id), Some(&at), "a message before its sent: {object}");
                }
                seen.messages.push((at, body));
            }
            _ => panic!("{object}"),
        }
    }
    seen
}

#[test]
fn all_members_see_one_order_with_concurrent_senders_on_three_shards() {
    const SENDERS: usize = 5;
    const MEMBERS: usize = 15;
    const EACH: usize = 400;
    let server = Server::start(3, "");
    let members: Vec<Client> = (0..MEMBERS).map(|n| Client::member(server.address(), &format!("u{n}"), "lobby")).collect();
    let readers: Vec<_> = members
        .into_iter()
        .enumerate()
        .map(|(n, mut client)| {
            thread::spawn(move || {
                let user = format!("u{n}");
                let sends = if n < SENDERS { EACH } else { 0 };
                let frames: Vec<u8> = (0..sends).flat_map(|id| send_frame("lobby", id, &format!("{user} {id}"))).collect();
                let writer = write_aside(&client, frames);
                let seen = read(&mut client, &user, SENDERS * EACH, sends);
                writer.join().unwrap();
                assert!(client.sync().is_empty(), "no message comes twice");
                seen
            })
        })
        .collect();
    let seen: Vec<Seen> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    for other in &seen[1..] {
        assert!(other.messages == seen[0].messages, "two members see two orders");
    }
    assert!(seen[0].messages.is_sorted_by(|a, b| a.0 < b.0), "positions rise strictly");
    for n in 0..SENDERS {
        let own = seen[0].messages.iter().filter_map(|(_, body)| body.strip_prefix(&format!("u{n} ")));
        assert!(own.map(|id| id.parse::<usize>().unwrap()).eq(0..EACH), "in the order sent, each once");
    }
    server.stop().assert_clean();
}

#[test]
fn hello_join_and_send_in_one_packet_are_answered_in_order_on_every_shard() {
    let server = Server::start(3, "");
    for n in 0..40 {
        let mut client = Client::connect(server.address());
        let (user, room) = (format!("user-{n}"), format!("room-{n}"));
        let words = [hello(&user), format!(r#"{{"type":"join","id":1,"room":"{room}"}}"#)].map(|word| frame(&word)).concat();
        client.raw(&[words, send_frame(&room, 2, "x 2"), send_frame(&room, 3, "x 3")].concat());
        client.expect("welcome");
        assert_eq!(client.expect("joined")["id"], 1);
        let seen = read(&mut client, &user, 2, 2);
        assert_eq!(seen.messages.len(), 2);
        assert!(client.sync().is_empty());
    }
    let ended = server.stop();
    ended.assert_clean();
    assert!(ended.counter("moved") > 0, "some users live on another shard than the one that accepted them");
}

/// Requests about many rooms, so that all shards have a hand in the answers.
fn many_requests(rooms: usize, sends: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for room in 0..rooms {
        bytes.extend(frame(&format!(r#"{{"type":"join","id":{room},"room":"room-{room}","echo":false}}"#)));
    }
    for id in 0..sends {
        bytes.extend(send_frame(&format!("room-{}", id % rooms), id, "x"));
    }
    bytes
}

/// All answers, each once, then what is left.
fn answers(client: &mut Client, rooms: usize, sends: usize) -> Vec<Value> {
    client.expect("welcome");
    let (mut joined, mut sent) = (BTreeSet::new(), BTreeSet::new());
    let mut others = Vec::new();
    for object in client.rest() {
        match object["type"].as_str().unwrap() {
            "joined" => assert!(joined.insert(object["id"].as_u64().unwrap()), "{object}"),
            "sent" => assert!(sent.insert(object["id"].as_u64().unwrap()), "{object}"),
            _ => others.push(object),
        }
    }
    assert_eq!((joined.len(), sent.len()), (rooms, sends), "others: {others:?}");
    others
}

#[test]
fn everything_before_a_bye_is_answered_before_it() {
    let server = Server::start(3, "");
    for n in 0..10 {
        let mut client = Client::connect(server.address());
        let bytes = [frame(&hello(&format!("u{n}"))), many_requests(20, 200), frame(r#"{"type":"bye"}"#)].concat();
        let writer = write_aside(&client, bytes);
        let others = answers(&mut client, 20, 200);
        writer.join().unwrap();
        assert_eq!(others.len(), 1, "{others:?}");
        assert_bye(&others[0], 0, "bye");
    }
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("bye"), 10);
}

#[test]
fn a_client_that_has_said_all_and_closed_its_side_gets_every_answer() {
    let server = Server::start(3, "");
    for (n, sends) in [0, 1, 200, 10_000, 10_000, 10_000].into_iter().enumerate() {
        let mut client = Client::connect(server.address());
        let bytes = [frame(&hello(&format!("u{n}"))), many_requests(20, sends)].concat();
        let stream = client.stream.clone();
        let writer = thread::spawn(move || {
            (&*stream).write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        assert!(answers(&mut client, 20, sends).is_empty());
        writer.join().unwrap();
    }
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("peer_closed"), 6, "{:?}", ended.ends);
}

#[test]
fn resets_in_the_middle_of_a_fan_out_harm_nobody_else() {
    const MESSAGES: usize = 1_500;
    let server = Server::start(3, "");
    let mut readers = Vec::new();
    for n in 0..24 {
        let mut client = Client::member(server.address(), &format!("u{n}"), "lobby");
        readers.push(thread::spawn(move || {
            let stays = n % 2 == 0;
            let seen = read(&mut client, "", if stays { MESSAGES } else { 50 * n }, 0);
            if stays {
                drop(client)
            } else {
                client.reset()
            }
            stays.then_some(seen)
        }));
    }
    let mut sender = Client::member(server.address(), "sender", "lobby");
    let frames = (0..MESSAGES).flat_map(|id| send_frame("lobby", id, &format!("sender {id}"))).collect();
    let writer = write_aside(&sender, frames);
    let own = read(&mut sender, "sender", MESSAGES, MESSAGES);
    writer.join().unwrap();
    for seen in readers.into_iter().filter_map(|reader| reader.join().unwrap()) {
        assert!(seen.messages == own.messages);
    }
    server.stop().assert_clean();
}

/// The load generator as a process that is killed, at the latest when its test ends.
struct Load(Child);

impl Load {
    fn start(server: &Server) -> Self {
        let connect = server.address().to_string();
        let mut load = Command::new(env!("CARGO_BIN_EXE_ringroom"));
        load.args(["load", "--connect", &connect, "--connections", "60", "--rooms", "3", "--rate", "600", "--duration", "60"]);
        Self(load.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clients_killed_under_load_leave_nothing_behind_and_harm_nobody() {
    let server = Server::start(3, "");
    let before = server.descriptors();
    let mut pair = [Client::member(server.address(), "ann", "pair"), Client::member(server.address(), "bob", "pair")];
    for _ in 0..2 {
        let mut load = Some(Load::start(&server));
        support::wait_until("the load's connections", || server.descriptors() >= before + 62);
        for n in 0..200 {
            if n == 100 {
                load = None;
            }
            pair[0].send("pair", &n.to_string());
            for client in &mut pair {
                assert_eq!(client.find("message")["body"], n);
            }
        }
        assert!(load.is_none());
        support::wait_until("the descriptors of those that were killed", || server.descriptors() <= before + 2);
    }
    let ended = server.stop();
    ended.assert_clean();
    assert!(ended.ends("peer_lost") + ended.ends("peer_closed") >= 120, "{:?}", ended.ends);
}
