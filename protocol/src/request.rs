//! What a client asks: the requests of draft-02 §6, and extensions (§8).
//!
//! One struct for each message, grouped as the draft's readers look for them: open files in
//! `request/file.rs`, directories in `request/dir.rs`, paths in `request/path.rs`.

mod dir;
mod file;
mod path;

pub use dir::{Mkdir, Opendir, Readdir, Rmdir};
pub use file::{Close, Fsetstat, Fstat, Open, Read, Write};
pub use path::{Lstat, Readlink, Realpath, Remove, Rename, Setstat, Stat, Symlink, SymlinkOrder};

use crate::packet::encode_packet;
use crate::{DecodeError, Extension, PacketType, Reader, RequestId, Writer};

macro_rules! requests {
    ($($name:ident = $packet_type:ident;)*) => {
        /// A request. Each may be answered by a `STATUS`; what else may answer is said with each.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Request<'a> {
            $(#[doc = concat!("`SSH_FXP_", stringify!($packet_type), "`.")]
            $name($name<'a>),)*
            /// `SSH_FXP_EXTENDED`: a request beyond the draft.
            Extended(Extension<'a>),
        }

        impl<'a> Request<'a> {
            /// Decodes the fields after the request id; bytes left over are an error.
            ///
            /// # Errors
            /// [`DecodeError::BadValue`] if the type is no request's, else what the fields have
            /// wrong.
            pub fn decode(packet_type: PacketType, r: Reader<'a>) -> Result<Self, DecodeError> {
                match packet_type {
                    $(PacketType::$packet_type => $name::decode(r).map(Self::$name),)*
                    PacketType::EXTENDED => Extension::decode(r).map(Self::Extended),
                    _ => Err(DecodeError::BadValue { field: "type" }),
                }
            }

            /// Appends the fields after the request id.
            pub fn encode(&self, w: &mut Writer<'_>) {
                match self {
                    $(Self::$name(request) => request.encode(w),)*
                    Self::Extended(extension) => extension.encode(w),
                }
            }

            /// The type of packet that carries it.
            #[must_use]
            pub const fn packet_type(&self) -> PacketType {
                match self {
                    $(Self::$name(_) => PacketType::$packet_type,)*
                    Self::Extended(_) => PacketType::EXTENDED,
                }
            }
        }

        $(impl<'a> From<$name<'a>> for Request<'a> {
            fn from(request: $name<'a>) -> Self {
                Self::$name(request)
            }
        })*
    };
}

requests! {
    Open = OPEN;
    Close = CLOSE;
    Read = READ;
    Write = WRITE;
    Lstat = LSTAT;
    Fstat = FSTAT;
    Setstat = SETSTAT;
    Fsetstat = FSETSTAT;
    Opendir = OPENDIR;
    Readdir = READDIR;
    Remove = REMOVE;
    Mkdir = MKDIR;
    Rmdir = RMDIR;
    Realpath = REALPATH;
    Stat = STAT;
    Rename = RENAME;
    Readlink = READLINK;
    Symlink = SYMLINK;
}

impl<'a> From<Extension<'a>> for Request<'a> {
    fn from(extension: Extension<'a>) -> Self {
        Self::Extended(extension)
    }
}

impl Request<'_> {
    /// Appends the whole packet with the length in front.
    pub fn encode_packet(&self, id: RequestId, out: &mut Vec<u8>) {
        encode_packet(self.packet_type(), id, out, |w| self.encode(w));
    }
}

/// Decode and encode of a request that is one string: `$field` of at most `$max` bytes.
macro_rules! one_string {
    ($name:ident, $field:ident, $max:ident) => {
        impl<'a> $name<'a> {
            /// Decodes the fields after the request id.
            ///
            /// # Errors
            /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
            pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
                let message = Self {
                    $field: r.string($max)?,
                };
                r.finish()?;
                Ok(message)
            }

            /// Appends the fields after the request id.
            pub fn encode(&self, w: &mut Writer<'_>) {
                let Self { $field } = *self;
                w.string($field);
            }
        }
    };
}
pub(crate) use one_string;

