//! The journal against what arrived.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use super::journal::{History, Made, Reader};
use super::received::Delivery;

/// How many examples of each fault are kept.
const EXAMPLES_MAX: usize = 8;

/// What counts as the same version.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Identity {
    /// The same content under another name is another version.
    #[default]
    Path,
    /// The same content is the same version whatever it is called.
    Content,
}

/// Judges deliveries by a journal.
#[derive(Debug)]
pub struct Judge {
    journal: Reader,
    identity: Identity,
}

/// Faults of one kind, and a few of them in words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// How many.
    pub count: usize,
    /// The first few.
    pub examples: Vec<String>,
}

impl Faults {
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what());
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// Versions that ever stood.
    pub versions: usize,
    /// Versions that stood in the end: each has to be delivered.
    pub finals: usize,
    /// Deliveries in all.
    pub deliveries: usize,
    /// Deliveries of what was half-written for longer than the rules ask.
    pub excused: usize,
    /// Versions that stood in the end and were not delivered.
    pub lost: Faults,
    /// Deliveries of a version beyond the first.
    pub doubled: Faults,
    /// Deliveries whose bytes are no version's, or no version's of that path.
    pub torn: Faults,
}

impl Verdict {
    /// Whether nothing was lost, doubled or torn.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lost.count == 0 && self.doubled.count == 0 && self.torn.count == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} versions, {} of them in the end, {} delivered ({} excused): {} lost, {} doubled, {} torn",
            self.versions,
            self.finals,
            self.deliveries,
            self.excused,
            self.lost.count,
            self.doubled.count,
            self.torn.count
        )?;
        for (name, faults) in [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("torn", &self.torn),
        ] {
            for example in &faults.examples {
                write!(f, "\n  {name}: {example}")?;
            }
        }
        Ok(())
    }
}

