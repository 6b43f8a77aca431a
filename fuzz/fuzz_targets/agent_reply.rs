//! See [`ketch_fuzz::agent::agent_reply`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::agent::agent_reply(data));
