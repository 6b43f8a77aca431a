//! Virtual paths: what a client names, made canonical once at the edge.
//!
//! A request's path (draft-ietf-secsh-filexfer-02 §6.2: bytes, `/` between components) becomes a
//! [`VPath`] before anything looks at it. Permissions, routing and the system call all use that
//! same value, so that no two of them can read one path differently.
//!
//! `..` is taken away by its letters, before any link is followed: `/a/link/../b` is `/a/b`. Whether
//! a name leads out of the root *through* a link is not decided here but by the kernel, when the
//! name is opened.

use std::fmt;

use ketch_protocol::Escaped;

/// Longest path that is taken, in bytes, before and after it is made canonical.
pub const PATH_LEN_MAX: usize = 4096;
/// Longest component of a path, in bytes.
pub const COMPONENT_LEN_MAX: usize = 255;

/// A canonical path in the tree that a user sees: absolute, without `.`, `..` or empty components.
///
/// Two paths are equal if their bytes are: no case folding, no Unicode normalisation.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VPath {
    /// Starts with `/`; ends with one only if it is the root.
    bytes: Box<[u8]>,
}

impl VPath {
    /// The directory that the user sees as `/`.
    #[must_use]
    pub fn root() -> Self {
        Self {
            bytes: Box::from(&b"/"[..]),
        }
    }

    /// Makes a client's path canonical; one that does not start with `/` starts at the root.
    ///
    /// `..` in the root stays in the root, as `cd ..` does there. The empty path is the root.
    ///
    /// # Errors
    /// [`BadPath`] for bytes that no name here has (NUL, and the backslash, which some system
    /// behind a [`FileSystem`](crate::FileSystem) may take for a separator) and for what is too
    /// long.
    pub fn resolve(named: &[u8]) -> Result<Self, BadPath> {
        Self::root().walk(named)
    }

    /// A path exactly as it was named, for the kernel to read: relative, with `..` and all. Only
    /// for a tree that is this machine's own.
    pub(crate) fn verbatim(named: &[u8]) -> Result<Self, BadPath> {
        if named.len() >= PATH_LEN_MAX {
            return Err(BadPath::TooLong);
        }
        if named.contains(&0) {
            return Err(BadPath::BadByte);
        }
        Ok(Self {
            bytes: Box::from(named),
        })
    }

    /// Walks from this directory along `named`, or from the root if that is absolute.
    ///
    /// # Errors
    /// As [`VPath::resolve`].
    pub fn walk(&self, named: &[u8]) -> Result<Self, BadPath> {
        if named.len() > PATH_LEN_MAX {
            return Err(BadPath::TooLong);
        }
        let start = if named.first() == Some(&b'/') || self.is_root() {
            &[][..]
        } else {
            &self.bytes
        };
        let mut bytes =
            Vec::with_capacity(start.len().saturating_add(named.len()).saturating_add(1));
        bytes.extend_from_slice(start);
        for component in named.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => bytes.truncate(bytes.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
                _ if component.contains(&0) || component.contains(&b'\\') => {
                    return Err(BadPath::BadByte);
                }
                _ if component.len() > COMPONENT_LEN_MAX => return Err(BadPath::TooLong),
                _ => {
                    bytes.push(b'/');
                    bytes.extend_from_slice(component);
                }
            }
        }
        if bytes.len() > PATH_LEN_MAX {
            return Err(BadPath::TooLong);
        }
        if bytes.is_empty() {
            bytes.push(b'/');
        }
        Ok(Self {
            bytes: bytes.into_boxed_slice(),
        })
    }

    /// The path as the client sees it, from `/`.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The path as seen from the root directory: without the slash in front, `.` for the root.
    #[must_use]
    pub fn beneath(&self) -> &[u8] {
        match self.bytes.split_first() {
            Some((_, rest)) if !rest.is_empty() => rest,
            _ => b".",
        }
    }

    /// Whether this is `/`.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.bytes.len() <= 1
    }

    /// The components, of which the root has none.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes
            .split(|&byte| byte == b'/')
            .filter(|component| !component.is_empty())
    }

    /// The directory that holds the last component, and that component; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &[u8])> {
        let (parent, name) = self.split_beneath()?;
        let parent = match parent {
            b"." => Self::root(),
            // From the slash in front up to the one before the name.
            _ => Self {
                bytes: Box::from(self.bytes.get(..=parent.len())?),
            },
        };
        Some((parent, name))
    }

    /// As [`VPath::split`], with the directory in the form of [`VPath::beneath`].
    #[must_use]
    pub fn split_beneath(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        let path = self.beneath();
        match path.iter().rposition(|&byte| byte == b'/') {
            None => Some((b".", path)),
            Some(slash) => Some((path.get(..slash)?, path.get(slash.checked_add(1)?..)?)),
        }
    }

    /// Whether a link with the relative `target` stays in the tree, wherever it is or comes to be.
    ///
    /// It may lead downwards alone. Where `..` leads is not seen by letters: the link or a directory
    /// above it may be renamed, and behind a name `..` starts from wherever another link leads.
    #[must_use]
    pub fn keeps_link_beneath(target: &[u8]) -> bool {
        let bad_byte = target.contains(&0) || target.contains(&b'\\');
        let is_bad = target.is_empty() || target.len() > PATH_LEN_MAX || bad_byte;
        let climbs = || target.split(|&byte| byte == b'/').any(|name| name == b"..");
        !is_bad && !target.starts_with(b"/") && !climbs()
    }
}

