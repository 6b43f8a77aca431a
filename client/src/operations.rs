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

use std::{cmp::Ordering, fmt, future::Future};

use ketch_protocol::{Attrs, FileType, RemotePath};

pub use self::condition::{Compare, Condition, Query, SortBy};
use crate::{
    error::{Failure, Kind, Outcome},
    file::OpenOptions,
    on_demand::{OnDemand, OnDemandError, Opened},
    sftp::{Sftp, SftpError},
    walk::{WalkError, WalkOptions},
};

/// Longest content that is read into memory, by default: 256 MiB.
const CONTENT_MAX: u64 = 256 * 1024 * 1024;
/// Numbers that are tried for a name that is free.
const NUMBERS_MAX: u32 = 10_000;
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

/// What happens if the name of a new file is taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IfExists {
    /// It is an error. The default.
    #[default]
    Fail,
    /// The old file is replaced when the new one is whole.
    Overwrite,
    /// The content is added to what is there.
    Append,
    /// The new one gets a number: `output1.txt`, `output2.txt`, and so on until one is free.
    Number,
}

/// How a file is created. The defaults: it must not be there, and the directory must.
#[derive(Clone, Debug, Default)]
pub struct Create {
    if_exists: IfExists,
    create_directories: bool,
    temporary_extension: Option<Vec<u8>>,
    staging: Option<RemotePath>,
    permissions: Option<u32>,
}

impl Create {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What happens if the name is taken. Default: it is an error.
    #[must_use]
    pub const fn if_exists(mut self, policy: IfExists) -> Self {
        self.if_exists = policy;
        self
    }

    /// Whether directories that are not there are created. Default: no.
    #[must_use]
    pub const fn create_directories(mut self, yes: bool) -> Self {
        self.create_directories = yes;
        self
    }

    /// What the name has behind it until the file is whole, for partners who look for that:
    /// `.part`. Default: a name of our own, which is hidden and unlike any other.
    #[must_use]
    pub fn temporary_extension(mut self, extension: impl Into<Vec<u8>>) -> Self {
        self.temporary_extension = Some(extension.into());
        self
    }

    /// The directory in which the file is until it is whole; on the same file system. Default: the
    /// one that it is created in.
    #[must_use]
    pub fn staging(mut self, directory: impl Into<RemotePath>) -> Self {
        self.staging = Some(directory.into());
        self
    }

    /// Permission bits. Default: what the server chooses.
    #[must_use]
    pub const fn permissions(mut self, mode: u32) -> Self {
        self.permissions = Some(mode);
        self
    }
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
        let path = self.path_of(name.as_ref())?;
        let lent = self.server.lend().await?;
        let done = self.write(lent.sftp(), path, content, &options).await;
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

