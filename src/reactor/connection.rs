//! A connection's state: what is in flight, what waits, how far it is on its way from accept to release.

use crate::memory::queue::Queue;
use crate::reactor::counters::Ended;
use crate::reactor::deadline::LOOKS;

/// How far a connection is. It only moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; reads one frame at a time until `hello` is whole.
    Handshake,
    /// Logged in: the rules know the session.
    Open,
    /// Ended for the rules; what is queued goes out, what comes in is thrown away.
    Closing,
    /// All is sent and our side is shut down; reads and throws away until the client closes.
    Lingering,
    /// Nothing more is sent or read; waits until the kernel holds nothing.
    Joining,
}

/// The receive of a connection. A receive is armed from `Idle` only: data completions still come after a cancel, and two receives on one
/// stream would scramble it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// The kernel holds no receive of this connection.
    Idle,
    Armed,
    /// A cancel is on its way; the receive's own last completion makes it `Idle`.
    Cancelling,
}

/// Why a session's next request is not taken yet. Until it is, nothing is read from the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    No,
    /// The way to another shard is full, or an answer before it is still due.
    Mesh,
    /// The user is out of tokens.
    Rate,
    /// The client does not read: its own queue is over the soft mark.
    Reader,
    /// The token of the `hello` before it is being checked.
    Verdict,
}

/// What an onlooker can tell apart, for checks and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Handshake,
    /// A listed proxy has not said yet whom it speaks for.
    ProxyHeader,
    /// The token of its first `hello` is being checked.
    Verifying,
    Idle,
    Sending,
    /// Not reading: held, blocked or draining.
    Paused,
    Cancelling,
    Starved,
    Closing,
    Lingering,
    Joining,
}

/// Bytes kept for one connection, at least one.
#[derive(Debug, Default)]
pub(super) struct Unread {
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Connection<S> {
    pub(super) socket: S,
    pub(super) phase: Phase,
    pub(super) receive: Receive,
    /// A send is in flight, or waits in the reactor's retry list with its loan.
    pub(super) sending: bool,
    /// Stands in the list of sends to make.
    pub(super) dirty: bool,
    /// Which list that is, or, while a send is in flight, which one the next send belongs on.
    pub(super) bulk: bool,
    /// Stands in the list of receives to arm or cancel.
    pub(super) rearm: bool,
    /// The rules were told that its queue is over the soft mark.
    pub(super) slow: bool,
    /// Something in its queue may be dropped.
    pub(super) droppable: bool,
    /// Waits for buffers to come back.
    pub(super) starved: bool,
    /// The client has closed its side.
    pub(super) eof: bool,
    /// It comes from a listed proxy, which has still to say whom it speaks for.
    pub(super) proxied: bool,
    /// A `ping` went out and nothing was read since.
    pub(super) pinged: bool,
    /// What the first request in `unread` waits for.
    pub(super) waits: Waits,
    /// Times the rules said hold and not yet release.
    pub(super) holds: u16,
    pub(super) queue: Queue,
    /// Bytes queued and in flight.
    pub(super) queued_bytes: u32,
    /// Where the send in flight starts in its frame.
    pub(super) send_start: u32,
    /// Bytes thrown away since the end.
    pub(super) discarded: u32,
    /// Received and not yet judged: an incomplete frame, or what stands behind a blocked request.
    /// Boxed, because hardly any connection has some at any one time.
    pub(super) unread: Option<Box<Unread>>,
    /// Milliseconds of the monotonic clock, all of them.
    pub(super) read_ms: u64,
    /// When a byte was last seen to have gone out, or the send in flight was made.
    pub(super) progress_ms: u64,
    /// Bytes that the client's side had taken when that was last looked at, the lower half.
    pub(super) acked: u32,
    /// When the incomplete frame's first byte came, or the wait began that `waits` names; 0 when neither.
    pub(super) waiting_ms: u64,
    /// Of the handshake, the flush or the lingering; of an open session the end of its token, `u64::MAX` without one.
    pub(super) deadline_ms: u64,
    /// When the wheel looks at the connection next.
    pub(super) check_ms: u64,
    pub(super) ended: Ended,
}

impl<S> Connection<S> {
    pub(super) fn new(socket: S, now_ms: u64, deadline_ms: u64) -> Self {
        Self {
            socket,
            phase: Phase::Handshake,
            receive: Receive::Idle,
            sending: false,
            dirty: false,
            bulk: false,
            rearm: false,
            slow: false,
            droppable: false,
            starved: false,
            eof: false,
            proxied: false,
            pinged: false,
            waits: Waits::No,
            holds: 0,
            queue: Queue::default(),
            queued_bytes: 0,
            send_start: 0,
            discarded: 0,
            unread: None,
            read_ms: now_ms,
            progress_ms: now_ms,
            acked: 0,
            waiting_ms: 0,
            deadline_ms,
            check_ms: u64::MAX,
            ended: Ended::Stopped,
        }
    }

    /// When to look next whether the client takes anything of the send in flight.
    pub(super) fn look_ms(&self, now_ms: u64, no_progress_ms: u64) -> u64 {
        let (step_ms, end_ms) = (no_progress_ms / LOOKS, self.progress_ms + no_progress_ms);
        let first_ms = self.progress_ms + step_ms;
        if now_ms < first_ms { first_ms } else { end_ms.min(now_ms + step_ms) }
    }

    /// The kernel holds nothing of this connection.
    pub(super) fn is_joined(&self) -> bool {
        !self.sending && self.receive == Receive::Idle
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Handshake if self.waits == Waits::Verdict => State::Verifying,
            Phase::Handshake if self.proxied => State::ProxyHeader,
            Phase::Handshake => State::Handshake,
            Phase::Closing => State::Closing,
            Phase::Lingering => State::Lingering,
            Phase::Joining => State::Joining,
            Phase::Open if self.starved => State::Starved,
            Phase::Open if self.receive == Receive::Cancelling => State::Cancelling,
            Phase::Open if self.holds > 0 || self.waits != Waits::No => State::Paused,
            Phase::Open if self.sending => State::Sending,
            Phase::Open => State::Idle,
        }
    }
}

const _: () = assert!(std::mem::size_of::<Connection<std::os::fd::OwnedFd>>() <= 128, "the hot half of a session");
