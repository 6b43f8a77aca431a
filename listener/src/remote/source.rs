//! What the engine asks of a tree on a server: fetch, look, and what comes after a delivery.

use std::path::Path;

use ketch_client::{
    Failure, GetOptions, Kind, OpenOptions, RemotePath, Sftp, SftpError, TransferError,
};

use super::{Remote, RemoteError};
use crate::snapshot::Facts;
use crate::source::{Answer, Source, SourceError};

/// Bytes that are read at a time to compute a checksum here.
const HASHED_LEN: usize = 256 * 1024;

impl Remote {
    async fn line(&self, what: &'static str, path: &RemotePath) -> Result<Sftp, SourceError> {
        let failed = |error: RemoteError| SourceError::Failed {
            what: format!("cannot {what} {}", self.path(path)),
            kind: error.kind(),
            source: Box::new(error),
        };
        self.sftp().await.map_err(failed)
    }

    fn refused(&self, what: &'static str, path: &RemotePath, error: SftpError) -> SourceError {
        if error.kind() == Kind::NotFound {
            return SourceError::Gone { path: path.clone() };
        }
        SourceError::Failed {
            what: format!("cannot {what} {}", self.path(path)),
            kind: error.kind(),
            source: Box::new(error),
        }
    }

    fn not_fetched(&self, path: &RemotePath, error: TransferError) -> SourceError {
        if error.kind() == Kind::NotFound {
            return SourceError::Gone { path: path.clone() };
        }
        SourceError::Failed {
            what: format!("cannot fetch {}", self.path(path)),
            kind: error.kind(),
            source: Box::new(error),
        }
    }

    async fn facts(&self, sftp: &Sftp, path: &RemotePath) -> Result<Facts, SourceError> {
        let attrs = sftp.lstat(self.path(path)).await;
        attrs
            .map(|attrs| Facts::of(&attrs))
            .map_err(|error| self.refused("look at", path, error))
    }

    async fn hash_here(&self, sftp: &Sftp, path: &RemotePath) -> Result<[u8; 32], SourceError> {
        let refused = |error| self.refused("read", path, error);
        let file = sftp.open(self.path(path), OpenOptions::reading()).await;
        let file = file.map_err(refused)?;
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut offset = 0_u64;
        loop {
            let bytes = file.read_at(offset, HASHED_LEN).await.map_err(refused)?;
            if bytes.is_empty() {
                break;
            }
            context.update(&bytes);
            offset = offset.saturating_add(bytes.len() as u64);
        }
        let mut sum = [0; 32];
        sum.copy_from_slice(context.finish().as_ref());
        Ok(sum)
    }
}

impl Source for Remote {
    fn look<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, Facts> {
        Box::pin(async move {
            let sftp = self.line("look at", path).await?;
            self.facts(&sftp, path).await
        })
    }

    fn fetch<'a>(&'a self, path: &'a RemotePath, expected: Facts, to: &'a Path) -> Answer<'a, ()> {
        Box::pin(async move {
            let sftp = self.line("fetch", path).await?;
            let changed = || SourceError::Changed { path: path.clone() };
            // One flight: requests of a channel are answered in the order in which they left.
            let (before, fetched) = tokio::join!(
                self.facts(&sftp, path),
                sftp.get(self.path(path), to, GetOptions::new())
            );
            let report = fetched.map_err(|error| self.not_fetched(path, error));
            let checked = async {
                let report = report?;
                if before? != expected || expected.size.is_some_and(|size| size != report.bytes) {
                    return Err(changed());
                }
                if self.facts(&sftp, path).await? != expected {
                    return Err(changed());
                }
                Ok(())
            };
            let checked = checked.await;
            if checked.is_err() {
                // It may not be there; whoever sweeps the spool finds it otherwise.
                let _ = tokio::fs::remove_file(to).await;
            }
            checked
        })
    }

    fn sha256<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, [u8; 32]> {
        Box::pin(async move {
            let sftp = self.line("read", path).await?;
            match sftp.sha256(self.path(path)).await {
                Err(error) if error.kind() == Kind::Unsupported => {
                    self.hash_here(&sftp, path).await
                }
                sum => sum.map_err(|error| self.refused("hash", path, error)),
            }
        })
    }

    fn remove<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, ()> {
        Box::pin(async move {
            let sftp = self.line("remove", path).await?;
            let removed = sftp.remove_file(self.path(path)).await;
            removed.map_err(|error| self.refused("remove", path, error))
        })
    }

    fn rename<'a>(
        &'a self,
        from: &'a RemotePath,
        to: &'a RemotePath,
        replace: bool,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let sftp = self.line("rename", from).await?;
            let (old, new) = (self.path(from), self.path(to));
            let rename = async |sftp: &Sftp| {
                if replace {
                    sftp.posix_rename(&old, &new).await
                } else {
                    sftp.rename(&old, &new).await
                }
            };
            let first = rename(&sftp).await;
            let Err(error) = first else { return Ok(()) };
            // Version 3 has one status for everything: look what is so.
            self.facts(&sftp, from).await?;
            if error.kind() == Kind::Unsupported && replace {
                if let Err(error) = sftp.remove_file(&new).await
                    && error.kind() != Kind::NotFound
                {
                    return Err(self.refused("replace", to, error));
                }
            } else if sftp.lstat(&new).await.is_ok() {
                return Err(SourceError::Failed {
                    what: format!("cannot rename {old} to {new}"),
                    kind: Kind::Exists,
                    source: Box::new(error),
                });
            } else if let Some(parent) = new.parent() {
                let made = sftp.create_dir_all(&parent).await;
                made.map_err(|error| self.refused("create the directory of", to, error))?;
            }
            let again = if error.kind() == Kind::Unsupported {
                sftp.rename(&old, &new).await
            } else {
                rename(&sftp).await
            };
            again.map_err(|error| self.refused("rename", from, error))
        })
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let root = RemotePath::from("");
            let sftp = self.line("list", &root).await?;
            match sftp.read_dir(self.path(&root)).next().await {
                Some(Err(error)) => Err(self.refused("list", &root, error)),
                _ => Ok(()),
            }
        })
    }
}
