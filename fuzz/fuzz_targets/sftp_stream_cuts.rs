//! See [`ketch_fuzz::sftp_stream::sftp_stream_cuts`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::sftp_stream::sftp_stream_cuts(data));
