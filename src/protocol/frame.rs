//! Cuts a byte stream into frames: a 4-byte big-endian length, then that many bytes of JSON.
