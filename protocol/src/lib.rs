//! SFTP version 3 and the OpenSSH extensions: a codec that does no I/O.
//!
//! SFTP (draft-ietf-secsh-filexfer-02) runs over any byte stream: an SSH channel, or the pipes of
//! an `sftp-server` program. Each side writes packets:
//!
//! ```text
//! uint32 length | byte type | uint32 id      | fields …        every request and reply
//! uint32 length | byte type | uint32 version | pairs …         INIT and VERSION, once each
//! ```
//!
//! A client numbers its requests and may send many before the first reply; the replies carry the
//! number and come in any order.
//!
//! | what | where |
//! | --- | --- |
//! | greeting: [`Init`], [`Version`], what the server can do ([`ExtensionSet`]) | `version`, `extension` |
//! | the 19 kinds of [`Request`] | `request` |
//! | OpenSSH's extensions as types: [`Extension`], [`StatVfs`], [`ServerLimits`], … | `extension` |
//! | the six kinds of [`Response`], [`StatusCode`], [`NameEntry`] | `response`, `status`, `name` |
//! | what both speak of: [`Attrs`], [`OpenFlags`], [`RemotePath`] | `attrs`, `open_flags`, `path` |
//! | bytes in, events out: [`ReplyDecoder`] (client), [`RequestDecoder`] (server) | `decoder` |
//!
//! # How bytes are read
//!
//! The decoders never assemble the body of a `DATA` or `WRITE` packet: its bytes are lent where
//! they lie in the input. Other messages are decoded in place as well; only those that the end of
//! the input cuts are collected in one buffer, which grows with the bytes that arrive and never by
//! a length that the peer names. Lists ([`Names`], [`Pairs`]) are checked once and decoded again
//! as they are walked.
//!
//! Requests are held to the letter: bytes left over are an error. Replies are read as servers
//! write them: the texts of a `STATUS` may be missing, unknown status codes are kept, and bytes
//! after the last field are passed over.
//!
//! ```
//! use ketch_protocol::{Read, ReplyDecoder, ReplyEvent, Request, Response, Status, StatusCode};
//! use ketch_protocol::{Limits, PROTOCOL_VERSION, Pairs, Version};
//!
//! // The client asks …
//! let mut sent = Vec::new();
//! let read = Read { handle: b"h1", offset: 0, len: 32768 };
//! Request::Read(read).encode_packet(7, &mut sent);
//!
//! // … and the server answers.
//! let mut came = Vec::new();
//! Version { version: PROTOCOL_VERSION, extensions: Pairs::EMPTY }.encode_packet(&mut came);
//! Response::Status(Status::new(StatusCode::EOF)).encode_packet(7, &mut came);
//!
//! let mut decoder = ReplyDecoder::new(Limits::default());
//! let mut input = &came[..];
//! let mut ids = Vec::new();
//! loop {
//!     let step = decoder.next(input)?;
//!     input = &input[step.consumed..];
//!     match step.event {
//!         Some(ReplyEvent::Reply { id, .. }) => ids.push(id),
//!         Some(_) => {}
//!         None => break,
//!     }
//! }
//! assert_eq!(ids, [7]);
//! # Ok::<(), ketch_protocol::ProtocolError>(())
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

#[cfg(test)]
#[macro_use]
mod laws;

mod attrs;
mod decoder;
mod error;
mod escaped;
mod extension;
mod framer;
pub mod limits;
mod list;
mod name;
mod open_flags;
mod packet;
mod path;
mod request;
mod response;
mod status;
mod version;

pub use attrs::{Attrs, FileType, Owner, Times, WireAttrs};
pub use decoder::{Refusal, ReplyDecoder, ReplyEvent, RequestDecoder, RequestEvent, Step};
pub use error::ProtocolError;
pub use escaped::Escaped;
pub use extension::{
    CHECK_FILE, CheckFileHandle, CheckFileName, CheckFileReply, CopyData, ExpandPath, Extension,
    ExtensionName, ExtensionSet, Fstatvfs, Fsync, Hardlink, HashAlgorithm, HomeDirectory, Lsetstat,
    PosixRename, ServerLimits, StatVfs, Statvfs, UsersGroups, UsersGroupsById, WATCH_EVENTS_MAX,
    Watch, WatchEvent, WatchKind, WatchKinds, WatchRead, WatchReply,
};
pub use ketch_wire::{DecodeError, Reader, Writer};
pub use limits::Limits;
pub use list::{Element, List, ListIter};
pub use name::{NameEntry, Names, NamesWriter};
pub use open_flags::OpenFlags;
pub use packet::{PacketType, RequestId};
pub use path::RemotePath;
pub use request::{
    Close, Fsetstat, Fstat, Lstat, Mkdir, Open, Opendir, Read, Readdir, Readlink, Realpath, Remove,
    Rename, Request, Rmdir, Setstat, Stat, Symlink, SymlinkOrder, Write,
};
pub use response::{DATA_HEADER_LEN, Data, Response};
pub use status::{Status, StatusCode};
pub use version::{Init, PROTOCOL_VERSION, Pair, Pairs, Version};
