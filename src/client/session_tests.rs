//! The session against a server that is written out line by line: every object that it says and hears is in the test.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::backoff::Backoff;
use super::event::{Down, Event, Join, Lifetime, Post};
use super::session::{ANSWER_PATIENCE, Options, REPEAT_MAX, Session, Status, text_body};

struct Stage {
    session: Session,
    now: Instant,
}

impl Stage {
    fn new() -> Self {
        let now = Instant::now();
        let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };
        Self { session: Session::new(Options { backoff, ..Options::user("me") }, 7, now), now }
    }

    fn online() -> Self {
        let mut stage = Self::new();
        assert_eq!(stage.dial()["type"], "hello");
        stage.welcome(json!({"at": "e.0-0", "replay": 0}));
        stage
    }

    /// Connects; the `hello`.
    fn dial(&mut self) -> Value {
        self.session.connected(self.now);
        self.said().remove(0)
    }

    fn welcome(&mut self, inbox: Value) -> Vec<String> {
        self.hear(json!({"type": "welcome", "version": 1, "user": "me", "heartbeat_ms": 25_000, "inbox": inbox}))
    }

    /// In room `r`, at its message 5.
    fn in_room() -> Self {
        let mut stage = Self::online();
        stage.session.join("r", Join::default(), stage.now).unwrap();
        let join = stage.said().remove(0);
        assert_eq!((join["type"].as_str(), join.get("since")), (Some("join"), None));
        assert_eq!(stage.hear(joined(&join, 0, "e.5-0", None)), ["joined 0"]);
        stage
    }

    /// The objects that it wants to say.
    fn said(&mut self) -> Vec<Value> {
        let mut objects = Vec::new();
        while let Some((header, rest)) = self.session.outgoing().split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*header)).unwrap();
            objects.push(serde_json::from_slice(&rest[..length]).unwrap());
            self.session.written(4 + length, self.now);
        }
        objects
    }

    fn hear(&mut self, object: Value) -> Vec<String> {
        let json = object.to_string();
        let mut bytes = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        self.session.received(&bytes, self.now);
        self.events()
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.event(self.now)).map(|event| short(&event)).collect()
    }

    /// Breaks the connection and waits as long as the session wants to.
    fn cut(&mut self) {
        self.session.disconnected(Down::Transport("cut".into()), self.now);
        assert_eq!(self.events(), ["offline"]);
        self.wait_for_retry();
    }

    fn wait_for_retry(&mut self) -> Duration {
        let Status::Offline { retry_at } = self.session.status() else { panic!("{:?}", self.session.status()) };
        let wait = retry_at.saturating_duration_since(self.now);
        self.now = self.now.max(retry_at);
        wait
    }

    fn send(&mut self, text: &str) -> Vec<Value> {
        self.session.send_text("r", text, self.now).unwrap();
        self.said()
    }
}

fn short(event: &Event) -> String {
    match event {
        Event::Message(message) => format!("{}", message.body),
        Event::Joined(joined) => format!("joined {}", joined.replay),
        Event::Missed { room } => format!("missed {room}"),
        Event::Sent(sent) => format!("sent{}", if sent.duplicate { " duplicate" } else { "" }),
        Event::Offline { .. } => "offline".into(),
        Event::Online { .. } => "online".into(),
        Event::Failed { refusal, .. } => format!("failed {}", refusal.reason),
        Event::Ended(refusal) => format!("ended {}", refusal.as_ref().map_or("", |refusal| &refusal.reason)),
        Event::Left { .. } => "left".into(),
        other => format!("{other:?}"),
    }
}

fn joined(join: &Value, replay: u32, at: &str, recovered: Option<bool>) -> Value {
    let mut answer = json!({"type": "joined", "id": join["id"], "room": join["room"], "at": at, "members": 1, "replay": replay});
    if let Some(recovered) = recovered {
        answer["recovered"] = recovered.into();
    }
    answer
}

