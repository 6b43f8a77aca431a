//! A host memory in a file of its own, never in `known_hosts`.
//!
//! The file is its owner's alone and replaced as a whole, so a reader sees the old one or the new
//! one. Two programs that learn something at the same moment may lose one of the two things, which
//! costs a round trip some day. Nothing is forced to the disk for it.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::records::Records;
use super::{HostMemory, HostRecord};
use crate::destination::Host;
use crate::platform::user_files;

/// Most that is read: more than [`HOSTS_MAX`](super::HOSTS_MAX) records take.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// A host memory in a file.
#[derive(Debug)]
pub struct FileMemory {
    path: PathBuf,
    /// Held while the file is read and replaced.
    writing: Mutex<()>,
}

impl FileMemory {
    /// A memory in the file `path`, which need not exist, nor its directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            writing: Mutex::new(()),
        }
    }

    /// The user's own memory: `ketch/hosts` in `$XDG_STATE_HOME`, or in `~/.local/state`; `None` if
    /// the user has no home.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        Some(Self::new(
            user_files::state_dir()?.join("ketch").join("hosts"),
        ))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what is in the file, if `change` changes anything.
    fn update(&self, change: impl FnOnce(&mut Records) -> bool) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = self.read();
        if change(&mut records)
            && let Err(error) = self.replace(&records.to_text())
        {
            let path = self.path.display();
            tracing::debug!(%path, %error, "the host memory could not be written");
        }
    }

    /// What can be read; nothing if the file is not there, or others can write it.
    fn read(&self) -> Records {
        match self.read_text() {
            Ok(text) => Records::parse(&text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = self.path.display();
                    tracing::debug!(%path, %error, "the host memory could not be read");
                }
                Records::default()
            }
        }
    }

    fn read_text(&self) -> io::Result<String> {
        let file = user_files::open_for_reading(&self.path)?;
        let metadata = file.metadata()?;
        let open_mode = user_files::mode_if_open_to_others(&metadata);
        if !metadata.is_file() || open_mode.is_some_and(|mode| mode & 0o022 != 0) {
            let kind = io::ErrorKind::PermissionDenied;
            return Err(io::Error::new(
                kind,
                "it is no file, or others can write it",
            ));
        }
        let mut bytes = Vec::new();
        file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        if let Some(dir) = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            user_files::create_private_dir(dir)?;
        }
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{:016x}", RandomState::new().hash_one(0)));
        let beside = self.path.with_file_name(name);
        let written = user_files::create_private(&beside)
            .and_then(|mut file: File| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&beside, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }
}

impl HostMemory for FileMemory {
    fn recall(&self, host: &Host, port: u16) -> Option<HostRecord> {
        self.read().get(host, port).cloned()
    }

    fn remember(&self, host: &Host, port: u16, record: &HostRecord) {
        self.update(|records| {
            let is_new = records.get(host, port) != Some(record);
            if is_new {
                records.put(host, port, record.clone());
            }
            is_new
        });
    }

    fn forget(&self, host: &Host, port: u16) {
        self.update(|records| records.remove(host, port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_keys::SignatureAlgorithm;
    use ketch_transport::algorithm::Kex;
    use std::sync::Arc;

    fn record() -> HostRecord {
        HostRecord {
            identification: "SSH-2.0-x".to_owned(),
            kex: Kex::Curve25519Sha256,
            host_key: SignatureAlgorithm::Ed25519,
            strict: true,
            bears_early: None,
            keys: Vec::new(),
        }
    }

    fn host(name: &str) -> Host {
        name.parse().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_host_is_remembered_and_forgotten_by_whoever_opens_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/ketch/hosts");
        let memory = FileMemory::new(&path);
        assert_eq!(memory.recall(&host("a"), 22), None);
        memory.forget(&host("a"), 22);
        assert!(!path.exists(), "nothing is written without need");
        memory.remember(&host("a"), 22, &record());
        memory.remember(&host("b"), 2222, &record());
        let other = FileMemory::new(&path);
        assert_eq!(other.recall(&host("a"), 22), Some(record()));
        assert_eq!(other.recall(&host("a"), 2222), None);
        other.forget(&host("a"), 22);
        assert_eq!(memory.recall(&host("a"), 22), None);
        assert_eq!(memory.recall(&host("b"), 2222), Some(record()));
        assert_eq!(names(path.parent().unwrap()), ["hosts"]);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/hosts");
        let memory = FileMemory::new(&path);
        memory.remember(&host("a"), 22, &record());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        // One that others can write says nothing, and is replaced by one that they cannot.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(memory.recall(&host("a"), 22), None);
        memory.remember(&host("b"), 22, &record());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(memory.recall(&host("a"), 22), None);
        assert_eq!(memory.recall(&host("b"), 22), Some(record()));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_or_cannot_be_written_harms_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let as_directory = FileMemory::new(dir.path());
        as_directory.remember(&host("a"), 22, &record());
        assert_eq!(as_directory.recall(&host("a"), 22), None);
        let behind_a_file = dir.path().join("file");
        fs::write(&behind_a_file, "x").unwrap();
        let memory = FileMemory::new(behind_a_file.join("hosts"));
        memory.remember(&host("a"), 22, &record());
        assert_eq!(memory.recall(&host("a"), 22), None);
        assert_eq!(fs::read(&behind_a_file).unwrap(), b"x");
        let rest = names(dir.path());
        assert_eq!(rest, ["file"], "nothing half-written stays behind");
    }

    #[test]
    fn a_link_is_replaced_and_what_it_leads_to_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("hosts"), dir.path().join("other"));
        fs::write(&other, "mine").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let memory = FileMemory::new(&path);
        memory.remember(&host("a"), 22, &record());
        assert_eq!(memory.recall(&host("a"), 22), Some(record()));
        assert_eq!(fs::read(&other).unwrap(), b"mine");
    }

    #[test]
    fn damage_of_any_length_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        let memory = FileMemory::new(&path);
        memory.remember(&host("a"), 22, &record());
        let good = fs::read(&path).unwrap();
        for damage in [
            &b""[..],
            b"\xff\xfe\0",
            &vec![b'x'; 3 << 20],
            &good[..good.len() / 2],
        ] {
            user_files::create_private(&path).unwrap_err();
            fs::write(&path, damage).unwrap();
            assert_eq!(memory.recall(&host("a"), 22), None);
            memory.remember(&host("a"), 22, &record());
            assert_eq!(memory.recall(&host("a"), 22), Some(record()));
            assert!(fs::metadata(&path).unwrap().len() < FILE_LEN_MAX);
        }
    }

    #[test]
    fn a_reader_never_sees_half_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let memory = Arc::new(FileMemory::new(dir.path().join("hosts")));
        memory.remember(&host("a"), 22, &record());
        let writer = Arc::clone(&memory);
        let writing = std::thread::spawn(move || {
            for n in 0..200_u16 {
                writer.remember(&host("b"), n, &record());
            }
        });
        while !writing.is_finished() {
            assert_eq!(memory.recall(&host("a"), 22), Some(record()));
        }
        writing.join().unwrap();
        assert_eq!(memory.recall(&host("b"), 199), Some(record()));
    }
}
