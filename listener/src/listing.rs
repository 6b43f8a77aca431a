//! What one complete reading of a directory brought, bounded in number and bytes.

use ketch_client::Attrs;

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
#[derive(Debug)]
pub struct Listing {
    entries: Vec<Listed>,
    names_len: usize,
    entries_max: usize,
}

impl Listing {
    /// An empty listing that takes at most `entries_max` names.
    #[must_use]
    pub const fn new(entries_max: usize) -> Self {
        Self {
            entries: Vec::new(),
            names_len: 0,
            entries_max,
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
        let is_name =
            !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
        if !is_name {
            return Ok(());
        }
        self.names_len = self.names_len.saturating_add(name.len());
        if self.entries.len() >= self.entries_max || self.names_len > NAMES_LEN_MAX {
            return Err(ListingTooLarge {
                entries_max: self.entries_max,
            });
        }
        self.entries.push(Listed {
            name: name.into(),
            attrs,
        });
        Ok(())
    }

    /// Sorts what came. Where a server sent a name twice, what it said last stands.
    #[must_use]
    pub fn finish(mut self) -> Self {
        // Stable and in reverse, so that of equal names the last one sent comes first and stays.
        self.entries.reverse();
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        self.entries
            .dedup_by(|later, earlier| later.name == earlier.name);
        self
    }

    /// The entries: sorted by name, each once, if the listing is finished.
    pub fn entries(&self) -> impl Iterator<Item = &Listed> {
        self.entries.iter()
    }

    /// The attributes of `name`, in a finished listing.
    #[must_use]
    pub fn attrs_of(&self, name: &[u8]) -> Option<Attrs> {
        let at = self
            .entries
            .binary_search_by(|listed| (*listed.name).cmp(name))
            .ok()?;
        self.entries.get(at).map(|listed| listed.attrs)
    }
}

/// One entry of a [`Listing`].
#[derive(Clone, Debug)]
pub struct Listed {
    name: Box<[u8]>,
    attrs: Attrs,
}

impl Listed {
    /// The name inside the directory.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The attributes the server sent with it.
    #[must_use]
    pub const fn attrs(&self) -> &Attrs {
        &self.attrs
    }
}

/// A directory holds more than the listener may keep.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("more than {entries_max} names, or more than {NAMES_LEN_MAX} bytes of them")]
pub struct ListingTooLarge {
    /// Names that may be kept.
    pub entries_max: usize,
}
