//! See [`ketch_fuzz::ssh::ssh_messages`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::ssh::ssh_messages(data));
