//! SIGHUP: settings, keys and the token are read again; all of it counts, or, when any of it is bad, nothing.

use std::sync::Arc;

use super::assembly::Server;
use super::{StartError, filters, plane};
use crate::config::{self, Reloaded, Settings};
use crate::reactor::Control;

/// Where the settings come from: the flags and the file as they are now.
pub(super) type Source<'a> = &'a dyn Fn() -> Result<Settings, StartError>;

impl Server {
    /// Reads again what can be read again, and says in one line what came of it.
    pub(super) fn reload(&mut self, source: Source<'_>) {
        match self.try_reload(source) {
            Ok(said) => log::info!("SIGHUP: {said}"),
            Err(why) => log::error!("SIGHUP: {why}; the old settings and the old keys stay in force"),
        }
    }

    fn try_reload(&mut self, source: Source<'_>) -> Result<String, String> {
        let fresh = source().map_err(|error| error.to_string())?;
        let Reloaded { settings, taken, restart } = config::reload(&self.settings, &fresh);
        let token = plane::token(&settings.admin).map_err(|error| error.to_string())?;
        // The last thing that can fail, and the first that counts.
        let keys = self.pool.as_ref().map(|pool| pool.reload()).transpose().map_err(|error| error.to_string())?;
        if let Some((_, desk)) = &self.plane {
            desk.replace_token(token);
        }
        self.settings = Arc::new(settings);
        self.tell(&Control::Reload(self.settings.clone()));
        if filters().is_none() {
            log::set_max_level(self.settings.log.level);
        }
        let mut said = match keys {
            Some(count) => format!("{count} keys read again; tokens are checked with these from now on"),
            None => "settings read again".to_owned(),
        };
        said.push_str(&format!("; changed: {}", list(&taken)));
        if !restart.is_empty() {
            said.push_str(&format!("; these need a restart: {}", list(&restart)));
        }
        Ok(said)
    }
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
}
