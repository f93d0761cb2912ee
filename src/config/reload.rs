//! Settings read again while the server runs: which of them count at once, and which want a restart.

use super::keys::{KEYS, KeySpec};
use super::{Limits, Settings};

/// What comes of a file that was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// What is in force from now on.
    pub settings: Settings,
    /// Keys that changed and count, and keys that changed and do not.
    pub taken: Vec<String>,
    pub restart: Vec<String>,
}

/// Lays over the settings in force what a running server can take from fresh ones.
pub fn reload(old: &Settings, fresh: &Settings) -> Reloaded {
    let limits = Limits {
        connections_max: old.limits.connections_max,
        connections_per_shard_max: old.limits.connections_per_shard_max,
        ..fresh.limits.clone()
    };
    let settings = Settings { limits, log: fresh.log.clone(), ..old.clone() };
    Reloaded { taken: changed(old, &settings), restart: changed(&settings, fresh), settings }
}

fn changed(before: &Settings, after: &Settings) -> Vec<String> {
    let (mut before, mut after) = (before.clone(), after.clone());
    let keys = KEYS.iter().filter(|spec| (spec.slot)(&mut before).print() != (spec.slot)(&mut after).print());
    keys.map(KeySpec::path).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{Flags, parse};

    #[test]
    fn the_keys_that_say_so_count_at_once_and_no_others() {
        for spec in KEYS.iter().filter(|spec| spec.path() != "auth.mode") {
            let old = Settings::default();
            let Some(fresh) = changed_in(spec) else { continue };
            let reloaded = reload(&old, &fresh);
            let (taken, restart) = if spec.reloads() { (vec![spec.path()], vec![]) } else { (vec![], vec![spec.path()]) };
            assert_eq!((&reloaded.taken, &reloaded.restart), (&taken, &restart), "{}", spec.path());
            let in_force = (spec.slot)(&mut reloaded.settings.clone()).print();
            let expected = (spec.slot)(&mut if spec.reloads() { fresh } else { old }).print();
            assert_eq!(in_force, expected, "{}", spec.path());
        }
    }

    /// The defaults with another value of one key; `None` where no simple text is one.
    fn changed_in(spec: &KeySpec) -> Option<Settings> {
        let now = (spec.slot)(&mut Settings::default()).print();
        let words = ["\"debug\"", "\"reject\"", "\"close\"", "true", "\"x\"", "[\"x\"]", "[\"127.0.0.1:1\"]", "\"0\""];
        let numbers = now.replace('_', "").parse::<u64>().map(|n| vec![(n + 1).to_string(), (n * 2).to_string(), (n / 2).to_string()]);
        let tries = numbers.unwrap_or_default().into_iter().chain(words.map(str::to_owned));
        let parsed =
            tries.filter_map(|value| parse("f", &format!("[{}]\n{} = {value}\n", spec.section, spec.name), &Flags::default()).ok());
        parsed.into_iter().find(|settings| (spec.slot)(&mut settings.clone()).print() != now)
    }

    #[test]
    fn most_keys_were_tried() {
        assert!(KEYS.iter().filter_map(changed_in).count() > KEYS.len() - 5);
    }
}
