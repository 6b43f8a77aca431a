//! Appending to files of a directory, one item after another, each once.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use super::super::append::{NOTES_LEN_MAX, Notes, Step, Wanted};
use super::super::event::shown;
use super::super::template::uuid;
use super::{Inner, Job, SinkError, is_copy, notes_name, sys};

/// Longest notes that are read: what was there before they were cut.
const READ_MAX: u64 = 4 * NOTES_LEN_MAX as u64;

impl Inner {
    /// Adds the content to the file `last`.
    pub(super) fn append(&self, dir: &sys::Dir, last: &[u8], job: &Job) -> Result<(), SinkError> {
        let name = job.placement.name.as_slice();
        let failed = self.failed("append to", name);
        let notes = self.notes(dir, last).map_err(&failed)?;
        job.fence.pass_blocking(&job.runtime)?;
        let done = self.append_locked(dir, last, notes, job).map_err(failed)?;
        match done {
            true => Ok(()),
            false => Err(SinkError::Taken { name: shown(name) }),
        }
    }

    /// The notes about `last`, which nobody else has until they are closed.
    fn notes(&self, dir: &sys::Dir, last: &[u8]) -> io::Result<File> {
        self.steps.pass()?;
        let notes = dir.open_or_create(&notes_name(last), 0o600)?;
        // Whoever appends holds it, in this process and in others.
        sys::lock(&notes)?;
        Ok(notes)
    }

    /// Whether it is in the file now; `false` if something else was added first.
    fn append_locked(
        &self,
        dir: &sys::Dir,
        last: &[u8],
        mut notes: File,
        job: &Job,
    ) -> io::Result<bool> {
        let id = uuid(&job.item);
        let wanted = Wanted {
            id: &id,
            base: job.placement.length.unwrap_or(0),
            len: job.content.len,
            again: job.again,
        };
        loop {
            let text = read_all(&mut notes)?;
            let whole = Notes::whole(&text);
            if whole < text.len() {
                self.steps.pass()?;
                notes.set_len(u64::try_from(whole).unwrap_or(0))?;
            }
            let mut file = dir.open_or_create(last, 0o644)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("it is not a plain file"));
            }
            match Notes::read(&text).decide(wanted, metadata.len()) {
                Step::Done => return Ok(true),
                Step::Taken => return Ok(false),
                Step::Compare => return is_copy(file, &job.content, wanted.base),
                Step::Undo { len, line } => {
                    if metadata.len() > len {
                        self.steps.pass()?;
                        file.set_len(len)?;
                        file.sync_all()?;
                    }
                    self.note(&mut notes, &line)?;
                }
                Step::Append => {
                    self.note(&mut notes, &wanted.begin())?;
                    if text.is_empty() || metadata.len() == 0 {
                        // Both names have to be there when one of them tells of the other.
                        dir.sync()?;
                    }
                    self.add(&mut file, job, wanted.base)?;
                    self.note(&mut notes, &wanted.done())?;
                    self.shorten(&mut notes)?;
                    return Ok(true);
                }
            }
        }
    }

    fn add(&self, file: &mut File, job: &Job, base: u64) -> io::Result<()> {
        let mut from = File::open(&job.content.path)?;
        file.seek(SeekFrom::Start(base))?;
        // The first half and the rest: what is cut in between is found by the next.
        let half = job.content.len / 2;
        self.steps.pass()?;
        let first = io::copy(&mut (&mut from).take(half), file)?;
        self.steps.pass()?;
        let rest = io::copy(&mut from, file)?;
        if first.saturating_add(rest) != job.content.len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the fetched file does not have the length that it had",
            ));
        }
        self.steps.pass()?;
        file.sync_all()
    }

    fn note(&self, notes: &mut File, line: &str) -> io::Result<()> {
        self.steps.pass()?;
        notes.seek(SeekFrom::End(0))?;
        notes.write_all(line.as_bytes())?;
        notes.sync_data()
    }

    /// Drops old notes. A crash in the middle leaves lines that say what later ones say, too.
    fn shorten(&self, notes: &mut File) -> io::Result<()> {
        let text = read_all(notes)?;
        if let Some(short) = Notes::shortened(&text) {
            self.steps.pass()?;
            notes.seek(SeekFrom::Start(0))?;
            notes.write_all(&short)?;
            notes.set_len(u64::try_from(short.len()).unwrap_or(0))?;
            notes.sync_all()?;
        }
        Ok(())
    }
}

fn read_all(file: &mut File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(READ_MAX).read_to_end(&mut text)?;
    Ok(text)
}
