//! Thin calls: sockets, CPU affinity, clocks, signals, limits of the process.
