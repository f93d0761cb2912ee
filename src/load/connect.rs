//! Opening connections: the probe that reads the server's limits before any load, the sockets of the run, and the thread that opens more of them while
//! the load goes on.
//!
//! Plain blocking calls with deadlines: connecting is not what is measured at the microsecond. Connections come from the source addresses given, in turn;
//! without any, connections beyond [`PORTS_PER_SOURCE`] to a loopback address come from further addresses of 127.0.0.0/8.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::clock::monotonic_ns;
use crate::sys::sockets::bind_source;

use super::body::USERS_MAX;
use super::dialect::{Dialect, Event, Login, Tail};
use super::plan::{PORTS_PER_SOURCE, Plan, ServerLimits};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections asked for and not yet made.
const WANTED_MAX: usize = 1_024;

/// Connects number `connection` of the run.
pub fn open(plan: &Plan, connection: u32) -> io::Result<TcpStream> {
    let address = plan.wish().address;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source_of(plan, connection) {
        bind_source(&socket, source)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&address.into(), CONNECT_TIMEOUT)?;
    Ok(TcpStream::from(socket))
}

fn source_of(plan: &Plan, connection: u32) -> Option<IpAddr> {
    let sources = &plan.wish().sources;
    if !sources.is_empty() {
        let number = usize::try_from(connection).expect("a u32 fits a usize here");
        return Some(sources[number % sources.len()]);
    }
    let block = u8::try_from(connection / PORTS_PER_SOURCE).unwrap_or(u8::MAX);
    match plan.wish().address.ip() {
        IpAddr::V4(v4) if v4.is_loopback() && block > 0 => Some(Ipv4Addr::new(127, 0, 1, block).into()),
        _ => None,
    }
}

/// Why a connection could not be made, in a word or two.
pub fn kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
        io::ErrorKind::AddrNotAvailable => "no source port left",
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no way there",
        _ if error.raw_os_error() == Some(libc::EMFILE) => "descriptor limit",
        _ => "other",
    }
}

/// A connection made by the [`Connector`].
#[derive(Debug)]
pub struct Made {
    pub link: usize,
    pub result: Result<OwnedFd, &'static str>,
    pub took_ns: u64,
}

/// A thread that connects, so that a worker never waits for it.
#[derive(Debug)]
pub struct Connector {
    wanted: Sender<(usize, u32)>,
    made: Receiver<Made>,
}

impl Connector {
    /// Ends when it is dropped; what is being connected then is at most [`CONNECT_TIMEOUT`] late.
    pub fn start(plan: std::sync::Arc<Plan>) -> io::Result<Self> {
        let (wanted, orders) = bounded::<(usize, u32)>(WANTED_MAX);
        let (results, made) = bounded(WANTED_MAX);
        let body = move || {
            for (link, connection) in orders {
                let start_ns = monotonic_ns();
                let result = open(&plan, connection).map(OwnedFd::from).map_err(|error| kind(&error));
                if results.send(Made { link, result, took_ns: monotonic_ns() - start_ns }).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("load-connect".into()).spawn(body)?;
        Ok(Self { wanted, made })
    }

    /// Asks for a connection; false when as many as may be are waiting.
    pub fn want(&self, link: usize, connection: u32) -> bool {
        self.wanted.try_send((link, connection)).is_ok()
    }

    pub fn made(&self) -> Option<Made> {
        self.made.try_recv().ok()
    }
}

/// Why the server can't be used.
#[derive(Debug)]
pub enum ProbeError {
    Unreachable(io::Error),
    /// It answered with something else than a welcome.
    NotWelcome(String),
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "server unreachable: {error}"),
            Self::NotWelcome(what) => write!(f, "the server did not welcome a login: {what}"),
        }
    }
}

/// Logs in once, reads the limits, says goodbye.
pub fn probe(address: SocketAddr, dialect: &mut Dialect) -> Result<ServerLimits, ProbeError> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(ProbeError::Unreachable)?;
    // The last user number: no connection of the plan has it.
    let mut hello = Vec::new();
    dialect.login(&Login { connection: USERS_MAX - 1, rooms: &[], inbox: false }, &mut hello);
    stream.write_all(&hello).map_err(ProbeError::Unreachable)?;
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let (mut tail, mut buffer, mut answer) = (Tail::default(), [0; 4096], None);
    while answer.is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ProbeError::NotWelcome(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())));
        }
        stream.set_read_timeout(Some(left)).map_err(ProbeError::Unreachable)?;
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err(ProbeError::NotWelcome("it closed the connection".into())),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => continue,
            Err(error) => return Err(ProbeError::NotWelcome(error.to_string())),
        };
        let cut = dialect.decode(&mut tail, &buffer[..count], &mut |event| {
            answer.get_or_insert_with(|| match event {
                Event::Welcome(limits) => Ok(*limits),
                Event::Bye { reason } | Event::Refused { reason, .. } => Err(reason),
                other => Err(format!("{other:?}").chars().take(100).collect()),
            });
        });
        cut.map_err(|broken| ProbeError::NotWelcome(format!("not its protocol: {}", broken.0)))?;
    }
    // Only a courtesy; the limits are known.
    let mut bye = Vec::new();
    dialect.goodbye(&mut bye);
    let _ = stream.write_all(&bye);
    answer.expect("the loop ends with an answer").map_err(ProbeError::NotWelcome)
}
