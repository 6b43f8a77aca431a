//! What a request is refused with, and the table from [`io::Error`] to status.
//!
//! Version 3 has eight codes (draft-ietf-secsh-filexfer-02 §7), so the text beside the code says
//! what the code cannot. Texts come from this table and nowhere else: an error's own text may
//! name things that are none of the client's business.

use std::io::{self, ErrorKind};

use ketch_protocol::{Status, StatusCode};

use crate::path::BadPath;

/// A status other than OK.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: StatusCode,
    pub(crate) text: &'static str,
}

impl Refusal {
    pub(crate) const END_OF_FILE: Self = Self::plain(StatusCode::EOF);
    pub(crate) const BAD_HANDLE: Self = Self::new(StatusCode::FAILURE, "no such handle");
    pub(crate) const WRONG_HANDLE: Self =
        Self::new(StatusCode::FAILURE, "the handle is not open for this");
    pub(crate) const HANDLES: Self = Self::new(StatusCode::FAILURE, "too many open handles");
    pub(crate) const DENIED: Self = Self::plain(StatusCode::PERMISSION_DENIED);
    pub(crate) const READ_ONLY: Self =
        Self::new(StatusCode::PERMISSION_DENIED, "this user may only read");
    pub(crate) const NOT_ALLOWED: Self =
        Self::new(StatusCode::PERMISSION_DENIED, "not allowed here");
    pub(crate) const HAS_RULES_BENEATH: Self = Self::new(
        StatusCode::PERMISSION_DENIED,
        "a directory with other rights beneath cannot be renamed",
    );
    pub(crate) const ARRIVED: Self = Self::new(
        StatusCode::PERMISSION_DENIED,
        "the file has arrived and cannot be changed",
    );
    pub(crate) const STILL_OPEN: Self =
        Self::new(StatusCode::FAILURE, "the file is still open to be written");
    pub(crate) const OWNER: Self = Self::new(
        StatusCode::PERMISSION_DENIED,
        "owners cannot be changed here",
    );
    pub(crate) const LINKS_OFF: Self =
        Self::new(StatusCode::PERMISSION_DENIED, "links cannot be made here");
    pub(crate) const LINK_LEAVES: Self = Self::new(
        StatusCode::PERMISSION_DENIED,
        "the link would lead out of the root",
    );
    pub(crate) const TOO_LARGE: Self = Self::new(StatusCode::FAILURE, "file too large");
    pub(crate) const TRUNCATES_UNWRITTEN: Self = Self::new(
        StatusCode::FAILURE,
        "a file that is not opened to write cannot be emptied",
    );
    pub(crate) const SAME_FILE: Self =
        Self::new(StatusCode::FAILURE, "source and target are the same file");
    pub(crate) const NO_ALGORITHM: Self =
        Self::new(StatusCode::FAILURE, "none of these hashes is computed here");
    pub(crate) const SHORT_BLOCKS: Self =
        Self::new(StatusCode::FAILURE, "blocks of less than 256 bytes");
    pub(crate) const MANY_BLOCKS: Self =
        Self::new(StatusCode::FAILURE, "too many blocks for one reply");
    pub(crate) const WATCHES: Self =
        Self::new(StatusCode::FAILURE, "no more directories can be watched");
    pub(crate) const NO_DIRECTORY: Self = Self::new(StatusCode::FAILURE, "not a directory");
    pub(crate) const READ_ALREADY: Self = Self::new(
        StatusCode::FAILURE,
        "the subscription is being read already",
    );
    pub(crate) const CLOSED_MEANWHILE: Self =
        Self::new(StatusCode::FAILURE, "the handle was closed meanwhile");
    pub(crate) const NO_SUCH_USER: Self =
        Self::new(StatusCode::FAILURE, "only the own home directory is known");
    pub(crate) const NO_SUCH_FILE: Self = Self::plain(StatusCode::NO_SUCH_FILE);
    pub(crate) const NOT_PERMITTED: Self = Self::new(
        StatusCode::PERMISSION_DENIED,
        "this server does not take such requests",
    );
    pub(crate) const UNSUPPORTED: Self = Self::plain(StatusCode::OP_UNSUPPORTED);
    pub(crate) const BAD_MESSAGE: Self = Self::plain(StatusCode::BAD_MESSAGE);
    /// A file system answered with something else than was asked for.
    pub(crate) const CONFUSED: Self = Self::new(StatusCode::FAILURE, "internal error");

    const fn new(code: StatusCode, text: &'static str) -> Self {
        Self { code, text }
    }

