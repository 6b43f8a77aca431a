//! See [`ketch_fuzz::wire::wire_fields`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::wire::wire_fields(data));
