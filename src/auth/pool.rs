//! The threads that check tokens, the queue in front of them, the channels back.
//!
//! One bounded queue for all shards; a shard never has more questions open than its channel back has places, so no answer waits for room. A job that is
//! late when its turn comes is not checked any more: under overload the time goes to logins that somebody still waits for. A check that panics costs
//! its login, not the thread. The threads end when pool and handles are gone.

use std::hash::Hasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::{io, thread};

use ahash::RandomState;
use crossbeam_channel::{Receiver, Sender, bounded};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::cache::Cache;
use super::keys::{KeyError, KeySet, Pass};
use super::{Answer, Denied, Full, Ticket, Verifier};
use crate::config::Auth;
use crate::ids::{Now, ShardId};
use crate::ring::Bells;
use crate::sys::{affinity, clock};

/// How much the kernel prefers a shard to a verifier where they share a CPU: nice 10 is about a tenth of the weight.
const NICENESS: i32 = 10;

/// Counters of a pool; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    pub checked: u64,
    pub good: u64,
    /// Found in the cache, without a look at the signature.
    pub remembered: u64,
    /// Not checked, because nobody waited any longer.
    pub late: u64,
    pub panics: u64,
}

/// The threads; dropping it and its handles ends them.
#[derive(Debug)]
pub struct Pool {
    jobs: Sender<Job>,
    state: Arc<State>,
    settings: Auth,
    bells: Arc<Bells>,
}

/// A shard's end.
#[derive(Debug)]
struct Handle {
    shard: ShardId,
    jobs: Sender<Job>,
    to: Sender<Answer>,
    from: Receiver<Answer>,
    /// Questions without an answer taken.
    open: usize,
    open_max: usize,
    verify_ns: u64,
}

struct Job {
    ticket: Ticket,
    token: Box<str>,
    deadline_ns: u64,
    shard: ShardId,
    to: Sender<Answer>,
}

struct State {
    keys: RwLock<Keys>,
    cache: Mutex<Cache<Remembered>>,
    hash_key: [u8; 16],
    checked: AtomicU64,
    good: AtomicU64,
    remembered: AtomicU64,
    late: AtomicU64,
    panics: AtomicU64,
}

#[derive(Clone)]
struct Keys {
    set: Arc<KeySet>,
    /// Rises with every reload: what was found good by older keys is not remembered.
    generation: u64,
}

struct Remembered {
    pass: Pass,
    generation: u64,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads.
    pub fn start(settings: &Auth, keys: KeySet, bells: Arc<Bells>) -> io::Result<Self> {
        let (jobs, queue) = bounded(settings.verify_queue);
        let state = Arc::new(State::new(keys, settings.verify_cache)?);
        for index in 0..settings.verify_threads {
            let (queue, state, bells): (Receiver<Job>, _, _) = (queue.clone(), state.clone(), bells.clone());
            thread::Builder::new().name(format!("verify-{index}")).spawn(move || {
                if let Err(why) = affinity::be_nice(NICENESS) {
                    log::warn!("a verifier keeps its priority: {why}");
                }
                for job in queue {
                    state.judge(job, &bells);
                }
            })?;
        }
        Ok(Self { jobs, state, settings: settings.clone(), bells })
    }

    /// A shard's way to the threads; one per shard.
    pub fn handle(&self, shard: ShardId) -> Box<dyn Verifier> {
        debug_assert!(shard.index() < self.bells.shards());
        let (to, from) = bounded(self.settings.verify_queue);
        Box::new(Handle {
            shard,
            jobs: self.jobs.clone(),
            to,
            from,
            open: 0,
            open_max: self.settings.verify_queue,
            verify_ns: self.settings.verify_ms * 1_000_000,
        })
    }

    /// Reads the key files again: all of them count from now on, or, when one of them is bad, the old ones still do. Sessions that are in stay in.
    pub fn reload(&self) -> Result<usize, KeyError> {
        let fresh = KeySet::load(&self.settings)?;
        let count = fresh.len();
        self.state.replace_keys(fresh);
        Ok(count)
    }

