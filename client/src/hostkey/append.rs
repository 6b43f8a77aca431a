//! Writing a new host into a `known_hosts` file.

use std::io::{self, Read, Write as _};
use std::path::Path;

use base64ct::{Base64, Encoding};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::lookup::entries;
use super::pattern::{self, SALT_LEN};
use super::{FILE_LEN_MAX, key};
use crate::platform::user_files;

/// Appends a line that binds `key` to `name`.
///
/// The line goes out in one write at the end of the file, so that programs that write at the same
/// time do not mix their lines. The name is hashed if that is wanted, or other names in the file
/// are. A new file, and a new directory for it, are their owner's alone.
pub(super) fn append(path: &Path, name: &str, hashed: bool, key: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        user_files::create_private_dir(dir)?;
    }
    let mut file = user_files::open_private_for_appending(path)?;
    let mut content = Vec::new();
    Read::by_ref(&mut file)
        .take(FILE_LEN_MAX)
        .read_to_end(&mut content)?;

    let unfinished = content.last().is_some_and(|&b| b != b'\n');
    let line = format!(
        "{}{}",
        if unfinished { "\n" } else { "" },
        line(name, hashed || has_hashes(&content), key)?,
    );
    file.write_all(line.as_bytes())
}

/// Whether names in a file are hashed.
pub(super) fn has_hashes(content: &[u8]) -> bool {
    entries(content).any(|(_, entry)| pattern::is_hashed(entry.hosts))
}

/// A line that binds `key` to `name`, with its end.
pub(super) fn line(name: &str, hashed: bool, key: &[u8]) -> io::Result<String> {
    let name = match hashed {
        true => pattern::hash_name(name, &random_salt()?),
        false => name.to_owned(),
    };
    let encoded = Base64::encode_string(key);
    Ok(format!("{name} {} {encoded}\n", key::algorithm(key)))
}

fn random_salt() -> io::Result<[u8; SALT_LEN]> {
    let mut salt = [0; SALT_LEN];
    SystemRandom::new()
        .fill(&mut salt)
        .map_err(|_| io::Error::other("the system gave no random bytes"))?;
    Ok(salt)
}
