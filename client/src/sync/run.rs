//! A sync under way: directories compared many at a time, files copied in batches meanwhile.
//!
//! Held at a time are the directories being compared, those waiting for it (the last found is
//! compared first, so depth costs little), the files waiting to be copied, and what is to be
//! removed in the end; each is bounded. Files are copied by the transfer engine, as found in
//! directories that were opened without following links: a batch is a plan as a recursive transfer
//! has it.

mod change;
mod copying;
mod directory;

use std::{collections::VecDeque, ffi::OsString, sync::Arc};

use ketch_protocol::{FileType, RemotePath};

pub(super) use self::directory::{Context, Direction, Node, make_remote};
use self::{
    change::{Change, Was},
    copying::{Became, Copy, check, download, secure, upload},
    directory::{Presence, Scanned},
};
use super::{
    backup::Backup,
    compare::{Decision, Entry, Pairs, Rules},
    crowd::Crowd,
    removal::Doomed,
    report::{
        Difference, Sameness, SkipReason, SyncAction, SyncFailed, SyncFault, SyncNews, SyncReport,
        SyncStep,
    },
};
use crate::{
    NameFault, Outcome, Place, Remark, Remarkable, platform,
    quirks::Quirk,
    transfer::{REPORTED_MAX, Report, TransferError, control::Wanted, plan::DEPTH_MAX},
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
/// Directories at a time that get their attributes in the end.
const ENDINGS_MAX: usize = 64;
/// Files that wait for a batch or a comparison, before no more directories are read.
const WAITING_MAX: usize = 4 * BATCH_MAX;

/// Something that was under way, and is done.
enum Done {
    Scanned(Arc<Node>, Presence, Result<Scanned, SyncFault>),
    Checked(Copy, Result<bool, SyncFault>),
    /// A batch, what of it could not be begun, and what came of the others.
    Copied(
        Vec<Copy>,
        Vec<(Copy, SyncFault)>,
        Result<Report, TransferError>,
    ),
    Ended(RemotePath, Result<(), SyncFault>),
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
    endings: usize,
    /// A batch is under way: a second would want as many open files as the first.
    copying: bool,
    to_scan: Vec<(Arc<Node>, Presence)>,
    to_check: VecDeque<Copy>,
    to_copy: VecDeque<Copy>,
    doomed: Doomed,
    /// Names that are to have another type.
    changes: Vec<Change>,
    /// What takes the place of a directory, when that is removed.
    staged: Vec<Copy>,
    /// Temporary names at the destination of what is to take the place of something else.
    begun: Vec<(Arc<Node>, Box<[u8]>)>,
    /// The removal of what only the destination has was begun.
    removes: bool,
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
            endings: 0,
            copying: false,
            to_scan: Vec::new(),
            to_check: VecDeque::new(),
            to_copy: VecDeque::new(),
            doomed: Doomed::default(),
            changes: Vec::new(),
            staged: Vec::new(),
            begun: Vec::new(),
            removes: false,
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
        let sftp = self.context.line.sftp().await;
        let server = sftp.shared().server().await;
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
        self.work().await
    }

    /// Does all that waits, and what it brings.
    async fn work(&mut self) -> Result<(), SyncFault> {
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
        self.removes = true;
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

    /// Gives directories on the server their attributes; those here have them when nobody holds
    /// them any more.
    pub(super) async fn end_directories(&mut self) -> Result<(), SyncFault> {
        self.doomed = Doomed::default();
        let control = self.context.options.control.clone();
        loop {
            let wanted = control.wanted();
            match wanted {
                Wanted::Run => self.begin_endings(),
                Wanted::Pause => {}
                Wanted::Cancel => return Err(TransferError::Cancelled.into()),
            }
            match self.crowd.next_while(&control, wanted).await {
                Some(done) => self.on_done(done)?,
                None if wanted == Wanted::Run && self.crowd.len() == 0 => return Ok(()),
                None => {}
            }
        }
    }

    /// Gives directories their attributes in which all is that goes there.
    fn begin_endings(&mut self) {
        while self.endings < ENDINGS_MAX
            && self.is_free()
            && let Some((path, attrs)) = self.context.endings.take()
        {
            self.endings += 1;
            let context = Arc::clone(&self.context);
            self.crowd.add(async move {
                let sftp = context.line.sftp().await;
                let set = sftp.set_attrs(&path, attrs).await;
                Done::Ended(path, set.map_err(SyncFault::from))
            });
        }
    }

    fn on_ended(&mut self, path: RemotePath, set: Result<(), SyncFault>) -> Result<(), SyncFault> {
        self.endings -= 1;
        match set {
            Err(error) if error.ends_everything() => return Err(error),
            Err(_) if self.report.remarks.len() < REPORTED_MAX => {
                self.report.remarks.push(Remark {
                    place: Place::Remote(path),
                    what: Remarkable::AttributesNotSet,
                });
            }
            Ok(()) | Err(_) => {}
        }
        Ok(())
    }

    /// What only the destination has, and is to be removed.
    pub(super) const fn doomed(&self) -> &Doomed {
        &self.doomed
    }

    fn begin(&mut self) {
        self.begin_endings();
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
                ..
            } in batch
            {
                self.step(&node, &entry.name, action, entry.attrs.size.unwrap_or(0));
            }
            return;
        }
        self.copying = true;
        let context = Arc::clone(&self.context);
        self.crowd.add(async move {
            let (batch, moved, failed) = secure(&context, batch).await;
            let result = match context.direction {
                Direction::Down => download(&context, &batch).await,
                Direction::Up => upload(&context, &batch).await,
            };
            // If nothing took its place, what was there has it again.
            if let Some(backup) = &context.backup {
                for (node, name) in moved {
                    backup.give_back(&context, &node, &name).await;
                }
            }
            Done::Copied(batch, failed, result)
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
                        let why = match copy.entry.file_type {
                            FileType::Symlink => Sameness::Target,
                            _ => Sameness::Content,
                        };
                        let action = SyncAction::Unchanged(why);
                        self.step(&copy.node, &copy.entry.name, action, 0);
                    }
                    Ok(false) => self.to_copy.push_back(copy),
                    Err(error) => self.fail(copy.node.path_of(&copy.entry.name), error)?,
                }
                Ok(())
            }
            Done::Ended(path, set) => self.on_ended(path, set),
            Done::Copied(batch, failed, result) => {
                self.copying = false;
                for (copy, error) in failed {
                    self.tell(&copy, Became::Failed(error))?;
                }
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
            leads_back,
            source,
            destination,
            reaped,
        } = scanned;
        if leads_back {
            let parent = node.parent.as_ref().unwrap_or(node);
            parent.keep();
            let why = SyncAction::Skip(SkipReason::Link);
            self.step(parent, &node.name, why, 0);
            return Ok(());
        }
        if presence == Presence::Source && node.parent.is_some() {
            let parent = node.parent.as_ref().unwrap_or(node);
            self.step(parent, &node.name, SyncAction::MakeDirectory, 0);
        }
        for name in reaped {
            self.step(node, &name, SyncAction::RemoveLeftover, 0);
        }
        for (name, error) in source.refused.first {
            self.fail(node.path_of(&name), error)?;
        }
        self.report.failed_count += source.refused.further;
        for (name, _) in destination.refused.first {
            node.keep();
            self.step(node, &name, SyncAction::Skip(SkipReason::Name), 0);
        }
        self.report.skipped += destination.refused.further;
        let context = Arc::clone(&self.context);
        let mut rules = context.options.rules();
        rules.backup = context.backup.as_ref().and_then(Backup::inside);
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
            staged: None,
        };
        match rules.decide(&path, new, old) {
            Decision::Unchanged(why) => self.step(node, name, SyncAction::Unchanged(why), 0),
            Decision::Skip(why) => {
                node.keep();
                self.step(node, name, SyncAction::Skip(why), 0);
            }
            Decision::Extra => {
                node.keep();
                self.step(node, name, SyncAction::Extra, 0);
            }
            Decision::Copy | Decision::CopyLink => self.to_copy.push_back(copy(SyncAction::Copy)),
            Decision::Replace(why) => self.to_copy.push_back(copy(SyncAction::Replace(why))),
            Decision::CompareContent => {
                let action = SyncAction::Replace(Difference::Content);
                self.to_check.push_back(copy(action));
            }
            Decision::CompareLink => {
                let action = SyncAction::Replace(Difference::Target);
                self.to_check.push_back(copy(action));
            }
            decision @ (Decision::Enter | Decision::MakeDirectory | Decision::RemoveDirectory) => {
                let presence = match decision {
                    Decision::Enter => Presence::Both,
                    Decision::MakeDirectory => Presence::Source,
                    _ => Presence::Destination,
                };
                return self.enter(node, entry, local, presence);
            }
            Decision::Change {
                destination: FileType::Directory,
            } => {
                let child = node.child(name, local, None);
                // What is not remembered is still counted, with all that is in it.
                if self.doomed.directory(&child) {
                    let was = Was::Directory(Arc::clone(&child));
                    let copy = copy(SyncAction::Copy);
                    self.changes.push(Change { copy, was });
                }
                self.to_scan.push((child, Presence::Destination));
            }
            Decision::Change { destination } => {
                if self.doomed.changed(node) {
                    let copy = copy(SyncAction::Replace(Difference::Type));
                    let was = Was::Entry(destination);
                    self.changes.push(Change { copy, was });
                }
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

    /// Has a directory compared that one side has, or both have.
    fn enter(
        &mut self,
        node: &Arc<Node>,
        entry: &Entry,
        local: OsString,
        presence: Presence,
    ) -> Result<(), SyncFault> {
        let name = &entry.name;
        if node.depth >= DEPTH_MAX {
            node.keep();
            let limit = "64 directories below each other";
            let path = self.context.remote(node).join(name);
            return self.fail(
                node.path_of(name),
                TransferError::TooMuch { path, limit }.into(),
            );
        }
        let linked = entry.followed.then_some(self.context.direction);
        let child = node.child(name, local, linked);
        if presence == Presence::Destination {
            self.doomed.directory(&child);
        } else if let Some(tree) = &child.tree
            && self.context.direction == Direction::Down
            && !self.context.options.dry_run
        {
            let preserve = self.context.options.get.preserve;
            tree.ends_with(&self.context.endings, entry.attrs, preserve);
        }
        self.to_scan.push((child, presence));
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
        let replaces = matches!(action, SyncAction::Replace(_) | SyncAction::Remove);
        if replaces && self.context.options.backup_dir.is_some() {
            self.report.backed_up += 1;
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
