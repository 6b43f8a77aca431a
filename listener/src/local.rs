//! A directory of this machine as a source: for flows that watch here and deliver elsewhere.
//!
//! Names are bytes on Unix. Elsewhere they are text, and a name that is none is passed over; so is a
//! remote path that no local name can stand for. Symbolic links are listed as links and never
//! followed below the root.

#[cfg(feature = "flows")]
mod beneath;
#[cfg(feature = "flows")]
mod lister;
#[cfg(feature = "flows")]
mod source;

use std::path::{Component, Path, PathBuf};

use ketch_client::RemotePath;

/// A directory of this machine, and everything below it.
///
/// It is a [`Lister`](crate::detect::Lister) for detection and a [`Source`](crate::source::Source)
/// for delivery. What blocks runs on blocking threads.
#[cfg(feature = "flows")]
#[derive(Clone, Debug)]
pub struct Local {
    root: std::sync::Arc<Path>,
}

#[cfg(feature = "flows")]
impl Local {
    /// The directory `root`. Nothing is looked at before it is needed; if `root` itself is a link, it
    /// is followed.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// A relative local path as a path below a source's root: its names with slashes between them.
///
/// `None` if something in it is no plain name.
#[must_use]
pub fn remote_path(path: &Path) -> Option<RemotePath> {
    let mut bytes = Vec::new();
    for component in path.components() {
        let Component::Normal(name) = component else {
            return None;
        };
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        #[cfg(unix)]
        bytes.extend_from_slice(std::os::unix::ffi::OsStrExt::as_bytes(name));
        #[cfg(not(unix))]
        bytes.extend_from_slice(name.to_str()?.as_bytes());
    }
    Some(RemotePath::from(bytes))
}

/// A path below a source's root as a relative local path; empty for the root itself.
///
/// `None` if a component is no plain name here: empty, `.`, `..`, or holding a byte of zero; and where
/// names are text, also what is none or means something else to the system.
#[must_use]
pub fn local_path(path: &RemotePath) -> Option<PathBuf> {
    let mut local = PathBuf::new();
    if path.as_bytes().is_empty() {
        return Some(local);
    }
    for name in path.as_bytes().split(|byte| *byte == b'/') {
        if matches!(name, b"" | b"." | b"..") || name.contains(&0) {
            return None;
        }
        #[cfg(unix)]
        local.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
        #[cfg(not(unix))]
        {
            let name = std::str::from_utf8(name).ok()?;
            let mut components = Path::new(name).components();
            let plain = matches!(components.next(), Some(Component::Normal(only)) if only == name);
            if !plain || components.next().is_some() || name.contains(':') {
                return None;
            }
            local.push(name);
        }
    }
    Some(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_there_and_back() {
        for path in ["", "a", "a/b c/ä"] {
            let path = RemotePath::from(path);
            let local = local_path(&path).expect("a plain path");
            assert_eq!(remote_path(&local), Some(path));
        }
        #[cfg(unix)]
        {
            let odd = RemotePath::from(&b"in/\xff"[..]);
            assert_eq!(
                local_path(&odd).and_then(|local| remote_path(&local)),
                Some(odd)
            );
        }
        for bad in ["/a", "a//b", "..", "a/../b", "a/.", "a\0", "a/"] {
            assert_eq!(local_path(&bad.into()), None, "{bad:?}");
        }
        assert_eq!(remote_path(Path::new("/a")), None);
        assert_eq!(remote_path(Path::new("../a")), None);
    }
}
