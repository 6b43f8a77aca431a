//! Proof of what became of a delivery to a server: a hidden file that waits beside the name it is to
//! get, as in a directory here.
//!
//! ```text
//!   place:   .ketch-<digits>.held is created, empty ── the ledger notes it
//!   deliver: upload over .held, its time ── fence ── rename to the name
//! ```
//!
//! While it is there, whatever has the name is another's, also if its bytes are the same. Once it is
//! gone it has got its name, also if a consumer has taken that away since; unless the directory is
//! another one, which a file with a random number in it tells, one in each directory. Where the server
//! takes no such files the name itself is looked at, and a file there with the same content counts as
//! ours. So it is on servers without `posix-rename@openssh.com`: an upload over the waiting file takes it
//! away for a moment there, so that its absence would prove nothing.

use ketch_client::{
    Durability, Failure as _, Kind, OpenOptions, Overwrite, PutOptions, RemotePath, Sftp,
};
use ring::digest;

use super::super::event::shown;
use super::super::name::{Exists, split};
use super::super::template::uuid;
use super::{Found, SftpSink, failed};
use crate::flow::item::Item;
use crate::sink::{Content, Parcel, SinkError};
use crate::store::Placement;

/// First byte of a note.
const FORMAT: u8 = 1;
/// Length of a note in bytes.
const NOTE_LEN: usize = 17;
/// The file that tells a directory from another of its name.
const HERE: &[u8] = b".ketch-here";

/// What became of an earlier delivery.
#[derive(Debug)]
pub(super) enum Fate {
    /// It has not become visible. The file that waits, and its length.
    Waits(RemotePath, u64),
    /// It became visible.
    Named,
    /// There is no proof.
    Unknown,
}

/// What the ledger keeps of a waiting file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Note {
    /// The digits of its name.
    digits: u64,
    /// What its directory's own file says; 0 for nothing.
    directory: u64,
}

impl Note {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.digits.to_be_bytes());
        bytes.extend_from_slice(&self.directory.to_be_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (&[FORMAT], fields) = bytes.split_first_chunk::<1>()? else {
            return None;
        };
        let (digits, rest) = fields.split_first_chunk::<8>()?;
        let directory: [u8; 8] = rest.try_into().ok()?;
        debug_assert_eq!(bytes.len(), NOTE_LEN);
        Some(Self {
            digits: u64::from_be_bytes(*digits),
            directory: u64::from_be_bytes(directory),
        })
    }

    /// The file's name, in the directory of `name`.
    fn beside(self, name: &[u8]) -> Vec<u8> {
        beside(name, format!(".ketch-{:016x}.held", self.digits).as_bytes())
    }
}

/// `hidden` in the directory of `name`.
fn beside(name: &[u8], hidden: &[u8]) -> Vec<u8> {
    match split(name).0 {
        b"" => hidden.to_vec(),
        dir => [dir, b"/", hidden].concat(),
    }
}

/// Opens a file as `options` say and writes its first bytes.
async fn written(
    sftp: &Sftp,
    path: &RemotePath,
    options: OpenOptions,
    bytes: [u8; 8],
) -> Result<(), ketch_client::SftpError> {
    let file = sftp.open(path, options).await?;
    file.write_at(0, &bytes).await?;
    file.close().await
}

