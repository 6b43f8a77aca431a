//! A writer that creates, appends slowly, renames, replaces and removes files in a tree, and keeps a
//! journal of it.
//!
//! It writes as suppliers do, locally in the directory that a server serves. No two versions of a path
//! have the same size and time in whole seconds, as nobody could tell them apart by a listing; what
//! looks alike on purpose is another test's subject. Everything it chooses follows from its seed; how
//! its work falls into the listener's is a matter of the clock.

#![expect(
    clippy::disallowed_methods,
    reason = "pauses of a writer are a matter of the clock"
)]

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::content::{self, HEADER_LEN};
use super::journal::Journal;
use super::received::path_of;
use crate::content::Sha256;
use crate::random::Random;

/// How the names end under which a writer puts what is not complete yet.
pub const TEMPORARY: &str = ".part";
/// Pause between two appends at most.
const PAUSE_MAX_MS: u64 = 120;
/// How often a writer that has nothing to do looks again.
const WAIT: Duration = Duration::from_millis(2);
/// In how many appends a slow file comes.
const APPENDS_MAX: u64 = 6;

/// What a writer does, as weights.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// A new file, in place.
    pub create: u64,
    /// A new file, under a temporary name first.
    pub stage: u64,
    /// A new file, in place, slowly.
    pub append: u64,
    /// Another content for a file, mostly by a rename over it.
    pub replace: u64,
    /// Another name for a file, sometimes that of another one.
    pub rename: u64,
    /// A file goes.
    pub remove: u64,
}

impl Mix {
    /// All of it.
    pub const ALL: Self = Self {
        create: 30,
        stage: 15,
        append: 15,
        replace: 20,
        rename: 10,
        remove: 10,
    };
    /// New files alone, for a listener that takes them away.
    pub const NEW: Self = Self {
        create: 50,
        stage: 30,
        append: 20,
        replace: 0,
        rename: 0,
        remove: 0,
    };
    /// Nothing is ever half-written under its own name.
    pub const STAGED: Self = Self {
        create: 0,
        stage: 60,
        append: 0,
        replace: 20,
        rename: 10,
        remove: 10,
    };
}

/// What a writer is to be like.
#[derive(Clone, Debug)]
pub struct WriterConfig {
    /// Decides everything.
    pub seed: u64,
    /// New files, after which it ends.
    pub files: u64,
    /// Directories that they are in.
    pub directories: u64,
    /// Bytes of a file at most.
    pub len_max: u64,
    /// What it does.
    pub mix: Mix,
    /// Files that stand at the most: beyond, one goes where one would come.
    pub standing_max: usize,
    /// The listener's rule: a file that stands still for so long counts as complete. If the machine
    /// keeps the writer waiting for nearly as long in the middle of a file, the journal says so.
    pub settle: Duration,
    /// Time from one operation to the next, on average.
    pub pace: Duration,
    /// Whether names hold what names may hold on Unix.
    pub odd_names: bool,
    /// Whether times of files are anything between 1970 and 2106. Only with [`Mix::STAGED`].
    pub odd_times: bool,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            files: 1000,
            directories: 12,
            len_max: 20_000,
            mix: Mix::ALL,
            standing_max: usize::MAX,
            settle: Duration::from_secs(1),
            pace: Duration::ZERO,
            odd_names: false,
            odd_times: false,
        }
    }
}

/// What a writer has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Written {
    /// New files.
    pub created: u64,
    /// Of them those that were appended to slowly.
    pub appended: u64,
    /// Other contents for files.
    pub replaced: u64,
    /// Other names for files.
    pub renamed: u64,
    /// Files that went.
    pub removed: u64,
    /// Files that stood half-written for too long, against the writer's will.
    pub paused: u64,
}

/// Size and time of last change, as SFTP tells them.
type Facts = (u64, i64);

/// The writer.
#[derive(Debug)]
pub struct Writer {
    root: PathBuf,
    config: WriterConfig,
    journal: Journal,
    random: Random,
    next_id: u64,
    next_name: u64,
    written: Written,
    /// Complete files, by path, with their content and facts.
    standing: HashMap<Vec<u8>, (u64, Facts)>,
    /// The same paths, for choosing one.
    paths: Vec<Vec<u8>>,
    /// Facts that a path ever had.
    history: HashMap<Vec<u8>, HashSet<Facts>>,
    slow: Vec<Slow>,
}

