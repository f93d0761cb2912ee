//! Bad input on real sockets: kinds of it that strangers are known to send, each with the tests that send it, here or where they are named.
//!
//! | what a client does | tests |
//! |---|---|
//! | bytes that drip | `thousands_that_drip_end_at_their_deadline_and_honest_clients_are_served`, `serve_frames::a_frame_that_drips_does_not_outlive_its_deadline` |
//! | a length of nothing, too much, or that lies | `serve_frames::a_length_of_zero_or_over_the_limit_ends_the_connection_with_its_bye`, `a_length_is_believed_only_when_its_bytes_come` |
//! | part of a `hello`, and no more | `strangers_that_stop_one_byte_short_hold_no_more_than_their_bound` |
//! | more connections than descriptors (EMFILE, ENFILE) | `serve_crowd::more_connections_than_descriptors_are_turned_away_without_spinning_and_it_recovers`, `reactor_deadlines` (`Accept`) |
//! | thousands of connections that say nothing | `serve_crowd::thousands_who_say_nothing_keep_nobody_out_and_all_go` |
//! | commands before its login | `first_words_that_are_no_hello_cost_nobody_else_anything`, `serve_sessions::nothing_but_hello_is_read_first` |
//! | reads slowly, or not at all | `serve_slow` |
//! | makes up rooms | `made_up_rooms_leave_nothing_behind`, `serve_limits::rooms_of_a_shard_have_a_number` |
//! | chooses names that collide | `names_that_meet_under_one_key_do_not_under_another` |
//! | nested, endless, doubled, odd JSON | `serve_frames::json_bombs_are_refused_and_the_session_goes_on`, `protocol_corpus` |
//! | broken or hostile UTF-8, in objects and in names | `protocol_corpus`, `text_that_deceives_is_no_name` |
//! | text that is to end up in the log | `nothing_a_client_says_makes_a_line_of_the_log` |
//! | a token without a signature, or with a key's use swapped | `tokens_that_cheat_about_their_algorithm_are_bad_tokens`, `auth::keys` |
//! | a token that is over, or not yet good | `a_token_counts_exactly_as_long_as_it_says_give_or_take_the_leeway` |
//! | a token of a key that is no longer used | `serve_jwt::keys_rotate_on_a_hangup_and_a_bad_file_changes_nothing` |
//! | odd claims and headers | `token_corpus` |
//! | guesses tokens | `serve_jwt::an_address_that_fails_too_often_waits_even_with_a_good_token`, `serve_proxy` |
//! | says it is somebody else | `what_a_client_says_about_itself_never_counts` |
//! | asks about rooms it is not in | `a_room_that_is_there_answers_a_stranger_like_one_that_is_not` |
//! | PROXY headers that are not its to send, or broken | `serve_proxy`, `protocol_proxy` |
//! | comes back all at once after a restart | `serve_takeover`, `serve_drain` |
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ringroom::chat::{Identity, Rules, Shard};
use ringroom::config::Settings;
use ringroom::ids::{Epoch, ShardId};
use serde_json::{Value, json};
use support::{Client, Server, assert_bye, assert_error, frame, wait_until};

const MIB: u64 = 1 << 20;
/// Receive buffers count as memory when they are first used; with few of them that is over soon.
const FEW_BUFFERS: &str = "[ring]\nbuffers = 64\n";

/// Bytes of memory the process has now.
fn memory(server: &Server) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

fn pair(server: &Server) -> [Client; 2] {
    ["ann", "bob"].map(|user| Client::member(server.address(), user, "pair"))
}

#[track_caller]
fn talk(pair: &mut [Client; 2], n: u64) {
    pair[0].send("pair", &n.to_string());
    pair.iter_mut().for_each(|client| assert_eq!(client.find("message")["body"], n));
}