impl Judge {
    /// Reads the journal.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(journal: &Path, identity: Identity) -> std::io::Result<Self> {
        let mut judge = Self {
            journal: Reader::open(journal)?,
            identity,
        };
        judge.read_on()?;
        Ok(judge)
    }

    /// Reads what the writer has done since the last time.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_on(&mut self) -> std::io::Result<()> {
        self.journal.read_on()
    }

    /// What the journal says.
    #[must_use]
    pub const fn history(&self) -> &History {
        self.journal.history()
    }

    /// Versions that stand by now and are not among `deliveries`: what a caller waits for. The same
    /// count as that of the verdict, for those who ask again and again.
    #[must_use]
    pub fn missing(&self, deliveries: &[Delivery]) -> usize {
        let history = self.history();
        let place = |path| match self.identity {
            Identity::Path => path,
            Identity::Content => &[][..],
        };
        let mut arrived: HashSet<(&[u8], u64)> = HashSet::new();
        for delivery in deliveries {
            if let Some(&Made { id, .. }) = history.made.get(&delivery.sha256) {
                arrived.insert((place(&delivery.path), id));
            }
        }
        let standing = history.standing.iter();
        standing
            .filter(|&(path, &id)| !arrived.contains(&(place(path), id)))
            .count()
    }

    /// Judges.
    #[must_use]
    pub fn verdict(&self, deliveries: &[Delivery]) -> Verdict {
        let history = self.history();
        let mut verdict = Verdict {
            versions: history.stood.len(),
            finals: history.standing.len(),
            deliveries: deliveries.len(),
            ..Verdict::default()
        };
        let mut first: HashMap<(&[u8], u64), &str> = HashMap::new();
        let mut arrived = HashSet::new();
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        for delivery in deliveries {
            let Delivery {
                path,
                sha256,
                label,
                wrong,
            } = delivery;
            let half = (path.clone(), sha256.clone());
            if history.paused.contains(&half) {
                verdict.excused += 1;
                continue;
            }
            let version = history.made.get(sha256).map(|&Made { id, .. }| id);
            let Some(id) = version.filter(|&id| history.stood.contains(&(path.clone(), id))) else {
                verdict.torn.add(|| match (version, wrong) {
                    (Some(id), _) => format!("{label}: content {id} never was at {}", shown(path)),
                    (None, Some(wrong)) => format!("{label}: {wrong}"),
                    (None, None) => format!("{label}: {sha256} was never written"),
                });
                continue;
            };
            let place: &[u8] = match self.identity {
                Identity::Path => path,
                Identity::Content => &[],
            };
            if let Some(before) = first.insert((place, id), label) {
                verdict
                    .doubled
                    .add(|| format!("content {id} as {before} and as {label}"));
            }
            arrived.insert((place.to_vec(), id));
        }
        for (path, &id) in &history.standing {
            let place = match self.identity {
                Identity::Path => path.clone(),
                Identity::Content => Vec::new(),
            };
            if !arrived.contains(&(place, id)) {
                verdict
                    .lost
                    .add(|| format!("content {id} at {}", shown(path)));
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::{HEADER_LEN, make};
    use super::super::received::Directory;
    use super::super::{Journal, content};
    use super::*;
    use crate::content::Sha256;
    use std::fs;
    use tempfile::TempDir;

    /// Three contents: 1 stood at `a` and was renamed to `d/b`, 2 replaced it at `a`, 3 stands at `c`.
    fn scene() -> (TempDir, Judge) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path).unwrap();
        for id in 1..=3 {
            let file = make(9, id, 1000);
            journal
                .made(id, 1000, &Sha256::of(&file).to_string())
                .unwrap();
        }
        journal.stands(b"a", 1).unwrap();
        journal.gone(b"a").unwrap();
        journal.stands(b"d/b", 1).unwrap();
        journal.stands(b"a", 2).unwrap();
        let half = Sha256::of(&make(9, 3, 1000)[..500]).to_string();
        journal.paused(b"c", &half).unwrap();
        journal.stands(b"c", 3).unwrap();
        drop(journal);
        fs::create_dir_all(dir.path().join("sink/d")).unwrap();
        let judge = Judge::new(&path, Identity::Path).unwrap();
        (dir, judge)
    }

    fn put(dir: &TempDir, name: &str, bytes: &[u8]) {
        fs::write(dir.path().join("sink").join(name), bytes).unwrap();
    }

    fn verdict(dir: &TempDir, judge: &Judge) -> Verdict {
        let mut sink = Directory::numbered(&dir.path().join("sink"));
        judge.verdict(sink.look().unwrap())
    }

    #[test]
    fn each_final_version_once_is_clean_and_an_older_one_may_be_there() {
        let (dir, judge) = scene();
        for (name, id) in [("a.2", 2), ("d/b.3", 1), ("c.4", 3)] {
            put(&dir, name, &make(9, id, 1000));
        }
        put(&dir, ".ketch-tmp-1", b"unfinished");
        let clean = verdict(&dir, &judge);
        assert!(clean.is_clean(), "{clean}");
        assert_eq!((clean.versions, clean.finals, clean.deliveries), (4, 3, 3));
        put(&dir, "a.1", &make(9, 1, 1000));
        assert!(verdict(&dir, &judge).is_clean());
    }

    #[test]
    fn a_planted_loss_is_found() {
        let (dir, judge) = scene();
        put(&dir, "a.2", &make(9, 2, 1000));
        put(&dir, "c.4", &make(9, 3, 1000));
        let mut sink = Directory::numbered(&dir.path().join("sink"));
        assert_eq!(judge.missing(sink.look().unwrap()), 1);
        let verdict = verdict(&dir, &judge);
        assert_eq!(
            (
                verdict.lost.count,
                verdict.doubled.count,
                verdict.torn.count
            ),
            (1, 0, 0)
        );
        assert_eq!(verdict.lost.examples, ["content 1 at d/b"]);
    }

    #[test]
    fn a_planted_double_is_found() {
        let (dir, judge) = scene();
        for (name, id) in [("a.2", 2), ("d/b.3", 1), ("c.4", 3), ("c.5", 3)] {
            put(&dir, name, &make(9, id, 1000));
        }
        let verdict = verdict(&dir, &judge);
        assert_eq!(
            (
                verdict.lost.count,
                verdict.doubled.count,
                verdict.torn.count
            ),
            (0, 1, 0)
        );
        assert!(verdict.doubled.examples[0].contains("c.5"), "{verdict}");
    }

    #[test]
    fn planted_torn_files_are_found() {
        let (dir, judge) = scene();
        for (name, id) in [("a.2", 2), ("d/b.3", 1), ("c.4", 3)] {
            put(&dir, name, &make(9, id, 1000));
        }
        let (two, three) = (make(9, 2, 1000), make(9, 3, 1000));
        put(&dir, "a.5", &two[..700]);
        put(
            &dir,
            "a.6",
            &[&two[..HEADER_LEN + 9], &three[HEADER_LEN + 9..]].concat(),
        );
        put(&dir, "a.7", &make(9, 77, 1000));
        put(&dir, "a.8", &three);
        put(&dir, "a.9", b"");
        let verdict = verdict(&dir, &judge);
        assert_eq!(
            (
                verdict.lost.count,
                verdict.doubled.count,
                verdict.torn.count
            ),
            (0, 0, 5),
            "{verdict}"
        );
        assert!(matches!(
            content::check(&make(9, 77, 1000)),
            content::Found::Whole(77)
        ));
    }

    #[test]
    fn what_was_paused_half_written_is_excused_and_told() {
        let (dir, judge) = scene();
        for (name, id) in [("a.2", 2), ("d/b.3", 1), ("c.4", 3)] {
            put(&dir, name, &make(9, id, 1000));
        }
        put(&dir, "c.1", &make(9, 3, 1000)[..500]);
        let clean = verdict(&dir, &judge);
        assert!(clean.is_clean() && clean.excused == 1, "{clean}");
        put(&dir, "a.1", &make(9, 3, 1000)[..500]);
        assert_eq!(verdict(&dir, &judge).torn.count, 1, "only there");
    }

    #[test]
    fn by_content_a_new_name_is_no_new_version() {
        let (dir, _) = scene();
        let judge = Judge::new(&dir.path().join("journal"), Identity::Content).unwrap();
        for (name, id) in [("a.1", 1), ("a.2", 2), ("c.4", 3)] {
            put(&dir, name, &make(9, id, 1000));
        }
        assert!(verdict(&dir, &judge).is_clean());
        put(&dir, "d/b.9", &make(9, 1, 1000));
        assert_eq!(verdict(&dir, &judge).doubled.count, 1);
    }
}
