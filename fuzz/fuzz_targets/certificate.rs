//! See [`ketch_fuzz::keys::certificate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::keys::certificate(data));
