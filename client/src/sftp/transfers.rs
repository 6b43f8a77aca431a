//! Transfers as a session offers them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ketch_protocol::RemotePath;

use super::Sftp;
use crate::transfer::{GetOptions, PutOptions, Report, Sink, Source, TransferError, get, put};

impl Sftp {
    /// Downloads `remote` to the local path `local`: the file itself, or with
    /// [`GetOptions::recursive`] the directory that becomes its counterpart.
    ///
    /// The file appears under its name when it is whole, in place of an older one. Dropping the
    /// future ends the download and removes what was begun.
    ///
    /// # Errors
    /// [`TransferError`]; of several files the others are transferred, and the error says which
    /// were not.
    pub async fn get(
        &self,
        remote: impl Into<RemotePath>,
        local: impl AsRef<Path>,
        options: GetOptions,
    ) -> Result<Report, TransferError> {
        get::start_to_path(
            self.shared(),
            remote.into(),
            local.as_ref().to_owned(),
            options,
        )
        .with_session(self.session())
        .await
    }

    /// Downloads many files in one transfer, each to a local path of its own; with
    /// [`GetOptions::recursive`], directories as well.
    ///
    /// They share connections and requests: ten thousand small files take few round trips. See
    /// [`Sftp::get`] for what happens to each.
    ///
    /// ```no_run
    /// # async fn example(sftp: ketch_client::Sftp) -> Result<(), Box<dyn std::error::Error>> {
    /// use ketch_client::{GetOptions, RemotePath};
    ///
    /// let items = ["a.csv", "b.csv"].map(|name| (RemotePath::from(name), name.into()));
    /// let report = sftp.get_all(items, GetOptions::new()).await?;
    /// println!("{} files", report.files);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TransferError`]; the others are transferred, and the error says which were not.
    pub async fn get_all(
        &self,
        items: impl IntoIterator<Item = (RemotePath, PathBuf)>,
        options: GetOptions,
    ) -> Result<Report, TransferError> {
        get::start_all(self.shared(), items, options)
            .with_session(self.session())
            .await
    }

    /// Downloads the file `remote` into `sink`.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn get_to(
        &self,
        remote: impl Into<RemotePath>,
        sink: Arc<dyn Sink>,
        options: GetOptions,
    ) -> Result<Report, TransferError> {
        get::start_to_sink(self.shared(), remote.into(), sink, options)
            .with_session(self.session())
            .await
    }

    /// Uploads `local` to the path `remote`: the file itself, or with [`PutOptions::recursive`]
    /// the directory that becomes its counterpart.
    ///
    /// The file appears under its name when it is whole, in place of an older one, in one instant
    /// if the server has `posix-rename@openssh.com`. Dropping the future ends the upload and
    /// removes what was begun.
    ///
    /// # Errors
    /// [`TransferError`]; of several files the others are transferred, and the error says which
    /// were not.
    pub async fn put(
        &self,
        local: impl AsRef<Path>,
        remote: impl Into<RemotePath>,
        options: PutOptions,
    ) -> Result<Report, TransferError> {
        put::start_from_path(
            self.shared(),
            local.as_ref().to_owned(),
            remote.into(),
            options,
        )
        .with_session(self.session())
        .await
    }

    /// Uploads many files in one transfer, each to a path of its own; with
    /// [`PutOptions::recursive`], directories as well. See [`Sftp::put`] and [`Sftp::get_all`].
    ///
    /// # Errors
    /// [`TransferError`]; the others are transferred, and the error says which were not.
    pub async fn put_all(
        &self,
        items: impl IntoIterator<Item = (PathBuf, RemotePath)>,
        options: PutOptions,
    ) -> Result<Report, TransferError> {
        put::start_all(self.shared(), items, options)
            .with_session(self.session())
            .await
    }

    /// Uploads what `source` gives to the file `remote`.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn put_from(
        &self,
        source: Arc<dyn Source>,
        remote: impl Into<RemotePath>,
        options: PutOptions,
    ) -> Result<Report, TransferError> {
        put::start_from_source(self.shared(), source, remote.into(), options)
            .with_session(self.session())
            .await
    }
}
