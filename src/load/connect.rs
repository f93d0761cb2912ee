//! Opening connections: the probe that reads the server's limits before any load, and the sockets of the run.
//!
//! Plain blocking calls with deadlines: connecting is not what is measured at the microsecond. Connections beyond [`PER_SOURCE_MAX`] to a
//! loopback address come from further addresses of 127.0.0.0/8, since one source has about 28,000 ports.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::body::USERS_MAX;
use super::dialect::{Dialect, Event, Login, Tail};
use super::plan::ServerLimits;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections from one loopback address.
const PER_SOURCE_MAX: u32 = 20_000;

/// Connects number `connection` of the run and writes its first packet.
pub fn open(address: SocketAddr, connection: u32, first_packet: &[u8]) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source_of(address, connection) {
        socket.bind(&SocketAddr::new(source.into(), 0).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&address.into(), CONNECT_TIMEOUT)?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(first_packet)?;
    Ok(stream.into())
}

fn source_of(address: SocketAddr, connection: u32) -> Option<Ipv4Addr> {
    let block = u8::try_from(connection / PER_SOURCE_MAX).unwrap_or(u8::MAX);
    match address.ip() {
        IpAddr::V4(v4) if v4.is_loopback() && block > 0 => Some(Ipv4Addr::new(127, 0, 1, block)),
        _ => None,
    }
}

/// Why the server can't be used.
#[derive(Debug)]
pub enum ProbeError {
    Unreachable(io::Error),
    /// It answered with something else than `welcome`.
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

/// Logs in once, reads the limits, says `bye`.
pub fn probe(address: SocketAddr, dialect: &mut Dialect) -> Result<ServerLimits, ProbeError> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map_err(ProbeError::Unreachable)?;
    // The last user number: no connection of the plan uses it together with this one for long.
    let mut hello = Vec::new();
    dialect.login(&Login { connection: USERS_MAX - 1, rooms: &[], inbox: false }, &mut hello);
    stream.write_all(&hello).map_err(ProbeError::Unreachable)?;
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let (mut tail, mut buffer, mut answer) = (Tail::default(), [0; 4096], None);
    while answer.is_none() {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).map_err(ProbeError::Unreachable)?;
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err(ProbeError::NotWelcome("it closed the connection".into())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
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
