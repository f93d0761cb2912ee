//! The fields that a client's object can have, and the reading of one field's JSON value.
//!
//! [`Fields`] collects what the scan reports, by name and without judging it; a request's decoder then asks for the
//! fields of its own type, so that fields of other types are ignored whatever they hold. Each reader gives back a
//! checked value or a [`Fault`] that names the field. Nothing here keeps or repeats the client's own text in a fault.
//! An optional field that is `null` counts as absent: many JSON libraries write it so.

use std::borrow::Cow;

use crate::ids::{RequestId, RoomName, UserName};
use crate::limits::{DEDUP_KEY_BYTES_MAX, DEVICE_BYTES_MAX, POSITION_BYTES_MAX};
use crate::protocol::error::Reason;
use crate::protocol::scan::Broken;

/// A field that some type knows. The number is its place in [`WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    Type,
    Id,
    Room,
    Body,
    Key,
    Ephemeral,
    Version,
    User,
    Token,
    Device,
    Inbox,
    Since,
    History,
    Presence,
    Echo,
    Before,
    After,
    Limit,
}

const FIELDS: usize = 18;

/// What can be said about a field.
struct Words {
    missing: &'static str,
    doubled: &'static str,
    rule: &'static str,
}

macro_rules! words {
    ($name:literal, $rule:literal) => {
        Words {
            missing: concat!($name, " is missing"),
            doubled: concat!($name, " is given twice"),
            rule: concat!($name, " is not ", $rule),
        }
    };
}

#[rustfmt::skip]
const WORDS: [Words; FIELDS] = [
    words!("type", "a text"),
    words!("id", "an integer from 0 to 2^53-1"),
    words!("room", "a room's name (1-64 bytes of A-Z a-z 0-9 _ . : -, or @ and such a name)"),
    words!("body", "a JSON value"),
    words!("key", "a text of at most 64 bytes"),
    words!("ephemeral", "true or false"),
    words!("version", "an integer from 0 to 2^64-1"),
    words!("user", "a user's name (1-64 bytes of A-Z a-z 0-9 _ . : -)"),
    words!("token", "a text"),
    words!("device", "a text of at most 64 bytes"),
    words!("inbox", "a position (a text of at most 64 bytes)"),
    words!("since", "a position (a text of at most 64 bytes)"),
    words!("history", "an integer from 0 to 2^32-1"),
    words!("presence", "true or false"),
    words!("echo", "true or false"),
    words!("before", "a position (a text of at most 64 bytes)"),
    words!("after", "a position (a text of at most 64 bytes)"),
    words!("limit", "an integer from 1 to 1000"),
];

// The texts above name these bounds.
const _: () = assert!(DEDUP_KEY_BYTES_MAX == 64 && DEVICE_BYTES_MAX == 64 && POSITION_BYTES_MAX == 64);
const _: () = assert!(UserName::BYTES_MAX == 64 && RequestId::MAX == (1 << 53) - 1);

impl Field {
    const ALL: [Field; FIELDS] = [
        Field::Type,
        Field::Id,
        Field::Room,
        Field::Body,
        Field::Key,
        Field::Ephemeral,
        Field::Version,
        Field::User,
        Field::Token,
        Field::Device,
        Field::Inbox,
        Field::Since,
        Field::History,
        Field::Presence,
        Field::Echo,
        Field::Before,
        Field::After,
        Field::Limit,
    ];

    fn index(self) -> usize {
        usize::from(self as u8)
    }

    fn words(self) -> &'static Words {
        &WORDS[self.index()]
    }

    fn named(name: &str) -> Option<Field> {
        Some(match name {
            "type" => Field::Type,
            "id" => Field::Id,
            "room" => Field::Room,
            "body" => Field::Body,
            "key" => Field::Key,
            "ephemeral" => Field::Ephemeral,
            "version" => Field::Version,
            "user" => Field::User,
            "token" => Field::Token,
            "device" => Field::Device,
            "inbox" => Field::Inbox,
            "since" => Field::Since,
            "history" => Field::History,
            "presence" => Field::Presence,
            "echo" => Field::Echo,
            "before" => Field::Before,
            "after" => Field::After,
            "limit" => Field::Limit,
            _ => return None,
        })
    }
}

/// A set of fields: those of one type of object.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldSet(u32);

impl FieldSet {
    pub(super) const fn of(fields: &[Field]) -> FieldSet {
        let mut bits = 0;
        let mut index = 0;
        while index < fields.len() {
            bits |= 1 << fields[index] as u8;
            index += 1;
        }
        FieldSet(bits)
    }

    fn first_in(self, other: FieldSet) -> Option<Field> {
        Field::ALL.get((self.0 & other.0).trailing_zeros() as usize).copied()
    }
}

/// A rule that an object breaks; the client's to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: Reason,
    pub(super) message: &'static str,
}

