//! What `ringroom serve` says and how it ends. When it can't start: one line that names the trouble and the fix, and the documented exit code.
//! When it can: one line when it is ready, and the end that a signal asks for.
//!
//! Runs the real program. Waits end with what is waited for; a server that hangs fails its test at a deadline and is killed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

/// Long beyond doubt: only a server that hangs gets there.
const PATIENCE: Duration = Duration::from_secs(30);

fn ringroom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn serve(args: &[&str]) -> Output {
    ringroom().arg("serve").args(args).output().unwrap()
}

/// The program under a shell's limits.
fn limited(limits: &str) -> Output {
    let script = format!("{limits} && exec \"$0\" serve --shards 1 --listen 127.0.0.1:0");
    Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_ringroom")]).stdin(Stdio::null()).output().unwrap()
}

/// Ended with this code and one line on standard error that has these words.
#[track_caller]
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let line = said.lines().find(|line| line.starts_with("ringroom: ")).unwrap_or_default();
    assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {said:?}");
    let others = said.lines().filter(|line| !line.starts_with('[') && !line.starts_with("ringroom: "));
    assert_eq!(others.count(), 0, "one line: {said}");
    assert!(output.stdout.is_empty());
}

/// A server that runs, and its lines as they come; killed when dropped.
struct Server {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = ringroom().arg("serve").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, stdout, stderr }
    }

    fn ready_line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill {name} {}", self.child.id())]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit code, once both of its streams have ended.
    fn end(mut self) -> Option<i32> {
        for stream in [&self.stdout, &self.stderr] {
            while stream
                .recv_timeout(PATIENCE)
                .inspect_err(|error| assert_eq!(*error, std::sync::mpsc::RecvTimeoutError::Disconnected))
                .is_ok()
            {}
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `end` there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1_024);
    thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| drop(sender.try_send(line))));
    receiver
}

/// The addresses that a ready line names.
fn addresses(ready: &str) -> Vec<SocketAddr> {
    let list = ready.strip_prefix("ringroom ready on ").and_then(|rest| rest.split_once(": ")).unwrap().0;
    list.split(", ").map(|address| address.parse().unwrap()).collect()
}

