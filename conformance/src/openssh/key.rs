//! Ed25519 key pairs in OpenSSH's format, made by `ssh-keygen`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{PeerError, program};

/// A private key file and, beside it, its public half with `.pub` at the end.
#[derive(Clone, Debug)]
pub struct KeyPair {
    private: PathBuf,
    public_line: String,
}

impl KeyPair {
    /// Makes a new Ed25519 key pair at `private`, encrypted if there is a `passphrase`.
    ///
    /// # Errors
    /// [`PeerError::Missing`] without `ssh-keygen`, [`PeerError::Failed`] if it fails.
    pub fn generate(private: &Path, passphrase: Option<&str>) -> Result<Self, PeerError> {
        let mut keygen = Command::new(program::find("ssh-keygen")?);
        keygen.args(["-q", "-t", "ed25519", "-C", "ketch-test", "-N"]);
        keygen
            .arg(passphrase.unwrap_or_default())
            .arg("-f")
            .arg(private);
        program::run_well(keygen, Duration::from_secs(60))?;
        let public = private.with_added_extension("pub");
        let reading = PeerError::io(format!("reading {}", public.display()));
        let line = fs::read_to_string(&public).map_err(reading)?;
        Ok(Self {
            private: private.to_owned(),
            public_line: line.trim_end().to_owned(),
        })
    }

    /// The private key's file.
    #[must_use]
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// The public key as one line of an `authorized_keys` file: algorithm, base64, comment.
    #[must_use]
    pub fn public_line(&self) -> &str {
        &self.public_line
    }

    /// Algorithm and base64 only, as they stand in `known_hosts` behind the names.
    #[must_use]
    pub fn public_key(&self) -> &str {
        // The comment is the last of three words; ssh-keygen was told one without spaces.
        self.public_line
            .rsplit_once(' ')
            .map_or(&self.public_line, |(key, _comment)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_is_two_files_and_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let plain = KeyPair::generate(&dir.path().join("plain"), None).unwrap();
        let locked = KeyPair::generate(&dir.path().join("locked"), Some("secret")).unwrap();
        assert!(
            plain.public_key().starts_with("ssh-ed25519 AAAA"),
            "{}",
            plain.public_key()
        );
        assert_eq!(plain.public_key().split(' ').count(), 2);
        assert_ne!(plain.public_key(), locked.public_key());
        assert!(
            fs::read_to_string(locked.private())
                .unwrap()
                .contains("OPENSSH PRIVATE KEY")
        );
    }
}
