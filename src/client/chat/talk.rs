//! The conversation: lines go out, events are shown.
//!
//! Owns the current room and the two loops, for a terminal and for a pipe. Both look at the lines between two waits for events; while a line waits for
//! its turn it stays in the bounded channel, so a fast pipe is slowed down to what the server takes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::client::blocking::{Client, Error};
use crate::client::event::{Change, Event, Join, Ticket};

use super::command::{self, Command};
use super::terminal::{Line, Terminal, read_lines};
use super::view::{self, Style};
use super::{Args, Exit, Failure};

/// How long a typed line may lie before it is looked at.
const TURN: Duration = Duration::from_millis(40);
/// Messages on their way to the server.
const AHEAD_MAX: usize = 64;
/// After the end of the input: time without an acknowledgement until the rest is given up.
const LAST_PATIENCE: Duration = Duration::from_secs(60);
/// The same for a person who quits.
const QUIT_PATIENCE: Duration = Duration::from_secs(3);
/// Delays shorter than this are not worth a line when the first one was told.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Lines in, messages out, until the input ends and all is acknowledged.
pub(super) fn on_pipe(mut client: Client, args: &Args, history: u32) -> Result<Exit, Failure> {
    let joined = client.join(&args.room, Join { history, echo: false, ..Join::default() })?;
    // What was asked for is shown, however short the input is.
    let mut replay = joined.replay;
    let lines = read_lines()?;
    let (mut exit, mut ended, mut progress) = (Exit::Ok, false, Instant::now());
    loop {
        while !ended && client.session().unanswered_sends() < AHEAD_MAX {
            match lines.try_recv() {
                Ok(Line::Text(line)) if line.trim().is_empty() => {}
                Ok(Line::Text(line)) => {
                    if let Err(reject) = client.session().send_text(&args.room, &line, Instant::now()) {
                        exit = refused(&reject.to_string());
                    }
                }
                Ok(Line::TooLong) => exit = refused("a line is longer than a message can be"),
                Ok(Line::End) | Err(crossbeam_channel::TryRecvError::Disconnected) => ended = true,
                Err(crossbeam_channel::TryRecvError::Empty) => break,
            }
            progress = Instant::now();
        }
        if ended && replay == 0 && client.session().unanswered_sends() == 0 {
            client.close();
            return Ok(exit);
        }
        if ended && progress.elapsed() > LAST_PATIENCE {
            return Err(Failure::new(Exit::Unreachable, "the last messages were not acknowledged"));
        }
        match client.receive(TURN)? {
            Some(Event::Message(message)) => {
                replay = replay.saturating_sub(u32::from(message.room == args.room));
                let line = if args.json { view::json_line(&message) } else { Style::Plain.message(&message, client.user()) };
                let mut out = io::stdout().lock();
                writeln!(out, "{line}").and_then(|()| out.flush())?;
            }
            Some(Event::Sent(_)) => progress = Instant::now(),
            Some(Event::Failed { refusal, .. }) => exit = refused(&refusal.to_string()),
            Some(Event::Ended(Some(refusal))) => return Err(Error::Refused(refusal).into()),
            Some(Event::Missed { room }) => remark(&format!("messages of {room} were missed")),
            Some(Event::Offline { why, retry_in }) => remark(&format!("offline: {why}; next try in {retry_in:.1?}")),
            Some(Event::Online { .. }) => remark("online again"),
            _ => {}
        }
    }
}

fn refused(why: &str) -> Exit {
    remark(&format!("a message was not sent: {why}"));
    Exit::Refused
}

fn remark(text: &str) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "ringroom chat: {}", view::escape(text));
}

/// A person at a terminal.
pub(super) fn on_terminal(mut client: Client, room: &str, history: u32) -> Result<Exit, Failure> {
    let terminal = Terminal::open().map_err(|error| Failure::new(Exit::Output, format!("terminal: {error}")))?;
    let join = Join { history, presence: true, echo: false, since: None };
    let now = Instant::now();
    // Waited for as an event, so that the person sees what comes in the order in which it comes.
    client.session().join(room, join.clone(), now).map_err(Error::Rejected)?;
    let style = Style::of_environment();
    let mut talk = Talk { client, terminal, style, join, current: Some(room.to_owned()), directs: BTreeMap::new(), offline: false };
    talk.remark(&format!("you are {}; /help lists the commands", talk.client.user().to_owned()))?;
    talk.prompt();
    loop {
        if let Ok(line) = talk.terminal.lines.try_recv() {
            let Line::Text(line) = line else { break };
            if talk.obey(&line)? == Then::Quit {
                break;
            }
            talk.prompt();
        }
        match talk.client.receive(TURN)? {
            Some(Event::Ended(Some(refusal))) => return Err(Error::Refused(refusal).into()),
            Some(event) => talk.show(event)?,
            None => {}
        }
    }
    let exit = talk.finish()?;
    let Talk { client, terminal, .. } = talk;
    drop(terminal);
    client.close();
    Ok(exit)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    Quit,
}

struct Talk {
    client: Client,
    terminal: Terminal,
    style: Style,
    join: Join,
    current: Option<String>,
    /// Written to one person and not acknowledged: shown when it is.
    directs: BTreeMap<Ticket, (String, String)>,
    offline: bool,
}