/// `Debug` of a message with byte strings that people should be able to read: `esc` fields are
/// shown as escaped text, `val` fields as they are.
macro_rules! debug_fields {
    ($name:ident { $($kind:ident $field:ident),* $(,)? }) => {
        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), debug_fields!(@$kind self.$field)))*
                    .finish()
            }
        }
    };
    (@esc $value:expr) => { &$crate::Escaped($value) };
    (@val $value:expr) => { &$value };
}
pub(crate) use debug_fields;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{HANDLE_LEN_MAX, PATH_LEN_MAX};
    use crate::{Attrs, OpenFlags, WireAttrs};
    use proptest::prelude::*;

    /// A packet with id 7: `fields` after length, type and id.
    fn packet(packet_type: u8, fields: &[u8]) -> Vec<u8> {
        let len = u32::try_from(fields.len() + 5).unwrap();
        [&len.to_be_bytes()[..], &[packet_type, 0, 0, 0, 7], fields].concat()
    }

    #[test]
    fn requests_stand_as_draft_section_6_has_them() {
        let attrs: WireAttrs<'_> = Attrs::with_permissions(0o700).into();
        let order = SymlinkOrder::OpenSsh;
        let table: [(Request<'_>, u8, &[u8]); 18] = [
            (
                Open {
                    path: b"/f",
                    flags: OpenFlags::READ | OpenFlags::CREATE,
                    attrs,
                }
                .into(),
                3,
                b"\0\0\0\x02/f\0\0\0\x09\0\0\0\x04\0\0\x01\xc0",
            ),
            (Close { handle: b"h" }.into(), 4, b"\0\0\0\x01h"),
            (
                Read {
                    handle: b"h",
                    offset: 1 << 32,
                    len: 0x8000,
                }
                .into(),
                5,
                b"\0\0\0\x01h\0\0\0\x01\0\0\0\0\0\0\x80\0",
            ),
            (
                Write {
                    handle: b"h",
                    offset: 2,
                    data: b"xyz",
                }
                .into(),
                6,
                b"\0\0\0\x01h\0\0\0\0\0\0\0\x02\0\0\0\x03xyz",
            ),
            (Lstat { path: b"/f" }.into(), 7, b"\0\0\0\x02/f"),
            (Fstat { handle: b"h" }.into(), 8, b"\0\0\0\x01h"),
            (
                Setstat { path: b"/f", attrs }.into(),
                9,
                b"\0\0\0\x02/f\0\0\0\x04\0\0\x01\xc0",
            ),
            (
                Fsetstat {
                    handle: b"h",
                    attrs,
                }
                .into(),
                10,
                b"\0\0\0\x01h\0\0\0\x04\0\0\x01\xc0",
            ),
            (Opendir { path: b"/" }.into(), 11, b"\0\0\0\x01/"),
            (Readdir { handle: b"h" }.into(), 12, b"\0\0\0\x01h"),
            (Remove { path: b"/f" }.into(), 13, b"\0\0\0\x02/f"),
            (
                Mkdir { path: b"/d", attrs }.into(),
                14,
                b"\0\0\0\x02/d\0\0\0\x04\0\0\x01\xc0",
            ),
            (Rmdir { path: b"/d" }.into(), 15, b"\0\0\0\x02/d"),
            (Realpath { path: b"." }.into(), 16, b"\0\0\0\x01."),
            (Stat { path: b"/f" }.into(), 17, b"\0\0\0\x02/f"),
            (
                Rename {
                    from: b"/a",
                    to: b"/b",
                }
                .into(),
                18,
                b"\0\0\0\x02/a\0\0\0\x02/b",
            ),
            (Readlink { path: b"/l" }.into(), 19, b"\0\0\0\x02/l"),
            (
                Symlink {
                    target: b"to",
                    link: b"/l",
                    order,
                }
                .into(),
                20,
                b"\0\0\0\x02to\0\0\0\x02/l",
            ),
        ];
        for (request, packet_type, fields) in table {
            let mut out = Vec::new();
            request.encode_packet(7, &mut out);
            assert_eq!(out, packet(packet_type, fields), "{request:?}");
            let read = Request::decode(PacketType(packet_type), Reader::new(fields));
            assert_eq!(read, Ok(request));

            let longer = [fields, b"?"].concat();
            let read = Request::decode(PacketType(packet_type), Reader::new(&longer));
            assert_eq!(read, Err(DecodeError::Trailing { len: 1 }), "{request:?}");
        }
    }

    #[test]
    fn a_symlink_in_the_drafts_order_names_the_link_first() {
        let draft = Symlink {
            target: b"to",
            link: b"/l",
            order: SymlinkOrder::Draft,
        };
        let mut out = Vec::new();
        draft.encode(&mut Writer::new(&mut out));
        assert_eq!(out, b"\0\0\0\x02/l\0\0\0\x02to");
        assert_eq!(
            Symlink::decode_in(SymlinkOrder::Draft, Reader::new(&out)),
            Ok(draft)
        );
    }

    #[test]
    fn the_longest_path_and_handle_are_read_and_no_longer() {
        for (len, ok) in [(PATH_LEN_MAX, true), (PATH_LEN_MAX + 1, false)] {
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).string(&vec![b'p'; len]);
            assert_eq!(Stat::decode(Reader::new(&bytes)).is_ok(), ok);
        }
        for (len, ok) in [(HANDLE_LEN_MAX, true), (HANDLE_LEN_MAX + 1, false)] {
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).string(&vec![b'h'; len]);
            assert_eq!(Close::decode(Reader::new(&bytes)).is_ok(), ok);
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for number in (0..3).chain(21..200).chain(201..=255) {
            let read = Request::decode(PacketType(number), Reader::new(&[0; 4]));
            assert_eq!(
                read,
                Err(DecodeError::BadValue { field: "type" }),
                "{number}"
            );
        }
    }

    fn handle() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..=HANDLE_LEN_MAX)
    }

    fn path() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..64)
    }

    fn attrs() -> impl Strategy<Value = WireAttrs<'static>> {
        any::<(Option<u64>, Option<u32>)>().prop_map(|(size, permissions)| {
            Attrs {
                size,
                permissions,
                ..Attrs::NONE
            }
            .into()
        })
    }

    proptest! {
        #[test]
        fn every_request_about_an_open_file_survives_the_wire(
            handle in handle(), path in path(), attrs in attrs(), flags in any::<u32>(),
            offset in any::<u64>(), len in any::<u32>(), data in path(),
        ) {
            assert_survives!(Open, Open { path: &path, flags: OpenFlags(flags), attrs });
            assert_survives!(Close, Close { handle: &handle });
            assert_survives!(Read, Read { handle: &handle, offset, len });
            assert_survives!(Write, Write { handle: &handle, offset, data: &data });
            assert_survives!(Fstat, Fstat { handle: &handle });
            assert_survives!(Fsetstat, Fsetstat { handle: &handle, attrs });
            assert_survives!(Readdir, Readdir { handle: &handle });
        }

        #[test]
        fn every_request_about_a_path_survives_the_wire(
            path in path(), other in path(), attrs in attrs(),
        ) {
            assert_survives!(Opendir, Opendir { path: &path });
            assert_survives!(Mkdir, Mkdir { path: &path, attrs });
            assert_survives!(Rmdir, Rmdir { path: &path });
            assert_survives!(Stat, Stat { path: &path });
            assert_survives!(Lstat, Lstat { path: &path });
            assert_survives!(Setstat, Setstat { path: &path, attrs });
            assert_survives!(Remove, Remove { path: &path });
            assert_survives!(Rename, Rename { from: &path, to: &other });
            assert_survives!(Readlink, Readlink { path: &path });
            assert_survives!(Realpath, Realpath { path: &path });
            let order = SymlinkOrder::OpenSsh;
            assert_survives!(Symlink, Symlink { target: &path, link: &other, order });
        }

        #[test]
        fn a_write_header_and_the_bytes_are_a_whole_packet(
            id in any::<u32>(), handle in handle(), offset in any::<u64>(), data in path(),
        ) {
            let mut whole = Vec::new();
            Request::Write(Write { handle: &handle, offset, data: &data })
                .encode_packet(id, &mut whole);
            let mut parts = Vec::new();
            let data_len = u32::try_from(data.len()).unwrap();
            Write::encode_header(id, &handle, offset, data_len, &mut parts);
            prop_assert_eq!(parts.len(), Write::header_len(handle.len()));
            parts.extend_from_slice(&data);
            prop_assert_eq!(parts, whole);
        }
    }
}
