//! Whose machine it is: what a path means, and how much of a file a client may set.
//!
//! There are two. A **guest** has a tree of its own, out of which nothing leads, and no say
//! over owners or setuid bits: that is every user of a [`Server`](crate::Server). A **local user**
//! was let in by somebody else (sshd) that also became that user: the kernel checks each call, so
//! paths are the kernel's to read and everything that the user may do is done, as OpenSSH's
//! sftp-server does it. The session asks this type, and knows no other difference.

use std::fmt;
use std::sync::Arc;

use ketch_protocol::{CHECK_FILE, Extension, ExtensionName, Request};

use crate::fs::Call;
use crate::path::VPath;
use crate::refusal::Refusal;

/// What the user of a session is on this machine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Standing {
    /// A guest in a tree that is closed.
    #[default]
    Guest,
    /// A user of this machine, with what is not to be taken of it.
    #[cfg_attr(
        not(any(test, feature = "host")),
        expect(dead_code, reason = "made in `host`")
    )]
    LocalUser(Arc<Permits>),
}

/// What answers a question for a path.
#[derive(Debug)]
pub(crate) enum Named {
    /// This does.
    Is(VPath),
    /// The file system has to be asked.
    Ask(Call),
}

impl Standing {
    /// The path that a client names.
    pub(crate) fn resolve(&self, named: &[u8]) -> Result<VPath, Refusal> {
        match self {
            Self::Guest => Ok(VPath::resolve(named)?),
            Self::LocalUser(_) if named.is_empty() => Err(Refusal::NO_SUCH_FILE),
            Self::LocalUser(_) => Ok(VPath::verbatim(named)?),
        }
    }

    /// The canonical form of a path (`REALPATH`).
    pub(crate) fn canonical(&self, named: &[u8]) -> Result<Named, Refusal> {
        match self {
            // Lexical, on the tree that the user sees: it tells nothing of what is there.
            Self::Guest => Ok(Named::Is(VPath::resolve(named)?)),
            Self::LocalUser(_) => {
                let named = if named.is_empty() { b"." } else { named };
                let path = VPath::verbatim(named)?;
                Ok(Named::Ask(Call::Canonical { path }))
            }
        }
    }

    /// As [`Standing::canonical`], with `~` and `~user` at the start.
    pub(crate) fn expand(&self, named: &[u8]) -> Result<Named, Refusal> {
        let [b'~', rest @ ..] = named else {
            return self.canonical(named);
        };
        let end = rest.iter().position(|&byte| byte == b'/');
        let (user, rest) = rest.split_at(end.unwrap_or(rest.len()));
        match self {
            // The home directory is the root; nobody else's is known.
            Self::Guest if user.is_empty() => self.canonical(rest),
            Self::Guest => Err(Refusal::NO_SUCH_USER),
            Self::LocalUser(_) => {
                let rest = VPath::verbatim(rest)?.as_bytes().to_vec();
                let user = user.to_vec();
                Ok(Named::Ask(Call::Expand { user, rest }))
            }
        }
    }

    /// The home directory of `user`; empty is the session's own, whose name is `own`.
    pub(crate) fn home(&self, user: &[u8], own: &str) -> Result<Named, Refusal> {
        match self {
            Self::Guest if user.is_empty() || user == own.as_bytes() => {
                Ok(Named::Is(VPath::root()))
            }
            Self::Guest => Err(Refusal::NO_SUCH_USER),
            Self::LocalUser(_) => {
                let user = user.to_vec();
                Ok(Named::Ask(Call::Home { user }))
            }
        }
    }

    /// Whether the names behind the numbers of users and groups are told.
    pub(crate) const fn tells_names(&self) -> bool {
        matches!(self, Self::LocalUser(_))
    }

    /// Permission bits that may be set: for guests no setuid, setgid or sticky.
    pub(crate) const fn settable_mode(&self) -> u32 {
        match self {
            Self::Guest => 0o777,
            Self::LocalUser(_) => 0o7777,
        }
    }

    /// Whether a change of owner is tried: the kernel lets the superuser have it, and others
    /// change to groups of theirs.
    pub(crate) const fn may_give_away(&self) -> bool {
        matches!(self, Self::LocalUser(_))
    }

    /// Whether `target` may be written into a link that stands at `link`.
    pub(crate) fn check_link(&self, target: &[u8]) -> Result<(), Refusal> {
        match self {
            Self::Guest if !VPath::keeps_link_beneath(target) => Err(Refusal::LINK_LEAVES),
            Self::LocalUser(_) if target.is_empty() => Err(Refusal::NO_SUCH_FILE),
            Self::LocalUser(_) => Ok(VPath::verbatim(target).map(|_| ())?),
            Self::Guest => Ok(()),
        }
    }

