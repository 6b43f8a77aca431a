//! What a server answers: six kinds of reply (draft-02 §7 and §8).

use std::fmt;

use crate::limits::{HANDLE_LEN_MAX, PACKET_LEN_MAX};
use crate::packet::encode_packet;
use crate::{
    DecodeError, Escaped, Names, PacketType, Reader, RequestId, Status, WireAttrs, Writer,
};

/// A reply to a request.
///
/// Which kinds may answer which request is said with each request; `Status` may answer all.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Response<'a> {
    /// How the request ended.
    Status(Status<'a>),
    /// A handle of an open file or directory: opaque bytes, at most [`HANDLE_LEN_MAX`].
    Handle(&'a [u8]),
    /// Bytes of a file. A [`ReplyDecoder`](crate::ReplyDecoder) hands them on in pieces instead.
    Data(Data<'a>),
    /// Names of files.
    Name(Names<'a>),
    /// Attributes of a file.
    Attrs(WireAttrs<'a>),
    /// What the extension that was asked for says it is, such as a
    /// [`StatVfs`](crate::StatVfs).
    ExtendedReply(&'a [u8]),
}

impl<'a> Response<'a> {
    /// Decodes the fields after the request id; bytes after the last one are passed over.
    ///
    /// # Errors
    /// [`DecodeError::BadValue`] if the type is no reply's, else what the fields have wrong.
    pub fn decode(packet_type: PacketType, mut r: Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match packet_type {
            PacketType::STATUS => Self::Status(Status::decode(r)?),
            PacketType::HANDLE => Self::Handle(r.string(HANDLE_LEN_MAX)?),
            PacketType::DATA => Self::Data(Data::decode(r)?),
            PacketType::NAME => Self::Name(Names::decode(r)?),
            PacketType::ATTRS => Self::Attrs(WireAttrs::decode_next(&mut r)?),
            PacketType::EXTENDED_REPLY => Self::ExtendedReply(r.take_rest()),
            _ => return Err(DecodeError::BadValue { field: "type" }),
        })
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        match self {
            Self::Status(status) => status.encode(w),
            Self::Handle(handle) => w.string(handle),
            Self::Data(data) => data.encode(w),
            Self::Name(names) => {
                w.u32(names.count());
                names.encode(w);
            }
            Self::Attrs(attrs) => attrs.encode(w),
            Self::ExtendedReply(data) => w.bytes(data),
        }
    }

    /// Appends the whole packet with the length in front.
    pub fn encode_packet(&self, id: RequestId, out: &mut Vec<u8>) {
        encode_packet(self.packet_type(), id, out, |w| self.encode(w));
    }

    /// The type of packet that carries it.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Status(_) => PacketType::STATUS,
            Self::Handle(_) => PacketType::HANDLE,
            Self::Data(_) => PacketType::DATA,
            Self::Name(_) => PacketType::NAME,
            Self::Attrs(_) => PacketType::ATTRS,
            Self::ExtendedReply(_) => PacketType::EXTENDED_REPLY,
        }
    }
}

impl fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Handle(handle) => f.debug_tuple("Handle").field(&Escaped(handle)).finish(),
            Self::Data(data) => data.fmt(f),
            Self::Name(names) => f.debug_tuple("Name").field(names).finish(),
            Self::Attrs(attrs) => attrs.fmt(f),
            Self::ExtendedReply(data) => {
                write!(f, "ExtendedReply({} bytes)", data.len())
            }
        }
    }
}

/// Bytes in a `DATA` packet before those of the file: length, type, id, length of the data.
pub const DATA_HEADER_LEN: usize = 13;

/// `SSH_FXP_DATA`: bytes of a file, the reply to `READ`.
///
/// Source: draft-ietf-secsh-filexfer-02 §7.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Data<'a> {
    /// The bytes, from the offset asked for on: at least one, at most as many as asked for.
    pub data: &'a [u8],
}

