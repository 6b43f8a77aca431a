//! What arrived: files in a directory, or events.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::content::{Found, check};
use crate::content::Sha256;

/// One thing that arrived.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Delivery {
    /// Where from: the path below the source's root.
    pub path: Vec<u8>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub sha256: String,
    /// What a reader is shown: a file's name, an event's id.
    pub label: String,
    /// What the file says is wrong with it, if anything.
    pub wrong: Option<String>,
}

/// A directory into which files are delivered, each under a name of its own: the path, a dot, and
/// some number, so that whatever arrives twice is there twice.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    numbered: bool,
    seen: HashSet<PathBuf>,
    deliveries: Vec<Delivery>,
    unfinished: usize,
    unfinished_bytes: u64,
    /// Directories, and when each had changed last before it was read.
    times: HashMap<PathBuf, SystemTime>,
}

impl Directory {
    /// That of files called `{path}.{number}`.
    #[must_use]
    pub fn numbered(root: &Path) -> Self {
        Self::new(root, true)
    }

    /// That of files called as they were at their source.
    #[must_use]
    pub fn plain(root: &Path) -> Self {
        Self::new(root, false)
    }

    fn new(root: &Path, numbered: bool) -> Self {
        Self {
            root: root.to_owned(),
            numbered,
            seen: HashSet::new(),
            deliveries: Vec::new(),
            unfinished: 0,
            unfinished_bytes: 0,
            times: HashMap::new(),
        }
    }

    /// Reads what has come since the last time. Files that have been read are not read again, as
    /// nobody may change what was delivered; [`Directory::whole_again`] sees to it that nobody did.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn look(&mut self) -> io::Result<&[Delivery]> {
        let mut dirs = vec![self.root.clone()];
        self.unfinished = 0;
        self.unfinished_bytes = 0;
        while let Some(dir) = dirs.pop() {
            if !is_unfinished(&dir) {
                self.times.insert(dir.clone(), changed(&dir)?);
            }
            let entries = match fs::read_dir(&dir) {
                // What is fetched has a place that comes and goes.
                Err(error) if is_unfinished(&dir) && error.kind() == io::ErrorKind::NotFound => {
                    continue;
                }
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    dirs.push(path);
                } else if is_unfinished(&path) {
                    self.unfinished += 1;
                    // It may have got its name by now.
                    self.unfinished_bytes += entry.metadata().map_or(0, |file| file.len());
                } else if !self.seen.contains(&path) {
                    let delivery = self.delivery(&path)?;
                    self.deliveries.push(delivery);
                    self.seen.insert(path);
                }
            }
        }
        Ok(&self.deliveries)
    }

    /// Whether a name has come or gone since the last look, in the directories that it met: a question
    /// that costs the same however many files there are.
    ///
    /// # Errors
    /// If a directory cannot be looked at.
    pub fn is_touched(&self) -> io::Result<bool> {
        for (dir, time) in &self.times {
            if changed(dir)? != *time {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Temporary files of the listener that the last look met.
    #[must_use]
    pub const fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// How long they are together.
    #[must_use]
    pub const fn unfinished_bytes(&self) -> u64 {
        self.unfinished_bytes
    }

    /// Reads everything once more, for the last verdict.
    ///
    /// # Errors
    /// If something cannot be read.
    pub fn whole_again(&mut self) -> io::Result<&[Delivery]> {
        self.seen.clear();
        self.deliveries.clear();
        self.look()
    }

    fn delivery(&self, file: &Path) -> io::Result<Delivery> {
        let bytes = fs::read(file)?;
        let below = file.strip_prefix(&self.root).unwrap_or(file);
        let name = below.as_os_str().as_bytes();
        let path = match name.iter().rposition(|&byte| byte == b'.') {
            Some(dot) if self.numbered => name.get(..dot).unwrap_or(name),
            _ => name,
        };
        let wrong = match check(&bytes) {
            Found::Whole(_) => None,
            Found::Torn { id, why } => Some(format!("content {id}: {why}")),
            Found::Strange(why) => Some(why),
        };
        Ok(Delivery {
            path: path.to_vec(),
            sha256: Sha256::of(&bytes).to_string(),
            label: below.display().to_string(),
            wrong,
        })
    }
}

fn changed(dir: &Path) -> io::Result<SystemTime> {
    fs::metadata(dir)?.modified()
}

fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.windows(6).any(|part| part == b".ketch") || name.ends_with(b".partial")
}

/// Events as JSON lines, one each: a later one with the same id is the same event.
///
/// `field` takes the dotted name of a field, as `data.path`, out of a line; whoever has a JSON reader
/// brings it, as this crate has none.
///
/// # Errors
/// In words, if a line has not what an event has.
pub fn from_events(
    lines: &str,
    field: impl Fn(&str, &str) -> Option<String>,
) -> Result<Vec<Delivery>, String> {
    let mut seen = HashSet::new();
    let mut deliveries = Vec::new();
    for line in lines.split_inclusive('\n') {
        // The last one may be cut short by a kill: it is sent again.
        let Some(line) = line.strip_suffix('\n') else {
            break;
        };
        let get = |name: &str| field(line, name).ok_or_else(|| format!("no {name} in {line}"));
        let Some(sha256) = field(line, "data.sha256") else {
            continue; // a removal
        };
        let path = match field(line, "data.path_hex") {
            Some(hex) => super::journal::from_hex(&hex).ok_or("no hexadecimal digits")?,
            None => get("data.path")?.into_bytes(),
        };
        let label = get("id")?;
        let delivery = Delivery {
            path,
            sha256,
            label,
            wrong: None,
        };
        if seen.insert(delivery.clone()) {
            deliveries.push(delivery);
        }
    }
    Ok(deliveries)
}

/// A path from bytes.
#[must_use]
pub fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()))
}