/// Escapes what would disturb a terminal or a log.
impl fmt::Debug for VPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Escaped(&self.bytes), f)
    }
}

/// Escapes what would disturb a terminal or a log.
impl fmt::Display for VPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Escaped(&self.bytes), f)
    }
}

/// Why bytes are no path here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BadPath {
    /// A NUL or a backslash.
    BadByte,
    /// More than [`PATH_LEN_MAX`] bytes, or a component of more than [`COMPONENT_LEN_MAX`].
    TooLong,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadByte => "a path holds a NUL or a backslash",
            Self::TooLong => "a path or a name in it is too long",
        })
    }
}

impl std::error::Error for BadPath {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(named: &[u8]) -> Vec<u8> {
        VPath::resolve(named).unwrap().as_bytes().to_vec()
    }

    #[test]
    fn paths_become_canonical() {
        let table: [(&[u8], &[u8]); 12] = [
            (b"", b"/"),
            (b".", b"/"),
            (b"/", b"/"),
            (b"//", b"/"),
            (b"..", b"/"),
            (b"/../../etc/passwd", b"/etc/passwd"),
            (b"a//b/./c/", b"/a/b/c"),
            (b"a/../b", b"/b"),
            (b"a/b/../../../c", b"/c"),
            (b"...", b"/..."),
            (b"..a/.b", b"/..a/.b"),
            (b"\xff\n%2e%2e/x", b"/\xff\n%2e%2e/x"),
        ];
        for (named, expected) in table {
            assert_eq!(canonical(named), expected, "{}", named.escape_ascii());
        }
    }

    #[test]
    fn what_no_name_has_is_refused() {
        assert_eq!(VPath::resolve(b"a\0b"), Err(BadPath::BadByte));
        assert_eq!(VPath::resolve(b"..\\..\\x"), Err(BadPath::BadByte));
        assert_eq!(VPath::resolve(&[b'a'; 256]), Err(BadPath::TooLong));
        assert!(VPath::resolve(&[b'a'; 255]).is_ok());
        assert_eq!(VPath::resolve(&[b'/'; 4097]), Err(BadPath::TooLong));
        assert!(VPath::resolve(&[b'/'; 4096]).is_ok());
        // 4,096 bytes without the slash in front, 4,097 with it.
        let long = [vec![b'a'; 255].as_slice(); 16].join(&b'/');
        assert_eq!(
            VPath::resolve(&[&long[..], b"/"].concat())
                .unwrap()
                .as_bytes()
                .len(),
            4096
        );
    }

    #[test]
    fn a_path_splits_into_directory_and_name() {
        let path = VPath::resolve(b"/a/b/c").unwrap();
        assert_eq!(path.split_beneath(), Some((&b"a/b"[..], &b"c"[..])));
        let (parent, name) = path.split().unwrap();
        assert_eq!((parent.as_bytes(), name), (&b"/a/b"[..], &b"c"[..]));
        let top = VPath::resolve(b"top").unwrap();
        assert_eq!(top.split().unwrap().0, VPath::root());
        assert_eq!(VPath::root().split(), None);
        assert_eq!(VPath::root().beneath(), b".");
    }

    #[test]
    fn links_that_climb_out_are_seen() {
        for good in [&b"x"[..], b"x/y", b"./x/", b".", b"..x", b"x.."] {
            assert!(VPath::keeps_link_beneath(good), "{}", good.escape_ascii());
        }
        for bad in [
            &b""[..],
            b"/etc",
            b"..",
            b"../x",
            b"x/../y",
            b"x/..",
            b"x\0",
            b"x\\y",
        ] {
            assert!(!VPath::keeps_link_beneath(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_path_is_shown_without_control_bytes() {
        let path = VPath::resolve(b"a\x1b[31m\n").unwrap();
        assert_eq!(path.to_string(), "/a\\u{1b}[31m\\u{a}");
    }

    /// The same by another way: a stack of components.
    fn naive(named: &[u8]) -> Vec<u8> {
        let mut stack: Vec<&[u8]> = Vec::new();
        for component in named.split(|&b| b == b'/') {
            match component {
                b".." => drop(stack.pop()),
                b"" | b"." => {}
                name => stack.push(name),
            }
        }
        let mut out = b"/".to_vec();
        out.extend(stack.join(&b'/'));
        out
    }

    proptest! {
        #[test]
        fn resolving_is_walking_a_stack(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just(b"/".to_vec()), Just(b".".to_vec()), Just(b"..".to_vec()),
                    Just(b"a".to_vec()), Just(b"%2e".to_vec()), Just(vec![0xc0, 0xae]),
                    proptest::collection::vec(any::<u8>(), 0..4),
                ], 0..24),
        ) {
            let named = parts.concat();
            match VPath::resolve(&named) {
                Ok(path) => {
                    prop_assert_eq!(path.as_bytes(), naive(&named));
                    // Canonical means that nothing is left to do.
                    prop_assert_eq!(VPath::resolve(path.as_bytes()), Ok(path.clone()));
                    prop_assert!(path.components().all(|c| !matches!(c, b"" | b"." | b"..")));
                    if let Some((parent, name)) = path.split() {
                        prop_assert_eq!(parent.walk(name), Ok(path));
                    }
                }
                Err(BadPath::BadByte) => {
                    prop_assert!(named.contains(&0) || named.contains(&b'\\'));
                }
                Err(BadPath::TooLong) => prop_assert!(named.len() > COMPONENT_LEN_MAX),
            }
        }
    }
}
