//! A connection's part of the books: its rooms, its requests without an answer, where it would go on after a break.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::limits::POSITION_BYTES_MAX;

use super::body::Stamp;
use super::plan::{Role, as_u64};

/// Request numbers of sends start here, so that all have ten digits.
pub const SEND_ID_FIRST: u64 = 1_000_000_000;
/// Those of requests for past messages.
pub const HISTORY_ID_FIRST: u64 = 9_000_000_000;

/// A room or inbox that a connection reads.
#[derive(Clone, Copy, Debug)]
pub struct Membership {
    pub room: u32,
    /// Place among the memberships of this thread.
    pub index: usize,
    /// Place among the rooms of this thread.
    pub local_room: usize,
    /// Every message has to come here.
    pub owed: bool,
    pub inbox: bool,
}

/// A `send` that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub room: u32,
    pub sequence: u32,
    pub intended_ns: u64,
    pub handed_ns: u64,
    /// The connection waited for no other answer: a client that waits for each would have sent it too.
    pub alone: bool,
    pub answered: bool,
}

/// A place in a room's order, as the server wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    bytes: [u8; POSITION_BYTES_MAX],
    len: u8,
}

impl Position {
    fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; POSITION_BYTES_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[derive(Debug)]
pub struct Page {
    pub connection: u32,
    pub role: Role,
    /// Rising by room.
    pub memberships: SmallVec<[Membership; 1]>,
    /// `joined`s (and the `welcome`, as one more) still missing.
    pub login_left: u32,
    /// Request number of `requests[0]`.
    first_id: u64,
    requests: VecDeque<Request>,
    pub pong_due: bool,
    /// Why the server ended the session.
    pub bye: Option<String>,
    /// When the connection came back, monotonic; 0 when it never went.
    pub back_ns: u64,
    /// By membership, of connections that come back: where to go on.
    positions: Vec<Option<Position>>,
    /// When the request for the past that is under way was due, monotonic.
    pub history_due_ns: Option<u64>,
}

impl Page {
    pub fn new(connection: u32, role: Role) -> Self {
        Self {
            connection,
            role,
            memberships: SmallVec::new(),
            login_left: 0,
            first_id: 0,
            requests: VecDeque::new(),
            pong_due: false,
            bye: None,
            back_ns: 0,
            positions: Vec::new(),
            history_due_ns: None,
        }
    }

    /// Most connections are in one room; the rest search.
    pub fn find(&self, room: u32) -> Option<Membership> {
        if let [only] = self.memberships[..] {
            return (only.room == room).then_some(only);
        }
        self.memberships.binary_search_by_key(&room, |m| m.room).ok().map(|at| self.memberships[at])
    }

    pub fn note_position(&mut self, membership: Membership, position: Option<&[u8]>) {
        let Ok(place) = self.memberships.binary_search_by_key(&membership.room, |m| m.room) else { return };
        self.positions.resize(self.memberships.len(), None);
        if let Some(position) = position.and_then(Position::new) {
            self.positions[place] = Some(position);
        }
    }

    /// Where to go on in the membership at `place`.
    pub fn position(&self, place: usize) -> Option<&Position> {
        self.positions.get(place)?.as_ref()
    }

    /// Enters a request; its number is the answer.
    pub fn enter(&mut self, request: Request) -> u64 {
        // The front is never an answered one.
        self.requests.push_back(Request { alone: self.requests.is_empty(), ..request });
        SEND_ID_FIRST + self.first_id + as_u64(self.requests.len()) - 1
    }

    /// Takes the request out, when it has not been answered before.
    pub fn answer(&mut self, id: u64) -> Option<Request> {
        let offset = id.checked_sub(SEND_ID_FIRST)?.checked_sub(self.first_id)?;
        let request = self.requests.get_mut(usize::try_from(offset).ok()?)?;
        if request.answered {
            return None;
        }
        request.answered = true;
        let request = *request;
        while self.requests.front().is_some_and(|r| r.answered) {
            self.requests.pop_front();
            self.first_id += 1;
        }
        Some(request)
    }

    /// The number of the request that sent a message.
    pub fn request_of(&self, stamp: &Stamp) -> Option<u64> {
        let at = self.requests.iter().position(|r| (r.room, r.sequence) == (stamp.room, stamp.sequence))?;
        Some(SEND_ID_FIRST + self.first_id + as_u64(at))
    }

    /// The number of the oldest request without an answer.
    pub fn oldest(&self) -> Option<u64> {
        (!self.requests.is_empty()).then_some(SEND_ID_FIRST + self.first_id)
    }

    /// Requests without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|r| !r.answered)
    }
}
