//! What is below a directory, as a stream: several directories are listed at a time.
//!
//! [`Walk`] gives every entry below its root, directories before what is in them, otherwise in no
//! order. What it holds is bounded: the directories that still wait ([`WalkOptions::waiting_max`]),
//! those being listed, and the answer that is being handed out. A server decides what a listing says,
//! so names that are no names end nowhere, and depth is bounded too.
//!
//! Links are not followed unless asked for; then a directory is not entered again below itself.

mod looking;

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use ketch_protocol::{Attrs, FileType, RemotePath};

use self::looking::{Above, Look};
use crate::{
    dir::{DirEntryRef, ReadDir},
    error::{Failure, Kind, Outcome},
    glob::{Glob, GlobError, States, Step},
    in_flight::InFlight,
    sftp::{Sftp, SftpError},
};

/// Directories that are listed at a time.
const LISTINGS_MAX: usize = 16;
/// Links whose targets are looked at, at a time.
const LINKS_MAX: usize = 64;
/// Levels below the root, by default.
const DEPTH_MAX: u32 = 128;
/// Directories that wait to be listed, by default.
const WAITING_MAX: usize = 100_000;

/// How to walk. The defaults: everything, links as links, 128 levels.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    follow_links: bool,
    depth_max: u32,
    entries_max: Option<u64>,
    waiting_max: usize,
}

impl Default for WalkOptions {
    fn default() -> Self {
        Self {
            follow_links: false,
            depth_max: DEPTH_MAX,
            entries_max: None,
            waiting_max: WAITING_MAX,
        }
    }
}

impl WalkOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether directories that a link leads to are entered, and links told as what they lead to.
    /// Costs a round trip or two a link. Default: no.
    #[must_use]
    pub const fn follow_links(mut self, yes: bool) -> Self {
        self.follow_links = yes;
        self
    }

    /// How many levels are told: 1 for the entries of the root alone. What is deeper is left out.
    /// Default: 128.
    #[must_use]
    pub const fn depth_max(mut self, levels: u32) -> Self {
        self.depth_max = levels;
        self
    }

    /// After how many entries the walk fails. Default: never.
    #[must_use]
    pub const fn entries_max(mut self, entries: u64) -> Self {
        self.entries_max = Some(entries);
        self
    }

    /// How many directories may wait to be listed before the walk fails: what bounds its memory.
    /// Default: 100,000.
    #[must_use]
    pub const fn waiting_max(mut self, directories: usize) -> Self {
        self.waiting_max = directories;
        self
    }
}

/// An entry that a walk met.
#[derive(Clone, Debug)]
pub struct WalkEntry {
    path: RemotePath,
    depth: u32,
    attrs: Attrs,
    file_type: FileType,
}

impl WalkEntry {
    /// Its path: that of the root, and the names below it.
    #[must_use]
    pub const fn path(&self) -> &RemotePath {
        &self.path
    }

    /// The path, given away.
    #[must_use]
    pub fn into_path(self) -> RemotePath {
        self.path
    }

    /// How far below the root it is: 1 for the root's own entries.
    #[must_use]
    pub const fn depth(&self) -> u32 {
        self.depth
    }

    /// What the server tells about it.
    #[must_use]
    pub const fn attrs(&self) -> Attrs {
        self.attrs
    }

    /// What kind of file it is.
    #[must_use]
    pub const fn file_type(&self) -> FileType {
        self.file_type
    }
}

/// What went wrong on the way; except for `TooMany`, the walk goes on elsewhere.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// A directory could not be listed, or not to its end.
    #[error("cannot walk through {path}")]
    Unreadable {
        /// The directory.
        path: RemotePath,
        /// Why.
        source: SftpError,
    },
    /// A listing holds what is no name: empty, or with a slash in it.
    #[error("the server listed something that is no name in {path}")]
    BadName {
        /// The directory.
        path: RemotePath,
    },
    /// There is more than the options allow.
    #[error("there is more below {path} than was allowed for")]
    TooMany {
        /// Where the bound was met.
        path: RemotePath,
    },
}

impl Failure for WalkError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } => source.kind(),
            Self::BadName { .. } => Kind::Peer,
            Self::TooMany { .. } => Kind::Local,
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::NotDone
    }
}

