//! See [`ketch_fuzz::packet::compressed_payloads`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::packet::compressed_payloads(data));
