//! See [`ketch_fuzz::packet::packet_layer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::packet::packet_layer(data));