impl SftpSink {
    /// Makes the file that waits, empty, and the note about it; an empty note where the server takes
    /// no such file.
    pub(super) async fn hold(&self, item: &Item, name: &[u8]) -> Result<Vec<u8>, SinkError> {
        let sftp = self.sftp().await?;
        if !self.replaces(&sftp).await? {
            return Ok(Vec::new());
        }
        // Nothing waits for a name that stays another's, and what takes a file's place is to be seen by
        // nobody who did not see that.
        let taken = match self.settings.exists {
            Exists::Overwrite | Exists::Skip => self.look(&sftp, name).await?,
            _ => None,
        };
        if taken.is_some() && self.settings.exists == Exists::Skip {
            return Ok(Vec::new());
        }
        self.make_directories(&sftp, name).await?;
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(uuid(item).as_bytes());
        hash.update(self.settings.name.as_bytes());
        let mut digits = [0; 8];
        digits.copy_from_slice(hash.finish().as_ref().get(..8).unwrap_or(&[0; 8]));
        let note = Note {
            // An attempt that the ledger never heard of has made the same.
            digits: u64::from_be_bytes(digits),
            directory: self.directory(&sftp, name).await?,
        };
        let mut options = OpenOptions::new().write().create();
        if let Some(mode) = taken.and_then(|attrs| attrs.permissions) {
            options = options.permissions(mode & 0o777);
        }
        let held = self.path(&note.beside(name));
        match sftp.open(&held, options).await {
            Ok(file) => {
                let closed = file.close().await;
                closed.map_err(|error| failed(format!("cannot create {held}"), error))?;
                Ok(note.bytes())
            }
            Err(error) if error.is_transient() || error.kind() == Kind::NoSpace => {
                Err(failed(format!("cannot create {held}"), error))
            }
            // The directory may have been removed since it was made.
            Err(error) if error.kind() == Kind::NotFound => {
                self.forget_directories().await;
                Err(failed(format!("cannot create {held}"), error))
            }
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The number of the directory of `name`, which is made if it has none; 0 if it can have none.
    async fn directory(&self, sftp: &Sftp, name: &[u8]) -> Result<u64, SinkError> {
        let dir = split(name).0;
        if let Some(number) = self.numbers.lock().await.get(dir) {
            return Ok(*number);
        }
        let mut number = self.number_of(sftp, name).await?;
        if number == 0 {
            self.number(sftp, name).await?;
            // Another may have been quicker: what is there holds.
            number = self.number_of(sftp, name).await?;
        }
        // That there is none is no fact to be kept: another may be making one now.
        if number != 0 {
            let mut numbers = self.numbers.lock().await;
            if numbers.len() >= super::MADE_MAX {
                numbers.clear();
            }
            numbers.insert(dir.to_vec(), number);
        }
        Ok(number)
    }

    /// Gives the directory of `name` a number, as far as the server lets it have one.
    ///
    /// The file is whole when it gets its name, so nobody reads half of it.
    async fn number(&self, sftp: &Sftp, name: &[u8]) -> Result<(), SinkError> {
        let path = self.path(&beside(name, HERE));
        let random = || std::hash::RandomState::new();
        let new = std::hash::BuildHasher::hash_one(&random(), name).max(1);
        let bytes = new.to_be_bytes();
        let chance = std::hash::BuildHasher::hash_one(&random(), HERE);
        let part = self.path(&beside(
            name,
            format!(".ketch-{chance:016x}.here").as_bytes(),
        ));
        let failed = |error| failed(format!("cannot create {path}"), error);
        self.pass()?;
        let new_file = OpenOptions::new().write().create_new();
        let named = match written(sftp, &part, new_file, bytes).await {
            Ok(()) => {
                self.pass()?;
                sftp.rename(&part, &path).await
            }
            Err(error) => Err(error),
        };
        match named {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() => return Err(failed(error)),
            Err(_) => {
                let _ = sftp.remove_file(&part).await;
            }
        }
        // It has one, or one that was cut short: that is made whole where it is.
        if self.number_of(sftp, name).await? != 0 {
            return Ok(());
        }
        self.pass()?;
        match written(sftp, &path, OpenOptions::new().write(), bytes).await {
            Err(error) if error.is_transient() => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// What the directory's own file says now; 0 for nothing.
    async fn number_of(&self, sftp: &Sftp, name: &[u8]) -> Result<u64, SinkError> {
        let path = self.path(&beside(name, HERE));
        let read = async {
            let file = sftp.open(&path, OpenOptions::reading()).await?;
            file.read_at(0, 8).await
        };
        match read.await {
            Ok(bytes) => Ok(<[u8; 8]>::try_from(&*bytes).map_or(0, u64::from_be_bytes)),
            Err(error) if error.is_transient() => Err(failed(format!("cannot read {path}"), error)),
            Err(_) => Ok(0),
        }
    }

    /// Whether a file is replaced in one step.
    async fn replaces(&self, sftp: &Sftp) -> Result<bool, SinkError> {
        let replaces = sftp.has_posix_rename().await;
        replaces.map_err(|error| failed("cannot ask what the server has".to_owned(), error))
    }

    /// What became of an earlier delivery to `placement`, as far as there is proof.
    pub(super) async fn fate(&self, sftp: &Sftp, placement: &Placement) -> Result<Fate, SinkError> {
        let Some(note) = Note::read(&placement.note) else {
            return Ok(Fate::Unknown);
        };
        let held = note.beside(&placement.name);
        if let Some(attrs) = self.look(sftp, &held).await? {
            return Ok(match super::is_plain(&attrs) {
                true => Fate::Waits(self.path(&held), attrs.size.unwrap_or(0)),
                false => Fate::Unknown,
            });
        }
        // The server may be another one since.
        let is_same = note.directory != 0
            && self.replaces(sftp).await?
            && self.number_of(sftp, &placement.name).await? == note.directory;
        Ok(if is_same { Fate::Named } else { Fate::Unknown })
    }

    /// Delivers by way of the file `held`, which was there a moment ago with `len` bytes.
    pub(super) async fn deliver_held(
        &self,
        sftp: &Sftp,
        (held, len): (&RemotePath, u64),
        parcel: &Parcel<'_>,
        content: &Content,
    ) -> Result<(), SinkError> {
        let name = parcel.placement.name.as_slice();
        let path = self.path(name);
        let is_free = self.settings.exists == Exists::Overwrite;
        if !is_free && self.look(sftp, name).await?.is_some() {
            return self.passed_over(sftp, held, name).await;
        }
        let is_whole = parcel.again
            && len == content.len
            && self.compare(sftp, held, content).await? == Found::Ours;
        if !is_whole {
            // Who was held up beyond its claim would make anew what has got its name meanwhile.
            parcel.fence.ask().await?;
            self.pass()?;
            let options = PutOptions::new()
                .durability(Durability::File)
                .overwrite(Overwrite::Replace);
            match sftp.put(&content.path, held, options).await {
                Ok(report) if report.bytes == content.len => {}
                Ok(_) => return Err(super::wrong_length(&path)),
                Err(error) => {
                    self.forget_directories().await;
                    return Err(failed(format!("cannot write {path}"), error));
                }
            }
            self.pass()?;
            self.set_times(sftp, held, parcel.item).await?;
        }
        if let Err(refused) = parcel.fence.pass().await {
            // What has the name is this content already: the upload made a file anew that had got it.
            // Where names are not replaced that file may be another's, and what waits is the proof.
            if is_free && !is_whole && self.find(sftp, name, content).await? == Found::Ours {
                self.pass()?;
                let _ = sftp.remove_file(held).await;
            }
            return Err(refused);
        }
        self.pass()?;
        let renamed = match is_free {
            true => sftp.posix_rename(held, &path).await,
            false => sftp.rename(held, &path).await,
        };
        let Err(error) = renamed else {
            return self.pass();
        };
        if error.is_transient() {
            return Err(failed(format!("cannot name {path}"), error));
        }
        // Version 3 has one status for everything: look what is so.
        match self.fate(sftp, parcel.placement).await? {
            // Whoever had this claim before was slow, not dead.
            Fate::Named => Ok(()),
            _ if !is_free && self.look(sftp, name).await?.is_some() => {
                self.passed_over(sftp, held, name).await
            }
            _ => Err(failed(format!("cannot name {path}"), error)),
        }
    }

    /// The name is taken: where that is no failure, nothing waits any more.
    async fn passed_over(
        &self,
        sftp: &Sftp,
        held: &RemotePath,
        name: &[u8],
    ) -> Result<(), SinkError> {
        match self.settings.exists {
            Exists::Skip => {}
            Exists::Unique => return Err(SinkError::Taken { name: shown(name) }),
            _ => return Err(SinkError::Exists { name: shown(name) }),
        }
        self.pass()?;
        match sftp.remove_file(held).await {
            Err(error) if error.kind() != Kind::NotFound => {
                Err(failed(format!("cannot remove {held}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Whether a file waits for a delivery to `placement`.
    pub(super) async fn is_waiting(&self, placement: &Placement) -> Result<bool, SinkError> {
        let Some(note) = Note::read(&placement.note) else {
            return Ok(false);
        };
        let sftp = self.sftp().await?;
        let held = self.look(&sftp, &note.beside(&placement.name)).await?;
        Ok(held.is_some_and(|attrs| super::is_plain(&attrs)))
    }

    /// Removes the waiting file of an item that went another way.
    pub(super) async fn let_go(&self, placement: &Placement) -> Result<(), SinkError> {
        let Some(note) = Note::read(&placement.note) else {
            return Ok(());
        };
        let sftp = self.sftp().await?;
        let held = self.path(&note.beside(&placement.name));
        match sftp.remove_file(&held).await {
            Err(error) if error.kind() != Kind::NotFound => {
                Err(failed(format!("cannot remove {held}"), error))
            }
            _ => Ok(()),
        }
    }
}
