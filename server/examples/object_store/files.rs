//! A tree of files over an object store: what the server asks of a file system, asynchronous all of
//! it.
//!
//! An object store knows keys and whole objects, and this is what becomes of it:
//!
//! - **Reading** asks for the range, of the object as it was when it was opened: if it is replaced
//!   meanwhile, reading fails instead of giving a mixture.
//! - **Writing** goes from the start of a new object to its end, in order; anything else is refused.
//!   What is written is sent in parts of one length, of which an upload holds one. The object appears
//!   when the file is closed, whole or not at all.
//! - **Directories** are implied by the keys beneath them. One that is made by `MKDIR` is an empty
//!   object, `.directory`, beneath it: it stays when nothing else is in it. No request reaches that name.
//! - **Renaming** a file copies and removes it; a directory is not renamed. Whether something has the
//!   new name is asked of the store in the same step as the copy.
//! - There are no links, permissions, times to set or room to ask for.

use std::collections::HashSet;
use std::future::ready;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ketch_server::{
    Answer, Batch, Block, Call, Create, Directory, DirectoryEntry, File, FileCall, FileSystem,
    Metadata, OpenHow, TYPE_DIRECTORY, TYPE_FILE, Target, VPath, Work,
};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most parts of one object (S3 takes 10,000).
const PARTS_MAX: u64 = 10_000;
/// Most uploads at a time, each of which holds a part: 256 MiB with parts of 8.
const UPLOADS_MAX: usize = 32;
/// The object that stands for a directory in which nothing else may be.
const MARKER: &str = ".directory";

/// A store of objects that a user sees as a tree of files.
#[derive(Debug)]
pub(crate) struct ObjectFiles {
    store: Arc<dyn ObjectStore>,
    part_len: usize,
    uploads: Arc<Semaphore>,
    /// Keys that are being written by somebody who wants to be the only one.
    taken: Arc<Mutex<HashSet<Path>>>,
}

/// What stands under a name.
enum Found {
    File(ObjectMeta),
    Directory,
}

