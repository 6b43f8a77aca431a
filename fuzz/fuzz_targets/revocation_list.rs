//! See [`ketch_fuzz::keys::revocation_list`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::keys::revocation_list(data));
