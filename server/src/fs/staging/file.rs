//! A file that is written under a hidden name, and takes its own when it is closed.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Durability, Name, Staging};
use crate::fs::{Answer, Block, Call, File, FileCall, FileSystem, Target, Work};
use crate::path::VPath;

/// Whatever ends it without its name ends it without a trace.
#[derive(Debug)]
pub(super) struct StagedFile {
    file: Arc<dyn File>,
    staged: VPath,
    name: Name,
    /// Nothing may have the name.
    is_new: bool,
    /// It has its name, or nothing.
    is_over: AtomicBool,
    /// Something of it could not be written: it will not be whole.
    failed: Mutex<Option<ErrorKind>>,
    /// What it will replace: nobody else writes to it meanwhile.
    _replaced: Option<Arc<dyn File>>,
}

impl StagedFile {
    pub(super) fn new(
        file: Arc<dyn File>,
        staged: VPath,
        name: Name,
        is_new: bool,
        replaced: Option<Arc<dyn File>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            file,
            staged,
            name,
            is_new,
            is_over: AtomicBool::new(false),
            failed: Mutex::new(None),
            _replaced: replaced,
        })
    }

    fn staging(&self) -> &Staging {
        &self.name.staging
    }

    /// Keeps in mind that a write failed.
    fn watched<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error.kind());
        }
        result
    }

    /// What a write failed of.
    fn failure(&self) -> io::Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn naming(&self) -> Call {
        Call::Rename {
            from: self.staged.clone(),
            to: self.name.path.clone(),
            target: match self.is_new {
                true => Target::MustNotExist,
                false => Target::MayExist,
            },
        }
    }

    fn try_publish(&self) -> io::Result<Answer> {
        self.failure()?;
        if self.staging().durability != Durability::None {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.staging().files.try_call(&self.naming())?;
        self.is_over.store(true, Ordering::Release);
        Ok(Answer::Done)
    }

    async fn publish(self: Arc<Self>) -> io::Result<Answer> {
        self.failure()?;
        if self.staging().durability != Durability::None {
            Arc::clone(&self.file).call(FileCall::Sync).await?;
        }
        let files = || Arc::clone(&self.staging().files);
        files().call(self.naming()).await?;
        self.is_over.store(true, Ordering::Release);
        if self.staging().durability == Durability::Full
            && let Some((path, _)) = self.name.path.split()
        {
            match files().call(Call::SyncDirectory { path }).await {
                // A file system that has no disk to wait for.
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                synced => drop(synced?),
            }
        }
        Ok(Answer::Done)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.is_over.load(Ordering::Acquire) {
            return;
        }
        let path = self.staged.clone();
        let remove = Call::Remove { path };
        let result = self.staging().files.try_call(&remove);
        if result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let files: Arc<dyn FileSystem> = Arc::clone(&self.staging().files);
            drop(runtime.spawn(async move { files.call(remove).await.map(drop) }));
        }
    }
}

impl File for StagedFile {
    fn try_read_at(&self, offset: u64, slots: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.file.try_read_at(offset, slots)
    }

    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.watched(self.file.try_write_at(offset, slices))
    }

    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        match call {
            FileCall::Publish => self.try_publish(),
            FileCall::Change(change) if change.size.is_some() => {
                self.watched(self.file.try_call(call))
            }
            FileCall::Sync => self.watched(self.file.try_call(call)),
            call => self.file.try_call(call),
        }
    }

    fn read_at(self: Arc<Self>, offset: u64, block: Block) -> Work<Block> {
        Arc::clone(&self.file).read_at(offset, block)
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        Box::pin(async move {
            let written = Arc::clone(&self.file).write_at(offset, bytes).await;
            self.watched(written)
        })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        match call {
            FileCall::Publish => Box::pin(self.publish()),
            call => Box::pin(async move {
                let answer = Arc::clone(&self.file).call(call).await;
                match call {
                    FileCall::Sync => self.watched(answer),
                    FileCall::Change(change) if change.size.is_some() => self.watched(answer),
                    _ => answer,
                }
            }),
        }
    }

    fn identity(&self) -> Option<(u64, u64)> {
        self.file.identity()
    }

    fn is_staged(&self) -> bool {
        true
    }
}
