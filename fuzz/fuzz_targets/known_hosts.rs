//! See [`ketch_fuzz::known_hosts::known_hosts`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::known_hosts::known_hosts(data));
