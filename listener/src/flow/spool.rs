//! Where content lies between its source and its sinks: a directory of the flow's own, or a hidden place
//! in the directory that it is delivered into ([`beside`]), where that can be had.
//!
//! A file in it has the name of its claim. Nothing in it outlives the process: what an earlier one
//! left is swept away when the flow starts, and fetched again. Processes that share a ledger have a
//! directory each.

#[cfg(target_os = "linux")]
mod beside;

use std::io;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use crate::sink::Content;
use crate::store::ClaimId;

/// Bytes that are read at a time to compute a checksum.
const HASHED_LEN: usize = 256 * 1024;
/// What all names in a spool end with: nothing else is swept away.
const SUFFIX: &str = ".ketch-spool";

/// The directory, and the place that is better.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    #[cfg(target_os = "linux")]
    beside: Option<beside::Beside>,
}

/// A file in it, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Spooled {
    path: PathBuf,
    /// It is there as long as there are files in it.
    #[cfg(target_os = "linux")]
    _place: Option<std::sync::Arc<beside::Place>>,
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

    /// The same for messages.
    pub(super) fn shown(&self) -> PathBuf {
        #[cfg(target_os = "linux")]
        return beside::shown(&self.path);
        #[cfg(not(target_os = "linux"))]
        self.path.clone()
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
    /// Makes the directory, for its owner alone, and sweeps what an earlier process left in it and in
    /// places of `beside`. It may block.
    pub(super) fn open(directory: PathBuf, beside: Option<PathBuf>) -> io::Result<Self> {
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
        #[cfg(not(target_os = "linux"))]
        drop(beside);
        let spool = Self {
            directory,
            #[cfg(target_os = "linux")]
            beside: beside.map(beside::Beside::new),
        };
        #[cfg(target_os = "linux")]
        spool.place();
        Ok(spool)
    }

    /// The file for a claim; nothing is there yet. It may block.
    pub(super) fn file(&self, claim: &ClaimId) -> Spooled {
        let name = format!("{:016x}-{}{SUFFIX}", claim.sequence, claim.number);
        #[cfg(target_os = "linux")]
        let place = self.place();
        #[cfg(target_os = "linux")]
        let directory = place
            .as_ref()
            .map_or(&*self.directory, |place| place.path());
        #[cfg(not(target_os = "linux"))]
        let directory = &*self.directory;
        let path = directory.join(name);
        let _ = std::fs::remove_file(&path);
        Spooled {
            path,
            #[cfg(target_os = "linux")]
            _place: place,
        }
    }

    /// The place in the directory that it is delivered into. Where there is none for now, what is
    /// fetched is copied once more: that is no failure.
    #[cfg(target_os = "linux")]
    fn place(&self) -> Option<std::sync::Arc<beside::Place>> {
        let place = self.beside.as_ref()?.place();
        place
            .inspect_err(
                |error| tracing::debug!(%error, "nothing is fetched beside its destination"),
            )
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::item::FlowName;

    #[tokio::test]
    async fn a_file_goes_with_its_guard_and_leftovers_at_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::open(dir.path().join("a/b"), None).expect("made");
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
        Spool::open(dir.path().join("a/b"), None).expect("swept");
        assert!(!path.exists());
        assert!(dir.path().join("a/b/other").exists());
    }
}
