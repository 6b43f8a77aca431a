//! One directory as it was seen: every name with the facts that tell whether it changed.
//!
//! A snapshot is what the listener remembers between two listings, so it is compact: all names
//! lie in one buffer, sorted by their bytes, and each has one record of 32 bytes.

use ketch_client::{Attrs, FileType};

use crate::listing::Listing;

/// A directory as it was seen, sorted by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// All names, one behind the other in the order of `records`.
    names: Vec<u8>,
    records: Vec<Record>,
}

impl Snapshot {
    /// The snapshot that a complete listing shows.
    #[must_use]
    pub fn of(listing: &Listing) -> Self {
        Self::collect(
            listing
                .entries()
                .map(|listed| (listed.name(), Facts::of(listed.attrs()), 0)),
        )
    }

    /// This snapshot, brought up to date by the next complete one.
    ///
    /// Names in `seen` are taken as they are there. A name that `seen` lacks stays until it was
    /// missing in `missing_polls` complete listings in a row: servers list directories that change
    /// meanwhile, and one that is replaced by a rename may be passed over by a listing although it
    /// was there all the time.
    #[must_use]
    pub fn updated(&self, seen: &Self, missing_polls: u8) -> Self {
        let mut before = self.entries_with_missed().peekable();
        let mut now = seen.entries().peekable();
        Self::collect(std::iter::from_fn(|| {
            loop {
                let missing = match (before.peek(), now.peek()) {
                    (Some((old, _)), Some(new)) if old.name == new.name => {
                        before.next();
                        false
                    }
                    (Some((old, _)), Some(new)) => old.name < new.name,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if !missing {
                    return now.next().map(|entry| (entry.name, entry.facts, 0));
                }
                let (entry, missed) = before.next()?;
                let missed = missed.saturating_add(1);
                if missed < missing_polls {
                    return Some((entry.name, entry.facts, missed));
                }
            }
        }))
    }

    /// This snapshot with a single name as a look at it showed it: there, or gone.
    #[must_use]
    pub(crate) fn with(&self, name: &[u8], facts: Option<Facts>) -> Self {
        let of_name = |order: fn(&[u8], &[u8]) -> bool| {
            self.entries_with_missed()
                .filter(move |(entry, _)| order(entry.name, name))
                .map(|(entry, missed)| (entry.name, entry.facts, missed))
        };
        let looked = facts.map(|facts| (name, facts, 0));
        Self::collect(
            of_name(|a, b| a < b)
                .chain(looked)
                .chain(of_name(|a, b| a > b)),
        )
    }

    /// The entries, in the order of their names.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.entries_with_missed().map(|(entry, _)| entry)
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn entries_with_missed(&self) -> impl Iterator<Item = (Entry<'_>, u8)> {
        let mut rest = self.names.as_slice();
        self.records.iter().map(move |record| {
            let (name, after) = rest
                .split_at_checked(record.name_len as usize)
                .unwrap_or_default();
            rest = after;
            let facts = Facts {
                kind: record.kind,
                size: record.size,
                mtime: record.mtime,
            };
            (Entry { name, facts }, record.missed)
        })
    }

    /// `entries` must come sorted, each name once.
    fn collect<'a>(entries: impl Iterator<Item = (&'a [u8], Facts, u8)>) -> Self {
        let mut snapshot = Self::default();
        for (name, Facts { kind, size, mtime }, missed) in entries {
            // A `Listing` takes no name that is longer; the alternative would be to cut it.
            let Ok(name_len) = u32::try_from(name.len()) else {
                continue;
            };
            snapshot.names.extend_from_slice(name);
            snapshot.records.push(Record {
                size,
                mtime,
                name_len,
                kind,
                missed,
            });
        }
        snapshot
    }
}

/// One name of a [`Snapshot`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry<'a> {
    /// The name inside its directory: bytes, without a slash.
    pub name: &'a [u8],
    /// What was seen of it.
    pub facts: Facts,
}

/// What tells one version of a file from another.
///
/// SFTP v3 gives times in whole seconds (draft-ietf-secsh-filexfer-02 §5), so a file that is
/// rewritten within the second of its last change, with the same size, looks the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts {
    /// What sort of thing has the name.
    pub kind: FileType,
    /// Size in bytes. Not kept for directories; servers may hide it.
    pub size: Option<u64>,
    /// Time of last change by the server's clock, in seconds since 1970. Only ever compared for
    /// equality: clocks jump and differ. Not kept for directories; servers may hide it.
    pub mtime: Option<u32>,
}

impl Facts {
    /// What of `attrs` is compared.
    ///
    /// Size and time of a directory change whenever something inside it does. That is a change of
    /// that directory's own listing, not of this one, so they are left out.
    #[must_use]
    pub fn of(attrs: &Attrs) -> Self {
        Self::typed(attrs.file_type(), attrs)
    }

    /// The same of a thing that is `kind`, as something else than its attributes told.
    #[must_use]
    pub fn typed(kind: FileType, attrs: &Attrs) -> Self {
        if kind == FileType::Directory {
            return Self {
                kind,
                size: None,
                mtime: None,
            };
        }
        Self {
            kind,
            size: attrs.size,
            mtime: attrs.times.map(|times| times.mtime),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Record {
    size: Option<u64>,
    mtime: Option<u32>,
    name_len: u32,
    kind: FileType,
    /// In how many complete listings in a row the name was missing; 0 if the last one had it.
    missed: u8,
}
