//! A remote file that several channels read, or one after another: what is above them all.
//!
//! Whoever comes later makes sure that it opened the same version of the file: size and time have to
//! be those that the first one saw, or two versions would be spliced.

use ketch_protocol::{Attrs, RemotePath};

use super::{Local, file::Target};
use crate::transfer::{hands::Hands, plan};

/// A remote file that several may read.
pub(crate) struct Joint {
    pub path: RemotePath,
    /// What the first one was told.
    pub attrs: Attrs,
    pub depth: u8,
    /// Where the bytes go.
    pub(super) target: Target,
    /// Who reads it.
    pub hands: Hands,
}

impl Joint {
    /// What to name to begin with the file anew.
    pub(super) fn local(&self) -> Local {
        match &self.target {
            Target::File(created, tree) => Local::In(tree.clone(), created.name().to_owned()),
            Target::Sink(sink) => Local::Sink(sink.sink.clone()),
        }
    }

    /// Bytes that came and are to come again when it is begun anew.
    pub(super) fn came(&self) -> u64 {
        let size = self.attrs.size.unwrap_or(0);
        size.saturating_sub(self.hands.left())
    }
}

impl plan::Joint for Joint {
    fn hands(&self) -> &Hands {
        &self.hands
    }

    fn leftover(&self) -> Option<&RemotePath> {
        None
    }
}