    pub fn counts(&self) -> PoolCounts {
        self.state.counts()
    }

    /// Tokens that no thread has begun with.
    pub fn waiting(&self) -> usize {
        self.jobs.len()
    }
}

impl Verifier for Handle {
    fn ask(&mut self, now: Now, ticket: Ticket, token: &str) -> Result<(), Full> {
        if self.open >= self.open_max {
            return Err(Full);
        }
        let deadline_ns = now.mono_ns + self.verify_ns;
        let job = Job { ticket, token: token.into(), deadline_ns, shard: self.shard, to: self.to.clone() };
        self.jobs.try_send(job).map_err(|_| Full)?;
        self.open += 1;
        Ok(())
    }

    fn answers(&mut self, _now: Now, out: &mut Vec<Answer>) {
        let before = out.len();
        out.extend(self.from.try_iter());
        self.open -= out.len() - before;
    }

    fn next_ns(&self) -> Option<u64> {
        None
    }
}

impl State {
    fn new(keys: KeySet, cache_max: usize) -> io::Result<Self> {
        let random = || getrandom::u64().map_err(|why| io::Error::other(why.to_string()));
        let hasher = RandomState::with_seeds(random()?, random()?, random()?, random()?);
        let mut hash_key = [0; 16];
        getrandom::fill(&mut hash_key).map_err(|why| io::Error::other(why.to_string()))?;
        Ok(Self {
            keys: RwLock::new(Keys { set: Arc::new(keys), generation: 0 }),
            cache: Mutex::new(Cache::new(cache_max, hasher)),
            hash_key,
            checked: AtomicU64::new(0),
            good: AtomicU64::new(0),
            remembered: AtomicU64::new(0),
            late: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        })
    }

    fn judge(&self, job: Job, bells: &Bells) {
        let verdict = if clock::monotonic_ns() >= job.deadline_ns {
            count(&self.late);
            Err(Denied::Late)
        } else {
            catch_unwind(AssertUnwindSafe(|| self.check(&job.token, clock::unix_ms()))).unwrap_or_else(|_| {
                count(&self.panics);
                Err(Denied::Bad)
            })
        };
        // The channel has a place for every open question; only a shard that has ended does not listen.
        let _ = job.to.try_send(Answer { ticket: job.ticket, verdict });
        bells.wake(job.shard);
    }

    fn check(&self, token: &str, now_unix_ms: u64) -> Result<Pass, Denied> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let hash = self.hash(token);
        if let Some(pass) = self.recall(hash, keys.generation) {
            count(&self.remembered);
            return pass.at(now_unix_ms);
        }
        count(&self.checked);
        let pass = keys.set.verify(token)?.at(now_unix_ms)?;
        count(&self.good);
        self.cache().put(hash, Remembered { pass: pass.clone(), generation: keys.generation });
        Ok(pass)
    }

    fn recall(&self, hash: u128, generation: u64) -> Option<Pass> {
        let mut cache = self.cache();
        let found = cache.get_mut(hash)?;
        (found.generation == generation).then(|| found.pass.clone())
    }

    fn replace_keys(&self, fresh: KeySet) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *keys = Keys { set: Arc::new(fresh), generation: keys.generation + 1 };
        drop(keys);
        self.cache().clear();
    }

    fn cache(&self) -> MutexGuard<'_, Cache<Remembered>> {
        // Whoever panicked while holding it did so between whole entries, or the map's own invariants would have panicked first.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// 128 bits under a secret key: two tokens that meet here by chance, or by a client's search, do not happen.
    fn hash(&self, token: &str) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write(token.as_bytes());
        hasher.finish128().as_u128()
    }

    fn counts(&self) -> PoolCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PoolCounts {
            checked: read(&self.checked),
            good: read(&self.good),
            remembered: read(&self.remembered),
            late: read(&self.late),
            panics: read(&self.panics),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