impl Talk {
    fn prompt(&self) {
        let room = self.current.as_deref().unwrap_or("(no room)");
        self.terminal.prompt(format!("{}@{room}> ", self.client.user()));
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.terminal.print(text)?)
    }

    fn remark(&mut self, text: &str) -> Result<(), Failure> {
        let text = self.style.remark(&view::escape(text));
        self.print(&text)
    }

    fn obey(&mut self, line: &str) -> Result<Then, Failure> {
        let now = Instant::now();
        let current = self.current.clone();
        let taken = match (command::parse(line), current) {
            (Command::Nothing, _) => Ok(()),
            (Command::Quit, _) => return Ok(Then::Quit),
            (Command::Help, _) => return command::HELP.iter().try_for_each(|line| self.remark(line)).map(|()| Then::GoOn),
            (Command::Wrong(why), _) => return self.remark(why).map(|()| Then::GoOn),
            (Command::Rooms, _) => return self.tell_rooms().map(|()| Then::GoOn),
            (Command::Direct { user, text }, _) => self.client.session().send_text(&format!("@{user}"), text, now).map(|ticket| {
                self.directs.insert(ticket, (user.to_owned(), text.to_owned()));
            }),
            (Command::Join(room), _) => {
                self.current = Some(room.to_owned());
                let joined = self.client.session().rooms().any(|known| known == room);
                if joined { Ok(()) } else { self.client.session().join(room, self.join.clone(), now).map(drop) }
            }
            (Command::Say(text), Some(room)) => self.client.session().send_text(&room, text, now).map(drop),
            (Command::Who, Some(room)) => self.client.session().presence(&room, now).map(drop),
            (Command::Leave, Some(room)) => {
                self.current = self.client.session().rooms().find(|other| *other != room).map(str::to_owned);
                self.client.session().leave(&room, now).map(drop)
            }
            (Command::Say(_) | Command::Who | Command::Leave, None) => {
                return self.remark("you are in no room: /join ROOM").map(|()| Then::GoOn);
            }
        };
        if let Err(reject) = taken {
            self.remark(&reject.to_string())?;
        }
        Ok(Then::GoOn)
    }

    /// Waits a moment for what was typed last.
    fn finish(&mut self) -> Result<Exit, Failure> {
        let deadline = Instant::now() + QUIT_PATIENCE;
        while self.client.session().unanswered_sends() > 0 && Instant::now() < deadline {
            if let Some(event) = self.client.receive(TURN)? {
                self.show(event)?;
            }
        }
        match self.client.session().unanswered_sends() {
            0 => Ok(Exit::Ok),
            rest => self.remark(&format!("the last {rest} messages were not acknowledged")).map(|()| Exit::Refused),
        }
    }

    fn tell_rooms(&mut self) -> Result<(), Failure> {
        let current = self.current.clone();
        let mark = |room: &str| if current.as_deref() == Some(room) { format!("{room} (here)") } else { room.to_owned() };
        let rooms: Vec<String> = self.client.session().rooms().map(mark).collect();
        self.remark(&if rooms.is_empty() { "you are in no room".into() } else { rooms.join(", ") })
    }

    fn show(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Message(message) => {
                let line = self.style.message(&message, self.client.user());
                self.print(&line)
            }
            Event::Joined(joined) if joined.ticket.is_some() => {
                // Refused only with thousands of requests open; the list is a courtesy.
                let _ = self.client.session().presence(&joined.room, Instant::now());
                self.remark(&format!("joined {}", joined.room))
            }
            Event::Left { room, .. } => self.remark(&format!("left {room}")),
            Event::Presence { room, members, users, truncated, .. } => {
                let more = if truncated { ", ..." } else { "" };
                self.remark(&format!("in {room} ({members}): {}{more}", users.join(", ")))
            }
            Event::Member { user, .. } if user == self.client.user() => Ok(()),
            Event::Member { room, user, change, members } => {
                let verb = if change == Change::Came { "joined" } else { "left" };
                self.remark(&format!("{user} {verb} {room} ({members} here)"))
            }
            Event::MembersOff { room } => self.remark(&format!("{room} is too large now to tell who comes and goes")),
            Event::Sent(sent) => match self.directs.remove(&sent.ticket) {
                Some((user, text)) => {
                    let line = self.style.direct(&user, &text);
                    self.print(&line)
                }
                None => Ok(()),
            },
            Event::Failed { ticket, room, refusal } => {
                self.directs.remove(&ticket);
                let joined = self.client.session().rooms().any(|known| known == room);
                if !joined && self.current.as_deref() == Some(&room) {
                    self.current = None;
                }
                self.remark(&format!("{room}: refused: {refusal}"))
            }
            Event::Error(refusal) => self.remark(&format!("the server says: {refusal}")),
            Event::Missed { room } if room.starts_with('@') => {
                self.remark("direct messages may be gone: the server could not bring what came meanwhile")
            }
            Event::Missed { room } => {
                self.remark(&format!("messages of {room} may be gone: the server could not bring what came meanwhile"))
            }
            Event::Offline { why, retry_in } => {
                let told = std::mem::replace(&mut self.offline, true);
                if told && retry_in < WORTH_TELLING {
                    return Ok(());
                }
                self.remark(&format!("offline: {why}; next try in {retry_in:.1?}"))
            }
            Event::Online { .. } if std::mem::take(&mut self.offline) => self.remark("online again"),
            Event::Online { .. } | Event::Joined(_) | Event::History { .. } | Event::Ended(_) => Ok(()),
        }
    }
}
