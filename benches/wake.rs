//! What a wake costs when nearly nothing happens: a slow echo, CPU time of the server per ping.
//!
//! A client sends a `ping` now and then, too seldom for two to meet, and reads the `pong`; the server's CPU time over the number of pings is the
//! price of one wake. Compared: the server, the floor (`floor/relay.rs`), and an epoll echo that answers with as many bytes. Each server is a process of its
//! own on CPU 0, the client is on CPU 1, and the three take turns within one run.
//! Tiny form: a few pings each. Long form (`RINGROOM_BENCH=long`): the figures. `RINGROOM_WAKE_HZ` sets the pings per second.
#![allow(unsafe_code, reason = "epoll(7) has no safe face in std")]
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

#[path = "floor/relay.rs"]
mod relay;
mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringroom::load::observe::Process;
use ringroom::sys::affinity::{Cpu, available, pin_current_thread};
use support::Mode;

const HELLO: &str = r#"{"type":"hello","version":1,"user":"wake"}"#;
const PING: &str = r#"{"type":"ping","id":1}"#;
const PONG: &str = r#"{"type":"pong","id":1,"ts":1700000000000}"#;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["--serve", "epoll"] => serve_epoll().expect("an epoll echo"),
        ["--serve", "floor"] => serve_floor(),
        _ => compare(),
    }
}

/// A server in a process of its own, and a client that is logged in.
struct Side {
    name: &'static str,
    child: Child,
    client: TcpStream,
    us_per_wake: Vec<f64>,
}

impl Drop for Side {
    fn drop(&mut self) {
        // Its work is done; what it would say at its end is of no interest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compare() {
    let mode = Mode::get();
    let (rounds, pings) = mode.pick((1, 8), (25, 100));
    let hz: f64 = std::env::var("RINGROOM_WAKE_HZ").map_or(150.0, |text| text.parse().expect("pings per second"));
    let cpus = available().expect("the CPUs of this process");
    // Before this thread is pinned: they inherit its CPUs.
    let mut sides: Vec<Side> = ["epoll", "floor", "ringroom"].into_iter().map(|name| start(name, cpus[0])).collect();
    pin_current_thread(cpus[cpus.len() - 1]).expect("a CPU of this process");
    for side in &mut sides {
        // Once round the receive buffers: what is touched for the first time is paid once in a server's life.
        (0..mode.pick(16, 2_200)).for_each(|_| ping(&mut side.client));
    }
    for _ in 0..rounds {
        for side in &mut sides {
            let spent = measure(side, pings, Duration::from_secs_f64(1.0 / hz));
            side.us_per_wake.push(spent);
        }
    }
    println!("wake mode={mode:?} pings_per_s={hz} pings={pings} rounds={rounds} bytes={}->{}", PING.len() + 4, PONG.len() + 4);
    let measure = sides[0].us_per_wake.clone();
    for side in &mut sides {
        // Per round, so that what was slow for all of them cancels.
        let mut ratios: Vec<f64> = side.us_per_wake.iter().zip(&measure).map(|(own, epoll)| own / epoll).collect();
        let ([low, median, high], [ratio_low, ratio, ratio_high]) = (quartiles(&mut side.us_per_wake), quartiles(&mut ratios));
        println!(
            "  {:<9} {median:>7.2} us CPU per wake (half of the rounds: {low:.2} .. {high:.2})  {ratio:.2} x epoll ({ratio_low:.2} .. {ratio_high:.2})",
            side.name
        );
    }
}

fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// Server CPU per ping in microseconds.
fn measure(side: &mut Side, pings: u32, gap: Duration) -> f64 {
    let process = Process { pid: side.child.id() };
    // The first ones after the other servers' turn find cold caches.
    for _ in 0..4 {
        ping(&mut side.client);
        std::thread::sleep(gap);
    }
    let before = process.cpu_ns().expect("schedstat");
    let start = Instant::now();
    for done in 1..=pings {
        ping(&mut side.client);
        std::thread::sleep((gap * done).saturating_sub(start.elapsed()));
    }
    let spent = process.cpu_ns().expect("schedstat") - before;
    spent as f64 / 1e3 / f64::from(pings)
}

fn ping(client: &mut TcpStream) {
    say(client, PING);
    let answer = hear(client);
    assert!(answer.starts_with(r#"{"type":"pong","id":1,"ts":"#) && answer.len() == PONG.len(), "{answer}");
}

fn start(name: &'static str, cpu: Cpu) -> Side {
    let mut command = match name {
        "ringroom" => {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
            command.args(["serve", "--listen", "127.0.0.1:0", "--shards", "1", "--cpus", &cpu.to_string(), "--log-level", "error"]);
            command
        }
        other => {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["--serve", other]).env("RINGROOM_WAKE_CPU", cpu.to_string());
            command
        }
    };
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a server");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line when it is ready");
    let address = line.split_once("ready on ").and_then(|(_, rest)| rest.split([':', ' ', '\n']).nth(1)).expect("an address in the line");
    let client = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], address.parse().expect("a port")))).expect("the server accepts");
    let mut side = Side { name, child, client, us_per_wake: Vec::new() };
    side.client.set_nodelay(true).expect("no delay");
    side.client.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    say(&mut side.client, HELLO);
    assert!(hear(&mut side.client).starts_with(r#"{"type":"welcome""#));
    side
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(&framed(text)).expect("the server reads");
}

fn framed(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("a small frame");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn hear(stream: &mut TcpStream) -> String {
    let mut header = [0; 4];
    stream.read_exact(&mut header).expect("an answer in time");
    let mut text = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut text).expect("a whole answer");
    String::from_utf8(text).expect("text")
}

fn own_cpu() -> Cpu {
    Cpu(std::env::var("RINGROOM_WAKE_CPU").expect("set by the parent").parse().expect("a number"))
}

fn serve_floor() {
    let relay = relay::Relay::start(SocketAddr::from(([127, 0, 0, 1], 0)), Some(own_cpu().index())).expect("the floor starts");
    println!("floor ready on {}", relay.address);
    // The parent ends this process.
    loop {
        std::thread::park();
    }
}

/// The usual way: epoll_wait, read, write; `pong` for `ping` and a `welcome` first.
fn serve_epoll() -> io::Result<()> {
    pin_current_thread(own_cpu())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("epoll ready on {}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    // SAFETY: makes a descriptor, touches no memory.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    assert!(epoll >= 0, "epoll_create1: {}", io::Error::last_os_error());
    // SAFETY: just made by the call above and known to nobody else.
    let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
    watch(epoll.as_raw_fd(), stream.as_raw_fd());
    let (welcome, pong) = (framed(r#"{"type":"welcome"}"#), framed(PONG));
    let mut buffer = [0; 2048];
    let mut greeted = false;
    loop {
        wait(epoll.as_raw_fd());
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(if greeted { &pong } else { &welcome })?;
        greeted = true;
    }
}

fn watch(epoll: RawFd, fd: RawFd) {
    let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
    // SAFETY: both descriptors are the caller's and open; `event` is read during the call only.
    let result = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    assert_eq!(result, 0, "epoll_ctl: {}", io::Error::last_os_error());
}

fn wait(epoll: RawFd) {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: room for the one event that is asked for; interrupted waits come back to the read, which then blocks in the next turn.
    let count = unsafe { libc::epoll_wait(epoll, &raw mut event, 1, -1) };
    assert!(count == 1, "epoll_wait: {}", io::Error::last_os_error());
}
