//! What a flow carries: one version of one file, or the news that one is gone.
//!
//! Everything behind the ledger speaks of [`Item`]s: the engine claims them, sinks take them. What
//! stands in front of it (snapshot, settle) speaks of [`Change`]s, which become items when the
//! ledger has recorded them and given them their sequence number.

use std::fmt;
use std::sync::Arc;

use ketch_client::{FileType, RemotePath};

use crate::snapshot::Facts;

/// Longest name of a flow or a sink, in bytes.
pub const NAME_LEN_MAX: usize = 64;

/// The name of a flow: 1 to [`NAME_LEN_MAX`] letters, digits, `-`, `_` and `.`, beginning with a
/// letter or digit. It is part of every event's id and of names in the ledger.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowName(Arc<str>);

/// A name that no flow and no sink may have.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{0:?} is no name: 1 to 64 letters, digits, '-', '_' and '.', beginning with a letter or digit"
)]
pub struct BadName(String);

impl FlowName {
    /// Takes a name.
    ///
    /// # Errors
    /// [`BadName`].
    pub fn new(name: &str) -> Result<Self, BadName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let good = name.len() <= NAME_LEN_MAX
            && name.bytes().all(plain)
            && name
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric());
        if good {
            Ok(Self(name.into()))
        } else {
            Err(BadName(name.chars().take(80).collect()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FlowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FlowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What detection found of one path, settled: what the ledger is told.
///
/// Paths start below the source's root, without a slash at the front.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It was there when the flow began, and is not news.
    Baseline {
        /// Which.
        path: RemotePath,
        /// As it was seen.
        facts: Facts,
    },
    /// It is there, complete as far as the flow's rules can tell.
    Present {
        /// Which.
        path: RemotePath,
        /// As it was seen.
        facts: Facts,
        /// Its SHA-256, where the flow tells versions apart by content.
        sha256: Option<[u8; 32]>,
    },
    /// It is gone.
    Removed {
        /// Which.
        path: RemotePath,
    },
    /// It has another name, by size, time and the history of both names.
    Renamed {
        /// What it was called.
        from: RemotePath,
        /// What it is called.
        to: RemotePath,
        /// As it was seen under the new name.
        facts: Facts,
    },
}

impl Change {
    /// The path that it is about: of a rename, the new one.
    #[must_use]
    pub const fn path(&self) -> &RemotePath {
        match self {
            Self::Baseline { path, .. }
            | Self::Present { path, .. }
            | Self::Removed { path }
            | Self::Renamed { to: path, .. } => path,
        }
    }
}

/// What happened to a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ItemKind {
    /// Nothing was known of it.
    Created,
    /// Another version of it was known.
    Modified,
    /// It is gone. Carried only by flows that tell of removals.
    Removed,
    /// The same version was known under another name.
    Renamed {
        /// Which.
        from: RemotePath,
    },
}

impl ItemKind {
    /// The word for it in events, logs and tables.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Removed => "removed",
            Self::Renamed { .. } => "renamed",
        }
    }
}

/// One version of one file, or the news that it is gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    /// Whose it is.
    pub flow: FlowName,
    /// The ledger's number for it: rises with every version of any file of the flow, and is the same
    /// after every restart.
    pub sequence: u64,
    /// What happened.
    pub kind: ItemKind,
    /// The path below the source's root, without a slash at the front.
    pub path: RemotePath,
    /// As it was seen. Of what is removed: as it was last.
    pub facts: Facts,
    /// SHA-256 of its content, once it is known.
    pub sha256: Option<[u8; 32]>,
    /// When the ledger took it, in milliseconds since 1970 by the ledger's clock.
    pub recorded: u64,
}

impl Item {
    /// The id that every event about this item carries, in every attempt and after every restart.
    ///
    /// It is unique among the ledger's items: `<flow>-<sequence>`, the number in 16 hexadecimal
    /// digits so that ids sort as items follow each other.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{:016x}", self.flow, self.sequence)
    }

    /// Whether there is content to fetch: it is a file and it is there.
    #[must_use]
    pub fn has_content(&self) -> bool {
        self.facts.kind == FileType::Regular && self.kind != ItemKind::Removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "orders-2", "x.y_z", "0"] {
            assert_eq!(
                FlowName::new(good).map(|n| n.to_string()).ok(),
                Some(good.to_owned())
            );
        }
        for bad in ["", "-a", ".a", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(FlowName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_sort_as_their_items() {
        let item = |sequence| Item {
            flow: FlowName::new("in").expect("a name"),
            sequence,
            kind: ItemKind::Created,
            path: RemotePath::from("a"),
            facts: Facts {
                kind: FileType::Regular,
                size: Some(1),
                mtime: None,
            },
            sha256: None,
            recorded: 0,
        };
        assert_eq!(item(255).id(), "in-00000000000000ff");
        assert!(item(9).id() < item(10).id());
        assert!(item(u64::MAX - 1).id() < item(u64::MAX).id());
    }
}
