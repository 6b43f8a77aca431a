//! See [`ketch_fuzz::keys::signature`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::keys::signature(data));
