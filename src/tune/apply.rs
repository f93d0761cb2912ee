//! Setting a profile's values and putting the former ones back.
//!
//! Journal first, then each value: announce, write, read back, compare. Any failure puts everything back. Going back is in reverse order, works from
//! the journal alone after a crash, and never overwrites a value that somebody else has set meanwhile: that one is reported with all three values.

use super::journal::{Change, Journal, Progress, State, StateError, Story};
use super::machine::{Machine, Place};
use super::plan::{Plan, Step};

/// What happens to whoever watches: each is told before it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The journal holds all former values; nothing is changed yet.
    Written,
    Announced(&'a Change),
    Wrote(&'a Change),
    Confirmed(&'a Change),
    Reverting(&'a Change),
}

/// Whether to go on; stopping leaves everything as a crash at this point would.
pub type Watch<'a> = dyn FnMut(Event<'_>) -> bool + 'a;

/// Why values could not be set.
#[derive(Debug)]
pub enum Failure {
    State(StateError),
    /// Another profile is in force.
    Other {
        profile: String,
    },
    /// A value could not be written, or reads back differently; everything that was set is put back.
    Value {
        change: Box<Change>,
        why: String,
        reverted: Box<Result<Reverted, StateError>>,
    },
    /// The watcher stopped it.
    Stopped,
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// How going back went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reverted {
    /// Values put back, newest first.
    pub back: Vec<Change>,
    /// Values that somebody else has changed since: what is there now.
    pub foreign: Vec<(Change, String)>,
    /// Values that can't be read or written any more, and why.
    pub failed: Vec<(Change, String)>,
    /// The journal was of another boot: nothing of it is in force.
    pub gone: bool,
}

impl Reverted {
    pub fn clean(&self) -> bool {
        self.foreign.is_empty() && self.failed.is_empty()
    }
}

/// What is already known of a profile in force.
#[derive(Debug)]
pub struct Work<'a> {
    pub machine: &'a Machine,
    pub state: &'a State,
    pub now_unix_ms: u64,
}

impl Work<'_> {
    /// Sets what the plan changes, held devices left out (the keeper's). Gives the open journal and the number of values set.
    ///
    /// Applying the same profile again sets what has drifted and keeps the *first* former values.
    pub fn apply(&self, plan: &Plan, watch: &mut Watch<'_>) -> Result<(Journal, Vec<Change>), Failure> {
        let boot = self.machine.boot_id();
        let story = match self.state.story()? {
            Some(story) if story.boot_id != boot || story.profile.is_empty() => {
                self.state.close()?;
                None
            }
            Some(story) if story.profile != plan.profile => return Err(Failure::Other { profile: story.profile }),
            story => story,
        };
        let mut journal = match &story {
            Some(story) => self.state.resume(story)?,
            None => self.state.begin(&plan.profile, &boot, self.now_unix_ms)?,
        };
        let changes = announce(&mut journal, story.as_ref(), plan)?;
        if !watch(Event::Written) {
            return Err(Failure::Stopped);
        }
        let (held, written): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(_, change)| matches!(change.place, Place::Held(_)));
        for (n, change) in &written {
            self.set(&mut journal, (*n, change), plan, watch)?;
        }
        Ok((journal, held.into_iter().map(|(_, change)| change).collect()))
    }

    fn set(&self, journal: &mut Journal, (n, change): (usize, &Change), plan: &Plan, watch: &mut Watch<'_>) -> Result<(), Failure> {
        journal.setting(n)?;
        if !watch(Event::Announced(change)) {
            return Err(Failure::Stopped);
        }
        let done = self.machine.write(&change.place, &change.new).map_err(|why| format!("can't be written: {why}"));
        if !watch(Event::Wrote(change)) {
            return Err(Failure::Stopped);
        }
        let reads = done.and_then(|()| self.machine.read(&change.place).map_err(|why| format!("can't be read back: {why}")));
        let checked = reads.and_then(|reads| {
            let step = plan.steps.iter().find(|step| step.place.as_ref() == Some(&change.place));
            let met = step.is_some_and(|step| step.setting.values.met(&reads, &step.wanted));
            if met { Ok(reads) } else { Err(format!("reads back as {reads:?}")) }
        });
        match checked {
            Ok(reads) => {
                journal.set(n, &reads)?;
                if watch(Event::Confirmed(change)) { Ok(()) } else { Err(Failure::Stopped) }
            }
            Err(why) => {
                let reverted = Box::new(self.revert(watch));
                Err(Failure::Value { change: Box::new(change.clone()), why, reverted })
            }
        }
    }

    /// Puts everything back that the journal tells of, newest first, and closes it if nothing is left to do.
    pub fn revert(&self, watch: &mut Watch<'_>) -> Result<Reverted, StateError> {
        let mut done = Reverted::default();
        let Some(story) = self.state.story()? else { return Ok(done) };
        if story.boot_id != self.machine.boot_id() {
            done.gone = true;
            self.state.close()?;
            return Ok(done);
        }
        for (change, progress) in story.changes.iter().rev() {
            if matches!(change.place, Place::Held(_)) || *progress == Progress::Planned {
                continue;
            }
            if !watch(Event::Reverting(change)) {
                return Ok(done);
            }
            self.put_back(change, progress, &mut done);
        }
        if done.failed.is_empty() {
            self.state.close()?;
        }
        Ok(done)
    }

    fn put_back(&self, change: &Change, progress: &Progress, done: &mut Reverted) {
        let present = match self.machine.read(&change.place) {
            Ok(present) => present,
            Err(why) => return done.failed.push((change.clone(), format!("can't be read: {why}"))),
        };
        // An announced change is ours whatever the kernel made of it: nobody else was told of it.
        let ours = match progress {
            Progress::Set { reads } => present == *reads,
            Progress::Announced | Progress::Planned => true,
        };
        if normal(&present) == normal(&change.old) {
            return;
        }
        if !ours {
            return done.foreign.push((change.clone(), present));
        }
        let written = self.machine.write(&change.place, &change.old).map_err(|why| format!("can't be written: {why}"));
        let read = written.and_then(|()| self.machine.read(&change.place).map_err(|why| format!("can't be read back: {why}")));
        match read {
            Ok(reads) if normal(&reads) == normal(&change.old) => done.back.push(change.clone()),
            Ok(reads) => done.failed.push((change.clone(), format!("was set back to {:?} and reads as {reads:?}", change.old))),
            Err(why) => done.failed.push((change.clone(), why)),
        }
    }
}

/// One form of a file's text, without knowing its type: the chosen word of a choice, or the text.
fn normal(text: &str) -> &str {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    chosen.unwrap_or(text).trim()
}

/// Writes every change of the plan down; those of an earlier time keep their number and their former value.
fn announce(journal: &mut Journal, story: Option<&Story>, plan: &Plan) -> Result<Vec<(usize, Change)>, Failure> {
    let mut changes = Vec::new();
    for step in plan.changes() {
        let Some(change) = change(step) else { continue };
        let known = story.and_then(|story| story.position(&change.place).map(|n| (n, story.changes[n].0.clone())));
        changes.push(match known {
            Some((n, first)) if first.new == change.new => (n, first),
            // The same place with another wish: a new change whose former value is the first one.
            Some((_, first)) => {
                let change = Change { old: first.old, ..change };
                (journal.change(change.clone())?, change)
            }
            None => (journal.change(change.clone())?, change),
        });
    }
    Ok(changes)
}

fn change(step: &Step) -> Option<Change> {
    let present = step.present.as_deref()?;
    Some(Change { id: step.setting.id.clone(), place: step.place.clone()?, old: normal(present).to_owned(), new: step.wanted.text.clone() })
}
