//! See [`ketch_fuzz::keys::key_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::keys::key_file(data));
