//! Sync: one directory is made to hold what another holds, in either direction.
//!
//! What is to be done with a name is decided by a machine without I/O (`sync/compare.rs`), from
//! sorted listings of both sides, directory by directory; `sync/run.rs` carries it out, with the
//! transfer engine for the files. Removals wait until everything else went well
//! (`sync/removal.rs`).

mod backup;
mod compare;
mod content;
mod crowd;
mod leftover;
mod line;
mod listing;
mod place;
mod removal;
mod report;
mod run;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ketch_protocol::{FileType, RemotePath};

use self::{
    backup::Backup,
    compare::Rules,
    crowd::on_thread,
    run::{Context, Direction, Node, Run},
};
pub use self::{
    compare::Comparison,
    report::{
        Difference, Sameness, SkipReason, SyncAction, SyncError, SyncFailed, SyncFault, SyncNews,
        SyncReport, SyncStep,
    },
};
use crate::{
    Control, Failure, Filter, GetOptions, Kind, Links, OpenOptions, Place, PutOptions, RateLimit,
    Sftp, platform,
    transfer::local::{Endings, LocalAction, LocalFault, Tree},
};

/// How to sync. The defaults: files are compared by size and time, those that differ are replaced,
/// times are preserved, nothing is removed.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    comparison: Comparison,
    allowance: u32,
    update: bool,
    delete: bool,
    delete_max: Option<u64>,
    backup_dir: Option<PathBuf>,
    dry_run: bool,
    filter: Option<Filter>,
    links: Links,
    get: GetOptions,
    put: PutOptions,
    observer: Option<Observer>,
    control: Control,
    limit: Option<RateLimit>,
}

/// Who is told of every step.
#[derive(Clone)]
struct Observer(Arc<dyn Fn(SyncNews<'_>) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

impl SyncOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// By what files count as the same. Default: by size and time.
    #[must_use]
    pub const fn compare(mut self, comparison: Comparison) -> Self {
        self.comparison = comparison;
        self
    }

    /// By how much times may differ and count as equal, in whole seconds. Default: not at all;
    /// two seconds are for file systems that keep no odd ones.
    #[must_use]
    pub fn time_allowance(mut self, allowance: Duration) -> Self {
        self.allowance = u32::try_from(allowance.as_secs()).unwrap_or(u32::MAX);
        self
    }

    /// Whether files that are newer at the destination stay. Default: no.
    #[must_use]
    pub const fn update(mut self, yes: bool) -> Self {
        self.update = yes;
        self
    }

    /// Whether what only the destination has is removed. Default: no.
    ///
    /// It is removed when everything was compared and copied without an error, never before and
    /// never otherwise. What the filter leaves out is not removed, nor are special files, names
    /// that the source could not have, and directories that hold such. What has another type than
    /// at the source (a file where a directory is to be, a directory where a file is to be, a link
    /// against either) makes room for it then: a file or link takes the place of the other with one
    /// rename, and that of a directory when it is there under a temporary name and the directory
    /// was removed. An empty source empties the destination:
    /// [`delete_max`](Self::delete_max) guards against a source that was not mounted.
    #[must_use]
    pub const fn delete(mut self, yes: bool) -> Self {
        self.delete = yes;
        self
    }

    /// Entries that may be removed: if there are more, none is. Default: no bound.
    #[must_use]
    pub const fn delete_max(mut self, entries: u64) -> Self {
        self.delete_max = Some(entries);
        self
    }

    /// A directory at the destination's side to which everything goes that would be replaced or
    /// removed, with the path that it had. Default: none, and it is gone.
    ///
    /// It is made if it is not there, has to be on the same file system, and takes no part in the
    /// sync if it is within the synced directory. What an earlier sync put there under the same
    /// path is replaced. A path on the server has to be given as its bytes are; relative ones count
    /// from where the session starts, or from the current directory here.
    #[must_use]
    pub fn backup_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.backup_dir = Some(directory.into());
        self
    }

    /// Whether nothing is done, and the report says what would be. Default: no.
    #[must_use]
    pub const fn dry_run(mut self, yes: bool) -> Self {
        self.dry_run = yes;
        self
    }

    /// Which entries take part; the others are left as they are on both sides. Default: all.
    #[must_use]
    pub fn select(mut self, filter: Filter) -> Self {
        self.filter = (!filter.is_empty()).then_some(filter);
        self
    }

    /// What becomes of links at the source. Default: they are left out.
    ///
    /// With [`Links::Copy`], a link at the destination that leads elsewhere is replaced; links are
    /// compared by what they say.
    #[must_use]
    pub const fn links(mut self, links: Links) -> Self {
        self.links = links;
        self
    }

    /// How files are downloaded: progress, durability, parts that are continued and the like. What
    /// sync decides itself (which files, that they are replaced, and that their times are
    /// preserved) is not taken from here. What of attributes is to be preserved holds for
    /// directories, too: they get it in the end.
    #[must_use]
    pub fn get_options(mut self, options: GetOptions) -> Self {
        self.get = options;
        self
    }

    /// The same for uploads.
    #[must_use]
    pub fn put_options(mut self, options: PutOptions) -> Self {
        self.put = options;
        self
    }

    /// What pauses, resumes, cancels and ranks it while it runs. Default: nothing does.
    ///
    /// A sync that was cancelled has removed nothing, unless it was at that already.
    #[must_use]
    pub fn control(mut self, control: Control) -> Self {
        self.control = control;
        self
    }

    /// How many bytes a second its files may take; others that have the same limit share it.
    /// Default: as many as there are.
    #[must_use]
    pub fn limit(mut self, limit: impl Into<Option<RateLimit>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// Is told of every name: what was done with it, or not, and why. Called on the task that
    /// waits for the sync: it is to be quick.
    #[must_use]
    pub fn observer(mut self, told: impl Fn(SyncNews<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Observer(Arc::new(told)));
        self
    }

    fn rules(&self) -> Rules<'_> {
        Rules {
            comparison: self.comparison,
            allowance: self.allowance,
            update: self.update,
            delete: self.delete,
            copies_links: self.links == Links::Copy,
            filter: self.filter.as_ref(),
            backup: None,
        }
    }

    fn download(&self) -> GetOptions {
        // Without their times, files would not be found unchanged the next time.
        let mut options = self.get.clone();
        options.control = self.control.clone();
        options.limit = self.limit.clone().or(options.limit);
        options
            .recursive(false)
            .overwrite(crate::Overwrite::Replace)
            .preserve_times(true)
    }

    fn upload(&self) -> PutOptions {
        let mut options = self.put.clone();
        options.control = self.control.clone();
        options.limit = self.limit.clone().or(options.limit);
        options
            .recursive(false)
            .overwrite(crate::Overwrite::Replace)
            .preserve_times(true)
    }
}