impl<'a> Data<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            data: r.string(PACKET_LEN_MAX)?,
        })
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { data } = *self;
        w.string(data);
    }

    /// The bytes of a packet that stand before `data_len` bytes of the file.
    ///
    /// # Panics
    /// If `data_len` is within nine bytes of 4 GiB; see [`DATA_LEN_MAX`](crate::limits::DATA_LEN_MAX).
    #[must_use]
    pub fn header(id: RequestId, data_len: u32) -> [u8; DATA_HEADER_LEN] {
        let length = data_len
            .checked_add(9)
            .expect("file data is shorter than a packet may be");
        let [l0, l1, l2, l3] = length.to_be_bytes();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        let [d0, d1, d2, d3] = data_len.to_be_bytes();
        [
            l0,
            l1,
            l2,
            l3,
            PacketType::DATA.0,
            i0,
            i1,
            i2,
            i3,
            d0,
            d1,
            d2,
            d3,
        ]
    }

    /// Appends the bytes of a packet that stand before `data_len` bytes of the file:
    /// [`DATA_HEADER_LEN`] of them.
    ///
    /// # Panics
    /// As [`Data::header`].
    pub fn encode_header(id: RequestId, data_len: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&Self::header(id, data_len));
    }
}

impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attrs, NameEntry, StatusCode};
    use proptest::prelude::*;

    #[test]
    fn replies_stand_as_draft_section_7_has_them() {
        let names = [NameEntry {
            filename: b"/",
            longname: b"",
            attrs: Attrs::NONE.into(),
        }];
        let table: [(Response<'_>, &[u8]); 6] = [
            (
                Response::Status(Status::with_message(StatusCode::EOF, "end")),
                b"\0\0\0\x14\x65\0\0\0\x07\0\0\0\x01\0\0\0\x03end\0\0\0\0",
            ),
            (
                Response::Handle(b"h1"),
                b"\0\0\0\x0b\x66\0\0\0\x07\0\0\0\x02h1",
            ),
            (
                Response::Data(Data { data: b"xyz" }),
                b"\0\0\0\x0c\x67\0\0\0\x07\0\0\0\x03xyz",
            ),
            (
                Response::Name(Names::new(&names)),
                b"\0\0\0\x16\x68\0\0\0\x07\0\0\0\x01\0\0\0\x01/\0\0\0\0\0\0\0\0",
            ),
            (
                Response::Attrs(Attrs::with_permissions(0o600).into()),
                b"\0\0\0\x0d\x69\0\0\0\x07\0\0\0\x04\0\0\x01\x80",
            ),
            (
                Response::ExtendedReply(b"any"),
                b"\0\0\0\x08\xc9\0\0\0\x07any",
            ),
        ];
        for (response, bytes) in table {
            let mut out = Vec::new();
            response.encode_packet(7, &mut out);
            assert_eq!(out, bytes, "{response:?}");
            let (packet_type, fields) = (PacketType(bytes[4]), Reader::new(&bytes[9..]));
            assert_eq!(packet_type, response.packet_type());
            assert_eq!(Response::decode(packet_type, fields), Ok(response));
        }
    }

    #[test]
    fn bytes_after_the_last_field_are_passed_over() {
        let table = [
            (Response::Handle(b"h"), &b"\0\0\0\x01h??"[..]),
            (Response::Attrs(Attrs::NONE.into()), b"\0\0\0\0\0\0\0\x09"),
            (Response::Data(Data { data: b"d" }), b"\0\0\0\x01d????"),
        ];
        for (response, bytes) in table {
            let read = Response::decode(response.packet_type(), Reader::new(bytes));
            assert_eq!(read, Ok(response));
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for packet_type in (0..=255).map(PacketType) {
            let is_reply = matches!(packet_type.0, 101..=105 | 201);
            let read = Response::decode(packet_type, Reader::new(&[0; 16]));
            assert_eq!(read.is_ok(), is_reply, "{packet_type}");
        }
    }

    #[test]
    fn a_handle_is_at_most_256_bytes() {
        for (len, ok) in [(HANDLE_LEN_MAX, true), (HANDLE_LEN_MAX + 1, false)] {
            let mut bytes = Vec::new();
            Writer::new(&mut bytes).string(&vec![7; len]);
            assert_eq!(
                Response::decode(PacketType::HANDLE, Reader::new(&bytes)).is_ok(),
                ok
            );
        }
    }

    proptest! {
        #[test]
        fn a_data_header_and_the_bytes_are_a_whole_packet(id in any::<u32>(), data in any::<Vec<u8>>()) {
            let mut whole = Vec::new();
            Response::Data(Data { data: &data }).encode_packet(id, &mut whole);
            let mut parts = Vec::new();
            Data::encode_header(id, u32::try_from(data.len()).unwrap(), &mut parts);
            prop_assert_eq!(parts.len(), DATA_HEADER_LEN);
            parts.extend_from_slice(&data);
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn every_data_survives_the_wire(data in any::<Vec<u8>>()) {
            assert_survives!(Data, Data { data: &data });
        }
    }
}
