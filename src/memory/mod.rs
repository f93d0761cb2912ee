//! Data structures of one shard, and the queue between two: no IO, no protocol.

pub mod frames;
pub mod gathers;
mod pages;
pub mod parallel;
pub mod queue;
pub mod slab;
pub mod spsc;
pub mod wheel;
