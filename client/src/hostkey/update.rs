//! Keeping up with a host's keys: those that it proved are learnt, those it dropped are forgotten
//! (ssh_config(5), `UpdateHostKeys`).

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::entry::{Entry, Marker};
use super::{HostKeyError, append, read};
use crate::platform::user_files;

/// How often a file is read again because somebody else wrote to it.
const TRIES_MAX: usize = 5;

/// What was done about a host's keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Updated {
    /// Keys that were added.
    pub added: usize,
    /// Lines that were removed.
    pub removed: usize,
}

/// Makes the lines about `name` in a file those of `keys`: all that the host has, in wire form.
///
/// As with OpenSSH nothing is done where the key in use, `shown`, does not stand in the file, where
/// an authority speaks for the host, or where a line about it has patterns or several names:
/// somebody wrote that by hand and for a reason. All other lines stay as they are, byte for byte.
pub(super) fn update(
    path: &Path,
    name: &str,
    hashed: bool,
    shown: &[u8],
    keys: &[&[u8]],
) -> Result<Updated, HostKeyError> {
    let failed = |source| HostKeyError::NotUpdated {
        name: name.to_owned(),
        file: path.to_path_buf(),
        source,
    };
    for _ in 0..TRIES_MAX {
        let before = match read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Updated::default()),
            Err(source) => return Err(failed(source)),
        };
        let Some((after, updated)) =
            rewritten(&before, name, hashed, shown, keys).map_err(failed)?
        else {
            return Ok(Updated::default());
        };
        if replace(path, &before, &after).map_err(failed)? {
            return Ok(updated);
        }
    }
    Err(failed(io::Error::other(
        "another program keeps writing to it",
    )))
}

/// The content as it should be; `None` if it is.
fn rewritten(
    content: &[u8],
    name: &str,
    hashed: bool,
    shown: &[u8],
    keys: &[&[u8]],
) -> io::Result<Option<(Vec<u8>, Updated)>> {
    let mut after = Vec::with_capacity(content.len());
    let mut updated = Updated::default();
    let mut found: Vec<Vec<u8>> = Vec::new();
    for line in content.split_inclusive(|&b| b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let entry = Entry::parse(text).filter(|entry| entry.is_about(name));
        let Some(entry) = entry else {
            after.extend_from_slice(line);
            continue;
        };
        match entry.marker {
            Marker::CertAuthority => return Ok(None),
            Marker::Revoked => after.extend_from_slice(line),
            Marker::Host if entry.has_many_names() => return Ok(None),
            Marker::Host if keys.contains(&entry.key.as_slice()) => {
                after.extend_from_slice(line);
                found.push(entry.key);
            }
            Marker::Host => updated.removed += 1,
        }
    }
    if !found.iter().any(|key| key == shown) {
        return Ok(None);
    }
    if after.last().is_some_and(|&b| b != b'\n') {
        after.push(b'\n');
    }
    let hashed = hashed || append::has_hashes(content);
    for key in keys
        .iter()
        .filter(|key| !found.iter().any(|known| known == *key))
    {
        after.extend_from_slice(append::line(name, hashed, key)?.as_bytes());
        updated.added += 1;
    }
    let changes = updated != Updated::default();
    Ok(changes.then_some((after, updated)))
}

/// Puts new content in place of the old one in one step; `false` if the file is no longer as it
/// was read. A link stays one: what it leads to is replaced.
fn replace(path: &Path, before: &[u8], after: &[u8]) -> io::Result<bool> {
    let path = fs::canonicalize(path)?;
    let permissions = fs::metadata(&path)?.permissions();
    let temporary = temporary_name(&path)?;
    let write = || -> io::Result<bool> {
        let mut file = user_files::create_private(&temporary)?;
        file.write_all(after)?;
        file.set_permissions(permissions)?;
        file.sync_all()?;
        if read(&path)? != before {
            return Ok(false);
        }
        fs::rename(&temporary, &path)?;
        Ok(true)
    };
    let written = write();
    if !matches!(written, Ok(true)) {
        // What is in the way of this is told by the error, if there is one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A name beside the file that nobody has.
fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("the system gave no random bytes"))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".ketch-{:016x}", u64::from_be_bytes(random)));
    Ok(path.with_file_name(name))
}
