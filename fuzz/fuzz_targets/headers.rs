//! See `targets::headers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::headers(octets));
