//! What is true of the whole run: every message written, every room's order as far as anybody has seen it.
//!
//! Readers and senders report what they are told; two reports that cannot both be true end the run. What can only be judged when all is quiet
//! (nothing missing, nobody forgotten) is judged by [`Truth::judge`].

use std::collections::BTreeMap;

use super::wire::Place;

/// A message's number; it stands in its body.
pub(crate) type MessageId = u64;

/// A connection that has said hello, by its number in the run.
pub(crate) type SessionNumber = usize;

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) session: SessionNumber,
    pub(crate) user: String,
    pub(crate) room: String,
    pub(crate) body: String,
    pub(crate) ephemeral: bool,
    /// The sender gets it too.
    pub(crate) echo: bool,
    /// A join that would have changed `echo` was refused before or after: the sender may get it or not.
    pub(crate) echo_doubtful: bool,
    pub(crate) written_step: u64,
}

/// From `joined` (or `welcome`, for an inbox) to `left` or the session's end.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) session: SessionNumber,
    pub(crate) room: String,
    /// The room's newest position as the answer said.
    pub(crate) since: Place,
    pub(crate) joined_step: u64,
    pub(crate) seen: Vec<(Place, MessageId)>,
    /// Until the quiet end: nothing may be missing there.
    pub(crate) stayed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) messages: Vec<Message>,
    order: BTreeMap<String, BTreeMap<Place, MessageId>>,
    placed: BTreeMap<MessageId, Place>,
    pub(crate) memberships: Vec<Membership>,
}

impl Truth {
    /// The next message's number; its body must hold it.
    pub(crate) fn next_id(&self) -> MessageId {
        self.messages.len() as MessageId
    }

