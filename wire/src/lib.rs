//! The data types of SSH (RFC 4251 §5): bytes in, primitive values out, and back.
//!
//! This crate is the first layer of everything: SSH messages and SFTP packets are made of the
//! same few types. It does no I/O and knows no message.
//!
//! | RFC 4251 §5 | here | example bytes |
//! | --- | --- | --- |
//! | `byte` | `u8` | `2a` |
//! | `boolean` | `bool` | `01` |
//! | `uint32` | `u32` | `29 b7 f4 aa` |
//! | `uint64` | `u64` | `00 00 00 00 00 00 00 2a` |
//! | `string` | `&[u8]` | `00 00 00 02 68 69` |
//! | `mpint` | [`Mpint`] | `00 00 00 02 00 80` for 128 |
//! | `name-list` | [`NameList`] | `00 00 00 09 7a 6c 69 62 2c 6e 6f 6e 65` |
//!
//! A [`Reader`] lends slices of what it reads and never allocates; a [`Writer`] appends to a
//! vector that its owner keeps.
//!
//! ```
//! use ketch_wire::{Reader, Writer};
//!
//! let mut bytes = Vec::new();
//! let mut w = Writer::new(&mut bytes);
//! w.u32(7);
//! w.string(b"testing");
//!
//! let mut r = Reader::new(&bytes);
//! assert_eq!(r.u32(), Ok(7));
//! assert_eq!(r.string(16), Ok(&b"testing"[..]));
//! assert_eq!(r.finish(), Ok(()));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::arithmetic_side_effects
    )
)]

mod error;
mod mpint;
mod name_list;
mod reader;
mod writer;

pub use error::DecodeError;
pub use mpint::Mpint;
pub use name_list::{NAME_LEN_MAX, NAME_LIST_LEN_MAX, NAMES_MAX, NameList};
pub use reader::Reader;
pub use writer::Writer;
