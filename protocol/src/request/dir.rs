//! Requests about directories.

use super::{debug_fields, one_string};
use crate::limits::{HANDLE_LEN_MAX, PATH_LEN_MAX};
use crate::{DecodeError, Reader, WireAttrs, Writer};

/// `SSH_FXP_OPENDIR`: opens a directory, to list it.
///
/// The server answers with `Handle`, or with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.7.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Opendir<'a> {
    /// Path of the directory, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Opendir, path, PATH_LEN_MAX);
debug_fields!(Opendir { esc path });

/// `SSH_FXP_READDIR`: asks for the next entries of a directory, in no order.
///
/// The server answers with `Name` holding one or more, or with `Status`: `EOF` after the last.
/// Source: draft-ietf-secsh-filexfer-02 §6.7.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Readdir<'a> {
    /// Handle from `Opendir`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
}

one_string!(Readdir, handle, HANDLE_LEN_MAX);
debug_fields!(Readdir { esc handle });

/// `SSH_FXP_MKDIR`: creates a directory.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.6.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Mkdir<'a> {
    /// Path of the directory, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
    /// Attributes of the directory.
    pub attrs: WireAttrs<'a>,
}

impl<'a> Mkdir<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            path: r.string(PATH_LEN_MAX)?,
            attrs: WireAttrs::decode_next(&mut r)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { path, attrs } = *self;
        w.string(path);
        attrs.encode(w);
    }
}

debug_fields!(Mkdir { esc path, val attrs });

/// `SSH_FXP_RMDIR`: removes an empty directory.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.6.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Rmdir<'a> {
    /// Path of the directory, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Rmdir, path, PATH_LEN_MAX);
debug_fields!(Rmdir { esc path });
