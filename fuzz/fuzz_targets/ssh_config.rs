//! See [`ketch_fuzz::ssh_config::ssh_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::ssh_config::ssh_config(data));
