//! Keys of servers: where one is kept, new ones, and how they are shown.

use std::path::{Path, PathBuf};

use ketch_server::{PrivateKey, PublicKey, generate_host_key};

use crate::failed::Failed;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_another() {
        let key = fresh().unwrap();
        assert!(fingerprint(key.public_key()).starts_with("SHA256:"));
        assert_ne!(fresh().unwrap().public_key(), key.public_key());
    }
}