fn config_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_bad_command_line_is_64_and_help_is_0() {
    for args in
        [&[][..], &["--nope"], &["serve", "--shards", "x"], &["serve", "--cpus", "3-1"], &["serve", "--listen", "localhost:1"], &["nope"]]
    {
        assert_eq!(ringroom().args(args).output().unwrap().status.code(), Some(64), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        let output = ringroom().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn the_help_lists_the_exit_codes() {
    let help = String::from_utf8(serve(&["--help"]).stdout).unwrap();
    for code in [0, 64, 66, 69, 70, 71, 74, 75, 77, 78] {
        assert!(help.contains(&format!("\n  {code:>2}  ")), "{code} in {help}");
    }
}

#[test]
fn a_bad_config_names_file_line_and_key() {
    let file = config_file("[server]\nshards = 1\nspeed = 9\n");
    let path = file.path().to_str().unwrap();
    assert_refused(&serve(&["--config", path]), 64, &[&format!("{path}:3: server.speed"), "no such key"]);
    let file = config_file("[limits]\nheartbeat_ms = 10\n");
    assert_refused(&serve(&["--config", file.path().to_str().unwrap()]), 64, &[":2: limits.heartbeat_ms", "1000"]);
    assert_refused(&serve(&["--shards", "300"]), 64, &["--shards", "256"]);
    assert_refused(&serve(&["--listen", "0.0.0.0:0"]), 64, &["insecure_open"]);
}

#[test]
fn an_unreadable_config_is_66() {
    assert_refused(&serve(&["--config", "/nonexistent/ringroom.toml"]), 66, &["/nonexistent/ringroom.toml"]);
}

#[test]
fn the_printed_config_is_one_that_the_server_reads() {
    let first = serve(&["--shards", "3", "--listen", "127.0.0.1:9", "--listen", "[::1]:9", "--print-config"]);
    assert_eq!(first.status.code(), Some(0));
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(text.contains("\nshards = 3\n") && text.contains("\nlisten = [\"127.0.0.1:9\", \"[::1]:9\"]\n"), "{text}");
    let file = config_file(&text);
    let again = serve(&["--config", file.path().to_str().unwrap(), "--print-config"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
    let flagged = serve(&["--config", file.path().to_str().unwrap(), "--shards", "2", "--print-config"]);
    assert!(String::from_utf8(flagged.stdout).unwrap().contains("\nshards = 2\n"));
}

#[test]
fn a_port_in_use_is_69_even_when_its_owner_would_share_it() {
    let owner = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = owner.local_addr().unwrap().to_string();
    assert_refused(&serve(&["--listen", &address]), 69, &[&address, "uses the port", "ss -ltnp"]);
    drop(owner);
    // SO_REUSEPORT on both sides would let a second server in silently.
    let owner = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    owner.set_reuse_port(true).unwrap();
    owner.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    owner.listen(1).unwrap();
    let address = owner.local_addr().unwrap().as_socket().unwrap().to_string();
    assert_refused(&serve(&["--listen", "127.0.0.1:0", "--listen", &address]), 69, &[&address, "uses the port"]);
}

#[test]
fn an_address_of_another_host_is_69() {
    let file = config_file("[server]\nlisten = [\"192.0.2.1:7777\"]\n[auth]\ninsecure_open = true\n");
    assert_refused(&serve(&["--config", file.path().to_str().unwrap()]), 69, &["192.0.2.1:7777", "no interface"]);
}

#[test]
fn too_few_descriptors_are_71() {
    assert_refused(&limited("ulimit -n 80"), 71, &["open files", "ulimit -n", "80"]);
    let file = config_file("[limits]\nconnections_max = 4_000_000_000\n");
    let few = serve(&["--shards", "1", "--listen", "127.0.0.1:0", "--config", file.path().to_str().unwrap()]);
    assert_refused(&few, 71, &["4000000000 connections", "connections_max"]);
}

#[test]
fn too_little_locked_memory_is_71() {
    assert_refused(&limited("ulimit -l 64"), 71, &["64 KiB", "ulimit -l 512"]);
}

#[test]
fn a_cpu_that_is_not_there_is_74() {
    assert_refused(&serve(&["--cpus", "1023"]), 74, &["CPU 1023", "--cpus"]);
}

/// Denies io_uring_setup(2) (425 on every architecture) as a container's seccomp profile does, then becomes the program.
const WITHOUT_IO_URING: &str = "
import ctypes, os, struct, sys
errno, program = int(sys.argv[1]), sys.argv[2:]
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | errno), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *rule) for rule in rules))
filter = struct.pack('HxxxxxxQ' if struct.calcsize('P') == 8 else 'HxxI', len(rules), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, 'PR_SET_NO_NEW_PRIVS'
assert libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0) == 0, 'PR_SET_SECCOMP'
os.execv(program[0], program)
";

#[test]
fn a_kernel_without_io_uring_is_78() {
    for (errno, words) in [("1", ["seccomp", "io_uring_setup"]), ("38", ["no io_uring", "6.1"])] {
        let mut command = Command::new("python3");
        command.args(["-c", WITHOUT_IO_URING, errno, env!("CARGO_BIN_EXE_ringroom"), "serve", "--shards", "1", "--listen", "127.0.0.1:0"]);
        assert_refused(&command.stdin(Stdio::null()).output().unwrap(), 78, &words);
    }
}

#[test]
fn a_ready_server_takes_connections_on_every_address_it_names() {
    let server = Server::start(&["--shards", "2", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    let ready = server.ready_line();
    assert!(ready.contains(": 2 shards ") && ready.contains("io_uring: "), "{ready}");
    let addresses = addresses(&ready);
    assert_eq!(addresses.len(), 2);
    for address in &addresses {
        TcpStream::connect(address).unwrap();
    }
    let second = serve(&["--listen", &addresses[1].to_string()]);
    assert_refused(&second, 69, &[&addresses[1].to_string(), "another ringroom"]);
    server.signal("-TERM");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn either_signal_ends_it_and_a_hangup_does_not() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::start(&["--shards", "1", "--listen", "127.0.0.1:0"]);
        server.ready_line();
        server.signal("-HUP");
        // Its answer is the proof that the hangup came first.
        while !server.stderr.recv_timeout(PATIENCE).unwrap().contains("settings read again; changed: nothing") {}
        server.signal(signal);
        assert_eq!(server.end(), Some(0), "{signal}");
    }
}

#[test]
fn more_shards_than_cpus_start_with_a_warning() {
    let shards = (ringroom::sys::affinity::available().unwrap().len() + 1).to_string();
    let server = Server::start(&["--shards", &shards, "--listen", "127.0.0.1:0"]);
    assert!(server.ready_line().contains(&format!("{shards} shards not pinned")));
    assert!(server.stderr.recv_timeout(PATIENCE).unwrap().contains("none is pinned"));
    server.signal("-TERM");
    assert_eq!(server.end(), Some(0));
}
