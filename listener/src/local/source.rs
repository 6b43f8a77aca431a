//! What the engine asks of a directory of this machine: fetch, look, and what comes after a delivery.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ketch_client::{Kind, RemotePath};

use super::Local;
use super::beneath::{self, Stamp};
use crate::snapshot::Facts;
use crate::source::{Answer, Source, SourceError};

/// Bytes that are read at a time to compute a checksum.
const HASHED_LEN: usize = 256 * 1024;

impl Local {
    /// Runs `work` on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &RemotePath,
        work: impl FnOnce(&Path, &RemotePath) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (root, below) = (Arc::clone(&self.root), path.clone());
        let done = tokio::task::spawn_blocking(move || work(&root, &below)).await;
        let fault = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(fault)) => fault,
            Err(error) => Fault::Io(io::Error::other(error)),
        };
        Err(match fault {
            Fault::Changed => SourceError::Changed { path: path.clone() },
            Fault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                SourceError::Gone { path: path.clone() }
            }
            Fault::Io(error) | Fault::Target(error) => SourceError::Failed {
                what: format!("cannot {what} {path}"),
                kind: Kind::of_local(&error),
                source: Box::new(error),
            },
        })
    }
}

/// What went wrong on the thread.
enum Fault {
    Changed,
    Io(io::Error),
    /// Not the source, but where it is copied to.
    Target(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Source for Local {
    fn look<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, Facts> {
        Box::pin(self.blocking("look at", path, |root, path| {
            Ok(Facts::of(&beneath::look(root, path)?))
        }))
    }

    fn fetch<'a>(&'a self, path: &'a RemotePath, expected: Facts, to: &'a Path) -> Answer<'a, ()> {
        let to = to.to_owned();
        Box::pin(self.blocking("fetch", path, move |root, path| {
            fetch(root, path, expected, &to)
        }))
    }

    fn sha256<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, [u8; 32]> {
        Box::pin(self.blocking("read", path, |root, path| {
            let mut file = beneath::open(root, path)?;
            let mut context = ring::digest::Context::new(&ring::digest::SHA256);
            let mut buffer = vec![0; HASHED_LEN];
            loop {
                let read = file.read(&mut buffer)?;
                match buffer.get(..read) {
                    Some(bytes) if read > 0 => context.update(bytes),
                    _ => break,
                }
            }
            let mut sum = [0; 32];
            sum.copy_from_slice(context.finish().as_ref());
            Ok(sum)
        }))
    }

    fn remove<'a>(&'a self, path: &'a RemotePath) -> Answer<'a, ()> {
        Box::pin(self.blocking("remove", path, |root, path| {
            Ok(beneath::remove(root, path)?)
        }))
    }

    fn rename<'a>(
        &'a self,
        from: &'a RemotePath,
        to: &'a RemotePath,
        replace: bool,
    ) -> Answer<'a, ()> {
        let to = to.clone();
        Box::pin(self.blocking("rename", from, move |root, from| {
            Ok(beneath::rename(root, from, &to, replace)?)
        }))
    }

    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let root = RemotePath::from("");
            self.blocking("list", &root, |root, _| {
                // Whether it can be opened and read from, not how much is in it.
                std::fs::read_dir(root)?.next().transpose()?;
                Ok(())
            })
            .await
        })
    }
}

/// Copies a file that must be as `expected` before and after. Nothing is left at `to` otherwise.
fn fetch(root: &Path, path: &RemotePath, expected: Facts, to: &PathBuf) -> Result<(), Fault> {
    let mut from = beneath::open(root, path)?;
    let before = Stamp::of(&from)?;
    if Facts::of(&before.attrs) != expected {
        return Err(Fault::Changed);
    }
    let options = OpenOptions::new().write(true).create_new(true).clone();
    let mut copy = options.open(to).map_err(Fault::Target)?;
    let copied = copy_all(&mut from, &mut copy, before);
    if copied.is_err() {
        // It may not be removable; whoever sweeps the spool finds it then.
        let _ = std::fs::remove_file(to);
    }
    copied
}

