//! See [`ketch_fuzz::sftp::sftp_request`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::sftp::sftp_request(data));
