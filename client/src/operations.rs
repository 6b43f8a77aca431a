//! What integrations do with a folder of a partner: get, create, upsert, query, list, delete.
//!
//! A [`Folder`] is a directory on a server, given by an open [`Sftp`] or by a description that is
//! connected to for each call ([`OnDemand`]). Contents are bytes in memory, bounded; for large files
//! there are [`Sftp::get`] and [`Sftp::put`].
//!
//! ```no_run
//! use ketch_client::operations::{Compare, Create, Condition, Folder, IfExists, Query};
//! use ketch_client::Pattern;
//!
//! # async fn example(sftp: ketch_client::Sftp) -> Result<(), Box<dyn std::error::Error>> {
//! let folder = Folder::new(sftp, "in");
//! let made = folder.create("order.xml", b"<order/>", Create::new().if_exists(IfExists::Number)).await?;
//! println!("{} of {} bytes", made.path, made.size.unwrap_or(0));
//!
//! let query = Query::new(Condition::All(vec![
//!     Condition::Glob(Pattern::new("*.xml")?),
//!     Condition::Any(vec![Condition::Size(Compare::Less, 1 << 20), Condition::Modified(Compare::Greater, 1_700_000_000)]),
//! ]));
//! for file in folder.query(&query.limit(10)).await? {
//!     println!("{}: {} bytes", file.info.path, file.content.len());
//!     folder.delete(&file.info.name).await?;
//! }
//! # Ok(())
//! # }
//! ```

mod condition;
mod create;
mod template;

use std::{cmp::Ordering, fmt, future::Future};

use ketch_protocol::{Attrs, FileType, RemotePath};

pub use self::{
    condition::{Compare, Condition, Query, SortBy},
    create::{Create, IfExists},
    template::{NameTemplate, TemplateError},
};
use crate::{
    error::{Failure, Kind, Outcome},
    file::OpenOptions,
    on_demand::{OnDemand, OnDemandError, Opened},
    sftp::{Sftp, SftpError},
    walk::{WalkError, WalkOptions},
};

/// Longest content that is read into memory, by default: 256 MiB.
const CONTENT_MAX: u64 = 256 * 1024 * 1024;
/// Longest name, in bytes.
const NAME_LEN_MAX: usize = 255;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// There is no connection.
    #[error(transparent)]
    OnDemand(#[from] OnDemandError),
    /// The server refused, or was lost.
    #[error(transparent)]
    Sftp(#[from] SftpError),
    /// A directory could not be gone through.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// It is no name of a file: empty, `.` or `..`, longer than 255 bytes, or with a `/` in it.
    #[error("{0} is no name of a file")]
    BadName(RemotePath),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(RemotePath),
    /// It is a directory, or something else that is no file.
    #[error("{0} is no file")]
    NotAFile(RemotePath),
    /// There is more of it than was allowed for.
    #[error("{path} is longer than {max} bytes")]
    TooLarge {
        /// Which file.
        path: RemotePath,
        /// The bound, in bytes.
        max: u64,
    },
    /// The file was read, and is still there although it was to be deleted.
    #[error("{path} was read and could not be deleted")]
    NotDeleted {
        /// Which file.
        path: RemotePath,
        /// Why.
        source: SftpError,
    },
}

impl Failure for OperationError {
    fn kind(&self) -> Kind {
        match self {
            Self::OnDemand(error) => error.kind(),
            Self::Sftp(error) | Self::NotDeleted { source: error, .. } => error.kind(),
            Self::Walk(error) => error.kind(),
            Self::BadName(_) | Self::TooLarge { .. } | Self::NotAFile(_) => Kind::Local,
            Self::Exists(_) => Kind::Exists,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Sftp(error) | Self::NotDeleted { source: error, .. } => error.outcome(),
            _ => Outcome::NotDone,
        }
    }
}

/// What operations run on: an open session, or a description that is connected to for each.
pub trait Server: Send + Sync {
    /// SFTP for one operation.
    ///
    /// # Errors
    /// [`OnDemandError`] if there is no connection to be had.
    fn lend(&self) -> impl Future<Output = Result<Lent, OnDemandError>> + Send;
}

/// SFTP for one operation.
#[derive(Debug)]
pub struct Lent(Loan);

enum Loan {
    Open(Sftp),
    Opened(Opened),
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Opened(_) => "Opened",
        })
    }
}

impl Lent {
    fn sftp(&self) -> &Sftp {
        match &self.0 {
            Loan::Open(sftp) => sftp,
            Loan::Opened(opened) => opened,
        }
    }

