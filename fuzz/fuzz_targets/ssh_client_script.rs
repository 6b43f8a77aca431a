//! See [`ketch_fuzz::ssh_script::ssh_client_script`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::ssh_script::ssh_client_script(data));