fn copy_all(from: &mut File, to: &mut File, before: Stamp) -> Result<(), Fault> {
    // The kernel copies on Linux, and only refers to the same blocks where the file system can.
    let bytes = io::copy(from, to).map_err(Fault::Target)?;
    if before.attrs.size != Some(bytes) || Stamp::of(from)? != before {
        return Err(Fault::Changed);
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::detect::{ListError, Lister, Plan};
    use crate::listing::Listing;

    /// Lists everything below the root.
    struct All {
        next: Vec<RemotePath>,
        seen: Vec<RemotePath>,
        failed: Vec<RemotePath>,
    }

    impl Plan for All {
        fn next(&mut self) -> Option<RemotePath> {
            self.next.pop()
        }

        fn listed(&mut self, directory: RemotePath, result: Result<Listing, ListError>) {
            let Ok(listing) = result else {
                self.failed.push(directory);
                return;
            };
            for listed in listing.entries() {
                let path = if directory.as_bytes().is_empty() {
                    RemotePath::from(listed.name())
                } else {
                    directory.join(listed.name())
                };
                if listed.attrs().file_type() == ketch_client::FileType::Directory {
                    self.next.push(path.clone());
                }
                self.seen.push(path);
            }
        }
    }

    async fn all(local: &Local) -> All {
        let mut plan = All {
            next: vec![RemotePath::from("")],
            seen: Vec::new(),
            failed: Vec::new(),
        };
        local.list(&mut plan).await;
        plan.seen.sort();
        plan
    }

    #[tokio::test]
    async fn a_tree_is_listed_with_any_names_and_without_what_links_lead_to() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        let odd = std::ffi::OsStr::from_bytes(b"\xff\n");
        std::fs::write(root.path().join("a/b").join(odd), "1").unwrap();
        symlink(outside.path(), root.path().join("away")).unwrap();
        let local = Local::new(root.path());
        let odd = RemotePath::from("a/b").join(b"\xff\n");
        let plan = all(&local).await;
        assert_eq!(
            plan.seen,
            ["a".into(), "a/b".into(), odd.clone(), "away".into()]
        );
        assert!(plan.failed.is_empty());
        let paths = [
            odd,
            "away".into(),
            "away/secret".into(),
            "nothing".into(),
            "../x".into(),
        ];
        let looks: Vec<_> = Lister::look(&local, &paths)
            .await
            .into_iter()
            .map(|look| look.ok())
            .collect();
        assert_eq!(
            looks.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, true, false, false, false]
        );
        let mut plan = All {
            next: vec!["away".into(), "gone".into()],
            seen: Vec::new(),
            failed: Vec::new(),
        };
        local.list(&mut plan).await;
        assert!(plan.seen.is_empty());
        assert_eq!(plan.failed.len(), 2);
        let through = "away/secret".into();
        assert!(local.remove(&through).await.is_err());
        assert!(local.sha256(&through).await.is_err());
        assert!(outside.path().join("secret").exists());
    }

    #[tokio::test]
    async fn a_file_is_fetched_as_it_was_expected_or_not_at_all() {
        let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = spool.path().join("copy");
        std::fs::write(root.path().join("a"), "content").unwrap();
        let local = Local::new(root.path());
        let a = RemotePath::from("a");
        let facts = Source::look(&local, &a).await.unwrap();
        local.fetch(&a, facts, &to).await.unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"content");
        let sum = local.sha256(&a).await.unwrap();
        assert_eq!(
            sum.as_slice(),
            ring::digest::digest(&ring::digest::SHA256, b"content").as_ref()
        );
        // The target is taken: nothing is overwritten or removed.
        assert!(matches!(
            local.fetch(&a, facts, &to).await,
            Err(SourceError::Failed {
                kind: Kind::Exists,
                ..
            })
        ));
        assert!(to.exists());
        std::fs::remove_file(&to).unwrap();
        std::fs::write(root.path().join("a"), "longer content").unwrap();
        assert!(matches!(
            local.fetch(&a, facts, &to).await,
            Err(SourceError::Changed { .. })
        ));
        std::fs::remove_file(root.path().join("a")).unwrap();
        assert!(matches!(
            local.fetch(&a, facts, &to).await,
            Err(SourceError::Gone { .. })
        ));
        assert!(!to.exists());
    }

    #[tokio::test]
    async fn a_rename_makes_directories_and_replaces_only_where_it_may() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let local = Local::new(root.path());
        let (a, b, done) = ("a".into(), "b".into(), "done/2026/a".into());
        local.rename(&a, &done, false).await.unwrap();
        let taken = local.rename(&b, &done, false).await.unwrap_err();
        assert_eq!(taken.kind(), Kind::Exists);
        assert!(root.path().join("b").exists());
        local.rename(&b, &done, true).await.unwrap();
        assert_eq!(
            std::fs::read(root.path().join("done/2026/a")).unwrap(),
            b"b"
        );
        let nowhere = "new/x".into();
        assert!(matches!(
            local.rename(&a, &nowhere, false).await,
            Err(SourceError::Gone { .. })
        ));
        assert!(!root.path().join("new").exists());
        local.remove(&done).await.unwrap();
        assert!(matches!(
            local.remove(&done).await,
            Err(SourceError::Gone { .. })
        ));
        local.check().await.unwrap();
        let lost = Local::new(&root.path().join("gone"));
        assert!(lost.check().await.is_err());
    }
}
