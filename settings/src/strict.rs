//! Files that say who may do what, and secrets: regular ones, of a bounded length, that nobody else may
//! write to, or even read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::geteuid;
use zeroize::Zeroizing;

/// Bits of a mode by which others may write.
const OTHERS_WRITE: u32 = 0o022;
/// Bits of a mode by which others may do anything.
const OTHERS_ANY: u32 = 0o077;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unread {
    /// It could not be opened or read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A directory, a pipe, a device.
    #[error("it is no regular file")]
    NotRegular,
    /// Longer than what is read.
    #[error("it is longer than {0} bytes")]
    TooLong(u64),
    /// Its owner is neither who runs the program nor root.
    #[error("it belongs to another user, who could change it")]
    Owner,
    /// Others may do what they must not.
    #[error("its mode is {mode:04o}, so others may {may} it: make it {wanted:04o}")]
    Mode {
        /// As it is.
        mode: u32,
        /// What others may.
        may: &'static str,
        /// As it should be.
        wanted: u32,
    },
    /// Not text.
    #[error("it is not UTF-8")]
    NotText,
}

/// What stands in a file that others may read but not write.
///
/// # Errors
/// [`Unread`].
pub fn text(path: &Path, len_max: u64) -> Result<String, Unread> {
    let bytes = bytes(path, len_max)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Unread::NotText)
}

/// The same of a file that is no text.
///
/// # Errors
/// [`Unread`].
pub fn bytes(path: &Path, len_max: u64) -> Result<Zeroizing<Vec<u8>>, Unread> {
    read(path, len_max, OTHERS_WRITE)
}

/// What stands in a file that nobody else may read.
///
/// # Errors
/// [`Unread`].
pub fn secret(path: &Path, len_max: u64) -> Result<Zeroizing<Vec<u8>>, Unread> {
    read(path, len_max, OTHERS_ANY)
}

/// What is checked is the open file, not the name.
fn read(path: &Path, len_max: u64, denied: u32) -> Result<Zeroizing<Vec<u8>>, Unread> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed(); // a pipe must not hold us up
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Unread::NotRegular);
    }
    let owner = metadata.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(Unread::Owner);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & denied != 0 {
        let may = if denied & 0o044 == 0 {
            "change"
        } else {
            "read"
        };
        let wanted = mode & !denied;
        return Err(Unread::Mode { mode, may, wanted });
    }
    // Of its whole length at once: what a vector leaves behind when it grows is not wiped.
    let room = usize::try_from(metadata.len().min(len_max) + 1).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(len_max + 1).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(len) if len <= len_max => Ok(bytes),
        _ => Err(Unread::TooLong(len_max)),
    }
}
