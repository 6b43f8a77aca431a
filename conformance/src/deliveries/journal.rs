//! The writer's journal: which content there is, and what stood under which name.
//!
//! One line a fact, appended when it has become so. Paths are hexadecimal, as names may hold anything.
//!
//! | line | means |
//! | --- | --- |
//! | `made ID LEN SHA256` | there is a content of that number |
//! | `stands PATH ID` | from now on all of it is under that name |
//! | `gone PATH` | from now on it is not: removed, replaced, renamed |
//! | `paused PATH SHA256` | the file stood still half-written for longer than it should have |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// Writes a journal.
#[derive(Debug)]
pub struct Journal {
    file: BufWriter<File>,
}

impl Journal {
    /// Starts a new one.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::new(File::create_new(path)?);
        Ok(Self { file })
    }

    /// Goes on with one that nobody else writes.
    ///
    /// # Errors
    /// If it is not there, or cannot be written.
    pub fn append(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).open(path)?;
        let file = BufWriter::new(file);
        Ok(Self { file })
    }

    /// There is a content of that number.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn made(&mut self, id: u64, len: u64, sha256: &str) -> io::Result<()> {
        writeln!(self.file, "made {id} {len} {sha256}")
    }

    /// All of a content is under that name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn stands(&mut self, path: &[u8], id: u64) -> io::Result<()> {
        writeln!(self.file, "stands {} {id}", to_hex(path))?;
        self.file.flush()
    }

    /// It is not there any more.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn gone(&mut self, path: &[u8]) -> io::Result<()> {
        writeln!(self.file, "gone {}", to_hex(path))?;
        self.file.flush()
    }

    /// Half a file stood still for too long: whoever took it for complete had reason to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn paused(&mut self, path: &[u8], sha256: &str) -> io::Result<()> {
        writeln!(self.file, "paused {} {sha256}", to_hex(path))
    }
}

/// A content of the journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Made {
    /// Its number.
    pub id: u64,
    /// Length of the whole file in bytes.
    pub len: u64,
}

/// What a journal says when all of it has been read.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Contents by the SHA-256 of the whole file, in hexadecimal digits.
    pub made: HashMap<String, Made>,
    /// All that ever stood somewhere: path and number.
    pub stood: HashSet<(Vec<u8>, u64)>,
    /// What stands in the end.
    pub standing: BTreeMap<Vec<u8>, u64>,
    /// What was half-written for too long, by path and SHA-256.
    pub paused: HashSet<(Vec<u8>, String)>,
}

impl History {
    /// Reads a journal, which may be written to meanwhile: a line that is not complete is left out.
    ///
    /// # Errors
    /// If it cannot be read, or a line is none of a journal.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut reader = Reader::open(path)?;
        reader.read_on()?;
        Ok(reader.history)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match *words.as_slice() {
            ["made", id, len, sha256] => {
                let (id, len) = (id.parse().ok()?, len.parse().ok()?);
                self.made.insert(sha256.to_owned(), Made { id, len });
            }
            ["stands", path, id] => {
                let (path, id) = (from_hex(path)?, id.parse().ok()?);
                self.stood.insert((path.clone(), id));
                self.standing.insert(path, id);
            }
            ["gone", path] => {
                self.standing.remove(&from_hex(path)?);
            }
            ["paused", path, sha256] => {
                self.paused.insert((from_hex(path)?, sha256.to_owned()));
            }
            _ => return None,
        }
        Some(())
    }
}

/// Reads a journal while it grows, each line once.
#[derive(Debug)]
pub struct Reader {
    file: BufReader<File>,
    /// A line of which the end has yet to be written.
    line: String,
    history: History,
}

impl Reader {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::new(File::open(path)?),
            line: String::new(),
            history: History::default(),
        })
    }

    /// Reads what was written since the last time.
    ///
    /// # Errors
    /// If it cannot be read, or a line is none of a journal.
    pub fn read_on(&mut self) -> io::Result<()> {
        loop {
            self.file.read_line(&mut self.line)?;
            let Some(whole) = self.line.strip_suffix('\n') else {
                return Ok(());
            };
            self.history
                .take(whole)
                .ok_or_else(|| io::Error::other(format!("no line of a journal: {whole}")))?;
            self.line.clear();
        }
    }

    /// What has been read.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hexadecimal digits as bytes, if they are such.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path).unwrap();
        journal.made(1, 200, "aa").unwrap();
        journal.made(2, 300, "bb").unwrap();
        journal.stands(b"x/\xff\n", 1).unwrap();
        journal.paused(b"y", "cc").unwrap();
        journal.stands(b"y", 2).unwrap();
        journal.gone(b"x/\xff\n").unwrap();
        let history = History::read(&path).unwrap();
        assert_eq!(history.made["bb"], Made { id: 2, len: 300 });
        assert!(history.stood.contains(&(b"x/\xff\n".to_vec(), 1)));
        assert_eq!(history.standing, BTreeMap::from([(b"y".to_vec(), 2)]));
        assert!(history.paused.contains(&(b"y".to_vec(), "cc".to_owned())));
    }

    #[test]
    fn half_a_line_is_left_out_and_nonsense_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, "stands 61 1\ngone 6").unwrap();
        assert_eq!(History::read(&path).unwrap().standing.len(), 1);
        let mut reader = Reader::open(&path).unwrap();
        reader.read_on().unwrap();
        assert_eq!(reader.history().standing.len(), 1);
        std::fs::write(&path, "stands 61 1\ngone 61\nstands 62 2\n").unwrap();
        reader.read_on().unwrap();
        let standing = &reader.history().standing;
        assert_eq!(*standing, BTreeMap::from([(b"b".to_vec(), 2)]));
        std::fs::write(&path, "stands 6 1\n").unwrap();
        assert!(History::read(&path).is_err());
    }
}
