//! Requests about open files: open, close, read, write, attributes by handle.

use super::{debug_fields, one_string};
use crate::limits::{HANDLE_LEN_MAX, PACKET_LEN_MAX, PATH_LEN_MAX};
use crate::{DecodeError, OpenFlags, PacketType, Reader, RequestId, WireAttrs, Writer};

/// `SSH_FXP_OPEN`: opens or creates a file.
///
/// The server answers with `Handle`, or with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.3.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Open<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
    /// What for.
    pub flags: OpenFlags,
    /// Attributes for a file that is created; servers ignore most of them for others.
    pub attrs: WireAttrs<'a>,
}

impl<'a> Open<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            path: r.string(PATH_LEN_MAX)?,
            flags: OpenFlags(r.u32()?),
            attrs: WireAttrs::decode_next(&mut r)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { path, flags, attrs } = *self;
        w.string(path);
        w.u32(flags.0);
        attrs.encode(w);
    }
}

debug_fields!(Open { esc path, val flags, val attrs });

/// `SSH_FXP_CLOSE`: closes a file or directory. The handle is gone even if the answer is a failure.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.3.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Close<'a> {
    /// Handle from `Open` or `Opendir`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
}

one_string!(Close, handle, HANDLE_LEN_MAX);
debug_fields!(Close { esc handle });

/// `SSH_FXP_READ`: asks for bytes of an open file.
///
/// The server answers with `Data` holding 1 to `len` bytes, or with `Status`: `EOF` where the file
/// has no byte at `offset`. Servers cap the length, so an answer may be short although the draft
/// promises whole reads of plain files.
/// Source: draft-ietf-secsh-filexfer-02 §6.4.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Read<'a> {
    /// Handle from `Open`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
    /// First byte wanted, counted from the start of the file.
    pub offset: u64,
    /// Bytes wanted.
    pub len: u32,
}

impl<'a> Read<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            handle: r.string(HANDLE_LEN_MAX)?,
            offset: r.u64()?,
            len: r.u32()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            handle,
            offset,
            len,
        } = *self;
        w.string(handle);
        w.u64(offset);
        w.u32(len);
    }
}

debug_fields!(Read { esc handle, val offset, val len });

/// `SSH_FXP_WRITE`: writes bytes into an open file. All of them are written, or it failed.
///
/// The server answers with `Status`. A [`RequestDecoder`](crate::RequestDecoder) hands the bytes on
/// in pieces instead of this struct; to send many bytes, write
/// [`encode_header`](Write::encode_header) and then the bytes.
/// Source: draft-ietf-secsh-filexfer-02 §6.4.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Write<'a> {
    /// Handle from `Open`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
    /// Where the first byte goes, counted from the start of the file.
    pub offset: u64,
    /// The bytes.
    pub data: &'a [u8],
}

impl<'a> Write<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            handle: r.string(HANDLE_LEN_MAX)?,
            offset: r.u64()?,
            data: r.string(PACKET_LEN_MAX)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            handle,
            offset,
            data,
        } = *self;
        w.string(handle);
        w.u64(offset);
        w.string(data);
    }

    /// Bytes of a packet before the data: length, type, id, handle, offset, length of the data.
    #[must_use]
    pub const fn header_len(handle_len: usize) -> usize {
        handle_len.saturating_add(25)
    }

    /// Appends the [`header_len`](Self::header_len) bytes of a packet that stand before `data_len`
    /// bytes of data.
    ///
    /// # Panics
    /// If the packet would be longer than 4 GiB; see [`DATA_LEN_MAX`](crate::limits::DATA_LEN_MAX).
    pub fn encode_header(
        id: RequestId,
        handle: &[u8],
        offset: u64,
        data_len: u32,
        out: &mut Vec<u8>,
    ) {
        let fields = u32::try_from(handle.len())
            .ok()
            .and_then(|len| len.checked_add(21));
        let length = fields.and_then(|len| len.checked_add(data_len));
        let mut w = Writer::new(out);
        w.u32(length.expect("a packet is shorter than 4 GiB"));
        w.u8(PacketType::WRITE.0);
        w.u32(id);
        w.string(handle);
        w.u64(offset);
        w.u32(data_len);
    }
}

impl std::fmt::Debug for Write<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Write")
            .field("handle", &crate::Escaped(self.handle))
            .field("offset", &self.offset)
            .field("data", &format_args!("{} bytes", self.data.len()))
            .finish()
    }
}

/// `SSH_FXP_FSTAT`: asks for the attributes of an open file.
///
/// The server answers with `Attrs`, or with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.8.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Fstat<'a> {
    /// Handle from `Open`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
}

one_string!(Fstat, handle, HANDLE_LEN_MAX);
debug_fields!(Fstat { esc handle });

/// `SSH_FXP_FSETSTAT`: sets attributes of an open file; a `size` truncates or extends it.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.9.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Fsetstat<'a> {
    /// Handle from `Open`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
    /// The attributes to set; what is missing stays as it is.
    pub attrs: WireAttrs<'a>,
}

impl<'a> Fsetstat<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            handle: r.string(HANDLE_LEN_MAX)?,
            attrs: WireAttrs::decode_next(&mut r)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { handle, attrs } = *self;
        w.string(handle);
        attrs.encode(w);
    }
}

debug_fields!(Fsetstat { esc handle, val attrs });
