//! Threads per connection, with the standard library alone: one that reads and relays, one that writes what is queued.
//!
//! A room is locked while a message goes to its members, so that all of them get one order; a reader that is slow holds up nobody, because what is
//! queued for it waits in its own bounded mailbox. A connection for which no more threads can be had is turned away with a `bye`: there this
//! way of building a server ends.

use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::thread;
use std::time::Duration;

use super::mailbox::Mailbox;
use super::tail::{Over, Tail};
use super::words::{self, Request};
use super::{Stop, Totals, refused};

/// Enough for the frames of a busy client; a thread's stack and this are what its connection costs.
const READ_BYTES: usize = 4 * 1024;
const STACK_BYTES: usize = 128 * 1024;
/// Frames of one write.
const SLICES_MAX: usize = 64;
/// A reader that takes nothing for so long is gone, as in the server.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const NO_THREAD: &[u8] = br#"{"type":"bye","code":503,"reason":"overloaded","message":"no more threads"}"#;

type Frame = Arc<[u8]>;
type Room = Arc<Mutex<Vec<Arc<Peer>>>>;

#[derive(Default)]
struct Hub {
    rooms: RwLock<HashMap<Box<[u8]>, Room>>,
    peers: Mutex<HashMap<u64, Arc<Peer>>>,
    deliveries: AtomicU64,
}

/// A connection as others see it.
struct Peer {
    number: u64,
    stream: TcpStream,
    queued: Mutex<Queued>,
    news: Condvar,
}

#[derive(Default)]
struct Queued {
    mailbox: Mailbox<Frame>,
    closed: bool,
}

/// Serves until told to stop.
pub(crate) fn run(listener: &TcpListener, stop: &Stop) -> Totals {
    let hub = Arc::new(Hub::default());
    let mut number = 0;
    while !stop.asked() {
        match listener.accept() {
            Ok((stream, _)) => {
                number += 1;
                start(&hub, stream, number).unwrap_or_else(|error| refused(&error));
            }
            Err(error) => refused(&error),
        }
    }
    // Each thread ends with its connection.
    lock(&hub.peers).values().for_each(|peer| peer.close());
    Totals { deliveries: hub.deliveries.load(Ordering::Relaxed) }
}

/// Nothing panics while it holds one of the locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder has panicked")
}

fn start(hub: &Arc<Hub>, stream: TcpStream, number: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let peer = Arc::new(Peer { number, stream, queued: Mutex::default(), news: Condvar::new() });
    lock(&hub.peers).insert(number, Arc::clone(&peer));
    let named = |name: &str| thread::Builder::new().name(name.into()).stack_size(STACK_BYTES);
    let (of_reader, of_writer) = ((Arc::clone(hub), Arc::clone(&peer)), Arc::clone(&peer));
    let threads =
        named("writer").spawn(move || of_writer.write()).and_then(|_| named("reader").spawn(move || of_reader.0.read(&of_reader.1)));
    threads.map(drop).inspect_err(|_| {
        let mut bye = Vec::new();
        words::pack(&[NO_THREAD], &mut bye);
        // It is turned away either way.
        let _ = (&peer.stream).write_all(&bye);
        peer.close();
        lock(&hub.peers).remove(&number);
    })
}

impl Peer {
    fn push(&self, frame: Frame) -> bool {
        let mut queued = lock(&self.queued);
        if queued.closed {
            return false;
        }
        let was_empty = queued.mailbox.is_empty();
        let taken = queued.mailbox.push(frame).is_ok();
        drop(queued);
        if !taken {
            self.close();
        } else if was_empty {
            self.news.notify_one();
        }
        taken
    }

    fn close(&self) {
        lock(&self.queued).closed = true;
        self.news.notify_one();
        // It may have ended by itself.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The thread that writes: what is queued while it writes is the next write.
    fn write(&self) {
        loop {
            let mut queued = lock(&self.queued);
            while queued.mailbox.is_empty() && !queued.closed {
                queued = self.news.wait(queued).expect("no holder has panicked");
            }
            if queued.closed {
                return;
            }
            let frames = queued.mailbox.take(SLICES_MAX);
            drop(queued);
            if write_all(&self.stream, &frames).is_err() {
                return self.close();
            }
        }
    }
}

fn write_all(mut stream: &TcpStream, frames: &[Frame]) -> io::Result<()> {
    if let [only] = frames {
        return stream.write_all(only);
    }
    let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match stream.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Hub {
    /// The thread that reads: the whole life of a connection.
    fn read(&self, peer: &Arc<Peer>) {
        let (mut tail, mut buffer, mut joined) = (Tail::default(), [0; READ_BYTES], Vec::new());
        loop {
            match (&peer.stream).read(&mut buffer) {
                Ok(count) if count > 0 => {
                    if tail.feed(&buffer[..count], |json| self.on_request(peer, json, &mut joined)).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        peer.close();
        joined.iter().for_each(|room| lock(room).retain(|member| !Arc::ptr_eq(member, peer)));
        lock(&self.peers).remove(&peer.number);
    }

    fn on_request(&self, peer: &Arc<Peer>, json: &[u8], joined: &mut Vec<Room>) -> Result<(), Over> {
        match Request::read(json).ok_or(Over)? {
            Request::Hello { user } => {
                joined.push(self.join(peer, &words::inbox(user)));
                peer.push(pack(&[words::WELCOME]));
            }
            Request::Join { id, room } => {
                joined.push(self.join(peer, room));
                peer.push(pack(&words::joined(id, room)));
            }
            Request::Send { id, room, body } => {
                peer.push(pack(&words::sent(id, room)));
                self.relay(room, &pack(&words::message(room, body)));
            }
            Request::Ping => {
                peer.push(pack(&[words::PONG]));
            }
        }
        Ok(())
    }

    fn relay(&self, name: &[u8], frame: &Frame) {
        let Some(room) = self.room(name) else { return };
        let members = lock(&room);
        let taken = members.iter().map(|member| u64::from(member.push(Arc::clone(frame)))).sum();
        self.deliveries.fetch_add(taken, Ordering::Relaxed);
    }

    fn room(&self, name: &[u8]) -> Option<Room> {
        self.rooms.read().expect("no holder has panicked").get(name).cloned()
    }

    fn join(&self, peer: &Arc<Peer>, name: &[u8]) -> Room {
        let room = self.room(name).unwrap_or_else(|| {
            let mut rooms = self.rooms.write().expect("no holder has panicked");
            Arc::clone(rooms.entry(name.into()).or_default())
        });
        lock(&room).push(Arc::clone(peer));
        room
    }
}

fn pack(parts: &[&[u8]]) -> Frame {
    let mut packed = Vec::with_capacity(512);
    words::pack(parts, &mut packed);
    packed.into()
}
