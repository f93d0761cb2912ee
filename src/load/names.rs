//! Names of a run: users, rooms, inboxes, and the numbers inside them.
//!
//! A name is a prefix that carries the run, so that runs against one server don't meet, and eight digits. Rooms are numbered `0 .. rooms`; the inbox of
//! connection `c` is number `rooms + c`, so that one number names any place a message can go to. The names are the same for every target.

use std::sync::Arc;

/// Digits of the number inside a name.
pub const NUMBER_DIGITS: usize = 8;

/// Which run the names and bodies belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(u32);

impl RunId {
    pub fn new(random: u32) -> Self {
        Self(random % 100_000_000)
    }

    pub fn digits(self) -> [u8; 8] {
        eight_digits(self.0)
    }

    fn tag(self) -> String {
        format!("{:04x}", self.0 & 0xffff)
    }
}

/// Tokens to log in with instead of names, for a server that asks for them: one for each connection, in turn.
#[derive(Clone, Debug, Default)]
pub struct Tokens(Arc<[Box<str>]>);

impl Tokens {
    /// Of a text with one token a line.
    pub fn of_lines(text: &str) -> Self {
        Self(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Box::from).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `None` where connections say their names.
    pub fn of(&self, connection: u32) -> Option<&str> {
        let place = (connection as usize).checked_rem(self.0.len())?;
        Some(&self.0[place])
    }
}

/// The names of a run with this many rooms.
#[derive(Clone, Debug)]
pub struct Names {
    run: RunId,
    rooms: u32,
    room_prefix: String,
    inbox_prefix: String,
    tokens: Tokens,
}

impl Names {
    pub fn new(run: RunId, rooms: u32) -> Self {
        Self { run, rooms, room_prefix: format!("r{}-", run.tag()), inbox_prefix: format!("@u{}-", run.tag()), tokens: Tokens::default() }
    }

    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self { tokens, ..self }
    }

    pub fn token(&self, connection: u32) -> Option<&str> {
        self.tokens.of(connection)
    }

    pub fn run(&self) -> RunId {
        self.run
    }

    pub fn user(&self, connection: u32) -> String {
        format!("{}{connection:08}", &self.inbox_prefix[1..])
    }

    /// The number of a connection's inbox.
    pub fn inbox(&self, connection: u32) -> u32 {
        self.rooms + connection
    }

    pub fn is_inbox(&self, number: u32) -> bool {
        number >= self.rooms
    }

    /// The name of a room or inbox.
    pub fn room(&self, number: u32) -> String {
        match number.checked_sub(self.rooms) {
            Some(connection) => format!("{}{connection:08}", self.inbox_prefix),
            None => format!("{}{number:08}", self.room_prefix),
        }
    }

    /// How long the name of a room or inbox is.
    pub fn name_bytes(&self, number: u32) -> usize {
        let prefix = if self.is_inbox(number) { &self.inbox_prefix } else { &self.room_prefix };
        prefix.len() + NUMBER_DIGITS
    }

    /// The digits that stand in the name of a room or inbox.
    pub fn digits(&self, number: u32) -> [u8; NUMBER_DIGITS] {
        eight_digits(number.checked_sub(self.rooms).unwrap_or(number))
    }

    /// The number of a room or inbox of this run; `None` for any other name.
    pub fn number(&self, name: &[u8]) -> Option<u32> {
        if let Some(digits) = name.strip_prefix(self.room_prefix.as_bytes()) {
            return read_eight(digits.try_into().ok()?).filter(|number| *number < self.rooms);
        }
        let digits = name.strip_prefix(self.inbox_prefix.as_bytes())?;
        read_eight(digits.try_into().ok()?)?.checked_add(self.rooms)
    }
}

pub(super) fn eight_digits(number: u32) -> [u8; 8] {
    let mut rest = number;
    let mut digits = [0; 8];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
    digits
}

/// Eight digits at once, after Lemire's "Quickly parsing eight digits" (2018).
pub(super) fn read_eight(text: &[u8; 8]) -> Option<u32> {
    let word = u64::from_le_bytes(*text);
    let high_nibbles = word & 0xf0f0_f0f0_f0f0_f0f0;
    let carried = word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0;
    if high_nibbles != 0x3030_3030_3030_3030 || carried != 0x3030_3030_3030_3030 {
        return None;
    }
    let digits = word - 0x3030_3030_3030_3030;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    u32::try_from(low.wrapping_add(high) >> 32).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_name_gives_back_its_number_and_no_other_name_does() {
        use crate::ids::{RoomName, UserName};
        let names = Names::new(RunId::new(u32::MAX), 1_000);
        for number in [0, 1, 999, 1_000, 1_001, 1_000_000, 1_000_999] {
            let name = names.room(number);
            assert_eq!(names.number(name.as_bytes()), Some(number), "{name}");
            assert!(name.as_bytes().ends_with(&names.digits(number)));
            assert!(RoomName::parse(&name).is_ok(), "{name}");
            assert_eq!(names.is_inbox(number), name.starts_with('@'));
            assert_eq!(names.name_bytes(number), name.len());
        }
        assert!(UserName::parse(&names.user(999_999)).is_ok());
        assert_eq!(names.room(names.inbox(7)), format!("@{}", names.user(7)));
        let beyond = format!("r{}-{:08}", RunId::new(u32::MAX).tag(), 1_000);
        let other = Names::new(RunId::new(1), 1_000).room(5);
        for name in ["", "lobby", &beyond, &other, &names.room(5)[..13]] {
            assert_eq!(names.number(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn tokens_go_round() {
        let names = Names::new(RunId::new(1), 1);
        assert_eq!(names.token(5), None);
        let names = names.with_tokens(Tokens::of_lines("a\n\n b \nc\n"));
        assert_eq!([0, 1, 2, 3].map(|connection| names.token(connection)), [Some("a"), Some("b"), Some("c"), Some("a")]);
    }

    #[test]
    fn eight_digits_are_read_and_nothing_else() {
        assert_eq!(read_eight(b"00000000"), Some(0));
        assert_eq!(read_eight(b"12345678"), Some(12_345_678));
        assert_eq!(read_eight(b"99999999"), Some(99_999_999));
        for at in 0..8 {
            for byte in (0..=255u8).filter(|b| !b.is_ascii_digit()) {
                let mut text = *b"12345678";
                text[at] = byte;
                assert_eq!(read_eight(&text), None, "{byte} at {at}");
            }
        }
    }
}
