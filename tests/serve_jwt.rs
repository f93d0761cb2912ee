//! Logins with a token, against the real program: every algorithm, expiry, renewal, rotation, overload, what is refused and how.
//!
//! The keys in tests/keys are made for these tests and good for nothing else.
//! Waits end with what is waited for; a server that hangs fails its test at a deadline and is killed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn ringroom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What `ringroom token` prints.
fn token(key_name: &str, user: &str, more: &[&str]) -> String {
    let output = ringroom().args(["token", "--key"]).arg(key(key_name)).args(["--user", user]).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of the test's own making.
fn odd(key_name: &str, claims: &Value) -> String {
    let bytes = std::fs::read(key(key_name)).unwrap();
    let secret = EncodingKey::from_secret(ringroom::auth::secret(&bytes));
    encode(&Header::new(Algorithm::HS256), claims, &secret).unwrap()
}

struct Server {
    child: Child,
    address: SocketAddr,
    stderr: Receiver<String>,
    _config: tempfile::NamedTempFile,
}

impl Server {
    fn start(keys: &[PathBuf], more: &str) -> Self {
        let keys: Vec<String> = keys.iter().map(|path| format!("{:?}", path.to_str().unwrap())).collect();
        let text = format!("[auth]\nmode = \"jwt\"\nkeys = [{}]\nleeway_s = 0\n{more}", keys.join(", "));
        let mut config = tempfile::NamedTempFile::new().unwrap();
        config.write_all(text.as_bytes()).unwrap();
        let mut command = ringroom();
        command.args(["serve", "--shards", "2", "--listen", "127.0.0.1:0", "--log-level", "trace", "--config"]).arg(config.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        let Ok(ready) = stdout.recv_timeout(PATIENCE) else { panic!("{:?}", stderr.iter().collect::<Vec<_>>()) };
        let address = ready.strip_prefix("ringroom ready on ").unwrap().split_once(": ").unwrap().0.parse().unwrap();
        Self { child, address, stderr, _config: config }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("sh").args(["-c", &format!("kill {name} {}", self.child.id())]).status().unwrap().success());
    }

    /// Waits for a line of the log.
    fn says(&self, words: &str) {
        while !self.stderr.recv_timeout(PATIENCE).unwrap().contains(words) {}
    }

    /// Drains it; its log, once it has ended well.
    fn end(mut self) -> String {
        self.signal("-TERM");
        let log: Vec<String> = self.stderr.iter().collect();
        assert!(self.child.wait().unwrap().success(), "{}", log.join("\n"));
        log.join("\n")
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    /// The answer to a `hello` with this token, and who has said it.
    fn login(&self, token: &str) -> (Value, Client) {
        let mut client = self.connect();
        client.say(&json!({"type": "hello", "version": 1, "token": token}));
        (client.hear(), client)
    }

    /// `welcome`, or code and reason of the `bye`.
    fn verdict(&self, token: &str) -> String {
        let answer = self.login(token).0;
        if answer["type"] == "welcome" { "welcome".into() } else { bye(&answer) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `end` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(65_536);
    thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| drop(sender.try_send(line))));
    receiver
}

fn bye(answer: &Value) -> String {
    assert_eq!(answer["type"], "bye", "{answer}");
    format!("{} {}", answer["code"], answer["reason"].as_str().unwrap())
}

struct Client(TcpStream);

fn frame(object: &Value) -> Vec<u8> {
    let json = object.to_string();
    let mut frame = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(json.as_bytes());
    frame
}

impl Client {
    fn say(&mut self, object: &Value) {
        self.0.write_all(&frame(object)).unwrap();
    }

    fn hear(&mut self) -> Value {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).unwrap();
        let mut json = vec![0; u32::from_be_bytes(header) as usize];
        self.0.read_exact(&mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// The connection ends here.
    fn ends(&mut self) {
        assert_eq!(self.0.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn a_token_of_every_algorithm_logs_in_and_says_when_it_ends() {
    let server = Server::start(&[key("hs.secret"), key("rsa.pem"), key("ec.pem"), key("ed.pem")], "");
    for (name, user) in [("hs.secret", "alice"), ("rsa.private.pem", "bob"), ("ec.private.pem", "carol"), ("ed.private.pem", "dave")] {
        let token = token(name, user, &["--expires", "1h"]);
        for _ in 0..2 {
            let (answer, _) = server.login(&token);
            assert_eq!((&answer["type"], &answer["user"]), (&"welcome".into(), &user.into()), "{name}: {answer}");
            let left_s = answer["expires_at"].as_u64().unwrap() / 1_000 - now_s();
            assert!((3_500..=3_600).contains(&left_s));
        }
    }
    let log = server.end();
    assert!(log.contains("remembered: 4"), "{log}");
}

#[test]
fn what_is_refused_is_told_one_thing_and_no_token_is_logged() {
    let server = Server::start(&[key("hs.secret")], "audience = \"chat\"\n");
    let claims = |user: &str, exp: u64| json!({"sub": user, "exp": exp, "aud": "chat"});
    let good = odd("hs.secret", &claims("alice", now_s() + 600));
    let tokens = [
        odd("other.secret", &claims("alice", now_s() + 600)),
        odd("hs.secret", &claims("@alice", now_s() + 600)),
        odd("hs.secret", &json!({"sub": "alice", "aud": "chat"})),
        odd("hs.secret", &json!({"sub": "alice", "exp": now_s() + 600, "aud": "mail"})),
        format!("{}.", good.rsplit_once('.').unwrap().0),
        "x".repeat(3_900),
        String::new(),
    ];
    let answers: Vec<Value> = tokens.iter().map(|token| server.login(token).0).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0] && bye(answer) == "401 bad_token"), "{answers:?}");
    assert_eq!(server.verdict(&odd("hs.secret", &claims("alice", now_s() - 1))), "401 token_expired");
    assert_eq!(server.verdict(&"x".repeat(4_096)), "413 frame_too_large");
    let mut client = server.connect();
    client.say(&json!({"type": "hello", "version": 1, "user": "alice"}));
    assert_eq!(bye(&client.hear()), "401 bad_token");
    client.ends();
    assert_eq!(server.verdict(&good), "welcome");
    let log = server.end();
    let parts = tokens.iter().chain([&good]).flat_map(|token| token.split('.')).filter(|part| part.len() > 20);
    assert_eq!(parts.filter(|part| log.contains(part)).count(), 0, "a token in {log}");
}

#[test]
fn what_stands_behind_hello_waits_for_the_verdict() {
    let server = Server::start(&[key("ed.pem")], "");
    for user in ["alice", "bob", "carol", "dave"] {
        let token = token("ed.private.pem", user, &["--room", "lobby:join,send"]);
        let mut bytes = frame(&json!({"type": "hello", "version": 1, "token": token}));
        bytes.extend(frame(&json!({"type": "join", "id": 1, "room": "lobby"})));
        bytes.extend(frame(&json!({"type": "send", "id": 2, "room": "lobby", "body": user})));
        bytes.extend(frame(&json!({"type": "join", "id": 3, "room": "office"})));
        let mut client = server.connect();
        client.0.write_all(&bytes).unwrap();
        let heard: Vec<Value> = (0..5).map(|_| client.hear()).collect();
        let of = |kind: &str| heard.iter().position(|o| o["type"] == kind).unwrap();
        assert_eq!((of("welcome"), &heard[of("message")]["body"]), (0, &user.into()), "{heard:?}");
        assert!(of("joined") < of("sent") && of("sent") < of("message"), "{heard:?}");
        assert_eq!((&heard[of("error")]["id"], &heard[of("error")]["reason"]), (&3.into(), &"forbidden".into()));
    }
    server.end();
}

#[test]
fn a_session_ends_with_its_token_unless_it_is_renewed() {
    let server = Server::start(&[key("hs.secret")], "");
    let short = token("hs.secret", "alice", &["--expires", "3s"]);
    let long = token("hs.secret", "alice", &["--expires", "1h"]);
    let ((first, mut ending), (_, mut staying)) = (server.login(&short), server.login(&short));
    staying.say(&json!({"type": "hello", "version": 1, "token": long}));
    staying.say(&json!({"type": "ping", "id": 1}));
    let renewed = staying.hear();
    assert_eq!((&renewed["type"], &renewed["user"]), (&"welcome".into(), &"alice".into()));
    assert!(renewed["expires_at"].as_u64() > first["expires_at"].as_u64());
    assert_eq!(staying.hear()["type"], "pong");
    assert_eq!(bye(&ending.hear()), "401 token_expired");
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    assert!(now_ms >= u128::from(first["expires_at"].as_u64().unwrap()), "not before its time");
    ending.ends();
    staying.say(&json!({"type": "ping", "id": 2}));
    assert_eq!(staying.hear()["id"], 2, "its first token has ended, the session has not");
    assert_eq!(server.verdict(&short), "401 token_expired", "remembered tokens end too");
    server.end();
}

#[test]
fn a_renewal_has_to_be_good_and_of_the_same_user() {
    let server = Server::start(&[key("hs.secret")], "");
    let alice = token("hs.secret", "alice", &[]);
    for (second, want) in [
        (token("hs.secret", "bob", &[]), "403 forbidden"),
        (token("other.secret", "alice", &[]), "401 bad_token"),
        (odd("hs.secret", &json!({"sub": "alice", "exp": now_s() - 1})), "401 token_expired"),
    ] {
        let (_, mut client) = server.login(&alice);
        client.say(&json!({"type": "hello", "version": 1, "token": second}));
        assert_eq!(bye(&client.hear()), want);
        client.ends();
    }
    server.end();
}

#[test]
fn keys_rotate_on_a_hangup_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::copy(key("hs.secret"), &path).unwrap();
    let server = Server::start(std::slice::from_ref(&path), "");
    let (old, new) = (token("hs.secret", "alice", &[]), token("ed.private.pem", "alice", &[]));
    let (_, mut session) = server.login(&old);
    assert_eq!((server.verdict(&old), server.verdict(&new)), ("welcome".into(), "401 bad_token".into()));
    std::fs::copy(key("ed.pem"), &path).unwrap();
    server.signal("-HUP");
    server.says("1 keys read again");
    assert_eq!((server.verdict(&old), server.verdict(&new)), ("401 bad_token".into(), "welcome".into()));
    for bad in ["short", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        std::fs::write(&path, bad).unwrap();
        server.signal("-HUP");
        server.says("the old keys stay in force");
    }
    std::fs::remove_file(&path).unwrap();
    server.signal("-HUP");
    server.says("the old keys stay in force");
    assert_eq!((server.verdict(&old), server.verdict(&new)), ("401 bad_token".into(), "welcome".into()));
    session.say(&json!({"type": "ping", "id": 1}));
    assert_eq!(session.hear()["type"], "pong", "sessions that are in stay in");
    server.end();
}

#[test]
fn more_logins_than_may_wait_are_told_to_come_back_and_none_is_left_without_an_answer() {
    let server = Server::start(&[key("rsa.pem")], "verify_threads = 1\nverify_queue = 1\nverify_cache = 0\n");
    let token = token("rsa.private.pem", "alice", &[]);
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    // What is said while it is stopped is there all at once when it goes on.
    server.signal("-STOP");
    for client in &mut clients {
        client.say(&json!({"type": "hello", "version": 1, "token": token}));
    }
    server.signal("-CONT");
    let answers: Vec<Value> = clients.iter_mut().map(Client::hear).collect();
    let (turned_away, others): (Vec<&Value>, Vec<&Value>) = answers.iter().partition(|answer| answer["code"] == 503);
    assert!(turned_away.iter().all(|answer| bye(answer) == "503 overloaded" && answer["retry_after_ms"].as_u64() >= Some(1_000)));
    let in_order = |answer: &Value| answer["type"] == "welcome" || answer["reason"] == "too_many_sessions";
    assert!(others.iter().all(|answer| in_order(answer)), "{others:?}");
    assert!(turned_away.len() >= 50 && !others.is_empty(), "{} of 100 turned away", turned_away.len());
    drop(clients);
    assert_eq!(server.verdict(&token), "welcome", "when the storm is over");
    server.end();
}

#[test]
fn clients_that_leave_before_the_verdict_leave_nothing_behind() {
    let server = Server::start(&[key("rsa.pem")], "verify_threads = 1\n");
    let tokens: Vec<String> = (0..8).map(|i| token("rsa.private.pem", &format!("user{i}"), &[])).collect();
    for round in 0..200 {
        let mut client = server.connect();
        client.say(&json!({"type": "hello", "version": 1, "token": tokens[round % 8]}));
        let _ = client.0.shutdown(if round % 2 == 0 { std::net::Shutdown::Both } else { std::net::Shutdown::Write });
    }
    assert_eq!(server.verdict(&tokens[0]), "welcome");
    server.end();
}

#[test]
fn an_address_that_fails_too_often_waits_even_with_a_good_token() {
    let server = Server::start(&[key("hs.secret")], "failures_burst = 3\nfailures_per_min = 1\n");
    let (good, bad) = (token("hs.secret", "alice", &[]), token("other.secret", "alice", &[]));
    let (_, mut session) = server.login(&good);
    for _ in 0..3 {
        assert_eq!(server.verdict(&bad), "401 bad_token");
    }
    for token in [&bad, &good] {
        let answer = server.login(token).0;
        assert_eq!(bye(&answer), "429 rate_limited");
        assert!((1..=60_100).contains(&answer["retry_after_ms"].as_u64().unwrap()), "{answer}");
    }
    session.say(&json!({"type": "ping", "id": 1}));
    assert_eq!(session.hear()["type"], "pong", "sessions that are in stay in");
    let log = server.end();
    assert!(log.contains("logins_limited="), "{log}");
}

#[test]
fn a_server_without_usable_keys_does_not_start_and_says_why() {
    for (keys, code, words) in [
        ("[]", 64, &["auth.keys", "at least one"][..]),
        ("[\"/nonexistent/key.pem\"]", 66, &["/nonexistent/key.pem", "auth.keys"]),
        (&format!("[{:?}]", key("rsa.private.pem").to_str().unwrap()), 64, &["rsa.private.pem", "private key", "-pubout"]),
        (&format!("[{:?}]", key("p384.pem").to_str().unwrap()), 64, &["p384.pem", "P-256"]),
    ] {
        let mut config = tempfile::NamedTempFile::new().unwrap();
        config.write_all(format!("[auth]\nmode = \"jwt\"\nkeys = {keys}\n").as_bytes()).unwrap();
        let output = ringroom().args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(config.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let line = said.lines().find(|line| line.starts_with("ringroom: ")).unwrap();
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_bad_request_for_a_token_is_refused() {
    let run = |args: &[&str]| ringroom().arg("token").args(args).output().unwrap().status.code();
    let secret = key("hs.secret");
    let secret = secret.to_str().unwrap();
    for more in
        [&["--user", "a b"][..], &["--user", "a", "--expires", "1"], &["--user", "a", "--room", "x"], &["--user", "a", "--room", "x:write"]]
    {
        assert_eq!(run(&[&["--key", secret], more].concat()), Some(64), "{more:?}");
    }
    assert_eq!(run(&["--key", "/nonexistent/key", "--user", "a"]), Some(66));
    assert_eq!(run(&["--key", key("rsa.pem").to_str().unwrap(), "--user", "a"]), Some(64), "a public key does not sign");
}
