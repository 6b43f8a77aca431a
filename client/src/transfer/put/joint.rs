//! A file that several channels upload, or one after another: what is above them all.
//!
//! Each has the temporary file open in its own right, takes ranges, and waits for the answers to all
//! it has written. The last one with an open handle sets attributes and gives the file its name,
//! once those who left have been told that their handles are closed. Who comes after a connection
//! was lost opens the same temporary file: it is ours.

use std::sync::atomic::AtomicBool;

use ketch_protocol::RemotePath;

use super::file::From;
use crate::transfer::{hands::Hands, local::Opened, plan};

/// A file that several may upload.
pub(crate) struct Joint {
    pub from: From,
    pub opened: Option<Opened>,
    pub path: RemotePath,
    pub temporary: RemotePath,
    /// Who writes it.
    pub hands: Hands,
    /// A lost connection was asked to remove the old file, and may still do so: what has the name
    /// then would go with it.
    pub may_be_cleared: AtomicBool,
}

impl plan::Joint for Joint {
    fn hands(&self) -> &Hands {
        &self.hands
    }

    fn leftover(&self) -> Option<&RemotePath> {
        Some(&self.temporary)
    }
}
