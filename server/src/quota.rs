//! How much a user may keep: bytes and files.

/// How much a user may have in their tree.
///
/// Bytes are the lengths of all files, holes included, so that a file of one byte far behind its
/// start costs what it seems to. Files are names: of files, directories and links, a file with two
/// names twice. What was in the tree before, or came there by other ways, counts too: see
/// [`User::quota`](crate::User::quota).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Quota {
    /// Most bytes. Default: as many as one likes.
    pub bytes: Option<u64>,
    /// Most names of files, directories and links. Default: as many as one likes.
    pub files: Option<u64>,
}

impl Quota {
    /// At most so many bytes.
    #[must_use]
    pub const fn of_bytes(bytes: u64) -> Self {
        Self {
            bytes: Some(bytes),
            files: None,
        }
    }

    /// At most so many names, too.
    #[must_use]
    pub const fn files(mut self, files: u64) -> Self {
        self.files = Some(files);
        self
    }
}
