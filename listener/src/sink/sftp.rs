//! Files to another SFTP server: sent by the client's engine, which gives a file its name when it is
//! whole and on the server's disk.
//!
//! Version 3 of the protocol keeps no note in a file about whose copy it is: that it was delivered is
//! told by a hidden file that is not there any more (see `held`).

mod appending;
mod held;
#[cfg(all(test, unix))]
mod tests;

use std::collections::{HashMap, HashSet};

use ketch_client::{
    Attrs, Durability, Failure, FileType, Kind, OpenOptions, Overwrite, PutOptions, RemotePath,
    Sftp, SftpError, Times,
};
use ring::digest;
use tokio::sync::Mutex;

use self::held::Fate;
use super::event::shown;
use super::name::{self, Exists, NUMBERS_MAX, Names, number_of, numbered, split};
use super::steps::Steps;
use super::template::Template;
use super::{Answer, Content, Parcel, Sink, SinkError, Takes};
use crate::flow::item::Item;
use crate::remote::Remote;
use crate::store::Placement;

/// Directories that are known to be there; beyond it they are looked for once more.
const MADE_MAX: usize = 4096;
/// Bytes that are sent or read in one call.
const CHUNK_LEN: usize = 256 * 1024;

/// How files are put on another server.
#[derive(Clone, Debug)]
pub struct SftpSinkSettings {
    /// The sink's name.
    pub name: String,
    /// How files are called below the directory. Default: as at the source.
    pub template: Template,
    /// What happens when a name is taken. Default: an error.
    ///
    /// Whoever appends is alone: no other process appends to the same files.
    pub exists: Exists,
    /// Whether files get the time of last change that they have at the source. Default: yes.
    pub times: bool,
}

impl SftpSinkSettings {
    /// The defaults: the source's tree, and no name may be taken.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            template: Template::mirror(),
            exists: Exists::Error,
            times: true,
        }
    }
}

/// A sink that puts files into a directory on a server.
#[derive(Debug)]
pub struct SftpSink {
    settings: SftpSinkSettings,
    remote: Remote,
    made: Mutex<HashSet<Vec<u8>>>,
    /// What tells directories from others of their names.
    numbers: Mutex<HashMap<Vec<u8>, u64>>,
    /// One item is appended after another.
    appending: Mutex<()>,
    steps: Steps,
}

/// What a file that has the chosen name is to the item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    Ours,
    Another,
}

impl SftpSink {
    /// A sink for the directory that is `remote`'s root, which exists. Nothing is connected before
    /// something comes.
    #[must_use]
    pub fn new(settings: SftpSinkSettings, remote: Remote) -> Self {
        Self {
            settings,
            remote,
            made: Mutex::default(),
            numbers: Mutex::default(),
            appending: Mutex::default(),
            steps: Steps::default(),
        }
    }

    async fn sftp(&self) -> Result<Sftp, SinkError> {
        self.remote.sftp().await.map_err(|error| {
            let root = self.remote.root();
            failed(format!("cannot connect to write into {root}"), error)
        })
    }

