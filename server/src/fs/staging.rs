//! Uploads that appear under their name when they are whole.
//!
//! A file that is opened to be written from its start on (`create` and `truncate`,
//! draft-ietf-secsh-filexfer-02 §6.3) is written under a hidden name beside its own and takes that
//! with the `CLOSE`, by one rename. Until then whoever reads the name sees what was there before. A
//! connection that is lost, a write that failed and a server that is killed leave nothing under the
//! name. What is opened to append, or to be changed in place, is.
//!
//! It is a layer between sessions and the user's file system, and asks of that what any file system
//! has: so it works with all of them, below it the one that keeps the ledger of a quota. Hidden names
//! are `.ketch-` and 128 random bits in hex. They are left out of listings, and no request reaches
//! one. Who writes such a file has it claimed ([`FileCall::Claim`]), which ends with its process:
//! what nobody has claimed was left by one that was killed, and is removed when a server starts
//! ([`Staging::reap`]).

mod file;
mod reap;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};

use self::file::StagedFile;
use crate::fs::{
    Answer, Batch, Call, Change, Create, Directory, File, FileCall, FileSystem, Links, Metadata,
    OpenHow, TYPE_BITS, TYPE_FILE, Work,
};
use crate::path::VPath;

/// What an upload waits for before its `CLOSE` is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: after a power failure it may be missing, or be the one before.
    #[default]
    None,
    /// That its bytes are on the disk, before it takes its name: whatever has the name is whole. After
    /// a power failure it may be the file before.
    File,
    /// That its bytes and its name are.
    Full,
}

/// A user's file system, in which uploads appear when they are whole.
#[derive(Debug)]
pub(crate) struct Staging {
    files: Arc<dyn FileSystem>,
    durability: Durability,
    /// What earlier servers left was looked for.
    has_reaped: AtomicBool,
    /// Names that are being written, and that nobody else may write meanwhile: as many as handles are
    /// open, at most.
    taken: Mutex<HashSet<VPath>>,
}

const PREFIX: &[u8] = b".ketch-";
/// Hex digits behind it: 128 bits.
const DIGITS: usize = 32;

/// Whether a name is one under which files are written that are not whole.
fn is_hidden(name: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.strip_prefix(PREFIX)
        .is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(is_digit))
}

/// A hidden name beside `path`.
fn beside(path: &VPath) -> io::Result<VPath> {
    let (directory, _) = path.split().ok_or(ErrorKind::IsADirectory)?;
    let mut random = [0; DIGITS / 2];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    let mut name = PREFIX.to_vec();
    for byte in random {
        for digit in [byte >> 4, byte & 15] {
            name.push(match digit {
                0..=9 => b'0' + digit,
                _ => b'a' + digit - 10,
            });
        }
    }
    directory
        .walk(&name)
        .map_err(|_| ErrorKind::InvalidFilename.into())
}

/// Whether no request may be about `path`.
fn leads_to_hidden(path: &VPath) -> bool {
    path.components().any(is_hidden)
}

/// Whether what is opened so becomes a new file from its first byte on.
fn is_staged(how: &OpenHow) -> bool {
    how.write && how.truncate && !how.append && how.create != Create::Never
}

/// Whether nothing may have the name in the end: what another user brought meanwhile stays, where
/// uploads are exclusive.
const fn has_to_be_new(how: &OpenHow, kept: Option<u32>) -> bool {
    matches!(how.create, Create::New { .. }) || (how.exclusive && kept.is_none())
}

/// How a file is written that is not whole yet: as it was asked for, under a new name.
fn staged_how(how: &OpenHow, mode: u32) -> OpenHow {
    OpenHow {
        read: how.read,
        write: true,
        append: false,
        truncate: false,
        exclusive: how.exclusive,
        // Whoever writes it may write on, whatever it gets in the end.
        create: Create::New { mode: mode | 0o600 },
    }
}

/// A name that something is being written for.
#[derive(Debug)]
struct Name {
    staging: Arc<Staging>,
    path: VPath,
    /// Nobody else may write it meanwhile.
    is_held: bool,
}

impl Drop for Name {
    fn drop(&mut self) {
        if self.is_held {
            self.staging.taken().remove(&self.path);
        }
    }
}

/// What becomes of an `OPEN`.
enum Plan {
    /// It is none of ours.
    Plain,
    /// It gets a hidden name, with these permission bits; the second ones are set, as there is a file
    /// of the name that has them.
    Staged(u32, Option<u32>),
}

