//! Removing a directory with everything in it.
//!
//! Files go as they are met, many removals under way at a time; the directories follow, the deepest
//! first. Links are removed and never followed. What could not be removed is in the report, and all
//! else is gone. A server whose listings skip entries when others are removed is listed again, as
//! long as that helps.

use ketch_protocol::{FileType, RemotePath};

use crate::{
    error::{Failure, Kind, Outcome},
    in_flight::InFlight,
    sftp::{Sftp, SftpError},
    walk::{WalkError, WalkOptions},
};

/// Removals under way at a time.
const REMOVALS_MAX: usize = 64;
/// Failures that a report names; the rest is counted.
const FAILED_MAX: usize = 1000;
/// How often a directory is gone through at most.
const ROUNDS_MAX: u32 = 8;

/// What was removed, and what was not.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Removed {
    /// Files, links and whatever else is no directory.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// What could not be removed, the first 1,000 of it.
    pub failed: Vec<NotRemoved>,
    /// How much that was in all.
    pub failed_count: u64,
}

/// Something that could not be removed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NotRemoved {
    /// Where it is.
    pub path: RemotePath,
    /// Why it is still there.
    pub error: RemoveFault,
}

/// Why something is still there.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveFault {
    /// It could not be removed.
    #[error(transparent)]
    Remove(SftpError),
    /// What is in it could not be found.
    #[error(transparent)]
    Walk(WalkError),
}

impl Failure for RemoveFault {
    fn kind(&self) -> Kind {
        match self {
            Self::Remove(error) => error.kind(),
            Self::Walk(error) => error.kind(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Remove(error) => error.outcome(),
            Self::Walk(error) => error.outcome(),
        }
    }
}

/// Not everything was removed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{path} could not be removed with all that is in it ({} left)", .report.failed_count)]
#[non_exhaustive]
pub struct RemoveError {
    /// What was to be removed.
    pub path: RemotePath,
    /// What was done all the same, and what not.
    pub report: Box<Removed>,
    /// The first thing that went wrong.
    pub source: RemoveFault,
}

impl Failure for RemoveError {
    fn kind(&self) -> Kind {
        self.source.kind()
    }

    fn outcome(&self) -> Outcome {
        match self.report.files + self.report.directories {
            0 => self.source.outcome(),
            _ => Outcome::Unknown,
        }
    }
}

impl Removed {
    fn fail(&mut self, path: RemotePath, error: RemoveFault) {
        self.failed_count += 1;
        if self.failed.len() < FAILED_MAX {
            self.failed.push(NotRemoved { path, error });
        }
    }
}

type Removal = (RemotePath, Result<(), SftpError>);

impl Sftp {
    /// Removes whatever is at `path`: a directory with everything in it, a file, or a link, which is
    /// not followed. It is no error if there is nothing.
    ///
    /// # Errors
    /// [`RemoveError`] if something is left; it says what, and all else was removed.
    pub async fn remove_all(&self, path: impl Into<RemotePath>) -> Result<Removed, RemoveError> {
        let path = path.into();
        let mut report = Removed::default();
        if let Err(fault) = self.remove_into(&path, &mut report).await {
            report.fail(path.clone(), fault);
        }
        match report.failed.first().map(|failed| failed.error.clone()) {
            None => Ok(report),
            Some(source) => Err(RemoveError {
                path,
                report: Box::new(report),
                source,
            }),
        }
    }

    async fn remove_into(
        &self,
        path: &RemotePath,
        report: &mut Removed,
    ) -> Result<(), RemoveFault> {
        match self.lstat(path).await {
            Ok(attrs) if attrs.file_type() == FileType::Directory => {}
            Ok(_) => {
                self.remove_file(path).await.map_err(RemoveFault::Remove)?;
                report.files += 1;
                return Ok(());
            }
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            Err(error) => return Err(RemoveFault::Remove(error)),
        }
        for round in 1.. {
            let before = report.files + report.directories;
            let mut tried = Removed::default();
            self.remove_round(path, &mut tried).await;
            report.files += tried.files;
            report.directories += tried.directories;
            let is_stuck = report.files + report.directories == before || round == ROUNDS_MAX;
            if tried.failed_count == 0 || is_stuck {
                report.failed = tried.failed;
                report.failed_count = tried.failed_count;
                break;
            }
        }
        Ok(())
    }

    /// Goes through the directory once.
    async fn remove_round(&self, path: &RemotePath, report: &mut Removed) {
        let mut directories = vec![(0, path.clone())];
        let mut removals: InFlight<Removal> = InFlight::default();
        let mut walk = self.walk(path, WalkOptions::new().depth_max(u32::MAX));
        while let Some(entry) = walk.next().await {
            let entry = match entry {
                Ok(entry) => entry,
                // It went meanwhile, which is what was wanted.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => {
                    let (WalkError::Unreadable { path, .. }
                    | WalkError::BadName { path }
                    | WalkError::TooMany { path }) = &error;
                    report.fail(path.clone(), RemoveFault::Walk(error));
                    continue;
                }
            };
            if entry.file_type() == FileType::Directory {
                directories.push((entry.depth(), entry.into_path()));
                continue;
            }
            while removals.len() >= REMOVALS_MAX {
                if let Some(removal) = removals.next().await {
                    report.files += on_removal(removal, report);
                }
            }
            let (sftp, path) = (self.clone(), entry.into_path());
            removals.push(async move {
                let removed = sftp.remove_file(&path).await;
                (path, removed)
            });
        }
        while let Some(removal) = removals.next().await {
            report.files += on_removal(removal, report);
        }
        directories.sort_unstable_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        let mut level = u32::MAX;
        for (depth, path) in directories {
            // Those of one depth are side by side; those above wait for them.
            while removals.len() >= REMOVALS_MAX || (depth != level && !removals.is_empty()) {
                if let Some(removal) = removals.next().await {
                    report.directories += on_removal(removal, report);
                }
            }
            level = depth;
            let sftp = self.clone();
            removals.push(async move {
                let removed = sftp.remove_dir(&path).await;
                (path, removed)
            });
        }
        while let Some(removal) = removals.next().await {
            report.directories += on_removal(removal, report);
        }
    }
}

/// One, if something was removed. What is not there any more is nobody's failure.
fn on_removal((path, removed): Removal, report: &mut Removed) -> u64 {
    match removed {
        Ok(()) => 1,
        Err(error) if error.kind() == Kind::NotFound => 0,
        Err(error) => {
            report.fail(path, RemoveFault::Remove(error));
            0
        }
    }
}
