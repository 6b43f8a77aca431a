//! A local file that is being read, for an upload.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ketch_protocol::{Owner, Times};

use super::{LocalAction, LocalFault, Tree};
use crate::{
    platform::{self, Dir},
    transfer::{
        disk::{Speed, Speeds},
        options::Sparse,
    },
};

/// A local file that is being read.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub size: u64,
    pub times: Times,
    /// Whether these are its times, and not the nearest that SFTP can say.
    pub has_plain_times: bool,
    /// Permission bits, where the platform has them.
    pub mode: Option<u32>,
    /// User and group, where the platform has numbers for them.
    pub owner: Option<Owner>,
    /// Where its data is, if it has holes and these matter.
    pub data_runs: Option<Arc<[(u64, u64)]>>,
    /// How quick its file system is.
    pub speed: Arc<Speed>,
}

impl Opened {
    /// The end of the hole that `offset` lies in, if it is in one. The last byte of the file is in
    /// none: it is sent, and so the copy has the size.
    pub(crate) fn hole_at(&self, offset: u64) -> Option<u64> {
        let runs = self.data_runs.as_ref()?;
        let next = runs.partition_point(|&(_, end)| end <= offset);
        let end = runs.get(next).map_or(self.size, |&(start, _)| start);
        let end = end.min(self.size.saturating_sub(1));
        (end > offset).then_some(end)
    }
}

/// The file to be opened for an upload.
#[derive(Clone, Debug)]
pub(crate) enum SourceFile {
    /// The user named it.
    Named(PathBuf),
    /// It was found in a directory.
    Found(Arc<Tree>, OsString),
    /// A link that was found in a directory leads to it.
    Linked(Arc<Tree>, OsString),
}

impl SourceFile {
    /// Where it is, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Named(path) => path.clone(),
            Self::Found(tree, name) | Self::Linked(tree, name) => tree.path().join(name),
        }
    }

    /// Opens it, whatever it is.
    pub(crate) fn open_file(&self) -> Result<File, LocalFault> {
        match self {
            Self::Named(path) => platform::open_source(path),
            Self::Found(tree, name) => tree.dir()?.open_file(name),
            Self::Linked(tree, name) => tree.dir()?.open_linked(name),
        }
        .map_err(LocalFault::of(LocalAction::Open, self.path()))
    }

    /// Opens it, if it is a plain file.
    pub(crate) fn open(&self, speeds: &Speeds, sparse: Sparse) -> Result<Opened, LocalFault> {
        let path = self.path();
        let fault = |action| LocalFault::of(action, &*path);
        let file = self.open_file()?;
        let metadata = file.metadata().map_err(fault(LocalAction::Open))?;
        if !metadata.is_file() {
            let kind = if metadata.is_dir() {
                io::ErrorKind::IsADirectory.into()
            } else {
                io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")
            };
            return Err(fault(LocalAction::Open)(kind));
        }
        let speed = match self {
            Self::Named(path) => {
                let parent = path.parent().unwrap_or(Path::new("."));
                speeds.of(Dir::open(parent).map_or(0, |dir| dir.file_system()))
            }
            Self::Found(tree, _) | Self::Linked(tree, _) => Arc::clone(tree.speed()),
        };
        let time = |time: io::Result<_>| time.map_or(0, platform::seconds);
        let data_runs = (sparse != Sparse::Never)
            .then(|| platform::data_runs(&file, &metadata))
            .flatten();
        Ok(Opened {
            file: Arc::new(file),
            size: metadata.len(),
            times: Times {
                atime: time(metadata.accessed()),
                mtime: time(metadata.modified()),
            },
            has_plain_times: platform::has_plain_times(&metadata),
            mode: platform::mode_of(&metadata),
            owner: platform::owner_of(&metadata),
            data_runs: data_runs.map(Into::into),
            path,
            speed,
        })
    }
}