fn message(n: u32) -> Value {
    json!({"type": "message", "room": "r", "at": format!("e.{n}-0"), "from": "a", "ts": 1, "body": n})
}

#[test]
fn after_a_cut_the_room_goes_on_from_its_last_message_and_overlap_is_seen_once() {
    let mut stage = Stage::in_room();
    assert_eq!([stage.hear(message(6)), stage.hear(message(7))].concat(), ["6", "7"]);
    stage.cut();
    assert_eq!(stage.dial()["inbox"], "e.0-0");
    stage.welcome(json!({"at": "e.0-0", "replay": 0, "recovered": true}));
    let join = stage.said().remove(0);
    assert_eq!((join["since"].as_str(), join.get("history")), (Some("e.7-0"), None));
    assert_eq!(stage.hear(joined(&join, 3, "e.9-0", Some(true))), ["joined 3"]);
    // A replay that begins too early.
    let heard: Vec<String> = [7, 8, 9, 10].into_iter().flat_map(|n| stage.hear(message(n))).collect();
    assert_eq!((heard, stage.session.doubles_dropped()), (vec!["8".into(), "9".into(), "10".into()], 1));
}

#[test]
fn a_cut_inside_a_replay_loses_nothing_of_it() {
    let mut stage = Stage::in_room();
    stage.cut();
    stage.dial();
    stage.welcome(json!({"at": "e.0-0", "replay": 0, "recovered": true}));
    let join = stage.said().remove(0);
    stage.hear(joined(&join, 3, "e.8-0", Some(true)));
    assert_eq!(stage.session.position("r"), Some("e.5-0"), "not past what has not come");
    assert_eq!(stage.hear(message(6)), ["6"]);
    stage.cut();
    stage.dial();
    stage.welcome(json!({"at": "e.0-0", "replay": 0, "recovered": true}));
    assert_eq!(stage.said()[0]["since"], "e.6-0");
}

#[test]
fn a_first_join_is_told_when_it_can_be_taken_up_again() {
    let mut stage = Stage::online();
    let ticket = stage.session.join("r", Join { history: 2, ..Join::default() }, stage.now).unwrap();
    let join = stage.said().remove(0);
    assert_eq!(join["history"], 2);
    assert_eq!(stage.hear(joined(&join, 2, "e.5-0", None)), Vec::<String>::new(), "not before its replay begins");
    stage.cut();
    stage.dial();
    stage.welcome(json!({"at": "e.0-0", "replay": 0, "recovered": true}));
    let again = stage.said().remove(0);
    assert_eq!((again["id"].clone(), again["history"].as_u64(), again.get("since")), (join["id"].clone(), Some(2), None));
    assert_eq!(stage.hear(joined(&again, 2, "e.9-0", None)), Vec::<String>::new());
    stage.session.received(&[], stage.now);
    assert_eq!([stage.hear(message(8)), stage.hear(message(9))].concat(), ["joined 2", "8", "9"]);
    assert!(stage.session.join("r", Join::default(), stage.now).unwrap() > ticket);
}

#[test]
fn what_the_server_could_not_bring_is_told_before_the_next_message() {
    let mut stage = Stage::in_room();
    stage.cut();
    stage.dial();
    assert_eq!(stage.welcome(json!({"at": "f.0-0", "replay": 0, "recovered": false})), ["online", "missed @me"]);
    let join = stage.said().remove(0);
    let mut heard = stage.hear(joined(&join, 1, "f.3-0", Some(false)));
    heard.extend(stage.hear(json!({"type": "message", "room": "r", "at": "f.3-0", "from": "a", "ts": 1, "body": 3})));
    assert_eq!(heard, ["missed r", "joined 1", "3"]);
    assert_eq!(stage.session.position("r"), Some("f.3-0"));
}

