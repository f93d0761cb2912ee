//! What is retained, replayed, paged and recognised as a double, with one shard and with several.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules_support;

use rules_support::{Cluster, Who, bodies};
use serde_json::Value;

const SHARDS: [u16; 3] = [1, 2, 5];

fn send(cluster: &mut Cluster, who: Who, room: &str, bodies: std::ops::Range<i64>) {
    for body in bodies {
        cluster.ask(who, &format!(r#"{{"type":"send","room":"{room}","body":{body}}}"#));
    }
}

fn talkers(shards: u16) -> (Cluster, Who, Who) {
    let mut cluster = Cluster::new(shards, |_| {});
    let (alice, bob) = (cluster.login("alice", None), cluster.login("bob", None));
    cluster.ask(alice, r#"{"type":"join","room":"r"}"#);
    (cluster, alice, bob)
}

fn at(told: &[Value], index: usize) -> String {
    told.iter().filter(|o| o["type"] == "message").nth(index).unwrap()["at"].as_str().unwrap().to_owned()
}

#[test]
fn who_comes_back_with_since_gets_what_came_after_it_and_then_live_messages() {
    for shards in SHARDS {
        let (mut cluster, alice, bob) = talkers(shards);
        send(&mut cluster, alice, "r", 0..10);
        let seen = at(&cluster.take(alice), 3);
        let told = cluster.hear(bob, &format!(r#"{{"type":"join","id":1,"room":"r","since":"{seen}"}}"#));
        assert_eq!(
            (told[0]["type"].as_str(), told[0]["recovered"].as_bool(), told[0]["replay"].as_u64()),
            (Some("joined"), Some(true), Some(6))
        );
        assert_eq!(bodies(&told), [4, 5, 6, 7, 8, 9]);
        send(&mut cluster, alice, "r", 10..12);
        assert_eq!(bodies(&cluster.take(bob)), [10, 11]);
    }
}

#[test]
fn a_replayed_message_has_the_bytes_it_had_live() {
    let (mut cluster, alice, bob) = talkers(2);
    cluster.ask(alice, "{\"type\":\"send\",\"room\":\"r\",\"body\":{ \"a\" : [1,  \"\\u00e9\"] }}");
    let live = cluster.raw[&alice].last().unwrap().clone();
    cluster.ask(bob, r#"{"type":"join","room":"r","history":1}"#);
    assert_eq!(cluster.raw[&bob].last().unwrap(), &live);
}

#[test]
fn too_much_for_one_replay_is_not_recovered_and_brings_the_newest() {
    let (mut cluster, alice, bob) = talkers(2);
    send(&mut cluster, alice, "r", 0..1_002);
    let told = cluster.take(alice);
    let (first, second) = (at(&told, 0), at(&told, 1));
    let told = cluster.hear(bob, &format!(r#"{{"type":"join","room":"r","since":"{first}"}}"#));
    assert_eq!((told[0]["recovered"].as_bool(), bodies(&told)), (Some(false), (952..1_002).collect()));
    let told = cluster.hear(bob, &format!(r#"{{"type":"join","room":"r","since":"{second}"}}"#));
    assert_eq!((told[0]["recovered"].as_bool(), bodies(&told)), (Some(true), (2..1_002).collect()));
    let told = cluster.hear(bob, &format!(r#"{{"type":"join","room":"r","since":"{first}","history":3}}"#));
    assert_eq!((told[0]["recovered"].as_bool(), bodies(&told)), (Some(false), vec![999, 1_000, 1_001]));
}

#[test]
fn positions_that_are_not_known_here_are_not_recovered() {
    let (mut cluster, alice, bob) = talkers(1);
    send(&mut cluster, alice, "r", 0..3);
    for since in ["abd.1700000000000-0", "nonsense", "abc.9999999999999-0"] {
        let told = cluster.hear(bob, &format!(r#"{{"type":"join","room":"r","since":"{since}"}}"#));
        assert_eq!((told[0]["recovered"].as_bool(), bodies(&told)), (Some(false), vec![0, 1, 2]), "{since}");
    }
    let told = cluster.hear(bob, r#"{"type":"join","room":"r","since":"abc.0-0"}"#);
    assert_eq!((told[0]["recovered"].as_bool(), bodies(&told)), (Some(true), vec![0, 1, 2]), "from before the first message on");
    let told = cluster.hear(bob, r#"{"type":"join","room":"r"}"#);
    assert_eq!((told[0].get("recovered"), told[0]["replay"].as_u64(), told.len()), (None, Some(0), 1));
}

#[test]
fn a_room_that_was_forgotten_never_claims_to_be_recovered() {
    let mut cluster = Cluster::new(1, |rules| rules.retention.shard_bytes_max = 20_000);
    let alice = cluster.login("alice", None);
    cluster.ask(alice, r#"{"type":"join","room":"old"}"#);
    send(&mut cluster, alice, "old", 0..3);
    let told = cluster.take(alice);
    let (first, last) = (at(&told, 0), at(&told, 2));
    cluster.ask(alice, r#"{"type":"leave","room":"old"}"#);
    cluster.ask(alice, r#"{"type":"join","room":"loud"}"#);
    send(&mut cluster, alice, "loud", 0..300);
    assert!(cluster.shards[0].usage().history_bytes <= 20_000 + 1_000);
    assert!(cluster.shards[0].usage().evicted_rooms >= 1);
    for (since, recovered) in [(&first, false), (&last, true), (&"abc.0-0".to_owned(), false)] {
        let told = cluster.hear(alice, &format!(r#"{{"type":"join","room":"old","since":"{since}"}}"#));
        assert_eq!(told[0]["recovered"].as_bool(), Some(recovered), "{since}");
    }
}

#[test]
fn what_is_too_old_is_forgotten_and_its_room_with_it() {
    let (mut cluster, alice, bob) = talkers(1);
    send(&mut cluster, alice, "r", 0..3);
    let first = at(&cluster.take(alice), 0);
    cluster.close(alice);
    assert_eq!(cluster.shards[0].usage().homes, 1);
    cluster.pass(600_001);
    let usage = cluster.shards[0].usage();
    assert_eq!((usage.homes, usage.history_bytes), (0, 0));
    let told = cluster.hear(bob, &format!(r#"{{"type":"join","room":"r","since":"{first}"}}"#));
    assert_eq!((told[0]["recovered"].as_bool(), told[0]["replay"].as_u64()), (Some(false), Some(0)));
}

#[test]
fn pages_go_both_ways_and_say_whether_there_is_more() {
    for shards in SHARDS {
        let (mut cluster, alice, _) = talkers(shards);
        send(&mut cluster, alice, "r", 0..100);
        let told = cluster.take(alice);
        let page = |cluster: &mut Cluster, fields: &str| {
            let told = cluster.hear(alice, &format!(r#"{{"type":"history","id":7,"room":"r"{fields}}}"#));
            assert_eq!((told.len(), told[0]["id"].as_u64(), told[0]["room"].as_str()), (1, Some(7), Some("r")));
            let messages = told[0]["messages"].as_array().unwrap().clone();
            assert!(messages.iter().all(|m| m.get("type").is_none() && m.get("room").is_none() && m["from"] == "alice"));
            let bodies: Vec<i64> = messages.iter().map(|m| m["body"].as_i64().unwrap()).collect();
            (bodies, told[0]["more"].as_bool().unwrap())
        };
        let middle = at(&told, 49);
        assert_eq!(page(&mut cluster, ""), ((50..100).collect(), true));
        assert_eq!(page(&mut cluster, r#","limit":1000"#), ((0..100).collect(), false));
        assert_eq!(page(&mut cluster, &format!(r#","before":"{middle}","limit":10"#)), ((39..49).collect(), true));
        assert_eq!(page(&mut cluster, &format!(r#","before":"{middle}""#)), ((0..49).collect(), false));
        assert_eq!(page(&mut cluster, &format!(r#","after":"{middle}","limit":10"#)), ((50..60).collect(), true));
        assert_eq!(page(&mut cluster, &format!(r#","after":"{middle}","limit":50"#)), ((50..100).collect(), false));
        assert_eq!(page(&mut cluster, r#","before":"abd.1-0""#), (vec![], false));
        assert_eq!(page(&mut cluster, r#","after":"abd.1-0","limit":2"#), (vec![0, 1], true));
    }
}

#[test]
fn a_page_stops_where_the_frame_would_be_too_large() {
    let (mut cluster, alice, _) = talkers(1);
    let body = "x".repeat(30_000);
    for _ in 0..4 {
        cluster.ask(alice, &format!(r#"{{"type":"send","room":"r","body":"{body}"}}"#));
    }
    let told = cluster.hear(alice, r#"{"type":"history","room":"r"}"#);
    assert_eq!((told[0]["messages"].as_array().unwrap().len(), told[0]["more"].as_bool()), (2, Some(true)));
    assert!(cluster.raw[&alice].last().unwrap().len() <= 65_536);
}

#[test]
fn a_known_key_is_answered_with_the_first_ones_position_and_sent_to_nobody() {
    for shards in SHARDS {
        let (mut cluster, alice, bob) = talkers(shards);
        cluster.ask(bob, r#"{"type":"join","room":"r"}"#);
        let keyed = r#"{"type":"send","id":1,"room":"r","body":5,"key":"k"}"#;
        let told = cluster.hear(alice, keyed);
        let first = told.iter().find(|o| o["type"] == "sent").unwrap()["at"].clone();
        assert!(told.iter().all(|o| o.get("duplicate").is_none()));
        let told = cluster.hear(alice, keyed);
        assert_eq!((told.len(), &told[0]["at"], told[0]["duplicate"].as_bool()), (1, &first, Some(true)));
        let told = cluster.hear(bob, r#"{"type":"send","room":"r","body":6,"key":"k"}"#);
        assert_eq!(bodies(&told), [6], "another user's key is another key");
        let told = cluster.hear(alice, r#"{"type":"send","room":"@bob","body":7,"key":"k"}"#);
        assert_eq!(told[0].get("duplicate"), None, "another room's key is another key");
        cluster.take(bob);
        cluster.pass(300_001);
        cluster.ask(alice, keyed);
        assert_eq!(bodies(&cluster.take(bob)), [5], "after five minutes it is forgotten");
    }
}

#[test]
fn messages_wait_in_an_inbox_until_their_owner_logs_in() {
    for shards in SHARDS {
        let (mut cluster, alice, bob) = talkers(shards);
        send(&mut cluster, alice, "@bob", 0..2);
        let seen = at(&cluster.take(bob), 0);
        cluster.close(bob);
        send(&mut cluster, alice, "@bob", 2..4);
        let bob = cluster.login("bob", Some(&seen));
        let told = cluster.take(bob);
        assert_eq!(told[0]["inbox"]["recovered"].as_bool(), Some(true));
        assert_eq!((told[0]["inbox"]["replay"].as_u64(), bodies(&told)), (Some(3), vec![1, 2, 3]));
        assert_eq!(told[0]["inbox"]["at"], told.last().unwrap()["at"]);
        let told = cluster.hear(bob, r#"{"type":"history","room":"@bob","limit":2}"#);
        assert_eq!(told[0]["messages"].as_array().unwrap().len(), 2);
        let told = cluster.hear(alice, r#"{"type":"history","room":"@bob"}"#);
        assert_eq!(told[0]["reason"], "forbidden");
    }
}

#[test]
fn what_is_too_old_is_never_sent_again_though_newer_messages_keep_its_room() {
    for shards in SHARDS {
        let (mut cluster, alice, bob) = talkers(shards);
        send(&mut cluster, alice, "r", 0..3);
        send(&mut cluster, alice, "@bob", 0..3);
        let (old, inbox) = (at(&cluster.take(alice), 1), at(&cluster.take(bob), 1));
        cluster.pass(500_000);
        send(&mut cluster, alice, "r", 3..5);
        send(&mut cluster, alice, "@bob", 3..5);
        // No tick looks at anything in this time.
        cluster.now.mono_ns += 100_001 * 1_000_000;
        cluster.now.unix_ms += 100_001;
        let newer = at(&cluster.take(alice), 0);
        let told = cluster.hear(alice, r#"{"type":"history","room":"r","limit":10}"#);
        let page = |told: &[Value]| told[0]["messages"].as_array().unwrap().iter().map(|m| m["body"].as_i64().unwrap()).collect::<Vec<_>>();
        assert_eq!((page(&told), told[0]["more"].as_bool()), (vec![3, 4], Some(false)));
        let told = cluster.hear(bob, r#"{"type":"join","room":"r","history":10}"#);
        assert_eq!(bodies(&told), [3, 4]);
        let told = cluster.hear(bob, &format!(r#"{{"type":"join","room":"r","since":"{old}"}}"#));
        assert_eq!((told[0]["recovered"].as_bool(), bodies(&told)), (Some(false), vec![3, 4]), "the third is missing");
        let told = cluster.hear(bob, &format!(r#"{{"type":"join","room":"r","since":"{newer}"}}"#));
        assert_eq!((told[0]["recovered"].as_bool(), bodies(&told)), (Some(true), vec![4]));
        let told = cluster.login("bob", Some(&inbox));
        let told = cluster.take(told);
        assert_eq!((told[0]["inbox"]["recovered"].as_bool(), bodies(&told)), (Some(false), vec![3, 4]));
        // The newest is too old, too.
        cluster.now.mono_ns += 600_000 * 1_000_000;
        cluster.now.unix_ms += 600_000;
        assert!(page(&cluster.hear(alice, r#"{"type":"history","room":"r"}"#)).is_empty());
        let told = cluster.hear(bob, r#"{"type":"join","room":"r","history":10}"#);
        assert_eq!((told[0]["replay"].as_u64(), bodies(&told).len()), (Some(0), 0));
        let bob = cluster.login("bob", Some(&inbox));
        assert!(bodies(&cluster.take(bob)).is_empty());
    }
}

#[test]
fn ticks_alone_forget_old_messages_of_a_room_that_has_newer_ones() {
    let (mut cluster, alice, _) = talkers(1);
    send(&mut cluster, alice, "r", 0..3);
    let one = cluster.shards[0].usage().history_bytes;
    cluster.pass(500_000);
    send(&mut cluster, alice, "r", 3..4);
    let all = cluster.shards[0].usage().history_bytes;
    cluster.pass(100_001);
    let left = cluster.shards[0].usage().history_bytes;
    assert!(left < one && left < all, "{one}, {all}, {left}");
    cluster.pass(500_000);
    assert_eq!(cluster.shards[0].usage().history_bytes, 0);
}
