//! Keys as they stand in files: host keys in any format, and lines of `authorized_keys`.

use ketch_keys::{GenerateError, KeyFile, KeyFileError, KeyType, LineError, PrivateKey, PublicKey};

/// Makes a new host key, Ed25519. Write it with [`PrivateKey::to_openssh`].
///
/// # Errors
/// [`GenerateError::Random`].
pub fn generate_host_key() -> Result<PrivateKey, GenerateError> {
    PrivateKey::generate(KeyType::Ed25519)
}

/// Reads a host key from the contents of a private key file, in any format that is known, without a
/// passphrase.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_host_key(file: &[u8]) -> Result<PrivateKey, KeyFileError> {
    KeyFile::parse(file)?.open()
}

/// Reads a public key from a line such as `ssh-ed25519 AAAA… comment`.
///
/// Lines that begin with options (`command="…"`) are refused: a restriction that is not understood
/// must not be passed over.
///
/// # Errors
/// [`LineError`].
pub fn read_public_key(line: &str) -> Result<PublicKey, LineError> {
    PublicKey::from_line(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ssh-ed25519 \
        AAAAC3NzaC1lZDI1NTE5AAAAIGJyMhxTlxAajfbYzIYmw4t+hA6BZPW/0Nr/eYU8eJ9Y a comment";

    #[test]
    fn a_line_of_authorized_keys_is_read() {
        let key = read_public_key(LINE).unwrap();
        assert_eq!(key.as_blob().len(), 51);
        assert_eq!(read_public_key(&format!("  {LINE}\n")).unwrap(), key);
    }

    #[test]
    fn restrictions_are_not_passed_over() {
        for line in [
            format!("command=\"true\" {LINE}"),
            format!("restrict {LINE}"),
            "ssh-ed25519".to_owned(),
            "ssh-rsa AAAAB3NzaC1yc2E=".to_owned(),
            String::new(),
        ] {
            assert!(read_public_key(&line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_host_key_survives_being_written() {
        let key = generate_host_key().unwrap();
        let again = read_host_key(key.to_openssh().as_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert!(read_host_key(b"no key").is_err());
    }
}
