#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| elias_idx_fuzz::run("texts", bytes));
