//! Proof of what became of a delivery: a hidden file that waits beside the name it is to get.
//!
//! ```text
//!   place:   .ketch-<digits>.held is made, empty ── the ledger notes it
//!   deliver: .part, whole and durable ── exchanged with .held ── fence ── rename to the name
//! ```
//!
//! Once the ledger has noted it, the hidden file goes in one way only: by getting its name. So whoever
//! takes the item up again and finds none knows that it was delivered, also if a consumer has taken
//! it away since. It is empty or whole at any time, and the last rename has one winner, so two
//! processes at the same item make one file of it.
//!
//! A missing file proves nothing in another directory (one that is not mounted, or was made anew), where
//! directories have no time of birth by which to tell that, or after the machine went down, which may
//! have undone its making: then the name is looked at, as it is where there was no note at all.

use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest;

use super::super::name::{Exists, OURS, split};
use super::super::template::uuid;
use super::sys::{self, Dir};
use super::{Found, Inner, Job, SinkError, is_copy, part_name};
use crate::flow::item::Item;
use crate::store::Placement;

/// How the name of a waiting file ends.
const HELD: &[u8] = b".held";
/// First byte of a note.
const FORMAT: u8 = 1;
/// Length of a note in bytes.
const NOTE_LEN: usize = 41;
/// For so long a missing file proves anything.
const PROOF: Duration = Duration::from_secs(7 * 24 * 3600);
/// Waiting files whose item went another way are removed after this: long after they could prove
/// anything.
const SWEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// What became of an earlier delivery.
#[derive(Debug)]
pub(super) enum Fate {
    /// It has not become visible. The name of the file that waits.
    Waits(Vec<u8>),
    /// It became visible.
    Named,
    /// There is no proof.
    Unknown,
}

/// What the ledger keeps of a waiting file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Note {
    /// The digits of its name.
    digits: u64,
    /// Which start of the machine.
    boot: u64,
    /// The directory, by device and by a hash of its number and birth; zeros where it has none. Older
    /// notes have the number alone, which is never the same.
    directory: (u64, u64),
    /// Seconds since 1970.
    made: u64,
}

impl Note {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        let (device, number) = self.directory;
        for field in [self.digits, self.boot, device, number, self.made] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (&[FORMAT], fields) = bytes.split_first_chunk::<1>()? else {
            return None;
        };
        if bytes.len() != NOTE_LEN {
            return None;
        }
        let mut fields = fields.chunks_exact(8).map(|field| {
            let mut number = [0; 8];
            number.copy_from_slice(field);
            u64::from_be_bytes(number)
        });
        Some(Self {
            digits: fields.next()?,
            boot: fields.next()?,
            directory: (fields.next()?, fields.next()?),
            made: fields.next()?,
        })
    }

    fn name(self) -> Vec<u8> {
        [OURS, format!("{:016x}", self.digits).as_bytes(), HELD].concat()
    }
}