impl Fault {
    pub(super) fn bad_field(message: &'static str) -> Fault {
        Fault { reason: Reason::BadField, message }
    }
}

/// The members of one object that have a known name: raw JSON, the first of each name.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    raw: [Option<&'a str>; FIELDS],
    doubled: FieldSet,
}

impl<'a> Fields<'a> {
    /// Takes one member: the key with its quotes, and the raw value.
    pub(super) fn take(&mut self, key: &str, value: &'a str) -> Result<(), Broken> {
        let mut field = Field::named(&key[1..key.len() - 1]);
        if field.is_none() && key.contains('\\') {
            field = Field::named(&text(key).ok_or("a key is not a text")?);
        }
        let Some(field) = field else { return Ok(()) };
        let place = &mut self.raw[field.index()];
        if place.is_some() {
            self.doubled.0 |= FieldSet::of(&[field]).0;
        } else {
            *place = Some(value);
        }
        Ok(())
    }

    /// Refuses an object in which one of `fields` stands twice.
    pub(super) fn once(&self, fields: FieldSet) -> Result<(), Fault> {
        match self.doubled.first_in(fields) {
            Some(field) => Err(Fault::bad_field(field.words().doubled)),
            None => Ok(()),
        }
    }

    /// The request number, where it can be told: for refusals, which come in whatever state the rest is.
    pub(super) fn readable_id(&self) -> Option<RequestId> {
        self.once(FieldSet::of(&[Field::Id])).ok()?;
        self.id().ok().flatten()
    }

    pub(super) fn id(&self) -> Result<Option<RequestId>, Fault> {
        Ok(self.integer(Field::Id, RequestId::MAX)?.map(RequestId))
    }

    pub(super) fn room(&self) -> Result<RoomName, Fault> {
        let name = text(self.required(Field::Room)?);
        name.and_then(|name| RoomName::parse(&name).ok()).ok_or_else(|| broken(Field::Room))
    }

    pub(super) fn user(&self) -> Result<Option<UserName>, Fault> {
        let Some(raw) = self.optional(Field::User) else { return Ok(None) };
        let name = text(raw).and_then(|name| UserName::parse(&name).ok());
        name.map(Some).ok_or_else(|| broken(Field::User))
    }

    /// A field's raw JSON, `null` included.
    pub(super) fn required(&self, field: Field) -> Result<&'a str, Fault> {
        self.raw[field.index()].ok_or_else(|| Fault::bad_field(field.words().missing))
    }

    pub(super) fn required_text(&self, field: Field) -> Result<Cow<'a, str>, Fault> {
        text(self.required(field)?).ok_or_else(|| broken(field))
    }

    pub(super) fn required_integer(&self, field: Field) -> Result<u64, Fault> {
        integer(self.required(field)?).ok_or_else(|| broken(field))
    }

    /// A text of at most `bytes_max` bytes, escapes resolved.
    pub(super) fn text(&self, field: Field, bytes_max: usize) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(raw) = self.optional(field) else { return Ok(None) };
        let text = text(raw).filter(|text| text.len() <= bytes_max);
        text.map(Some).ok_or_else(|| broken(field))
    }

    pub(super) fn position(&self, field: Field) -> Result<Option<Cow<'a, str>>, Fault> {
        self.text(field, POSITION_BYTES_MAX)
    }

    /// An integer from 0 to `max`.
    pub(super) fn integer(&self, field: Field, max: u64) -> Result<Option<u64>, Fault> {
        let Some(raw) = self.optional(field) else { return Ok(None) };
        let number = integer(raw).filter(|&number| number <= max);
        number.map(Some).ok_or_else(|| broken(field))
    }

    pub(super) fn count(&self, field: Field) -> Result<Option<u32>, Fault> {
        let Some(raw) = self.optional(field) else { return Ok(None) };
        let number = integer(raw).and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| broken(field))
    }

    pub(super) fn flag(&self, field: Field) -> Result<Option<bool>, Fault> {
        match self.optional(field) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(broken(field)),
        }
    }

    fn optional(&self, field: Field) -> Option<&'a str> {
        self.raw[field.index()].filter(|&raw| raw != "null")
    }
}

/// The fault of a field that breaks its rule.
pub(super) fn broken(field: Field) -> Fault {
    Fault::bad_field(field.words().rule)
}

/// A raw JSON value as text: borrowed where it has no escapes; none if it is no string, or has half a surrogate pair.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inside.contains('\\') {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// A raw JSON value as an unsigned integer. JSON has no sign `+` and no leading zeros, which `parse` would take.
fn integer(raw: &str) -> Option<u64> {
    raw.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_own_words() {
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field.index(), index);
            let name = field.words().missing.strip_suffix(" is missing");
            assert_eq!(name.and_then(Field::named), Some(field));
        }
        assert_eq!(Field::named("Type"), None);
        assert_eq!(Field::named(""), None);
    }
}