    /// What has the name: `None` for nothing.
    async fn look(&self, sftp: &Sftp, name: &[u8]) -> Result<Option<Attrs>, SinkError> {
        let path = self.path(name);
        match sftp.lstat(&path).await {
            Ok(attrs) => Ok(Some(attrs)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("cannot look at {path}"), error)),
        }
    }

    fn path(&self, name: &[u8]) -> RemotePath {
        self.remote.path(&RemotePath::from(name))
    }

    fn pass(&self) -> Result<(), SinkError> {
        self.steps.pass().map_err(|error| SinkError::Failed {
            what: "stopped".to_owned(),
            kind: Kind::Cancelled,
            source: Box::new(error),
        })
    }

    async fn choose(
        &self,
        item: &Item,
        refused: Option<&Placement>,
    ) -> Result<Placement, SinkError> {
        let mut placement = self.choose_name(item, refused).await?;
        if self.settings.exists != Exists::Append {
            placement.note = self.hold(item, &placement.name).await?;
        }
        Ok(placement)
    }

    async fn choose_name(
        &self,
        item: &Item,
        refused: Option<&Placement>,
    ) -> Result<Placement, SinkError> {
        let name = self.settings.template.place(item, Names::Remote)?;
        let exists = || SinkError::Exists { name: shown(&name) };
        let mut placement = Placement {
            name: name.clone(),
            length: None,
            note: Vec::new(),
        };
        match self.settings.exists {
            Exists::Overwrite | Exists::Skip => {}
            Exists::Error => {
                if self.look(&self.sftp().await?, &name).await?.is_some() {
                    return Err(exists());
                }
            }
            Exists::Append => {
                let attrs = self.look(&self.sftp().await?, &name).await?;
                if attrs.is_some_and(|attrs| !is_plain(&attrs)) {
                    return Err(exists());
                }
                placement.length = Some(attrs.and_then(|attrs| attrs.size).unwrap_or(0));
            }
            Exists::Unique => {
                let sftp = self.sftp().await?;
                let after = refused.and_then(|refused| number_of(&name, &refused.name));
                for number in after.map_or(0, |number| number.saturating_add(1))..NUMBERS_MAX {
                    let chosen = numbered(&name, number);
                    name::check(&chosen, Names::Remote).map_err(|fault| fault.of(&chosen))?;
                    if self.look(&sftp, &chosen).await?.is_none() {
                        placement.name = chosen;
                        return Ok(placement);
                    }
                }
                return Err(exists());
            }
        }
        Ok(placement)
    }

    async fn put(&self, parcel: Parcel<'_>) -> Result<(), SinkError> {
        let content = parcel.bytes()?;
        let name = parcel.placement.name.as_slice();
        name::check(name, Names::Remote).map_err(|fault| fault.of(name))?;
        let sftp = self.sftp().await?;
        self.make_directories(&sftp, name).await?;
        if self.settings.exists == Exists::Append {
            return self.append(&sftp, &parcel, content).await;
        }
        match self.fate(&sftp, parcel.placement).await? {
            Fate::Waits(held, len) => {
                return self
                    .deliver_held(&sftp, (&held, len), &parcel, content)
                    .await;
            }
            Fate::Named if parcel.again => return Ok(()),
            Fate::Named | Fate::Unknown => {}
        }
        let path = self.path(name);
        if parcel.again {
            match self.find(&sftp, name, content).await? {
                Found::Nothing => {}
                Found::Ours => return self.set_times(&sftp, &path, parcel.item).await,
                Found::Another => match self.settings.exists {
                    Exists::Overwrite => {}
                    Exists::Skip => return Ok(()),
                    Exists::Unique => return Err(SinkError::Taken { name: shown(name) }),
                    _ => return Err(SinkError::Exists { name: shown(name) }),
                },
            }
        }
        let overwrite = match self.settings.exists {
            Exists::Overwrite => Overwrite::Replace,
            _ => Overwrite::Never,
        };
        let options = PutOptions::new()
            .durability(Durability::File)
            .overwrite(overwrite);
        parcel.fence.pass().await?;
        self.pass()?;
        match sftp.put(&content.path, &path, options).await {
            Ok(report) if report.bytes == content.len => {}
            Ok(_) => return Err(wrong_length(&path)),
            Err(error) if error.kind() == Kind::Exists => {
                return match self.settings.exists {
                    Exists::Skip => Ok(()),
                    Exists::Unique => Err(SinkError::Taken { name: shown(name) }),
                    _ => Err(SinkError::Exists { name: shown(name) }),
                };
            }
            Err(error) => {
                // The directory may have been removed since it was made.
                self.forget_directories().await;
                return Err(failed(format!("cannot write {path}"), error));
            }
        }
        self.pass()?;
        self.set_times(&sftp, &path, parcel.item).await
    }

    /// A directory may have been removed, or be another one by now.
    async fn forget_directories(&self) {
        self.made.lock().await.clear();
        self.numbers.lock().await.clear();
    }

    /// Gives the file its time. Servers that do not let files have times keep theirs.
    async fn set_times(
        &self,
        sftp: &Sftp,
        path: &RemotePath,
        item: &Item,
    ) -> Result<(), SinkError> {
        let Some(mtime) = item.facts.mtime.filter(|_| self.settings.times) else {
            return Ok(());
        };
        let attrs = Attrs {
            times: Some(Times {
                atime: mtime,
                mtime,
            }),
            ..Attrs::NONE
        };
        match sftp.set_attrs(path, attrs).await {
            Err(error) if error.is_transient() => {
                Err(failed(format!("cannot set the time of {path}"), error))
            }
            _ => Ok(()),
        }
    }

    async fn make_directories(&self, sftp: &Sftp, name: &[u8]) -> Result<(), SinkError> {
        let (dir, _) = split(name);
        if dir.is_empty() || self.made.lock().await.contains(dir) {
            return Ok(());
        }
        let path = self.path(dir);
        self.pass()?;
        sftp.create_dir_all(&path)
            .await
            .map_err(|error| failed(format!("cannot make {path}"), error))?;
        let mut made = self.made.lock().await;
        if made.len() >= MADE_MAX {
            made.clear();
        }
        made.insert(dir.to_vec());
        Ok(())
    }

    /// What has the chosen name.
    async fn find(&self, sftp: &Sftp, name: &[u8], content: &Content) -> Result<Found, SinkError> {
        let Some(attrs) = self.look(sftp, name).await? else {
            return Ok(Found::Nothing);
        };
        if !is_plain(&attrs) || attrs.size.is_some_and(|size| size != content.len) {
            return Ok(Found::Another);
        }
        self.compare(sftp, &self.path(name), content).await
    }

    /// Whether a file has the content.
    async fn compare(
        &self,
        sftp: &Sftp,
        path: &RemotePath,
        content: &Content,
    ) -> Result<Found, SinkError> {
        let sum = match sftp.sha256(path).await {
            Ok(sum) => Ok(sum),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => read_sha256(sftp, path, 0, None).await,
        };
        let sum = sum.map_err(|error| failed(format!("cannot compare {path}"), error))?;
        Ok(if sum == content.sha256 {
            Found::Ours
        } else {
            Found::Another
        })
    }
}

