//! The keeper: a small process that holds devices open for as long as a profile is in force, and puts everything back when its time is over.
//!
//! The kernel takes a wish at such a device for as long as it is open, so the end of the keeper, however it comes, reverts it. It is started by `apply`,
//! has no terminal, and ends by SIGTERM from `revert` or at its deadline (`--for`), when it reverts all the rest as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use nix::sys::signal::{Signal as Kill, kill};
use nix::unistd::Pid;

use crate::sys::{clock, signals};

use super::apply::Work;
use super::journal::{self, Change, Keeper, State, Story};
use super::machine::{Machine, Place};

/// What the keeper says when it holds everything.
const READY: &str = "holding";
/// For the keeper to come up, and to go.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A keeper to be started.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    pub machine: &'a Machine,
    pub state: &'a Path,
    pub held: &'a [Change],
    pub until_unix_ms: Option<u64>,
}

/// Starts a keeper and waits until it holds everything.
pub fn start(start: &Start<'_>) -> Result<Keeper, String> {
    let program = std::env::current_exe().map_err(|why| format!("can't find this program: {why}"))?;
    let mut command = Command::new(program);
    command.args(["tune", "keep", "--state"]).arg(start.state).arg("--root").arg(start.machine.root());
    if let Some(until) = start.until_unix_ms {
        command.arg("--until").arg(until.to_string());
    }
    for change in start.held {
        if let Place::Held(path) = &change.place {
            command.arg("--hold").arg(format!("{path}={}", change.new));
        }
    }
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = spawned.map_err(|why| format!("can't start the keeper: {why}"))?;
    let said = child.stdout.take().map(first_line).unwrap_or_default();
    if said.trim() != READY {
        // It has ended or hangs; either way it must not stay.
        let _ = child.kill();
        let _ = child.wait();
        return Err(if said.is_empty() { "the keeper ended or said nothing".to_owned() } else { said.trim().to_owned() });
    }
    let pid = i32::try_from(child.id()).map_err(|_| "the keeper's process id is out of range".to_owned())?;
    Ok(Keeper { pid, started: started(pid).unwrap_or(0) })
}

/// The first line within the patience.
fn first_line(out: std::process::ChildStdout) -> String {
    let (tell, told) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        let _ = tell.send(line);
    });
    told.recv_timeout(PATIENCE).unwrap_or_default()
}

/// When a process was started, in ticks since boot (proc(5), stat, field 22); none: no such process.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1;
    let state = fields.split_whitespace().next()?;
    if state == "Z" {
        return None;
    }
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Whether this very keeper still runs.
pub fn alive(keeper: Keeper) -> bool {
    started(keeper.pid) == Some(keeper.started)
}

/// Ends a keeper, if it is still the same process.
pub fn stop(keeper: Keeper) -> Result<(), String> {
    if !alive(keeper) || u32::try_from(keeper.pid).is_ok_and(|pid| pid == std::process::id()) {
        return Ok(());
    }
    let pid = Pid::from_raw(keeper.pid);
    kill(pid, Kill::SIGTERM).map_err(|errno| format!("can't end the keeper (process {}): {}", keeper.pid, errno.desc()))?;
    let end = Instant::now() + PATIENCE;
    while alive(keeper) {
        if Instant::now() >= end {
            let _ = kill(pid, Kill::SIGKILL);
            return Err(format!("the keeper (process {}) did not end when asked: killed", keeper.pid));
        }
        std::thread::park_timeout(LOOK_AGAIN);
    }
    Ok(())
}

/// What a keeper is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    pub state: PathBuf,
    #[arg(long, default_value = "/")]
    pub root: PathBuf,
    /// PATH=VALUE
    #[arg(long)]
    pub hold: Vec<String>,
    /// Milliseconds since 1970
    #[arg(long)]
    pub until: Option<u64>,
}

/// The keeper's life: hold, say so, wait, put back.
pub fn run(args: &Args) -> Result<(), String> {
    // A session of its own: the terminal's end is not its end.
    let _ = nix::unistd::setsid();
    let (news, signals) = crossbeam_channel::bounded(4);
    signals::install(news).map_err(|why| format!("signals: {why}"))?;
    let held = args.hold.iter().map(|text| hold(&args.root, text)).collect::<Result<Vec<File>, String>>()?;
    // Whoever started it reads this one line and goes.
    let _ = writeln!(io::stdout(), "{READY}");
    let _ = io::stdout().flush();
    let over = wait(args, &signals);
    drop(held);
    if over { put_back(args) } else { Ok(()) }
}

/// Waits for the end: true when its time is over, false when it was told to go or nothing is in force any more.
///
/// An apply that was killed before it wrote its keeper down leaves one that nobody knows: it looks now and then whether the journal names it.
fn wait(args: &Args, signals: &crossbeam_channel::Receiver<signals::Signal>) -> bool {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    loop {
        let left = args.until.map_or(PATIENCE, |until| Duration::from_millis(until.saturating_sub(clock::unix_ms())));
        match signals.recv_timeout(left.min(PATIENCE)) {
            Ok(signals::Signal::Reload) => {}
            Ok(signals::Signal::Drain | signals::Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) if args.until.is_some_and(|until| clock::unix_ms() >= until) => return true,
            Err(RecvTimeoutError::Timeout) => {
                let story = journal::story(&args.state).ok().flatten();
                if story.and_then(|story| story.keeper).is_none_or(|keeper| keeper.pid != me) {
                    return false;
                }
            }
        }
    }
}

fn hold(root: &Path, text: &str) -> Result<File, String> {
    let (path, value) = text.split_once('=').ok_or_else(|| format!("{text}: PATH=VALUE"))?;
    let value: i32 = value.parse().map_err(|_| format!("{value} is no whole number"))?;
    let path = root.join(path);
    let failed = |why: io::Error| format!("{}: {why}", path.display());
    let mut file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
    file.write_all(&value.to_ne_bytes()).map_err(failed)?;
    Ok(file)
}

/// The time is over: what was written goes back as well. Somebody may just be reverting it; then there is nothing to do.
fn put_back(args: &Args) -> Result<(), String> {
    let machine = Machine::new(&args.root, None);
    let end = Instant::now() + PATIENCE;
    let state = loop {
        match State::lock(&args.state) {
            Ok(state) => break state,
            Err(_) if Instant::now() < end => std::thread::park_timeout(LOOK_AGAIN),
            Err(why) => return Err(why.to_string()),
        }
    };
    let own = |story: &Story| story.until_unix_ms == args.until;
    if !state.story().map_err(|why| why.to_string())?.as_ref().is_some_and(own) {
        return Ok(());
    }
    let work = Work { machine: &machine, state: &state, now_unix_ms: clock::unix_ms() };
    work.revert(&mut |_| true).map(drop).map_err(|why| why.to_string())
}
