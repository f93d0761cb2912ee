//! Baselines: small servers built in the usual ways, speaking the words of the protocol that `ringroom load` needs (`support/words.rs`).
//!
//! `threads`: two threads per connection, standard library alone. `tokio` and `glommio`: a task per connection, on one thread. Each does what a careful
//! author would: one encoding per message, bounded queues, TCP_NODELAY, one write for all that is queued. What the server does better than
//! them is what its ring, its slab and its turn buy; where they stand beside it, these buy nothing.
//!
//! Without arguments it shows in a moment that each relays once and in order; `--serve MODEL ADDRESS [--cpu N]` serves until SIGTERM, for scripts.

#[path = "baselines/glommio.rs"]
mod by_glommio;
#[path = "baselines/threads.rs"]
mod by_threads;
#[path = "baselines/tokio.rs"]
mod by_tokio;
#[path = "baselines/hub.rs"]
mod hub;
#[path = "baselines/mailbox.rs"]
mod mailbox;
#[path = "baselines/tail.rs"]
mod tail;
#[path = "support/words.rs"]
mod words;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringroom::sys::affinity::{self, Cpu};
use ringroom::sys::rlimit::{self, Resource};
use ringroom::sys::signals;
use ringroom::sys::sockets::{self, Listen};

/// As in the server.
const NOTSENT_LOWAT_BYTES: u32 = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Threads,
    Tokio,
    Glommio,
}

impl Model {
    const ALL: [Self; 3] = [Self::Threads, Self::Tokio, Self::Glommio];

    fn name(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Tokio => "tokio",
            Self::Glommio => "glommio",
        }
    }
}

/// What a server has done.
#[derive(Clone, Copy, Debug)]
struct Totals {
    deliveries: u64,
}

/// Asked for before the last connection, which only wakes who waits for one.
#[derive(Debug, Default)]
struct Stop(AtomicBool);

impl Stop {
    fn asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A connection that was not taken: the server goes on, and says so at the 1st, 2nd, 4th, 8th ...
fn refused(error: &io::Error) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    if count.is_power_of_two() {
        // With the output gone there is nobody to tell.
        let _ = writeln!(io::stderr(), "baselines: a connection was not taken ({count} so far): {error}");
    }
    if error.raw_os_error() == Some(libc::EMFILE) {
        // The connection stays in the backlog, and asking again at once would only spin.
        thread::sleep(Duration::from_millis(10));
    }
}

/// A server on a thread of its own, and those that it starts.
struct Server {
    address: SocketAddr,
    stop: Arc<Stop>,
    thread: JoinHandle<Totals>,
}

impl Server {
    fn start(model: Model, address: SocketAddr, cpu: Option<Cpu>) -> io::Result<Self> {
        let listener = TcpListener::from(sockets::listener(Listen { address, notsent_lowat_bytes: NOTSENT_LOWAT_BYTES })?);
        listener.set_nonblocking(false)?;
        let address = sockets::local_address(listener.as_fd())?;
        let stop = Arc::new(Stop::default());
        let asked = Arc::clone(&stop);
        let thread = thread::Builder::new().name(model.name().into()).spawn(move || {
            // Threads inherit it.
            cpu.map(affinity::pin_current_thread).transpose().expect("--cpu: a CPU of this process");
            match model {
                Model::Threads => by_threads::run(&listener, &asked),
                Model::Tokio => by_tokio::run(listener, &asked),
                Model::Glommio => by_glommio::run(listener, &asked),
            }
        })?;
        Ok(Self { address, stop, thread })
    }

    fn stop(self) -> Totals {
        self.stop.0.store(true, Ordering::Release);
        // Whether it is accepted or refused, the server has woken.
        drop(TcpStream::connect(self.address));
        self.thread.join().expect("the server's thread does not panic")
    }
}

fn main() {
    // Cargo adds `--bench` of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--serve", model, address] => serve(model, address, None),
        ["--serve", model, address, "--cpu", cpu] => serve(model, address, Some(Cpu(cpu.parse().expect("--cpu takes a number")))),
        // Anything else is a filter for a harness that this bench does not have.
        _ => check(),
    }
}

#[allow(clippy::print_stdout, reason = "a program for scripts")]
fn serve(model: &str, address: &str, cpu: Option<Cpu>) {
    let model = Model::ALL.into_iter().find(|known| known.name() == model).expect("--serve takes threads, tokio or glommio");
    let (news, signals) = crossbeam_channel::bounded(2);
    signals::install(news).expect("signals");
    rlimit::raise(Resource::Files).expect("open files");
    let server = Server::start(model, address.parse().expect("--serve takes an address"), cpu).expect("the server starts");
    println!("{} ready on {}", model.name(), server.address);
    let _ = signals.recv();
    let Totals { deliveries } = server.stop();
    println!("{}: deliveries={deliveries}", model.name());
}

