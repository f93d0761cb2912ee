//! What every request of the control plane can reach: the shards' counters, the ways into the shards, the supervisor.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crossbeam_channel::Sender;
use tokio::sync::oneshot;

use super::gate::Token;
use super::problem::Problem;
use crate::auth::Pool;
use crate::chat::Homes;
use crate::config::Settings;
use crate::ids::ShardId;
use crate::mesh::directory::Directory;
use crate::reactor::counters::{Counters, Shared};
use crate::reactor::errand::{Errand, Outcome, Wish};
use crate::ring::Bells;
use crate::sys::clock;
use crate::sys::signals::Signal;

/// A look at a shard may take this long.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(2);

/// The ways to the shards and what they say of themselves.
#[derive(Debug)]
pub struct Shards {
    pub doors: Vec<Sender<Errand>>,
    pub bells: Arc<Bells>,
    pub counters: Vec<Arc<Counters>>,
    pub shared: Arc<Shared>,
    pub directory: Arc<Directory>,
    pub homes: Homes,
}

/// What does not change while the process lives.
#[derive(Debug)]
pub struct Facts {
    pub settings: Arc<Settings>,
    pub node: String,
    pub epoch: u32,
    /// The addresses that clients come to.
    pub addresses: Vec<std::net::SocketAddr>,
    /// What this kernel's io_uring has.
    pub features: String,
    pub connections_max: usize,
}

/// The control plane's view of the process.
#[derive(Debug)]
pub struct Desk {
    pub(super) shards: Shards,
    pub(super) facts: Facts,
    pub(super) pool: Option<Arc<Pool>>,
    supervisor: Sender<Signal>,
    token: RwLock<Option<Token>>,
    pub(super) started_ns: u64,
}

impl Desk {
    pub fn new(shards: Shards, facts: Facts, pool: Option<Arc<Pool>>, supervisor: Sender<Signal>, token: Option<Token>) -> Self {
        Self { shards, facts, pool, supervisor, token: RwLock::new(token), started_ns: clock::monotonic_ns() }
    }

    pub fn replace_token(&self, token: Option<Token>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    pub(super) fn token(&self) -> Option<Token> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a wish to a shard; the answer comes by the deadline or not at all.
    pub(super) fn send(&self, shard: ShardId, wish: Wish, patience: Duration) -> Result<Asked, Problem> {
        let (tell, told) = oneshot::channel();
        let deadline_ns = clock::monotonic_ns() + u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX / 2);
        let done = Box::new(move |outcome| {
            // Whoever asked may have gone.
            let _ = tell.send(outcome);
        });
        let errand = Errand { wish, deadline_ns, done };
        self.shards.doors[shard.index()].try_send(errand).map_err(|_| Problem::busy())?;
        self.shards.bells.wake(shard);
        Ok(Asked { told, patience })
    }

    pub(super) async fn ask(&self, shard: ShardId, wish: Wish) -> Result<Outcome, Problem> {
        self.send(shard, wish, LOOK_MAX)?.answer().await
    }

    pub(super) fn shard_ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        let count = u16::try_from(self.shards.doors.len()).unwrap_or(u16::MAX);
        (0..count).map(ShardId)
    }

    /// Tells the supervisor to drain, as SIGTERM does; once is enough.
    pub(super) fn drain(&self) -> Result<(), Problem> {
        if self.is_draining() {
            return Ok(());
        }
        self.supervisor.try_send(Signal::Drain).map_err(|_| Problem::new(503, "overloaded", "the supervisor does not listen"))
    }

    pub(super) fn is_draining(&self) -> bool {
        self.shards.shared.draining.load(Ordering::Relaxed)
    }

    /// The worst overload of any shard: 0, 1, 2.
    pub(super) fn overload(&self) -> u64 {
        self.shards.counters.iter().map(|counters| counters.levels.overload.get()).max().unwrap_or(0)
    }
}

/// A wish on its way.
#[derive(Debug)]
pub(super) struct Asked {
    told: oneshot::Receiver<Outcome>,
    patience: Duration,
}

impl Asked {
    pub(super) async fn answer(self) -> Result<Outcome, Problem> {
        match tokio::time::timeout(self.patience, self.told).await {
            Ok(Ok(Outcome::Busy)) => Err(Problem::busy()),
            Ok(Ok(outcome)) => Ok(outcome),
            // Dropped unanswered: late, or the shard is ending.
            Ok(Err(_)) | Err(_) => Err(Problem::late()),
        }
    }
}