#[test]
fn thousands_that_drip_end_at_their_deadline_and_honest_clients_are_served() {
    let server = Server::start(2, "[limits]\nhandshake_ms = 2_000\n");
    let mut honest = pair(&server);
    let first = frame(&format!(r#"{{"type":"hello","version":1,"user":"drip","pad":"{}"}}"#, "p".repeat(1_000)));
    let mut drips: Vec<Client> = (0..1_000).map(|_| Client::connect(server.address())).collect();
    // More steps than fit the deadline, and fewer than the frame has bytes.
    for (n, byte) in first.iter().enumerate().take(40) {
        for drip in &mut drips {
            drip.try_raw(&[*byte]);
        }
        talk(&mut honest, n as u64);
        thread::sleep(Duration::from_millis(60));
    }
    for drip in &mut drips {
        assert_bye(&drip.bye(), 408, "handshake_timeout");
    }
    drop(drips);
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("handshake_timeout"), 1_000, "{:?}", ended.ends);
}

#[test]
fn a_length_is_believed_only_when_its_bytes_come() {
    let server = Server::start(1, FEW_BUFFERS);
    let mut liars: Vec<Client> = (0..500).map(|n| Client::login(server.address(), &format!("u{n}"))).collect();
    let before = memory(&server);
    for liar in &mut liars {
        liar.raw(&65_536u32.to_be_bytes());
        liar.raw(b"{");
    }
    Client::login(server.address(), "ann").sync();
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes for 500 announcements of 64 KiB");
    drop(liars);
    server.stop().assert_clean();
}

#[test]
fn strangers_that_stop_one_byte_short_hold_no_more_than_their_bound() {
    let server = Server::start(1, "[limits]\nhandshake_ms = 3_000\n[queues]\nhandshake_bytes_max = 1_048_576\n[ring]\nbuffers = 64\n");
    let mut honest = pair(&server);
    let before = memory(&server);
    let whole = frame(&format!(r#"{{"type":"hello","version":1,"user":"x","pad":"{}"}}"#, "p".repeat(4_000)));
    let mut strangers: Vec<Client> = (0..1_500).map(|_| Client::connect(server.address())).collect();
    for stranger in &mut strangers {
        stranger.try_raw(&whole[..whole.len() - 1]);
    }
    talk(&mut honest, 1);
    // Their 6 MiB would be kept without the bound; what is beside it is the connections' own.
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < 4 * MIB, "{grown} bytes");
    let byes: Vec<Value> = strangers.iter_mut().map(Client::bye).collect();
    let (kept, refused): (Vec<&Value>, Vec<&Value>) = byes.iter().partition(|bye| bye["reason"] == "handshake_timeout");
    refused.iter().for_each(|bye| assert_bye(bye, 503, "overloaded"));
    assert!(kept.len() <= (MIB / 4_000) as usize && kept.len() >= 100, "{} were kept", kept.len());
    talk(&mut honest, 2);
    drop(strangers);
    server.stop().assert_clean();
}

#[test]
fn first_words_that_are_no_hello_cost_nobody_else_anything() {
    let server = Server::start(2, "");
    let mut honest = pair(&server);
    let address = server.address();
    let bad = ["nonsense", r#"{"type":"send","room":"pair","body":1}"#, r#"{"type":"join","room":"pair"}"#, r#"{"type":"ping"}"#];
    let threads: Vec<_> = bad
        .into_iter()
        .map(|word| {
            thread::spawn(move || {
                for _ in 0..250 {
                    let mut client = Client::connect(address);
                    client.say(word);
                    assert_bye(&client.bye(), 401, "hello_first");
                }
            })
        })
        .collect();
    (0..200).for_each(|n| talk(&mut honest, n));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(honest[1].sync().is_empty(), "nothing of theirs got in");
    let ended = server.stop();
    ended.assert_clean();
    assert_eq!(ended.ends("hello_first"), 1_000);
}

#[test]
fn made_up_rooms_leave_nothing_behind() {
    let server = Server::start(2, FEW_BUFFERS);
    let mut maker = Client::login(server.address(), "maker");
    let mut round = |from: usize| {
        for block in (from..from + 10_000).step_by(50) {
            let names = (block..block + 50).map(|n| format!("made-up-{n}"));
            let both = names.flat_map(|room| ["join", "leave"].map(|kind| frame(&json!({"type": kind, "room": room}).to_string())));
            maker.raw(&both.collect::<Vec<_>>().concat());
            (0..50).for_each(|_| drop(maker.find("left")));
        }
    };
    round(0);
    let before = memory(&server);
    (1..4).for_each(|n| round(n * 10_000));
    let grown = memory(&server).saturating_sub(before);
    assert!(grown < MIB, "{grown} bytes after 30,000 rooms that are gone");
    server.stop().assert_clean();
}

#[test]
fn names_that_meet_under_one_key_do_not_under_another() {
    let shard = |hash_seeds| {
        let identity = Identity { shard: ShardId(0), shards: 1, epoch: Epoch(1), node: "n".into(), hash_seeds };
        Shard::new(Rules::new(identity, &Settings::default()))
    };
    // Whoever knew the key could find names of one bucket of 1,024.
    let (known, secret) = (shard([1, 2, 3, 4]), shard([5, 6, 7, 8]));
    let bucket = |shard: &Shard, name: &str| shard.hash_of_user(name) % 1_024;
    let colliding: Vec<String> = (0..400_000).map(|n| format!("n{n}")).filter(|name| bucket(&known, name) == 7).collect();
    assert!(colliding.len() > 200);
    let mut counts = std::collections::BTreeMap::new();
    for name in &colliding {
        *counts.entry(bucket(&secret, name)).or_insert(0usize) += 1;
    }
    let most = counts.values().max().copied().unwrap();
    assert!(most <= 8, "{most} of {} meet again", colliding.len());
}

#[test]
fn text_that_deceives_is_no_name() {
    let server = Server::start(2, "");
    let mut ann = Client::login(server.address(), "ann");
    // A right-to-left override, a zero-width space, a look-alike, NUL, an escape, a line end, a brace, a slash.
    for name in ["a\u{202e}b", "a\u{200b}b", "\u{430}nn", "a\u{0}", "a\u{1b}[2J", "a\r\nb", "a{}b", "../a", "", "a b", "@", "@@a"] {
        ann.say(&json!({"type": "join", "id": 1, "room": name}).to_string());
        let error = ann.next();
        if error["reason"] != "forbidden" {
            assert_error(&error, 400, "bad_field");
        }
        let mut client = Client::connect(server.address());
        client.say(&json!({"type": "hello", "version": 1, "user": name}).to_string());
        assert_bye(&client.bye(), 400, "bad_field");
        // Eight bad objects within a minute would end the session.
        ann = Client::login(server.address(), "ann");
    }
    server.stop().assert_clean();
}

fn key(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name).to_str().unwrap().to_owned()
}

fn with_tokens(more: &str) -> Server {
    let keys = ["rsa.pem", "hs.secret"].map(|name| format!("{:?}", key(name))).join(", ");
    let auth = format!("[auth]\nmode = \"jwt\"\nkeys = [{keys}]\nfailures_burst = 1_000\n{more}");
    Server::start_with(&["--shards", "2", "--listen", "127.0.0.1:0", "--log-level", "trace"], &auth, "true")
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn signed(secret: &[u8], claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn good(claims: &Value) -> String {
    let file = std::fs::read(key("hs.secret")).unwrap();
    signed(ringroom::auth::secret(&file), claims)
}

/// The first word of the server to this token, with these other fields in the `hello`.
fn login_with(server: &Server, token: &str, more: &Value) -> (Value, Client) {
    let mut hello = json!({"type": "hello", "version": 1, "token": token});
    hello.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut client = Client::connect(server.address());
    client.say(&hello.to_string());
    (client.next(), client)
}

fn verdict(server: &Server, token: &str) -> String {
    let (answer, _) = login_with(server, token, &json!({}));
    answer["reason"].as_str().unwrap_or("welcome").to_owned()
}

#[test]
fn tokens_that_cheat_about_their_algorithm_are_bad_tokens() {
    let server = with_tokens("");
    let claims = json!({"sub": "ann", "exp": now_s() + 600});
    let honest = good(&claims);
    assert_eq!(verdict(&server, &honest), "welcome");
    let body = honest.split('.').nth(1).unwrap();
    // {"alg":"none"} and {"alg":"None","typ":"JWT"}
    for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"] {
        for token in [format!("{none}.{body}."), format!("{none}.{body}"), format!("{none}.{}", honest.split_once('.').unwrap().1)] {
            assert_eq!(verdict(&server, &token), "bad_token");
        }
    }
    // The public key that everybody knows, as if it were the secret.
    let public = std::fs::read(key("rsa.pem")).unwrap();
    for secret in [&public[..], public.trim_ascii_end()] {
        assert_eq!(verdict(&server, &signed(secret, &claims)), "bad_token");
    }
    server.stop().assert_clean();
}

#[test]
fn a_token_counts_exactly_as_long_as_it_says_give_or_take_the_leeway() {
    for (leeway_s, late, early) in [(0, "token_expired", "bad_token"), (70, "welcome", "welcome")] {
        let server = with_tokens(&format!("leeway_s = {leeway_s}\n"));
        let at = |exp: u64, nbf: u64| good(&json!({"sub": "ann", "exp": exp, "nbf": nbf}));
        let now_s = now_s();
        assert_eq!(verdict(&server, &at(now_s - 1, 0)), late, "over for a second");
        assert_eq!(verdict(&server, &at(now_s - 60, 0)), late, "a clock that is a minute slow");
        assert_eq!(verdict(&server, &at(now_s + 600, now_s + 60)), early, "a clock that is a minute fast");
        assert_eq!(verdict(&server, &at(now_s - 100, 0)), "token_expired");
        assert_eq!(verdict(&server, &at(now_s + 600, now_s + 100)), "bad_token");
        assert_eq!(verdict(&server, &at(now_s + 600, now_s)), "welcome");
        server.stop().assert_clean();
    }
}

#[test]
fn what_a_client_says_about_itself_never_counts() {
    let server = with_tokens("");
    let token = |user: &str| good(&json!({"sub": user, "exp": now_s() + 600}));
    let (welcome, mut ann) = login_with(&server, &token("ann"), &json!({"user": "bob", "from": "bob", "sub": "bob", "session": "1"}));
    assert_eq!(welcome["user"], "ann");
    let (_, mut bob) = login_with(&server, &token("bob"), &json!({}));
    for client in [&mut ann, &mut bob] {
        client.join("lobby");
    }
    let as_bob = |kind: &str, more: Value| {
        let mut object = json!({"type": kind, "id": 1, "user": "bob", "from": "bob", "sub": "bob", "token": token("bob")});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object.to_string()
    };
    ann.say(&as_bob("send", json!({"room": "lobby", "body": 1})));
    assert_eq!(bob.find("message")["from"], "ann");
    ann.say(&as_bob("send", json!({"room": "@bob", "body": 2})));
    assert_eq!(bob.find("message")["from"], "ann");
    for kind in ["join", "leave", "history", "presence"] {
        ann.say(&as_bob(kind, json!({"room": "@bob"})));
        assert_error(&ann.find("error"), 403, "forbidden");
    }
    ann.say(&as_bob("ping", json!({})));
    ann.find("pong");
    // A second `hello` is the one place where a token is looked at, and it is another user's.
    ann.say(&as_bob("hello", json!({"version": 1})));
    assert_bye(&ann.bye(), 403, "forbidden");
    bob.sync();
    server.stop().assert_clean();
}

#[test]
fn a_room_that_is_there_answers_a_stranger_like_one_that_is_not() {
    let server = Server::start(2, "");
    let mut ann = Client::member(server.address(), "ann", "secret-room");
    ann.send("secret-room", "1");
    ann.find("message");
    let mut eve = Client::login(server.address(), "eve");
    for kind in ["send", "history", "presence", "leave"] {
        let answers = ["secret-room", "missing-one"].map(|room| {
            eve.say(&json!({"type": kind, "id": 1, "room": room, "body": 1}).to_string());
            eve.next_text().unwrap().replace(room, "ROOM")
        });
        assert_eq!(answers[0], answers[1], "{kind}");
    }
    for kind in ["history", "presence", "join"] {
        let answers = ["@ann", "@nobody"].map(|room| {
            eve.say(&json!({"type": kind, "id": 1, "room": room}).to_string());
            eve.next_text().unwrap().replace(room, "ROOM")
        });
        assert_eq!(answers[0], answers[1], "{kind}");
    }
    server.stop().assert_clean();
}

#[test]
fn nothing_a_client_says_makes_a_line_of_the_log() {
    let planted = "PLANTED";
    let texts = [
        format!("a\r\n[2026-01-01T00:00:00.000Z ERROR ringroom] {planted}"),
        format!("\u{1b}[31m{planted}\u{1b}[0m"),
        format!("%s%n{planted}"),
        format!("{}{planted}", "x".repeat(3_000)),
    ];
    for server in [with_tokens(""), Server::start_with(&["--shards", "2", "--listen", "127.0.0.1:0", "--log-level", "trace"], "", "true")] {
        for text in &texts {
            for hello in [
                json!({"type": "hello", "version": 1, "user": text, "token": text}),
                json!({"type": "hello", "version": text, "user": "ann"}),
                json!({"type": text, "version": 1}),
                json!({text.clone(): 1}),
            ] {
                let mut client = Client::connect(server.address());
                client.say(&hello.to_string());
                assert_eq!(client.bye()["type"], "bye");
            }
            let mut raw = Client::connect(server.address());
            raw.raw(text.as_bytes());
            raw.finish();
            raw.read_to_the_end();
        }
        let ended = server.stop();
        ended.assert_clean();
        assert!(!ended.log.contains(planted), "{}", ended.log);
        // Each record begins with its time; none was made up, none has a second line.
        // What glommio says when it is taken apart has several lines.
        let (log, _) = ended.log.split_once("draining: ").unwrap();
        assert!(log.lines().all(|line| line.starts_with("[20") && line.contains("] ") && !line.contains('\u{1b}')), "{}", ended.log);
    }
}

#[test]
fn a_server_that_is_open_to_everybody_shouts() {
    let settings = |listen: &str| {
        let mut settings = Settings::default();
        settings.server.listen = vec![listen.parse().unwrap()];
        settings
    };
    assert!(settings("0.0.0.0:7777").is_insecure_open() && !settings("127.0.0.1:7777").is_insecure_open());
    let server = Server::start_with(&["--shards", "1", "--listen", "0.0.0.0:0", "--insecure-open"], "", "true");
    wait_until("its warning", || server.log_so_far().contains("anybody who reaches it can log in as anybody"));
    assert!(server.stop().log.contains(" WARN "));
    let refused = Command::new(env!("CARGO_BIN_EXE_ringroom")).args(["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
}
