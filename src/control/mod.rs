//! The control plane: metrics, health, an admin and publish API and a live page, over HTTP on one thread of its own.
//!
//! It reads what shards publish of themselves (`reactor::counters`), so a scrape never stops a shard; what only a shard knows or does goes to it as an
//! errand (`reactor::errand`), with a deadline. Everything a client can make it hold is bounded: connections, header, body, time (`http`). On anything
//! but loopback a request shows a token (`gate`). Names of users and rooms stand in answers of the API alone, never in metrics or the log.

mod admin;
mod desk;
mod gate;
mod http;
mod metrics;
mod page;
mod problem;
mod publish;
mod routes;
mod text;

pub use desk::{Desk, Facts, Shards};
pub use gate::{Token, TokenError};
pub use http::{Plane, open, start};
pub use metrics::render;
pub use routes::ROUTES;

/// The API's description, as it is served.
pub const OPENAPI: &str = include_str!("openapi.json");
