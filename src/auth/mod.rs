//! Tokens: from a client's bytes to what they allow. Never on a shard: a signature takes 30 to 100 us.
//!
//! A [`Pool`] of threads checks tokens against [`KeySet`]. A shard hands a token over with [`Verifier::ask`] and goes on; the [`Answer`] comes back
//! through a channel of the shard's own, behind its bell. Every queue has a bound and every job a deadline: what comes too late is thrown away by
//! both sides and counted. Checked tokens are remembered under a keyed hash, never as themselves; none is ever logged.
//!
//! The algorithm belongs to the key, never to the token. [`Verifier`] is the seam at which a simulation puts its own. [`Failures`] counts failed
//! logins by address.

mod cache;
mod claims;
mod failures;
mod keys;
mod pool;

pub use failures::{FailureRules, Failures};
pub use keys::{Algorithm, Checks, KeyError, KeySet, Pass, SECRET_BYTES_MIN, secret};
pub use pool::{Pool, PoolCounts};

use crate::ids::{Key, Now};

/// Which question an answer belongs to: a connection may ask more than once, and its slot may have a new owner by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub connection: Key,
    /// Rises with every question of the shard.
    pub ask: u64,
}

/// Why a token is not good. The client is told no more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The form, the signature, a claim.
    Bad,
    /// All is well but the time.
    Expired,
    /// Nobody had looked at it when its deadline came.
    Late,
}

/// The verdict on one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub ticket: Ticket,
    pub verdict: Result<Pass, Denied>,
}

/// Too many tokens wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Whoever checks tokens, as a shard sees it. An answer may come late, or never: the shard keeps a deadline for each.
pub trait Verifier: std::fmt::Debug + Send {
    fn ask(&mut self, now: Now, ticket: Ticket, token: &str) -> Result<(), Full>;
    /// Moves the answers that are there to `out`.
    fn answers(&mut self, now: Now, out: &mut Vec<Answer>);
    /// When the next answer is to be fetched, CLOCK_MONOTONIC nanoseconds; `None` when none is due or a bell will ring for it.
    fn next_ns(&self) -> Option<u64>;
}
