//! Thin calls: sockets, CPU affinity, clocks, memory, signals, limits of the process, other processes.

pub mod affinity;
pub mod clock;
pub mod memory;
pub mod process;
pub mod reuseport;
pub mod rlimit;
pub mod scheduler;
pub mod signals;
pub mod sockets;