impl Sftp {
    /// Makes the local directory `local` hold what the directory `remote` on the server holds.
    ///
    /// Files that differ are copied, each appearing under its name when it is whole; running the
    /// same sync again goes on where an earlier one ended, and does nothing if that was the end. A
    /// `local` that is not there is made. Temporary files of runs that were killed are removed: those
    /// that are parts of what this sync copies, and any that nobody has written to for a day.
    ///
    /// One directory is compared at a time, many of them together, and files are copied
    /// meanwhile; no tree is held whole. Dropping the future ends it and removes what was begun.
    ///
    /// # Errors
    /// [`SyncError`]; what fails with one name does not end the rest.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use ketch_client::{Filter, Sftp, SyncOptions};
    ///
    /// # async fn example(sftp: Sftp) -> Result<(), Box<dyn std::error::Error>> {
    /// let filter = Filter::new().exclude("*.tmp")?.exclude("/cache/")?;
    /// let options = SyncOptions::new().delete(true).delete_max(100).select(filter);
    /// let report = sftp.sync_down("data", "/srv/mirror", options).await?;
    /// println!("{} new, {} replaced, {} removed", report.copied, report.replaced, report.removed);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn sync_down(
        &self,
        remote: impl Into<RemotePath>,
        local: impl AsRef<Path>,
        options: SyncOptions,
    ) -> Result<SyncReport, SyncError> {
        let asked = remote.into();
        let remote = remote_root(self, &asked).await?;
        let local = local.as_ref().to_owned();
        let (tree, is_there) = local_root(self, local, true, options.dry_run).await?;
        sync(self, Direction::Down, remote, tree, is_there, options).await
    }

    /// Makes the directory `remote` on the server hold what the local directory `local` holds; all
    /// else as [`sync_down`](Self::sync_down) has it.
    ///
    /// # Errors
    /// [`SyncError`]; what fails with one name does not end the rest.
    pub async fn sync_up(
        &self,
        local: impl AsRef<Path>,
        remote: impl Into<RemotePath>,
        options: SyncOptions,
    ) -> Result<SyncReport, SyncError> {
        let local = local.as_ref().to_owned();
        let (tree, _) = local_root(self, local, false, options.dry_run).await?;
        let asked = remote.into();
        let (remote, is_there) = match remote_root(self, &asked).await {
            Ok(remote) => (remote, true),
            Err(error) if error.kind() == Kind::NotFound && options.dry_run => (asked, false),
            Err(error) if error.kind() == Kind::NotFound => {
                run::make_remote(self, &asked)
                    .await
                    .map_err(|source| cannot_begin(Place::Remote(asked.clone()), source))?;
                (remote_root(self, &asked).await?, true)
            }
            Err(error) => return Err(error),
        };
        sync(self, Direction::Up, remote, tree, is_there, options).await
    }
}