/// Whether `name` is one that a [`Note`] makes.
fn is_held_name(name: &[u8]) -> bool {
    let digits = name
        .strip_prefix(OURS)
        .and_then(|rest| rest.strip_suffix(HELD));
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

fn number(hashed: &[&[u8]]) -> u64 {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in hashed {
        hash.update(part);
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(hash.finish().as_ref().get(..8).unwrap_or(&[0; 8]));
    u64::from_be_bytes(bytes)
}

/// What tells a directory from every other, also from one that gets its number after it. None where
/// nothing does.
fn identity(dir: &Dir) -> io::Result<Option<(u64, u64)>> {
    let Some((seconds, nanoseconds)) = dir.birth()? else {
        return Ok(None);
    };
    let (device, inode) = dir.identity()?;
    let born = number(&[
        &inode.to_be_bytes(),
        &seconds.to_be_bytes(),
        &nanoseconds.to_be_bytes(),
    ]);
    Ok(Some((device, born)))
}

#[expect(clippy::disallowed_methods, reason = "files have times by this clock")]
fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Inner {
    /// Makes the file that waits, empty, and the note about it; an empty note where a missing file
    /// would prove nothing.
    pub(super) fn hold(&self, dir: &Dir, item: &Item) -> io::Result<Vec<u8>> {
        let Some(boot) = sys::boot() else {
            return Ok(Vec::new());
        };
        let note = Note {
            // An attempt that the ledger never heard of has made the same.
            digits: number(&[uuid(item).as_bytes(), self.settings.name.as_bytes()]),
            boot: number(&[&boot]),
            directory: identity(dir)?.unwrap_or_default(),
            made: seconds(),
        };
        match dir.create_new(&note.name()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(note.bytes()),
        }
    }

    /// What became of an earlier delivery to `placement`, as far as there is proof. `is_new`: the
    /// directory was not there, so it is not the one that the note speaks of, though its number and,
    /// within a tick of the clock, its birth may be the same.
    pub(super) fn fate(&self, dir: &Dir, is_new: bool, placement: &Placement) -> io::Result<Fate> {
        let Some(note) = Note::read(&placement.note) else {
            return Ok(Fate::Unknown);
        };
        let name = note.name();
        match dir.look(&name)? {
            super::Held::File { .. } => return Ok(Fate::Waits(name)),
            super::Held::Other => return Ok(Fate::Unknown),
            super::Held::Nothing => {}
        }
        let is_proof = !is_new
            && sys::boot().is_some_and(|boot| number(&[&boot]) == note.boot)
            && identity(dir)? == Some(note.directory)
            && seconds()
                .checked_sub(note.made)
                .is_some_and(|age| age < PROOF.as_secs());
        Ok(if is_proof { Fate::Named } else { Fate::Unknown })
    }

    /// Delivers by way of the file `held`, which was there a moment ago; whether it still was. If not,
    /// nothing was done.
    pub(super) fn deliver_held(
        &self,
        dir: &Dir,
        held: &[u8],
        job: &Job,
    ) -> Result<bool, SinkError> {
        let name = job.placement.name.as_slice();
        let (path, last) = split(name);
        let synced = || {
            let synced = self.steps.pass().and_then(|()| dir.sync());
            synced.map(|()| true).map_err(self.failed("sync", path))
        };
        if self.settings.exists != Exists::Overwrite {
            match self.holder(dir, held, last, name)? {
                Found::Nothing => {}
                Found::Ours => return synced(),
                Found::Another => return self.passed_over(dir, held, name),
            }
        }
        let is_whole = self.is_whole(dir, held, job);
        if !is_whole.map_err(self.failed("compare", name))? && !self.fill(dir, held, job)? {
            return Ok(false);
        }
        job.fence.pass_blocking(&job.runtime)?;
        let renamed = self.steps.pass().and_then(|()| {
            if self.settings.exists == Exists::Overwrite {
                dir.rename(held, last)
            } else {
                dir.rename_new(held, last)
            }
        });
        match renamed {
            Ok(()) => {}
            // Whoever had this claim before was slow, not dead.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.holder(dir, held, last, name)? == Found::Another {
                    return self.passed_over(dir, held, name);
                }
            }
            Err(error) => return Err(self.failed("name", name)(error)),
        }
        synced()
    }

    /// Puts the content, whole and durable, where the empty file waits; whether it still did. One that has
    /// got its name meanwhile is not made again: whoever comes next would deliver it once more.
    fn fill(&self, dir: &Dir, held: &[u8], job: &Job) -> Result<bool, SinkError> {
        let name = job.placement.name.as_slice();
        let failed = self.failed("write", name);
        let part = part_name();
        let made = self
            .make(dir, &part, job)
            .and_then(|file| self.steps.pass().map(|()| file))
            .map_err(&failed);
        // As long as it is open, nobody takes it for a leftover.
        let filled = made.and_then(|_file| match dir.exchange(&part, held) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.replace(dir, &part, held, job)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Both are gone where somebody removes the directory.
                match dir.look(&part).map_err(&failed)? {
                    super::Held::Nothing => Err(failed(error)),
                    _ => Ok(false),
                }
            }
            Err(error) => Err(failed(error)),
        });
        if self.steps.pass().is_ok() {
            // What waited before, or what has no use; after a plain rename it is not there any more.
            let _ = dir.remove(&part);
        }
        filled
    }

    /// The same for systems that cannot exchange two names, where the rename would make a file that has
    /// gone anew. Who lost the claim does not get there, so only what happens between a look and the
    /// rename after it stays unseen.
    pub(super) fn replace(
        &self,
        dir: &Dir,
        part: &[u8],
        held: &[u8],
        job: &Job,
    ) -> Result<bool, SinkError> {
        job.fence.ask_blocking(&job.runtime)?;
        let failed = self.failed("write", &job.placement.name);
        if dir.look(held).map_err(&failed)? == super::Held::Nothing {
            return Ok(false);
        }
        dir.rename(part, held).map_err(failed)?;
        Ok(true)
    }

    /// What has the name. It is the file that waits itself where a rename is made of two steps and the
    /// second was not done: then the item is delivered, and the file loses its other name.
    fn holder(&self, dir: &Dir, held: &[u8], last: &[u8], name: &[u8]) -> Result<Found, SinkError> {
        let failed = self.failed("look at", name);
        if dir.look(last).map_err(&failed)? == super::Held::Nothing {
            return Ok(Found::Nothing);
        }
        if !dir.is_one_file(held, last).map_err(&failed)? {
            return Ok(Found::Another);
        }
        self.unhold(dir, held, name)?;
        Ok(Found::Ours)
    }

    /// The name is taken: where that is no failure, nothing waits any more. False if nothing did: then it
    /// may have been taken by what waited.
    fn passed_over(&self, dir: &Dir, held: &[u8], name: &[u8]) -> Result<bool, SinkError> {
        if dir.look(held).map_err(self.failed("look at", name))? == super::Held::Nothing {
            return Ok(false);
        }
        self.taken(name)?;
        self.unhold(dir, held, name)?;
        Ok(true)
    }

    /// Removes the waiting file, if it is there.
    fn unhold(&self, dir: &Dir, held: &[u8], name: &[u8]) -> Result<(), SinkError> {
        self.steps
            .pass()
            .and_then(|()| dir.remove(held))
            .or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .map_err(self.failed("remove what waited for", name))
    }

    /// Whether the waiting file is the content, from an earlier attempt.
    fn is_whole(&self, dir: &Dir, held: &[u8], job: &Job) -> io::Result<bool> {
        let is_long = dir.look(held)?
            == super::Held::File {
                len: job.content.len,
            };
        if !is_long || !job.again || job.content.len == 0 {
            return Ok(false);
        }
        match dir.open_file(held) {
            Ok(file) => is_copy(file, &job.content, 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a file waits for a delivery to `placement`.
    pub(super) fn waits(&self, placement: &Placement) -> Result<bool, SinkError> {
        let Some(note) = Note::read(&placement.note) else {
            return Ok(false);
        };
        let (path, _) = split(&placement.name);
        let held = self
            .root()?
            .below(path)
            .and_then(|dir| dir.look(&note.name()));
        match held {
            Ok(held) => Ok(matches!(held, super::Held::File { .. })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("look at", &placement.name)(error)),
        }
    }

    /// Removes the waiting file of an item that went another way.
    pub(super) fn let_go(&self, placement: &Placement) -> Result<(), SinkError> {
        let Some(note) = Note::read(&placement.note) else {
            return Ok(());
        };
        let (path, _) = split(&placement.name);
        let failed = self.failed("remove what waited for", &placement.name);
        let removed = self
            .root()?
            .below(path)
            .and_then(|dir| dir.remove(&note.name()));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

/// Whether a file of the name `name` waits in vain: for longer than anybody would believe its end.
pub(super) fn is_forgotten(name: &[u8], file: &File) -> bool {
    is_held_name(name)
        && sys::changed(file).is_some_and(|changed| {
            seconds()
                .checked_sub(changed)
                .is_some_and(|age| age > SWEPT.as_secs())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_and_other_bytes_are_none() {
        let note = Note {
            digits: 7,
            boot: u64::MAX,
            directory: (3, 1 << 40),
            made: 1_795_282_542,
        };
        let bytes = note.bytes();
        assert_eq!(bytes.len(), NOTE_LEN);
        assert_eq!(Note::read(&bytes), Some(note));
        assert!(is_held_name(&note.name()));
        for cut in 0..NOTE_LEN {
            assert_eq!(Note::read(&bytes[..cut]), None);
        }
        assert_eq!(Note::read(&[0; NOTE_LEN]), None);
        assert!(!is_held_name(b".ketch-0000000000000007.part"));
    }
}
