//! The SHA-256 of a local file.

use std::{
    fs::File,
    io::{self, IoSliceMut},
};

use crate::platform;

/// A SHA-256.
pub(crate) type Hash = [u8; 32];

/// Bytes of a file that are read at a time to be hashed.
const HASHED_LEN: usize = 256 * 1024;

/// The SHA-256 of a file.
pub(crate) fn hash_file(file: &File) -> io::Result<Hash> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; HASHED_LEN];
    let mut offset = 0;
    loop {
        let slots = &mut [IoSliceMut::new(&mut buffer)];
        let got = platform::read_slots(file, slots, offset, None, false)?;
        hash.update(buffer.get(..got).unwrap_or_default());
        offset += got as u64;
        if got < HASHED_LEN {
            return Ok(finish_hash(hash));
        }
    }
}

/// The value of a SHA-256.
fn finish_hash(hash: ring::digest::Context) -> Hash {
    let mut value = Hash::default();
    for (to, from) in value.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    value
}
