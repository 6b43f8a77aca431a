//! Files into object stores: S3 and what speaks like it, Google Cloud Storage, Azure, and for tests a
//! directory or memory.
//!
//! An object appears whole or not at all, and where a name may not be taken the store itself is asked
//! to refuse it (a condition on the request), so two processes cannot both have it. Objects carry the
//! id of their item: after a crash it tells whose copy has the chosen key.
//!
//! What is longer than [`WHOLE_LEN_MAX`] is sent in parts. Stores take no condition with parts, so
//! where one is needed the object is made under a hidden key and copied by the store.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_core::Stream as _;
use ketch_client::Kind;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3CopyIfNotExists};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, CopyMode, CopyOptions, GetOptions, MultipartUpload, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, RetryConfig,
};
use ring::digest;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::event::{hex, shown};
use super::name::{self, Exists, NUMBERS_MAX, Names, number_of, numbered, split};
use super::steps::Steps;
use super::template::{Template, uuid};
use super::{Answer, Content, Parcel, Sink, SinkError, Takes};
use crate::flow::item::Item;
use crate::store::Placement;

/// Longest content that is sent in one request, and length of parts, in bytes.
pub const WHOLE_LEN_MAX: u64 = 8 * 1024 * 1024;
/// Parts that a sink has in memory at a time.
pub const PARTS_MAX: usize = 8;
/// Parts of one object; S3 allows 10,000.
const PARTS_OF_ONE_MAX: u64 = 9_000;
/// How long one request is tried again before the item fails and waits for its next attempt.
const RETRY: Duration = Duration::from_secs(20);
/// Attributes that objects get, as metadata of that name.
const ID: &str = "ketch-id";
const SHA256: &str = "ketch-sha256";
const SEQUENCE: &str = "ketch-sequence";

/// Which store, and how keys are made. The values of options are not shown: keys are among them.
#[derive(Clone)]
pub struct ObjectSettings {
    /// The sink's name.
    pub name: String,
    /// `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `file:///DIRECTORY` or
    /// `memory:`.
    pub url: String,
    /// What the store has to know, by the names of the crate `object_store`: `endpoint`, `region`,
    /// `access_key_id`, `secret_access_key`, `google_service_account`, `azure_storage_account_name`
    /// and so on. Before them counts what the environment says (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    pub options: Vec<(String, String)>,
    /// How keys are made below the prefix. Default: as at the source.
    pub template: Template,
    /// What happens when a key is taken; nothing can be appended. Default: an error.
    pub exists: Exists,
}

impl fmt::Debug for ObjectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&str> = self.options.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("ObjectSettings")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("options", &options)
            .field("template", &self.template)
            .field("exists", &self.exists)
            .finish()
    }
}

impl ObjectSettings {
    /// The defaults: the source's tree, and no key may be taken.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: url.into(),
            options: Vec::new(),
            template: Template::mirror(),
            exists: Exists::Error,
        }
    }
}

/// Settings that make no sink.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// Objects cannot be appended to.
    #[error("objects cannot be appended to")]
    Append,
    /// A URL that is none of those that are known.
    #[error("{0:?} is none of s3://, gs://, az://, file:/// and memory:")]
    Url(String),
    /// An option that the store does not know, or does not take.
    #[error("the store does not take this")]
    Store(#[from] object_store::Error),
}

/// A sink that puts files into an object store.
pub struct ObjectSink {
    settings: ObjectSettings,
    store: Arc<dyn ObjectStore>,
    /// In front of every name, with the slash behind it; may be empty.
    prefix: String,
    parts: Arc<Semaphore>,
    /// [`WHOLE_LEN_MAX`]; less in tests.
    whole_len: u64,
    /// The store has turned out to keep no attributes: a directory.
    is_bare: AtomicBool,
    steps: Steps,
}

/// What an object that has the chosen key is to the item.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    Nothing,
    Ours,
    Another,
}

