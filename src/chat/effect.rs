//! What goes out of the rules: effects for the reactor, envelopes for other shards, entries for the log.

use bytes::Bytes;

use super::dedup::KeyHash;
use super::sample::{Stage, Stamp, Stamps};
use crate::ids::{Key, Now, Position, RequestId, SessionId, SessionRef, ShardId};
use crate::protocol::error::Reason;

/// Which of the two send budgets a delivery draws on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answers and messages of ordinary rooms.
    Interactive,
    /// Messages of rooms with many members on this shard: they must not hold up everybody else.
    Bulk,
}

/// What may become of a frame whose reader falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It goes out, or the session ends.
    Kept,
    /// It goes first, without a word.
    Ephemeral,
    /// A message of a room that drops its oldest: it may go, and `gap` stands for it. `previous` is the room's position before it.
    Oldest { place: Key, previous: Position },
    /// A `joined` of such a room, kept: no `gap` before it speaks of what comes behind it.
    Joined { place: Key },
}

/// One thing to do. `targets` of a fan-out are a range of [`Effects::targets`].
#[derive(Debug)]
pub enum Effect {
    /// Queue a whole frame on one session.
    Queue {
        session: SessionId,
        payload: Bytes,
        worth: Worth,
    },
    /// Queue a whole frame on many sessions, all of them before anything else happens.
    Fanout {
        payload: Bytes,
        targets: std::ops::Range<usize>,
        class: Class,
        worth: Worth,
        stamps: Stamps,
    },
    /// The answer to a request from outside ([`Shard::handle_publish`](super::Shard::handle_publish)): the frame that a session would read.
    Tell {
        ticket: u32,
        payload: Bytes,
    },
    /// First in, first out per destination; never to this shard itself.
    Post {
        to: ShardId,
        envelope: Envelope,
    },
    /// Give the entry its place in the order; the log answers with [`Appended`].
    Append {
        token: Token,
        entry: Entry,
    },
    /// Say `bye` and end the session; what is queued before it goes out first, except for a slow consumer.
    Close {
        session: SessionId,
        reason: Reason,
        message: Option<&'static str>,
    },
    /// The client has closed its side and everything it asked is answered: end the session without a word.
    HangUp {
        session: SessionId,
    },
    /// Stop reading from the session; holds are counted, each is ended by one `Release`.
    Hold {
        session: SessionId,
    },
    Release {
        session: SessionId,
    },
}

/// The effects of one call, reused from call to call.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
    pub targets: Vec<SessionId>,
    /// How long sampled messages took for a stage, microseconds.
    pub samples: Vec<(Stage, u32)>,
}

impl Effects {
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    pub fn queue(&mut self, session: SessionId, payload: Bytes) {
        self.list.push(Effect::Queue { session, payload, worth: Worth::Kept });
    }

    /// A message has come to the end of a stage that it began at `since`.
    pub(super) fn sample(&mut self, stage: Stage, since: Stamp, now: Now) {
        if since.is_sampled() {
            self.samples.push((stage, since.age_us(now)));
        }
    }

    pub fn clear(&mut self) {
        self.list.clear();
        self.targets.clear();
        self.samples.clear();
    }
}

/// A pending append of this shard's rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub Key);

/// What the log is asked to order. The room decides the partition.
#[derive(Clone, Debug)]
pub struct Entry {
    pub parcel: Parcel,
}

/// The log's answer: the entry has this place in its room's order. The same token may be answered again: only the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub token: Token,
    pub position: Position,
}

/// Room, user and body in one piece of shared memory: one count to move them between cores.
#[derive(Clone, Debug)]
pub struct Parcel {
    bytes: Bytes,
    room_len: u8,
    user_len: u8,
    /// When a sampled message was read.
    pub received: Stamp,
}

impl Parcel {
    /// `bytes` is room, user and body, one behind the other, each of them UTF-8.
    pub fn new(bytes: Bytes, room: &str, user: &str) -> Self {
        let room_len = u8::try_from(room.len()).expect("a room's name has at most 65 bytes");
        let user_len = u8::try_from(user.len()).expect("a user's name has at most 64 bytes");
        debug_assert!(bytes.starts_with(room.as_bytes()) && bytes[room.len()..].starts_with(user.as_bytes()));
        Self { bytes, room_len, user_len, received: Stamp::default() }
    }

    pub fn room(&self) -> &str {
        self.text(0, usize::from(self.room_len))
    }

    pub fn user(&self) -> &str {
        self.text(usize::from(self.room_len), usize::from(self.user_len))
    }

    pub fn body(&self) -> &str {
        let start = usize::from(self.room_len) + usize::from(self.user_len);
        self.text(start, self.bytes.len() - start)
    }

