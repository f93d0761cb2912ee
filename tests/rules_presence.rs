//! A user joins a room once and leaves it once, however many sessions it has and however its connections break.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules_support;

use ringroom::chat::Rules;
use ringroom::config::Settings;
use rules_support::{Cluster, Who};
use serde_json::Value;

const AWAY_MS: u64 = 1_000;

/// A room that watcher `w` watches.
fn watched(shards: u16, change: impl Fn(&mut Rules)) -> (Cluster, Who) {
    let mut cluster = Cluster::new(shards, |rules| {
        rules.absence_ms = AWAY_MS;
        change(rules);
    });
    let watcher = cluster.login("w", None);
    cluster.ask(watcher, r#"{"type":"join","room":"r","presence":true}"#);
    cluster.take(watcher);
    (cluster, watcher)
}

fn come(cluster: &mut Cluster, user: &str) -> Who {
    let who = cluster.login(user, None);
    cluster.ask(who, r#"{"type":"join","room":"r"}"#);
    who
}

/// What the watcher was told of others: user, event and members.
fn news(cluster: &mut Cluster, watcher: Who) -> Vec<(String, String, u64)> {
    let one =
        |o: &Value| (o["user"].as_str().unwrap_or("").into(), o["event"].as_str().unwrap().into(), o["members"].as_u64().unwrap_or(0));
    cluster.take(watcher).iter().filter(|o| o["type"] == "member").map(one).collect()
}

fn told(user: &str, event: &str, members: u64) -> (String, String, u64) {
    (user.into(), event.into(), members)
}

#[test]
fn who_comes_back_in_time_was_never_away() {
    for shards in [1, 3] {
        let (mut cluster, watcher) = watched(shards, |_| {});
        let mut alice = come(&mut cluster, "alice");
        assert_eq!(news(&mut cluster, watcher), [told("alice", "join", 2)]);
        for _ in 0..20 {
            cluster.close(alice);
            cluster.pass(AWAY_MS * 2 / 5);
            alice = come(&mut cluster, "alice");
            cluster.pass(AWAY_MS * 2 / 5);
        }
        assert_eq!(news(&mut cluster, watcher), [], "twenty connections in sixteen seconds");
        let returns: u64 = cluster.shards.iter().map(|shard| shard.counts().returns).sum();
        assert_eq!(returns, 20);
        cluster.close(alice);
        cluster.pass(AWAY_MS - 1);
        assert_eq!(news(&mut cluster, watcher), []);
        cluster.pass(1);
        assert_eq!(news(&mut cluster, watcher), [told("alice", "leave", 1)]);
        come(&mut cluster, "alice");
        assert_eq!(news(&mut cluster, watcher), [told("alice", "join", 2)]);
    }
}

#[test]
fn what_is_answered_agrees_with_what_was_told() {
    let (mut cluster, watcher) = watched(2, |_| {});
    let alice = come(&mut cluster, "alice");
    cluster.close(alice);
    let late = cluster.login("late", None);
    cluster.ask(late, r#"{"type":"join","room":"r","presence":true}"#);
    let seen = cluster.hear(late, r#"{"type":"presence","room":"r"}"#);
    assert_eq!(seen[0]["members"], 3, "{seen:?}");
    assert_eq!(seen[0]["users"].as_array().unwrap().len(), 3);
    cluster.pass(AWAY_MS);
    for who in [late, watcher] {
        assert_eq!(news(&mut cluster, who).last(), Some(&told("alice", "leave", 2)));
    }
    assert_eq!(cluster.hear(late, r#"{"type":"presence","room":"r"}"#)[0]["members"], 2);
}

#[test]
fn who_says_leave_is_gone_at_once() {
    let (mut cluster, watcher) = watched(2, |_| {});
    let alice = come(&mut cluster, "alice");
    cluster.ask(alice, r#"{"type":"leave","room":"r"}"#);
    assert_eq!(news(&mut cluster, watcher), [told("alice", "join", 2), told("alice", "leave", 1)]);
}

#[test]
fn several_sessions_join_once_and_leave_once() {
    for shards in [1, 3] {
        let (mut cluster, watcher) = watched(shards, |_| {});
        let sessions: Vec<Who> = (0..5).map(|_| come(&mut cluster, "alice")).collect();
        assert_eq!(news(&mut cluster, watcher), [told("alice", "join", 2)]);
        for (n, session) in sessions.into_iter().enumerate() {
            cluster.pass(AWAY_MS);
            assert_eq!(news(&mut cluster, watcher), [], "{n} sessions have gone");
            cluster.close(session);
        }
        cluster.pass(AWAY_MS);
        assert_eq!(news(&mut cluster, watcher), [told("alice", "leave", 1)]);
    }
}

#[test]
fn without_a_time_to_come_back_in_everybody_leaves_at_once() {
    let (mut cluster, watcher) = watched(1, |rules| rules.absence_ms = 0);
    let alice = come(&mut cluster, "alice");
    cluster.close(alice);
    assert_eq!(news(&mut cluster, watcher), [told("alice", "join", 2), told("alice", "leave", 1)]);
}

#[test]
fn so_many_may_be_waited_for_and_one_more_leaves_at_once() {
    let (mut cluster, watcher) = watched(1, |rules| rules.absences_max = 2);
    let all: Vec<Who> = (0..3).map(|n| come(&mut cluster, &format!("u{n}"))).collect();
    news(&mut cluster, watcher);
    all.into_iter().for_each(|who| cluster.close(who));
    assert_eq!(news(&mut cluster, watcher), [told("u2", "leave", 3)]);
    cluster.pass(AWAY_MS);
    assert_eq!(news(&mut cluster, watcher), [told("u0", "leave", 2), told("u1", "leave", 1)]);
}

#[test]
fn a_room_that_got_too_large_says_off_and_no_more() {
    let (mut cluster, watcher) = watched(2, |_| {});
    let mut others: Vec<Who> = (0..199).map(|n| come(&mut cluster, &format!("u{n}"))).collect();
    assert_eq!(news(&mut cluster, watcher).len(), 199);
    let one_more = come(&mut cluster, "one-more");
    assert_eq!(news(&mut cluster, watcher), [told("", "off", 0)]);
    cluster.close(one_more);
    cluster.close(others.pop().unwrap());
    cluster.pass(AWAY_MS);
    come(&mut cluster, "again");
    assert_eq!(news(&mut cluster, watcher), []);
}

#[test]
fn nothing_is_said_of_members_while_draining() {
    let (mut cluster, watcher) = watched(2, |_| {});
    let (alice, bob) = (come(&mut cluster, "alice"), come(&mut cluster, "bob"));
    news(&mut cluster, watcher);
    cluster.close(alice);
    cluster.shards.iter_mut().for_each(ringroom::chat::Shard::handle_drain);
    cluster.close(bob);
    cluster.pass(AWAY_MS);
    assert_eq!(news(&mut cluster, watcher), []);
}

#[test]
fn nothing_is_left_of_a_room_whose_last_session_has_gone() {
    for shards in [1, 3] {
        let (mut cluster, watcher) = watched(shards, |_| {});
        let alice = come(&mut cluster, "alice");
        cluster.close(alice);
        cluster.close(watcher);
        let (users, homes) = cluster.shards.iter().map(|s| s.usage()).fold((0, 0), |(u, h), usage| (u + usage.users, h + usage.homes));
        assert_eq!((users, homes), (0, 0), "no ghost holds the room");
        cluster.pass(AWAY_MS);
        assert_eq!(cluster.shards.iter().map(|s| s.usage().absences).sum::<usize>(), 0);
        let again = come(&mut cluster, "alice");
        assert_eq!(cluster.hear(again, r#"{"type":"presence","room":"r"}"#)[0]["members"], 1);
    }
}

#[test]
fn a_new_time_to_come_back_in_counts_for_who_is_away_already() {
    for fresh_ms in [200, 5_000] {
        let (mut cluster, watcher) = watched(2, |_| {});
        for user in ["alice", "bob"] {
            let mut settings = Settings::default();
            let who = come(&mut cluster, user);
            cluster.close(who);
            settings.limits.absence_ms = fresh_ms;
            cluster.shards.iter_mut().for_each(|shard| shard.handle_limits(&settings));
            cluster.pass(fresh_ms - 1);
            assert_eq!(news(&mut cluster, watcher), [told(user, "join", 2)], "{fresh_ms}");
            cluster.pass(1);
            assert_eq!(news(&mut cluster, watcher), [told(user, "leave", 1)], "{fresh_ms}");
        }
    }
}

#[test]
fn a_new_number_of_rooms_counts_from_the_next_join_on() {
    let mut cluster = Cluster::new(1, |rules| rules.places_max = 2);
    let alice = cluster.login("alice", None);
    let mut settings = Settings::default();
    let join = |cluster: &mut Cluster, n: u32| {
        let told = cluster.hear(alice, &format!(r#"{{"type":"join","room":"r{n}"}}"#));
        told[0]["type"] == "joined"
    };
    assert_eq!([1, 2, 3].map(|n| join(&mut cluster, n)), [true, true, false]);
    settings.limits.rooms_per_shard = 4;
    cluster.shards[0].handle_limits(&settings);
    assert_eq!([3, 4, 5].map(|n| join(&mut cluster, n)), [true, true, false]);
    settings.limits.rooms_per_shard = 1;
    cluster.shards[0].handle_limits(&settings);
    assert_eq!([1, 4, 5].map(|n| join(&mut cluster, n)), [true, true, false], "rooms that are known stay");
}
