//! Rooms and connections of a single-threaded runtime, and the task of one connection: what the tokio and the glommio baseline share.
//!
//! A connection is one task. It sleeps until its socket can be read or something has been queued for it, reads once into the thread's buffer, relays
//! what has come, and writes what is queued, gathered, as far as the socket takes it. Counts are not atomic, there is no lock, and
//! buffers are the thread's, not the connection's: a task per connection as cheap as it can be made without a ring of one's own.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::mailbox::Mailbox;
use super::tail::{Over, Tail};
use super::words::{self, Request};

/// Read and written at a time, as in the server.
const BUFFER_BYTES: usize = 64 * 1024;
/// Reads of a connection before the others have their turn.
const READS_PER_TURN: usize = 4;

/// A runtime's non-blocking socket.
pub(crate) trait Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
}

type Rooms = HashMap<Box<[u8]>, Vec<Rc<Peer>>>;

/// All there is on the thread.
pub(crate) struct Hub {
    rooms: RefCell<Rooms>,
    deliveries: Cell<u64>,
    input: RefCell<Vec<u8>>,
    output: RefCell<Vec<u8>>,
    packed: RefCell<Vec<u8>>,
}

/// A connection as others see it.
struct Peer {
    mailbox: RefCell<Mailbox<Rc<[u8]>>>,
    /// Of the task, while it sleeps.
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
    rooms: RefCell<Vec<Box<[u8]>>>,
}

impl Peer {
    fn push(&self, frame: Rc<[u8]>) -> bool {
        let taken = !self.closed.get() && self.mailbox.borrow_mut().push(frame).is_ok();
        if !taken {
            self.closed.set(true);
        }
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        taken
    }
}

impl Hub {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            rooms: RefCell::default(),
            deliveries: Cell::new(0),
            input: RefCell::new(vec![0; BUFFER_BYTES]),
            output: RefCell::new(vec![0; BUFFER_BYTES]),
            packed: RefCell::default(),
        })
    }

    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries.get()
    }

    /// The whole life of a connection.
    pub(crate) async fn serve(&self, mut wire: impl Wire) {
        let peer =
            Rc::new(Peer { mailbox: RefCell::default(), waker: RefCell::default(), closed: Cell::new(false), rooms: RefCell::default() });
        let mut tail = Tail::default();
        poll_fn(|cx| match self.turn(cx, &peer, (&mut wire, &mut tail)) {
            Ok(()) => Poll::Pending,
            Err(Over) => Poll::Ready(()),
        })
        .await;
        self.leave(&peer);
    }

    /// One wake of the task.
    fn turn(&self, cx: &mut Context<'_>, peer: &Rc<Peer>, (wire, tail): (&mut impl Wire, &mut Tail)) -> Result<(), Over> {
        // It is awake: nobody need wake it.
        peer.waker.borrow_mut().take();
        self.read(cx, peer, (wire, tail))?;
        let (mut mailbox, mut output) = (peer.mailbox.borrow_mut(), self.output.borrow_mut());
        while !mailbox.is_empty() {
            match wire.poll_write(cx, mailbox.next(&mut output)) {
                Poll::Ready(Ok(count)) if count > 0 => mailbox.advance(count),
                Poll::Ready(_) => return Err(Over),
                Poll::Pending => break,
            }
        }
        if peer.closed.get() {
            return Err(Over);
        }
        *peer.waker.borrow_mut() = Some(cx.waker().clone());
        Ok(())
    }

    fn read(&self, cx: &mut Context<'_>, peer: &Rc<Peer>, (wire, tail): (&mut impl Wire, &mut Tail)) -> Result<(), Over> {
        let mut input = self.input.borrow_mut();
        for _ in 0..READS_PER_TURN {
            match wire.poll_read(cx, &mut input) {
                Poll::Ready(Ok(count)) if count > 0 => tail.feed(&input[..count], |json| self.on_request(peer, json))?,
                Poll::Ready(_) => return Err(Over),
                Poll::Pending => return Ok(()),
            }
        }
        // A runtime wakes only whom it has told to wait.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn on_request(&self, peer: &Rc<Peer>, json: &[u8]) -> Result<(), Over> {
        match Request::read(json).ok_or(Over)? {
            Request::Hello { user } => {
                self.join(peer, &words::inbox(user));
                peer.push(self.pack(&[words::WELCOME]));
            }
            Request::Join { id, room } => {
                self.join(peer, room);
                peer.push(self.pack(&words::joined(id, room)));
            }
            Request::Send { id, room, body } => {
                peer.push(self.pack(&words::sent(id, room)));
                self.relay(room, &self.pack(&words::message(room, body)));
            }
            Request::Ping => {
                peer.push(self.pack(&[words::PONG]));
            }
        }
        Ok(())
    }

    fn relay(&self, room: &[u8], frame: &Rc<[u8]>) {
        let rooms = self.rooms.borrow();
        let Some(members) = rooms.get(room) else { return };
        let taken = members.iter().map(|member| u64::from(member.push(Rc::clone(frame)))).sum::<u64>();
        self.deliveries.set(self.deliveries.get() + taken);
    }

    fn pack(&self, parts: &[&[u8]]) -> Rc<[u8]> {
        let mut packed = self.packed.borrow_mut();
        packed.clear();
        words::pack(parts, &mut packed);
        packed.as_slice().into()
    }

    fn join(&self, peer: &Rc<Peer>, room: &[u8]) {
        self.rooms.borrow_mut().entry(room.into()).or_default().push(Rc::clone(peer));
        peer.rooms.borrow_mut().push(room.into());
    }

    fn leave(&self, peer: &Rc<Peer>) {
        let mut rooms = self.rooms.borrow_mut();
        for name in peer.rooms.borrow_mut().drain(..) {
            let Some(members) = rooms.get_mut(&name) else { continue };
            members.retain(|member| !Rc::ptr_eq(member, peer));
            if members.is_empty() {
                rooms.remove(&name);
            }
        }
    }
}
