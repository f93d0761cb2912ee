//! The rules and nothing else: no socket, no clock, no thread, no log line.
//!
//! A [`Shard`] takes decoded requests, envelopes of other shards, answers of the log and `now`, and appends to [`Effects`] what is to be done:
//! queue these bytes on that session, post this envelope, append to the log, close. The reactor carries effects out in their order, before it
//! calls again.
//!
//! A shard plays two parts. As a *member side* it owns the sessions of its users and, per room, a [`room::Place`] with its own members. As a
//! *home side* it owns the rooms whose names hash to it: who is a member, which shards have any, the newest position. The two parts speak in
//! envelopes even when they are one shard, through the same code.

mod bucket;
mod debts;
mod dedup;
mod effect;
mod history;
mod home;
mod homes;
mod login;
mod member;
mod named;
mod outside;
mod presence;
mod retention;
mod rights;
mod room;
mod rules;
mod sample;
mod session;
mod shard;
mod stall;
mod users;

pub use bucket::RateRules;
pub use dedup::KeyHash;
pub use effect::{Appended, Class, Effect, Effects, Entry, Envelope, Origin, Page, PageRange, Parcel, Replay, Since, Token, Watch, Worth};
pub use homes::Homes;
pub use login::{Attachments, Login};
pub use outside::{Publish, RoomView, SessionView};
pub use presence::Roll;
pub use retention::RetentionRules;
pub use rights::{Grant, Right, Rights, RoomRights, TokenRate};
pub use rules::{Identity, Rules};
pub use sample::{Loud, Stage, Stamp, Stamps};
pub use shard::{Counts, Flow, Shard, Usage};
