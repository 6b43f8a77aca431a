//! Proof that a listener loses nothing, doubles nothing and tears nothing, by somebody who does not
//! trust it.
//!
//! ```text
//!   Writer ──files──> served directory ──the listener──> sink ──Received──┐
//!      └─────────────journal──────────────────────────────────────────────┴──> Judge: lost, doubled, torn
//! ```
//!
//! | module | what it gives |
//! | --- | --- |
//! | [`content`] | files that tell by themselves whether they are whole |
//! | [`journal`] | what stood under which name, line by line |
//! | [`writer`] | creates, appends slowly, renames, replaces and removes, in an order that a seed decides |
//! | [`received`] | what arrived: in a directory, or as events |
//! | [`judge`] | one against the other |
//!
//! Nobody here looks into the listener's own ledger: a ledger that is wrong together with its listener
//! would agree with it.

pub mod content;
pub mod journal;
pub mod judge;
pub mod received;
pub mod writer;

pub use journal::Journal;
pub use judge::{Judge, Verdict};
pub use received::Delivery;
pub use writer::{Mix, Writer, WriterConfig, Written};
