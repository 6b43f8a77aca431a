//! Requests that name a file by its path.

use super::{debug_fields, one_string};
use crate::limits::PATH_LEN_MAX;
use crate::{DecodeError, Reader, WireAttrs, Writer};

/// `SSH_FXP_STAT`: asks for the attributes of a file; links are followed.
///
/// The server answers with `Attrs`, or with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.8.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Stat<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Stat, path, PATH_LEN_MAX);
debug_fields!(Stat { esc path });

/// `SSH_FXP_LSTAT`: asks for the attributes of a file, or of the link that is there.
///
/// The server answers with `Attrs`, or with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.8.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Lstat<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Lstat, path, PATH_LEN_MAX);
debug_fields!(Lstat { esc path });

/// `SSH_FXP_SETSTAT`: sets attributes of a file; a `size` truncates or extends it.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.9.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Setstat<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
    /// The attributes to set; what is missing stays as it is.
    pub attrs: WireAttrs<'a>,
}

impl<'a> Setstat<'a> {
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

debug_fields!(Setstat { esc path, val attrs });

/// `SSH_FXP_REMOVE`: removes a file, not a directory.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.5.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Remove<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Remove, path, PATH_LEN_MAX);
debug_fields!(Remove { esc path });

/// `SSH_FXP_RENAME`: renames a file or directory.
///
/// It is an error if `to` exists (§6.5), but servers differ; with
/// [`PosixRename`](crate::PosixRename) the old file is replaced in one step.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.5.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Rename<'a> {
    /// The path as it is, at most [`PATH_LEN_MAX`] bytes.
    pub from: &'a [u8],
    /// The path as it shall be, at most [`PATH_LEN_MAX`] bytes.
    pub to: &'a [u8],
}

impl<'a> Rename<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            from: r.string(PATH_LEN_MAX)?,
            to: r.string(PATH_LEN_MAX)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { from, to } = *self;
        w.string(from);
        w.string(to);
    }
}

debug_fields!(Rename { esc from, esc to });

/// `SSH_FXP_READLINK`: asks where a link points.
///
/// The server answers with `Name` of one entry that has no attributes worth reading, or with
/// `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.10.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Readlink<'a> {
    /// Path of the link, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Readlink, path, PATH_LEN_MAX);
debug_fields!(Readlink { esc path });

/// `SSH_FXP_REALPATH`: asks for the absolute path of a path.
///
/// The server answers with `Name` of one entry that has no attributes worth reading, or with
/// `Status`. The path `.` gives the directory where the session starts.
/// Source: draft-ietf-secsh-filexfer-02 §6.11.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Realpath<'a> {
    /// A path, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Realpath, path, PATH_LEN_MAX);
debug_fields!(Realpath { esc path });

/// `SSH_FXP_SYMLINK`: creates a link.
///
/// The server answers with `Status`.
/// Source: draft-ietf-secsh-filexfer-02 §6.10, and OpenSSH's `PROTOCOL` for the order.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Symlink<'a> {
    /// Where the link shall point: its content, at most [`PATH_LEN_MAX`] bytes.
    pub target: &'a [u8],
    /// Path of the link that is created, at most [`PATH_LEN_MAX`] bytes.
    pub link: &'a [u8],
    /// Which of the two goes first over the wire.
    pub order: SymlinkOrder,
}

/// The order in which a `SYMLINK` carries its paths: nothing in the packet tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SymlinkOrder {
    /// `target`, then `link`: OpenSSH's old mistake, which most servers and clients share.
    #[default]
    OpenSsh,
    /// `link`, then `target`, as the draft has it.
    Draft,
}

impl<'a> Symlink<'a> {
    /// Decodes the fields after the request id, in OpenSSH's order.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(r: Reader<'a>) -> Result<Self, DecodeError> {
        Self::decode_in(SymlinkOrder::OpenSsh, r)
    }

    /// Decodes the fields after the request id, in the given order.
    ///
    /// # Errors
    /// As [`Symlink::decode`].
    pub fn decode_in(order: SymlinkOrder, mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let (first, second) = (r.string(PATH_LEN_MAX)?, r.string(PATH_LEN_MAX)?);
        r.finish()?;
        Ok(match order {
            SymlinkOrder::OpenSsh => Self {
                target: first,
                link: second,
                order,
            },
            SymlinkOrder::Draft => Self {
                link: first,
                target: second,
                order,
            },
        })
    }

    /// Appends the fields after the request id.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            target,
            link,
            order,
        } = *self;
        let (first, second) = match order {
            SymlinkOrder::OpenSsh => (target, link),
            SymlinkOrder::Draft => (link, target),
        };
        w.string(first);
        w.string(second);
    }
}

debug_fields!(Symlink { esc target, esc link, val order });
