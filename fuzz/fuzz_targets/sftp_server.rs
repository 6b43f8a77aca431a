//! See [`ketch_fuzz::sftp_server::sftp_server`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::sftp_server::sftp_server(data));
