//! Files that belong to one user: where they lie, who may read them, how new ones are made.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Whether a letter and a colon in front of a path mean a drive here.
pub(crate) const DRIVE_LETTERS: bool = cfg!(windows);

/// The user's home directory.
pub(crate) fn home_dir() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// The directory of the machine's own SSH configuration.
#[cfg(not(windows))]
pub(crate) fn machine_ssh_dir() -> Option<PathBuf> {
    Some(PathBuf::from("/etc/ssh"))
}

/// The directory of the machine's own SSH configuration.
#[cfg(windows)]
pub(crate) fn machine_ssh_dir() -> Option<PathBuf> {
    std::env::var_os("ProgramData").map(|data| Path::new(&data).join("ssh"))
}

/// The directory for what programs remember between runs (XDG Base Directory Specification).
#[cfg(not(windows))]
pub(crate) fn state_dir() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    // The specification has relative paths ignored.
    set.filter(|dir| dir.is_absolute())
        .or_else(|| Some(home_dir()?.join(".local/state")))
}

/// The directory for what programs remember between runs.
#[cfg(windows)]
pub(crate) fn state_dir() -> Option<PathBuf> {
    std::env::var_os("LOCALAPPDATA").map(PathBuf::from)
}

/// Opens a file for reading without ever waiting for it: a pipe without a writer is empty.
pub(crate) fn open_for_reading(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    }
    options.open(path)
}

/// Opens a file for reading and appending; a new one can be read by its owner alone.
pub(crate) fn open_private_for_appending(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

/// Makes a file that does not exist yet, for its owner alone.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

/// Makes a directory, and those above it, for their owner alone; one that exists stays as it is.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// Whether somebody else than the user and the machine's administrator may write to a file.
#[cfg(unix)]
pub(crate) fn may_be_written_by_others(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let is_trusted = [0, rustix::process::getuid().as_raw()].contains(&metadata.uid());
    !is_trusted || metadata.mode() & 0o022 != 0
}

/// Access lists are not looked at.
#[cfg(not(unix))]
pub(crate) fn may_be_written_by_others(_metadata: &Metadata) -> bool {
    false
}

/// The permission bits of a file of ours that others can use, if they can.
///
/// As OpenSSH does, this looks only at files that the calling user owns: one of another owner
/// (a mounted secret, say) is not ours to protect.
#[cfg(unix)]
pub(crate) fn mode_if_open_to_others(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let ours = metadata.uid() == rustix::process::getuid().as_raw();
    let mode = metadata.mode() & 0o7777;
    (ours && mode & 0o077 != 0).then_some(mode)
}

/// The permission bits of a file that others can use: access lists are not looked at.
#[cfg(not(unix))]
pub(crate) fn mode_if_open_to_others(_metadata: &Metadata) -> Option<u32> {
    None
}
