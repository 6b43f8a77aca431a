//! Which files a query finds, in which order, and how many of them.

use std::cmp::Ordering;

use super::{FileInfo, by};
use crate::pattern::Pattern;

/// Files that are sorted at a time beyond those that are wanted.
const SORT_SLACK: usize = 4096;

/// How two values have to stand to each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compare {
    /// They are the same.
    Equal,
    /// They differ.
    NotEqual,
    /// The file's is less.
    Less,
    /// The file's is greater.
    Greater,
}

impl Compare {
    const fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::Greater => order.is_gt(),
        }
    }
}

/// A condition on a file; conditions nest freely.
///
/// What a server does not tell passes no comparison of its value, `NotEqual` included.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Condition {
    /// All of them hold; of none, that is so.
    All(Vec<Self>),
    /// One of them holds; of none, that is not so.
    Any(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// The name, byte by byte.
    Name(Compare, Vec<u8>),
    /// The name matches a pattern with `*` and `?`.
    Glob(Pattern),
    /// A part of the name matches a regular expression.
    Regex(regex::bytes::Regex),
    /// Bytes.
    Size(Compare, u64),
    /// The time of the last change, in seconds since 1970.
    Modified(Compare, u32),
    /// Whether it is a directory.
    IsDirectory(bool),
}

impl Condition {
    /// Everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// A regular expression for names, as the crate `regex` has them.
    ///
    /// # Errors
    /// If it is none.
    pub fn regex(expression: &str) -> Result<Self, regex::Error> {
        regex::bytes::Regex::new(expression).map(Self::Regex)
    }

    /// Whether a file passes.
    #[must_use]
    pub fn accepts(&self, file: &FileInfo) -> bool {
        match self {
            Self::All(all) => all.iter().all(|condition| condition.accepts(file)),
            Self::Any(any) => any.iter().any(|condition| condition.accepts(file)),
            Self::Not(condition) => !condition.accepts(file),
            Self::Name(compare, name) => compare.holds(file.name.cmp(name)),
            Self::Glob(pattern) => pattern.matches(&file.name),
            Self::Regex(expression) => expression.is_match(&file.name),
            Self::Size(compare, size) => file.size.is_some_and(|own| compare.holds(own.cmp(size))),
            Self::Modified(compare, time) => file
                .modified
                .is_some_and(|own| compare.holds(own.cmp(time))),
            Self::IsDirectory(wanted) => file.is_directory == *wanted,
        }
    }
}

/// What files are sorted by; the path decides between those that are the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SortBy {
    /// The path.
    Path,
    /// Bytes, the fewest first.
    Size,
    /// The time of the last change, the oldest first.
    Modified,
}

/// Which files are wanted, in which order, and how many.
#[derive(Clone, Debug)]
pub struct Query {
    condition: Condition,
    recursive: bool,
    sort: Option<(SortBy, bool)>,
    skip: usize,
    limit: Option<usize>,
}

impl Query {
    /// What meets a condition; in no order, of the folder itself.
    #[must_use]
    pub const fn new(condition: Condition) -> Self {
        Self {
            condition,
            recursive: false,
            sort: None,
            skip: 0,
            limit: None,
        }
    }

    /// Whether the directories in the folder are searched, too. Default: no.
    #[must_use]
    pub const fn recursive(mut self, yes: bool) -> Self {
        self.recursive = yes;
        self
    }

    /// The order, the least first. Default: as the server tells them.
    #[must_use]
    pub const fn sort(mut self, by: SortBy) -> Self {
        self.sort = Some((by, false));
        self
    }

    /// The order, the greatest first.
    #[must_use]
    pub const fn sort_descending(mut self, by: SortBy) -> Self {
        self.sort = Some((by, true));
        self
    }

    /// How many are passed over, for pages. Default: none.
    #[must_use]
    pub const fn skip(mut self, files: usize) -> Self {
        self.skip = files;
        self
    }

    /// How many are wanted at most. Default: all.
    #[must_use]
    pub const fn limit(mut self, files: usize) -> Self {
        self.limit = Some(files);
        self
    }

    pub(super) const fn is_recursive(&self) -> bool {
        self.recursive
    }

