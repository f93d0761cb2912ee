#![no_main]

#[path = "../token.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(check::token(bytes)));
