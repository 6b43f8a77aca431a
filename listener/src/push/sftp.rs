//! Pushes of a server: `watch@ketch`, subscribed to again whenever the connection was lost.
#![expect(clippy::disallowed_methods, reason = "drivers own tasks")]

use std::sync::Arc;
use std::time::Duration;

use ketch_client::{Failure, Kind, RemotePath, WatchEvent, WatchOptions};

use super::queue::Queue;
use super::{Filler, PushError, PushEvent, Pushes, Touch};
use crate::remote::{Remote, RemoteError};

/// Pause before the first new attempt; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// Longest pause between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What changes below the root of `remote`, as its server tells it.
///
/// A task subscribes, recursively, and says [`PushEvent::Back`] when it has; after a loss it does so
/// again, for as long as it takes. With a server that does not have the extension the pushes end
/// ([`Pushes::next`] is `None`), and [`PushError::Unsupported`] says so.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn over_sftp(remote: Remote) -> Pushes {
    watching(remote, WatchOptions::new().recursive())
}

/// The same with a say in what is told.
pub(crate) fn watching(remote: Remote, options: WatchOptions) -> Pushes {
    let queue = Arc::new(Queue::default());
    let told = Arc::clone(&queue);
    let task = tokio::spawn(async move {
        let mut pause = RETRY_MIN;
        loop {
            let why = match subscribed(&remote, &options, &told, &mut pause).await {
                Ok(()) => PushError::Gone,
                Err(RemoteError::Sftp(error)) if error.kind() == Kind::Unsupported => {
                    told.end(PushError::Unsupported);
                    return;
                }
                Err(error) => PushError::Remote(error),
            };
            told.lost(why);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    });
    Pushes::new(queue, Filler::Task(task.abort_handle()))
}

/// One subscription, from its beginning to its end.
async fn subscribed(
    remote: &Remote,
    options: &WatchOptions,
    told: &Queue,
    pause: &mut Duration,
) -> Result<(), RemoteError> {
    let sftp = remote.sftp().await?;
    let root = remote.path(&RemotePath::from(""));
    let mut watch = sftp.watch(&root, options.clone()).await?;
    // Events have paths as REALPATH answers. Asked for after the subscription: if the directory was
    // replaced in between, the subscription is over, and all begins anew.
    let root: RemotePath = sftp.canonicalize(&root).await?;
    told.live();
    *pause = RETRY_MIN;
    while let Some(event) = watch.next().await {
        if let Some(event) = translate(&root, event?) {
            told.push(event);
        }
    }
    Ok(())
}

/// An event with paths below `root`; `None` where it says nothing about what is there.
///
/// Names come from the server: what could lead anywhere else is left out, and found by polling if it
/// is anything.
fn translate(root: &RemotePath, event: WatchEvent) -> Option<PushEvent> {
    let below = |path: &RemotePath| below(root, path);
    Some(match event {
        WatchEvent::Created { path, is_directory } => PushEvent::Changed {
            path: below(&path)?,
            kind: Touch::Created,
            is_directory,
        },
        WatchEvent::Modified { path } => PushEvent::Changed {
            path: below(&path)?,
            kind: Touch::Written,
            is_directory: false,
        },
        WatchEvent::Attributes { path, is_directory } => PushEvent::Changed {
            path: below(&path)?,
            kind: Touch::Attributes,
            is_directory,
        },
        WatchEvent::Written { path } => PushEvent::Closed {
            path: below(&path)?,
        },
        WatchEvent::Removed { path, is_directory } => PushEvent::Removed {
            path: below(&path)?,
            is_directory,
        },
        WatchEvent::Renamed {
            from,
            to,
            is_directory,
        } => match (below(&from), below(&to)) {
            (Some(from), Some(to)) => PushEvent::Renamed {
                from,
                to,
                is_directory,
            },
            (Some(path), None) => PushEvent::Removed { path, is_directory },
            (None, Some(path)) => PushEvent::Changed {
                path,
                kind: Touch::Created,
                is_directory,
            },
            (None, None) => return None,
        },
        WatchEvent::Overflow => PushEvent::Overflow,
        _ => return None,
    })
}

/// `path` as it is called below `root`: empty for the root itself, `None` if it is not there or
/// holds a component that is no name.
fn below(root: &RemotePath, path: &RemotePath) -> Option<RemotePath> {
    let root = root.as_bytes();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = path.as_bytes().strip_prefix(root)?;
    if rest.is_empty() {
        return Some(RemotePath::from(""));
    }
    let rest = rest.strip_prefix(b"/")?;
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && !name.contains(&0);
    rest.split(|byte| *byte == b'/')
        .all(is_name)
        .then(|| RemotePath::from(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_below_the_root_and_no_others() {
        let table: [(&str, &[u8], Option<&str>); 11] = [
            ("/in", b"/in/a", Some("a")),
            ("/in/", b"/in/a/b", Some("a/b")),
            ("/", b"/a", Some("a")),
            ("/in", b"/in", Some("")),
            ("/in", b"/inner/a", None),
            ("/in", b"/a", None),
            ("/in", b"/in/../a", None),
            ("/in", b"/in//a", None),
            ("/in", b"/in/a/", None),
            ("/in", b"/in/.", None),
            ("/in", b"/in/a\0b", None),
        ];
        for (root, path, expected) in table {
            let path = RemotePath::from(path);
            assert_eq!(
                below(&root.into(), &path),
                expected.map(RemotePath::from),
                "{path}"
            );
        }
    }

    #[test]
    fn a_rename_over_the_edge_is_half_of_one() {
        let rename = |from: &str, to: &str| {
            let event = WatchEvent::Renamed {
                from: from.into(),
                to: to.into(),
                is_directory: false,
            };
            translate(&"/in".into(), event)
        };
        assert_eq!(
            rename("/in/a", "/in/b"),
            Some(PushEvent::Renamed {
                from: "a".into(),
                to: "b".into(),
                is_directory: false
            })
        );
        assert_eq!(
            rename("/in/a", "/b"),
            Some(PushEvent::Removed {
                path: "a".into(),
                is_directory: false
            })
        );
        assert_eq!(
            rename("/a", "/in/b"),
            Some(PushEvent::Changed {
                path: "b".into(),
                kind: Touch::Created,
                is_directory: false
            })
        );
        assert_eq!(rename("/a", "/b"), None);
    }
}
