//! Reading: a file's text and the flags become validated [`Settings`].
//!
//! The text is parsed once, with the place of every key, so that an error found late (a relation between two keys) still names its line. Unknown
//! sections and keys are errors, with the nearest known one; a key is known only in its own section. Flags win over the file.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, KeySpec, SECTIONS};
use super::{ConfigError, Place, Settings, rooms};

/// What the command line sets. `None` and empty: not given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub listen: Vec<SocketAddr>,
    pub shards: Option<usize>,
    pub cpus: Option<Vec<usize>>,
    pub spin_us: Option<u64>,
    pub log_level: Option<log::LevelFilter>,
    pub insecure_open: bool,
    pub admin: Vec<SocketAddr>,
}

/// Why there are no settings.
#[derive(Debug)]
pub enum LoadError {
    Unreadable { file: String, why: std::io::Error },
    Bad(ConfigError),
}

/// Bytes of a config file, so that a wrong path (a device, a log) does not fill the memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the file, if any, lays the flags over it and validates.
pub fn load(path: Option<&Path>, flags: &Flags) -> Result<Settings, LoadError> {
    let Some(path) = path else { return parse("", "", flags).map_err(LoadError::Bad) };
    let file = path.display().to_string();
    let text = read(path).map_err(|why| LoadError::Unreadable { file: file.clone(), why })?;
    parse(&file, &text, flags).map_err(LoadError::Bad)
}

/// The settings of a file's text; `file` is its name in errors.
pub fn parse(file: &str, text: &str, flags: &Flags) -> Result<Settings, ConfigError> {
    let mut reader = Reader { file, text, settings: Settings::default(), places: Vec::new() };
    reader.read()?;
    reader.lay_over(flags);
    reader.settings.validate().map_err(|error| {
        let place = reader.places.iter().rev().find(|(key, _)| *key == error.key);
        match place {
            Some((_, place)) => error.at(place.clone()),
            None => error,
        }
    })?;
    Ok(reader.settings)
}

fn read(path: &Path) -> Result<String, std::io::Error> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("larger than 1 MiB: is it the right file?"));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("not UTF-8 text: is it the right file?"))
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    settings: Settings,
    /// Where each key that was set got its value; the last one counts.
    places: Vec<(String, Place)>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), ConfigError> {
        let document = DeTable::parse(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(at, "", one_line(error.message()))
        })?;
        for (name, value) in document.get_ref() {
            self.section(name, value)?;
        }
        Ok(())
    }

    fn section(&mut self, name: &Spanned<Cow<'_, str>>, value: &Spanned<DeValue<'_>>) -> Result<(), ConfigError> {
        let at = name.span().start;
        let section: &str = name.get_ref();
        if section == rooms::SECTION {
            return self.rooms(value);
        }
        if !SECTIONS.iter().any(|(known, _)| *known == section) {
            return Err(self.wrong(at, section, unknown_section(section)));
        }
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.wrong(at, section, format!("is a section: write [{section}] on a line of its own")));
        };
        for (name, value) in table {
            self.key(section, name, value)?;
        }
        Ok(())
    }

    fn rooms(&mut self, value: &Spanned<DeValue<'_>>) -> Result<(), ConfigError> {
        let rules = rooms::read(value).map_err(|wrong| self.wrong(wrong.at, &wrong.key, wrong.why))?;
        for (index, (at, rule)) in rules.into_iter().enumerate() {
            self.places.push((rooms::path(index), self.place(at)));
            self.settings.rooms.push(rule);
        }
        Ok(())
    }

    fn key(&mut self, section: &str, name: &Spanned<Cow<'_, str>>, value: &Spanned<DeValue<'_>>) -> Result<(), ConfigError> {
        let at = name.span().start;
        let path = format!("{section}.{}", name.get_ref());
        let Some(spec) = KEYS.iter().find(|spec| spec.section == section && spec.name == name.get_ref().as_ref()) else {
            return Err(self.wrong(at, &path, unknown_key(section, name.get_ref())));
        };
        (spec.slot)(&mut self.settings).read(value.get_ref()).map_err(|why| self.wrong(value.span().start, &path, why))?;
        self.places.push((path, self.place(at)));
        Ok(())
    }

    fn lay_over(&mut self, flags: &Flags) {
        let server = &mut self.settings.server;
        let mut set = |key: &str, flag| self.places.push((key.to_owned(), Place::Flag(flag)));
        if !flags.listen.is_empty() {
            server.listen.clone_from(&flags.listen);
            set("server.listen", "--listen");
        }
        if let Some(shards) = flags.shards {
            server.shards = shards;
            set("server.shards", "--shards");
        }
        if let Some(cpus) = &flags.cpus {
            server.cpus.clone_from(cpus);
            set("server.cpus", "--cpus");
        }
        if let Some(spin_us) = flags.spin_us {
            server.spin_us = spin_us;
            set("server.spin_us", "--spin-us");
        }
        if let Some(level) = flags.log_level {
            self.settings.log.level = level;
            set("log.level", "--log-level");
        }
        if flags.insecure_open {
            self.settings.auth.insecure_open = true;
            set("auth.insecure_open", "--insecure-open");
        }
        if !flags.admin.is_empty() {
            self.settings.admin.listen.clone_from(&flags.admin);
            set("admin.listen", "--admin");
        }
    }

    fn place(&self, at: usize) -> Place {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Place::File { file: self.file.to_owned(), line }
    }

    fn wrong(&self, at: usize, key: &str, message: String) -> ConfigError {
        ConfigError::of_key(key, message).at(self.place(at))
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn unknown_section(section: &str) -> String {
    let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).chain([rooms::SECTION]).collect();
    // A key above the first section header is the likelier slip.
    if let Some(spec) = KEYS.iter().find(|spec| spec.name == section) {
        return format!("belongs under [{}]", spec.section);
    }
    match nearest(section, known.iter().copied()) {
        Some(near) => format!("no such section; did you mean [{near}]?"),
        None => format!("no such section; there are {}", known.join(", ")),
    }
}