/// A file that is being appended to.
#[derive(Debug)]
struct Slow {
    path: Vec<u8>,
    file: File,
    id: u64,
    bytes: Vec<u8>,
    written: usize,
    last: Instant,
    due: Instant,
}

impl Writer {
    /// A writer in `root`, which exists, that starts the journal `journal`.
    ///
    /// # Errors
    /// If the journal or the directories cannot be made.
    pub fn new(root: &Path, journal: &Path, config: WriterConfig) -> io::Result<Self> {
        for n in 0..config.directories {
            fs::create_dir_all(root.join(directory(n)))?;
        }
        Ok(Self {
            root: root.to_owned(),
            journal: Journal::create(journal)?,
            random: Random::new(config.seed),
            config,
            next_id: 0,
            next_name: 0,
            written: Written::default(),
            standing: HashMap::new(),
            paths: Vec::new(),
            history: HashMap::new(),
            slow: Vec::new(),
        })
    }

    /// Writes until all is written, or `allowed` says `None`; what is half-written is finished.
    ///
    /// `allowed` says how many new files there may be by now: with that many the writer waits.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn run(&mut self, mut allowed: impl FnMut() -> Option<u64>) -> io::Result<Written> {
        let mut due = Instant::now();
        while self.written.created < self.config.files {
            match allowed() {
                None => break,
                Some(files) if self.written.created >= files => {
                    self.append_what_is_due()?;
                    std::thread::sleep(WAIT);
                    due = Instant::now();
                }
                Some(_) => {
                    self.step()?;
                    // One that was kept waiting makes up for it.
                    due += self.config.pace;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }
        }
        while !self.slow.is_empty() {
            self.append_what_is_due()?;
            std::thread::sleep(WAIT);
        }
        Ok(self.written)
    }