    pub(super) fn accepts(&self, file: &FileInfo) -> bool {
        self.condition.accepts(file)
    }

    /// How many have to be found for the page to be full.
    fn wanted(&self) -> Option<usize> {
        self.limit.map(|limit| limit.saturating_add(self.skip))
    }

    /// Whether no more have to be looked for.
    pub(super) fn is_enough(&self, found: usize) -> bool {
        self.sort.is_none() && self.wanted().is_some_and(|wanted| found >= wanted)
    }

    /// How many of so many cannot be on the page, once it is worth sorting them out.
    pub(super) fn excess(&self, found: usize) -> Option<usize> {
        let excess = found.checked_sub(self.wanted()?)?;
        (excess >= SORT_SLACK).then_some(excess)
    }

    pub(super) fn in_order(&self, files: &mut [FileInfo]) {
        let Some((by_what, descending)) = self.sort else {
            return;
        };
        files.sort_unstable_by(|a, b| {
            let order = match by_what {
                SortBy::Path => Ordering::Equal,
                SortBy::Size => by(a.size, b.size),
                SortBy::Modified => by(a.modified, b.modified),
            };
            let order = order.then_with(|| a.path.cmp(&b.path));
            if descending { order.reverse() } else { order }
        });
    }

    pub(super) fn page(&self, files: Vec<FileInfo>) -> Vec<FileInfo> {
        let limit = self.limit.unwrap_or(usize::MAX);
        files.into_iter().skip(self.skip).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use ketch_protocol::{Attrs, FileType, RemotePath, Times};

    use super::*;

    fn file(path: &str, size: u64, modified: u32) -> FileInfo {
        let attrs = Attrs {
            size: Some(size),
            times: Some(Times {
                atime: 0,
                mtime: modified,
            }),
            ..Attrs::NONE
        };
        FileInfo::new(RemotePath::from(path), attrs, FileType::Regular)
    }

    #[test]
    fn conditions_nest() {
        let condition = Condition::All(vec![
            Condition::IsDirectory(false),
            Condition::Any(vec![
                Condition::Glob(Pattern::new("*.csv").unwrap()),
                Condition::regex("^r[0-9]+$").unwrap(),
            ]),
            Condition::Not(Box::new(Condition::Size(Compare::Less, 10))),
            Condition::Modified(Compare::Greater, 5),
            Condition::Name(Compare::NotEqual, b"x.csv".to_vec()),
        ]);
        let table = [
            (file("in/a.csv", 10, 6), true),
            (file("in/r17", 10, 6), true),
            (file("in/r17x", 10, 6), false),
            (file("in/a.csv", 9, 6), false),
            (file("in/a.csv", 10, 5), false),
            (file("in/x.csv", 10, 6), false),
        ];
        for (file, passes) in table {
            assert_eq!(condition.accepts(&file), passes, "{file:?}");
        }
        let unknown = FileInfo::new("a".into(), Attrs::NONE, FileType::Unknown);
        for compare in [
            Compare::Equal,
            Compare::NotEqual,
            Compare::Less,
            Compare::Greater,
        ] {
            assert!(!Condition::Size(compare, 0).accepts(&unknown));
        }
        assert!(Condition::everything().accepts(&unknown));
        assert!(!Condition::Any(Vec::new()).accepts(&unknown));
    }

    #[test]
    fn pages_are_in_order() {
        let mut files = vec![file("b", 1, 3), file("a", 1, 2), file("c", 0, 1)];
        let paths = |files: Vec<FileInfo>| -> Vec<_> {
            files
                .into_iter()
                .map(|file| file.path.to_string())
                .collect()
        };
        let query = Query::new(Condition::everything())
            .sort(SortBy::Size)
            .limit(2);
        query.in_order(&mut files);
        assert_eq!(paths(query.page(files.clone())), ["c", "a"]);
        let query = Query::new(Condition::everything())
            .sort_descending(SortBy::Modified)
            .skip(1);
        query.in_order(&mut files);
        assert_eq!(paths(query.page(files)), ["a", "c"]);
        let unsorted = Query::new(Condition::everything()).limit(2);
        assert!(unsorted.is_enough(2) && !query.is_enough(1_000_000));
    }
}
