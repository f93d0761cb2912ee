//! What is true of the whole run: every message written, every room's order as far as anybody has seen it.
//!
//! Readers and senders report what they are told; two reports that cannot both be true end the run. What can only be judged when all is quiet
//! (nothing missing, nobody forgotten) is judged by [`Truth::judge`].

use std::collections::{BTreeMap, BTreeSet};

use super::plan::Retained;
use super::recorded_log::Recorded;
use super::replays::{Page, Replay};
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
    pub(crate) key: Option<String>,
    /// Sessions that have sent it again, with its key.
    pub(crate) repeaters: Vec<SessionNumber>,
}

impl Message {
    /// Whether it is sure that the session gets it, or does not, when it comes live.
    fn is_certain_for(&self, session: SessionNumber) -> bool {
        let again = !self.repeaters.is_empty();
        !(self.session == session && (self.echo_doubtful || again)) && !self.repeaters.contains(&session)
    }
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
    /// Messages with a key that stand at a second place.
    doubled: Vec<(MessageId, Place, Place)>,
    /// Messages of which a `sent` has said that it was the first with this place.
    first_sent: BTreeSet<(MessageId, Place)>,
    /// Keys handed out, by user and room.
    keys: BTreeMap<(String, String), u64>,
    pub(crate) memberships: Vec<Membership>,
    pub(crate) gaps: u64,
    pub(super) replays: Vec<Replay>,
    pub(crate) pages: Vec<Page>,
    pub(crate) retained: Retained,
    /// Rooms that the server has forgotten whole so far.
    pub(crate) evictions: u64,
    /// What the shards' wall clock says.
    pub(crate) wall_ms: u64,
}

/// Rule 6 of protocol.md.
const DEDUP_WINDOW_MS: u64 = 300_000;
const DEDUP_KEYS: usize = 128;

