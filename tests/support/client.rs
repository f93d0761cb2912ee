//! A client of the TCP transport: a 4-byte big-endian length, then one JSON object.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;

/// One frame of this text.
pub(crate) fn frame(json: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

/// The first word of a user.
pub(crate) fn hello(user: &str) -> String {
    json!({"type": "hello", "version": 1, "user": user}).to_string()
}

thread_local! {
    /// The connections that this thread's test has made.
    static MADE: RefCell<Vec<Weak<TcpStream>>> = const { RefCell::new(Vec::new()) };
}

/// Closes what this thread's test still has open, so that the server need not wait for it.
pub(crate) fn hang_up_all() {
    for stream in MADE.take().iter().filter_map(Weak::upgrade) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// One connection. Reading past the end, or for longer than [`PATIENCE`], fails the test.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: Arc<TcpStream>,
    unread: Vec<u8>,
}

impl Client {
    /// Connected, and nothing said.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
    }

    /// Connected with a small receive buffer, so that a reader that stops is soon felt.
    pub(crate) fn connect_narrow(address: SocketAddr, receive_bytes: usize) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(receive_bytes).unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).unwrap();
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let stream = Arc::new(stream);
        MADE.with_borrow_mut(|made| made.push(Arc::downgrade(&stream)));
        Self { stream, unread: Vec::new() }
    }

    /// Logged in.
    #[track_caller]
    pub(crate) fn login(address: SocketAddr, user: &str) -> Self {
        let mut client = Self::connect(address);
        client.say(&hello(user));
        client.expect("welcome");
        client
    }

    /// Logged in and a member of a room.
    #[track_caller]
    pub(crate) fn member(address: SocketAddr, user: &str, room: &str) -> Self {
        let mut client = Self::login(address, user);
        client.join(room);
        client
    }

    #[track_caller]
    pub(crate) fn join(&mut self, room: &str) -> Value {
        self.say(&json!({"type": "join", "room": room}).to_string());
        self.expect("joined")
    }

    #[track_caller]
    pub(crate) fn say(&mut self, json: &str) {
        self.raw(&frame(json));
    }

    #[track_caller]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        (&*self.stream).write_all(bytes).unwrap();
    }

    /// As [`Client::raw`], to a server that may already have closed; `false` when it has.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> bool {
        (&*self.stream).write_all(bytes).is_ok()
    }

    #[track_caller]
    pub(crate) fn send(&mut self, room: &str, body: &str) {
        self.say(&format!(r#"{{"type":"send","room":"{room}","body":{body}}}"#));
    }

    /// A round trip: what was asked before is judged when it is over. What came meanwhile is given back.
    #[track_caller]
    pub(crate) fn sync(&mut self) -> Vec<Value> {
        self.say(r#"{"type":"ping","id":987654321}"#);
        let mut before = Vec::new();
        loop {
            let object = self.next();
            if object["type"] == "pong" && object["id"] == 987_654_321 {
                return before;
            }
            before.push(object);
        }
    }

    /// The next object's text; `None` at the end of the stream.
    #[track_caller]
    pub(crate) fn next_text(&mut self) -> Option<String> {
        loop {
            if let Some((header, rest)) = self.unread.split_first_chunk::<4>() {
                let length = usize::try_from(u32::from_be_bytes(*header)).unwrap();
                assert!(length > 0 && length <= 64 * 1024, "a frame of {length} bytes");
                if rest.len() >= length {
                    let text = String::from_utf8(rest[..length].to_vec()).unwrap();
                    self.unread.drain(..4 + length);
                    return Some(text);
                }
            }
            let mut piece = [0; 64 * 1024];
            match (&*self.stream).read(&mut piece) {
                Ok(0) => {
                    assert!(self.unread.is_empty(), "the stream ends in the middle of a frame: {:?}", self.unread);
                    return None;
                }
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("waiting for an object: {error}"),
            }
        }
    }

    /// The next object.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        self.try_next().expect("the server has closed the connection")
    }

    /// The next object; `None` at the end of the stream.
    #[track_caller]
    pub(crate) fn try_next(&mut self) -> Option<Value> {
        self.next_text().map(|text| serde_json::from_str(&text).unwrap())
    }

    /// The next object, which is of this type.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        let object = self.next();
        assert_eq!(object["type"], kind, "{object}");
        object
    }

    /// The next object of this type; others are passed over.
    #[track_caller]
    pub(crate) fn find(&mut self, kind: &str) -> Value {
        loop {
            let object = self.next();
            assert!(object["type"] != "bye" || kind == "bye", "while waiting for {kind}: {object}");
            if object["type"] == kind {
                return object;
            }
        }
    }

    /// All that still comes, up to the end of the stream.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.try_next()).collect()
    }

    /// As [`Client::rest`], with what has come thrown away; a frame may be cut, and a reset ends it too.
    pub(crate) fn read_to_the_end(&mut self) {
        let mut piece = [0; 64 * 1024];
        while let Ok(1..) = (&*self.stream).read(&mut piece) {}
    }

    /// Bytes that were read past this client are read by it after all.
    pub(crate) fn put_back(&mut self, bytes: Vec<u8>) {
        self.unread.splice(0..0, bytes);
    }

    /// The `bye`, which is the last object before the end of the stream; others before it are passed over.
    #[track_caller]
    pub(crate) fn bye(&mut self) -> Value {
        let rest = self.rest();
        assert!(rest.iter().rev().skip(1).all(|object| object["type"] != "bye"), "one bye: {rest:?}");
        let last = rest.last().cloned().expect("the connection was closed without a word");
        assert_eq!(last["type"], "bye", "{last}");
        last
    }

    /// The stream ends, or breaks, without another word.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        let mut piece = [0; 1];
        match (&*self.stream).read(&mut piece) {
            Ok(0) => {}
            Ok(_) => panic!("there is more to read"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }

    /// The stream has ended in an orderly way, and still has after a further word.
    #[track_caller]
    pub(crate) fn assert_orderly_end(&mut self) {
        assert_eq!((&*self.stream).read(&mut [0; 1]).unwrap(), 0);
        assert!(self.stream.take_error().unwrap().is_none());
    }

    /// No more is sent; reading goes on.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