    async fn give_back(self) {
        if let Loan::Opened(opened) = self.0 {
            opened.close().await;
        }
    }
}

impl Server for Sftp {
    async fn lend(&self) -> Result<Lent, OnDemandError> {
        Ok(Lent(Loan::Open(self.clone())))
    }
}

impl Server for OnDemand {
    async fn lend(&self) -> Result<Lent, OnDemandError> {
        Ok(Lent(Loan::Opened(self.open().await?)))
    }
}

/// What a server tells of a file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FileInfo {
    /// The whole path, as it was reached.
    pub path: RemotePath,
    /// Its last part.
    pub name: Vec<u8>,
    /// Bytes, if the server tells.
    pub size: Option<u64>,
    /// When it was last changed, in seconds since 1970, if the server tells.
    pub modified: Option<u32>,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// All that the server tells.
    pub attrs: Attrs,
}

impl FileInfo {
    fn new(path: RemotePath, attrs: Attrs, file_type: FileType) -> Self {
        Self {
            name: path.file_name().unwrap_or_default().to_vec(),
            path,
            size: attrs.size,
            modified: attrs.times.map(|times| times.mtime),
            is_directory: file_type == FileType::Directory,
            attrs,
        }
    }
}

/// A file and what is in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Content {
    /// What the server tells of it.
    pub info: FileInfo,
    /// What is in it.
    pub content: Vec<u8>,
    /// Why it is still there, if it was to be deleted and that is not an error.
    pub not_deleted: Option<SftpError>,
}

/// What becomes of a file that was read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AfterRead {
    /// It stays. The default.
    #[default]
    Keep,
    /// It is deleted; that this failed is said beside the content.
    TryDelete,
    /// It is deleted; that this failed is an error.
    Delete,
}

/// A directory on a server, and what is done with the files in it.
#[derive(Clone, Debug)]
pub struct Folder<S> {
    server: S,
    directory: RemotePath,
    content_max: u64,
}

impl<S: Server> Folder<S> {
    /// The directory `directory` of a server; the empty path is where the session starts.
    #[must_use]
    pub fn new(server: S, directory: impl Into<RemotePath>) -> Self {
        Self {
            server,
            directory: directory.into(),
            content_max: CONTENT_MAX,
        }
    }

    /// Bytes of content that are held at most, of one file or of all that a query found. Default:
    /// 256 MiB.
    #[must_use]
    pub const fn content_max(mut self, bytes: u64) -> Self {
        self.content_max = bytes;
        self
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn get(
        &self,
        name: impl AsRef<[u8]>,
        after: AfterRead,
    ) -> Result<Content, OperationError> {
        let path = self.path_of(name.as_ref())?;
        let lent = self.server.lend().await?;
        let done = self.read(lent.sftp(), path, after, self.content_max).await;
        lent.give_back().await;
        done
    }

    /// Creates a file with this content. It appears under its name when it is whole, unless it is
    /// added to one that is there.
    ///
    /// # Errors
    /// [`OperationError`]; nothing is left of what was begun, if the server is still there.
    pub async fn create(
        &self,
        name: impl AsRef<[u8]>,
        content: &[u8],
        options: Create,
    ) -> Result<FileInfo, OperationError> {
        self.path_of(name.as_ref())?; // it has to be a name, before anybody is asked
        let lent = self.server.lend().await?;
        let done = self
            .write(lent.sftp(), name.as_ref(), content, &options)
            .await;
        lent.give_back().await;
        done
    }

    /// Writes a file whether or not it is there, and creates the directory if need be: replaces the
    /// content, or adds to it.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn upsert(
        &self,
        name: impl AsRef<[u8]>,
        content: &[u8],
        append: bool,
    ) -> Result<FileInfo, OperationError> {
        let policy = if append {
            IfExists::Append
        } else {
            IfExists::Overwrite
        };
        let options = Create::new().create_directories(true).if_exists(policy);
        self.create(name, content, options).await
    }