/// Decides by what has the name now.
fn plan(how: &OpenHow, there: io::Result<Answer>) -> io::Result<Plan> {
    let (mode, is_new) = match how.create {
        Create::New { mode } => (mode, true),
        Create::IfMissing { mode } => (mode, false),
        Create::Never => return Ok(Plan::Plain),
    };
    match there {
        Ok(Answer::Metadata(_)) if is_new => Err(ErrorKind::AlreadyExists.into()),
        Ok(Answer::Metadata(metadata)) if !is_file(&metadata) => Ok(Plan::Plain),
        // Who may not write to it may not put another one in its place either.
        Ok(Answer::Metadata(metadata)) if metadata.mode & 0o222 == 0 => {
            Err(ErrorKind::PermissionDenied.into())
        }
        Ok(Answer::Metadata(metadata)) => {
            let mode = metadata.mode & 0o777;
            Ok(Plan::Staged(mode, Some(mode)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Plan::Staged(mode, None)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error),
        // Opening says what is wrong.
        _ => Ok(Plan::Plain),
    }
}

/// A link is none: what is written through it goes where it leads, in place.
const fn is_file(metadata: &Metadata) -> bool {
    metadata.mode & TYPE_BITS == TYPE_FILE
}

impl Staging {
    pub(crate) fn new(files: Arc<dyn FileSystem>, durability: Durability) -> Arc<Self> {
        Arc::new(Self {
            files,
            durability,
            has_reaped: AtomicBool::new(false),
            taken: Mutex::default(),
        })
    }

    /// Whether a request names what no client may know of.
    fn check(call: &Call) -> io::Result<()> {
        if call.paths().into_iter().flatten().any(leads_to_hidden) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(())
    }

    fn metadata_of(path: &VPath) -> Call {
        Call::Metadata {
            path: path.clone(),
            links: Links::Stay,
        }
    }

    /// Holds the name `path` as long as it is being written.
    fn name(self: &Arc<Self>, path: &VPath, how: &OpenHow) -> io::Result<Name> {
        if how.exclusive && !self.taken().insert(path.clone()) {
            return Err(ErrorKind::ResourceBusy.into());
        }
        Ok(Name {
            staging: Arc::clone(self),
            path: path.clone(),
            is_held: how.exclusive,
        })
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<VPath>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_open(self: &Arc<Self>, path: &VPath, how: &OpenHow) -> io::Result<Answer> {
        let there = self.files.try_call(&Self::metadata_of(path));
        let (mode, kept) = match plan(how, there)? {
            Plan::Plain => {
                let (path, how) = (path.clone(), *how);
                return self.files.try_call(&Call::Open { path, how });
            }
            Plan::Staged(mode, kept) => (mode, kept),
        };
        let name = self.name(path, how)?;
        let replaced = match replaced_how(how, kept) {
            Some(how) => {
                let path = path.clone();
                replaced(self.files.try_call(&Call::Open { path, how }))?
            }
            None => None,
        };
        let staged = beside(path)?;
        let open = Call::Open {
            path: staged.clone(),
            how: staged_how(how, mode),
        };
        let Answer::File(file) = self.files.try_call(&open)? else {
            return Err(ErrorKind::InvalidData.into());
        };
        // From here on it goes with its last reference.
        let is_new = has_to_be_new(how, kept);
        let whole = StagedFile::new(Arc::clone(&file), staged.clone(), name, is_new, replaced);
        file.try_call(&FileCall::Claim)?;
        match self.files.try_call(&Self::metadata_of(&staged)) {
            // Who looks for leftovers was quicker than the claim: once more, with time.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ErrorKind::WouldBlock.into());
            }
            found => {
                if let Some(mode) = final_mode(mode, kept, &found?) {
                    file.try_call(&FileCall::Change(mode_of(mode)))?;
                }
            }
        }
        Ok(Answer::File(whole))
    }

    async fn open(self: Arc<Self>, path: VPath, how: OpenHow) -> io::Result<Answer> {
        let files = || Arc::clone(&self.files);
        let there = files().call(Self::metadata_of(&path)).await;
        let (mode, kept) = match plan(&how, there)? {
            Plan::Plain => return files().call(Call::Open { path, how }).await,
            Plan::Staged(mode, kept) => (mode, kept),
        };
        let mut tries_left = CLAIMS_MAX;
        loop {
            let name = self.name(&path, &how)?;
            let replaced = match replaced_how(&how, kept) {
                Some(how) => {
                    let path = path.clone();
                    replaced(files().call(Call::Open { path, how }).await)?
                }
                None => None,
            };
            let staged = beside(&path)?;
            let open = Call::Open {
                path: staged.clone(),
                how: staged_how(&how, mode),
            };
            let Answer::File(file) = files().call(open).await? else {
                return Err(ErrorKind::InvalidData.into());
            };
            let is_new = has_to_be_new(&how, kept);
            let whole = StagedFile::new(Arc::clone(&file), staged.clone(), name, is_new, replaced);
            Arc::clone(&file).call(FileCall::Claim).await?;
            tries_left = tries_left.saturating_sub(1);
            match files().call(Self::metadata_of(&staged)).await {
                Err(error) if error.kind() == ErrorKind::NotFound && tries_left > 0 => {}
                found => {
                    if let Some(mode) = final_mode(mode, kept, &found?) {
                        file.call(FileCall::Change(mode_of(mode))).await?;
                    }
                    return Ok(Answer::File(whole));
                }
            }
        }
    }
}

/// How often a hidden file is made that somebody who looks for leftovers removes before it is claimed.
const CLAIMS_MAX: u32 = 4;

/// How the file is opened that will be replaced, where uploads are exclusive: who writes to it in
/// place keeps others from replacing it, and the other way round.
fn replaced_how(how: &OpenHow, kept: Option<u32>) -> Option<OpenHow> {
    (how.exclusive && kept.is_some()).then(|| OpenHow {
        read: false,
        write: true,
        exclusive: true,
        ..OpenHow::read()
    })
}

/// The file that will be replaced, open as long as nobody else may write to it; none if it cannot be
/// opened, or is gone by now.
fn replaced(answer: io::Result<Answer>) -> io::Result<Option<Arc<dyn File>>> {
    match answer {
        Ok(Answer::File(file)) => Ok(Some(file)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::ResourceBusy
            ) =>
        {
            Err(error)
        }
        _ => Ok(None),
    }
}

/// The permission bits to be set once a hidden file is open: those of the file it replaces, or those
/// that were asked for where its owner has less than it was made with.
fn final_mode(mode: u32, kept: Option<u32>, found: &Answer) -> Option<u32> {
    match found {
        _ if kept.is_some() => kept,
        Answer::Metadata(found) if mode & 0o600 != 0o600 => Some(found.mode & 0o777 & mode),
        _ => None,
    }
}

fn mode_of(mode: u32) -> Change {
    Change {
        mode: Some(mode),
        ..Change::default()
    }
}

/// The same layer, as sessions hold it.
#[derive(Debug)]
pub(crate) struct StagedFiles(pub(crate) Arc<Staging>);

impl FileSystem for StagedFiles {
    fn try_call(&self, call: &Call) -> io::Result<Answer> {
        Staging::check(call)?;
        match call {
            Call::Open { path, how } if is_staged(how) => self.0.try_open(path, how),
            call => Ok(shown(self.0.files.try_call(call)?)),
        }
    }

    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        if let Err(error) = Staging::check(&call) {
            return Box::pin(std::future::ready(Err(error)));
        }
        let staging = Arc::clone(&self.0);
        match call {
            Call::Open { path, how } if is_staged(&how) => Box::pin(staging.open(path, how)),
            call => {
                let work = Arc::clone(&staging.files).call(call);
                Box::pin(async move { Ok(shown(work.await?)) })
            }
        }
    }
}

/// A directory without its hidden names; all else as it is.
fn shown(answer: Answer) -> Answer {
    match answer {
        Answer::Directory(directory) => Answer::Directory(Box::new(Shown(directory))),
        answer => answer,
    }
}

#[derive(Debug)]
struct Shown(Box<dyn Directory>);

fn take_out_hidden(batch: &mut Batch) {
    batch.retain(|entry| !is_hidden(&entry.name));
}

impl Directory for Shown {
    fn try_read(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.0.try_read(batch)?;
        let is_end = batch.entries().is_empty();
        take_out_hidden(batch);
        // No entries would be the end of the directory; who leaves much behind waits for a thread.
        if is_end || !batch.entries().is_empty() {
            return Ok(());
        }
        Err(ErrorKind::WouldBlock.into())
    }

    fn read(self: Box<Self>, batch: Batch) -> Work<(Box<dyn Directory>, Batch)> {
        Box::pin(async move {
            let (mut directory, mut batch) = (self.0, batch);
            loop {
                (directory, batch) = directory.read(batch).await?;
                let is_end = batch.entries().is_empty();
                take_out_hidden(&mut batch);
                if is_end || !batch.entries().is_empty() {
                    return Ok((Box::new(Self(directory)) as Box<dyn Directory>, batch));
                }
            }
        })
    }
}