/// The entries below a directory, as they come.
///
/// An error tells of one directory, and the walk goes on. Dropped, everything is closed.
///
/// ```no_run
/// use ketch_client::WalkOptions;
///
/// # async fn example(sftp: ketch_client::Sftp) -> Result<(), Box<dyn std::error::Error>> {
/// let mut walk = sftp.walk("in", WalkOptions::new());
/// while let Some(entry) = walk.next().await {
///     let entry = entry?;
///     println!("{} {:?}", entry.path(), entry.attrs().size);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Walk {
    sftp: Sftp,
    options: WalkOptions,
    glob: Option<Arc<Glob>>,
    /// Directories that wait; the last one is next, so that few wait.
    waiting: Vec<Directory>,
    listings: Vec<(Directory, ReadDir)>,
    looks: InFlight<Look>,
    ready: VecDeque<Result<WalkEntry, WalkError>>,
    entries: u64,
}

/// A directory to list.
#[derive(Clone)]
struct Directory {
    path: RemotePath,
    depth: u32,
    /// Where in the pattern it stands, if there is one.
    states: States,
    /// The directories that it is in, by their real paths, where links are followed.
    above: Option<Arc<Above>>,
    /// It may be no directory, or not there: then there is nothing to tell.
    is_guess: bool,
}

impl Walk {
    pub(crate) fn new(sftp: Sftp, root: RemotePath, options: WalkOptions) -> Self {
        let mut walk = Self::empty(sftp, options, None);
        let directory = Directory {
            path: root,
            depth: 0,
            states: States::NONE,
            above: None,
            is_guess: false,
        };
        if walk.options.follow_links {
            walk.look(None, directory);
        } else {
            walk.waiting.push(directory);
        }
        walk
    }

    pub(crate) fn matching(sftp: Sftp, glob: Glob, options: WalkOptions) -> Self {
        let glob = Arc::new(glob);
        let start = Directory {
            path: glob.prefix().clone(),
            depth: 0,
            states: glob.start(),
            above: None,
            is_guess: true,
        };
        let mut walk = Self::empty(sftp, options, Some(glob));
        walk.enter(start);
        walk
    }

