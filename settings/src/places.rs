//! Where things stand in a file, so that what is found wrong later has its line, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::faults::Fault;

/// Where things stand in a file.
#[derive(Debug, Default)]
pub struct Places {
    path: PathBuf,
    /// The line of each key, by its whole name.
    lines: BTreeMap<String, usize>,
}

impl Places {
    pub(crate) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lines: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, key: &str, line: usize) {
        self.lines.insert(key.to_owned(), line);
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Something is wrong at a key, or at the nearest one above it that stands in the file.
    #[must_use]
    pub fn fault(&self, key: &str, what: impl Into<String>) -> Fault {
        let mut above = key;
        let line = loop {
            match (self.lines.get(above), above.rfind(['.', '['])) {
                (Some(line), _) => break Some(*line),
                (None, Some(end)) => above = above.get(..end).unwrap_or_default(),
                (None, None) => break None,
            }
        };
        Fault::new(line, key, what)
    }

    /// A path of the file, from the directory that the file is in.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        match self.path.parent() {
            Some(directory) => directory.join(path),
            None => path.to_owned(),
        }
    }
}

/// The whole name of the key `name` in the table `key`.
///
/// ```
/// assert_eq!(ketch_settings::below("flow[0]", "after"), "flow[0].after");
/// assert_eq!(ketch_settings::below("user", "b.b"), "user.\"b.b\"");
/// ```
#[must_use]
pub fn below(key: &str, name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_plain = !name.is_empty() && name.chars().all(is_bare);
    let dot = if key.is_empty() { "" } else { "." };
    match is_plain {
        true => format!("{key}{dot}{name}"),
        false => format!("{key}{dot}{name:?}"),
    }
}
