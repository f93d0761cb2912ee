//! Thin calls: sockets, CPU affinity, clocks, signals, limits of the process.

pub mod rlimit;
pub mod signals;