#[test]
fn sends_without_an_answer_are_said_again_word_for_word_behind_their_join() {
    let mut stage = Stage::in_room();
    let first = [stage.send("one"), stage.send("two")].concat();
    assert_eq!(first.len(), 2);
    assert_ne!(first[0]["key"], first[1]["key"]);
    assert_eq!(stage.hear(json!({"type": "sent", "id": first[0]["id"], "room": "r", "at": "e.6-0"})), ["sent"]);
    stage.cut();
    stage.session.send_text("r", "three", stage.now).unwrap();
    stage.dial();
    stage.welcome(json!({"at": "e.0-0", "replay": 0, "recovered": true}));
    let join = stage.said();
    assert_eq!(join.len(), 1, "sends wait until the room is joined");
    stage.hear(joined(&join[0], 0, "e.6-0", Some(true)));
    let again = stage.said();
    assert_eq!((&again[0], again[1]["body"]["text"].as_str(), again.len()), (&first[1], Some("three"), 2));
    let answer = json!({"type": "sent", "id": again[0]["id"], "room": "r", "at": "e.7-0", "duplicate": true});
    assert_eq!(stage.hear(answer.clone()), ["sent duplicate"]);
    assert_eq!(stage.hear(answer), Vec::<String>::new(), "an answer that comes twice is told once");
    assert_eq!(stage.session.unanswered_sends(), 1);
}

#[test]
fn a_send_too_old_for_the_servers_memory_is_given_up_and_not_doubled() {
    let mut stage = Stage::in_room();
    stage.send("one");
    stage.cut();
    stage.now += REPEAT_MAX;
    stage.dial();
    let told = stage.welcome(json!({"at": "e.0-0", "replay": 0, "recovered": true}));
    assert_eq!(told, ["online", "failed uncertain"]);
    assert_eq!(stage.session.unanswered_sends(), 0);
}

#[test]
fn a_refusal_for_now_is_repeated_in_its_time_and_a_refusal_for_good_is_told() {
    let mut stage = Stage::in_room();
    let send = stage.send("one").remove(0);
    let refusal = json!({"type": "error", "id": send["id"], "code": 503, "reason": "overloaded", "message": "", "retry_after_ms": 4_000});
    assert_eq!(stage.hear(refusal), Vec::<String>::new());
    assert!(stage.send("two").is_empty(), "what comes later stays behind it");
    stage.now += Duration::from_millis(3_999);
    stage.session.tick(stage.now);
    assert!(stage.said().is_empty());
    stage.now = stage.session.deadline(stage.now).unwrap();
    stage.session.tick(stage.now);
    let again = stage.said();
    assert_eq!((&again[0], again[1]["body"]["text"].as_str()), (&send, Some("two")));
    let refusal = json!({"type": "error", "id": send["id"], "code": 403, "reason": "forbidden", "message": ""});
    assert_eq!(stage.hear(refusal), ["failed forbidden"]);
}

#[test]
fn a_gap_is_cured_from_the_last_message_and_nothing_overtakes_the_cure() {
    let mut stage = Stage::in_room();
    stage.hear(message(6));
    stage.hear(json!({"type": "gap", "room": "r", "since": "e.6-0"}));
    let cure = stage.said();
    assert_eq!((cure[0]["type"].as_str(), cure[1]["type"].as_str()), (Some("leave"), Some("join")));
    assert_eq!(cure[1]["since"], "e.6-0");
    assert_eq!(stage.hear(message(9)), Vec::<String>::new(), "it will come again in its place");
    assert_eq!(stage.hear(json!({"type": "left", "id": cure[0]["id"], "room": "r"})), Vec::<String>::new());
    assert_eq!(stage.hear(joined(&cure[1], 3, "e.9-0", Some(true))), ["joined 3"]);
    let heard: Vec<String> = [7, 8, 9, 10].into_iter().flat_map(|n| stage.hear(message(n))).collect();
    assert_eq!(heard, ["7", "8", "9", "10"]);
}

