//! Keys as OpenSSH writes them: host keys, and lines of `authorized_keys`.

use ketch_transport::crypto::hostkey::{HostKeyPair, PublicKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Longest key file that is read, in bytes.
const TEXT_LEN_MAX: usize = 1024 * 1024;

/// Why a text is no key that can be used here.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is not in OpenSSH's format.
    #[error("this is no key in OpenSSH's format")]
    Malformed,
    /// Its type is not Ed25519.
    #[error("only Ed25519 keys are supported")]
    Type,
    /// It is protected by a passphrase.
    #[error("the key is protected by a passphrase")]
    Encrypted,
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// Makes a new host key.
///
/// # Errors
/// [`KeyError::Random`].
pub fn generate_host_key() -> Result<HostKeyPair, KeyError> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    SystemRandom::new()
        .fill(&mut seed[..])
        .map_err(|_| KeyError::Random)?;
    Ok(HostKeyPair::from_ed25519_seed(seed))
}

/// Reads a host key from the text of a private key file as `ssh-keygen -t ed25519` writes it.
///
/// # Errors
/// [`KeyError`].
pub fn read_host_key(text: &str) -> Result<HostKeyPair, KeyError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(KeyError::Malformed);
    }
    let key = ssh_key::PrivateKey::from_openssh(text).map_err(|_| KeyError::Malformed)?;
    if key.is_encrypted() {
        return Err(KeyError::Encrypted);
    }
    let pair = key.key_data().ed25519().ok_or(KeyError::Type)?;
    Ok(HostKeyPair::from_ed25519_seed(Zeroizing::new(
        pair.private.to_bytes(),
    )))
}

/// Writes a host key's 32-byte seed as a private key file that [`read_host_key`] and OpenSSH read.
///
/// # Errors
/// [`KeyError::Malformed`] if it cannot be written, which no seed brings about.
pub fn write_host_key(seed: &Zeroizing<[u8; 32]>) -> Result<Zeroizing<String>, KeyError> {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(seed);
    ssh_key::PrivateKey::from(pair)
        .to_openssh(ssh_key::LineEnding::LF)
        .map_err(|_| KeyError::Malformed)
}

/// Reads a public key from a line such as `ssh-ed25519 AAAA… comment`.
///
/// Lines that begin with options (`command="…"`) are refused: a restriction that is not understood
/// must not be passed over.
///
/// # Errors
/// [`KeyError`].
pub fn read_public_key(line: &str) -> Result<PublicKey, KeyError> {
    if line.len() > TEXT_LEN_MAX {
        return Err(KeyError::Malformed);
    }
    let key = ssh_key::PublicKey::from_openssh(line.trim()).map_err(|_| KeyError::Malformed)?;
    let point = key.key_data().ed25519().ok_or(KeyError::Type)?;
    Ok(PublicKey::ed25519(point.0))
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
        let seed = Zeroizing::new([7; 32]);
        let text = write_host_key(&seed).unwrap();
        let again = read_host_key(&text).unwrap();
        assert_eq!(
            again.public_key(),
            HostKeyPair::from_ed25519_seed(seed).public_key()
        );
        assert_eq!(read_host_key("no key").unwrap_err(), KeyError::Malformed);
    }
}