    /// What is in the folder and meets the condition, without content.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn list(&self, query: &Query) -> Result<Vec<FileInfo>, OperationError> {
        let lent = self.server.lend().await?;
        let done = self.find(lent.sftp(), query).await;
        lent.give_back().await;
        done
    }

    /// The files that meet the condition, with what is in them; what is no file is left out.
    ///
    /// # Errors
    /// [`OperationError`]. A file that vanished meanwhile is left out.
    pub async fn query(&self, query: &Query) -> Result<Vec<Content>, OperationError> {
        let lent = self.server.lend().await?;
        let done = async {
            let mut found = Vec::new();
            let mut left = self.content_max;
            for info in self.find(lent.sftp(), query).await? {
                if !matches!(
                    info.attrs.file_type(),
                    FileType::Regular | FileType::Unknown
                ) {
                    continue;
                }
                match self
                    .read(lent.sftp(), info.path, AfterRead::Keep, left)
                    .await
                {
                    Ok(content) => {
                        left = left.saturating_sub(content.content.len() as u64);
                        found.push(content);
                    }
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        };
        let done = done.await;
        lent.give_back().await;
        done
    }

    /// Deletes a file, and says whether it was there. Directories are never deleted.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn delete(&self, name: impl AsRef<[u8]>) -> Result<bool, OperationError> {
        let path = self.path_of(name.as_ref())?;
        let lent = self.server.lend().await?;
        let done = async {
            let sftp = lent.sftp();
            match sftp.lstat(&path).await {
                Ok(attrs) if attrs.file_type() == FileType::Directory => {
                    return Err(OperationError::NotAFile(path));
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::NotFound => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            match sftp.remove_file(&path).await {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == Kind::NotFound => Ok(false),
                Err(error) => Err(error.into()),
            }
        };
        let done = done.await;
        lent.give_back().await;
        done
    }

    fn path_of(&self, name: &[u8]) -> Result<RemotePath, OperationError> {
        let is_separator = |byte: &u8| matches!(byte, b'/' | 0);
        let is_dots = matches!(name, b"" | b"." | b"..");
        if is_dots || name.len() > NAME_LEN_MAX || name.iter().any(is_separator) {
            return Err(OperationError::BadName(name.into()));
        }
        Ok(self.directory.join(name))
    }

    async fn read(
        &self,
        sftp: &Sftp,
        path: RemotePath,
        after: AfterRead,
        max: u64,
    ) -> Result<Content, OperationError> {
        let file = sftp.open(&path, OpenOptions::reading()).await?;
        let attrs = file.attrs().await?;
        match attrs.file_type() {
            FileType::Regular | FileType::Unknown => {}
            _ => return Err(OperationError::NotAFile(path)),
        }
        let too_large = || OperationError::TooLarge {
            path: path.clone(),
            max,
        };
        if attrs.size.is_some_and(|size| size > max) {
            return Err(too_large());
        }
        let mut content = Vec::new();
        loop {
            // One byte more shows whether it has grown beyond what was allowed.
            let wanted = attrs.size.unwrap_or(0).saturating_add(1);
            let wanted = wanted.saturating_sub(content.len() as u64).max(1);
            let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
            let got = file.read_at(content.len() as u64, wanted).await?;
            if got.is_empty() {
                break;
            }
            content.extend_from_slice(&got);
            if content.len() as u64 > max {
                return Err(too_large());
            }
        }
        file.close().await?;
        let mut not_deleted = None;
        if after != AfterRead::Keep
            && let Err(source) = sftp.remove_file(&path).await
            && source.kind() != Kind::NotFound
        {
            if after == AfterRead::Delete {
                return Err(OperationError::NotDeleted { path, source });
            }
            not_deleted = Some(source);
        }
        Ok(Content {
            info: FileInfo::new(path, attrs, attrs.file_type()),
            content,
            not_deleted,
        })
    }

    async fn find(&self, sftp: &Sftp, query: &Query) -> Result<Vec<FileInfo>, OperationError> {
        let depth = if query.is_recursive() { u32::MAX } else { 1 };
        let mut walk = sftp.walk(&self.directory, WalkOptions::new().depth_max(depth));
        let mut found: Vec<FileInfo> = Vec::new();
        while let Some(entry) = walk.next().await {
            let entry = entry?;
            let (attrs, file_type) = (entry.attrs(), entry.file_type());
            let info = FileInfo::new(entry.into_path(), attrs, file_type);
            if query.accepts(&info) {
                found.push(info);
                // Without an order the first will do; with one, what cannot be among them goes.
                if query.is_enough(found.len()) {
                    break;
                }
                if let Some(excess) = query.excess(found.len()) {
                    query.in_order(&mut found);
                    found.truncate(found.len() - excess);
                }
            }
        }
        query.in_order(&mut found);
        Ok(query.page(found))
    }
}

/// How two numbers that may be missing stand to each other: what is missing comes first.
fn by<T: Ord>(a: Option<T>, b: Option<T>) -> Ordering {
    a.cmp(&b)
}
