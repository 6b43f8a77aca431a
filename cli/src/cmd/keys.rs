//! Private keys of servers: made, written and read in OpenSSH's format.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ketch_server::{PrivateKey, PublicKey, generate_host_key, read_host_key};
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::plan::cannot;

/// Longest key file that is read, in bytes.
const KEY_FILE_LEN_MAX: u64 = 64 * 1024;

/// Where the key is if the user does not say: by the XDG base directory rules.
pub(crate) fn default_path() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME") {
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
        _ => std::env::home_dir()?.join(".local/state"),
    };
    Some(state.join("ketch/host_ed25519"))
}

/// A key that nobody has seen.
pub(crate) fn fresh() -> Result<PrivateKey, Failed> {
    generate_host_key().map_err(|error| Failed::set_up("cannot make a key", error))
}

/// The fingerprint as OpenSSH shows it, `SHA256:…`.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint()
}

/// Reads the key in `path`, or makes one there if there is no such file.
pub(crate) fn load_or_create(path: &Path) -> Result<PrivateKey, Failed> {
    match fs::metadata(path) {
        Ok(metadata) => {
            let mode = metadata.permissions().mode();
            if mode & 0o077 != 0 {
                let mode = mode & 0o7777;
                let what = format!("others may read the host key {}", path.display());
                let advice = format!("its mode is {mode:04o}: make it 0600");
                return Err(Failed::set_up(what, advice));
            }
            load(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(error) => Err(cannot("read", path, error)),
    }
}

fn load(path: &Path) -> Result<PrivateKey, Failed> {
    let mut text = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_LEN_MAX).read_to_end(&mut text))
        .map_err(|error| cannot("read", path, error))?;
    read_host_key(&text)
        .map_err(|error| Failed::set_up(format!("cannot use the key {}", path.display()), error))
}

/// Writes a fresh key under a temporary name, readable by its owner alone, and gives it its name
/// when it is whole: a start that is killed leaves no half key, and of two starts at once, one key
/// stays.
fn create(path: &Path) -> Result<PrivateKey, Failed> {
    let key = fresh()?;
    let cannot = |error| cannot("write the host key", path, error);
    let text = key.to_openssh();
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(cannot)?;
    // `tempfile` opens exclusively and with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(cannot)?;
    file.write_all(text.as_bytes()).map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => load(path),
        Err(error) => Err(cannot(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_makes_a_key_that_later_ones_find() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/ketch/host_ed25519");
        let made = load_or_create(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = load_or_create(&path).unwrap();
        assert_eq!(found.public_key(), made.public_key());
        assert!(fingerprint(found.public_key()).starts_with("SHA256:"));
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left"
        );
        assert_ne!(fresh().unwrap().public_key(), fresh().unwrap().public_key());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failed = load_or_create(&path).unwrap_err();
        let sentence = crate::exit::sentence(&failed);
        assert!(
            sentence.ends_with("its mode is 0640: make it 0600"),
            "{sentence}"
        );
    }

    #[test]
    fn a_file_that_is_no_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "precious").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load_or_create(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
