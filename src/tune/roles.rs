//! Which CPUs do what: the roles of a profile (shards, interrupts, housekeeping, client), made concrete for the machine at hand.
//!
//! A role is written as a list (`0-3`), as another role, or in words: `all`, `first`, `last`, `all but first`, `all but last`. A profile written for
//! some machine so holds on another one.

use crate::sys::affinity::{self, Cpu};

use super::value::list;

/// The roles a profile may give.
pub const NAMES: [&str; 4] = ["shards", "interrupts", "housekeeping", "client"];
/// A role that names a role that names a role.
const DEPTH_MAX: usize = 4;

/// Roles and their CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    all: Vec<Cpu>,
    roles: Vec<(String, String)>,
}

impl Roles {
    /// `all`: the CPUs of the machine, rising; the roles as written. Every role is looked at, so that a wrong one is found at once.
    pub fn of(all: &[Cpu], roles: &[(&str, &str)]) -> Result<Self, String> {
        let roles = roles.iter().map(|(name, cpus)| ((*name).to_owned(), (*cpus).to_owned())).collect();
        let made = Self { all: all.to_vec(), roles };
        for (name, _) in &made.roles {
            made.cpus(name)?;
        }
        Ok(made)
    }

    /// CPUs of a role, of words, or of a list; none for an empty text.
    pub fn cpus(&self, text: &str) -> Result<Vec<Cpu>, String> {
        self.look_up(text.trim(), 0)
    }

    fn look_up(&self, text: &str, depth: usize) -> Result<Vec<Cpu>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the role {text:?} leads back to itself"));
        }
        if let Some((_, cpus)) = self.roles.iter().find(|(name, _)| name == text) {
            return self.look_up(cpus.trim(), depth + 1);
        }
        let all = &self.all;
        match text {
            "" => Ok(Vec::new()),
            "all" => Ok(all.clone()),
            "first" => Ok(all.iter().take(1).copied().collect()),
            "last" => Ok(all.iter().skip(all.len().saturating_sub(1)).copied().collect()),
            "all but first" => Ok(all.iter().skip(1).copied().collect()),
            "all but last" => Ok(all.iter().take(all.len().saturating_sub(1)).copied().collect()),
            _ => self.listed(text),
        }
    }

    fn listed(&self, text: &str) -> Result<Vec<Cpu>, String> {
        let cpus = affinity::parse_list(text).map_err(|_| {
            let roles: Vec<&str> = self.roles.iter().map(|(name, _)| name.as_str()).collect();
            format!("{text:?} is no list of CPUs like 0-3,6, no role of the profile ({}), and none of all, first, last, all but first, all but last", roles.join(", "))
        })?;
        match cpus.iter().find(|cpu| !self.all.contains(cpu)) {
            Some(absent) => Err(format!("CPU {absent} is not on this machine ({})", list(&self.all))),
            None => Ok(cpus),
        }
    }

    /// Puts lists for `{role}` in a text.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (role, after) = behind.split_once('}').ok_or("a { without its }")?;
            filled.push_str(before);
            filled.push_str(&list(&self.cpus(role)?));
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn cpus(text: &str) -> Result<String, String> {
        let all: Vec<Cpu> = (0..4).map(Cpu).collect();
        let roles = Roles::of(&all, &[("shards", "all but first"), ("interrupts", "shards"), ("client", "last")])?;
        roles.cpus(text).map(|cpus| list(&cpus))
    }

    #[test]
    fn roles_words_and_lists_become_cpus_of_this_machine() {
        assert_eq!(cpus("interrupts"), Ok("1-3".into()));
        assert_eq!(cpus("client"), Ok("3".into()));
        assert_eq!(cpus("all but last"), Ok("0-2".into()));
        assert_eq!(cpus("0,2"), Ok("0,2".into()));
        assert_eq!(cpus(""), Ok("".into()));
    }

    #[test]
    fn what_is_not_there_is_said() {
        assert!(cpus("7").unwrap_err().contains("CPU 7"));
        assert!(cpus("shard").unwrap_err().contains("interrupts"));
        let circle = Roles::of(&[Cpu(0)], &[("shards", "client"), ("client", "shards")]);
        assert!(circle.unwrap_err().contains("leads back"));
    }
}
