//! Where content lies between its source and its sinks: a directory of the flow's own.
//!
//! A file in it has the name of its claim. Nothing in it outlives the process: what an earlier one
//! left is swept away when the flow starts, and fetched again. Processes that share a ledger have a
//! directory each.

use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use crate::sink::Content;
use crate::store::ClaimId;

/// Bytes that are read at a time to compute a checksum.
const HASHED_LEN: usize = 256 * 1024;
/// What all names in a spool end with: nothing else is swept away.
const SUFFIX: &str = ".ketch-spool";

/// The directory.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
}

/// A file in it, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Spooled {
    path: PathBuf,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        // Not there: it was never fetched. Anything else is swept away at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Spooled {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length and SHA-256, computed on a thread that may block.
    pub(super) async fn content(&self) -> io::Result<Content> {
        let path = self.path.clone();
        let hashed = tokio::task::spawn_blocking(move || hash(path));
        hashed.await.map_err(io::Error::other)?
    }
}

fn hash(path: PathBuf) -> io::Result<Content> {
    use std::io::Read;
    let mut file = std::fs::File::open(&path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; HASHED_LEN];
    let mut len = 0_u64;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(buffer.get(..read).unwrap_or_default());
        len = len.saturating_add(read as u64);
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    Ok(Content { path, len, sha256 })
}

impl Spool {
    /// Makes the directory, for its owner alone, and sweeps what an earlier process left in it.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        let mut make = std::fs::DirBuilder::new();
        make.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
        make.create(&directory)?;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            // The client's temporary names begin with a dot and hold the name they are for.
            if entry.file_name().to_string_lossy().contains(SUFFIX) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { directory })
    }

    /// The file for a claim; nothing is there yet.
    pub(super) fn file(&self, claim: &ClaimId) -> Spooled {
        let name = format!("{:016x}-{}{SUFFIX}", claim.sequence, claim.number);
        let path = self.directory.join(name);
        let _ = std::fs::remove_file(&path);
        Spooled { path }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::item::FlowName;

    #[tokio::test]
    async fn a_file_goes_with_its_guard_and_leftovers_at_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::open(dir.path().join("a/b")).expect("made");
        let claim = ClaimId {
            flow: FlowName::new("in").expect("a name"),
            path: "x".into(),
            sequence: 7,
            number: 2,
        };
        let file = spool.file(&claim);
        std::fs::write(file.path(), b"abc").expect("written");
        let content = file.content().await.expect("read");
        assert_eq!(content.len, 3);
        assert_eq!(content.sha256[..4], [0xba, 0x78, 0x16, 0xbf]); // FIPS 180-2, "abc"
        let path = file.path().to_owned();
        drop(file);
        assert!(!path.exists());

        std::fs::write(&path, b"left").expect("written");
        std::fs::write(dir.path().join("a/b/other"), b"not ours").expect("written");
        Spool::open(dir.path().join("a/b")).expect("swept");
        assert!(!path.exists());
        assert!(dir.path().join("a/b/other").exists());
    }
}
