//! `known_hosts` files (sshd(8)) as somebody else wrote them: never a panic, never a key that does
//! not stand in the file.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use ketch_client::destination::Host;
use ketch_client::hostkey::HostKeys;
use ketch_client::{Destination, PublicKey};

thread_local! {
    /// One file for all runs of this process.
    static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
}

/// A whole file, asked about one host.
pub fn known_hosts(data: &[u8]) {
    let path = file_with(data);
    let keys = HostKeys::files([path]);
    let host: Host = "host.example".parse().expect("a good name");
    // No file that was not made for it has this key.
    let key = PublicKey::ed25519([0x5a; 32]);
    let accepted = keys.check(&host, 22, &key);
    assert!(accepted.is_err(), "{accepted:?}");
    let _ = keys.known_types(&host, 2222);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(destination) = text.parse::<Destination>()
    {
        assert!(!destination.host.as_str().is_empty());
        // It goes to other programs and into messages.
        assert!(!destination.host.as_str().starts_with('-'));
    }
}

/// A file with `data` in it, the same one each time.
pub(crate) fn file_with(data: &[u8]) -> PathBuf {
    FILE.with_borrow_mut(|file| {
        // In memory where there is such a place: it is written thousands of times a second.
        let file = file.get_or_insert_with(|| {
            let in_memory = tempfile::NamedTempFile::new_in("/dev/shm");
            in_memory
                .or_else(|_| tempfile::NamedTempFile::new())
                .expect("a file")
        });
        fs::write(file.path(), data).expect("a file in the temporary directory can be written");
        file.path().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_files_pass() {
        known_hosts(b"host.example ssh-ed25519 AAAA\n");
        known_hosts(b"# comment\n\n@revoked * ssh-ed25519 !!\n|1|a|b ssh-ed25519 x");
        known_hosts(b"user@host.example:/path");
    }
}