impl ObjectFiles {
    /// All of `store`; uploads are sent in parts of `part_len` bytes. Stores want 5 MiB at least, of
    /// all but the last.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, part_len: usize) -> Self {
        Self {
            store,
            part_len: part_len.max(1),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            taken: Arc::default(),
        }
    }

    async fn answer(&self, call: Call) -> io::Result<Answer> {
        match call {
            Call::Open { path, how } => self.open(&key(&path)?, &how).await,
            Call::OpenDirectory { path } => self.list(&key(&path)?).await,
            Call::Metadata { path, .. } => Ok(Answer::Metadata(match self.find(&path).await? {
                Found::File(object) => of_file(object.size, &object),
                Found::Directory => Metadata::new(TYPE_DIRECTORY | 0o755),
            })),
            Call::Remove { path } => {
                self.file(&path).await?;
                self.store.delete(&key(&path)?).await.map_err(refused)?;
                Ok(Answer::Done)
            }
            Call::RemoveDirectory { path } => self.remove_directory(&path).await,
            Call::CreateDirectory { path, .. } => {
                self.vacant(&path).await?;
                let marker = key(&path)?.join(MARKER);
                let nothing = PutPayload::new();
                self.store.put(&marker, nothing).await.map_err(refused)?;
                Ok(Answer::Done)
            }
            Call::Rename { from, to, target } => self.rename(&from, &to, target).await,
            Call::ReadLink { path } => {
                self.find(&path).await?;
                Err(ErrorKind::InvalidInput.into())
            }
            _ => Err(ErrorKind::Unsupported.into()),
        }
    }

    async fn find(&self, path: &VPath) -> io::Result<Found> {
        self.find_key(&key(path)?).await
    }

    async fn find_key(&self, key: &Path) -> io::Result<Found> {
        if key.is_root() {
            return Ok(Found::Directory);
        }
        match self.store.head(key).await {
            Ok(object) => Ok(Found::File(object)),
            Err(Error::NotFound { .. }) => {
                let mut beneath = self.store.list(Some(key));
                match std::future::poll_fn(|task| beneath.as_mut().poll_next(task)).await {
                    Some(Ok(_)) => Ok(Found::Directory),
                    Some(Err(error)) => Err(refused(error)),
                    None => Err(ErrorKind::NotFound.into()),
                }
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn file(&self, path: &VPath) -> io::Result<ObjectMeta> {
        match self.find(path).await? {
            Found::File(object) => Ok(object),
            Found::Directory => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// Nothing has the name, and it lies in a directory: no file is above another one.
    async fn vacant(&self, path: &VPath) -> io::Result<()> {
        match self.find(path).await {
            Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (parent, _) = path.split().ok_or(ErrorKind::AlreadyExists)?;
        match self.find(&parent).await? {
            Found::Directory => Ok(()),
            Found::File(_) => Err(ErrorKind::NotADirectory.into()),
        }
    }

    async fn open(&self, key: &Path, how: &OpenHow) -> io::Result<Answer> {
        if !how.write && !how.append {
            let Found::File(object) = self.find_key(key).await? else {
                return Err(ErrorKind::IsADirectory.into());
            };
            let store = Arc::clone(&self.store);
            return Ok(Answer::File(Arc::new(Opened { store, object })));
        }
        // An object is written from its start to its end, and not read before it is whole.
        if how.append || how.read {
            return Err(ErrorKind::Unsupported.into());
        }
        let is_new = match self.find_key(key).await {
            Ok(Found::Directory) => return Err(ErrorKind::IsADirectory.into()),
            Ok(Found::File(_)) if matches!(how.create, Create::New { .. }) => {
                return Err(ErrorKind::AlreadyExists.into());
            }
            // To change what is there.
            Ok(Found::File(_)) if !how.truncate => return Err(ErrorKind::Unsupported.into()),
            Ok(Found::File(_)) => false,
            Err(error) if error.kind() == ErrorKind::NotFound && how.create != Create::Never => {
                let parent = key.parent().unwrap_or_default();
                if let Found::File(_) = self.find_key(&parent).await? {
                    return Err(ErrorKind::NotADirectory.into());
                }
                matches!(how.create, Create::New { .. })
            }
            Err(error) => return Err(error),
        };
        let place = Arc::clone(&self.uploads).try_acquire_owned();
        let place = place.map_err(|_| ErrorKind::QuotaExceeded)?;
        let taken = how.exclusive.then(|| Taken::take(&self.taken, key));
        Ok(Answer::File(Arc::new(Upload {
            store: Arc::clone(&self.store),
            key: key.clone(),
            part_len: self.part_len,
            is_new,
            state: Arc::default(),
            _place: place,
            _taken: taken.transpose()?,
        })))
    }

    async fn list(&self, key: &Path) -> io::Result<Answer> {
        if let Found::File(_) = self.find_key(key).await? {
            return Err(ErrorKind::NotADirectory.into());
        }
        // The crate gathers all pages of an answer before it gives it out.
        let listed = self.store.list_with_delimiter(Some(key)).await;
        let listed = listed.map_err(refused)?;
        let name = |key: &Path| key.filename().unwrap_or_default().as_bytes().to_vec();
        let directories = listed
            .common_prefixes
            .iter()
            .map(|key| DirectoryEntry::new(name(key), Metadata::new(TYPE_DIRECTORY | 0o755)));
        let files = listed.objects.iter();
        let files = files.filter(|object| object.location.filename() != Some(MARKER));
        let files = files.map(|object| {
            DirectoryEntry::new(name(&object.location), of_file(object.size, object))
        });
        let entries: Vec<_> = directories.chain(files).collect();
        let entries = entries.into_iter();
        Ok(Answer::Directory(Box::new(Listing { entries })))
    }

    async fn remove_directory(&self, path: &VPath) -> io::Result<Answer> {
        let key = key(path)?;
        match self.find_key(&key).await? {
            Found::Directory if path.is_root() => return Err(ErrorKind::PermissionDenied.into()),
            Found::Directory => {}
            Found::File(_) => return Err(ErrorKind::NotADirectory.into()),
        }
        let marker = key.clone().join(MARKER);
        let mut beneath = self.store.list(Some(&key));
        while let Some(object) = std::future::poll_fn(|task| beneath.as_mut().poll_next(task)).await
        {
            if object.map_err(refused)?.location != marker {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
        }
        self.store.delete(&marker).await.map_err(refused)?;
        Ok(Answer::Done)
    }

    async fn rename(&self, from: &VPath, to: &VPath, target: Target) -> io::Result<Answer> {
        match self.find(from).await? {
            Found::File(_) => {}
            Found::Directory => return Err(ErrorKind::Unsupported.into()),
        }
        match target {
            // Its copy would be removed with it.
            Target::MayExist if from == to => return Ok(Answer::Done),
            Target::MayExist if self.file(to).await.is_ok() => {}
            Target::MayExist | Target::MustNotExist => self.vacant(to).await?,
        }
        let (from, to) = (key(from)?, key(to)?);
        match target {
            Target::MayExist => self.store.rename(&from, &to).await,
            Target::MustNotExist => self.store.rename_if_not_exists(&from, &to).await,
        }
        .map_err(refused)?;
        Ok(Answer::Done)
    }
}

impl FileSystem for ObjectFiles {
    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Box::pin(async move { self.answer(call).await })
    }
}

/// The key of a path. Stores take text without control characters.
fn key(path: &VPath) -> io::Result<Path> {
    if path.components().any(|name| name == MARKER.as_bytes()) {
        return Err(ErrorKind::InvalidFilename.into());
    }
    let text = std::str::from_utf8(path.as_bytes()).map_err(|_| ErrorKind::InvalidFilename)?;
    Path::parse(text).map_err(|_| ErrorKind::InvalidFilename.into())
}

/// What the server makes a status of.
fn refused(error: Error) -> io::Error {
    let kind = match error {
        Error::NotFound { .. } => ErrorKind::NotFound,
        Error::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            ErrorKind::PermissionDenied
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => ErrorKind::Unsupported,
        // It was replaced since it was opened.
        Error::Precondition { .. } => ErrorKind::ResourceBusy,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn of_file(size: u64, object: &ObjectMeta) -> Metadata {
    let mut metadata = Metadata::new(TYPE_FILE | 0o644);
    metadata.size = size;
    // Version 3 counts seconds in 32 bits (draft-ietf-secsh-filexfer-02 §5).
    metadata.modified = u32::try_from(object.last_modified.timestamp().max(0)).unwrap_or(u32::MAX);
    metadata.accessed = metadata.modified;
    metadata
}

/// An object that is read.
#[derive(Debug)]
struct Opened {
    store: Arc<dyn ObjectStore>,
    object: ObjectMeta,
}

impl File for Opened {
    fn read_at(self: Arc<Self>, offset: u64, mut block: Block) -> Work<Block> {
        Box::pin(async move {
            let wanted = u64::try_from(block.space().len()).unwrap_or(u64::MAX);
            let end = offset.saturating_add(wanted).min(self.object.size);
            if offset >= end {
                block.set_filled(0);
                return Ok(block);
            }
            let options = GetOptions {
                range: Some((offset..end).into()),
                if_match: self.object.e_tag.clone(),
                ..GetOptions::default()
            };
            let got = self.store.get_opts(&self.object.location, options).await;
            let bytes = got.map_err(refused)?.bytes().await.map_err(refused)?;
            let space = block.space().get_mut(..bytes.len());
            space.ok_or(ErrorKind::InvalidData)?.copy_from_slice(&bytes);
            block.set_filled(bytes.len());
            Ok(block)
        })
    }

    fn write_at(self: Arc<Self>, _: u64, _: Vec<u8>) -> Work<()> {
        Box::pin(ready(Err(ErrorKind::PermissionDenied.into())))
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Box::pin(ready(match call {
            FileCall::Metadata => Ok(Answer::Metadata(of_file(self.object.size, &self.object))),
            FileCall::Sync | FileCall::Claim | FileCall::Publish => Ok(Answer::Done),
            _ => Err(ErrorKind::Unsupported.into()),
        }))
    }
}

/// An object that is written.
#[derive(Debug)]
struct Upload {
    store: Arc<dyn ObjectStore>,
    key: Path,
    part_len: usize,
    /// Nothing may have the name.
    is_new: bool,
    state: Arc<tokio::sync::Mutex<Written>>,
    _place: OwnedSemaphorePermit,
    _taken: Option<Taken>,
}

/// How far it is.
#[derive(Debug, Default)]
struct Written {
    /// Where the next write has to begin.
    len: u64,
    /// What is no whole part yet.
    part: Vec<u8>,
    /// The parts before it. A file that is smaller than one has none.
    parts: Option<Box<dyn MultipartUpload>>,
    /// What a write was refused with: it will not be whole.
    failed: Option<ErrorKind>,
}

impl Upload {
    async fn write(&self, written: &mut Written, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if offset != written.len {
            return Err(ErrorKind::NotSeekable.into());
        }
        let len = offset.saturating_add(bytes.len() as u64);
        if len > PARTS_MAX.saturating_mul(self.part_len as u64) {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            // A part leaves when there is more behind it: the last one may be whole, too.
            if written.part.len() == self.part_len {
                self.send_part(written).await?;
            }
            let room = self.part_len - written.part.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            written.part.extend_from_slice(now);
            rest = later;
        }
        written.len = len;
        Ok(())
    }

    async fn send_part(&self, written: &mut Written) -> io::Result<()> {
        let part = PutPayload::from(std::mem::take(&mut written.part));
        if written.parts.is_none() {
            written.parts = Some(self.store.put_multipart(&self.key).await.map_err(refused)?);
        }
        match &mut written.parts {
            Some(parts) => parts.put_part(part).await.map_err(refused),
            None => Ok(()),
        }
    }

    async fn publish(&self) -> io::Result<Answer> {
        let mut written = self.state.lock().await;
        if let Some(kind) = written.failed {
            return Err(kind.into());
        }
        if written.parts.is_none() {
            let mode = match self.is_new {
                true => PutMode::Create,
                false => PutMode::Overwrite,
            };
            let whole = PutPayload::from(std::mem::take(&mut written.part));
            let put = self.store.put_opts(&self.key, whole, mode.into()).await;
            put.map_err(refused)?;
            return Ok(Answer::Done);
        }
        self.send_part(&mut written).await?;
        // Of parts no store says that nothing may have the name: it is asked before.
        if self.is_new && self.store.head(&self.key).await.is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if let Some(parts) = &mut written.parts {
            parts.complete().await.map_err(refused)?;
        }
        written.parts = None;
        Ok(Answer::Done)
    }
}

impl Drop for Upload {
    /// What was not closed, or could not be, is thrown away in the store.
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        if let Ok(mut written) = state.try_lock()
            && let Some(mut parts) = written.parts.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn(async move { parts.abort().await }));
        }
    }
}

impl File for Upload {
    fn read_at(self: Arc<Self>, _: u64, _: Block) -> Work<Block> {
        Box::pin(ready(Err(ErrorKind::Unsupported.into())))
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        Box::pin(async move {
            let mut written = self.state.lock().await;
            let result = self.write(&mut written, offset, &bytes).await;
            if let Err(error) = &result {
                written.failed.get_or_insert(error.kind());
            }
            result
        })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Box::pin(async move {
            match call {
                FileCall::Metadata => {
                    let mut metadata = Metadata::new(TYPE_FILE | 0o644);
                    metadata.size = self.state.lock().await.len;
                    Ok(Answer::Metadata(metadata))
                }
                FileCall::Publish => self.publish().await,
                FileCall::Claim => Ok(Answer::Done),
                // Nothing of it is to be had before it is whole: `Sync` neither.
                _ => Err(ErrorKind::Unsupported.into()),
            }
        })
    }

    fn is_staged(&self) -> bool {
        true
    }
}

/// A key that nobody else may write meanwhile.
#[derive(Debug)]
struct Taken {
    key: Path,
    all: Arc<Mutex<HashSet<Path>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Taken {
    fn take(all: &Arc<Mutex<HashSet<Path>>>, key: &Path) -> io::Result<Self> {
        if !locked(all).insert(key.clone()) {
            return Err(ErrorKind::ResourceBusy.into());
        }
        let (key, all) = (key.clone(), Arc::clone(all));
        Ok(Self { key, all })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        locked(&self.all).remove(&self.key);
    }
}

/// What is left of a directory.
#[derive(Debug)]
struct Listing {
    entries: std::vec::IntoIter<DirectoryEntry>,
}

impl Directory for Listing {
    fn read(mut self: Box<Self>, mut batch: Batch) -> Work<(Box<dyn Directory>, Batch)> {
        while !batch.is_full()
            && let Some(entry) = self.entries.next()
        {
            batch.push(entry);
        }
        Box::pin(ready(Ok((self as Box<dyn Directory>, batch))))
    }
}
