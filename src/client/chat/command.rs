//! What a typed line means.
//!
//! Pure: a line comes in, a value goes out. A line that begins with `/` is a command; `//` writes a message that begins with one slash.

use crate::ids::{RoomName, UserName};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Nothing,
    Say(&'a str),
    Direct {
        user: &'a str,
        text: &'a str,
    },
    Join(&'a str),
    Leave,
    Rooms,
    Who,
    Help,
    Quit,
    /// For the person who typed it.
    Wrong(&'static str),
}

pub(super) const HELP: [&str; 8] = [
    "/join ROOM       go to a room",
    "/leave           leave this room",
    "/rooms           the rooms you are in",
    "/who             who is here",
    "/msg USER TEXT   write to one person",
    "/quit            leave (or Ctrl-D)",
    "/help            this",
    "//TEXT           a message that begins with a slash; anything else is said in the room",
];

pub(super) fn parse(line: &str) -> Command<'_> {
    let line = line.trim_end();
    let Some(command) = line.strip_prefix('/') else {
        return if line.trim().is_empty() { Command::Nothing } else { Command::Say(line) };
    };
    if command.starts_with('/') {
        return Command::Say(command);
    }
    let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match word {
        "join" | "j" if is_room(rest) => Command::Join(rest),
        "join" | "j" => Command::Wrong("/join ROOM: a room is 1-64 of A-Z a-z 0-9 _ . : -"),
        "msg" | "m" => match rest.split_once(char::is_whitespace) {
            Some((user, text)) if UserName::parse(user).is_ok() => Command::Direct { user, text: text.trim() },
            _ => Command::Wrong("/msg USER TEXT"),
        },
        "leave" => Command::Leave,
        "rooms" => Command::Rooms,
        "who" | "w" => Command::Who,
        "help" | "h" | "?" => Command::Help,
        "quit" | "q" | "exit" => Command::Quit,
        _ => Command::Wrong("no such command; /help lists them"),
    }
}

fn is_room(text: &str) -> bool {
    RoomName::parse(text).is_ok_and(|name| name.inbox_owner().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_words_or_commands() {
        assert_eq!(parse("  "), Command::Nothing);
        assert_eq!(parse("hello there "), Command::Say("hello there"));
        assert_eq!(parse("//etc/fstab"), Command::Say("/etc/fstab"));
        assert_eq!(parse("/msg bob  hi  you"), Command::Direct { user: "bob", text: "hi  you" });
        assert_eq!(parse("/join dev"), Command::Join("dev"));
        assert_eq!([parse("/leave"), parse("/rooms"), parse("/who")], [Command::Leave, Command::Rooms, Command::Who]);
        assert_eq!([parse("/quit"), parse("/help")], [Command::Quit, Command::Help]);
        for wrong in ["/join", "/join @bob", "/join a b", "/msg bob", "/msg é x", "/nope"] {
            assert!(matches!(parse(wrong), Command::Wrong(_)), "{wrong}");
        }
    }
}