impl Truth {
    pub(crate) fn new(retained: Retained) -> Self {
        Self { retained, ..Self::default() }
    }

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
        if before == at {
            return Ok(());
        }
        if self.message(id).is_none_or(|message| message.repeaters.is_empty()) {
            return Err(format!("message {id} of {room} stands at {before:?} and at {at:?}"));
        }
        // Sent again, it may stand twice if its key was forgotten in between.
        if !self.doubled.contains(&(id, before, at)) {
            self.doubled.push((id, before, at));
        }
        Ok(())
    }

    /// A key that this user has not used in this room. Other users and other rooms have it too.
    pub(crate) fn next_key(&mut self, user: &str, room: &str) -> String {
        let count = self.keys.entry((user.to_owned(), room.to_owned())).or_default();
        *count += 1;
        format!("k{count}")
    }

    /// A `sent` without `duplicate` says that its message was the first with its key; at another place it is judged as a double.
    pub(crate) fn sent_first(&mut self, id: MessageId, at: Place) -> Result<(), String> {
        self.place(id, at)?;
        if self.first_sent.insert((id, at)) { Ok(()) } else { Err(format!("two answers say that message {id} was the first, at {at:?}")) }
    }

    pub(super) fn order_of(&self, room: &str) -> Option<&BTreeMap<Place, MessageId>> {
        self.order.get(room)
    }

    /// The newest place of a room that anybody has heard of, and one that is `back` before it.
    pub(crate) fn place_back(&self, room: &str, back: usize) -> Option<Place> {
        self.order.get(room)?.keys().rev().nth(back).copied()
    }

    /// Adds what the log has ordered and nobody has spoken of. An entry whose message stands elsewhere already was a repeat.
    pub(crate) fn learn(&mut self, ledger: &[Recorded]) -> Result<(), String> {
        for Recorded { room, at, message } in ledger {
            if self.message(*message).is_none_or(|written| written.room != *room) {
                return Err(format!("the log has ordered message {message} in {room}, where nobody wrote it"));
            }
            if !self.placed.contains_key(message) {
                self.place(*message, *at)?;
            }
        }
        Ok(())
    }

    /// Two messages for one key: the first one's was out of the window when the second came.
    fn judge_doubled(&self) -> Result<(), String> {
        for (id, one, other) in &self.doubled {
            let (first, second) = (one.min(other), one.max(other));
            let message = &self.messages[*id as usize];
            let order = &self.order[&message.room];
            let between = order.range(*first..*second).filter(|(_, id)| {
                let other = &self.messages[**id as usize];
                other.key.is_some() && other.user == message.user
            });
            let forgotten = self.evictions > 0 || self.retained.shard_is_small;
            if !forgotten && second.ms - first.ms < DEDUP_WINDOW_MS && between.count() < DEDUP_KEYS {
                return Err(format!("message {id} stands at {first:?} and at {second:?}, with one key: {message:?}"));
            }
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
                let message = &self.messages[usize::try_from(*id).expect("an index")];
                let session = message.session;
                if !message.repeaters.is_empty() {
                    continue;
                }
                if let Some(before) = newest.insert(session, *id).filter(|before| before >= id) {
                    return Err(format!("in {room} session {session}'s message {before} stands before its {id}"));
                }
            }
        }
        self.judge_doubled()?;
        self.judge_replays()
    }

    /// What was seen is a run of the room's order without a hole, from where it had to begin to where it had to end.
    fn judge_membership(&self, membership: &Membership) -> Result<(), String> {
        let Membership { session, room, since, joined_step, seen, gaps, stayed } = membership;
        let certain = |id: MessageId| self.messages[id as usize].is_certain_for(*session);
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
        for (read, place) in seen.iter().map(|(at, _)| *at).chain(last).enumerate() {
            let found = due.binary_search_by_key(&place, |(at, _)| *at).unwrap_or(due.len());
            if place != end && found == due.len() {
                return Err(format!("session {session} in {room} got {place:?} although it was not due"));
            }
            // Before what had to be there, the first message may be seen or not.
            if read > 0 && found < next {
                return Err(format!("session {session} in {room} got {place:?} again, or behind a later one"));
            }
            let behind = if read == 0 { *since } else { seen[read - 1].0 };
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
pub(super) mod tests {
    use super::*;

    fn at(n: u64) -> Place {
        Place { ms: 1, n }
    }

    fn message(session: SessionNumber, written_step: u64) -> Message {
        Message {
            session,
            user: "u".into(),
            room: "r".into(),
            body: String::new(),
            ephemeral: false,
            echo: true,
            echo_doubtful: false,
            written_step,
            key: None,
            repeaters: Vec::new(),
        }
    }

    /// Five messages of session 0 in one room, all placed in order.
    pub(crate) fn truth_of_five() -> Truth {
        let mut truth = Truth::default();
        for id in 0..5 {
            truth.messages.push(message(0, id));
            truth.place(id, at(id + 1)).unwrap();
        }
        truth
    }

    /// As before; session 1 read `seen` of them.
    fn truth(seen: &[u64], stayed: bool) -> Truth {
        let mut truth = truth_of_five();
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
        truth.messages.push(message(2, 9));
        truth.messages[1].session = 2;
        truth.place(5, Place { ms: 0, n: 9 }).unwrap();
        assert!(truth.judge().is_err());
    }

    #[test]
    fn one_key_at_two_places_is_caught_within_its_window_only() {
        let again = |ms: u64, keys: u64| {
            let mut truth = Truth::default();
            for id in 0..=keys {
                truth.messages.push(Message { key: Some(format!("k{id}")), ..message(0, id) });
                truth.place(id, at(id + 1)).unwrap();
            }
            truth.messages[0].repeaters.push(1);
            truth.place(0, Place { ms: 1 + ms, n: 9_999 }).unwrap();
            truth.judge()
        };
        assert!(again(0, 2).is_err());
        assert!(again(299_999, 2).is_err());
        assert_eq!(again(300_000, 2), Ok(()));
        assert!(again(0, 126).is_err());
        assert_eq!(again(0, 127), Ok(()));
    }

    #[test]
    fn a_second_answer_that_does_not_say_duplicate_is_caught() {
        let mut truth = truth_of_five();
        assert_eq!(truth.sent_first(1, at(2)), Ok(()));
        assert!(truth.sent_first(1, at(2)).is_err());
    }
}