    /// Does one thing.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn step(&mut self) -> io::Result<()> {
        self.append_what_is_due()?;
        let Mix {
            create,
            stage,
            append,
            replace,
            rename,
            remove,
        } = self.config.mix;
        let weights = [create, stage, append, replace, rename, remove];
        let mut chosen = self.random.below(weights.iter().sum());
        let mut operation = 0;
        for weight in weights {
            if chosen < weight {
                break;
            }
            chosen -= weight;
            operation += 1;
        }
        if operation < 3 && self.standing.len() >= self.config.standing_max {
            return self.remove();
        }
        match operation {
            0 => self.create(),
            1 => self.stage(),
            2 => self.start_appending(),
            3 => self.replace(),
            4 => self.rename(),
            _ => self.remove(),
        }
    }

    /// What it has done so far.
    #[must_use]
    pub const fn written(&self) -> Written {
        self.written
    }

    // --- operations ------------------------------------------------------------------------------

    fn create(&mut self) -> io::Result<()> {
        let path = self.new_path();
        let (id, bytes) = self.new_content(None)?;
        self.write_in_place(&path, id, &bytes)?;
        self.written.created += 1;
        Ok(())
    }

    fn stage(&mut self) -> io::Result<()> {
        let path = self.new_path();
        self.put_over(&path, None)?;
        self.written.created += 1;
        Ok(())
    }

    fn start_appending(&mut self) -> io::Result<()> {
        let path = self.new_path();
        let (id, bytes) = self.new_content(None)?;
        let now = Instant::now();
        let file = File::create_new(self.at(&path))?;
        self.slow.push(Slow {
            path,
            file,
            id,
            bytes,
            written: 0,
            last: now,
            due: now,
        });
        self.written.created += 1;
        self.written.appended += 1;
        Ok(())
    }

    fn replace(&mut self) -> io::Result<()> {
        let Some(path) = self.pick() else {
            return self.stage();
        };
        let (_, (len, _)) = self.standing[&path];
        if !self.config.odd_times && self.config.mix.create > 0 && self.random.chance(20) {
            // In place, with a length that the path never had.
            let mut len = self.length();
            while self.history[&path].iter().any(|facts| facts.0 == len) {
                len += 1;
            }
            let (id, bytes) = self.new_content(Some(len))?;
            self.forget(&path)?;
            self.write_in_place(&path, id, &bytes)?;
        } else {
            let same = self.random.chance(40).then_some(len);
            self.put_over(&path, same)?;
        }
        self.written.replaced += 1;
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        let Some(from) = self.pick() else {
            return self.stage();
        };
        let to = match self.random.chance(30) {
            true => self.pick().filter(|to| *to != from),
            false => None,
        };
        let (id, facts) = self.standing[&from];
        let known = |path: &Vec<u8>| {
            self.history
                .get(path)
                .is_some_and(|all| all.contains(&facts))
        };
        let to = match to {
            Some(to) if !known(&to) => to,
            _ => self.new_path(),
        };
        self.forget(&from)?;
        if self.standing.contains_key(&to) {
            self.forget(&to)?;
        }
        fs::rename(self.at(&from), self.at(&to))?;
        self.stands(to, id, facts)?;
        self.written.renamed += 1;
        Ok(())
    }

    fn remove(&mut self) -> io::Result<()> {
        let Some(path) = self.pick() else {
            return self.stage();
        };
        self.forget(&path)?;
        fs::remove_file(self.at(&path))?;
        self.written.removed += 1;
        Ok(())
    }

    fn append_what_is_due(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.slow.len() {
            if Instant::now() < self.slow[at].due {
                at += 1;
                continue;
            }
            let pause = Duration::from_millis(self.random.below(PAUSE_MAX_MS));
            let part = self.random.below(APPENDS_MAX).max(1);
            let stood_too_long = self.too_long();
            let slow = &mut self.slow[at];
            let left = slow.bytes.len() - slow.written;
            let count = (left / usize::try_from(part).unwrap_or(1)).max(1).min(left);
            let until = slow.written + count;
            slow.file.write_all(&slow.bytes[slow.written..until])?;
            // Measured over the write, as that is when others saw the old length.
            if slow.last.elapsed() >= stood_too_long {
                let sha256 = Sha256::of(&slow.bytes[..slow.written]).to_string();
                self.journal.paused(&slow.path, &sha256)?;
                self.written.paused += 1;
            }
            slow.written = until;
            slow.last = Instant::now();
            slow.due = slow.last + pause;
            if until == slow.bytes.len() {
                let Slow { path, file, id, .. } = self.slow.swap_remove(at);
                let facts = facts_of(&file.metadata()?);
                self.stands(path, id, facts)?;
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    // --- steps -----------------------------------------------------------------------------------

    fn write_in_place(&mut self, path: &[u8], id: u64, bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        let mut file = File::create(self.at(path))?;
        file.write_all(bytes)?;
        if began.elapsed() >= self.too_long() {
            self.journal.paused(path, &Sha256::of(b"").to_string())?;
            self.written.paused += 1;
        }
        let facts = facts_of(&file.metadata()?);
        self.stands(path.to_vec(), id, facts)
    }

    /// Writes under a temporary name and renames to `path`, whatever is there.
    fn put_over(&mut self, path: &[u8], len: Option<u64>) -> io::Result<()> {
        let temporary = self.at(&[path, TEMPORARY.as_bytes()].concat());
        let mut len = len;
        loop {
            let (id, bytes) = self.new_content(len)?;
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            if self.config.odd_times {
                let seconds = self.random.below(1 << 32);
                file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(seconds))?;
            }
            let facts = facts_of(&file.metadata()?);
            if self
                .history
                .get(path)
                .is_some_and(|all| all.contains(&facts))
            {
                len = Some(facts.0 + 1 + self.random.below(50));
                continue;
            }
            if self.standing.contains_key(path) {
                self.forget(path)?;
            }
            fs::rename(&temporary, self.at(path))?;
            return self.stands(path.to_vec(), id, facts);
        }
    }

    fn stands(&mut self, path: Vec<u8>, id: u64, facts: Facts) -> io::Result<()> {
        self.journal.stands(&path, id)?;
        self.history.entry(path.clone()).or_default().insert(facts);
        if self.standing.insert(path.clone(), (id, facts)).is_none() {
            self.paths.push(path);
        }
        Ok(())
    }

    fn forget(&mut self, path: &[u8]) -> io::Result<()> {
        self.standing.remove(path);
        self.journal.gone(path)
    }

    /// One of the complete files.
    fn pick(&mut self) -> Option<Vec<u8>> {
        while !self.paths.is_empty() {
            let at = self.random.place(self.paths.len());
            let path = &self.paths[at];
            if self.standing.contains_key(path) {
                return Some(path.clone());
            }
            self.paths.swap_remove(at);
        }
        None
    }

    fn new_content(&mut self, len: Option<u64>) -> io::Result<(u64, Vec<u8>)> {
        let len = len.unwrap_or_else(|| self.length());
        self.next_id += 1;
        let bytes = content::make(self.config.seed, self.next_id, len);
        let sha256 = Sha256::of(&bytes).to_string();
        self.journal
            .made(self.next_id, bytes.len() as u64, &sha256)?;
        Ok((self.next_id, bytes))
    }

    const fn length(&mut self) -> u64 {
        let least = HEADER_LEN as u64;
        least + self.random.below(self.config.len_max)
    }

    fn new_path(&mut self) -> Vec<u8> {
        self.next_name += 1;
        let n = self.next_name;
        let directory = directory(self.random.below(self.config.directories));
        let mut path = format!("{directory}/f{n}").into_bytes();
        if self.config.odd_names {
            let odd: [&[u8]; 10] = [
                b"-rf",
                b" two  words ",
                b"\xff\xfe",
                b"a\nb",
                b"\x1b[31m",
                b"\"'`$(x)",
                b"back\\slash",
                "\u{e4}\u{308}".as_bytes(),
                b"*?[x]{y}%",
                b"...",
            ];
            let choice = self.random.place(odd.len());
            path.extend_from_slice(odd[choice]);
        } else {
            path.extend_from_slice(b".dat");
        }
        path
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(path_of(path))
    }

    fn too_long(&self) -> Duration {
        self.config.settle.mul_f64(0.7)
    }
}

/// The name of a directory: some of them are inside of others.
fn directory(n: u64) -> String {
    match n % 3 {
        0 => format!("d{n}"),
        1 => format!("d{}/e{n}", n - 1),
        _ => format!("d{}/e{}/g{n}", n - 2, n - 1),
    }
}

fn facts_of(metadata: &fs::Metadata) -> Facts {
    (metadata.size(), metadata.mtime())
}

#[cfg(test)]
mod tests {
    use super::super::judge::{Identity, Judge};
    use super::super::received::Directory;
    use super::*;

    fn wrote(config: WriterConfig) -> (tempfile::TempDir, Written) {
        let dir = tempfile::tempdir().unwrap();
        let served = dir.path().join("served");
        fs::create_dir(&served).unwrap();
        let journal = dir.path().join("journal");
        let mut writer = Writer::new(&served, &journal, config).unwrap();
        let written = writer.run(|| Some(u64::MAX)).unwrap();
        (dir, written)
    }

    /// What stands in the end is what the journal says: whole, and nothing else.
    fn agrees(dir: &tempfile::TempDir) {
        let judge = Judge::new(&dir.path().join("journal"), Identity::Path).unwrap();
        let mut served = Directory::plain(&dir.path().join("served"));
        let deliveries = served.look().unwrap();
        let verdict = judge.verdict(deliveries);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!(verdict.finals, deliveries.len());
    }

    #[test]
    fn a_journal_is_what_is_there() {
        let (dir, written) = wrote(WriterConfig {
            files: 300,
            ..WriterConfig::default()
        });
        agrees(&dir);
        assert_eq!(written.created, 300);
        let Written {
            appended,
            replaced,
            renamed,
            removed,
            ..
        } = written;
        assert!(
            appended > 10 && replaced > 10 && renamed > 10 && removed > 10,
            "{written:?}"
        );
    }

    #[test]
    fn odd_names_and_times_are_what_they_are() {
        let (dir, _) = wrote(WriterConfig {
            files: 100,
            mix: Mix::STAGED,
            odd_names: true,
            odd_times: true,
            ..WriterConfig::default()
        });
        agrees(&dir);
    }

    #[test]
    fn no_two_versions_of_a_path_look_alike() {
        let dir = tempfile::tempdir().unwrap();
        let config = WriterConfig {
            files: 200,
            directories: 1,
            ..WriterConfig::default()
        };
        let mut writer = Writer::new(dir.path(), &dir.path().join("journal"), config).unwrap();
        for _ in 0..200 {
            writer.stage().unwrap();
        }
        for _ in 0..200 {
            writer.replace().unwrap();
            writer.rename().unwrap();
        }
        let versions: usize = writer.history.values().map(HashSet::len).sum();
        // Each of them left facts of its own behind.
        assert!(versions >= 600, "{versions}");
    }
}
