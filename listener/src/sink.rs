//! Where items go: a sink is one file below, and this trait is all that the engine knows of it.
//!
//! The engine delivers in three steps, with the ledger in between:
//!
//! ```text
//!   place(item) ──> Placement ──> ledger: placed ──> deliver(parcel) ──> ledger: delivered
//! ```
//!
//! After a crash, `deliver` is called again with the *same* placement. Sinks of content ([`Takes::content`])
//! must then leave one copy under that name; sinks of events may send again, with the same id.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use ketch_client::Kind;

use crate::flow::item::Item;
use crate::store::{Delivery, Placement, StoreError};
use fence::Fence;

mod append;
pub mod command;
pub mod directory;
pub mod event;
pub mod fence;
pub mod name;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "object-store")]
pub mod object;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod sftp;
pub mod stdout;
mod steps;
pub mod template;
#[cfg(test)]
pub(crate) mod trial;
#[cfg(feature = "webhook")]
pub mod webhook;

/// What a sink answers, when it has it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SinkError>> + Send + 'a>>;

/// A place where items go.
pub trait Sink: fmt::Debug + Send + Sync + 'static {
    /// Its name: unique in its flow, kept in the ledger, so not to be changed while items are under
    /// way.
    fn name(&self) -> &str;

    /// What it wants to get.
    fn takes(&self) -> Takes;

    /// Chooses where `item` goes. `refused` is an earlier choice that [`SinkError::Taken`] refused.
    /// Nothing that others look at is changed at the destination yet: a hidden file and the
    /// directories on the way to it may be made.
    fn place<'a>(&'a self, item: &'a Item, refused: Option<&'a Placement>)
    -> Answer<'a, Placement>;

    /// Puts the parcel's item where its placement says.
    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()>;

    /// Why no other process may deliver to the same place at the same time, if none may.
    fn alone(&self) -> Option<&'static str> {
        None
    }

    /// Whether a delivery to `placement`, which has not become visible, left something there that
    /// [`Sink::forget`] removes.
    fn waits<'a>(&'a self, placement: &'a Placement) -> Answer<'a, bool> {
        let _ = placement;
        Box::pin(async { Ok(false) })
    }

    /// The item was given up, for another version or for good: what a delivery to `placement` left
    /// half done may go. What it does not remove may stay.
    fn forget<'a>(&'a self, placement: &'a Placement) -> Answer<'a, ()> {
        let _ = placement;
        Box::pin(async { Ok(()) })
    }

    /// Whether the destination can be reached and written, as far as that can be told without
    /// leaving anything behind.
    fn check(&self) -> Answer<'_, ()>;
}

/// One item on its way into one sink.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<'a> {
    /// What it is.
    pub item: &'a Item,
    /// Where it goes: what [`Sink::place`] chose, maybe before a crash.
    pub placement: &'a Placement,
    /// Its bytes, if the flow fetched them: some sink of the flow takes content, and it has any.
    pub content: Option<&'a Content>,
    /// An earlier attempt with this placement may have got through.
    pub again: bool,
    /// Where the sinks before this one in the flow have put it: what an event can tell.
    pub earlier: &'a [Delivery],
    /// To be passed right before the step that makes it visible.
    pub fence: &'a Fence,
}

impl<'a> Parcel<'a> {
    /// The content, without which a sink of content has nothing to do.
    pub(crate) fn bytes(&self) -> Result<&'a Content, SinkError> {
        self.content.ok_or_else(|| SinkError::Failed {
            what: format!("there is no content of {}", self.item.path),
            kind: Kind::Local,
            source: "the item was handed over without it".into(),
        })
    }
}

/// What a sink wants to get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Takes {
    /// The bytes of files. A sink of content gets no directories, removals or renames.
    pub content: bool,
    /// News that paths are gone, if the flow has them.
    pub removals: bool,
    /// Directories that are new, if the flow has them.
    pub directories: bool,
}

impl Takes {
    /// Files with their bytes.
    pub const CONTENT: Self = Self {
        content: true,
        removals: false,
        directories: false,
    };
    /// Everything that happens, without bytes.
    pub const EVENTS: Self = Self {
        content: false,
        removals: true,
        directories: true,
    };
}

/// The bytes of an item, fetched whole and verified. They are not synced to disk: after a crash
/// they are fetched again, and whoever makes them durable is the sink.
#[derive(Clone, Debug)]
pub struct Content {
    /// The local file that holds them. Sinks read it, or make another link to it; they do not change
    /// or move it.
    pub path: PathBuf,
    /// Length in bytes.
    pub len: u64,
    /// SHA-256.
    pub sha256: [u8; 32],
}

/// Why a sink did not take an item.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The chosen name was taken by something else meanwhile: the engine asks for another one.
    #[error("{name} was taken meanwhile")]
    Taken {
        /// Which, for reading.
        name: String,
    },
    /// There is something of that name, and the flow says that this is an error.
    #[error("{name} exists already")]
    Exists {
        /// Which, for reading.
        name: String,
    },
    /// The item's path or its template gives no name that the destination can have.
    #[error("{name} cannot be a name there: {why}")]
    BadName {
        /// Which, for reading.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The destination asked to be left alone for a while.
    #[error("{what}")]
    Busy {
        /// What was attempted, on what, and what the answer was.
        what: String,
        /// For how long: nothing is gained by another attempt before.
        after: Duration,
    },
    /// It must not become visible any more: the claim on it is another's, or that cannot be told.
    #[error("it may not be delivered now")]
    Fenced(#[source] StoreError),
    /// The destination refused or could not be reached.
    #[error("{what}")]
    Failed {
        /// What was attempted, on what.
        what: String,
        /// What sort of failure it is: [`Kind::is_transient`] decides whether the wait is worth it.
        kind: Kind,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl SinkError {
    /// The claim is another's, or the flow has ended.
    pub(crate) const fn lost() -> Self {
        Self::Fenced(StoreError::Lost)
    }

    /// What sort of failure this is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Taken { .. } | Self::Exists { .. } => Kind::Exists,
            Self::BadName { .. } => Kind::Local,
            Self::Busy { .. } => Kind::Network,
            Self::Fenced(_) => Kind::Cancelled,
            Self::Failed { kind, .. } => *kind,
        }
    }

    /// How long the destination asked to be left alone, if it did.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => Some(*after),
            _ => None,
        }
    }
}