    /// Whether `request` is taken at all.
    pub(crate) fn permit(&self, request: &Request<'_>) -> Result<(), Refusal> {
        match self {
            Self::Guest => Ok(()),
            Self::LocalUser(permits) => permits.check(RequestName::of(request)),
        }
    }

    /// Whether a `WRITE` is taken, which comes in pieces and not as a [`Request`].
    pub(crate) fn permit_write(&self) -> Result<(), Refusal> {
        match self {
            Self::Guest => Ok(()),
            Self::LocalUser(permits) => permits.check(Some(RequestName::Write)),
        }
    }

    /// Whether an extension is told of in the greeting.
    pub(crate) fn offers(&self, name: ExtensionName) -> bool {
        match self {
            Self::Guest => true,
            Self::LocalUser(permits) => permits.check(RequestName::of_extension(name)).is_ok(),
        }
    }
}

/// Which kinds of request are not taken, whatever they ask for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Permits {
    /// A bit for each [`RequestName`].
    denied: u32,
}

#[cfg_attr(
    not(any(test, feature = "host")),
    expect(dead_code, reason = "made in `host`")
)]
impl Permits {
    /// Denies one more kind.
    pub(crate) const fn deny(&mut self, name: RequestName) {
        self.denied |= name.bit();
    }

    /// Denies all kinds but these.
    pub(crate) fn allow_only(&mut self, names: &[RequestName]) {
        let allowed = names.iter().fold(0, |bits, name| bits | name.bit());
        self.denied |= !allowed;
    }
}

impl Permits {
    /// What has no name here is not done for users of this machine.
    const fn check(&self, name: Option<RequestName>) -> Result<(), Refusal> {
        match name {
            None => Err(Refusal::UNSUPPORTED),
            Some(name) if self.denied & name.bit() != 0 => Err(Refusal::NOT_PERMITTED),
            Some(_) => Ok(()),
        }
    }
}

