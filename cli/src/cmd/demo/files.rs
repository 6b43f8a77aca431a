//! The demo's files: random content, made and compared by SHA-256.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};

use crate::failed::Failed;
use crate::plan::cannot;

/// What is written and read at once.
const BLOCK_LEN: usize = 1 << 20;

/// Lengths of the small files: they go round from empty to a few packets.
const SMALL_LENS: [usize; 5] = [0, 1, 1_000, 4_096, 40_000];

/// A SHA-256 sum.
pub(super) type Sum = [u8; 32];

/// Writes `len` random bytes and returns their sum.
pub(super) fn write_random(path: &Path, len: u64) -> Result<Sum, Failed> {
    let cannot = |error| cannot("write", path, error);
    let mut file = File::create_new(path).map_err(cannot)?;
    let mut block = vec![0; BLOCK_LEN];
    let mut sum = Context::new(&SHA256);
    let mut left = len;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_LEN);
        let piece = &mut block[..take];
        SystemRandom::new()
            .fill(piece)
            .map_err(|_| cannot(io::Error::other("the system gives no random numbers")))?;
        file.write_all(piece).map_err(cannot)?;
        sum.update(piece);
        left -= take as u64;
    }
    Ok(finish(sum))
}

/// Makes a directory of `count` small files, in sub-directories of a hundred.
pub(super) fn write_many(directory: &Path, count: u32) -> Result<(), Failed> {
    for number in 0..count {
        let below = directory.join(format!("{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&below).map_err(|e| cannot("create", &below, e))?;
        }
        let len = SMALL_LENS[number as usize % SMALL_LENS.len()];
        write_random(&below.join(format!("file-{number:05}.dat")), len as u64)?;
    }
    Ok(())
}

/// The sum of a file's content.
pub(super) fn sum(path: &Path) -> Result<Sum, Failed> {
    let cannot = |error| cannot("read", path, error);
    let mut file = File::open(path).map_err(cannot)?;
    let mut block = vec![0; BLOCK_LEN];
    let mut sum = Context::new(&SHA256);
    loop {
        match file.read(&mut block).map_err(cannot)? {
            0 => return Ok(finish(sum)),
            len => sum.update(&block[..len]),
        }
    }
}

/// The sums of all files in a directory and below it, by their paths in it.
pub(super) fn sums(directory: &Path) -> Result<BTreeMap<PathBuf, Sum>, Failed> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(below) = waiting.pop() {
        let path = directory.join(&below);
        let entries = fs::read_dir(&path).map_err(|e| cannot("read", &path, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| cannot("read", &path, e))?;
            let name = below.join(entry.file_name());
            if entry
                .file_type()
                .map_err(|e| cannot("read", &path, e))?
                .is_dir()
            {
                waiting.push(name);
            } else {
                let sum = sum(&directory.join(&name))?;
                found.insert(name, sum);
            }
        }
    }
    Ok(found)
}

fn finish(sum: Context) -> Sum {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sum.finish().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_tell_equal_trees_from_others() {
        let dir = tempfile::tempdir().unwrap();
        write_many(dir.path(), 101).unwrap();
        let before = sums(dir.path()).unwrap();
        assert_eq!(before.len(), 101);
        assert!(before.contains_key(Path::new("001/file-00100.dat")));
        assert_eq!(before, sums(dir.path()).unwrap());
        fs::write(dir.path().join("000/file-00001.dat"), "x").unwrap();
        assert_ne!(before, sums(dir.path()).unwrap());
    }

    #[test]
    fn a_sum_is_the_sha_256_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(sum(&path).unwrap()[..4], [0xba, 0x78, 0x16, 0xbf]);
        let random = dir.path().join("random");
        assert_eq!(
            write_random(&random, 3_000_000).unwrap(),
            sum(&random).unwrap()
        );
        assert_eq!(fs::metadata(&random).unwrap().len(), 3_000_000);
    }
}
