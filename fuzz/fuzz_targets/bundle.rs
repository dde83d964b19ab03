//! See `targets::bundle`.

#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| targets::bundle(octets));