    fn empty(sftp: Sftp, options: WalkOptions, glob: Option<Arc<Glob>>) -> Self {
        Self {
            sftp,
            options,
            glob,
            waiting: Vec::new(),
            listings: Vec::new(),
            looks: InFlight::default(),
            ready: VecDeque::new(),
            entries: 0,
        }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// [`WalkError`], after which the walk goes on.
    pub async fn next(&mut self) -> Option<Result<WalkEntry, WalkError>> {
        poll_fn(|cx| self.poll_entry(cx)).await
    }

    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WalkEntry, WalkError>>> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Poll::Ready(Some(entry));
            }
            while self.listings.len() < LISTINGS_MAX
                && let Some(directory) = self.waiting.pop()
            {
                // The empty path is where the session starts.
                let here = RemotePath::from(".");
                let is_here = directory.path.as_bytes().is_empty();
                let path = if is_here { &here } else { &directory.path };
                let reader = self.sftp.read_dir(path);
                self.listings.push((directory, reader));
            }
            let mut moved = false;
            while let Poll::Ready(Some(look)) = self.looks.poll_next(cx) {
                self.on_look(look);
                moved = true;
            }
            let mut index = 0;
            // Listings wait while too many of their links are looked at.
            while self.looks.len() < LINKS_MAX
                && self.ready.is_empty()
                && let Some((_, reader)) = self.listings.get_mut(index)
            {
                match reader.poll_entries(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(Some(Ok(entries))) => {
                        moved = true;
                        let Some((directory, _)) = self.listings.get(index) else {
                            break;
                        };
                        let directory = directory.clone();
                        for entry in entries.iter() {
                            self.on_entry(&directory, entry);
                        }
                    }
                    Poll::Ready(Some(Err(source))) => {
                        moved = true;
                        let (directory, _) = self.listings.swap_remove(index);
                        self.on_unreadable(directory, source);
                    }
                    Poll::Ready(None) => {
                        moved = true;
                        self.listings.swap_remove(index);
                    }
                }
            }
            if self.ready.is_empty() && !moved {
                let is_over = self.listings.is_empty() && self.looks.is_empty();
                return if is_over && self.waiting.is_empty() {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            }
        }
    }

    fn on_unreadable(&mut self, directory: Directory, source: SftpError) {
        // What a pattern led to need not be there, nor be a directory, for which servers have many
        // words. What nobody answered is told.
        let is_answer = matches!(source, SftpError::Refused { .. });
        if !(directory.is_guess && is_answer && source.kind() != Kind::Permission) {
            let path = directory.path;
            self.ready
                .push_back(Err(WalkError::Unreadable { path, source }));
        }
    }

    /// Ends the walk: a bound was met.
    fn give_up(&mut self, path: RemotePath) {
        self.waiting.clear();
        self.listings.clear();
        self.looks = InFlight::default();
        self.entries = 0;
        self.options.entries_max = None;
        self.ready.push_back(Err(WalkError::TooMany { path }));
    }

    fn on_entry(&mut self, directory: &Directory, entry: DirEntryRef<'_>) {
        if self.listings.is_empty() {
            return; // given up
        }
        let name = entry.name();
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            let path = directory.path.clone();
            return self.ready.push_back(Err(WalkError::BadName { path }));
        }
        let step = match &self.glob {
            None => Step {
                is_match: true,
                next: States::NONE,
                named: States::NONE,
            },
            Some(glob) => glob.step(directory.states, name),
        };
        let is_match = step.is_match;
        // The shell goes through links where a part of a pattern names them, and so does this.
        let is_link = entry.file_type() == FileType::Symlink;
        let states = match is_link && !self.options.follow_links {
            true => step.named,
            false => step.next,
        };
        let is_inner = self.glob.is_none() || !states.is_empty();
        if !is_match && !is_inner {
            return;
        }
        self.entries += 1;
        let too_many = self
            .options
            .entries_max
            .is_some_and(|max| self.entries > max);
        if too_many || self.waiting.len() >= self.options.waiting_max {
            return self.give_up(directory.path.clone());
        }
        let depth = directory.depth + 1;
        let mut above = directory.above.clone();
        if let Some(inner) = &above
            && entry.file_type() == FileType::Directory
        {
            let path = inner.path.join(name);
            above = Some(Arc::new(Above { path, above }));
        }
        let below = Directory {
            path: directory.path.join(name),
            depth,
            states,
            above,
            is_guess: self.glob.is_some(),
        };
        let found = WalkEntry {
            path: below.path.clone(),
            depth,
            attrs: entry.attrs(),
            file_type: entry.file_type(),
        };
        let is_unknown = found.file_type == FileType::Unknown;
        if is_unknown || (is_link && self.options.follow_links) {
            return self.look(is_match.then_some(found), below);
        }
        if is_match {
            self.ready.push_back(Ok(found));
        }
        let leads_on = is_link && self.glob.is_some();
        if is_inner && (leads_on || entry.file_type() == FileType::Directory) {
            self.enter(below);
        }
    }

    /// Lists a directory when it is its turn; what a pattern names plainly is not listed for.
    fn enter(&mut self, mut directory: Directory) {
        if directory.depth >= self.options.depth_max {
            return;
        }
        while let Some(glob) = &self.glob
            && let Some((name, rest)) = glob.plain_next(directory.states)
        {
            directory.path = directory.path.join(name);
            directory.depth += 1;
            let Some(rest) = rest else {
                let (sftp, path) = (self.sftp.clone(), directory.path);
                let depth = directory.depth;
                return self.looks.push(async move {
                    let attrs = sftp.lstat(&path).await;
                    Look::Named(path, depth, attrs)
                });
            };
            directory.states = rest;
        }
        self.waiting.push(directory);
    }
}

impl Stream for Walk {
    type Item = Result<WalkEntry, WalkError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_entry(cx)
    }
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("waiting", &self.waiting.len())
            .field("listings", &self.listings.len())
            .finish_non_exhaustive()
    }
}

impl Sftp {
    /// Everything below the directory `root`, several directories at a time.
    ///
    /// If `root` is itself a link to a directory, that is entered.
    pub fn walk(&self, root: impl Into<RemotePath>, options: WalkOptions) -> Walk {
        Walk::new(self.clone(), root.into(), options)
    }

    /// The files whose paths match a pattern: see [`Glob`] for what it may hold. What
    /// matches nothing is an empty stream.
    ///
    /// Only directories that can hold a match are listed, none for the part before the first
    /// wildcard.
    ///
    /// ```no_run
    /// # async fn example(sftp: ketch_client::Sftp) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut found = sftp.glob("in/**/*.csv")?;
    /// while let Some(entry) = found.next().await {
    ///     println!("{}", entry?.path());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`GlobError`] if the pattern is none.
    pub fn glob(&self, pattern: impl AsRef<[u8]>) -> Result<Walk, GlobError> {
        let glob = Glob::new(pattern)?;
        Ok(Walk::matching(self.clone(), glob, WalkOptions::new()))
    }
}
