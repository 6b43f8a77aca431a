//! See [`ketch_fuzz::packet::ident_lines`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::packet::ident_lines(data));
