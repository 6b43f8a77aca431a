//! TOML checked along a schema made from the types: every mistake at once, each with its line, its
//! key and what is likely meant.
//!
//! ```text
//!   text ── toml ──> tree with places ── walk ──> JSON ── serde ──> tables, and where things stand
//!                                         ^                            |
//!                                         └──── schema (schemars) ─────┘
//! ```
//!
//! A program writes its tables as types with `serde` and `schemars`, with comments that people read in
//! their editors and on a [`page`]. [`Schema::read`] walks a file along the schema of these types, so
//! unknown keys, wrong types and bad values are all told, and not only the first. What types
//! cannot say (that files are there, that names fit each other) the program says afterwards, with
//! [`Places::fault`].
//!
//! ```
//! use std::path::Path;
//! use ketch_settings::{Period, Schema, WordKind};
//!
//! /// How long things may take.
//! #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Timeouts {
//!     /// Until a session is closed that does nothing.
//!     idle: Option<Period>,
//! }
//!
//! const WORDS: &[WordKind] = &[WordKind::of::<Period>()];
//! let schema = Schema::of::<Timeouts>(WORDS);
//! let faults = schema.read::<Timeouts>("idel = \"5s\"", Path::new("a.toml")).unwrap_err();
//! assert_eq!(
//!     faults.to_string(),
//!     "a.toml: line 1: idel: there is no such key; do you mean idle?",
//! );
//! ```
//!
//! | what | module |
//! | --- | --- |
//! | the walk | `check` |
//! | what was found wrong | `faults` |
//! | where things stand | `places` |
//! | times, sizes, addresses: what is written as text | [`words`] |
//! | passwords and tokens, and where they stand | `secret` |
//! | files that others may not write to or read | [`strict`] |
//! | the table of all keys for people | [`page`] |
#![forbid(unsafe_code)]

mod check;
mod faults;
pub mod page;
mod places;
mod secret;
#[cfg(unix)]
pub mod strict;
pub mod words;

pub use check::{Schema, nearest};
pub use faults::{Fault, Faults};
pub use places::{Places, below};
pub use secret::{SECRET_LEN_MAX, Secret};
pub use words::{Address, Moment, Period, Size, Word, WordKind};

#[doc(hidden)]
pub use {schemars, serde};
