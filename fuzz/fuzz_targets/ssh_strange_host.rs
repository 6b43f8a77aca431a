//! See [`ketch_fuzz::ssh_script::ssh_strange_host`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::ssh_script::ssh_strange_host(data));