fn cannot_begin(place: Place, source: impl Into<SyncFault>) -> SyncError {
    let source = source.into();
    SyncError::Root { place, source }
}

/// The absolute path of a directory on the server, which has to be there.
async fn remote_root(sftp: &Sftp, path: &RemotePath) -> Result<RemotePath, SyncError> {
    let place = || Place::Remote(path.clone());
    let attrs = sftp.stat(path).await;
    let attrs = attrs.map_err(|error| cannot_begin(place(), error))?;
    if !matches!(attrs.file_type(), FileType::Directory | FileType::Unknown) {
        return Err(SyncError::NotADirectory { place: place() });
    }
    // Temporary names are made from whole paths: the next run has to find the same ones.
    let absolute = sftp.canonicalize(path).await;
    absolute.map_err(|error| cannot_begin(place(), error))
}

/// The local directory, and whether it was there; with `makes` it is made if not.
async fn local_root(
    sftp: &Sftp,
    path: PathBuf,
    makes: bool,
    dry_run: bool,
) -> Result<(Option<Arc<Tree>>, bool), SyncError> {
    let shared = Arc::clone(sftp.shared());
    on_thread(move || {
        let place = || Place::Local(path.clone());
        let fault = |action, source| {
            let path = path.clone();
            let fault = LocalFault {
                action,
                path,
                source,
            };
            cannot_begin(place(), fault)
        };
        match std::fs::metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(SyncError::NotADirectory { place: place() });
            }
            Ok(_) => {}
            Err(error) if makes && error.kind() == std::io::ErrorKind::NotFound => {
                if dry_run {
                    return Ok((None, false));
                }
                std::fs::create_dir(&path).map_err(|error| fault(LocalAction::Create, error))?;
            }
            Err(error) => return Err(fault(LocalAction::Open, error)),
        }
        let path = std::fs::canonicalize(&path).map_err(|error| fault(LocalAction::Open, error))?;
        let tree = if makes && !dry_run {
            Tree::make_root(&path, &shared.speeds)
        } else {
            Tree::open_root(&path, &shared.speeds)
        };
        let tree = tree.map_err(|error| cannot_begin(place(), error))?;
        Ok((Some(tree), true))
    })
    .await
}

