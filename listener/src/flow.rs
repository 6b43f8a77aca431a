//! Flows: from a source through rules to sinks, each version of a file once.
//!
//! ```text
//!   detection ──Change──> ledger ──Claim──> fetch ──Content──> sinks ──> commit ──> after-action
//! ```
//!
//! [`item`] has what is carried. Feature `flows`.

pub mod item;
