//! See `targets::xml`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::xml(octets));