const MEMBERS: usize = 4;
const MESSAGES: usize = 50;

#[allow(clippy::print_stdout, reason = "a bench prints what it has shown")]
fn check() {
    mailbox::check();
    for model in Model::ALL {
        let server = Server::start(model, "127.0.0.1:0".parse().expect("an address"), None).expect("the server starts");
        let expected = room(server.address) + inbox(server.address);
        let totals = server.stop();
        assert_eq!(totals.deliveries, expected, "{}", model.name());
        println!("{}: relayed {} deliveries, each once and in order", model.name(), totals.deliveries);
    }
}

/// Everybody sends to one room of all, many messages in one packet; everybody gets everything once, in one order.
fn room(address: SocketAddr) -> u64 {
    let mut clients: Vec<Client> = (0..MEMBERS).map(|n| Client::login(address, &format!("m{n}"))).collect();
    for client in &mut clients {
        client.say(&[r#"{"type":"join","id":0,"room":"lobby"}"#.into()]);
        assert!(client.hear().starts_with(r#"{"type":"joined","id":0,"room":"lobby""#));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let send = |m| format!(r#"{{"type":"send","id":{m},"room":"lobby","body":"{n}-{m}"}}"#);
        client.say(&(0..MESSAGES).map(send).collect::<Vec<_>>());
    }
    let orders: Vec<Vec<String>> = clients.iter_mut().map(Client::hear_all).collect();
    for order in &orders {
        assert_eq!(order, &orders[0], "all see one order");
        for n in 0..MEMBERS {
            let own: Vec<&String> = order.iter().filter(|body| body.starts_with(&format!(r#""{n}-"#))).collect();
            assert_eq!(own, (0..MESSAGES).map(|m| format!(r#""{n}-{m}""#)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        }
    }
    u64::try_from(MEMBERS * MEMBERS * MESSAGES).expect("a small number")
}

/// A message to a user reaches that user alone, and a ping is answered behind it.
fn inbox(address: SocketAddr) -> u64 {
    let [mut alice, mut bob] = ["alice", "bob"].map(|name| Client::login(address, name));
    alice.say(&[r#"{"type":"send","id":1,"room":"@bob","body":{"x":1}}"#.into(), r#"{"type":"ping","id":1}"#.into()]);
    assert!(alice.hear().starts_with(r#"{"type":"sent","id":1,"room":"@bob""#));
    assert!(alice.hear().starts_with(r#"{"type":"pong""#));
    let heard = bob.hear();
    assert!(heard.starts_with(r#"{"type":"message","room":"@bob""#) && heard.ends_with(r#""body":{"x":1}}"#), "{heard}");
    1
}

/// A client of the check.
struct Client {
    stream: TcpStream,
}

impl Client {
    fn login(address: SocketAddr, user: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut client = Self { stream };
        client.say(&[format!(r#"{{"type":"hello","version":1,"user":"{user}"}}"#)]);
        assert!(client.hear().starts_with(r#"{"type":"welcome""#));
        client
    }

    fn say(&mut self, texts: &[String]) {
        let mut packet = Vec::new();
        texts.iter().for_each(|text| words::pack(&[text.as_bytes()], &mut packet));
        self.stream.write_all(&packet).expect("the server reads");
    }

    fn hear(&mut self) -> String {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).expect("an answer in time");
        let mut text = vec![0; u32::from_be_bytes(header) as usize];
        self.stream.read_exact(&mut text).expect("a whole answer");
        String::from_utf8(text).expect("text")
    }

    /// The bodies of all messages of [`room`], in their order; own sends are answered in order too, each before its message.
    fn hear_all(&mut self) -> Vec<String> {
        let (mut bodies, mut answered) = (Vec::new(), 0);
        while bodies.len() < MEMBERS * MESSAGES || answered < MESSAGES {
            let text = self.hear();
            match text.split_once(r#""body":"#) {
                Some((_, body)) => bodies.push(body.trim_end_matches('}').to_owned()),
                None => {
                    assert!(text.starts_with(&format!(r#"{{"type":"sent","id":{answered},"#)), "{text}");
                    answered += 1;
                }
            }
        }
        bodies
    }
}