impl fmt::Debug for ObjectSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectSink")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ObjectSink {
    /// A sink; the store is looked for when something comes.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn new(settings: ObjectSettings) -> Result<Self, ObjectError> {
        let (store, prefix) = open(&settings.url, &settings.options)?;
        Self::over(store, &prefix, settings)
    }

    /// A sink for a store that is open already; the settings' URL and options are not looked at.
    ///
    /// # Errors
    /// [`ObjectError::Append`]; [`ObjectError::Url`] for a prefix that cannot be one.
    pub fn over(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        settings: ObjectSettings,
    ) -> Result<Self, ObjectError> {
        if settings.exists == Exists::Append {
            return Err(ObjectError::Append);
        }
        let mut prefix = prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() {
            if Key::parse(&prefix).is_err() {
                return Err(ObjectError::Url(prefix));
            }
            prefix.push('/');
        }
        Ok(Self {
            settings,
            store,
            prefix,
            parts: Arc::new(Semaphore::new(PARTS_MAX)),
            whole_len: WHOLE_LEN_MAX,
            is_bare: AtomicBool::new(false),
            steps: Steps::default(),
        })
    }

    /// The key of a name.
    fn key(&self, name: &[u8]) -> Result<Key, SinkError> {
        name::check(name, Names::Unix).map_err(|fault| fault.of(name))?;
        let bad = |why: &str| SinkError::BadName {
            name: shown(name),
            why: why.to_owned(),
        };
        let text = std::str::from_utf8(name).map_err(|_| bad("keys of objects are Unicode"))?;
        Key::parse(format!("{}{text}", self.prefix))
            .map_err(|_| bad("keys of objects hold no control characters"))
    }

    fn failed(attempt: &'static str, key: &Key) -> impl Fn(object_store::Error) -> SinkError {
        let what = format!("cannot {attempt} {}", shown(key.as_ref().as_bytes()));
        move |error| SinkError::Failed {
            what: what.clone(),
            kind: kind_of(&error),
            source: Box::new(error),
        }
    }

    fn unreadable(key: &Key) -> impl Fn(io::Error) -> SinkError {
        let what = format!("cannot send {}", shown(key.as_ref().as_bytes()));
        move |error| SinkError::Failed {
            what: what.clone(),
            kind: Kind::of_local(&error),
            source: Box::new(error),
        }
    }

    async fn is_there(&self, key: &Key) -> Result<bool, SinkError> {
        match self.store.head(key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Self::failed("look at", key)(error)),
        }
    }

    async fn choose(
        &self,
        item: &Item,
        refused: Option<&Placement>,
    ) -> Result<Placement, SinkError> {
        let name = self.settings.template.place(item, Names::Unix)?;
        let key = self.key(&name)?;
        let placed = |name| Placement {
            name,
            length: None,
            note: Vec::new(),
        };
        match self.settings.exists {
            Exists::Unique => {
                let after = refused.and_then(|refused| number_of(&name, &refused.name));
                for number in after.map_or(0, |number| number.saturating_add(1))..NUMBERS_MAX {
                    let chosen = numbered(&name, number);
                    if !self.is_there(&self.key(&chosen)?).await? {
                        return Ok(placed(chosen));
                    }
                }
                Err(SinkError::Exists { name: shown(&name) })
            }
            Exists::Error if self.is_there(&key).await? => {
                Err(SinkError::Exists { name: shown(&name) })
            }
            _ => Ok(placed(name)),
        }
    }

    async fn put(&self, parcel: Parcel<'_>) -> Result<(), SinkError> {
        let content = parcel.bytes()?;
        let name = parcel.placement.name.as_slice();
        let key = self.key(name)?;
        let id = uuid(parcel.item);
        let hidden = self.hidden(name, &id)?;
        if parcel.again {
            match self.find(&key, &id, content).await? {
                Found::Nothing => {}
                Found::Ours => {
                    self.forget(&hidden, content).await;
                    return Ok(());
                }
                Found::Another if self.settings.exists == Exists::Overwrite => {}
                Found::Another => return self.taken(name),
            }
        }
        let sent = if content.len <= self.whole_len {
            self.send_whole(&key, &id, &parcel, content).await?
        } else if self.settings.exists == Exists::Overwrite {
            self.send_parts(&key, &id, &parcel, content).await?;
            true
        } else {
            self.send_parts(&hidden, &id, &parcel, content).await?;
            parcel.fence.pass().await?;
            let copied = self.name(&hidden, &key).await?;
            self.forget(&hidden, content).await;
            copied
        };
        if sent {
            return Ok(());
        }
        // An answer may have been lost, and the request repeated: then the copy in the way is ours.
        match self.find(&key, &id, content).await? {
            Found::Ours => Ok(()),
            _ => self.taken(name),
        }
    }

    fn taken(&self, name: &[u8]) -> Result<(), SinkError> {
        match self.settings.exists {
            Exists::Skip => Ok(()),
            Exists::Unique => Err(SinkError::Taken { name: shown(name) }),
            _ => Err(SinkError::Exists { name: shown(name) }),
        }
    }

    /// Where an object is made that is not to be seen yet.
    fn hidden(&self, name: &[u8], id: &str) -> Result<Key, SinkError> {
        let (dir, _) = split(name);
        let dir = std::str::from_utf8(dir).unwrap_or_default();
        let slash = if dir.is_empty() { "" } else { "/" };
        let hidden = format!("{}{dir}{slash}.ketch-{id}.part", self.prefix);
        Key::parse(&hidden).map_err(|_| SinkError::BadName {
            name: shown(name),
            why: "keys of objects hold no control characters".to_owned(),
        })
    }

    async fn forget(&self, hidden: &Key, content: &Content) {
        let is_used = content.len > self.whole_len && self.settings.exists != Exists::Overwrite;
        if is_used
            && self.steps.pass().is_ok()
            && let Err(error) = self.store.delete(hidden).await
            && !matches!(error, object_store::Error::NotFound { .. })
        {
            tracing::warn!(key = %hidden, %error, "an unfinished object is left");
        }
    }

    fn attributes(&self, id: &str, item: &Item, content: &Content) -> Attributes {
        let mut attributes = Attributes::new();
        if !self.is_bare.load(Ordering::Relaxed) {
            let mut set = |key: &'static str, value: String| {
                attributes.insert(Attribute::Metadata(key.into()), value.into());
            };
            set(ID, id.to_owned());
            set(SHA256, hex(&content.sha256));
            set(SEQUENCE, item.sequence.to_string());
        }
        attributes
    }

    /// Whether it was sent; `false` if the key was taken.
    async fn send_whole(
        &self,
        key: &Key,
        id: &str,
        parcel: &Parcel<'_>,
        content: &Content,
    ) -> Result<bool, SinkError> {
        let _permit = self.parts.acquire().await;
        let bytes = tokio::fs::read(&content.path).await;
        let bytes = bytes.map_err(Self::unreadable(key))?;
        if bytes.len() as u64 != content.len {
            return Err(Self::unreadable(key)(wrong_length()));
        }
        let payload = PutPayload::from(bytes);
        loop {
            let options = PutOptions {
                mode: match self.settings.exists {
                    Exists::Overwrite => PutMode::Overwrite,
                    _ => PutMode::Create,
                },
                attributes: self.attributes(id, parcel.item, content),
                ..PutOptions::default()
            };
            parcel.fence.pass().await?;
            self.pass(key)?;
            match self.store.put_opts(key, payload.clone(), options).await {
                Ok(_) => return Ok(true),
                Err(error) if is_taken(&error) => return Ok(false),
                Err(object_store::Error::NotImplemented { .. })
                    if !self.is_bare.swap(true, Ordering::Relaxed) => {}
                Err(error) => return Err(Self::failed("write", key)(error)),
            }
        }
    }

    /// Makes an object in parts, in place of what has the key.
    async fn send_parts(
        &self,
        key: &Key,
        id: &str,
        parcel: &Parcel<'_>,
        content: &Content,
    ) -> Result<(), SinkError> {
        let mut upload = loop {
            let options = PutMultipartOptions {
                attributes: self.attributes(id, parcel.item, content),
                ..PutMultipartOptions::default()
            };
            self.pass(key)?;
            match self.store.put_multipart_opts(key, options).await {
                Ok(upload) => break upload,
                Err(object_store::Error::NotImplemented { .. })
                    if !self.is_bare.swap(true, Ordering::Relaxed) => {}
                Err(error) => return Err(Self::failed("write", key)(error)),
            }
        };
        let mut sent = self.send_each(&mut upload, key, content).await;
        if sent.is_ok() {
            sent = self.complete(&mut upload, key, parcel).await;
        }
        if sent.is_err() && self.steps.pass().is_ok() {
            let _ = upload.abort().await;
        }
        sent
    }

    async fn send_each(
        &self,
        upload: &mut Box<dyn MultipartUpload>,
        key: &Key,
        content: &Content,
    ) -> Result<(), SinkError> {
        let part_len = self.whole_len.max(content.len.div_ceil(PARTS_OF_ONE_MAX));
        let failed = Self::failed("write", key);
        let unreadable = Self::unreadable(key);
        let joined = |joined: Result<Result<(), object_store::Error>, tokio::task::JoinError>| {
            joined
                .unwrap_or_else(|error| Err(object_store::Error::JoinError { source: error }))
                .map_err(&failed)
        };
        let mut file = File::open(&content.path).await.map_err(&unreadable)?;
        let mut parts = JoinSet::new();
        let mut left = content.len;
        while left > 0 {
            let Ok(permit) = Arc::clone(&self.parts).acquire_owned().await else {
                break;
            };
            let len = left.min(part_len);
            let mut part = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
            let read = (&mut file).take(len).read_to_end(&mut part).await;
            if read.map_err(&unreadable)? as u64 != len {
                return Err(unreadable(wrong_length()));
            }
            self.pass(key)?;
            let sending = upload.put_part(part.into());
            parts.spawn(async move {
                let sent = sending.await;
                drop(permit);
                sent
            });
            left -= len;
            while let Some(done) = parts.try_join_next() {
                joined(done)?;
            }
        }
        while let Some(done) = parts.join_next().await {
            joined(done)?;
        }
        Ok(())
    }

    /// Makes an object of the parts: under a hidden key, or in place of what has its own.
    async fn complete(
        &self,
        upload: &mut Box<dyn MultipartUpload>,
        key: &Key,
        parcel: &Parcel<'_>,
    ) -> Result<(), SinkError> {
        if self.settings.exists == Exists::Overwrite {
            parcel.fence.pass().await?;
        }
        self.pass(key)?;
        let completed = upload.complete().await;
        completed.map_err(Self::failed("write", key))?;
        Ok(())
    }

    /// Lets the store copy a hidden object to its key; `false` if that was taken.
    async fn name(&self, hidden: &Key, key: &Key) -> Result<bool, SinkError> {
        self.pass(key)?;
        let options = CopyOptions::new().with_mode(CopyMode::Create);
        match self.store.copy_opts(hidden, key, options).await {
            Ok(()) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(Self::failed("name", key)(error)),
        }
    }

    /// What has the chosen key.
    async fn find(&self, key: &Key, id: &str, content: &Content) -> Result<Found, SinkError> {
        let failed = Self::failed("compare", key);
        let head = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(key, head).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Found::Nothing),
            Err(error) => return Err(failed(error)),
        };
        let is_ours = match found.attributes.get(&Attribute::Metadata(ID.into())) {
            Some(theirs) => theirs.as_ref() == id,
            // A copy that the store made may lack it.
            None => {
                found.meta.size == content.len
                    && self.sha256(key).await.map_err(failed)? == content.sha256
            }
        };
        Ok(if is_ours { Found::Ours } else { Found::Another })
    }

    async fn sha256(&self, key: &Key) -> Result<[u8; 32], object_store::Error> {
        let mut stream = self.store.get(key).await?.into_stream();
        let mut hash = digest::Context::new(&digest::SHA256);
        while let Some(bytes) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
            hash.update(&bytes?);
        }
        let mut sum = [0; 32];
        sum.copy_from_slice(hash.finish().as_ref());
        Ok(sum)
    }

    fn pass(&self, key: &Key) -> Result<(), SinkError> {
        self.steps.pass().map_err(Self::unreadable(key))
    }
}

