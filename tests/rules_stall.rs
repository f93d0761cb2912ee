//! A slow reader holds back the senders of its rooms, briefly, and then nobody.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules_support;

use ringroom::config::SlowReader;
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
