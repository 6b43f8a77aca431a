//! Appending to files on a server, one item after another, each once. Nobody else may append to them:
//! there are no locks on servers.

use std::io;

use ketch_client::{Failure as _, Kind, OpenOptions, Sftp, SftpError};
use ring::digest;
use tokio::io::AsyncReadExt as _;

use super::super::append::{NOTES_LEN_MAX, Notes, PREFIX, Step, Wanted};
use super::super::event::{hex, shown};
use super::super::name::split;
use super::super::template::uuid;
use super::{CHUNK_LEN, SftpSink, failed, read_sha256};
use crate::sink::{Content, Parcel, SinkError};

impl SftpSink {
    /// Adds the content to the file that its placement names.
    pub(super) async fn append(
        &self,
        sftp: &Sftp,
        parcel: &Parcel<'_>,
        content: &Content,
    ) -> Result<(), SinkError> {
        let _alone = self.appending.lock().await;
        parcel.fence.pass().await?;
        let name = parcel.placement.name.as_slice();
        let path = self.path(name);
        match self.append_alone(sftp, parcel, content).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SinkError::Taken { name: shown(name) }),
            Err(AppendFault::Remote(error)) => {
                self.forget_directories().await;
                Err(failed(format!("cannot append to {path}"), error))
            }
            Err(AppendFault::Local(error)) => Err(SinkError::Failed {
                what: format!("cannot append to {path}"),
                kind: Kind::of_local(&error),
                source: Box::new(error),
            }),
        }
    }

    /// Whether it is in the file now; `false` if something else was added first.
    async fn append_alone(
        &self,
        sftp: &Sftp,
        parcel: &Parcel<'_>,
        content: &Content,
    ) -> Result<bool, AppendFault> {
        let id = uuid(parcel.item);
        let wanted = Wanted {
            id: &id,
            base: parcel.placement.length.unwrap_or(0),
            len: content.len,
            again: parcel.again,
        };
        let name = parcel.placement.name.as_slice();
        let path = self.path(name);
        let notes_path = self.path(&notes_name(name));
        let open = OpenOptions::new().read().write().create();
        self.steps.pass()?;
        let notes = sftp.open(&notes_path, open.permissions(0o600)).await?;
        let mut text = read_notes(&notes).await?;
        let file = sftp.open(&path, open).await?;
        loop {
            let len = file.attrs().await?.size.unwrap_or(0);
            let mut line = match Notes::read(&text).decide(wanted, len) {
                Step::Done => return Ok(true),
                Step::Taken => return Ok(false),
                Step::Compare => {
                    let sum = read_sha256(sftp, &path, wanted.base, Some(content.len)).await?;
                    return Ok(sum == content.sha256);
                }
                Step::Undo { len: base, line } => {
                    if len > base {
                        self.steps.pass()?;
                        file.set_len(base).await?;
                        sync(&file).await?;
                    }
                    line
                }
                Step::Append => {
                    self.note(&notes, &mut text, &wanted.begin()).await?;
                    self.add(&file, content, wanted.base).await?;
                    wanted.done()
                }
            };
            self.note(&notes, &mut text, &std::mem::take(&mut line))
                .await?;
            if let Some(short) = Notes::shortened(&text) {
                self.steps.pass()?;
                notes.write_at(0, &short).await?;
                notes.set_len(short.len() as u64).await?;
                text = short;
            }
        }
    }

    /// Adds a line. What a line before it left that was cut short goes first.
    async fn note(
        &self,
        notes: &ketch_client::File,
        text: &mut Vec<u8>,
        line: &str,
    ) -> Result<(), AppendFault> {
        let whole = Notes::whole(text);
        if whole < text.len() {
            self.steps.pass()?;
            notes.set_len(whole as u64).await?;
            text.truncate(whole);
        }
        self.steps.pass()?;
        notes.write_at(text.len() as u64, line.as_bytes()).await?;
        text.extend_from_slice(line.as_bytes());
        sync(notes).await
    }

    async fn add(
        &self,
        file: &ketch_client::File,
        content: &Content,
        base: u64,
    ) -> Result<(), AppendFault> {
        let mut from = tokio::fs::File::open(&content.path).await?;
        let mut chunk = vec![0; CHUNK_LEN];
        let mut at = base;
        loop {
            let read = from.read(&mut chunk).await?;
            if read == 0 {
                break;
            }
            self.steps.pass()?;
            let bytes = chunk.get(..read).unwrap_or_default();
            file.write_at(at, bytes).await?;
            at = at.saturating_add(read as u64);
        }
        if at - base != content.len {
            let what = "the fetched file does not have the length that it had";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what).into());
        }
        self.steps.pass()?;
        sync(file).await
    }
}

/// Why nothing was appended: there or here.
#[derive(Debug, thiserror::Error)]
enum AppendFault {
    #[error(transparent)]
    Remote(#[from] SftpError),
    #[error(transparent)]
    Local(#[from] io::Error),
}

/// The name of the notes about appends to `name`.
fn notes_name(name: &[u8]) -> Vec<u8> {
    let (dir, last) = split(name);
    let sum = digest::digest(&digest::SHA256, last);
    let notes = format!("{PREFIX}{}", hex(sum.as_ref().get(..8).unwrap_or_default()));
    match dir {
        b"" => notes.into_bytes(),
        dir => [dir, b"/", notes.as_bytes()].concat(),
    }
}

async fn read_notes(notes: &ketch_client::File) -> Result<Vec<u8>, SftpError> {
    let mut text = Vec::new();
    while text.len() < 4 * NOTES_LEN_MAX {
        let bytes = notes.read_at(text.len() as u64, CHUNK_LEN).await?;
        if bytes.is_empty() {
            break;
        }
        text.extend_from_slice(&bytes);
    }
    Ok(text)
}

/// To the server's disk, where it can be asked to.
async fn sync(file: &ketch_client::File) -> Result<(), AppendFault> {
    match file.sync_all().await {
        Err(error) if error.kind() == Kind::Unsupported => Ok(()),
        other => Ok(other?),
    }
}
