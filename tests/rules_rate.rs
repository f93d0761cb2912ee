//! A user's rate: shared by its sessions, waited for or refused, and never charged for what was not taken.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules_support;

use ringroom::chat::{Flow, Grant, RateRules, TokenRate};
use ringroom::config::RateMode;
use rules_support::{Cluster, Who};

/// A room of five, written to by `alice`; every two recipients cost a token.
fn room_of_five(shards: u16, burst: u32, mode: RateMode) -> (Cluster, Who) {
    let mut cluster = Cluster::new(shards, |rules| rules.rate = RateRules { requests_per_s: 10, burst, recipients_per_token: 2, mode });
    for n in 0..4 {
        let who = cluster.login(&format!("u{n}"), None);
        cluster.ask(who, r#"{"type":"join","room":"r"}"#);
    }
    let alice = cluster.login("alice", None);
    cluster.ask(alice, r#"{"type":"join","room":"r"}"#);
    cluster.pass(100);
    (cluster, alice)
}

const SEND: &str = r#"{"type":"send","id":5,"room":"r","body":1}"#;

#[test]
fn a_send_costs_by_who_gets_it_wherever_they_are() {
    for shards in [1, 3] {
        let (mut cluster, alice) = room_of_five(shards, 10, RateMode::Wait);
        for _ in 0..3 {
            assert_eq!(cluster.offer(alice, SEND), Flow::Next, "1 + 5 / 2 tokens of 10");
            cluster.run();
        }
        let at_ms = cluster.now.mono_ms() + 200;
        assert_eq!(cluster.offer(alice, SEND), Flow::Later { at_ms }, "one token is left");
        assert_eq!(cluster.offer(alice, LEAVE), Flow::Next, "which is enough for anything else");
        cluster.run();
        assert_eq!(cluster.offer(alice, SEND), Flow::Later { at_ms: at_ms - 100 }, "no member's: it costs one");
    }
}

#[test]
fn the_cost_follows_the_room_and_a_direct_message_costs_one() {
    let (mut cluster, alice) = room_of_five(3, 30, RateMode::Wait);
    for n in 0..9 {
        let who = cluster.login(&format!("more{n}"), None);
        cluster.ask(who, r#"{"type":"join","room":"r"}"#);
    }
    // This message tells the sender's shard how large the room is by now.
    cluster.ask(alice, SEND);
    cluster.pass(10_000);
    for _ in 0..3 {
        assert_eq!(cluster.offer(alice, SEND), Flow::Next, "1 + 14 / 2 tokens of 30");
        cluster.run();
    }
    assert_eq!(cluster.offer(alice, r#"{"type":"send","room":"@u0","body":1}"#), Flow::Next);
    cluster.run();
    let at_ms = cluster.now.mono_ms() + 300;
    assert_eq!(cluster.offer(alice, SEND), Flow::Later { at_ms }, "five tokens are left");
}

#[test]
fn a_send_never_costs_more_than_the_burst_and_is_refused_with_its_own_time() {
    for shards in [1, 3] {
        let (mut cluster, alice) = room_of_five(shards, 2, RateMode::Reject);
        cluster.pass(1_000);
        cluster.take(alice);
        cluster.ask(alice, SEND);
        assert_eq!(cluster.take(alice)[0]["type"], "sent", "a full bucket is always enough");
        let told = cluster.hear(alice, SEND);
        assert_eq!((told[0]["reason"].as_str(), told[0]["retry_after_ms"].as_u64()), (Some("rate_limited"), Some(200)));
    }
}

fn cluster(mode: RateMode) -> Cluster {
    Cluster::new(1, |rules| rules.rate = RateRules { requests_per_s: 10, burst: 3, recipients_per_token: 0, mode })
}

const LEAVE: &str = r#"{"type":"leave","id":4,"room":"r"}"#;

#[test]
fn out_of_tokens_a_request_waits_for_the_next_one_and_pings_never_do() {
    let mut cluster = cluster(RateMode::Wait);
    let (one, two) = (cluster.login("alice", None), cluster.login("alice", None));
    for who in [one, two, one] {
        assert_eq!(cluster.offer(who, LEAVE), Flow::Next);
    }
    let at_ms = cluster.now.mono_ms() + 100;
    assert_eq!(cluster.offer(two, LEAVE), Flow::Later { at_ms }, "the user's sessions share one bucket");
    assert_eq!(cluster.offer(two, LEAVE), Flow::Later { at_ms }, "and asking costs nothing");
    assert_eq!(cluster.offer(two, r#"{"type":"ping"}"#), Flow::Next);
    cluster.take(two);
    cluster.pass(100);
    assert_eq!(cluster.offer(two, LEAVE), Flow::Next);
    assert_eq!(cluster.take(two)[0]["type"], "left");
    let bob = cluster.login("bob", None);
    assert_eq!(cluster.offer(bob, LEAVE), Flow::Next, "another user has another bucket");
}

#[test]
fn in_mode_reject_it_is_told_when_to_come_back() {
    let mut cluster = cluster(RateMode::Reject);
    let alice = cluster.login("alice", None);
    for _ in 0..3 {
        cluster.ask(alice, LEAVE);
    }
    let told = cluster.hear(alice, LEAVE);
    assert_eq!((told[0]["code"].as_u64(), told[0]["reason"].as_str()), (Some(429), Some("rate_limited")));
    assert_eq!((told[0]["id"].as_u64(), told[0]["retry_after_ms"].as_u64()), (Some(4), Some(100)));
    cluster.pass(100);
    assert_eq!(cluster.hear(alice, LEAVE)[0]["type"], "left");
}

fn debts(cluster: &Cluster) -> usize {
    cluster.shards.iter().map(|shard| shard.usage().debts).sum()
}

#[test]
fn who_comes_back_finds_the_bucket_as_it_was_left() {
    let mut cluster = cluster(RateMode::Wait);
    let mut taken = 0;
    for _ in 0..20 {
        let alice = cluster.login("alice", None);
        while cluster.offer(alice, LEAVE) == Flow::Next {
            taken += 1;
        }
        cluster.close(alice);
        assert_eq!((cluster.shards[0].usage().users, debts(&cluster), cluster.shards[0].buckets_over()), (0, 1, 0));
    }
    assert_eq!(taken, 3, "a burst, and no time has passed");
    cluster.pass(100);
    let alice = cluster.login("alice", None);
    assert_eq!(debts(&cluster), 0, "the user has it again");
    assert_eq!(cluster.offer(alice, LEAVE), Flow::Next);
    assert!(matches!(cluster.offer(alice, LEAVE), Flow::Later { .. }), "one token came meanwhile");
}

#[test]
fn who_leaves_with_a_full_bucket_leaves_nothing_and_others_only_until_it_is_full() {
    let mut cluster = cluster(RateMode::Wait);
    let (alice, bob) = (cluster.login("alice", None), cluster.login("bob", None));
    cluster.offer(alice, LEAVE);
    cluster.offer(bob, LEAVE);
    cluster.pass(100);
    cluster.close(alice);
    assert_eq!(debts(&cluster), 0, "full by now");
    cluster.offer(bob, LEAVE);
    cluster.offer(bob, LEAVE);
    cluster.close(bob);
    assert_eq!(debts(&cluster), 1);
    cluster.pass(199);
    assert_eq!(debts(&cluster), 1);
    cluster.pass(1);
    assert_eq!(debts(&cluster), 0, "two tokens have come");
    let silent = cluster.login("silent", None);
    cluster.close(silent);
    assert_eq!(debts(&cluster), 0);
}

#[test]
fn a_bucket_that_comes_back_under_a_smaller_rate_holds_no_more_than_its_burst() {
    let mut cluster = cluster(RateMode::Wait);
    let grant = |burst| Grant { rate: Some(TokenRate { requests_per_s: 10, burst }), ..Grant::default() };
    let rich = cluster.login_with("alice", None, grant(100));
    cluster.offer(rich, LEAVE);
    cluster.close(rich);
    assert_eq!(cluster.shards[0].buckets_over(), 0);
    let poor = cluster.login_with("alice", None, grant(2));
    assert_eq!(cluster.shards[0].buckets_over(), 0);
    let taken = (0..10).filter(|_| cluster.offer(poor, LEAVE) == Flow::Next).count();
    assert_eq!(taken, 2);
}
