//! What takes several requests: whether something is there, directories with those above them, and
//! copies that the server makes.

use ketch_protocol::{Attrs, ExtensionName, FileType, RemotePath};
use tokio::io::AsyncWriteExt;

use super::{Operation, Sftp, SftpError};
use crate::{
    error::{Failure, Kind},
    file::{File, OpenOptions},
    in_flight::InFlight,
    transfer::names::{Identity, attempt, temporary},
};

/// Bytes that the server is asked to copy at a time: it says nothing meanwhile, and a slow disk
/// should not look like a server that is gone.
const COPY_LEN: u64 = 16 * 1024 * 1024;
/// Directories of a path that are created at a time.
const DIRECTORIES_MAX: usize = 64;
/// Temporary names that are tried.
const NAMES_MAX: u8 = 8;

impl Sftp {
    /// Whether there is something at `path`: a link counts if what it leads to is there.
    ///
    /// # Errors
    /// See [`Sftp`]: that it is not there is an answer, all else an error.
    pub async fn try_exists(&self, path: impl Into<RemotePath>) -> Result<bool, SftpError> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates a directory and those above it that are not there. It is no error if it is there.
    ///
    /// All of them are asked for at once, so that it takes two round trips, however deep it is.
    ///
    /// # Errors
    /// See [`Sftp`]; what is there and is no directory is an error.
    pub async fn create_dir_all(&self, path: impl Into<RemotePath>) -> Result<(), SftpError> {
        let path = path.into();
        let is_directory = |attrs: &Attrs| attrs.file_type() == FileType::Directory;
        if self
            .stat(&path)
            .await
            .is_ok_and(|attrs| is_directory(&attrs))
        {
            return Ok(());
        }
        let mut all = vec![path.clone()];
        while let Some(parent) = all.last().and_then(RemotePath::parent)
            && !matches!(parent.as_bytes(), b"." | b"/")
            && all.len() < DIRECTORIES_MAX
        {
            all.push(parent);
        }
        // Requests leave in the order in which they are first polled: from the top.
        let mut creations = InFlight::default();
        for directory in all.iter().rev() {
            let (sftp, directory) = (self.clone(), directory.clone());
            creations.push(async move { sftp.create_dir(directory).await });
        }
        while creations.next().await.is_some() {}
        if self
            .stat(&path)
            .await
            .is_ok_and(|attrs| is_directory(&attrs))
        {
            return Ok(());
        }
        // Some servers do not keep the order; and whoever refused says why.
        let mut refused = Ok(());
        for directory in all.iter().rev() {
            refused = self.create_dir(directory).await;
        }
        refused
    }

    /// Copies the file `from` to `to`, replacing what is there, without sending its content here if
    /// the server can (`copy-data`), and through this side if not. Gives its length in bytes.
    ///
    /// It appears under its name when it is whole, with the permissions of the original as far as the
    /// server allows.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn copy(
        &self,
        from: impl Into<RemotePath>,
        to: impl Into<RemotePath>,
    ) -> Result<u64, SftpError> {
        let (from, to) = (from.into(), to.into());
        let source = self.open(&from, OpenOptions::reading()).await?;
        let attrs = source.attrs().await?;
        let (path, target) = self.create_beside(&to, attrs).await?;
        let done = async {
            let len = self.copy_content(source, target, attrs.size).await?;
            self.replace(&path, &to).await?;
            Ok(len)
        };
        let copied = done.await;
        if copied.is_err() {
            let _ = self.remove_file(&path).await;
        }
        copied
    }

    /// A new file beside `path`, under a name of its own, for what is to have that name.
    pub(crate) async fn create_beside(
        &self,
        path: &RemotePath,
        attrs: Attrs,
    ) -> Result<(RemotePath, File), SftpError> {
        let name = path.file_name().unwrap_or(b"file");
        let directory = path.parent().unwrap_or_else(|| RemotePath::from("."));
        let mut tries = 0;
        loop {
            let identity = Identity::default();
            let name = temporary(path.as_bytes(), name, identity, attempt(tries));
            let beside = directory.join(name);
            let mut options = OpenOptions::new().write().create_new();
            if let Some(mode) = attrs.mode() {
                options = options.permissions(mode & 0o777);
            }
            match self.open(&beside, options).await {
                Ok(file) => return Ok((beside, file)),
                Err(error) if tries + 1 == NAMES_MAX || !self.is_there(&beside).await => {
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
        }
    }

    async fn is_there(&self, path: &RemotePath) -> bool {
        self.lstat(path).await.is_ok()
    }

    /// Gives a file the name of another, which it replaces.
    pub(crate) async fn replace(
        &self,
        path: &RemotePath,
        final_path: &RemotePath,
    ) -> Result<(), SftpError> {
        match self.posix_rename(path, final_path).await {
            Err(SftpError::Unsupported { .. }) => {}
            done => return done,
        }
        if self.rename(path, final_path).await.is_ok() {
            return Ok(());
        }
        // Without the extension there is a moment with neither of them.
        self.remove_file(final_path).await?;
        self.rename(path, final_path).await
    }

    async fn copy_content(
        &self,
        mut from: File,
        mut to: File,
        size: Option<u64>,
    ) -> Result<u64, SftpError> {
        let can_copy = self
            .server()
            .await?
            .extensions
            .contains(ExtensionName::CopyData);
        if let Some(size) = size.filter(|_| can_copy) {
            let mut at = 0;
            while at < size {
                let len = COPY_LEN.min(size - at);
                self.copy_data((&from, at), (&to, at), len).await?;
                at += len;
            }
            to.close().await?;
            return Ok(size);
        }
        let path = from.path().clone();
        let broken = |error: std::io::Error| {
            let inner = error.into_inner().and_then(|e| e.downcast().ok());
            inner.map_or_else(|| SftpError::malformed(Operation::Read, &path), |e| *e)
        };
        let copied = tokio::io::copy(&mut from, &mut to).await.map_err(&broken)?;
        to.shutdown().await.map_err(broken)?;
        Ok(copied)
    }
}
