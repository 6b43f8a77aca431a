//! A sync under way: directories compared many at a time, files copied in batches meanwhile.
//!
//! Held at a time are the directories being compared, those waiting for it (the last found is
//! compared first, so depth costs little), the files waiting to be copied, and what is to be
//! removed in the end; each is bounded. Files are copied by the transfer engine, as found in
//! directories that were opened without following links: a batch is a plan as a recursive transfer
//! has it.

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ketch_protocol::{FileType, RemotePath};

use super::{
    SyncOptions,
    compare::{Decision, Entry, Pairs, Rules},
    content,
    crowd::{Crowd, on_thread},
    leftover,
    listing::{self, Entries, Listing},
    removal::{self, Doomed},
    report::{
        Difference, Sameness, SkipReason, SyncAction, SyncFailed, SyncFault, SyncNews, SyncReport,
        SyncStep,
    },
};
use crate::{
    NameFault, Outcome, Sftp, platform,
    quirks::Quirk,
    transfer::{
        Place, REPORTED_MAX, Report, TransferError,
        control::Wanted,
        get,
        local::{LocalAction, LocalFault, SourceFile, Tree},
        plan::DEPTH_MAX,
        put,
    },
};

/// Directories being compared at a time.
const SCANS_MAX: usize = 32;
/// Files whose content is being compared at a time.
const CHECKS_MAX: usize = 16;
/// Files of one batch. Not more than a report names: which of them failed has to be known.
const BATCH_MAX: usize = REPORTED_MAX;
/// Of the files that a server lets be open at a time, a transfer takes half; the directories and
/// the files being compared have one in so many, each.
const HANDLES_SHARE: u32 = 8;
/// Files that wait for a batch or a comparison, before no more directories are read.
const WAITING_MAX: usize = 4 * BATCH_MAX;

/// Which side is the source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Down,
    Up,
}

/// What all steps of a sync share.
#[derive(Debug)]
pub(super) struct Context {
    pub sftp: Sftp,
    pub direction: Direction,
    pub options: SyncOptions,
    /// The topmost directory on the server.
    pub remote: RemotePath,
    /// Seconds since 1970, when the sync began.
    pub now: u32,
    pub counted: Arc<Entries>,
}

/// A directory that both sides have, or will have, or that one of them loses.
#[derive(Debug)]
pub(super) struct Node {
    pub parent: Option<Arc<Self>>,
    pub name: Box<[u8]>,
    /// From the topmost directory on; empty for that.
    pub path: Vec<u8>,
    pub depth: u8,
    /// The local one; none where a dry run would have to make it.
    tree: Option<Arc<Tree>>,
    /// Something in it stays: it cannot be removed.
    keeps: AtomicBool,
}

/// Which side has a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Presence {
    Both,
    /// Only the source: it is to be made.
    Source,
    /// Only the destination: all below it is to be removed.
    Destination,
}

/// A file to copy.
struct Copy {
    node: Arc<Node>,
    entry: Entry,
    action: SyncAction,
}

/// Something that was under way, and is done.
enum Done {
    Scanned(Arc<Node>, Presence, Result<Scanned, SyncFault>),
    Checked(Copy, Result<bool, SyncFault>),
    Copied(Vec<Copy>, Result<Report, TransferError>),
}

/// Both listings of a directory.
#[derive(Default)]
struct Scanned {
    source: Listing,
    destination: Listing,
    reaped: Vec<Box<[u8]>>,
}

/// A sync under way.
pub(super) struct Run {
    context: Arc<Context>,
    pub report: SyncReport,
    crowd: Crowd<Done>,
    /// Directories and files being compared, at most.
    scans_max: usize,
    checks_max: usize,
    /// The server takes one request at a time: one thing is done after the other.
    alone: bool,
    scans: usize,
    checks: usize,
    /// A batch is under way: a second would want as many open files as the first.
    copying: bool,
    to_scan: Vec<(Arc<Node>, Presence)>,
    to_check: VecDeque<Copy>,
    to_copy: VecDeque<Copy>,
    doomed: Doomed,
}

