//! What holds for settings as a whole: each value in its range, and the relations between values.
//!
//! Called on what was read and by whoever fills [`Settings`] by hand. It looks at the values alone, never at the machine. The error names one
//! key: the one whose change mends it.

use std::net::SocketAddr;

use super::keys::KEYS;
use super::{AuthMode, ConfigError, DEFAULT_ADMIN, Settings, cpus};
use crate::ids::UserName;

impl Settings {
    /// Each value within its range, and the relations between them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut copy = self.clone();
        for spec in KEYS {
            (spec.slot)(&mut copy).check().map_err(|why| ConfigError::of_key(spec.path(), why))?;
        }
        self.check_server()?;
        self.check_auth()?;
        self.check_admin()?;
        self.check_queues()?;
        self.check_rooms()
    }

    /// Anybody who reaches some address of this server can log in as anybody: to be shouted, in the log and as a metric.
    pub fn is_insecure_open(&self) -> bool {
        self.auth.mode == AuthMode::Open && self.exposed().next().is_some()
    }

    /// What is allowed and yet deserves a word in the log.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.auth.mode == AuthMode::Open {
            if !self.auth.keys.is_empty() {
                warnings.push("auth.keys is set, but auth.mode is \"open\": no token is asked for".to_owned());
            }
            for address in self.exposed() {
                warnings.push(format!("auth.mode is \"open\" on {address}: anybody who reaches it can log in as anybody"));
            }
        }
        warnings
    }

    fn check_server(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        if server.listen.is_empty() {
            return Err(ConfigError::of_key("server.listen", "needs at least one address"));
        }
        if server.listen.len() > LISTEN_MAX {
            return Err(ConfigError::of_key("server.listen", format!("holds at most {LISTEN_MAX} addresses")));
        }
        // Port 0 is another port each time, so two of them are no double.
        let fixed: Vec<&SocketAddr> = server.listen.iter().filter(|address| address.port() != 0).collect();
        if let Some(twice) = first_double(&fixed) {
            return Err(ConfigError::of_key("server.listen", format!("names {twice} twice")));
        }
        if server.proxies.len() > PROXIES_MAX {
            return Err(ConfigError::of_key("server.proxies", format!("holds at most {PROXIES_MAX} networks")));
        }
        if let Some(cpu) = first_double(&server.cpus) {
            return Err(ConfigError::of_key("server.cpus", format!("names CPU {cpu} twice")));
        }
        if let Some(cpu) = server.cpus.iter().find(|cpu| **cpu >= cpus::CPUS_MAX) {
            return Err(ConfigError::of_key(
                "server.cpus",
                format!("names CPU {cpu}; the last one that can be pinned to is {}", cpus::CPUS_MAX - 1),
            ));
        }
        if !server.cpus.is_empty() && server.shards > server.cpus.len() {
            let why = format!("{} shards, but cpus lists {}: list one per shard, or leave cpus empty", server.shards, server.cpus.len());
            return Err(ConfigError::of_key("server.shards", why));
        }
        if !server.node.is_empty() && UserName::parse(&server.node).is_err() {
            return Err(ConfigError::of_key("server.node", "must be 1 to 64 of A-Z a-z 0-9 _ . : - (or empty: the host's name)"));
        }
        Ok(())
    }

    fn check_auth(&self) -> Result<(), ConfigError> {
        if let (AuthMode::Open, false, Some(address)) = (self.auth.mode, self.auth.insecure_open, self.exposed().next()) {
            let why = format!(
                "{address} is not loopback and auth.mode is \"open\": anybody could log in as anybody; if that is meant, set insecure_open = true under [auth] (or --insecure-open)"
            );
            return Err(ConfigError::of_key("server.listen", why));
        }
        if self.auth.mode == AuthMode::Jwt && self.auth.keys.is_empty() {
            return Err(ConfigError::of_key("auth.keys", "needs at least one file where auth.mode is \"jwt\""));
        }
        if self.auth.keys.len() > KEYS_MAX {
            return Err(ConfigError::of_key("auth.keys", format!("holds at most {KEYS_MAX} files")));
        }
        Ok(())
    }

    fn check_admin(&self) -> Result<(), ConfigError> {
        let admin = &self.admin;
        if admin.listen.len() > LISTEN_MAX {
            return Err(ConfigError::of_key("admin.listen", format!("holds at most {LISTEN_MAX} addresses")));
        }
        let exposed = admin.listen.iter().find(|address| !is_loopback(address));
        if let (Some(address), true) = (exposed, admin.token_file.is_empty()) {
            let why = format!(
                "{address} is not loopback: whoever reaches it could end sessions and publish; set token_file under [admin], or listen on {DEFAULT_ADMIN}"
            );
            return Err(ConfigError::of_key("admin.listen", why));
        }
        Ok(())
    }

    fn check_queues(&self) -> Result<(), ConfigError> {
        let queues = &self.queues;
        if queues.soft_mark_bytes >= queues.hard_mark_bytes {
            let why = format!("must be above soft_mark_bytes ({}), not {}", queues.soft_mark_bytes, queues.hard_mark_bytes);
            return Err(ConfigError::of_key("queues.hard_mark_bytes", why));
        }
        if queues.shard_bytes_max < queues.hard_mark_bytes {
            let why = format!("must be at least hard_mark_bytes ({}), not {}", queues.hard_mark_bytes, queues.shard_bytes_max);
            return Err(ConfigError::of_key("queues.shard_bytes_max", why));
        }
        if !self.ring.buffers.is_power_of_two() {
            let why = format!("must be a power of two, not {}", self.ring.buffers);
            return Err(ConfigError::of_key("ring.buffers", why));
        }
        Ok(())
    }

    /// Addresses that others than this host can reach.
    pub fn exposed(&self) -> impl Iterator<Item = &SocketAddr> {
        self.server.listen.iter().filter(|address| !is_loopback(address))
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Keys: a token without `kid` is checked with each of them.
const KEYS_MAX: usize = 16;
/// Listening addresses: their numbers are bytes on the ring.
const LISTEN_MAX: usize = 64;
/// Networks of proxies: each is looked at for each new connection.
const PROXIES_MAX: usize = 256;

fn first_double<T: PartialEq>(list: &[T]) -> Option<&T> {
    list.iter().enumerate().find(|(i, item)| list[..*i].contains(item)).map(|(_, item)| item)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Queues;

    fn blamed(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.validate().map_err(|error| error.key).err().unwrap_or_default()
    }

    fn listen(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(!Settings::default().is_insecure_open());
        assert_eq!(Settings::default().validate(), Ok(()));
        assert_eq!(Settings::default().warnings(), Vec::<String>::new());
    }

    #[test]
    fn values_set_by_hand_are_held_to_their_range_too() {
        assert_eq!(blamed(|s| s.server.shards = 257), "server.shards");
        assert_eq!(blamed(|s| s.limits.heartbeat_ms = 999), "limits.heartbeat_ms");
        assert_eq!(blamed(|s| s.limits.requests_burst = 0), "limits.requests_burst");
        assert_eq!(blamed(|s| s.queues.hard_mark_bytes = 2 * crate::limits::SEND_BYTES_MAX - 1), "queues.hard_mark_bytes");
        assert_eq!(blamed(|s| s.limits.sessions_per_user = 17), "limits.sessions_per_user");
    }

    #[test]
    fn broken_relations_are_refused() {
        assert_eq!(blamed(|s| s.queues.soft_mark_bytes = s.queues.hard_mark_bytes), "queues.hard_mark_bytes");
        assert_eq!(blamed(|s| s.queues.shard_bytes_max = s.queues.hard_mark_bytes - 1), "queues.shard_bytes_max");
        assert_eq!(blamed(|s| s.ring.buffers = 1_000), "ring.buffers");
        assert_eq!(blamed(|s| s.server.listen.clear()), "server.listen");
        assert_eq!(blamed(|s| s.server.listen = listen(&["127.0.0.1:5", "127.0.0.1:5"])), "server.listen");
        assert_eq!(blamed(|s| s.server.listen = listen(&["127.0.0.1:0", "127.0.0.1:0"])), "");
        assert_eq!(blamed(|s| s.server.cpus = vec![1, 1]), "server.cpus");
        assert_eq!(blamed(|s| s.server.cpus = vec![1024]), "server.cpus");
        assert_eq!(blamed(|s| (s.server.cpus, s.server.shards) = (vec![0, 1], 3)), "server.shards");
        assert_eq!(blamed(|s| (s.server.cpus, s.server.shards) = (vec![0, 1], 1)), "");
        assert_eq!(blamed(|s| s.server.node = "a b".into()), "server.node");
        assert_eq!(blamed(|s| s.auth.mode = AuthMode::Jwt), "auth.keys");
        assert_eq!(blamed(|s| s.auth.keys = vec!["a".into(); 17]), "auth.keys");
    }

    #[test]
    fn open_log_in_off_loopback_has_to_be_asked_for_and_warns() {
        for exposed in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            assert_eq!(blamed(|s| s.server.listen = listen(&[exposed])), "server.listen", "{exposed}");
            let mut settings = Settings::default();
            settings.server.listen = listen(&["127.0.0.1:1", exposed]);
            settings.auth.insecure_open = true;
            assert_eq!(settings.validate(), Ok(()));
            assert_eq!(settings.warnings().len(), 1);
            assert!(settings.is_insecure_open());
            settings.auth.mode = AuthMode::Jwt;
            assert!(!settings.is_insecure_open());
        }
        for local in ["127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(blamed(|s| s.server.listen = listen(&[local])), "", "{local}");
        }
    }

    #[test]
    fn a_control_plane_that_others_reach_needs_a_token() {
        for exposed in ["0.0.0.0:1", "[::]:1", "10.1.2.3:1"] {
            assert_eq!(blamed(|s| s.admin.listen = listen(&["127.0.0.1:2", exposed])), "admin.listen", "{exposed}");
            let with_token = |s: &mut Settings| (s.admin.listen, s.admin.token_file) = (listen(&[exposed]), "token".into());
            assert_eq!(blamed(with_token), "", "{exposed}");
        }
        assert_eq!(blamed(|s| s.admin.listen = listen(&["127.0.0.1:1", "[::1]:1"])), "");
    }

    #[test]
    fn all_queues_between_shards_stay_under_their_budget() {
        let queues = Queues::default();
        assert_eq!(queues.mesh_depth_for(1, 128), 4_096);
        assert_eq!(queues.mesh_depth_for(8, 128), 4_096);
        for shards in [2, 16, 64, 200, 256] {
            for envelope in [64, 128, 200, 256] {
                let bytes = shards * shards * envelope * queues.mesh_depth_for(shards, envelope);
                assert!(bytes <= Queues::MESH_BYTES_MAX, "{shards} shards, {envelope} bytes");
            }
        }
    }
}
