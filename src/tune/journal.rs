//! The journal: what was there before, written down and flushed to the disk before the first value is changed.
//!
//! A file of JSON lines below the state directory, appended to and never rewritten, so that a crash at any byte leaves what was known before it: a
//! torn last line is no line. A value whose change was announced but not confirmed may or may not have been written; going back looks at what is there.
//! The journal of another boot is closed: what it describes is gone. One process at a time holds the state directory's lock.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::machine::Place;

const FILE: &str = "journal.jsonl";
/// The last journal that was closed, for whoever wants to know what happened.
const CLOSED: &str = "journal.closed.jsonl";
const LOCK: &str = "lock";
const VERSION: u32 = 1;

/// A value that is to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub id: String,
    pub place: Place,
    pub old: String,
    pub new: String,
}

/// The process that holds devices open, told from a later one with the same number by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    pub pid: i32,
    pub started: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begin {
        version: u32,
        profile: String,
        boot_id: String,
        at_unix_ms: u64,
    },
    Change(Change),
    /// The write of this change comes next.
    Setting(usize),
    /// It is done, and reads so now.
    Set {
        change: usize,
        reads: String,
    },
    Keeper(Keeper),
    Until {
        unix_ms: u64,
    },
    Applied,
}

/// How far a change came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Never touched.
    Planned,
    /// Perhaps written.
    Announced,
    Set {
        reads: String,
    },
}

/// What a journal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    pub profile: String,
    pub boot_id: String,
    pub at_unix_ms: u64,
    pub changes: Vec<(Change, Progress)>,
    pub keeper: Option<Keeper>,
    /// When it goes back by itself, milliseconds since 1970.
    pub until_unix_ms: Option<u64>,
    /// All values were set.
    pub applied: bool,
}

impl Story {
    fn add(&mut self, line: Line) {
        match line {
            Line::Begin { profile, boot_id, at_unix_ms, .. } => {
                self.profile = profile;
                self.boot_id = boot_id;
                self.at_unix_ms = at_unix_ms;
            }
            Line::Change(change) => self.changes.push((change, Progress::Planned)),
            Line::Setting(n) => self.progress(n, Progress::Announced),
            Line::Set { change, reads } => self.progress(change, Progress::Set { reads }),
            Line::Keeper(keeper) => self.keeper = Some(keeper),
            Line::Until { unix_ms } => self.until_unix_ms = Some(unix_ms),
            Line::Applied => self.applied = true,
        }
    }

    fn progress(&mut self, n: usize, progress: Progress) {
        if let Some((_, known)) = self.changes.get_mut(n) {
            *known = progress;
        }
    }

    /// The number of the change at a place.
    pub fn position(&self, place: &Place) -> Option<usize> {
        self.changes.iter().position(|(change, _)| change.place == *place)
    }
}

/// The state directory, locked against everybody else until dropped.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    _lock: Flock<File>,
}

/// Why the state directory can't be used.
#[derive(Debug)]
pub enum StateError {
    /// Another process is at work.
    Locked(PathBuf),
    Io(PathBuf, io::Error),
    Damaged(PathBuf, String),
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked(path) => write!(f, "another `ringroom tune` is at work (it holds {}): wait for it", path.display()),
            Self::Io(path, why) => write!(f, "{}: {why} (--state DIR chooses another directory)", path.display()),
            Self::Damaged(path, why) => {
                write!(f, "{} is damaged ({why}): look at it, put the values back by hand, then delete it", path.display())
            }
        }
    }
}

impl State {
    /// Makes the directory if need be, and takes the lock.
    pub fn lock(folder: &Path) -> Result<Self, StateError> {
        let io = |why| StateError::Io(folder.to_owned(), why);
        fs::create_dir_all(folder).map_err(io)?;
        let path = folder.join(LOCK);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|why| StateError::Io(path.clone(), why))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(StateError::Locked(path)),
            Err((_, errno)) => Err(StateError::Io(path, errno.into())),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn story(&self) -> Result<Option<Story>, StateError> {
        story(&self.folder)
    }

    /// Starts a journal.
    pub fn begin(&self, profile: &str, boot_id: &str, at_unix_ms: u64) -> Result<Journal, StateError> {
        let path = self.folder.join(FILE);
        let io = |why| StateError::Io(path.clone(), why);
        let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(io)?;
        let mut journal = Journal { path: path.clone(), file, changes: 0 };
        journal.append(&Line::Begin { version: VERSION, profile: profile.to_owned(), boot_id: boot_id.to_owned(), at_unix_ms })?;
        // The name has to last as well as the bytes.
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok(journal)
    }

    /// Goes on with the journal that is there.
    pub fn resume(&self, story: &Story) -> Result<Journal, StateError> {
        let path = self.folder.join(FILE);
        let io = |why| StateError::Io(path.clone(), why);
        let mut file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        // What follows a torn line must not become a part of it.
        file.write_all(b"\n").map_err(io)?;
        Ok(Journal { path: path.clone(), file, changes: story.changes.len() })
    }

    /// The journal is done with.
    pub fn close(&self) -> Result<(), StateError> {
        let path = self.folder.join(FILE);
        fs::rename(&path, self.folder.join(CLOSED)).map_err(|why| StateError::Io(path, why))
    }
}

/// Reads without the lock: for `status`, which may look while another process works.
pub fn story(folder: &Path) -> Result<Option<Story>, StateError> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(StateError::Io(path, why)),
    };
    let mut story = Story::default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    for (i, line) in lines.iter().enumerate() {
        match serde_json::from_str(line) {
            Ok(line) => {
                if let Line::Begin { version, .. } = &line
                    && *version != VERSION
                {
                    return Err(StateError::Damaged(path, format!("version {version}, this program writes {VERSION}")));
                }
                story.add(line);
            }
            // A crash tears the last line of its time; what came behind it began a new one.
            Err(_) if i + 1 == lines.len() || line.len() < 2 || !line.ends_with('}') && !line.ends_with('"') => {}
            Err(why) => return Err(StateError::Damaged(path, format!("line {}: {why}", i + 1))),
        }
    }
    // Torn in its first line: nothing was changed yet.
    Ok(Some(story))
}

/// A journal that is written to. Every line is on the disk when its call returns.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    changes: usize,
}

impl Journal {
    fn append(&mut self, line: &Line) -> Result<(), StateError> {
        let mut bytes = serde_json::to_vec(line).expect("texts and numbers are JSON");
        bytes.push(b'\n');
        let done = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        done.map_err(|why| StateError::Io(self.path.clone(), why))
    }

    /// Announces a change; gives its number.
    pub fn change(&mut self, change: Change) -> Result<usize, StateError> {
        self.append(&Line::Change(change))?;
        self.changes += 1;
        Ok(self.changes - 1)
    }

    pub fn setting(&mut self, change: usize) -> Result<(), StateError> {
        self.append(&Line::Setting(change))
    }

    pub fn set(&mut self, change: usize, reads: &str) -> Result<(), StateError> {
        self.append(&Line::Set { change, reads: reads.to_owned() })
    }

    pub fn keeper(&mut self, keeper: Keeper) -> Result<(), StateError> {
        self.append(&Line::Keeper(keeper))
    }

    pub fn until(&mut self, unix_ms: u64) -> Result<(), StateError> {
        self.append(&Line::Until { unix_ms })
    }

    pub fn applied(&mut self) -> Result<(), StateError> {
        self.append(&Line::Applied)
    }
}