    const fn plain(code: StatusCode) -> Self {
        Self {
            code,
            text: code.text(),
        }
    }

    pub(crate) const fn status(self) -> Status<'static> {
        Status::with_message(self.code, self.text)
    }
}

impl From<&io::Error> for Refusal {
    fn from(error: &io::Error) -> Self {
        use StatusCode as Code;
        match error.kind() {
            // OpenSSH's server answers so to all of these; clients ask "is it there?" by it.
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::plain(Code::NO_SUCH_FILE),
            ErrorKind::PermissionDenied => Self::DENIED,
            ErrorKind::ReadOnlyFilesystem => {
                Self::new(Code::PERMISSION_DENIED, "read-only file system")
            }
            ErrorKind::UnexpectedEof => Self::END_OF_FILE,
            ErrorKind::Unsupported => Self::UNSUPPORTED,
            // Version 3 has no code of its own for those below.
            ErrorKind::AlreadyExists => Self::new(Code::FAILURE, "already exists"),
            ErrorKind::IsADirectory => Self::new(Code::FAILURE, "is a directory"),
            ErrorKind::DirectoryNotEmpty => Self::new(Code::FAILURE, "directory not empty"),
            ErrorKind::StorageFull => Self::new(Code::FAILURE, "no space left"),
            ErrorKind::QuotaExceeded => Self::new(Code::FAILURE, "quota exceeded"),
            ErrorKind::FileTooLarge => Self::TOO_LARGE,
            ErrorKind::CrossesDevices => Self::new(Code::FAILURE, "on another file system"),
            ErrorKind::InvalidFilename => Self::new(Code::FAILURE, "name too long or not allowed"),
            ErrorKind::ResourceBusy | ErrorKind::ExecutableFileBusy => {
                Self::new(Code::FAILURE, "busy")
            }
            ErrorKind::TimedOut => Self::new(Code::FAILURE, "timed out"),
            ErrorKind::NotSeekable => Self::new(
                Code::FAILURE,
                "this file can only be written in order, from its start on",
            ),
            ErrorKind::InvalidInput => Self::new(Code::FAILURE, "not possible"),
            _ if is_out_of_descriptors(error) => {
                Self::new(Code::FAILURE, "too many files are open on this server")
            }
            _ if is_link_loop(error) => Self::new(Code::NO_SUCH_FILE, "too many links"),
            _ => Self::plain(Code::FAILURE),
        }
    }
}

/// These have no kinds of their own in stable Rust.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// `ELOOP` has no kind of its own in stable Rust.
fn is_link_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

impl From<BadPath> for Refusal {
    fn from(why: BadPath) -> Self {
        match why {
            BadPath::BadByte => Self::new(StatusCode::FAILURE, "a path holds a NUL or a backslash"),
            BadPath::TooLong => Self::new(StatusCode::FAILURE, "path too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn errors_of_the_system_become_the_codes_that_clients_act_on() {
        for (errno, code) in [
            (Errno::NOENT, StatusCode::NO_SUCH_FILE),
            (Errno::NOTDIR, StatusCode::NO_SUCH_FILE),
            (Errno::LOOP, StatusCode::NO_SUCH_FILE),
            (Errno::ACCESS, StatusCode::PERMISSION_DENIED),
            (Errno::PERM, StatusCode::PERMISSION_DENIED),
            (Errno::ROFS, StatusCode::PERMISSION_DENIED),
            (Errno::OPNOTSUPP, StatusCode::OP_UNSUPPORTED),
            (Errno::NOSYS, StatusCode::OP_UNSUPPORTED),
            (Errno::EXIST, StatusCode::FAILURE),
            (Errno::NOSPC, StatusCode::FAILURE),
            (Errno::DQUOT, StatusCode::FAILURE),
            (Errno::NOTEMPTY, StatusCode::FAILURE),
            (Errno::ISDIR, StatusCode::FAILURE),
            (Errno::XDEV, StatusCode::FAILURE),
            (Errno::IO, StatusCode::FAILURE),
            (Errno::MFILE, StatusCode::FAILURE),
        ] {
            assert_eq!(
                Refusal::from(&io::Error::from(errno)).code,
                code,
                "{errno:?}"
            );
        }
    }

    #[test]
    fn an_errors_own_text_is_not_told() {
        let error = io::Error::other("/etc/shadow is locked");
        assert_eq!(Refusal::from(&error), Refusal::plain(StatusCode::FAILURE));
    }
}
