//! A slow reader holds back the senders of its rooms, briefly, and then nobody.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules_support;

use ringroom::config::{RoomRule, SlowReader};
use ringroom::ids::RoomPattern;
use rules_support::{Cluster, Who, bodies};

fn room(shards: u16, slow_reader: SlowReader) -> (Cluster, Who, Who) {
    let mut cluster = Cluster::new(shards, |rules| rules.slow_reader = slow_reader);
    let (alice, bob) = (cluster.login("alice", None), cluster.login("bob", None));
    for who in [alice, bob] {
        cluster.ask(who, r#"{"type":"join","room":"r"}"#);
        cluster.take(who);
    }
    (cluster, alice, bob)
}

fn say(cluster: &mut Cluster, who: Who, body: i64) {
    cluster.ask(who, &format!(r#"{{"type":"send","room":"r","body":{body}}}"#));
}

#[test]
fn a_slow_reader_holds_back_senders_for_its_budget_and_not_longer() {
    for shards in [1, 3] {
        let (mut cluster, alice, bob) = room(shards, SlowReader::Stall);
        cluster.slow(bob);
        say(&mut cluster, alice, 1);
        assert_eq!((cluster.held(alice), bodies(&cluster.take(alice))), (1, vec![]), "held back, not refused");
        cluster.pass(49);
        assert!(bodies(&cluster.take(bob)).is_empty());
        cluster.pass(1);
        assert_eq!((cluster.held(alice), bodies(&cluster.take(bob))), (0, vec![1]), "the budget is spent");
        cluster.slow(bob);
        say(&mut cluster, alice, 2);
        assert_eq!(bodies(&cluster.take(bob)), [2], "and is not there twice in one window");
        cluster.pass(10_000);
        cluster.slow(bob);
        say(&mut cluster, alice, 3);
        assert!(bodies(&cluster.take(bob)).is_empty());
    }
}

#[test]
fn a_reader_that_catches_up_ends_its_stall() {
    let (mut cluster, alice, bob) = room(2, SlowReader::Stall);
    cluster.slow(bob);
    say(&mut cluster, alice, 1);
    say(&mut cluster, alice, 2);
    assert!(bodies(&cluster.take(bob)).is_empty());
    cluster.fast(bob);
    assert_eq!((bodies(&cluster.take(bob)), cluster.held(alice)), (vec![1, 2], 0));
}

#[test]
fn the_end_of_a_slow_session_does_not_hold_back_anybody_for_long() {
    let (mut cluster, alice, bob) = room(2, SlowReader::Stall);
    cluster.slow(bob);
    cluster.close(bob);
    say(&mut cluster, alice, 1);
    cluster.pass(50);
    assert_eq!(bodies(&cluster.take(alice)), [1]);
}

#[test]
fn many_slow_readers_share_the_budget_of_their_room() {
    let (mut cluster, alice, _) = room(3, SlowReader::Stall);
    let readers: Vec<Who> = (0..40).map(|n| cluster.login(&format!("reader{n}"), None)).collect();
    for reader in &readers {
        cluster.ask(*reader, r#"{"type":"join","room":"r"}"#);
    }
    let mut waited = 0;
    for reader in readers {
        cluster.slow(reader);
        say(&mut cluster, alice, 1);
        while bodies(&cluster.take(alice)).is_empty() {
            cluster.pass(1);
            waited += 1;
        }
        cluster.fast(reader);
    }
    assert!((450..=550).contains(&waited), "{waited} ms of 40 x 50 ms");
}

#[test]
fn with_the_policy_close_nobody_is_held_back() {
    let (mut cluster, alice, bob) = room(2, SlowReader::Close);
    cluster.slow(bob);
    say(&mut cluster, alice, 1);
    assert_eq!(bodies(&cluster.take(bob)), [1]);
}

/// Logs users in until one lives on this shard.
fn login_on(cluster: &mut Cluster, shard: u16, prefix: &str) -> Who {
    let name = (0..).map(|n| format!("{prefix}{n}")).find(|name| cluster.shards[0].home_of_user(name).0 == shard);
    cluster.login(&name.unwrap(), None)
}

fn room_on(cluster: &Cluster, shard: u16) -> String {
    (0..).map(|n| format!("room{n}")).find(|name| cluster.shards[0].home_of_user(name).0 == shard).unwrap()
}

#[test]
fn a_stall_reaches_senders_over_three_shards_and_its_budget_holds_there() {
    let mut cluster = Cluster::new(4, |rules| rules.slow_reader = SlowReader::Stall);
    let (reader, sender) = (login_on(&mut cluster, 0, "reader"), login_on(&mut cluster, 1, "sender"));
    // One reader in rooms of every home: what it may cost is one budget, whatever number of rooms and shards it is in.
    let rooms: Vec<String> = (0..4).map(|shard| room_on(&cluster, shard)).collect();
    for room in &rooms {
        for who in [reader, sender] {
            cluster.ask(who, &format!(r#"{{"type":"join","room":"{room}"}}"#));
        }
    }
    for window in 0..3 {
        let mut waited = [0; 4];
        // It falls behind again and again, after 20 ms each.
        for n in 0..20 {
            cluster.take(sender);
            cluster.slow(reader);
            for (index, room) in rooms.iter().enumerate() {
                cluster.ask(sender, &format!(r#"{{"type":"send","room":"{room}","body":{}}}"#, n * 10 + index));
            }
            for _ in 0..20 {
                if cluster.held(sender) == 0 {
                    break;
                }
                cluster.pass(1);
                let heard = |room: &String, told: &[serde_json::Value]| told.iter().any(|o| o["type"] == "message" && o["room"] == **room);
                let told = cluster.told.get(&sender).cloned().unwrap_or_default();
                for (index, room) in rooms.iter().enumerate() {
                    waited[index] += u64::from(!heard(room, &told));
                }
            }
            cluster.fast(reader);
            assert_eq!(bodies(&cluster.take(sender)).len(), 4, "who has caught up holds back nobody");
        }
        for ms in waited {
            assert!((19..=50).contains(&ms), "window {window}: {waited:?} ms of stall");
        }
        cluster.pass(10_000);
    }
}

#[test]
fn rooms_choose_their_policy_by_pattern_and_the_first_that_matches_counts() {
    let rule = |pattern, slow_reader| RoomRule { pattern: RoomPattern::parse(pattern).unwrap(), slow_reader };
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards, |rules| {
            rules.slow_reader = SlowReader::Close;
            rules.rooms = vec![
                rule("game:lobby", SlowReader::Stall),
                rule("game:*", SlowReader::DropOldest),
                rule("game:quiet", SlowReader::Stall),
                rule("calm", SlowReader::Stall),
            ];
        });
        let (alice, bob) = (cluster.login("alice", None), cluster.login("bob", None));
        for (room, stalls) in [("game:lobby", true), ("game:1", false), ("game:quiet", false), ("calm", true), ("other", false)] {
            for who in [alice, bob] {
                cluster.ask(who, &format!(r#"{{"type":"join","room":"{room}"}}"#));
            }
            cluster.pass(10_000);
            cluster.take(bob);
            cluster.slow(bob);
            cluster.ask(alice, &format!(r#"{{"type":"send","room":"{room}","body":1}}"#));
            assert_eq!(bodies(&cluster.take(bob)).is_empty(), stalls, "{room}");
            cluster.fast(bob);
            cluster.pass(50);
        }
    }
}

#[test]
fn a_reader_of_rooms_that_never_stall_spends_no_budget() {
    let (mut cluster, _, bob) = room(2, SlowReader::DropOldest);
    cluster.slow(bob);
    assert_eq!(cluster.shards.iter().map(|shard| shard.counts().stalls).sum::<u64>(), 0);
}