impl Node {
    pub(super) fn root(tree: Option<Arc<Tree>>) -> Arc<Self> {
        Arc::new(Self {
            parent: None,
            name: Box::default(),
            path: Vec::new(),
            depth: 0,
            tree,
            keeps: AtomicBool::new(false),
        })
    }

    fn child(self: &Arc<Self>, name: &[u8], local: OsString) -> Arc<Self> {
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            name: name.into(),
            path: self.path_of(name),
            depth: self.depth.saturating_add(1),
            tree: self.tree.as_ref().map(|tree| tree.child(local)),
            keeps: AtomicBool::new(false),
        })
    }

    /// The path of a name in it, from the topmost directory on.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() {
            name.to_vec()
        } else {
            [&self.path[..], b"/", name].concat()
        }
    }

    /// The local directory.
    pub(super) fn tree(&self) -> Result<&Arc<Tree>, SyncFault> {
        self.tree.as_ref().ok_or_else(|| {
            let fault = LocalFault {
                action: LocalAction::Open,
                path: std::path::PathBuf::from(String::from_utf8_lossy(&self.path).into_owned()),
                source: std::io::ErrorKind::NotFound.into(),
            };
            fault.into()
        })
    }

    /// Neither it nor what it is in can be removed.
    pub(super) fn keep(&self) {
        let mut node = self;
        while !node.keeps.swap(true, Ordering::AcqRel)
            && let Some(parent) = &node.parent
        {
            node = parent;
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.keeps.load(Ordering::Acquire)
    }
}

impl Context {
    /// The path of a directory on the server.
    pub(super) fn remote(&self, node: &Node) -> RemotePath {
        if node.path.is_empty() {
            self.remote.clone()
        } else {
            self.remote.join(&node.path)
        }
    }

    async fn list_remote(&self, node: &Node, is_source: bool) -> Result<Listing, SyncFault> {
        let follow = is_source && self.options.follows_links();
        listing::remote(&self.sftp, &self.remote(node), follow, &self.counted).await
    }

    async fn list_local(&self, node: &Node, is_source: bool) -> Result<Listing, SyncFault> {
        let follow = is_source && self.options.follows_links();
        listing::local(node.tree()?, &self.remote(node), follow, &self.counted).await
    }

    async fn list_source(&self, node: &Node) -> Result<Listing, SyncFault> {
        match self.direction {
            Direction::Down => self.list_remote(node, true).await,
            Direction::Up => self.list_local(node, true).await,
        }
    }

    async fn list_destination(&self, node: &Node) -> Result<Listing, SyncFault> {
        match self.direction {
            Direction::Down => self.list_local(node, false).await,
            Direction::Up => self.list_remote(node, false).await,
        }
    }

    /// Makes the directory at the destination.
    async fn make(&self, node: &Node) -> Result<(), SyncFault> {
        match self.direction {
            Direction::Down => {
                let tree = Arc::clone(node.tree()?);
                on_thread(move || tree.dir().map(drop)).await?;
            }
            Direction::Up => make_remote(&self.sftp, &self.remote(node)).await?,
        }
        Ok(())
    }

    /// Lists what there is of a directory, makes it if it is to be, and clears it of what earlier
    /// runs left: before anything is copied there, so that no name of a new part is in doubt.
    async fn scan(&self, node: &Node, presence: Presence) -> Result<Scanned, SyncFault> {
        let mut scanned = Scanned::default();
        if presence == Presence::Source && !self.options.dry_run {
            self.make(node).await?;
        }
        if presence != Presence::Destination {
            scanned.source = self.list_source(node).await?;
        }
        if presence != Presence::Source {
            scanned.destination = self.list_destination(node).await?;
            self.reap(node, &mut scanned).await?;
        }
        Ok(scanned)
    }

