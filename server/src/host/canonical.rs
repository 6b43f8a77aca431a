//! Paths without links, `.` and `..`, as `REALPATH` answers them here.
//!
//! realpath(3) wants all of a path to exist; clients also ask about a file that they are about to
//! make, so the last component may be missing (OpenSSH's server: `sftp_realpath`).

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, FileType};
use rustix::io::Errno;

/// Most links on the way (Linux's own number).
const LINKS_MAX: usize = 40;
/// Longest path on the way, in bytes: what is still to be walked included.
const WALK_LEN_MAX: usize = 64 * 1024;

/// The canonical form of `named`, which starts from the absolute path `start` if it is relative.
pub(super) fn canonical(start: &[u8], named: &[u8]) -> io::Result<Vec<u8>> {
    let mut ahead = Ahead::default();
    ahead.put(named)?;
    if !named.starts_with(b"/") {
        ahead.put(start)?;
    }
    let here: BorrowedFd<'_> = CWD;
    let mut path = Vec::new();
    let mut links = 0_usize;
    while let Some(component) = ahead.next() {
        if component == b".." {
            let parent = path.iter().rposition(|&byte| byte == b'/');
            path.truncate(parent.unwrap_or(0));
            continue;
        }
        let len = path.len();
        path.push(b'/');
        path.extend_from_slice(&component);
        let stat = match rustix::fs::statat(here, path.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if ahead.is_empty() => break,
            result => result?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links = links.saturating_add(1);
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(here, path.as_slice(), Vec::new())?;
                let target = target.as_bytes();
                ahead.put(target)?;
                path.truncate(if target.starts_with(b"/") { 0 } else { len });
            }
            FileType::Directory => {}
            _ if ahead.is_empty() => {}
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(path)
}

/// The components that are still to be walked, the next one last.
#[derive(Default)]
struct Ahead {
    components: Vec<Vec<u8>>,
    len: usize,
}

impl Ahead {
    /// Puts the components of `path` in front.
    fn put(&mut self, path: &[u8]) -> io::Result<()> {
        self.len = self.len.saturating_add(path.len());
        if self.len > WALK_LEN_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        let components = path.split(|&byte| byte == b'/').rev();
        let named = components.filter(|component| !matches!(*component, b"" | b"."));
        self.components.extend(named.map(<[u8]>::to_vec));
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        self.components.pop()
    }

    const fn is_empty(&self) -> bool {
        self.components.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_dots_are_gone_and_the_last_name_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/f"), "x").unwrap();
        symlink("a/b", root.join("l")).unwrap();
        symlink("/nowhere/at/all", root.join("dangling")).unwrap();
        symlink("a/new", root.join("new")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let start = root.as_os_str().as_bytes();
        let ask = |named: &str| {
            let path = canonical(start, named.as_bytes())?;
            let text = String::from_utf8(path).unwrap();
            Ok::<_, io::Error>(text.replace(root.to_str().unwrap(), "R"))
        };
        for (named, is) in [
            (".", "R"),
            ("l", "R/a/b"),
            ("l/..", "R/a"), // where the link leads, not where it stands
            ("l//./../f", "R/a/f"),
            ("missing", "R/missing"),
            ("l/missing", "R/a/b/missing"),
            ("new", "R/a/new"),
            ("/..", "/"),
            ("/", "/"),
        ] {
            assert_eq!(ask(named).unwrap(), is, "{named}");
        }
        for (named, errno) in [
            ("missing/x", Errno::NOENT),
            ("dangling", Errno::NOENT),
            ("a/f/x", Errno::NOTDIR),
            ("loop", Errno::LOOP),
        ] {
            let error = ask(named).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{named}");
        }
        let mut long = vec![b'x'; WALK_LEN_MAX];
        long.insert(0, b'/');
        assert!(canonical(start, &long).is_err());
    }
}