fn unknown_key(section: &str, name: &str) -> String {
    if let Some(elsewhere) = KEYS.iter().find(|spec| spec.name == name) {
        return format!("no such key here; {name} belongs under [{}]", elsewhere.section);
    }
    let here = || KEYS.iter().filter(|spec| spec.section == section).map(|spec| spec.name);
    if let Some(near) = nearest(name, here()) {
        return format!("no such key; did you mean {near}?");
    }
    if let Some(near) = nearest(name, KEYS.iter().map(|spec| spec.name)) {
        let path = KEYS.iter().find(|spec| spec.name == near).map(KeySpec::path).unwrap_or_default();
        return format!("no such key; did you mean {path}?");
    }
    format!("no such key; [{section}] has {}", here().collect::<Vec<_>>().join(", "))
}

/// The known word with the fewest edits, if it is near enough to be a slip.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A word of this length is no slip, and the distance is quadratic.
    if word.len() > 64 {
        return None;
    }
    let (distance, near) = known.map(|known| (edits(word, known), known)).min()?;
    (distance <= 1 + word.len() / 4).then_some(near)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let swap = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = swap.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Settings, ConfigError> {
        parse("ringroom.toml", text, &Flags::default())
    }

    fn refused(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parsed(""), Ok(Settings::default()));
        assert_eq!(parsed("[server]\n"), Ok(Settings::default()));
    }

    #[test]
    fn each_kind_of_value_is_read() {
        let text = "[server]\nlisten = [\"[::1]:1\", \"127.0.0.1:2\"]\ncpus = \"0-2\"\nnode = \"a\"\n\
                    [auth]\ninsecure_open = true\n[limits]\nrooms_per_session = 0x10\n[ring]\nbacklog = 1_000\n[log]\nlevel = \"debug\"\n";
        let settings = parsed(text).unwrap();
        assert_eq!(settings.server.listen, ["[::1]:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()]);
        assert_eq!(settings.server.cpus, [0, 1, 2]);
        assert_eq!(settings.server.node, "a");
        assert!(settings.auth.insecure_open);
        assert_eq!(settings.limits.rooms_per_session, 16);
        assert_eq!(settings.ring.backlog, 1_000);
        assert_eq!(settings.log.level, log::LevelFilter::Debug);
    }

    #[test]
    fn a_bad_value_names_file_line_key_and_what_is_allowed() {
        let cases = [
            ("[server]\nshards = 257", "ringroom.toml:2: server.shards: must be a whole number from 0 to 256, not 257"),
            ("[server]\n\nshards = -1", "ringroom.toml:3: server.shards: must be a whole number from 0 to 256, not -1"),
            ("[server]\nshards = \"2\"", "ringroom.toml:2: server.shards: must be a whole number from 0 to 256, not \"2\""),
            ("[server]\nshards = 1.5", "ringroom.toml:2: server.shards: must be a whole number from 0 to 256, not 1.5"),
            ("[server]\nshards = 99999999999999999999", "ringroom.toml:2: server.shards: must be a whole number from 0 to 256"),
            ("[ring]\nbuffers = 70000", "ringroom.toml:2: ring.buffers: must be a whole number from 16 to 32768, not 70000"),
            ("[auth]\ninsecure_open = 1", "ringroom.toml:2: auth.insecure_open: must be true or false, not 1"),
            ("[server]\nlisten = \"127.0.0.1:1\"", "ringroom.toml:2: server.listen: must be a list like"),
            ("[server]\nlisten = [\n\"localhost:1\"]", "ringroom.toml:2: server.listen: must be an IP address with a port"),
            ("[server]\nproxies = [\"10.0.0.1/8\"]", "ringroom.toml:2: server.proxies: 10.0.0.1/8 has bits behind its prefix"),
            ("[server]\nproxies = \"10.0.0.1\"", "ringroom.toml:2: server.proxies: must be a list of texts"),
            ("[server]\ncpus = \"3-1\"", "ringroom.toml:2: server.cpus: 3-1 runs backwards"),
            ("[log]\nlevel = \"loud\"", "ringroom.toml:2: log.level: must be \"off\" or \"error\""),
        ];
        for (text, start) in cases {
            assert!(refused(text).starts_with(start), "{text:?}: {}", refused(text));
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let cases = [
            ("[server]\nshard = 1", "ringroom.toml:2: server.shard: no such key; did you mean shards?"),
            ("[limits]\nheartbeat = 1", "ringroom.toml:2: limits.heartbeat: no such key; did you mean heartbeat_ms?"),
            ("[limits]\nshards = 1", "ringroom.toml:2: limits.shards: no such key here; shards belongs under [server]"),
            ("[log]\nzzzzzzzz = 1", "ringroom.toml:2: log.zzzzzzzz: no such key; [log] has level"),
            ("shards = 1", "ringroom.toml:1: shards: belongs under [server]"),
            ("\n[sever]\nshards = 1", "ringroom.toml:2: sever: no such section; did you mean [server]?"),
            ("[colours]", "ringroom.toml:1: colours: no such section; there are server, auth"),
            ("server = 1", "ringroom.toml:1: server: is a section"),
        ];
        for (text, start) in cases {
            assert!(refused(text).starts_with(start), "{text:?}: {}", refused(text));
        }
    }

    #[test]
    fn broken_toml_names_its_line() {
        assert!(refused("[server]\nshards = = 1").starts_with("ringroom.toml:2: "), "{}", refused("[server]\nshards = = 1"));
        assert!(refused("[server]\nshards = 1\nshards = 2").starts_with("ringroom.toml:3: "));
        assert!(!refused("[server\n").contains('\n'));
    }

    #[test]
    fn a_broken_relation_names_the_line_that_set_the_key() {
        let text = "[queues]\nhard_mark_bytes = 200_000\n";
        assert!(refused(text).starts_with("ringroom.toml:2: queues.hard_mark_bytes: "), "{}", refused(text));
    }

    #[test]
    fn flags_win_over_the_file_and_take_the_blame() {
        let flags = Flags { shards: Some(3), listen: vec!["127.0.0.1:9".parse().unwrap()], ..Flags::default() };
        let settings = parse("f", "[server]\nshards = 1\nspin_us = 7\n", &flags).unwrap();
        assert_eq!((settings.server.shards, settings.server.spin_us, settings.server.listen[0].port()), (3, 7, 9));
        let flags = Flags { shards: Some(300), ..Flags::default() };
        let error = parse("f", "[server]\nshards = 1\n", &flags).unwrap_err().to_string();
        assert!(error.starts_with("--shards: server.shards: must be a whole number from 0 to 256"), "{error}");
    }

    #[test]
    fn an_unreadable_file_is_told_apart_from_a_bad_one() {
        assert!(matches!(load(Some(Path::new("/nonexistent/x.toml")), &Flags::default()), Err(LoadError::Unreadable { .. })));
        assert!(matches!(load(Some(Path::new("/dev/zero")), &Flags::default()), Err(LoadError::Unreadable { .. })));
        assert!(matches!(load(Some(Path::new("/")), &Flags::default()), Err(LoadError::Unreadable { .. })));
    }
}
