//! Names that say something about other files: done files, and what is only temporary.

use std::fmt;

use ketch_client::RemotePath;

/// Names that writers commonly use until a file is complete, as patterns.
///
/// They are left out only where they are configured: somebody's final names may look like these.
pub const TEMPORARY_NAMES: [&str; 6] = [
    "*.part",
    "*.filepart",
    "*.partial",
    "*.tmp",
    "*.temp",
    ".~*",
];

/// How a done file is called after the file that it belongs to, in the same directory.
///
/// `{name}.done` stands beside `a.csv` as `a.csv.done`, and `{stem}.ok` as `a.ok`.
#[derive(Clone, Eq, PartialEq)]
pub struct Marker {
    before: Vec<u8>,
    after: Vec<u8>,
    of_stem: bool,
}

/// What cannot be the name of a done file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MarkerError {
    /// It holds neither of the two.
    #[error("a done file's name holds {{name}} or {{stem}} once")]
    NoName,
    /// Nothing stands around it: every file would be the done file of another.
    #[error("something must stand before or behind {{name}} or {{stem}}")]
    Bare,
    /// It holds a slash: done files stand beside their files.
    #[error("a done file stands beside its file: no slash in its name")]
    Slash,
}

impl Marker {
    /// Reads a template with `{name}` (all of the file's name) or `{stem}` (without what follows its
    /// last dot) in it.
    ///
    /// # Errors
    /// [`MarkerError`].
    pub fn new(template: &str) -> Result<Self, MarkerError> {
        let split = |what| template.split_once(what);
        let (before, after, of_stem) = match (split("{name}"), split("{stem}")) {
            (Some((before, after)), None) => (before, after, false),
            (None, Some((before, after))) => (before, after, true),
            _ => return Err(MarkerError::NoName),
        };
        if after.contains("{name}") || after.contains("{stem}") {
            return Err(MarkerError::NoName);
        }
        if before.is_empty() && after.is_empty() {
            return Err(MarkerError::Bare);
        }
        if template.contains('/') {
            return Err(MarkerError::Slash);
        }
        Ok(Self {
            before: before.into(),
            after: after.into(),
            of_stem,
        })
    }

    /// The done file of `path`.
    #[must_use]
    pub fn of(&self, path: &RemotePath) -> RemotePath {
        let name = name(path);
        let name = if self.of_stem { stem(name) } else { name };
        beside(path, &[&self.before, name, &self.after].concat())
    }

    /// Whether a file of this name is a done file.
    #[must_use]
    pub fn is_one(&self, name: &[u8]) -> bool {
        self.inner(name).is_some()
    }

    /// The first path, in the order of paths, whose done file may be `path`; all others begin as it.
    pub(super) fn lowest(&self, path: &RemotePath) -> RemotePath {
        beside(path, self.inner(name(path)).unwrap_or_default())
    }

    fn inner<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let inner = name
            .strip_prefix(&*self.before)?
            .strip_suffix(&*self.after)?;
        (!inner.is_empty()).then_some(inner)
    }
}

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.of_stem { "{stem}" } else { "{name}" };
        let (before, after) = (&self.before, &self.after);
        write!(f, "{}{what}{}", before.escape_ascii(), after.escape_ascii())
    }
}

/// What stands behind the last slash.
pub(super) fn name(path: &RemotePath) -> &[u8] {
    let bytes = path.as_bytes();
    bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(bytes)
}

/// `name` in the directory of `path`.
pub(super) fn beside(path: &RemotePath, name: &[u8]) -> RemotePath {
    let bytes = path.as_bytes();
    let directory = bytes.len() - self::name(path).len();
    let (directory, _) = bytes.split_at(directory);
    RemotePath::from([directory, name].concat())
}

/// A name without its last dot and what follows; a dot at the start is part of the name.
fn stem(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(dot) if dot > 0 => name.split_at(dot).0,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_files_are_called_after_their_files() {
        let table = [
            ("{name}.done", "in/a.csv", "in/a.csv.done"),
            ("{stem}.ok", "in/a.csv", "in/a.ok"),
            ("{stem}.ok", "a", "a.ok"),
            ("{stem}.ok", ".a", ".a.ok"),
            (".{name}", "in/sub/a", "in/sub/.a"),
        ];
        for (template, path, expected) in table {
            let marker = Marker::new(template).expect("a template");
            let done = marker.of(&path.into());
            assert_eq!(done, expected.into());
            assert!(marker.is_one(name(&done)));
            assert!(path.as_bytes().starts_with(marker.lowest(&done).as_bytes()));
        }
        assert!(!Marker::new("{name}.done").expect("one").is_one(b".done"));
    }

    #[test]
    fn a_template_that_says_nothing_is_refused() {
        for (template, error) in [
            ("done", MarkerError::NoName),
            ("{name}{name}", MarkerError::NoName),
            ("{name}{stem}", MarkerError::NoName),
            ("{name}", MarkerError::Bare),
            ("done/{name}", MarkerError::Slash),
        ] {
            assert_eq!(Marker::new(template), Err(error), "{template}");
        }
    }
}