#[test]
fn a_gap_in_the_inbox_is_cured_by_a_new_login() {
    let mut stage = Stage::online();
    let direct = json!({"type": "message", "room": "@me", "at": "e.4-0", "from": "a", "ts": 1, "body": 4});
    assert_eq!(stage.hear(direct), ["4"]);
    assert_eq!(stage.hear(json!({"type": "gap", "room": "@me", "since": "e.4-0"})), ["offline"]);
    stage.wait_for_retry();
    assert_eq!(stage.dial()["inbox"], "e.4-0");
}

#[test]
fn delays_double_under_a_ceiling_and_obey_the_server() {
    let mut stage = Stage::new();
    for attempt in 0..12_u32 {
        stage.dial();
        stage.session.disconnected(Down::Transport("refused".into()), stage.now);
        let wait = stage.wait_for_retry();
        assert!(wait <= Duration::from_millis(100 << attempt.min(5)).min(Duration::from_secs(2)), "{attempt}: {wait:?}");
        stage.events();
    }
    stage.dial();
    let bye = json!({"type": "bye", "code": 503, "reason": "draining", "retry_after_ms": 9_000});
    assert_eq!(stage.hear(bye), ["offline"]);
    let wait = stage.wait_for_retry();
    assert!(wait >= Duration::from_secs(9) && wait <= Duration::from_secs(11), "{wait:?}");
}

#[test]
fn a_refused_login_and_a_session_taken_over_are_the_end() {
    for (code, reason) in [(401, "bad_token"), (409, "replaced"), (410, "kicked"), (505, "version"), (429, "too_many_sessions")] {
        let mut stage = Stage::new();
        stage.dial();
        assert_eq!(stage.hear(json!({"type": "bye", "code": code, "reason": reason})), [format!("ended {reason}")]);
        assert_eq!((stage.session.status(), stage.session.deadline(stage.now)), (Status::Ended, None));
    }
    // Who was in before may be its own crowd of ghosts.
    let mut stage = Stage::online();
    assert_eq!(stage.hear(json!({"type": "bye", "code": 429, "reason": "too_many_sessions"})), ["offline"]);
}

#[test]
fn silence_is_asked_about_and_then_given_up() {
    let mut stage = Stage::in_room();
    assert!(stage.hear(json!({"type": "ping"})).is_empty());
    assert_eq!(stage.said(), [json!({"type": "pong"})]);
    stage.now = stage.session.deadline(stage.now).unwrap();
    stage.session.tick(stage.now);
    assert_eq!(stage.said(), [json!({"type": "ping"})]);
    stage.now = stage.session.deadline(stage.now).unwrap();
    stage.session.tick(stage.now);
    assert_eq!(stage.events(), ["offline"]);
}

#[test]
fn a_request_without_an_answer_ends_the_connection_though_the_server_talks() {
    let mut stage = Stage::in_room();
    stage.send("one");
    for _ in 0..3 {
        stage.now += ANSWER_PATIENCE / 3;
        stage.hear(message(u32::try_from(stage.session.doubles_dropped()).unwrap() + 6));
        stage.session.tick(stage.now);
    }
    assert_eq!(stage.events(), ["offline"]);
}

#[test]
fn what_waits_is_bounded_and_said_to_be_full() {
    let mut stage = Stage::new();
    let body = text_body(&"x".repeat(60_000));
    let post = Post { room: "r", body: &body, key: None, lifetime: Lifetime::Retained };
    let taken = std::iter::repeat_with(|| stage.session.send(&post, stage.now)).take_while(Result::is_ok).count();
    assert!((100..200).contains(&taken), "{taken}");
    let mut stage = Stage::in_room();
    for n in 0..40 {
        stage.session.send_text("r", &n.to_string(), stage.now).unwrap();
    }
    assert_eq!(stage.said().len(), stage.session.options.sends_in_flight);
}
