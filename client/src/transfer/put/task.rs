//! What an upload is asked to send, and how it is started: from named paths, from a source, or from
//! what somebody found who listed a directory.

use std::{ffi::OsString, path::PathBuf, sync::Arc};

use ketch_protocol::RemotePath;

use super::{Up, directory::DirTask, file::From, link::LinkTask};
use crate::{
    requests::calls::Shared,
    transfer::{
        local::{SourceFile, Tree},
        options::PutOptions,
        outcome::Outcome,
        sink::Source,
    },
};

/// What is to be made on the server.
pub(crate) enum Task {
    File(FileTask),
    Link(LinkTask),
}

impl std::convert::From<FileTask> for Task {
    fn from(file: FileTask) -> Self {
        Self::File(file)
    }
}

/// A file to upload.
pub(crate) struct FileTask {
    pub(super) from: From,
    pub(super) path: RemotePath,
    /// A temporary file of an earlier connection, to be removed first.
    pub(super) stale: Option<RemotePath>,
    /// This transfer made its directory: nothing has its name there.
    pub(super) is_dir_new: bool,
    /// Bytes that it had when it was listed.
    pub(super) listed: Option<u64>,
}

impl FileTask {
    /// A file of which nothing was done yet.
    pub(super) const fn new(from: From, path: RemotePath) -> Self {
        Self {
            from,
            path,
            stale: None,
            is_dir_new: false,
            listed: None,
        }
    }
}

/// Starts the upload of `local` to `path`, and returns what to wait for.
pub(crate) fn start_from_path(
    shared: &Arc<Shared>,
    local: PathBuf,
    path: RemotePath,
    options: PutOptions,
) -> Outcome<Up> {
    start_all(shared, [(local, path)], options)
}

/// Starts the upload of many files and trees, and returns what to wait for.
pub(crate) fn start_all(
    shared: &Arc<Shared>,
    items: impl IntoIterator<Item = (PathBuf, RemotePath)>,
    options: PutOptions,
) -> Outcome<Up> {
    let plan = options.plan();
    for (local, path) in items {
        if options.recursive {
            plan.add_dir(DirTask::named(local, path));
        } else {
            let from = From::File(SourceFile::Named(local));
            plan.add_file(FileTask::new(from, path), 0);
        }
    }
    Outcome::start(plan, options, shared)
}

/// Something that was found by somebody who listed its directory.
pub(crate) enum Found {
    /// A file of about so many bytes.
    File(SourceFile, RemotePath, u64),
    /// A link: where it is, where it leads, and where it goes.
    Link(Arc<Tree>, OsString, Vec<u8>, RemotePath),
}

/// Starts the upload of files and links that were found, and returns what to wait
/// for.
pub(crate) fn start_found(
    shared: &Arc<Shared>,
    found: Vec<Found>,
    options: PutOptions,
) -> Outcome<Up> {
    let plan = options.plan();
    for found in found {
        match found {
            Found::File(source, path, size) => {
                let task = FileTask {
                    listed: Some(size),
                    ..FileTask::new(From::File(source), path)
                };
                plan.add_file(task, size);
            }
            Found::Link(tree, name, target, path) => {
                let task = LinkTask {
                    tree,
                    name,
                    target,
                    path,
                };
                plan.add_file(Task::Link(task), 0);
            }
        }
    }
    Outcome::start(plan, options, shared)
}

/// Starts the upload of what `source` gives to `path`, and returns what to wait for.
pub(crate) fn start_from_source(
    shared: &Arc<Shared>,
    source: Arc<dyn Source>,
    path: RemotePath,
    options: PutOptions,
) -> Outcome<Up> {
    let plan = options.plan();
    let size = source.size();
    plan.add_file(
        FileTask::new(From::Source(source, size), path),
        size.unwrap_or(0),
    );
    Outcome::start(plan, options, shared)
}
