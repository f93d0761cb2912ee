//! What a token allows: rights by pattern of rooms, a rate, an end.
//!
//! Plain values, made where tokens are checked and asked here. Without rights of its own a session may do everything; the value is shared, so that
//! several sessions of one token hold it once, and a session without one holds nothing.

use std::num::NonZeroU64;
use std::sync::Arc;

use crate::ids::RoomPattern;

/// One thing a session may do in a room. `history` goes with `join`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    Join,
    Send,
    Presence,
}

impl Right {
    pub const ALL: [Right; 3] = [Right::Join, Right::Send, Right::Presence];

    /// The word in a token.
    pub fn name(self) -> &'static str {
        match self {
            Right::Join => "join",
            Right::Send => "send",
            Right::Presence => "presence",
        }
    }

    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == name)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Rights in the rooms that a pattern names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomRights {
    pattern: RoomPattern,
    rights: u8,
}

impl RoomRights {
    /// `pattern` is a room's name, an inbox's among them, or the beginning of one with a `*` behind it. `None`: it is neither.
    pub fn new(pattern: &str, rights: impl IntoIterator<Item = Right>) -> Option<Self> {
        let pattern = RoomPattern::parse(pattern)?;
        let rights = rights.into_iter().fold(0, |all, right| all | right.bit());
        Some(Self { pattern, rights })
    }
}

/// A token's rights: a room allows what any pattern that names it allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(pub Box<[RoomRights]>);

impl Rights {
    pub fn allows(&self, room: &str, right: Right) -> bool {
        self.0.iter().any(|rooms| rooms.rights & right.bit() != 0 && rooms.pattern.matches(room))
    }
}

/// A user's rate as its token says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRate {
    pub requests_per_s: u32,
    pub burst: u32,
}

/// All that a token says beside its user's name. The default is a login without a token: everything is allowed, and it does not end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Milliseconds since 1970. There for every token, and for nothing else.
    pub expires_at: Option<NonZeroU64>,
    pub rights: Option<Arc<Rights>>,
    pub rate: Option<TokenRate>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_one_room_or_all_that_begin_so() {
        let rights = |pattern: &str| Rights([RoomRights::new(pattern, [Right::Join]).unwrap()].into());
        for (pattern, yes, no) in [
            ("lobby", &["lobby"][..], &["lobby2", "lobb", "@lobby"][..]),
            ("team.*", &["team.a", "team."], &["team", "teams.a", "@team.a"]),
            ("*", &["a", "@bob"], &[]),
            ("@*", &["@bob"], &["bob"]),
            ("@bob", &["@bob"], &["bob", "@bobby"]),
        ] {
            assert!(yes.iter().all(|room| rights(pattern).allows(room, Right::Join)), "{pattern}");
            assert!(!no.iter().any(|room| rights(pattern).allows(room, Right::Join)), "{pattern}");
            assert!(!rights(pattern).allows(yes[0], Right::Send));
        }
    }

    #[test]
    fn what_is_no_name_and_no_beginning_is_no_pattern() {
        let long = "x".repeat(65);
        for bad in ["", "a*b", "**", "a b", "é", "@", "a@b*", &long] {
            assert_eq!(RoomRights::new(bad, []), None, "{bad}");
        }
    }

    #[test]
    fn patterns_add_up_and_none_of_them_allows_nothing() {
        let rights = Rights([RoomRights::new("a*", [Right::Join]).unwrap(), RoomRights::new("ab", [Right::Send]).unwrap()].into());
        assert!(rights.allows("ab", Right::Join) && rights.allows("ab", Right::Send) && !rights.allows("ab", Right::Presence));
        assert!(!rights.allows("ac", Right::Send));
        assert!(!Rights::default().allows("a", Right::Join));
    }
}
