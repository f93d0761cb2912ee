//! Thin calls: sockets, CPU affinity, clocks, signals, limits of the process.

pub mod affinity;
pub mod clock;
pub mod sockets;
