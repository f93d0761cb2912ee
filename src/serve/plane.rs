//! The control plane as `serve` starts it: its token and listeners with the other checks, its desk once the shards are there.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::checks::refused;
use super::{StartError, exit};
use crate::config::{Admin, Settings};
use crate::control::{self, Token, TokenError};

/// What the control plane is started with.
#[derive(Debug, Default)]
pub struct PlanePlan {
    pub listeners: Vec<TcpListener>,
    /// What is listened on; a port 0 has become the port the kernel chose.
    pub addresses: Vec<SocketAddr>,
    pub token: Option<Token>,
}

impl PlanePlan {
    pub(super) fn make(settings: &Settings) -> Result<Self, StartError> {
        let token = token(&settings.admin)?;
        let listeners = control::open(&settings.admin.listen).map_err(|(address, why)| refused(address, &why))?;
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        Ok(Self { listeners, addresses, token })
    }
}

/// The token, where one is asked for.
pub(super) fn token(admin: &Admin) -> Result<Option<Token>, StartError> {
    if admin.token_file.is_empty() {
        return Ok(None);
    }
    Token::load(&admin.token_file).map(Some).map_err(|error| {
        let exit = if matches!(error, TokenError::Unreadable(_)) { exit::NO_INPUT } else { exit::USAGE };
        StartError::new(exit, error.to_string())
    })
}

/// Starts the thread, if there is anything to listen on.
pub(super) fn start(desk: &Arc<control::Desk>, listeners: Vec<TcpListener>) -> Result<Option<control::Plane>, StartError> {
    if listeners.is_empty() {
        return Ok(None);
    }
    let plane = control::start(desk.clone(), listeners);
    plane.map(Some).map_err(|why| StartError::new(exit::INTERNAL, format!("the control plane's thread: {why}")))
}
