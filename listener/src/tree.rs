//! A whole tree as it is known, and what to look at next.

mod file;

pub use file::{Snapshot, SnapshotError};
