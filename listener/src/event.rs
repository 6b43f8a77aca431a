//! What the listener tells: something in the watched directory changed.

use ketch_client::{Attrs, RemotePath};

/// One change in a watched directory.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The watched directory's path with the name behind it.
    pub path: RemotePath,
    /// What the name was before, of [`EventKind::Renamed`] alone.
    pub from: Option<RemotePath>,
    /// What the server said of it when the change was seen; `None` if it is gone.
    pub attrs: Option<Attrs>,
}

/// What can happen to a name.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventKind {
    /// It is there now, and was not before.
    Created,
    /// Size or time of last change are others than before.
    Modified,
    /// It is not there any more.
    Removed,
    /// A file has another name than before, and is the same otherwise. Only where the server tells it
    /// and [`Watch::renames`](crate::Watch::renames) asks for it: else it is removed and created.
    Renamed,
    /// A new or changed file is complete, as [`Watch::settle`](crate::Watch::settle) defines it. Told
    /// after it was created or modified, once for each version.
    Settled,
}

impl EventKind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
            Self::Settled => "settled",
        }
    }
}
