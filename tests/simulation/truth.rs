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
    /// What the session was told that it may have missed, in the order told.
    pub(crate) gaps: Vec<Gap>,
    /// Until the quiet end: nothing may be missing there.
    pub(crate) stayed: bool,
}

/// "Messages behind `since` may be missing", told when `behind` was the newest position read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) behind: Place,
    pub(crate) since: Place,
}

#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) messages: Vec<Message>,
    order: BTreeMap<String, BTreeMap<Place, MessageId>>,
    placed: BTreeMap<MessageId, Place>,
    pub(crate) memberships: Vec<Membership>,
    pub(crate) gaps: u64,
    /// Pages of history: their room, and the positions on them.
    pub(crate) pages: Vec<(String, Vec<Place>)>,
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
        for (room, page) in &self.pages {
            let (Some(first), Some(last)) = (page.first(), page.last()) else { continue };
            let due: Vec<Place> = self.order[room].range(first..=last).map(|(at, _)| *at).collect();
            if due != *page {
                return Err(format!("a page of {room} has {page:?} where {due:?} was due"));
            }
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
        let Membership { session, room, since, joined_step, seen, gaps, stayed } = membership;
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
        let end = Place { ms: u64::MAX, n: u64::MAX };
        let mut next = must_from;
        let last = stayed.then_some(end);
        for (place, read) in seen.iter().map(|(at, _)| *at).chain(last).zip(0..) {
            let found = due.iter().position(|(at, _)| *at == place).unwrap_or(due.len());
            if place != end && found == due.len() {
                return Err(format!("session {session} in {room} got {place:?} twice, out of order, or although it was not due"));
            }
            // Before what had to be there, a message may be seen or not.
            let behind = if read == 0 { *since } else { seen[read - 1].0 };
            if place != end && read > 0 && found < next {
                return Err(format!("session {session} in {room} got {place:?} again, or behind a later one"));
            }
            for missing in due.iter().take(found).skip(next) {
                if !gaps.iter().any(|gap| gap.behind >= behind && gap.behind < place && gap.since < missing.0) {
                    return Err(self.loss(membership, missing));
                }
            }
            next = found + 1;
        }
        Ok(())
    }

    fn loss(&self, membership: &Membership, missing: &(Place, MessageId)) -> String {
        let Membership { session, room, since, joined_step, gaps, .. } = membership;
        let readers: Vec<_> = self.memberships.iter().filter(|m| m.seen.contains(missing)).map(|m| m.session).collect();
        let message = &self.messages[missing.1 as usize];
        let mine = self.memberships.iter().filter(|m| m.session == *session && m.room == *room);
        let mine: Vec<_> = mine.map(|m| (m.since, m.joined_step, m.seen.len())).collect();
        format!(
            "session {session} in {room} did not get {missing:?}; that is {message:?}, read by {readers:?}; joined at {since:?}, step {joined_step}, told {gaps:?}, memberships {mine:?}"
        )
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
        truth.memberships.push(Membership { session: 1, room: "r".into(), since: at(1), joined_step: 0, seen, gaps: Vec::new(), stayed });
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
    fn a_gap_excuses_what_is_behind_it_and_nothing_else() {
        let told = |seen: &[u64], stayed, behind: u64, since: u64| {
            let mut truth = truth(seen, stayed);
            truth.memberships[0].gaps.push(Gap { behind: at(behind), since: at(since) });
            truth.judge()
        };
        assert_eq!(told(&[1, 4], true, 2, 2), Ok(()), "two are missing, as it was told");
        assert_eq!(told(&[1, 2], true, 3, 3), Ok(()), "the last two");
        assert_eq!(told(&[3, 4], true, 1, 1), Ok(()), "the first two");
        assert!(told(&[1, 4], true, 2, 3).is_err(), "the first of the two was not spoken of");
        assert!(told(&[1, 4], true, 5, 5).is_err(), "told too late");
        assert!(told(&[1, 3], true, 2, 2).is_err(), "the last one is missing too");
        assert!(told(&[1, 4, 2], true, 2, 2).is_err(), "what was dropped does not come later");
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
