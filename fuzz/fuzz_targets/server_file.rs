//! See [`ketch_fuzz::server_file::server_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::server_file::server_file(data));