    async fn reap(&self, node: &Node, scanned: &mut Scanned) -> Result<(), SyncFault> {
        let destination_of = |name: &[u8]| self.destination_of(node, name);
        let sources = &scanned.source.entries;
        let (leftovers, entries) = std::mem::take(&mut scanned.destination.entries)
            .into_iter()
            .partition(|entry| {
                entry.file_type == FileType::Regular
                    && leftover::is_ours(entry, sources, destination_of, self.now)
            });
        scanned.destination.entries = entries;
        for entry in leftovers as Vec<Entry> {
            if !self.options.dry_run {
                removal::file(self, node, &entry.name).await?;
            }
            scanned.reaped.push(entry.name);
        }
        Ok(())
    }

    /// The destination of a file, in the bytes that its temporary name is made from.
    fn destination_of(&self, node: &Node, name: &[u8]) -> Vec<u8> {
        match (self.direction, &node.tree, platform::local_name(name)) {
            (Direction::Down, Some(tree), Some(name)) => {
                tree.path().join(name).into_os_string().into_encoded_bytes()
            }
            _ => self.remote(node).join(name).into_bytes(),
        }
    }
}

/// Makes a directory on the server, if it is not there.
pub(super) async fn make_remote(sftp: &Sftp, path: &RemotePath) -> Result<(), SyncFault> {
    let Err(refused) = sftp.create_dir(path).await else {
        return Ok(());
    };
    // Version 3 has no status for a name that is taken: whether it is, tells a look.
    match sftp.lstat(path).await {
        Ok(attrs) if attrs.file_type() == FileType::Directory => Ok(()),
        _ => Err(refused.into()),
    }
}

impl Run {
    pub(super) fn new(context: Context) -> Self {
        Self {
            report: SyncReport {
                dry_run: context.options.dry_run,
                ..SyncReport::default()
            },
            context: Arc::new(context),
            crowd: Crowd::new(),
            scans_max: SCANS_MAX,
            checks_max: CHECKS_MAX,
            alone: false,
            scans: 0,
            checks: 0,
            copying: false,
            to_scan: Vec::new(),
            to_check: VecDeque::new(),
            to_copy: VecDeque::new(),
            doomed: Doomed::default(),
        }
    }

    /// Compares and copies everything from `root` on; then what is to be removed is known.
    ///
    /// # Errors
    /// What ended everything; what failed by itself is in the report.
    pub(super) async fn bring_together(
        &mut self,
        root: Arc<Node>,
        root_is_there: bool,
    ) -> Result<(), SyncFault> {
        let presence = if root_is_there {
            Presence::Both
        } else {
            Presence::Source
        };
        self.to_scan.push((root, presence));
        let server = self.context.sftp.shared().server().await;
        let server = server.map_err(|ended| TransferError::ended(&ended, Outcome::NotDone))?;
        if let Some(limits) = server.limits
            && limits.open_handles > 0
        {
            let share = limits.open_handles / u64::from(HANDLES_SHARE);
            let share = usize::try_from(share).unwrap_or(usize::MAX).max(1);
            self.scans_max = SCANS_MAX.min(share);
            self.checks_max = CHECKS_MAX.min(share);
        }
        self.alone = server.quirks.has(Quirk::OneRequest);
        let control = self.context.options.control.clone();
        loop {
            let wanted = control.wanted();
            match wanted {
                Wanted::Run => self.begin(),
                Wanted::Pause => {}
                // Files under way take back what they had begun.
                Wanted::Cancel if self.copying => {}
                Wanted::Cancel => return Err(TransferError::Cancelled.into()),
            }
            match self.crowd.next_while(&control, wanted).await {
                Some(done) => self.on_done(done)?,
                None if wanted == Wanted::Run && self.crowd.len() == 0 => return Ok(()),
                None => {}
            }
        }
    }

    /// Removes what only the destination has, if everything else went well.
    pub(super) async fn remove(&mut self) -> Result<(), SyncFault> {
        let doomed = std::mem::take(&mut self.doomed);
        if self.report.failed_count > 0 {
            self.report.removals_left += doomed.found();
            return Ok(());
        }
        self.report.removals_left += doomed.left();
        let context = Arc::clone(&self.context);
        doomed
            .remove(&context, |node, name, action, result| match result {
                Ok(()) => {
                    self.step(node, name, action, 0);
                    Ok(())
                }
                Err(error) => self.fail(node.path_of(name), error),
            })
            .await
    }