fn failed(what: String, error: impl Failure + Send + Sync + 'static) -> SinkError {
    SinkError::Failed {
        what,
        kind: error.kind(),
        source: Box::new(error),
    }
}

fn wrong_length(path: &RemotePath) -> SinkError {
    SinkError::Failed {
        what: format!("cannot write {path}"),
        kind: Kind::Local,
        source: "the fetched file does not have the length that it had".into(),
    }
}

fn is_plain(attrs: &Attrs) -> bool {
    matches!(attrs.file_type(), FileType::Regular | FileType::Unknown)
}

/// SHA-256 of what is read from `from` on, `len` bytes of it or all.
async fn read_sha256(
    sftp: &Sftp,
    path: &RemotePath,
    from: u64,
    len: Option<u64>,
) -> Result<[u8; 32], SftpError> {
    let file = sftp.open(path, OpenOptions::reading()).await?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut at = from;
    loop {
        let left = len.map_or(u64::MAX, |len| len.saturating_sub(at - from));
        let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_LEN);
        if chunk == 0 {
            break;
        }
        let bytes = file.read_at(at, chunk).await?;
        if bytes.is_empty() {
            break;
        }
        hash.update(&bytes);
        at = at.saturating_add(bytes.len() as u64);
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(hash.finish().as_ref());
    Ok(sum)
}

impl Sink for SftpSink {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn takes(&self) -> Takes {
        Takes::CONTENT
    }

    fn place<'a>(
        &'a self,
        item: &'a Item,
        refused: Option<&'a Placement>,
    ) -> Answer<'a, Placement> {
        Box::pin(self.choose(item, refused))
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(self.put(parcel))
    }

    fn alone(&self) -> Option<&'static str> {
        (self.settings.exists == Exists::Append)
            .then_some("a server has no locks, so two processes would append to one file at a time")
    }

    fn waits<'a>(&'a self, placement: &'a Placement) -> Answer<'a, bool> {
        Box::pin(self.is_waiting(placement))
    }

    fn forget<'a>(&'a self, placement: &'a Placement) -> Answer<'a, ()> {
        Box::pin(self.let_go(placement))
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let sftp = self.sftp().await?;
            let root = self.path(b"");
            let attrs = sftp.stat(&root).await;
            let attrs = attrs.map_err(|error| failed(format!("cannot look at {root}"), error))?;
            if attrs.file_type() == FileType::Directory {
                return Ok(());
            }
            Err(SinkError::Failed {
                what: format!("cannot write into {root}"),
                kind: Kind::Local,
                source: "it is no directory".into(),
            })
        })
    }
}
