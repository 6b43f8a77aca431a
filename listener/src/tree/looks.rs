//! What a scan asks for apart from listings, and what it makes of the answers: times of directories, paths
//! that pushes told of or that may have settled, and names that may be gone.

use std::time::Instant;

use ketch_client::{Attrs, Kind, RemotePath};

use super::known::{parent_of, split};
use super::times::Trust;
use super::{Scan, Tree, Why, mtime_of};
use crate::detect::{LOOKS_MAX, ListError, ScanKind};

impl Tree {
    /// The times of directories that are asked for next.
    pub(super) fn times_to_ask(&self, scan: &mut Scan) -> Vec<RemotePath> {
        use std::ops::Bound::{Excluded, Unbounded};
        let root = RemotePath::from("");
        let rest = match &scan.cursor {
            None => Unbounded,
            Some(last) => Excluded(last),
        };
        let paths: Vec<_> = match (&scan.cursor, scan.report.kind) {
            (None, ScanKind::Full | ScanKind::Part) => vec![root],
            (Some(_), ScanKind::Full | ScanKind::Part) => Vec::new(),
            (cursor, ScanKind::Quiet) => {
                if cursor.is_none() {
                    scan.telling = self.known.telling(|path| self.errors.contains_key(path));
                }
                let telling = &scan.telling;
                let is_asked = |path: &RemotePath| {
                    telling.contains(path.as_bytes())
                        || parent_of(path).is_none_or(|parent| !telling.contains(parent))
                };
                let known = self
                    .known
                    .directories
                    .range::<RemotePath, _>((rest, Unbounded));
                let known = known.map(|(path, _)| path);
                known
                    .filter(|path| is_asked(path))
                    .take(LOOKS_MAX)
                    .cloned()
                    .collect()
            }
        };
        if let Some(last) = paths.last() {
            scan.cursor = Some(last.clone());
        }
        scan.asked = vec![Why::Times; paths.len()];
        paths
    }

    /// What pushes told of, and files that may have settled.
    pub(super) fn paths_to_ask(&mut self, scan: &mut Scan, now: Instant) -> Vec<RemotePath> {
        let mut paths = Vec::new();
        while paths.len() < LOOKS_MAX
            && let Some(path) = self.pushed.pop_first()
        {
            paths.push(path);
        }
        if scan.report.kind == ScanKind::Part {
            while paths.len() < LOOKS_MAX
                && let Some(path) = self.settle.poll_look(now)
            {
                // Companions come behind: they are not to be older than what they vouch for.
                let companions: Vec<_> = self.settle.companions(&path).collect();
                paths.push(path);
                paths.extend(companions);
            }
        }
        scan.asked = vec![Why::Asked; paths.len()];
        paths
    }

    /// Takes the answers to [`Step::Look`](super::Step::Look).
    pub fn on_looks(
        &mut self,
        now: Instant,
        paths: Vec<RemotePath>,
        answers: Vec<Result<Attrs, ListError>>,
    ) {
        let Some(mut scan) = self.scan.take() else {
            return;
        };
        let asked = std::mem::take(&mut scan.asked);
        for ((path, why), answer) in paths.into_iter().zip(asked).zip(answers) {
            if let Err(error) = &answer
                && error.is_lost()
            {
                self.lose(&mut scan, error.clone());
                continue;
            }
            match why {
                Why::Times => self.on_time(&mut scan, now, path, answer),
                Why::Asked => self.on_asked(&mut scan, now, path, answer),
                Why::Missing(index) => self.on_missing(&mut scan, index, answer),
                Why::Suspect(mtime) => {
                    let stays = answer.is_ok_and(|attrs| mtime_of(&attrs) == Some(mtime));
                    if stays {
                        self.known.trust = Trust::GivenUp;
                    }
                }
            }
        }
        self.scan = Some(scan);
    }

    /// The time of a directory: is it to be listed?
    fn on_time(
        &mut self,
        scan: &mut Scan,
        now: Instant,
        path: RemotePath,
        answer: Result<Attrs, ListError>,
    ) {
        let is_root = path.as_bytes().is_empty();
        match answer {
            Ok(attrs) => {
                let mtime = mtime_of(&attrs);
                let is_listed = is_root && scan.report.kind == ScanKind::Full
                    || scan.telling.contains(path.as_bytes());
                if is_listed || !self.is_quiet(&path, mtime) {
                    scan.plan_at(path, mtime, Some(now));
                }
            }
            // Its directory is listed instead, and says whether the name is still there.
            Err(error) if error.kind() == Kind::NotFound && !is_root => {
                scan.plan(split(&path).0, None);
            }
            // The listing fails as well, and tells.
            Err(_) => scan.plan(path, None),
        }
    }

    /// Whether a directory with this time need not be listed.
    pub(super) fn is_quiet(&self, directory: &RemotePath, mtime: Option<u32>) -> bool {
        let settled = self.known.node(directory).and_then(|node| node.mtime);
        mtime.is_some()
            && settled == mtime
            && !self.dirty.contains(directory)
            && !self.errors.contains_key(directory)
    }
}
