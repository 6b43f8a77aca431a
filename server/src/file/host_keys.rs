//! Host keys in files: read strictly, and made on the first start.

use std::fs::{self};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use ketch_keys::{GenerateError, KeyFileError, KeyType, PrivateKey};
use ketch_settings::strict::{self, Unread};

use crate::keys::read_host_key;

/// Longest key file that is read, in bytes.
const KEY_FILE_LEN_MAX: u64 = 64 * 1024;

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyFileError {
    /// The file cannot be read, or others may.
    #[error("{0}")]
    Unread(#[from] Unread),
    /// What stands in it is no private key.
    #[error("it is no key without a passphrase")]
    NoKey(#[from] KeyFileError),
    /// It cannot be made.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// What was made cannot be written.
    #[error("it cannot be written")]
    Unwritten(#[source] io::Error),
}

/// Reads the host key in the file `path`, which nobody else may read; if there is none, makes one of
/// that type there, with its directories.
///
/// The new key is written under a temporary name and gets its own when it is whole: a start that
/// is killed leaves no half key, and of two starts at once, one key stays.
///
/// # Errors
/// [`HostKeyFileError`]. A file that is there is never replaced.
pub fn host_key_file(
    path: impl AsRef<Path>,
    key_type: KeyType,
) -> Result<PrivateKey, HostKeyFileError> {
    let path = path.as_ref();
    match read(path)? {
        Some(key) => Ok(key),
        None => make(path, key_type),
    }
}

/// The key in the file, if there is one.
pub(super) fn read(path: &Path) -> Result<Option<PrivateKey>, HostKeyFileError> {
    match strict::secret(path, KEY_FILE_LEN_MAX) {
        Ok(text) => Ok(Some(read_host_key(&text)?)),
        Err(Unread::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(why.into()),
    }
}

fn make(path: &Path, key_type: KeyType) -> Result<PrivateKey, HostKeyFileError> {
    let key = PrivateKey::generate(key_type)?;
    let text = key.to_openssh();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(HostKeyFileError::Unwritten)?;
    // It is opened exclusively and with mode 0600.
    let written = tempfile::NamedTempFile::new_in(directory).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    });
    let file = written.map_err(HostKeyFileError::Unwritten)?;
    match file.persist_noclobber(path) {
        Ok(_) => {
            // Clients will remember it: its name must last, too.
            let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(HostKeyFileError::Unwritten)?;
            Ok(key)
        }
        Err(error) => match read(path)? {
            Some(theirs) => Ok(theirs),
            None => Err(HostKeyFileError::Unwritten(error.error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn failed(path: &Path) -> String {
        host_key_file(path, KeyType::Ed25519)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_first_start_makes_a_key_that_later_ones_find() {
        let dir = tempfile::tempdir().unwrap();
        for key_type in [KeyType::Ed25519, KeyType::EcdsaP256, KeyType::EcdsaP521] {
            let path = dir.path().join(format!("new/{key_type}"));
            let made = host_key_file(&path, key_type).unwrap();
            assert_eq!(made.public_key().key_type(), key_type);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
            let found = host_key_file(&path, key_type).unwrap();
            assert_eq!(found.public_key(), made.public_key());
        }
        let left = fs::read_dir(dir.path().join("new")).unwrap().count();
        assert_eq!(left, 3, "nothing is left");
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_and_a_file_that_is_none_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        host_key_file(&path, KeyType::Ed25519).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(failed(&path).ends_with("make it 0600"), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(host_key_file(&path, KeyType::Ed25519).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(failed(dir.path()), "it is no regular file");
        assert!(host_key_file(dir.path().join("rsa"), KeyType::Rsa).is_err());
    }

    #[test]
    fn of_two_starts_at_once_one_key_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let start = || {
            let made = host_key_file(&path, KeyType::Ed25519).unwrap();
            made.public_key().clone()
        };
        let keys = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            starts
                .into_iter()
                .map(|each| each.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }
}
