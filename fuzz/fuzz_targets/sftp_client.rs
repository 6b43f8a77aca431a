//! See [`ketch_fuzz::sftp_client::sftp_client`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::sftp_client::sftp_client(data));
