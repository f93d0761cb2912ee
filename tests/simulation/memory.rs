//! What a client takes along from one connection to the next: where it stands, and what it does not know to be sent.

use std::collections::BTreeMap;

use super::session::{Asked, Session};
use super::truth::MessageId;
use super::wire::Place;

/// A client between two connections.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) user: String,
    pub(crate) device: Option<String>,
    /// Per room, its inbox among them: all that was there up to here has been read.
    pub(crate) stands: BTreeMap<String, Place>,
    /// Messages with a key that may be sent or not.
    pub(crate) unsent: Vec<MessageId>,
}

impl Session {
    /// What is left of a connection that has ended.
    pub(crate) fn memory(&self) -> Memory {
        let open = self.asked.values().filter_map(Asked::keyed_message);
        let mut unsent: Vec<MessageId> = self.unsent.iter().copied().chain(open).collect();
        unsent.dedup();
        Memory { user: self.user.clone(), device: self.device.clone(), stands: self.stands.clone(), unsent }
    }
}
