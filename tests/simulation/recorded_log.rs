//! What the log has said, written down beside it: the order that every reader's story is held against.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ringroom::chat::{Appended, Entry, Token};
use ringroom::cluster::log::Log;
use ringroom::ids::Now;

use super::session::message_number;
use super::truth::MessageId;
use super::wire::Place;

/// An entry that the log has answered for the first time.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) room: String,
    pub(crate) at: Place,
    pub(crate) message: MessageId,
}

/// Of all shards; of one room in the room's order.
pub(crate) type Ledger = Arc<Mutex<Vec<Recorded>>>;

/// A log that is listened to.
#[derive(Debug)]
pub(crate) struct RecordedLog {
    log: Box<dyn Log>,
    open: HashMap<Token, (String, MessageId)>,
    ledger: Ledger,
}

impl RecordedLog {
    pub(crate) fn new(log: Box<dyn Log>, ledger: Ledger) -> Self {
        Self { log, open: HashMap::new(), ledger }
    }
}

impl Log for RecordedLog {
    fn append(&mut self, now: Now, token: Token, entry: &Entry) {
        let message = message_number(entry.parcel.body()).expect("clients number what they send");
        self.open.insert(token, (entry.parcel.room().to_owned(), message));
        self.log.append(now, token, entry);
    }

    fn answers(&mut self, now: Now, out: &mut Vec<Appended>) {
        let before = out.len();
        self.log.answers(now, out);
        for answer in &out[before..] {
            if let Some((room, message)) = self.open.remove(&answer.token) {
                let at = Place { ms: answer.position.ms, n: answer.position.n };
                self.ledger.lock().unwrap().push(Recorded { room, at, message });
            }
        }
    }

    fn next_ns(&self) -> Option<u64> {
        self.log.next_ns()
    }
}
