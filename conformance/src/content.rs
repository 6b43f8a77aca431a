//! Files of random bytes, and what is in files.
//!
//! Random bytes cannot be compressed, skipped as holes or mistaken for each other: a block that
//! lands at the wrong place changes the hash.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use crate::PeerError;

const BLOCK_LEN: usize = 256 * 1024;

/// SHA-256 of a file's content; prints as hexadecimal digits.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Hashes bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&digest::digest(&digest::SHA256, bytes))
    }

    /// Hashes the file at `path`.
    ///
    /// # Errors
    /// [`PeerError::Io`] if it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, PeerError> {
        let hash = || -> io::Result<Self> {
            let mut file = File::open(path)?;
            let mut context = digest::Context::new(&digest::SHA256);
            let mut block = vec![0; BLOCK_LEN];
            loop {
                match file.read(&mut block)? {
                    0 => return Ok(Self::from_digest(&context.finish())),
                    got => context.update(block.get(..got).unwrap_or_default()),
                }
            }
        };
        hash().map_err(PeerError::io(format!("hashing {}", path.display())))
    }

    fn from_digest(digest: &digest::Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes `len` random bytes to a new file at `path` and returns their hash.
///
/// # Errors
/// [`PeerError::Io`] if the file exists already or cannot be written.
pub fn random_file(path: &Path, len: u64) -> Result<Sha256, PeerError> {
    let fill = || -> io::Result<Sha256> {
        let mut file = File::create_new(path)?;
        let random = SystemRandom::new();
        let mut context = digest::Context::new(&digest::SHA256);
        let mut block = vec![0; BLOCK_LEN];
        let mut left = len;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_LEN);
            let part = block.get_mut(..now).unwrap_or_default();
            random
                .fill(part)
                .map_err(|_| io::Error::other("no random bytes"))?;
            file.write_all(part)?;
            context.update(part);
            left -= now as u64;
        }
        Ok(Sha256::from_digest(&context.finish()))
    };
    fill().map_err(PeerError::io(format!("filling {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_prints_as_the_published_vector() {
        assert_eq!(
            Sha256::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "FIPS 180-2, appendix B.1"
        );
    }

    #[test]
    fn a_random_file_has_its_length_and_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let len = 3 * BLOCK_LEN as u64 + 17;
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let hash = random_file(&one, len).unwrap();
        assert_eq!(std::fs::metadata(&one).unwrap().len(), len);
        assert_eq!(Sha256::of_file(&one).unwrap(), hash);
        assert_ne!(random_file(&two, len).unwrap(), hash);
        assert!(
            matches!(random_file(&one, 1), Err(PeerError::Io { .. })),
            "never overwrites"
        );
    }
}
