//! Between servers: the log, where order comes from.

pub mod log;
