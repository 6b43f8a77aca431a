//! Where a ledger may lie: not on a file system that others share.
//!
//! SQLite's write-ahead log needs memory that all its connections share, and our lock has to be one
//! that everybody sees. Neither holds over a network, and what breaks is the ledger. So a ledger there
//! is refused; a ledger that machines share is PostgreSQL's.

use std::path::Path;

use crate::store::StoreError;

/// The kernel's numbers of file systems that are elsewhere or are a program's, with their names
/// (`statfs(2)`, `linux/magic.h`).
const ELSEWHERE: [(u32, &str); 14] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x786f_4256, "shared folders of VirtualBox"),
];

/// The name of the file system with the number `kind`, if a ledger may not lie there.
fn elsewhere(kind: i128) -> Option<&'static str> {
    // The number has 32 bits, and a sign on some machines.
    let kind = kind & 0xffff_ffff;
    ELSEWHERE
        .iter()
        .find(|(number, _)| i128::from(*number) == kind)
        .map(|(_, name)| *name)
}

/// Refuses a directory on such a file system.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    match kind(directory.unwrap_or(Path::new("."))).and_then(elsewhere) {
        Some(kind) => Err(StoreError::Elsewhere {
            path: path.display().to_string(),
            kind,
        }),
        None => Ok(()),
    }
}

/// Whether a directory is on such a file system.
#[cfg(target_os = "linux")]
pub(crate) fn is_elsewhere(directory: &Path) -> bool {
    kind(directory).and_then(elsewhere).is_some()
}

/// The number of the file system that a directory is on; `None` if nobody can say.
#[cfg(target_os = "linux")]
fn kind(directory: &Path) -> Option<i128> {
    let found = rustix::fs::statfs(directory).ok()?;
    Some(i128::from(found.f_type))
}

#[cfg(not(target_os = "linux"))]
fn kind(_: &Path) -> Option<i128> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_refused_and_what_is_here_is_not() {
        for (number, name) in [
            (0x6969, "NFS"),
            (0xff53_4d42, "CIFS"),
            (i128::from(0xff53_4d42_u32.cast_signed()), "CIFS"),
            (0x6573_5546, "FUSE"),
            (0x0102_1997, "9P"),
        ] {
            assert_eq!(elsewhere(number), Some(name), "{number:x}");
        }
        // ext4, XFS, btrfs, tmpfs, overlayfs, ZFS, F2FS
        for number in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
            0xf2f5_2010,
        ] {
            assert_eq!(elsewhere(number), None, "{number:x}");
        }
        let here = tempfile::tempdir().expect("a directory");
        check(&here.path().join("ledger")).expect("temporary files are here");
    }
}
