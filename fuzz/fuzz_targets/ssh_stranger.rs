//! See [`ketch_fuzz::ssh_session::ssh_stranger`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::ssh_session::ssh_stranger(data));