    fn text(&self, start: usize, len: usize) -> &str {
        std::str::from_utf8(&self.bytes[start..start + len]).expect("made of texts, cut where they meet")
    }
}

/// Who asked, and under which number the answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub from: SessionRef,
    pub id: Option<RequestId>,
}

/// What a join says about where its reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// A position of another epoch, or none at all.
    Unknown,
    At(Position),
}

/// What is to follow an answer before live messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    Nothing,
    /// The newest so many.
    Newest(u32),
    /// All behind a position, or else the newest so many.
    Since(Since, Option<u32>),
}

/// A page of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub range: PageRange,
    pub limit: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageRange {
    Newest,
    Before(Position),
    After(Position),
    /// A position of another epoch: there is nothing on its other side.
    Nothing,
}

/// A session's wish to hear of members coming and going, as the home granted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    No,
    Yes,
    /// Asked for, but the room is too large.
    TooLarge,
}

/// Between shards, both ways, on one first-in first-out queue per pair.
#[derive(Debug)]
pub enum Envelope {
    /// To the home: a session joins (`again`: it is a member already and only wants the answer).
    Join {
        parcel: Parcel,
        origin: Origin,
        place: Key,
        again: bool,
        watch: bool,
        replay: Replay,
    },
    /// To the home: a session leaves and wants an answer. `counted` false: it was no member, and only wants the answer.
    Leave {
        parcel: Parcel,
        origin: Origin,
        place: Key,
        counted: bool,
    },
    /// To the home: a session has ended; no answer.
    Gone {
        parcel: Parcel,
        from: SessionRef,
    },
    /// To the home: a message. `echo` false: not to the session it came from.
    Publish {
        parcel: Parcel,
        origin: Origin,
        ephemeral: bool,
        echo: bool,
        key: Option<KeyHash>,
    },
    /// To the home: a page of history.
    Page {
        parcel: Parcel,
        origin: Origin,
        page: Page,
    },
    /// To the home: a reader has fallen behind, or (`ms` 0) caught up; no answer.
    Stall {
        parcel: Parcel,
        reader: SessionRef,
        ms: u64,
    },
    /// To the home: who is here?
    Who {
        parcel: Parcel,
        origin: Origin,
    },

    /// From the home: the session is a member from here on.
    Joined {
        session: SessionId,
        place: Key,
        watch: Watch,
        sessions: u32,
        payload: Bytes,
    },
    /// From the home: the session is no member from here on.
    Left {
        session: SessionId,
        place: Key,
        payload: Bytes,
    },
    /// From the home: an answer that changes nothing here.
    Answer {
        session: SessionId,
        payload: Bytes,
    },
    /// From the home: more of the answer before it.
    More {
        session: SessionId,
        payload: Bytes,
    },
    /// From the home to itself: a message for every session of one of its own users.
    Inbox {
        user: Key,
        payload: Bytes,
        ephemeral: bool,
        stamps: Stamps,
    },
    /// From the home: a message for every member of the place but `except`. `previous` is the room's position before it, `None` if it is ephemeral;
    /// `sessions` is how many the room has on all shards.
    Deliver {
        place: Key,
        payload: Bytes,
        except: Option<SessionId>,
        previous: Option<Position>,
        sessions: u32,
        stamps: Stamps,
    },
    /// From the home: somebody came or went; for those who watch.
    Member {
        place: Key,
        payload: Bytes,
    },
    /// From the home: the room got too large for `Member`.
    MemberOff {
        place: Key,
        payload: Bytes,
    },
    /// From the home: a message waits for room in a queue; stop reading from its sender until `Release`.
    Hold {
        session: SessionId,
    },
    Release {
        session: SessionId,
    },
}

impl Envelope {
    /// A request of the member side, which will be answered by exactly one envelope that [`Envelope::answers`].
    pub fn is_request(&self) -> bool {
        matches!(
            self,
            Envelope::Join { .. } | Envelope::Leave { .. } | Envelope::Publish { .. } | Envelope::Page { .. } | Envelope::Who { .. }
        )
    }

    /// The session whose request this answers.
    pub fn answers(&self) -> Option<SessionId> {
        match self {
            Envelope::Joined { session, .. } | Envelope::Left { session, .. } | Envelope::Answer { session, .. } => Some(*session),
            _ => None,
        }
    }
}

const _: () = assert!(std::mem::size_of::<Envelope>() <= 120, "an envelope is copied twice per hop");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_gives_back_its_three_parts() {
        let parcel = Parcel::new(Bytes::from_static("@bobalice{\"é\":1}".as_bytes()), "@bob", "alice");
        assert_eq!((parcel.room(), parcel.user(), parcel.body()), ("@bob", "alice", "{\"é\":1}"));
    }
}