    /// What only the destination has, and is to be removed.
    pub(super) const fn doomed(&self) -> &Doomed {
        &self.doomed
    }

    fn begin(&mut self) {
        while self.checks < self.checks_max
            && self.is_free()
            && let Some(copy) = self.to_check.pop_front()
        {
            self.checks += 1;
            let context = Arc::clone(&self.context);
            self.crowd.add(async move {
                let same = check(&context, &copy).await;
                Done::Checked(copy, same)
            });
        }
        while self.scans < self.scans_max
            && self.is_free()
            && self.to_check.len() + self.to_copy.len() < WAITING_MAX
            && let Some((node, presence)) = self.to_scan.pop()
        {
            self.scans += 1;
            let context = Arc::clone(&self.context);
            self.crowd.add(async move {
                let scanned = context.scan(&node, presence).await;
                Done::Scanned(node, presence, scanned)
            });
        }
        // The first batch is small; while it is under way, the next one grows.
        while !self.copying && self.is_free() && !self.to_copy.is_empty() {
            let len = self.to_copy.len().min(BATCH_MAX);
            let batch = self.to_copy.drain(..len).collect();
            self.copy(batch);
        }
    }

    /// Whether something may be begun besides what is under way.
    const fn is_free(&self) -> bool {
        !self.alone || self.crowd.len() == 0
    }

    fn copy(&mut self, batch: Vec<Copy>) {
        if self.context.options.dry_run {
            for Copy {
                node,
                entry,
                action,
            } in batch
            {
                self.step(&node, &entry.name, action, entry.attrs.size.unwrap_or(0));
            }
            return;
        }
        self.copying = true;
        let context = Arc::clone(&self.context);
        self.crowd.add(async move {
            let result = match context.direction {
                Direction::Down => download(&context, &batch).await,
                Direction::Up => upload(&context, &batch).await,
            };
            Done::Copied(batch, result)
        });
    }

    fn on_done(&mut self, done: Done) -> Result<(), SyncFault> {
        match done {
            Done::Scanned(node, presence, Ok(scanned)) => {
                self.scans -= 1;
                self.on_scanned(&node, presence, scanned)
            }
            Done::Scanned(node, _, Err(error)) => {
                self.scans -= 1;
                node.keep();
                self.fail(node.path.clone(), error)
            }
            Done::Checked(copy, same) => {
                self.checks -= 1;
                match same {
                    Ok(true) => {
                        let action = SyncAction::Unchanged(Sameness::Content);
                        self.step(&copy.node, &copy.entry.name, action, 0);
                    }
                    Ok(false) => self.to_copy.push_back(copy),
                    Err(error) => self.fail(copy.node.path_of(&copy.entry.name), error)?,
                }
                Ok(())
            }
            Done::Copied(batch, result) => {
                self.copying = false;
                self.on_copied(batch, result)
            }
        }
    }

    fn on_scanned(
        &mut self,
        node: &Arc<Node>,
        presence: Presence,
        scanned: Scanned,
    ) -> Result<(), SyncFault> {
        let Scanned {
            source,
            destination,
            reaped,
        } = scanned;
        if presence == Presence::Source && node.parent.is_some() {
            let parent = node.parent.as_ref().unwrap_or(node);
            self.step(parent, &node.name, SyncAction::MakeDirectory, 0);
        }
        for name in reaped {
            self.step(node, &name, SyncAction::RemoveLeftover, 0);
        }
        for (name, error) in source.refused {
            self.fail(node.path_of(&name), error)?;
        }
        for (name, _) in destination.refused {
            node.keep();
            self.step(node, &name, SyncAction::Skip(SkipReason::Name), 0);
        }
        let context = Arc::clone(&self.context);
        let rules = context.options.rules();
        for (new, old) in Pairs::new(&source.entries, &destination.entries) {
            if let Some(entry) = new.or(old) {
                self.on_name(&rules, node, entry, (new, old))?;
            }
        }
        Ok(())
    }

