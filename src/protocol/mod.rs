//! Bytes to messages and back: pure, no IO, no clock, no panic on any input.
//!
//! [`frame`] cuts the byte stream, [`message`] decodes what a client says, [`encode`] writes what the server says,
//! [`error`] has every code and reason of the wire.

pub mod encode;
pub mod error;
pub mod frame;
pub mod message;
