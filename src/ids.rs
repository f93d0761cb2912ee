//! Identifiers: the newtypes every floor shares, so that a shard is never mistaken for a slot.
//!
//! Floor 0: plain values, no behaviour beyond packing and printing.

use std::fmt;

/// A shard of this process: `0 .. shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A slot of a slab and the generation it was handed out with; a freed slot's old keys stop matching.
///
/// `slot` < 2^24, so that a key and an 8-bit tag pack into one 64-bit `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub slot: u32,
    pub generation: u32,
}

impl Key {
    /// Bits of a slot number inside `user_data`.
    pub const SLOT_BITS: u32 = 24;

    /// Packs `tag` 8 | slot 24 | generation 32.
    pub fn pack(self, tag: u8) -> u64 {
        debug_assert!(self.slot < 1 << Self::SLOT_BITS);
        (u64::from(tag) << 56) | (u64::from(self.slot) << 32) | u64::from(self.generation)
    }

    /// The inverse of [`Key::pack`].
    pub fn unpack(word: u64) -> (u8, Key) {
        let bytes = word.to_be_bytes();
        let slot = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]);
        let generation = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        (bytes[0], Key { slot, generation })
    }
}

/// A connection of one shard, from accept to release; a session once it has logged in.
pub type SessionId = Key;

/// A session anywhere in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionRef {
    pub shard: ShardId,
    pub session: SessionId,
}

/// The client's own request number, 0 ..= 2^53-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(pub u64);

impl RequestId {
    pub const MAX: u64 = (1 << 53) - 1;
}

/// Which life of the log a position belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

/// A place in a room's order, within one epoch: `<ms>-<n>`, the shape of a Redis stream id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    pub ms: u64,
    pub n: u64,
}

/// A position with its epoch, as it stands on the wire: `<epoch>.<ms>-<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WirePosition {
    pub epoch: Epoch,
    pub position: Position,
}

impl WirePosition {
    /// Reads what [`fmt::Display`] wrote; anything else is `None`, and means an epoch that is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, rest) = text.split_once('.')?;
        let (ms, n) = rest.split_once('-')?;
        let epoch = Epoch(u32::from_str_radix(epoch, 16).ok()?);
        let position = Position { ms: ms.parse().ok()?, n: n.parse().ok()? };
        Some(Self { epoch, position })
    }
}

impl fmt::Display for WirePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}-{}", self.epoch.0, self.position.ms, self.position.n)
    }
}

/// Both clocks, read once per turn and handed down as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub mono_ns: u64,
    /// CLOCK_REALTIME, milliseconds since 1970: shown to clients, never compared with a deadline.
    pub unix_ms: u64,
}

impl Now {
    pub fn mono_ms(self) -> u64 {
        self.mono_ns / 1_000_000
    }
}

/// A user's name: 1-64 bytes of `A-Z a-z 0-9 _ . : -`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserName(Name<64>);

/// A room's name: as a user's, or `@` and a user's name for that user's inbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoomName(Name<65>);

/// A room's name, or the beginning of one: `lobby`, `team.*`, `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPattern {
    name: Box<str>,
    prefix: bool,
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong,
    Character,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Name<const N: usize> {
    len: u8,
    bytes: [u8; N],
}

impl<const N: usize> Name<N> {
    fn copy(text: &str) -> Result<Self, NameError> {
        let mut bytes = [0; N];
        let target = bytes.get_mut(..text.len()).ok_or(NameError::TooLong)?;
        target.copy_from_slice(text.as_bytes());
        let len = u8::try_from(text.len()).map_err(|_| NameError::TooLong)?;
        Ok(Self { len, bytes })
    }

    fn text(&self) -> &str {
        let bytes = &self.bytes[..usize::from(self.len)];
        std::str::from_utf8(bytes).expect("a name is ASCII: checked when it was made")
    }
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    if text.bytes().all(good) { Ok(()) } else { Err(NameError::Character) }
}

impl UserName {
    pub const BYTES_MAX: usize = 64;

    pub fn parse(text: &str) -> Result<Self, NameError> {
        check(text)?;
        Name::copy(text).map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.text()
    }
}

impl RoomName {
    pub const BYTES_MAX: usize = 65;

    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix('@') {
            Some(owner) => check(owner)?,
            None => check(text)?,
        }
        if !text.starts_with('@') && text.len() > UserName::BYTES_MAX {
            return Err(NameError::TooLong);
        }
        Name::copy(text).map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.text()
    }

    /// The owner's name when the room is an inbox.
    pub fn inbox_owner(&self) -> Option<&str> {
        self.as_str().strip_prefix('@')
    }
}

impl RoomPattern {
    /// `text` is a room's name, an inbox's among them, or the beginning of one with a `*` behind it. `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        // With one more character behind it, a beginning has to be a name.
        let whole = if prefix { RoomName::parse(&format!("{name}x")) } else { RoomName::parse(name) };
        whole.ok()?;
        Some(Self { name: name.into(), prefix })
    }

    pub fn matches(&self, room: &str) -> bool {
        if self.prefix { room.starts_with(&*self.name) } else { room == &*self.name }
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.prefix { "*" } else { "" })
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_packing() {
        for (slot, generation, tag) in [(0, 0, 0), ((1 << 24) - 1, u32::MAX, 255), (77, 3, 9)] {
            let key = Key { slot, generation };
            assert_eq!(Key::unpack(key.pack(tag)), (tag, key));
        }
    }

    #[test]
    fn names_hold_the_protocols_characters_only() {
        assert!(UserName::parse("a.B:c-d_9").is_ok());
        assert_eq!(UserName::parse(""), Err(NameError::Empty));
        assert_eq!(UserName::parse("a b"), Err(NameError::Character));
        assert_eq!(UserName::parse("@bob"), Err(NameError::Character));
        assert_eq!(UserName::parse("é"), Err(NameError::Character));
        let long = "x".repeat(64);
        assert!(UserName::parse(&long).is_ok());
        assert_eq!(UserName::parse(&"x".repeat(65)), Err(NameError::TooLong));
        assert!(RoomName::parse(&format!("@{long}")).is_ok());
        assert_eq!(RoomName::parse(&"x".repeat(65)), Err(NameError::TooLong));
        assert_eq!(RoomName::parse("@"), Err(NameError::Empty));
        assert_eq!(RoomName::parse("@bob").ok().and_then(|r| r.inbox_owner().map(String::from)), Some("bob".into()));
    }

    #[test]
    fn a_position_prints_as_the_wire_says() {
        let at = WirePosition { epoch: Epoch(0x9f2c), position: Position { ms: 1732345678901, n: 0 } };
        assert_eq!(at.to_string(), "9f2c.1732345678901-0");
        assert_eq!(WirePosition::parse("9f2c.1732345678901-0"), Some(at));
        assert_eq!(WirePosition::parse("9f2c.-0"), None);
        assert_eq!(WirePosition::parse("nonsense"), None);
    }
}