    pub(crate) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(usize::try_from(id).ok()?)
    }

    /// Somebody learnt that a message stands at a position.
    pub(crate) fn place(&mut self, id: MessageId, at: Place) -> Result<(), String> {
        let message = self.message(id).ok_or_else(|| format!("message {id} was never written"))?;
        let room = message.room.clone();
        let other = *self.order.entry(room.clone()).or_default().entry(at).or_insert(id);
        if other != id {
            return Err(format!("messages {other} and {id} of {room} have one position {at:?}"));
        }
        let before = *self.placed.entry(id).or_insert(at);
        if before != at {
            return Err(format!("message {id} of {room} stands at {before:?} and at {at:?}"));
        }
        Ok(())
    }

    /// A join of this session was refused: whether it gets its own messages in this room can no longer be told.
    pub(crate) fn doubt_echo(&mut self, session: SessionNumber, room: &str) {
        for message in self.messages.iter_mut().filter(|m| m.session == session && m.room == room) {
            message.echo_doubtful = true;
        }
    }

    /// Everything that needs the whole run: completeness of each membership, order of each sender.
    pub(crate) fn judge(&self) -> Result<(), String> {
        for membership in &self.memberships {
            self.judge_membership(membership)?;
        }
        for (room, order) in &self.order {
            let mut newest: BTreeMap<SessionNumber, MessageId> = BTreeMap::new();
            for id in order.values() {
                let session = self.messages[usize::try_from(*id).expect("an index")].session;
                if let Some(before) = newest.insert(session, *id).filter(|before| before >= id) {
                    return Err(format!("in {room} session {session}'s message {before} stands before its {id}"));
                }
            }
        }
        Ok(())
    }

    /// What was seen is a run of the room's order without a hole, from where it had to begin to where it had to end.
    fn judge_membership(&self, membership: &Membership) -> Result<(), String> {
        let Membership { session, room, since, joined_step, seen, stayed } = membership;
        let certain = |id: MessageId| {
            let message = &self.messages[id as usize];
            message.session != *session || !message.echo_doubtful
        };
        let seen: Vec<_> = seen.iter().filter(|(_, id)| certain(*id)).collect();
        let empty = BTreeMap::new();
        let order = self.order.get(room).unwrap_or(&empty);
        let all: Vec<(Place, MessageId)> = order.iter().filter(|(at, _)| *at > since).map(|(at, id)| (*at, *id)).collect();
        let due: Vec<(Place, MessageId)> = all.into_iter().filter(|(_, id)| certain(*id) && self.is_due(*id, *session)).collect();
        // A room that nobody was in has forgotten its newest position: then only what was written after the answer must be there.
        let must_from = if *since > Place::default() {
            0
        } else {
            due.iter().position(|(_, id)| self.messages[*id as usize].written_step > *joined_step).unwrap_or(due.len())
        };
        let from = match seen.first() {
            Some(first) => due.iter().position(|entry| entry == *first).unwrap_or(due.len()),
            None if *stayed => must_from,
            None => return Ok(()),
        };
        if from > must_from {
            let missing = due.get(must_from);
            return Err(format!("session {session} in {room} (joined at {since:?}) did not get {missing:?}, the first after its join"));
        }
        let rest = &due[from..];
        if let Some(hole) = rest.iter().zip(&seen).find(|(due, seen)| due != *seen) {
            let missed = hole.0;
            let readers: Vec<_> = self.memberships.iter().filter(|m| m.seen.contains(missed)).map(|m| m.session).collect();
            let message = &self.messages[missed.1 as usize];
            let memberships: Vec<_> = self
                .memberships
                .iter()
                .filter(|m| m.session == *session && m.room == *room)
                .map(|m| (m.since, m.joined_step, m.seen.len()))
                .collect();
            return Err(format!(
                "session {session} in {room} got {:?} where {missed:?} was due; that is {message:?}, read by {readers:?}; memberships {memberships:?}",
                hole.1
            ));
        }
        if seen.len() > rest.len() {
            return Err(format!("session {session} in {room} got {:?}, which is not in the room's order", seen.last()));
        }
        if *stayed && seen.len() < rest.len() {
            let missed = &rest[seen.len()];
            let readers: Vec<_> = self.memberships.iter().filter(|m| m.seen.contains(missed)).map(|m| m.session).collect();
            let message = &self.messages[missed.1 as usize];
            return Err(format!(
                "session {session} stayed in {room} and never got {missed:?}, {message:?}, read by {readers:?}; joined at {since:?}, step {joined_step}, saw {seen:?}"
            ));
        }
        Ok(())
    }

    fn is_due(&self, id: MessageId, reader: SessionNumber) -> bool {
        let message = &self.messages[id as usize];
        message.echo || message.session != reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Place {
        Place { ms: 1, n }
    }

    /// Five messages of session 0 in one room, all placed in order; session 1 read `seen` of them.
    fn truth(seen: &[u64], stayed: bool) -> Truth {
        let mut truth = Truth::default();
        for id in 0..5 {
            truth.messages.push(Message {
                session: 0,
                user: "u".into(),
                room: "r".into(),
                body: String::new(),
                ephemeral: false,
                echo: true,
                echo_doubtful: false,
                written_step: id,
            });
            truth.place(id, at(id + 1)).unwrap();
        }
        let seen = seen.iter().map(|id| (at(id + 1), *id)).collect();
        truth.memberships.push(Membership { session: 1, room: "r".into(), since: at(1), joined_step: 0, seen, stayed });
        truth
    }

    #[test]
    fn a_whole_run_is_accepted() {
        assert_eq!(truth(&[1, 2, 3, 4], true).judge(), Ok(()));
        assert_eq!(truth(&[1, 2], false).judge(), Ok(()));
    }

    #[test]
    fn a_planted_loss_is_caught() {
        assert!(truth(&[1, 3, 4], true).judge().is_err());
        assert!(truth(&[2, 3, 4], true).judge().is_err());
        assert!(truth(&[1, 2, 3], true).judge().is_err());
        assert!(truth(&[], true).judge().is_err());
        assert!(truth(&[1, 3], false).judge().is_err());
    }

    #[test]
    fn a_planted_double_is_caught() {
        assert!(truth(&[1, 2, 2, 3, 4], true).judge().is_err());
    }

    #[test]
    fn a_planted_swap_is_caught() {
        assert!(truth(&[1, 3, 2, 4], true).judge().is_err());
        let mut truth = truth(&[], false);
        assert!(truth.place(3, at(3)).is_err(), "two messages at one position");
        assert!(truth.place(4, at(9)).is_err(), "one message at two positions");
    }

    #[test]
    fn a_senders_messages_out_of_order_are_caught() {
        let mut truth = truth(&[1, 2, 3, 4], true);
        truth.messages[4].session = 2;
        truth.messages.push(Message {
            session: 2,
            user: "u".into(),
            room: "r".into(),
            body: String::new(),
            ephemeral: false,
            echo: true,
            echo_doubtful: false,
            written_step: 9,
        });
        truth.messages[1].session = 2;
        truth.place(5, Place { ms: 0, n: 9 }).unwrap();
        assert!(truth.judge().is_err());
    }
}
