//! Free memory that stays with the virtual machine.
//!
//! Where a hypervisor takes back pages that its guest has freed (free page reporting), the first
//! write to such a page costs a trip to the host: up to 2 s of system time a GiB, charged to
//! whoever writes. Pages are reported in blocks of some megabytes, so free memory that is never
//! contiguous is never reported: a large file in memory is written once, and 60 KiB out of every
//! 64 KiB are given back.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::BenchError;

const STRIDE: u64 = 64 * 1024;
const KEPT: u64 = 4 * 1024;

/// Holds the pages between which the free ones lie; gives them back when dropped.
#[derive(Debug)]
pub struct HotPages {
    _file: File,
}

impl HotPages {
    /// Makes `len` bytes of free memory hot through a file without a name on the tmpfs at `dir`.
    ///
    /// # Errors
    /// [`BenchError::Io`] if there is not so much room, or `dir` is no tmpfs.
    pub fn make(dir: &Path, len: u64) -> Result<Self, BenchError> {
        let make = || -> std::io::Result<File> {
            let mut file = tempfile::tempfile_in(dir)?;
            let block = vec![1; 1024 * 1024];
            let mut written = 0;
            while written < len {
                file.write_all(&block)?;
                written += block.len() as u64;
            }
            let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            for start in (0..written).step_by(64 * 1024) {
                fallocate(&file, holes, start + KEPT, STRIDE - KEPT)?;
            }
            Ok(file)
        };
        let file = make().map_err(BenchError::io(format!("heating {len} bytes of memory")))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn one_page_in_sixteen_is_kept() {
        let hot = HotPages::make(Path::new("/dev/shm"), 4 << 20).unwrap();
        let kept = hot._file.metadata().unwrap().blocks() * 512;
        assert_eq!(kept, (4 << 20) / 16);
    }
}
