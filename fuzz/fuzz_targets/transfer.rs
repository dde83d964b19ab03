//! See `targets::transfer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::transfer(octets));
