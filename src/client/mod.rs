//! The client: a library for bots and tests, and `ringroom chat`.
//!
//! [`Session`] is the protocol without a socket, for any executor: it owns rooms, positions, requests and the pace of reconnecting. [`Client`] drives one
//! over a TCP connection and blocks, with a deadline on every wait. A message reaches the caller once and in order, over broken connections and
//! restarts, as long as the server can bring what came meanwhile; where it can't, [`Event::Missed`] says so. A send without an answer is said again
//! under the same key, so it is not doubled. Built of `ids` and `limits` alone: the server's code and the client's share no mistakes.
//!
//! ```no_run
//! use std::time::Duration;
//! use ringroom::client::{Client, Event, Join, Options};
//!
//! let mut client = Client::connect("127.0.0.1:7777", Options::user("echo-bot"))?;
//! client.join("lobby", Join { history: 10, ..Join::default() })?;
//! client.send("lobby", &serde_json::json!({ "text": "hello" }))?;
//! for event in client.events(Duration::from_secs(60)) {
//!     match event? {
//!         Event::Message(message) => println!("{} says {}", message.from, message.body),
//!         Event::Missed { room } => println!("some messages of {room} are gone"),
//!         Event::Offline { why, retry_in } => println!("offline: {why}; next try in {retry_in:?}"),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), ringroom::client::Error>(())
//! ```

mod backoff;
mod blocking;
pub mod chat;
mod codec;
mod event;
mod receive;
mod requests;
mod room;
mod session;
#[cfg(test)]
mod session_tests;

pub use backoff::Backoff;
pub use blocking::{Client, Error, Events};
pub use codec::Fault;
pub use event::{Change, Down, Event, Join, Joined, Lifetime, Message, Page, Post, Refusal, Reject, Sent, Ticket};
pub use session::{Login, Options, Session, Status, text_body};
