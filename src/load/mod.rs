//! x
pub mod check;
pub mod connect;
pub mod decode;
pub mod frame;
pub mod ledger;
pub mod plan;
pub mod record;
pub mod schedule;
pub mod senders;