macro_rules! request_names {
    ($($name:ident = $text:literal, $writes:literal;)*) => {
        /// A kind of request by the name that sftp-server(8) has for it (`-Q requests` there), or in its
        /// manner.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[non_exhaustive]
        pub enum RequestName {
            $(#[doc = concat!("`", $text, "`.")] $name,)*
        }

        impl RequestName {
            /// All of them, in OpenSSH's order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As it is written on a command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether it can change anything.
            #[must_use]
            pub const fn writes(self) -> bool {
                match self { $(Self::$name => $writes,)* }
            }
        }
    };
}

request_names! {
    Open = "open", false;
    Close = "close", false;
    Read = "read", false;
    Write = "write", true;
    Lstat = "lstat", false;
    Fstat = "fstat", false;
    Setstat = "setstat", true;
    Fsetstat = "fsetstat", true;
    Opendir = "opendir", false;
    Readdir = "readdir", false;
    Remove = "remove", true;
    Mkdir = "mkdir", true;
    Rmdir = "rmdir", true;
    Realpath = "realpath", false;
    Stat = "stat", false;
    Rename = "rename", true;
    Readlink = "readlink", false;
    Symlink = "symlink", true;
    PosixRename = "posix-rename", true;
    Statvfs = "statvfs", false;
    Fstatvfs = "fstatvfs", false;
    Hardlink = "hardlink", true;
    Fsync = "fsync", true;
    Lsetstat = "lsetstat", true;
    Limits = "limits", false;
    ExpandPath = "expand-path", false;
    CopyData = "copy-data", true;
    HomeDirectory = "home-directory", false;
    UsersGroupsById = "users-groups-by-id", false;
    CheckFile = "check-file", false;
}

impl RequestName {
    /// The kind that is written so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find(|name| name.as_str() == text).copied()
    }

    const fn bit(self) -> u32 {
        1 << self as u32 // there are fewer than 32
    }

    /// The kind of a request, if it has a name.
    fn of(request: &Request<'_>) -> Option<Self> {
        Some(match request {
            Request::Open(_) => Self::Open,
            Request::Close(_) => Self::Close,
            Request::Read(_) => Self::Read,
            Request::Write(_) => Self::Write,
            Request::Lstat(_) => Self::Lstat,
            Request::Fstat(_) => Self::Fstat,
            Request::Setstat(_) => Self::Setstat,
            Request::Fsetstat(_) => Self::Fsetstat,
            Request::Opendir(_) => Self::Opendir,
            Request::Readdir(_) => Self::Readdir,
            Request::Remove(_) => Self::Remove,
            Request::Mkdir(_) => Self::Mkdir,
            Request::Rmdir(_) => Self::Rmdir,
            Request::Realpath(_) => Self::Realpath,
            Request::Stat(_) => Self::Stat,
            Request::Rename(_) => Self::Rename,
            Request::Readlink(_) => Self::Readlink,
            Request::Symlink(_) => Self::Symlink,
            Request::Extended(extension) => match extension {
                Extension::PosixRename(_) => Self::PosixRename,
                Extension::Statvfs(_) => Self::Statvfs,
                Extension::Fstatvfs(_) => Self::Fstatvfs,
                Extension::Hardlink(_) => Self::Hardlink,
                Extension::Fsync(_) => Self::Fsync,
                Extension::Lsetstat(_) => Self::Lsetstat,
                Extension::Limits => Self::Limits,
                Extension::ExpandPath(_) => Self::ExpandPath,
                Extension::CopyData(_) => Self::CopyData,
                Extension::HomeDirectory(_) => Self::HomeDirectory,
                Extension::UsersGroupsById(_) => Self::UsersGroupsById,
                Extension::CheckFileHandle(_)
                | Extension::CheckFileName(_)
                | Extension::Unknown {
                    name: CHECK_FILE, ..
                } => Self::CheckFile,
                _ => return None,
            },
        })
    }

    const fn of_extension(name: ExtensionName) -> Option<Self> {
        Some(match name {
            ExtensionName::PosixRename => Self::PosixRename,
            ExtensionName::Statvfs => Self::Statvfs,
            ExtensionName::Fstatvfs => Self::Fstatvfs,
            ExtensionName::Hardlink => Self::Hardlink,
            ExtensionName::Fsync => Self::Fsync,
            ExtensionName::Lsetstat => Self::Lsetstat,
            ExtensionName::Limits => Self::Limits,
            ExtensionName::ExpandPath => Self::ExpandPath,
            ExtensionName::CopyData => Self::CopyData,
            ExtensionName::HomeDirectory => Self::HomeDirectory,
            ExtensionName::UsersGroupsById => Self::UsersGroupsById,
            ExtensionName::CheckFileHandle | ExtensionName::CheckFileName => Self::CheckFile,
            ExtensionName::Watch | ExtensionName::WatchRead => return None,
        })
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Standing {
        Standing::LocalUser(Arc::default())
    }

    #[test]
    fn a_guests_path_is_canonical_and_a_local_users_is_as_it_was_named() {
        let named = b"a//./b/../c\\d";
        assert!(Standing::Guest.resolve(named).is_err(), "a backslash");
        assert_eq!(
            Standing::Guest.resolve(b"a//b/../c").unwrap().as_bytes(),
            b"/a/c"
        );
        assert_eq!(local().resolve(named).unwrap().as_bytes(), named);
        assert_eq!(local().resolve(b""), Err(Refusal::NO_SUCH_FILE));
        assert!(local().resolve(b"a\0b").is_err());
    }

    #[test]
    fn a_tilde_is_a_home_directory() {
        let ask = |named: &[u8]| match local().expand(named) {
            Ok(Named::Ask(Call::Expand { user, rest })) => Some((user, rest)),
            _ => None,
        };
        assert_eq!(ask(b"~"), Some((b"".to_vec(), b"".to_vec())));
        assert_eq!(ask(b"~/x/y"), Some((b"".to_vec(), b"/x/y".to_vec())));
        assert_eq!(ask(b"~bob/x"), Some((b"bob".to_vec(), b"/x".to_vec())));
        assert_eq!(ask(b"x/~"), None);
        assert!(
            matches!(Standing::Guest.expand(b"~/x"), Ok(Named::Is(path)) if path.as_bytes() == b"/x")
        );
        assert!(Standing::Guest.expand(b"~bob").is_err());
    }

    #[test]
    fn what_is_denied_is_neither_taken_nor_offered() {
        let mut permits = Permits::default();
        permits.deny(RequestName::Fsync);
        let standing = Standing::LocalUser(Arc::new(permits));
        assert!(!standing.offers(ExtensionName::Fsync));
        assert!(standing.offers(ExtensionName::Limits));
        assert!(
            standing
                .permit(&Request::Extended(Extension::Limits))
                .is_ok()
        );
        let mut permits = Permits::default();
        permits.allow_only(&[RequestName::Open, RequestName::Read]);
        let standing = Standing::LocalUser(Arc::new(permits));
        assert!(standing.permit_write().is_err());
        assert!(
            standing
                .permit(&Request::Extended(Extension::Limits))
                .is_err()
        );
        assert!(
            Standing::Guest
                .permit(&Request::Extended(Extension::Limits))
                .is_ok()
        );
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in RequestName::ALL {
            assert_eq!(RequestName::parse(name.as_str()), Some(*name));
        }
        assert_eq!(RequestName::parse("format"), None);
    }
}