    fn on_name(
        &mut self,
        rules: &Rules<'_>,
        node: &Arc<Node>,
        entry: &Entry,
        (new, old): (Option<&Entry>, Option<&Entry>),
    ) -> Result<(), SyncFault> {
        let name = &entry.name;
        let path = node.path_of(name);
        // What the server lists was checked; what is listed here has such a name.
        let Some(local) = platform::local_name(name) else {
            node.keep();
            if new.is_none() {
                self.step(node, name, SyncAction::Skip(SkipReason::Name), 0);
                return Ok(());
            }
            let (path, fault) = (self.context.remote(node).join(name), NameFault::NotHere);
            let error = TransferError::Name { path, fault };
            return self.fail(node.path_of(name), error.into());
        };
        let copy = |action| Copy {
            node: Arc::clone(node),
            entry: entry.clone(),
            action,
        };
        match rules.decide(&path, new, old) {
            Decision::Unchanged(why) => self.step(node, name, SyncAction::Unchanged(why), 0),
            Decision::Skip(why) => {
                node.keep();
                self.step(node, name, SyncAction::Skip(why), 0);
            }
            // Links are not made: they are left out, or followed.
            Decision::CopyLink | Decision::CompareLink => {
                self.step(node, name, SyncAction::Skip(SkipReason::Link), 0);
            }
            Decision::Extra => {
                node.keep();
                self.step(node, name, SyncAction::Extra, 0);
            }
            Decision::Copy => self.to_copy.push_back(copy(SyncAction::Copy)),
            Decision::Replace(why) => self.to_copy.push_back(copy(SyncAction::Replace(why))),
            Decision::CompareContent => {
                let action = SyncAction::Replace(Difference::Content);
                self.to_check.push_back(copy(action));
            }
            decision @ (Decision::Enter | Decision::MakeDirectory | Decision::RemoveDirectory) => {
                let presence = match decision {
                    Decision::Enter => Presence::Both,
                    Decision::MakeDirectory => Presence::Source,
                    _ => Presence::Destination,
                };
                if node.depth >= DEPTH_MAX {
                    node.keep();
                    let limit = "64 directories below each other";
                    let path = self.context.remote(node).join(name);
                    return self.fail(
                        node.path_of(name),
                        TransferError::TooMuch { path, limit }.into(),
                    );
                }
                let child = node.child(name, local);
                if presence == Presence::Destination {
                    self.doomed.directory(&child);
                }
                self.to_scan.push((child, presence));
            }
            Decision::Remove => self.doomed.file(node, name),
            Decision::Conflict {
                source: here,
                destination: there,
            } => {
                node.keep();
                return self.fail(path, SyncFault::Conflict { here, there });
            }
        }
        Ok(())
    }

    fn on_copied(
        &mut self,
        batch: Vec<Copy>,
        result: Result<Report, TransferError>,
    ) -> Result<(), SyncFault> {
        let report = match result {
            Ok(report) => report,
            Err(TransferError::Incomplete { report }) => *report,
            Err(error) => {
                // One file alone fails with its own error; anything else is the end.
                let error = SyncFault::from(error);
                return match batch.as_slice() {
                    [copy] if !error.ends_everything() => {
                        self.fail(copy.node.path_of(&copy.entry.name), error)
                    }
                    _ => Err(error),
                };
            }
        };
        let room = REPORTED_MAX.saturating_sub(self.report.remarks.len());
        self.report
            .remarks
            .extend(report.remarks.into_iter().take(room));
        let mut failed: HashMap<Vec<u8>, SyncFault> = HashMap::new();
        for fault in report.failed {
            let key = match fault.place {
                Place::Remote(path) => path.into_bytes(),
                Place::Local(path) => path.into_os_string().into_encoded_bytes(),
            };
            failed.insert(key, fault.error.into());
        }
        let context = Arc::clone(&self.context);
        for skipped in report.skipped {
            // Something else has its name by now: it was not copied.
            let fault = SyncFault::Conflict {
                here: skipped.file_type,
                there: FileType::Regular,
            };
            let key = match skipped.place {
                Place::Remote(path) => path.into_bytes(),
                Place::Local(path) => path.into_os_string().into_encoded_bytes(),
            };
            failed.insert(key, fault);
        }
        for Copy {
            node,
            entry,
            action,
        } in batch
        {
            let name = &entry.name;
            let error = if failed.is_empty() {
                None
            } else {
                let remote = context.remote(&node).join(name).into_bytes();
                failed.remove(&remote).or_else(|| {
                    let tree = node.tree.as_ref()?;
                    let local = tree.path().join(platform::local_name(name)?);
                    failed.remove(local.as_os_str().as_encoded_bytes())
                })
            };
            match error {
                Some(error) => self.fail(node.path_of(name), error)?,
                None => self.step(&node, name, action, entry.attrs.size.unwrap_or(0)),
            }
        }
        // Errors with other names are errors all the same.
        for (path, error) in failed {
            self.fail(path, error)?;
        }
        Ok(())
    }

