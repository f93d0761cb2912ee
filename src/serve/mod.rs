//! `ringroom serve`: from flags to a running server, and to its exit code.
//!
//! Owns the order of starting and stopping: settings, log, checks, signals, shards. Decides nothing about chat. Everything that can be found wrong
//! is found before the first client is accepted, and said in one line: what, the likely cause, the fix; the exit code tells the kind (`exit`).

use std::io::Write;
use std::process::ExitCode;

use crate::config::{self, Settings};
use crate::sys::signals;

mod args;
mod assembly;
pub mod checks;
pub mod exit;
mod plane;
mod reload;
mod takeover;

pub use args::Args;
pub use checks::{Plan, Start, check};

/// A drain, a stop, and some to spare: with more, the process ends by itself.
const SIGNALS_WAITING: usize = 4;

/// Why the server did not start, or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// One of [`exit`].
    pub exit: u8,
    /// One line: what, the likely cause, the fix.
    pub message: String,
}

impl StartError {
    pub fn new(exit: u8, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// The command: everything from the flags to the end of the process.
pub fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Straight to standard error: the log may be off, and this line is the answer to the command.
            let _ = writeln!(std::io::stderr(), "ringroom: {error}");
            ExitCode::from(error.exit)
        }
    }
}

fn try_run(args: &Args) -> Result<(), StartError> {
    let settings = args.settings()?;
    if args.print_config {
        return put(&config::print(&settings));
    }
    start_log(&settings, args.log_level);
    // Before any thread: none may meet a signal with its default action.
    let (news, signals) = crossbeam_channel::bounded(SIGNALS_WAITING);
    signals::install(news.clone()).map_err(|why| StartError::new(exit::INTERNAL, format!("can't take over the signals: {why}")))?;
    let start = if args.takeover { Start::Takeover } else { Start::Fresh };
    let mut plan = check(&settings, start)?;
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
    let server = assembly::Server::start(&settings, &mut plan, news)?;
    put(&plan.ready_line())?;
    if let Some(takeover) = plan.takeover.take() {
        takeover.start().map_err(|why| StartError::new(exit::INTERNAL, format!("the thread of the takeover: {why}")))?;
    }
    server.watch(&signals, &|| args.settings())
}

/// Writes to standard output; a closed pipe is no failure of ours.
fn put(text: &str) -> Result<(), StartError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(StartError::new(exit::INTERNAL, format!("can't write to standard output: {why}")))
        }
        _ => Ok(()),
    }
}

/// The flag wins over RUST_LOG, which wins over the file.
fn start_log(settings: &Settings, flag: Option<log::LevelFilter>) {
    let mut builder = env_logger::Builder::new();
    let filters = filters().filter(|_| flag.is_none());
    match &filters {
        Some(filters) => builder.parse_filters(filters),
        // What is let through is the level's business, which may change while the server runs.
        None => builder.filter_level(log::LevelFilter::Trace),
    };
    builder.format_timestamp_millis();
    // Only a second call fails, and then the first one's choice stands.
    let _ = builder.try_init();
    if filters.is_none() {
        log::set_max_level(settings.log.level);
    }
}

/// What RUST_LOG says.
fn filters() -> Option<String> {
    std::env::var("RUST_LOG").ok()
}
