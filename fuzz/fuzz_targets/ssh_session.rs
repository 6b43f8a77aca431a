//! See [`ketch_fuzz::ssh_session::ssh_session`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::ssh_session::ssh_session(data));
