//! See `targets::messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::messages(octets));
