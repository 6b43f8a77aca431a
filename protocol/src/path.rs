//! Paths on the server: bytes with slashes between.

use std::fmt;

use crate::Escaped;

/// A path on the server.
///
/// The draft (§6.2) has paths as bytes whose parts are divided by `/`, and says nothing of their
/// encoding; servers send what their file system holds. So this is no `std::path::Path`: it never
/// means a local file, and nothing is normalised behind the caller's back. A path that does not
/// begin with `/` is relative to the directory where the session starts.
///
/// `Display` and `Debug` escape what a terminal should not see; the bytes themselves are in
/// [`as_bytes`](Self::as_bytes).
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RemotePath {
    bytes: Vec<u8>,
}

impl RemotePath {
    /// A path of these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
        }
    }

    /// The bytes as they go over the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, given away.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The path as text, if it is UTF-8.
    #[must_use]
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// Whether the path begins at the server's root.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.bytes.first() == Some(&b'/')
    }

    /// This path with `name` below it, one slash between.
    ///
    /// Unlike `Path::join`, a name that begins with a slash does not replace the directory: names
    /// may come from a listing that somebody else wrote. Joined to the empty path, a name stands
    /// alone.
    #[must_use]
    pub fn join(&self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        let mut bytes = Vec::with_capacity(
            self.bytes
                .len()
                .saturating_add(name.len())
                .saturating_add(1),
        );
        bytes.extend_from_slice(&self.bytes);
        if !matches!(bytes.last(), None | Some(b'/')) {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self { bytes }
    }

    /// The last part, trailing slashes aside; `None` where that names no entry of a directory:
    /// the root, the empty path, `.` and `..`.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        self.split().map(|(_, name)| name)
    }

    /// The directory that [`file_name`](Self::file_name) is in: `.` for a name alone, `None` where
    /// there is no file name.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (directory, _) = self.split()?;
        Some(match without_trailing_slashes(directory) {
            [] if directory.is_empty() => Self::from("."),
            [] => Self::from("/"),
            directory => Self::from(directory),
        })
    }

    /// The path up to the last part, slash included, and that part.
    fn split(&self) -> Option<(&[u8], &[u8])> {
        let path = without_trailing_slashes(&self.bytes);
        let name_len = path.iter().rev().take_while(|&&byte| byte != b'/').count();
        let (directory, name) = path.split_at_checked(path.len().checked_sub(name_len)?)?;
        (!matches!(name, b"" | b"." | b"..")).then_some((directory, name))
    }
}

fn without_trailing_slashes(path: &[u8]) -> &[u8] {
    let slashes = path.iter().rev().take_while(|&&byte| byte == b'/').count();
    path.get(..path.len().saturating_sub(slashes))
        .unwrap_or_default()
}

impl From<&str> for RemotePath {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<&String> for RemotePath {
    fn from(path: &String) -> Self {
        Self::new(path.as_bytes())
    }
}

impl From<String> for RemotePath {
    fn from(path: String) -> Self {
        Self::new(path)
    }
}

impl From<&[u8]> for RemotePath {
    fn from(path: &[u8]) -> Self {
        Self::new(path)
    }
}

impl From<Vec<u8>> for RemotePath {
    fn from(path: Vec<u8>) -> Self {
        Self::new(path)
    }
}

impl From<&Self> for RemotePath {
    fn from(path: &Self) -> Self {
        path.clone()
    }
}

impl AsRef<[u8]> for RemotePath {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.bytes).fmt(f)
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Escaped(&self.bytes), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_split_where_the_last_name_begins() {
        let table = [
            ("/a/b", Some(("/a", "b"))),
            ("/a/b/", Some(("/a", "b"))),
            ("/a//b", Some(("/a", "b"))),
            ("/a", Some(("/", "a"))),
            ("a", Some((".", "a"))),
            ("./a", Some((".", "a"))),
            ("a/b/c", Some(("a/b", "c"))),
            ("//a", Some(("/", "a"))),
            ("...", Some((".", "..."))),
            ("/", None),
            ("//", None),
            ("", None),
            (".", None),
            ("..", None),
            ("a/..", None),
            ("a/.", None),
        ];
        for (path, split) in table {
            let path = RemotePath::from(path);
            assert_eq!(
                path.file_name(),
                split.map(|(_, name)| name.as_bytes()),
                "{path}"
            );
            assert_eq!(
                path.parent(),
                split.map(|(parent, _)| parent.into()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_name_never_replaces_its_directory() {
        let table = [
            ("/in", "a", "/in/a"),
            ("/in/", "a", "/in/a"),
            ("/", "a", "/a"),
            ("", "a", "a"),
            (".", "a", "./a"),
            ("/in", "/etc/passwd", "/in//etc/passwd"),
        ];
        for (directory, name, joined) in table {
            assert_eq!(
                RemotePath::from(directory).join(name),
                RemotePath::from(joined)
            );
        }
        assert!(RemotePath::from("/x").is_absolute() && !RemotePath::from("x/").is_absolute());
    }

    #[test]
    fn a_path_is_shown_without_what_steers_a_terminal() {
        let path = RemotePath::new(&b"in/\x1b]0;x\x07\xff"[..]);
        assert_eq!(path.to_string(), r"in/\u{1b}]0;x\u{7}\xff");
        assert_eq!(format!("{path:?}"), r#""in/\u{1b}]0;x\u{7}\xff""#);
        assert_eq!(path.to_str(), None);
    }

    proptest! {
        #[test]
        fn what_was_joined_splits_again(directory in "/?[a-c]{1,3}(/[a-c]{1,3}){0,3}", name in "[a-c]{1,4}") {
            let path = RemotePath::from(&directory[..]).join(&name);
            prop_assert_eq!(path.file_name(), Some(name.as_bytes()));
            prop_assert_eq!(path.parent(), Some(RemotePath::from(directory)));
        }
    }
}
