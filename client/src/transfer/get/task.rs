//! What a download is asked to fetch, and how it is started: from named paths, into a sink, or from
//! what somebody found who listed a directory.

use std::{path::PathBuf, sync::Arc};

use ketch_protocol::{Attrs, RemotePath};

use super::{Down, link::LinkTask};
use crate::{
    requests::calls::Shared,
    transfer::{local::Tree, options::GetOptions, outcome::Outcome, sink::Sink},
};

/// What is to be made here.
pub(crate) enum Task {
    File(FileTask),
    Link(LinkTask),
}

impl From<FileTask> for Task {
    fn from(file: FileTask) -> Self {
        Self::File(file)
    }
}

/// A file to download.
pub(crate) struct FileTask {
    pub(super) path: RemotePath,
    pub(super) known: Known,
    pub(super) local: Local,
    /// Directories above it, below the one that the user named.
    pub(super) depth: u8,
}

/// What is known of a remote file before it is opened.
#[derive(Clone, Copy)]
pub(super) enum Known {
    /// Nothing, and the user named it: links in its path are the user's business.
    Nothing,
    /// That it was listed, and not as what.
    Listed,
    /// That it is a link: what it leads to is meant, if that is anything.
    Linked,
    /// What a listing said.
    Attrs(Attrs),
}

/// Where a file goes.
#[derive(Clone)]
pub(super) enum Local {
    /// To a path that the user named, whose directory is being opened.
    Named(PathBuf),
    /// Into a directory.
    In(Arc<Tree>, std::ffi::OsString),
    /// To the embedder.
    Sink(Arc<dyn Sink>),
}

/// Starts the download of `path` to `local`, and returns what to wait for.
pub(crate) fn start_to_path(
    shared: &Arc<Shared>,
    path: RemotePath,
    local: PathBuf,
    options: GetOptions,
) -> Outcome<Down> {
    start_all(shared, [(path, local)], options)
}

/// Starts the download of `path` into `sink`, and returns what to wait for.
pub(crate) fn start_to_sink(
    shared: &Arc<Shared>,
    path: RemotePath,
    sink: Arc<dyn Sink>,
    options: GetOptions,
) -> Outcome<Down> {
    let options = options.recursive(false);
    let task = FileTask {
        path,
        known: Known::Nothing,
        local: Local::Sink(sink),
        depth: 0,
    };
    start(shared, [task], options)
}

/// Starts the download of many files and trees, and returns what to wait for.
pub(crate) fn start_all(
    shared: &Arc<Shared>,
    items: impl IntoIterator<Item = (RemotePath, PathBuf)>,
    options: GetOptions,
) -> Outcome<Down> {
    let tasks = items.into_iter().map(|(path, local)| FileTask {
        path,
        known: Known::Nothing,
        local: Local::Named(local),
        depth: 0,
    });
    start(shared, tasks, options)
}

/// A file or link that was found by somebody who listed its directory.
pub(crate) struct Found {
    pub path: RemotePath,
    /// What the listing said.
    pub attrs: Attrs,
    /// It is a link, to be made here.
    pub is_link: bool,
    /// Where it goes.
    pub tree: Arc<Tree>,
    pub name: std::ffi::OsString,
}

/// Starts the download of files and links that were found, and returns what to wait for.
pub(crate) fn start_found(
    shared: &Arc<Shared>,
    found: Vec<Found>,
    options: GetOptions,
) -> Outcome<Down> {
    let tasks = found.into_iter().map(|found| {
        if found.is_link {
            return Task::Link(LinkTask {
                path: found.path,
                tree: found.tree,
                name: found.name,
                times: found.attrs.times,
            });
        }
        Task::File(FileTask {
            path: found.path,
            known: Known::Attrs(found.attrs),
            local: Local::In(found.tree, found.name),
            depth: 1,
        })
    });
    start(shared, tasks, options)
}

fn start(
    shared: &Arc<Shared>,
    tasks: impl IntoIterator<Item = impl Into<Task>>,
    options: GetOptions,
) -> Outcome<Down> {
    let plan = options.plan();
    for task in tasks {
        plan.add_file(task, 0);
    }
    Outcome::start(plan, options, shared)
}
