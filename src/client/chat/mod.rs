//! `ringroom chat`: a terminal client for people, and a pipe for scripts.
//!
//! On a terminal it edits lines ([`terminal`]), understands commands ([`command`]) and prints what comes above the line being typed. With standard input
//! or output elsewhere, or with `--json`, each line read is a message, messages go to standard output and remarks to standard error; it ends when the
//! input has ended and every message is acknowledged. What others wrote is escaped ([`view`]): nobody else's bytes steer this terminal.
//! Reconnecting is [`Session`](super::Session)'s work; here it is only told.

mod command;
mod talk;
mod terminal;
mod view;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::ids::{RoomName, UserName};

use super::blocking::{Client, Error};
use super::session::Options;

/// Talk in rooms: `ringroom chat --user alice --room lobby`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "On a terminal, /help lists the commands. Elsewhere each line of standard input is a message to the room, sent when it has \
been acknowledged;\nto listen only: tail -f /dev/null | ringroom chat --user bot --room lobby --json\n\nExit codes:\n   0  done, every message \
acknowledged\n   1  a message was refused, or not acknowledged\n  64  bad command line\n  69  no server there, or gone for too long\n  74  the output can't be written\n  \
77  the server refuses the login or the room"
)]
pub struct Args {
    /// Name to log in with, where the server has no authentication
    #[arg(long, value_name = "NAME", value_parser = user_name, required_unless_present = "token")]
    pub user: Option<String>,
    /// Room to join
    #[arg(long, value_name = "ROOM", value_parser = room_name, default_value = "lobby")]
    pub room: String,
    /// Server
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7777")]
    pub connect: String,
    /// Token to log in with; `-` takes it from the variable RINGROOM_TOKEN, where no list of processes shows it
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Messages from before to show on joining, at most 1000 [default: 20 on a terminal, else 0]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub history: Option<u32>,
    /// Print each message as one JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// How it ended; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// A message was refused, or not acknowledged.
    Refused = 1,
    Usage = 64,
    Unreachable = 69,
    Output = 74,
    Denied = 77,
}

/// Why it ended, with a line for a person.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    fn new(exit: Exit, text: impl ToString) -> Self {
        Self { exit, text: text.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Output, format!("output: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            // No port, or a port that is none: not a server that is away.
            Error::Unreachable(error) if error.kind() == io::ErrorKind::InvalidInput => Exit::Usage,
            Error::Refused(_) | Error::Ended(Some(_)) => Exit::Denied,
            Error::Rejected(_) | Error::Body(_) => Exit::Usage,
            Error::Unreachable(_) | Error::Login(_) | Error::Ended(None) | Error::TimedOut | Error::Backlog => Exit::Unreachable,
        };
        Self::new(exit, error)
    }
}

/// The command.
pub fn run(args: &Args) -> ExitCode {
    let exit = chat(args).unwrap_or_else(|failure| {
        // Without standard error there is nobody to tell.
        let _ = writeln!(io::stderr(), "ringroom chat: {}", failure.text);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

fn chat(args: &Args) -> Result<Exit, Failure> {
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !args.json;
    let mut options = match (&args.token, &args.user) {
        (Some(token), _) => Options::token(given_token(token)?),
        (None, Some(user)) => Options::user(user),
        (None, None) => return Err(Failure::new(Exit::Usage, "--user or --token is needed")),
    };
    // One after the other, so that lines keep their order whatever the server does in between.
    options.sends_in_flight = 1;
    let client = Client::connect(args.connect.as_str(), options).map_err(|error| {
        let failure = Failure::from(error);
        Failure { text: format!("{}: {}", args.connect, failure.text), ..failure }
    })?;
    let history = args.history.unwrap_or(if on_terminal { 20 } else { 0 });
    if on_terminal { talk::on_terminal(client, &args.room, history) } else { talk::on_pipe(client, args, history) }
}

fn given_token(token: &str) -> Result<String, Failure> {
    if token != "-" {
        return Ok(token.to_owned());
    }
    std::env::var("RINGROOM_TOKEN").map_err(|_| Failure::new(Exit::Usage, "--token -: RINGROOM_TOKEN is not set"))
}

fn user_name(text: &str) -> Result<String, String> {
    UserName::parse(text).map(|name| name.as_str().to_owned()).map_err(|_| "1-64 of A-Z a-z 0-9 _ . : -".into())
}

fn room_name(text: &str) -> Result<String, String> {
    let name = RoomName::parse(text).ok().filter(|name| name.inbox_owner().is_none());
    name.map(|name| name.as_str().to_owned()).ok_or_else(|| "1-64 of A-Z a-z 0-9 _ . : -".into())
}
