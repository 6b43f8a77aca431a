//! The extensions of OpenSSH (its `PROTOCOL` file), and two that it took from
//! draft-ietf-secsh-filexfer-extensions-00: `copy-data` and `home-directory`.
//!
//! All `decode` and `encode` what comes after the name of the extension. `PROTOCOL` numbers its
//! sections anew from release to release: look there for the name.

use crate::limits::{HANDLE_LEN_MAX, PACKET_LEN_MAX, PATH_LEN_MAX, USER_NAME_LEN_MAX};
use crate::request::{debug_fields, one_string};
use crate::{DecodeError, List, Reader, WireAttrs, Writer};

/// `posix-rename@openssh.com`: renames; a file that has the new name is replaced in one step.
///
/// The server answers with `Status`. Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct PosixRename<'a> {
    /// The path as it is, at most [`PATH_LEN_MAX`] bytes.
    pub from: &'a [u8],
    /// The path as it shall be, at most [`PATH_LEN_MAX`] bytes.
    pub to: &'a [u8],
}

/// `hardlink@openssh.com`: gives a file a second name.
///
/// The server answers with `Status`. Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Hardlink<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub from: &'a [u8],
    /// The second path, at most [`PATH_LEN_MAX`] bytes.
    pub to: &'a [u8],
}

macro_rules! two_paths {
    ($name:ident) => {
        impl<'a> $name<'a> {
            /// Decodes the fields after the name of the extension.
            ///
            /// # Errors
            /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
            pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
                let message = Self { from: r.string(PATH_LEN_MAX)?, to: r.string(PATH_LEN_MAX)? };
                r.finish()?;
                Ok(message)
            }

            /// Appends the fields after the name of the extension.
            pub fn encode(&self, w: &mut Writer<'_>) {
                let Self { from, to } = *self;
                w.string(from);
                w.string(to);
            }
        }

        debug_fields!($name { esc from, esc to });
    };
}

two_paths!(PosixRename);
two_paths!(Hardlink);

/// `statvfs@openssh.com`: asks about the file system that holds a path.
///
/// The server answers with `ExtendedReply` holding a [`StatVfs`](crate::StatVfs), or with `Status`.
/// Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Statvfs<'a> {
    /// Any path on it, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(Statvfs, path, PATH_LEN_MAX);
debug_fields!(Statvfs { esc path });

/// `fstatvfs@openssh.com`: asks about the file system that holds an open file.
///
/// The server answers with `ExtendedReply` holding a [`StatVfs`](crate::StatVfs), or with `Status`.
/// Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Fstatvfs<'a> {
    /// Handle from `Open`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
}

one_string!(Fstatvfs, handle, HANDLE_LEN_MAX);
debug_fields!(Fstatvfs { esc handle });

/// `fsync@openssh.com`: brings what was written to an open file to the disk.
///
/// The server answers with `Status`. Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Fsync<'a> {
    /// Handle from `Open`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
}

one_string!(Fsync, handle, HANDLE_LEN_MAX);
debug_fields!(Fsync { esc handle });

/// `lsetstat@openssh.com`: sets attributes of a file, or of the link that is there.
///
/// The server answers with `Status`. Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Lsetstat<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
    /// The attributes to set; what is missing stays as it is.
    pub attrs: WireAttrs<'a>,
}

impl<'a> Lsetstat<'a> {
    /// Decodes the fields after the name of the extension.
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

    /// Appends the fields after the name of the extension.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { path, attrs } = *self;
        w.string(path);
        attrs.encode(w);
    }
}

debug_fields!(Lsetstat { esc path, val attrs });

/// `expand-path@openssh.com`: asks for the absolute path of a path that may begin with `~`.
///
/// The server answers with `Name` of one entry, or with `Status`. Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ExpandPath<'a> {
    /// A path, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
}

one_string!(ExpandPath, path, PATH_LEN_MAX);
debug_fields!(ExpandPath { esc path });

/// `copy-data`: copies bytes from one open file to another, on the server.
///
/// The server answers with `Status`. Source: OpenSSH `PROTOCOL`,
/// draft-ietf-secsh-filexfer-extensions-00 §7.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct CopyData<'a> {
    /// Handle of the file to read, at most [`HANDLE_LEN_MAX`] bytes.
    pub from: &'a [u8],
    /// First byte to copy, counted from the start of the file.
    pub from_offset: u64,
    /// Bytes to copy; 0 for all up to the end of the file.
    pub len: u64,
    /// Handle of the file to write, at most [`HANDLE_LEN_MAX`] bytes.
    pub to: &'a [u8],
    /// Where the first byte goes, counted from the start of the file.
    pub to_offset: u64,
}

impl<'a> CopyData<'a> {
    /// Decodes the fields after the name of the extension.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            from: r.string(HANDLE_LEN_MAX)?,
            from_offset: r.u64()?,
            len: r.u64()?,
            to: r.string(HANDLE_LEN_MAX)?,
            to_offset: r.u64()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the name of the extension.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            from,
            from_offset,
            len,
            to,
            to_offset,
        } = *self;
        w.string(from);
        w.u64(from_offset);
        w.u64(len);
        w.string(to);
        w.u64(to_offset);
    }
}

debug_fields!(CopyData { esc from, val from_offset, val len, esc to, val to_offset });

/// `home-directory`: asks for the home directory of a user.
///
/// The server answers with `Name` of one entry, or with `Status`. Source: OpenSSH `PROTOCOL`,
/// draft-ietf-secsh-filexfer-extensions-00 §5.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct HomeDirectory<'a> {
    /// Name of the user, at most [`USER_NAME_LEN_MAX`] bytes; empty for who is logged in.
    pub user: &'a [u8],
}

one_string!(HomeDirectory, user, USER_NAME_LEN_MAX);
debug_fields!(HomeDirectory { esc user });

/// `users-groups-by-id@openssh.com`: asks for the names of users and groups.
///
/// The server answers with `ExtendedReply` holding a [`UsersGroups`](crate::UsersGroups), or with
/// `Status`. Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UsersGroupsById<'a> {
    /// Numbers of users.
    pub uids: List<'a, u32>,
    /// Numbers of groups.
    pub gids: List<'a, u32>,
}

impl<'a> UsersGroupsById<'a> {
    /// Decodes the fields after the name of the extension.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let mut ids =
            || List::decode_to_end(Reader::new(r.string(PACKET_LEN_MAX)?), PACKET_LEN_MAX);
        let message = Self {
            uids: ids()?,
            gids: ids()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the name of the extension.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { uids, gids } = *self;
        w.scope(|w| uids.encode(w));
        w.scope(|w| gids.encode(w));
    }
}