    async fn write(
        &self,
        sftp: &Sftp,
        path: RemotePath,
        content: &[u8],
        options: &Create,
    ) -> Result<FileInfo, OperationError> {
        if options.create_directories && !self.directory.as_bytes().is_empty() {
            sftp.create_dir_all(&self.directory).await?;
        }
        let there = match sftp.stat(&path).await {
            Ok(attrs) => Some(attrs),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(attrs) = there
            && !matches!(attrs.file_type(), FileType::Regular | FileType::Unknown)
            && options.if_exists != IfExists::Number
        {
            return Err(OperationError::NotAFile(path));
        }
        match (there, options.if_exists) {
            (Some(_), IfExists::Fail) => return Err(OperationError::Exists(path)),
            (Some(attrs), IfExists::Append) => {
                // Servers that know no appending write where they are told to.
                let file = sftp.open(&path, OpenOptions::new().append()).await?;
                file.write_at(attrs.size.unwrap_or(0), content).await?;
                let attrs = file.attrs().await?;
                file.close().await?;
                return Ok(FileInfo::new(path, attrs, attrs.file_type()));
            }
            _ => {}
        }
        let mode = options.permissions.or_else(|| there?.mode());
        let attrs = mode.map_or(Attrs::NONE, Attrs::with_permissions);
        let (temporary, file) = self.begin(sftp, &path, attrs, options).await?;
        let written = async {
            file.write_at(0, content).await?;
            let attrs = file.attrs().await?;
            file.close().await?;
            let path = self.name(sftp, &temporary, path, options.if_exists).await?;
            Ok(FileInfo::new(path, attrs, attrs.file_type()))
        };
        let written = written.await;
        if written.is_err() {
            let _ = sftp.remove_file(&temporary).await;
        }
        written
    }

    /// Creates the file under the name that it has until it is whole.
    async fn begin(
        &self,
        sftp: &Sftp,
        path: &RemotePath,
        attrs: Attrs,
        options: &Create,
    ) -> Result<(RemotePath, crate::File), OperationError> {
        let name = path.file_name().unwrap_or_default();
        let beside = match &options.staging {
            Some(directory) => directory.join(name),
            None => path.clone(),
        };
        let Some(extension) = &options.temporary_extension else {
            return Ok(sftp.create_beside(&beside, attrs).await?);
        };
        let temporary = RemotePath::from([beside.as_bytes(), extension].concat());
        let mut open = OpenOptions::writing();
        if let Some(mode) = attrs.mode() {
            open = open.permissions(mode);
        }
        let file = sftp.open(&temporary, open).await?;
        Ok((temporary, file))
    }

    /// Gives the whole file its name, which may be another than was asked for.
    async fn name(
        &self,
        sftp: &Sftp,
        temporary: &RemotePath,
        path: RemotePath,
        policy: IfExists,
    ) -> Result<RemotePath, OperationError> {
        if policy == IfExists::Overwrite {
            sftp.replace(temporary, &path).await?;
            return Ok(path);
        }
        let tries = if policy == IfExists::Number {
            NUMBERS_MAX
        } else {
            1
        };
        for number in 0..tries {
            let candidate = numbered(&path, number);
            // Some servers replace when they rename, so it is looked at first; with the others nobody
            // comes between.
            let is_taken = match sftp.lstat(&candidate).await {
                Ok(_) => true,
                Err(error) if error.kind() == Kind::NotFound => false,
                Err(error) => return Err(error.into()),
            };
            if is_taken {
                continue;
            }
            match sftp.rename(temporary, &candidate).await {
                Ok(()) => return Ok(candidate),
                Err(error) => {
                    // Somebody may have been quicker.
                    if sftp.lstat(&candidate).await.is_err() {
                        return Err(error.into());
                    }
                }
            }
        }
        Err(OperationError::Exists(path))
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

/// `output.txt`, `output1.txt`, `output2.txt`.
fn numbered(path: &RemotePath, number: u32) -> RemotePath {
    let name = path.file_name().unwrap_or_default();
    if number == 0 {
        return path.clone();
    }
    // A dot at the start begins no extension.
    let dot = name
        .iter()
        .rposition(|&byte| byte == b'.')
        .filter(|&at| at > 0);
    let (base, extension) = name.split_at(dot.unwrap_or(name.len()));
    let digits = number.to_string();
    let name = [base, digits.as_bytes(), extension].concat();
    let directory = path.parent().unwrap_or_else(|| RemotePath::from(""));
    match path.as_bytes().contains(&b'/') {
        true => directory.join(name),
        false => RemotePath::from(name),
    }
}

/// How two numbers that may be missing stand to each other: what is missing comes first.
fn by<T: Ord>(a: Option<T>, b: Option<T>) -> Ordering {
    a.cmp(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_the_extension() {
        let table = [
            ("in/output.txt", 0, "in/output.txt"),
            ("in/output.txt", 1, "in/output1.txt"),
            ("output.txt", 12, "output12.txt"),
            ("/output", 3, "/output3"),
            ("in/.hidden", 1, "in/.hidden1"),
            ("a.tar.gz", 2, "a.tar2.gz"),
        ];
        for (path, number, wanted) in table {
            let path = numbered(&path.into(), number);
            assert_eq!(path, RemotePath::from(wanted));
        }
    }
}
