//! See [`ketch_fuzz::sftp_resume::sftp_resume`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ketch_fuzz::sftp_resume::sftp_resume(data));
