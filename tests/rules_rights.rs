//! What a token allows holds for every request, over one shard and several: rights by pattern, the user's rate, renewal.
#![allow(clippy::unwrap_used, reason = "tests")]

mod rules_support;

use std::num::NonZeroU64;
use std::sync::Arc;

use ringroom::chat::{Flow, Grant, Right, Rights, RoomRights, TokenRate};
use ringroom::config::RateMode;
use ringroom::protocol::error::Reason;
use rules_support::{Cluster, bodies};

fn grant(rooms: &[(&str, &[Right])]) -> Grant {
    let rights = rooms.iter().map(|(pattern, rights)| RoomRights::new(pattern, rights.iter().copied()).unwrap());
    Grant { expires_at: NonZeroU64::new(1_800_000_000_000), rights: Some(Arc::new(Rights(rights.collect()))), rate: None }
}

#[test]
fn a_token_without_rooms_allows_all_and_says_when_it_ends() {
    let mut cluster = Cluster::new(1, |_| {});
    let alice = cluster.login_with("alice", None, Grant { expires_at: NonZeroU64::new(1_800_000_000_000), ..Grant::default() });
    assert_eq!(cluster.take(alice)[0]["expires_at"], 1_800_000_000_000_u64);
    assert_eq!(cluster.hear(alice, r#"{"type":"join","room":"a","presence":true}"#)[0]["type"], "joined");
    assert_eq!(cluster.hear(alice, r#"{"type":"send","room":"@bob","body":1}"#)[0]["type"], "sent");
}

#[test]
fn each_request_needs_its_right_and_is_refused_with_its_number() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards, |_| {});
        let rooms: &[(&str, &[Right])] =
            &[("read.*", &[Right::Join]), ("write", &[Right::Join, Right::Send]), ("full", &Right::ALL), ("@bob", &[Right::Send])];
        let alice = cluster.login_with("alice", None, grant(rooms));
        cluster.take(alice);
        let mut verdict = |json: &str| {
            let told = cluster.hear(alice, json);
            let answer = told.iter().find(|o| o["type"] != "message").unwrap();
            if answer["type"] == "error" {
                format!("{} {} {}", answer["id"], answer["code"], answer["reason"].as_str().unwrap())
            } else {
                "ok".into()
            }
        };
        for (json, want) in [
            (r#"{"type":"join","id":1,"room":"read.a"}"#, "ok"),
            (r#"{"type":"join","id":2,"room":"read"}"#, "2 403 forbidden"),
            (r#"{"type":"join","id":3,"room":"read.b","presence":true}"#, "3 403 forbidden"),
            (r#"{"type":"send","id":4,"room":"read.a","body":1}"#, "4 403 forbidden"),
            (r#"{"type":"history","id":5,"room":"read.a"}"#, "ok"),
            (r#"{"type":"presence","id":6,"room":"read.a"}"#, "6 403 forbidden"),
            (r#"{"type":"join","id":7,"room":"write"}"#, "ok"),
            (r#"{"type":"send","id":8,"room":"write","body":1}"#, "ok"),
            (r#"{"type":"presence","id":9,"room":"write"}"#, "9 403 forbidden"),
            (r#"{"type":"join","id":10,"room":"full","presence":true}"#, "ok"),
            (r#"{"type":"presence","id":11,"room":"full"}"#, "ok"),
            (r#"{"type":"send","id":12,"room":"@bob","body":1}"#, "ok"),
            (r#"{"type":"send","id":13,"room":"@carol","body":1}"#, "13 403 forbidden"),
            (r#"{"type":"history","id":14,"room":"@alice"}"#, "ok"),
            (r#"{"type":"history","id":15,"room":"@bob"}"#, "15 403 forbidden"),
            (r#"{"type":"leave","id":16,"room":"full"}"#, "ok"),
        ] {
            assert_eq!(verdict(json), want, "{json}, {shards} shards");
        }
    }
}

#[test]
fn a_second_hello_of_a_session_with_a_token_waits_for_its_verdict() {
    let mut cluster = Cluster::new(1, |_| {});
    let alice = cluster.login_with("alice", None, grant(&[]));
    assert_eq!(cluster.offer(alice, r#"{"type":"hello","version":1,"token":"t"}"#), Flow::Verify);
    assert_eq!(cluster.take(alice).len(), 1, "the first welcome and no other yet");
    cluster.offer(alice, r#"{"type":"hello","version":1,"user":"alice"}"#);
    assert_eq!(cluster.ended.get(&alice), Some(&Reason::BadToken), "its own word is not enough");
    let open = cluster.login("bob", None);
    cluster.take(open);
    assert_eq!(cluster.hear(open, r#"{"type":"hello","version":1,"user":"bob"}"#)[0]["type"], "welcome");
}

#[test]
fn a_renewal_gives_new_rights_and_takes_old_ones() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards, |_| {});
        let alice = cluster.login_with("alice", None, grant(&[("*", &Right::ALL)]));
        let bob = cluster.login("bob", None);
        for room in ["keep", "lose"] {
            cluster.ask(alice, &format!(r#"{{"type":"join","room":"{room}","presence":true}}"#));
            cluster.ask(bob, &format!(r#"{{"type":"join","room":"{room}"}}"#));
        }
        cluster.take(alice);
        let fresh = Grant { expires_at: NonZeroU64::new(1_900_000_000_000), ..grant(&[("keep", &[Right::Join])]) };
        assert!(cluster.renew(alice, "alice", fresh));
        let told = cluster.take(alice);
        assert_eq!((&told[0]["type"], &told[0]["expires_at"]), (&"welcome".into(), &1_900_000_000_000_u64.into()));
        assert_eq!((&told[1]["type"], &told[1]["room"]), (&"left".into(), &"lose".into()));
        for (room, body) in [("keep", 1), ("lose", 2)] {
            cluster.ask(bob, &format!(r#"{{"type":"send","room":"{room}","body":{body}}}"#));
        }
        assert_eq!(bodies(&cluster.take(alice)), [1]);
        cluster.close(bob);
        assert!(cluster.take(alice).is_empty(), "nothing of who comes and goes without the right to know");
        assert_eq!(cluster.hear(alice, r#"{"type":"send","room":"keep","body":3}"#)[0]["reason"], "forbidden");
    }
}

#[test]
fn a_renewal_for_another_user_ends_the_session() {
    let mut cluster = Cluster::new(1, |_| {});
    let alice = cluster.login_with("alice", None, grant(&[]));
    assert!(!cluster.renew(alice, "mallory", grant(&[("*", &Right::ALL)])));
    assert_eq!(cluster.ended.get(&alice), Some(&Reason::Forbidden));
    assert!(!cluster.renew(alice, "alice", grant(&[])), "it has ended");
}

#[test]
fn the_rate_of_a_token_stands_above_the_configured_one() {
    let mut cluster = Cluster::new(1, |rules| {
        rules.rate = ringroom::chat::RateRules { requests_per_s: 1, burst: 2, recipients_per_token: 0, mode: RateMode::Reject }
    });
    let rate = Some(TokenRate { requests_per_s: 10, burst: 5 });
    let alice = cluster.login_with("alice", None, Grant { rate, ..Grant::default() });
    let limits = cluster.take(alice)[0]["limits"].clone();
    assert_eq!((&limits["requests_per_s"], &limits["requests_burst"]), (&10.into(), &5.into()));
    let mut taken = |ms: u64| {
        cluster.pass(ms);
        (0..20).filter(|_| cluster.hear(alice, r#"{"type":"leave","room":"a"}"#)[0]["type"] == "left").count()
    };
    assert_eq!([taken(0), taken(100), taken(1_000)], [5, 1, 5]);
    let bob = cluster.login("bob", None);
    cluster.take(bob);
    let bobs = (0..20).filter(|_| cluster.hear(bob, r#"{"type":"leave","room":"a"}"#)[0]["type"] == "left").count();
    assert_eq!(bobs, 2);
}