    fn step(&mut self, node: &Node, name: &[u8], action: SyncAction, bytes: u64) {
        let path = RemotePath::new(node.path_of(name));
        let step = SyncStep {
            path,
            action,
            bytes,
        };
        if let Some(observer) = &self.context.options.observer {
            (observer.0)(SyncNews::Step(&step));
        }
        self.report.step(step);
    }

    /// Something failed: the rest goes on, unless it would fail as well.
    fn fail(&mut self, path: Vec<u8>, error: SyncFault) -> Result<(), SyncFault> {
        if error.ends_everything() {
            return Err(error);
        }
        let path = RemotePath::new(path);
        let failed = SyncFailed { path, error };
        if let Some(observer) = &self.context.options.observer {
            (observer.0)(SyncNews::Failed(&failed));
        }
        self.report.fail(failed);
        Ok(())
    }
}

async fn check(context: &Context, copy: &Copy) -> Result<bool, SyncFault> {
    let name = &copy.entry.name;
    let remote = context.remote(&copy.node).join(name);
    let tree = Arc::clone(copy.node.tree()?);
    let local = local_name(&remote, name)?;
    let size = copy.entry.attrs.size.unwrap_or(0);
    if copy.entry.followed && context.direction == Direction::Up {
        return Ok(false); // what a local link leads to is not opened beneath the directory
    }
    content::is_same(&context.sftp, &remote, tree, local, size).await
}

fn local_name(path: &RemotePath, name: &[u8]) -> Result<OsString, TransferError> {
    platform::local_name(name).ok_or_else(|| TransferError::Name {
        path: path.clone(),
        fault: NameFault::NotHere,
    })
}

async fn download(context: &Context, batch: &[Copy]) -> Result<Report, TransferError> {
    let mut found = Vec::with_capacity(batch.len());
    for Copy { node, entry, .. } in batch {
        let path = context.remote(node).join(&entry.name);
        let name = local_name(&path, &entry.name)?;
        if let Some(tree) = &node.tree {
            found.push(get::Found {
                path,
                attrs: entry.attrs,
                tree: Arc::clone(tree),
                name,
            });
        }
    }
    let options = context.options.download();
    get::start_found(context.sftp.shared(), found, options).await
}

async fn upload(context: &Context, batch: &[Copy]) -> Result<Report, TransferError> {
    let mut found = Vec::with_capacity(batch.len());
    for Copy { node, entry, .. } in batch {
        let path = context.remote(node).join(&entry.name);
        let name = local_name(&path, &entry.name)?;
        if let Some(tree) = &node.tree {
            let source = if entry.followed {
                SourceFile::Named(tree.path().join(name))
            } else {
                SourceFile::Found(Arc::clone(tree), name)
            };
            found.push((source, path, entry.attrs.size.unwrap_or(0)));
        }
    }
    let options = context.options.upload();
    put::start_found(context.sftp.shared(), found, options).await
}