async fn sync(
    sftp: &Sftp,
    direction: Direction,
    remote: RemotePath,
    tree: Option<Arc<Tree>>,
    is_there: bool,
    options: SyncOptions,
) -> Result<SyncReport, SyncError> {
    if let Some(tree) = &tree
        && !options.dry_run
    {
        check_apart(sftp, direction, &remote, tree).await?;
    }
    let delete_max = options.delete_max.unwrap_or(u64::MAX);
    let local = tree.as_ref().map(|tree| tree.path().to_owned());
    let endings = Arc::<Endings>::default();
    if let Some(tree) = &tree
        && direction == Direction::Down
        && options.get.preserve.any()
        && !options.dry_run
        && let Ok(attrs) = sftp.stat(&remote).await
    {
        tree.ends_with(&endings, attrs, options.get.preserve);
    }
    let backup = match (&options.backup_dir, &local) {
        (Some(directory), Some(local)) => {
            let sides = (&remote, local.as_path());
            let backup = Backup::new(sftp, direction, directory, sides, options.dry_run);
            Some(backup.await?)
        }
        _ => None,
    };
    let mut run = Run::new(Context {
        line: line::Line::new(sftp.clone()),
        direction,
        options,
        remote: remote.clone(),
        now: now(),
        counted: Arc::default(),
        endings: Arc::clone(&endings),
        backup,
    });
    // Dropped before the directories are, whatever ends this.
    let unfinished = Unfinished(Some(endings));
    let mut result = run.bring_together(Node::root(tree), is_there).await;
    let found = run.doomed().found();
    if result.is_ok() && found > 0 {
        if found > delete_max && run.report.failed_count == 0 {
            return Err(SyncError::TooManyRemovals {
                found,
                allowed: delete_max,
                report: Box::new(run.report),
            });
        }
        // A source that is gone by now was perhaps going when it was listed.
        let source_is_there = match (direction, &local) {
            (Direction::Up, Some(local)) => std::fs::metadata(local).is_ok_and(|m| m.is_dir()),
            _ => sftp.stat(&remote).await.is_ok(),
        };
        if !source_is_there {
            let place = match (direction, local) {
                (Direction::Up, Some(local)) => Place::Local(local),
                _ => Place::Remote(remote),
            };
            return Err(SyncError::NotADirectory { place });
        }
        result = run.change_types().await;
        if result.is_ok() {
            result = run.remove().await;
            let cancelled = |error: &SyncFault| error.kind() == Kind::Cancelled;
            if result.as_ref().err().is_none_or(cancelled) {
                let named = run.name_staged().await;
                result = result.and(named);
            }
        }
    }
    if result.is_ok() {
        result = run.end_directories().await;
    }
    if result.is_ok() {
        unfinished.forget();
    }
    let report = Box::new(run.report);
    match result {
        Err(source) => Err(SyncError::Ended { source, report }),
        Ok(()) if report.failed_count + report.removals_left > 0 => {
            Err(SyncError::Incomplete { report })
        }
        Ok(()) => Ok(*report),
    }
}

/// A sync that has not come to its end: its directories get nothing.
struct Unfinished(Option<Arc<Endings>>);

impl Unfinished {
    /// It has.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(endings) = &self.0 {
            endings.close();
        }
    }
}

/// Makes sure that the two directories are not the same one, and neither is within the other.
///
/// They can be only if the server is this machine; then, unless it shows other paths than there
/// are, their paths say so. As two machines may well have the same paths, a file is made at the
/// destination for a moment, and looked for on the other side.
async fn check_apart(
    sftp: &Sftp,
    direction: Direction,
    remote: &RemotePath,
    tree: &Arc<Tree>,
) -> Result<(), SyncError> {
    let local = tree.path().to_owned();
    let Some(there) = remote.to_str().map(Path::new) else {
        return Ok(());
    };
    if !there.starts_with(&local) && !local.starts_with(there) {
        return Ok(());
    }
    let number = crate::transfer::names::attempt(u8::MAX);
    let name = format!(".ketch-look-{number:016x}");
    let same = match direction {
        Direction::Down => {
            let path = local.join(&name);
            let made = {
                let path = path.clone();
                on_thread(move || std::fs::File::create_new(&path).map(drop)).await
            };
            // A directory that cannot be written to will say so with the first file.
            if made.is_err() {
                return Ok(());
            }
            let look = path.to_str().map(RemotePath::from);
            let seen = match look {
                Some(look) => sftp.lstat(look).await.is_ok(),
                None => false,
            };
            drop(on_thread(move || std::fs::remove_file(&path)).await);
            seen
        }
        Direction::Up => {
            let path = remote.join(&name);
            let options = OpenOptions::writing().create_new();
            let Ok(file) = sftp.open(&path, options).await else {
                return Ok(());
            };
            let look = there.join(&name);
            let seen = on_thread(move || std::fs::symlink_metadata(&look).is_ok()).await;
            drop(file.close().await);
            drop(sftp.remove_file(&path).await);
            seen
        }
    };
    if same {
        let remote = remote.clone();
        return Err(SyncError::SameTree { local, remote });
    }
    Ok(())
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "how old a leftover is counts from when the sync began"
)]
fn now() -> u32 {
    platform::seconds(std::time::SystemTime::now())
}
