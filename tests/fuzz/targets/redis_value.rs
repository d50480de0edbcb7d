#![no_main]

#[path = "../src/redis.rs"]
mod redis;

libfuzzer_sys::fuzz_target!(|input: &[u8]| redis::value(input));
