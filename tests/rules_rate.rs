//! A user's rate: shared by its sessions, waited for or refused, and never charged for what was not taken.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules_support;

use ringroom::chat::{Flow, RateRules};
use ringroom::config::RateMode;
use rules_support::Cluster;

fn cluster(mode: RateMode) -> Cluster {
    Cluster::new(1, |rules| rules.rate = RateRules { requests_per_s: 10, burst: 3, mode })
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
