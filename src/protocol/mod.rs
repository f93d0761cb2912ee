//! Bytes to messages and back: pure, no IO, no clock, no panic on any input.
//!
//! [`frame`] cuts the byte stream, [`message`] decodes what a client says, [`encode`] writes what the server says,
//! [`proxy`] reads what a load balancer puts in front, [`error`] has every code and reason of the wire. `scan` walks over JSON, `field` reads single fields; both serve
//! [`message`] only.

pub mod encode;
pub mod error;
mod field;
pub mod frame;
pub mod message;
pub mod proxy;
mod scan;
