//! Relations between settings.
use super::{ConfigError, Settings};

impl Settings {
    /// Each value within its range, and the relations between them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}
