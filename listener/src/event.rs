//! What the listener tells: something in the watched directory changed.

use ketch_client::{Attrs, RemotePath};

/// One change in a watched directory.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The watched directory's path with the name behind it.
    pub path: RemotePath,
    /// What the server said of it in the listing that showed the change; `None` if it is gone.
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
}
