//! Thin calls: sockets, CPU affinity, clocks, signals, limits of the process.

pub mod affinity;
pub mod clock;
pub mod rlimit;
pub mod signals;
pub mod sockets;