fn wrong_length() -> io::Error {
    let what = "the fetched file does not have the length that it had";
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const fn is_taken(error: &object_store::Error) -> bool {
    use object_store::Error;
    matches!(
        error,
        Error::AlreadyExists { .. } | Error::Precondition { .. }
    )
}

fn kind_of(error: &object_store::Error) -> Kind {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => Kind::NotFound,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => Kind::Exists,
        Error::PermissionDenied { .. } => Kind::Permission,
        Error::Unauthenticated { .. } => Kind::Auth,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => Kind::Unsupported,
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => Kind::Local,
        // A directory says what the system said; all else is somewhere on the way to a store.
        other => {
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                if let Some(error) = error.downcast_ref::<io::Error>() {
                    match Kind::of_local(error) {
                        Kind::Local => {}
                        kind => return kind,
                    }
                }
                cause = error.source();
            }
            match is_refused(other) {
                true => Kind::Peer,
                false => Kind::Network,
            }
        }
    }
}

/// Whether a store was reached and says that this request is not right (HTTP 4xx): so it is for this
/// object alone. The library tells that in words.
fn is_refused(error: &object_store::Error) -> bool {
    let text = std::error::Error::source(error).map(ToString::to_string);
    let text = text.unwrap_or_default();
    let code = text.split("status code: ").nth(1).unwrap_or_default();
    code.starts_with('4')
        && !["408", "409", "425", "429"]
            .iter()
            .any(|wait| code.starts_with(wait))
}

