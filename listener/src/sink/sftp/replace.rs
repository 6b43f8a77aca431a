//! Taking the place of a file on a server that cannot replace one in one step.
//!
//! ```text
//!   rename .held to the name ── taken ── rename the name to .aside
//!   rename .held to the name ── done ─── remove .aside
//!                            └─ failed ─ rename .aside to the name
//! ```
//!
//! Nothing but the renames of `.held` makes the item visible, and no file is removed while it may be
//! the only copy. After a cut, one of these is so:
//!
//! - `.held` waits, and what had the name is aside: it goes on, or what is aside comes back.
//! - `.held` is gone and something has the name: it was replaced, and what is aside is of no use.
//! - `.held` is gone and nothing has the name. A connection that was lost had its last rename done
//!   late, and who came next took the delivered file for what was there before: what is aside is the
//!   item, and gets its name. If it is something else, a consumer took the item away.
//!
//! A lost connection may also put the name aside late, when the item has it already. Where a delivery
//! is tried again, an empty file keeps that name for good: such servers rename over nothing.

use ketch_client::{Failure as _, FileType, Kind, OpenOptions, RemotePath, Sftp, SftpError};

use super::held::Note;
use super::{Found, SftpSink, failed};
use crate::sink::name::Exists;
use crate::sink::{Content, Parcel, SinkError};
use crate::store::Placement;

/// Why a file did not get its name.
#[derive(Debug)]
pub(super) enum Halt {
    /// The server did not do it.
    Remote(SftpError),
    /// It may not go on.
    Sink(SinkError),
}

impl From<SftpError> for Halt {
    fn from(error: SftpError) -> Self {
        Self::Remote(error)
    }
}

impl From<SinkError> for Halt {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

impl SftpSink {
    /// Gives the file `held` its name.
    pub(super) async fn replace(
        &self,
        sftp: &Sftp,
        held: &RemotePath,
        parcel: &Parcel<'_>,
    ) -> Result<(), Halt> {
        let Some(aside) = self.aside(parcel.placement) else {
            let path = self.path(&parcel.placement.name);
            return Ok(sftp.rename(held, &path).await?);
        };
        let path = self.path(&parcel.placement.name);
        if parcel.again {
            guard(sftp, &aside, false).await?;
        }
        // Most often nothing is there, and some servers replace what is.
        let refused = match sftp.rename(held, &path).await {
            Ok(()) if parcel.again => return Ok(guard(sftp, &aside, true).await?),
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => error,
        };
        // Version 3 has no status for a name that is taken: whether it is, tells a look.
        let is_there = |found: Result<ketch_client::Attrs, SftpError>| match found {
            Ok(attrs) => Ok(attrs.file_type() != FileType::Directory),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        if !is_there(sftp.lstat(held).await)? || !is_there(sftp.lstat(&path).await)? {
            return Err(refused.into());
        }
        // As something has the name, what an earlier attempt put aside was replaced.
        if parcel.again {
            self.pass()?;
            gone(sftp.remove_file(&aside).await)?;
        }
        self.pass()?;
        gone(sftp.rename(&path, &aside).await)?;
        if parcel.again {
            guard(sftp, &aside, false).await?;
        }
        self.pass()?;
        match sftp.rename(held, &path).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => {
                // If it waits no more, what is aside may be the item: `settle` sees to that.
                if is_there(sftp.lstat(held).await)? {
                    self.pass()?;
                    // Only one that fails for good: the next attempt finds it there.
                    let _ = sftp.rename(&aside, &path).await;
                }
                return Err(error.into());
            }
        }
        self.pass()?;
        if parcel.again {
            return Ok(guard(sftp, &aside, true).await?);
        }
        if let Err(error) = sftp.remove_file(&aside).await {
            tracing::warn!(%error, "what was replaced is left behind");
        }
        Ok(())
    }

    /// Ends a delivery whose waiting file has got its name: what is aside is the item, or of no use.
    pub(super) async fn settle(
        &self,
        sftp: &Sftp,
        parcel: &Parcel<'_>,
        content: &Content,
    ) -> Result<(), SinkError> {
        let placement = parcel.placement;
        let Some((note, aside)) = Note::read(&placement.note).zip(self.aside(placement)) else {
            return Ok(());
        };
        let name = note.aside(&placement.name);
        let attrs = match self.look(sftp, &name).await? {
            Some(attrs) if attrs.size != Some(0) => attrs,
            _ => return Ok(()),
        };
        let path = self.path(&placement.name);
        let is_item = self.look(sftp, &placement.name).await?.is_none()
            && super::is_plain(&attrs)
            && attrs.size.is_none_or(|size| size == content.len)
            && self.compare(sftp, &aside, content).await? == Found::Ours;
        self.pass()?;
        if is_item {
            let renamed = sftp.rename(&aside, &path).await;
            return renamed.map_err(|error| failed(format!("cannot name {path}"), error));
        }
        let emptied = guard(sftp, &aside, true).await;
        emptied.map_err(|error| failed(format!("cannot empty {aside}"), error))
    }

    /// Gives back the name to what an attempt put aside, whose item did not come.
    pub(super) async fn bring_back(
        &self,
        sftp: &Sftp,
        placement: &Placement,
    ) -> Result<(), SinkError> {
        let Some((note, aside)) = Note::read(&placement.note).zip(self.aside(placement)) else {
            return Ok(());
        };
        let name = note.aside(&placement.name);
        let Some(attrs) = self.look(sftp, &name).await? else {
            return Ok(());
        };
        let path = self.path(&placement.name);
        let is_missing = self.look(sftp, &placement.name).await?.is_none();
        self.pass()?;
        let done = match is_missing && attrs.size != Some(0) {
            true => gone(sftp.rename(&aside, &path).await),
            false => guard(sftp, &aside, true).await,
        };
        done.map_err(|error| failed(format!("cannot give {path} back"), error))
    }

    /// Where what has the name is put; `None` where nothing is replaced.
    fn aside(&self, placement: &Placement) -> Option<RemotePath> {
        let note = Note::read(&placement.note).filter(|_| self.is_replacing())?;
        Some(self.path(&note.aside(&placement.name)))
    }

    fn is_replacing(&self) -> bool {
        self.settings.exists == Exists::Overwrite
    }
}

/// Keeps a name taken: by what has it, or, to be emptied or if there is nothing, by an empty file.
async fn guard(sftp: &Sftp, aside: &RemotePath, is_emptied: bool) -> Result<(), SftpError> {
    let options = OpenOptions::new().write().create();
    let options = match is_emptied {
        true => options.truncate(),
        false => options,
    };
    match sftp.open(aside, options).await {
        Ok(file) => file.close().await,
        Err(error) if error.is_transient() => Err(error),
        // A link, or nothing that can be opened: it has the name, too.
        Err(_) => Ok(()),
    }
}

/// What was asked of a file that is not there is done.
fn gone(result: Result<(), SftpError>) -> Result<(), SftpError> {
    match result {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}
