//! Transfers as a session offers them.

use std::{path::Path, sync::Arc};

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
        get::start_to_sink(self.shared(), remote.into(), sink, options).await
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
        put::start_from_source(self.shared(), source, remote.into(), options).await
    }
}