/// Opens the store that a URL names; gives what of the URL is in front of keys.
fn open(
    url: &str,
    options: &[(String, String)],
) -> Result<(Arc<dyn ObjectStore>, String), ObjectError> {
    // Another part of the program may have done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (scheme, rest) = url
        .split_once(':')
        .ok_or_else(|| ObjectError::Url(url.to_owned()))?;
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let retry = RetryConfig {
        max_retries: 3,
        retry_timeout: RETRY,
        ..RetryConfig::default()
    };
    let is_plain = options.iter().any(|(key, value)| {
        key.trim_start_matches("aws_").trim_start_matches("azure_") == "endpoint"
            && value.starts_with("http://")
    });
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" | "s3a" if !bucket.is_empty() => {
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
            for (key, value) in options {
                builder = builder.with_config(key.parse::<AmazonS3ConfigKey>()?, value);
            }
            if is_plain {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.with_retry(retry).build()?)
        }
        "gs" if !bucket.is_empty() => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            for (key, value) in options {
                builder = builder.with_config(key.parse()?, value);
            }
            Arc::new(builder.with_retry(retry).build()?)
        }
        "az" | "azure" if !bucket.is_empty() => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            for (key, value) in options {
                builder = builder.with_config(key.parse()?, value);
            }
            if is_plain {
                builder = builder.with_allow_http(true);
            }
            Arc::new(builder.with_retry(retry).build()?)
        }
        "file" if bucket.is_empty() && !prefix.is_empty() => {
            let store = LocalFileSystem::new_with_prefix(format!("/{prefix}"))?;
            return Ok((Arc::new(store.with_fsync(true)), String::new()));
        }
        "memory" if bucket.is_empty() => Arc::new(InMemory::new()),
        _ => return Err(ObjectError::Url(url.to_owned())),
    };
    Ok((store, prefix.to_owned()))
}

impl Sink for ObjectSink {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn takes(&self) -> Takes {
        Takes::CONTENT
    }

    fn place<'a>(
        &'a self,
        item: &'a Item,
        refused: Option<&'a Placement>,
    ) -> Answer<'a, Placement> {
        Box::pin(self.choose(item, refused))
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(self.put(parcel))
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async {
            // A bucket that is not there looks like a key that is not there: so it is listed.
            let prefix = Key::parse(&self.prefix).unwrap_or_default();
            let mut list = self.store.list(Some(&prefix));
            match poll_fn(|cx| list.as_mut().poll_next(cx)).await {
                Some(Err(error)) => Err(Self::failed("list", &prefix)(error)),
                _ => Ok(()),
            }
        })
    }
}
