//! A file system with room for very little.

use std::path::Path;
use std::process::Command;

use crate::PeerError;

/// A tmpfs of its own, unmounted when dropped.
#[derive(Debug)]
pub struct TinyDisk {
    dir: tempfile::TempDir,
}

impl TinyDisk {
    /// Mounts a tmpfs with room for `kib` KiB. Only root can.
    ///
    /// # Errors
    /// [`PeerError::NeedsRoot`]; [`PeerError::Failed`] if the kernel does not allow the mount
    /// (a container without the right to).
    pub fn mount(kib: u32) -> Result<Self, PeerError> {
        if !rustix::process::geteuid().is_root() {
            return Err(PeerError::NeedsRoot {
                doing: "mounting a small file system",
            });
        }
        let dir = tempfile::tempdir().map_err(PeerError::io("making a mount point"))?;
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={kib}k"))
            .arg("tmpfs")
            .arg(dir.path()))?;
        Ok(Self { dir })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily: a file that a failed test still holds open must not keep the mount.
        if let Err(error) = run(Command::new("umount").arg("-l").arg(self.dir.path())) {
            eprintln!("{} stays mounted: {error}", self.dir.path().display());
        }
    }
}

fn run(command: &mut Command) -> Result<(), PeerError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(PeerError::io(format!("starting {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(PeerError::Failed {
        program,
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiny_disk_is_full_soon_and_gone_afterwards() {
        let disk = TinyDisk::mount(64).expect("this test mounts a tmpfs, which takes root");
        let dir = disk.path().to_owned();
        let file = dir.join("file");
        std::fs::write(&file, vec![1; 32 * 1024]).unwrap();
        let error = std::fs::write(&file, vec![1; 128 * 1024]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        drop(disk);
        assert!(!dir.exists(), "unmounted and removed");
    }
}
