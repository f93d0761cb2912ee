#![no_main]

#[allow(dead_code, reason = "each target runs one of the checks")]
#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::proxy(bytes));
