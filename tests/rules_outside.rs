//! Publishing without a session has the promises of a `send`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rules_support;

use ringroom::chat::Publish;
use ringroom::ids::{RoomName, UserName};
use rules_support::{Cluster, bodies};
use serde_json::json;

fn message(room: &str, body: u32, key: Option<&str>) -> Publish {
    let (room, from) = (RoomName::parse(room).unwrap(), UserName::parse("bot").unwrap());
    Publish { room, from, body: body.to_string(), key: key.map(str::to_owned), ephemeral: false }
}

#[test]
fn a_published_message_reaches_every_member_once_and_has_its_place_in_the_order() {
    for shards in [1, 3] {
        let mut cluster = Cluster::new(shards, |_| ());
        let readers: Vec<_> = ["ann", "ben", "cid", "dora"].map(|user| cluster.login(user, None)).to_vec();
        for reader in &readers {
            cluster.ask(*reader, r#"{"type":"join","room":"lobby"}"#);
        }
        cluster.ask(readers[0], r#"{"type":"send","room":"lobby","body":1}"#);
        let asker = cluster.publish(&message("lobby", 2, None));
        cluster.ask(readers[1], r#"{"type":"send","room":"lobby","body":3}"#);
        let told = cluster.take(asker);
        assert_eq!((told.len(), &told[0]["type"], &told[0]["room"]), (1, &json!("sent"), &json!("lobby")));
        for reader in &readers {
            let heard = cluster.take(*reader);
            assert_eq!(bodies(&heard), [1, 2, 3]);
            let message = heard.iter().find(|o| o["body"] == 2).unwrap();
            assert_eq!((&message["at"], &message["from"]), (&told[0]["at"], &json!("bot")));
        }
    }
}

#[test]
fn a_key_used_twice_is_sent_once_whoever_used_it_first() {
    let mut cluster = Cluster::new(2, |_| ());
    let reader = cluster.login("ann", None);
    cluster.ask(reader, r#"{"type":"join","room":"lobby"}"#);
    let first = cluster.publish(&message("lobby", 1, Some("k")));
    let again = cluster.publish(&message("lobby", 2, Some("k")));
    let (first, again) = (cluster.take(first), cluster.take(again));
    assert_eq!((&again[0]["at"], &again[0]["duplicate"]), (&first[0]["at"], &json!(true)));
    let bot = cluster.login("bot", None);
    cluster.ask(bot, r#"{"type":"join","room":"lobby"}"#);
    let sent = cluster.hear(bot, r#"{"type":"send","room":"lobby","body":3,"key":"k"}"#);
    assert_eq!((&sent[0]["at"], &sent[0]["duplicate"]), (&first[0]["at"], &json!(true)));
    assert_eq!(bodies(&cluster.take(reader)), [1]);
}

#[test]
fn an_empty_room_keeps_what_is_published_for_who_comes_later() {
    let mut cluster = Cluster::new(2, |_| ());
    let asker = cluster.publish(&message("news", 7, None));
    assert_eq!(cluster.take(asker)[0]["type"], "sent");
    let inbox = cluster.publish(&message("@ann", 8, None));
    assert_eq!(cluster.take(inbox)[0]["type"], "sent");
    let reader = cluster.login("ann", Some("abc.0-0"));
    assert_eq!(bodies(&cluster.take(reader)), [8]);
    assert_eq!(bodies(&cluster.hear(reader, r#"{"type":"join","room":"news","history":5}"#)), [7]);
}

#[test]
fn who_publishes_from_outside_is_told_when_the_server_can_not() {
    let mut cluster = Cluster::new(1, |_| ());
    cluster.shards[0].handle_load(true);
    let asker = cluster.publish(&message("lobby", 1, None));
    assert_eq!(cluster.take(asker)[0]["reason"], "overloaded");
    cluster.shards[0].handle_load(false);
    cluster.shards[0].handle_drain();
    let asker = cluster.publish(&message("lobby", 1, None));
    assert_eq!(cluster.take(asker)[0]["reason"], "draining");
}
