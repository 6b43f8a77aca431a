//! Pushes of a directory of this machine: the kernel's, through `notify`.
//!
//! `notify` watches by path, so it may miss what is written into a directory before it got there:
//! a directory that is new is told at once, is listed then, and the next sweep finds the rest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_client::RemotePath;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{EventKind, RecursiveMode, Watcher as _};

use super::queue::Queue;
use super::{Filler, PushError, PushEvent, Pushes, Touch};

/// What changes below the directory `root`, as the kernel tells it. Links are not followed.
///
/// # Errors
/// [`PushError::Local`]: it is not there, or more directories lie below it than may be watched.
/// It takes a while with many; call it where that may block.
pub fn local(root: &Path) -> Result<Pushes, PushError> {
    let failed = |error| PushError::Local(Arc::new(error));
    // The kernel's events name the path that was watched, so that path has to be the one to strip.
    let root = std::fs::canonicalize(root).map_err(|error| failed(notify::Error::io(error)))?;
    let queue = Arc::new(Queue::default());
    let (told, base) = (Arc::clone(&queue), root.clone());
    let tell = move |event: notify::Result<notify::Event>| match event {
        Ok(event) => translate(&base, &event, &told),
        Err(_) => told.push(PushEvent::Overflow),
    };
    let config = notify::Config::default().with_follow_symlinks(false);
    let mut watcher = notify::RecommendedWatcher::new(tell, config).map_err(failed)?;
    watcher
        .watch(&root, RecursiveMode::Recursive)
        .map_err(failed)?;
    queue.live();
    Ok(Pushes::new(queue, Filler::Kernel { _watcher: watcher }))
}

fn translate(root: &Path, event: &notify::Event, told: &Queue) {
    if event.need_rescan() {
        told.push(PushEvent::Overflow);
        return;
    }
    let below = |path: &PathBuf| below(root, path);
    let changed = |kind, is_directory| {
        for path in event.paths.iter().filter_map(below) {
            told.push(PushEvent::Changed {
                path,
                kind,
                is_directory,
            });
        }
    };
    let removed = |is_directory| {
        for path in event.paths.iter().filter_map(below) {
            told.push(PushEvent::Removed { path, is_directory });
        }
    };
    match event.kind {
        EventKind::Create(kind) => changed(Touch::Created, kind == CreateKind::Folder),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            for path in event.paths.iter().filter_map(below) {
                told.push(PushEvent::Closed { path });
            }
        }
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => {
            if let [from, to] = event.paths.as_slice()
                && let (Some(from), Some(to)) = (below(from), below(to))
            {
                let is_directory = root
                    .join(os(&to))
                    .symlink_metadata()
                    .is_ok_and(|m| m.is_dir());
                told.push(PushEvent::Renamed {
                    from,
                    to,
                    is_directory,
                });
            }
        }
        // The halves come as well, before the whole if there is one.
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) => removed(false),
        EventKind::Modify(ModifyKind::Name(_)) => {
            let is_directory = event
                .paths
                .iter()
                .any(|path| path.symlink_metadata().is_ok_and(|m| m.is_dir()));
            changed(Touch::Created, is_directory);
        }
        EventKind::Modify(ModifyKind::Metadata(_)) => changed(Touch::Attributes, false),
        EventKind::Modify(_) | EventKind::Any => changed(Touch::Written, false),
        EventKind::Remove(kind) => removed(kind == RemoveKind::Folder),
        EventKind::Access(_) => {}
        EventKind::Other => told.push(PushEvent::Overflow),
    }
}

fn below(root: &Path, path: &Path) -> Option<RemotePath> {
    crate::local::remote_path(path.strip_prefix(root).ok()?)
}

fn os(path: &RemotePath) -> PathBuf {
    crate::local::local_path(path).unwrap_or_default()
}
