//! What is wrong with a file: where, what, and what is likely meant.

use std::fmt;
use std::path::{Path, PathBuf};

use ketch_protocol::Escaped;

/// One thing that is wrong with a file.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Fault {
    /// The line, from 1; `None` if it is the whole file's.
    pub line: Option<usize>,
    /// The whole name of the key, such as `organisation.acme.endpoint.orders.user.anna.access`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it, if that can be guessed.
    pub hint: Option<String>,
}

impl Fault {
    /// Something is wrong at a line.
    #[must_use]
    pub fn new(line: Option<usize>, key: &str, what: impl Into<String>) -> Self {
        Self {
            line,
            key: key.to_owned(),
            what: what.into(),
            hint: None,
        }
    }

    /// Something is wrong with the whole file.
    #[must_use]
    pub fn of_file(what: impl Into<String>) -> Self {
        Self::new(None, "", what)
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `line 7: timeouts.idel: there is no such key; do you mean idle?`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", Escaped(self.key.as_bytes()))?;
        }
        write!(f, "{}", Escaped(self.what.as_bytes()))?;
        match &self.hint {
            Some(hint) => write!(f, "; {}", Escaped(hint.as_bytes())),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a file, in the order of its lines; at least one thing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub struct Faults {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

impl Faults {
    /// What is wrong with the file at `path`.
    #[must_use]
    pub fn new(path: &Path, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.line);
        Self {
            path: path.to_owned(),
            faults,
        }
    }
}

/// A line for each.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_os_str().as_encoded_bytes();
        for (n, fault) in self.faults.iter().enumerate() {
            let end = if n == 0 { "" } else { "\n" };
            write!(f, "{end}{}: {fault}", Escaped(path))?;
        }
        Ok(())
    }
}
