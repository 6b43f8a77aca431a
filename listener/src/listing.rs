//! What one complete reading of a directory brought, bounded in number and bytes.

use ketch_client::{Attrs, FileType};

/// Names that a watched directory may hold unless [`crate::Watch::entries_max`] says otherwise.
///
/// A million names of 40 bytes take about 100 MiB while they are compared.
pub const ENTRIES_MAX: usize = 1_000_000;

/// Bytes of all names of one directory together: 256 MiB.
pub const NAMES_LEN_MAX: usize = 256 << 20;

/// A directory's names and attributes, as they come from the server.
///
/// Push every entry, call [`Listing::finish`] at the end of the directory. A listing that broke
/// off is dropped: half a directory says nothing about what is gone.
///
/// All names lie in one buffer: a listing of a million entries is a few allocations.
#[derive(Clone, Debug)]
pub struct Listing {
    names: Vec<u8>,
    records: Vec<Record>,
    entries_max: usize,
    refused: u64,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    start: usize,
    len: usize,
    kind: FileType,
    attrs: Attrs,
}

impl Listing {
    /// An empty listing that takes at most `entries_max` names.
    #[must_use]
    pub const fn new(entries_max: usize) -> Self {
        Self {
            names: Vec::new(),
            records: Vec::new(),
            entries_max,
            refused: 0,
        }
    }

    /// Takes one entry, in whatever order the server sends them.
    ///
    /// `.` and `..` are left out, and so are names that are none: empty ones and those with a
    /// slash or a zero byte. They could only have been meant to lead somewhere else.
    ///
    /// # Errors
    /// [`ListingTooLarge`] if there are more names, or longer ones, than may be kept.
    pub fn push(&mut self, name: &[u8], attrs: Attrs) -> Result<(), ListingTooLarge> {
        self.push_typed(name, attrs.file_type(), attrs)
    }

    /// As [`Listing::push`], where something else than the attributes tells what sort of thing it is.
    ///
    /// # Errors
    /// [`ListingTooLarge`].
    pub fn push_typed(
        &mut self,
        name: &[u8],
        kind: FileType,
        attrs: Attrs,
    ) -> Result<(), ListingTooLarge> {
        if matches!(name, b"." | b"..") {
            return Ok(());
        }
        if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            self.refused = self.refused.saturating_add(1);
            return Ok(());
        }
        let start = self.names.len();
        if self.records.len() >= self.entries_max
            || start.saturating_add(name.len()) > NAMES_LEN_MAX
        {
            return Err(ListingTooLarge {
                entries_max: self.entries_max,
            });
        }
        self.names.extend_from_slice(name);
        self.records.push(Record {
            start,
            len: name.len(),
            kind,
            attrs,
        });
        Ok(())
    }

    /// Sorts what came. Where a server sent a name twice, what it said last stands.
    #[must_use]
    pub fn finish(mut self) -> Self {
        let names = &self.names;
        // Stable: of equal names, the last one sent comes last.
        self.records
            .sort_by(|a, b| name_of(names, a).cmp(name_of(names, b)));
        self.records.dedup_by(|later, earlier| {
            let same = name_of(names, later) == name_of(names, earlier);
            if same {
                *earlier = *later;
            }
            same
        });
        self
    }

    /// The entries: sorted by name, each once, if the listing is finished.
    pub fn entries(&self) -> impl Iterator<Item = Listed<'_>> {
        self.records.iter().map(|record| Listed {
            name: name_of(&self.names, record),
            kind: record.kind,
            attrs: &record.attrs,
        })
    }

    /// The attributes of `name`, in a finished listing.
    #[must_use]
    pub fn attrs_of(&self, name: &[u8]) -> Option<Attrs> {
        let at = self
            .records
            .binary_search_by(|record| name_of(&self.names, record).cmp(name))
            .ok()?;
        self.records.get(at).map(|record| record.attrs)
    }

    /// How many names there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of all names together.
    #[must_use]
    pub const fn names_len(&self) -> usize {
        self.names.len()
    }

    /// How many names were left out because they are none.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

fn name_of<'a>(names: &'a [u8], record: &Record) -> &'a [u8] {
    names
        .get(record.start..record.start.saturating_add(record.len))
        .unwrap_or_default()
}

/// One entry of a [`Listing`].
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    name: &'a [u8],
    kind: FileType,
    attrs: &'a Attrs,
}

impl<'a> Listed<'a> {
    /// The name inside the directory.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        self.name
    }

    /// What sort of thing it is.
    #[must_use]
    pub const fn kind(&self) -> FileType {
        self.kind
    }

    /// The attributes the server sent with it.
    #[must_use]
    pub const fn attrs(&self) -> &'a Attrs {
        self.attrs
    }
}

/// A directory holds more than the listener may keep.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("more than {entries_max} names, or more than {NAMES_LEN_MAX} bytes of them")]
pub struct ListingTooLarge {
    /// Names that may be kept.
    pub entries_max: usize,
}
