//! See [`ketch_fuzz::ssh_channels::ssh_channels`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::ssh_channels::ssh_channels(data));
