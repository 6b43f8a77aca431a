//! Requests beyond the draft: `SSH_FXP_EXTENDED` (draft-02 §8), and which of them a server has.
//!
//! The messages themselves are in `extension/openssh.rs`, the replies that only they have in
//! `extension/reply.rs`; `extension/check_file.rs` has both of the server's checksums,
//! `extension/watch.rs` the change feed.

mod check_file;
mod openssh;
mod reply;
mod watch;

pub use check_file::{CHECK_FILE, CheckFileHandle, CheckFileName, CheckFileReply, HashAlgorithm};
pub use openssh::{
    CopyData, ExpandPath, Fstatvfs, Fsync, Hardlink, HomeDirectory, Lsetstat, PosixRename, Statvfs,
    UsersGroupsById,
};
pub use reply::{ServerLimits, StatVfs, UsersGroups};
pub use watch::{
    WATCH_EVENTS_MAX, Watch, WatchEvent, WatchKind, WatchKinds, WatchRead, WatchReply,
};

use std::fmt;

use crate::limits::EXTENSION_NAME_LEN_MAX;
use crate::{DecodeError, Escaped, Pair, Pairs, Reader, Writer};

macro_rules! extensions {
    ($($name:ident $(($fields:ident))? = $wire:literal, $version:literal, $doc:literal;)*) => {
        /// An extension that ketch knows.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum ExtensionName {
            $(#[doc = concat!("`", $wire, "`: ", $doc)] $name,)*
        }

        impl ExtensionName {
            /// All of them: first those that OpenSSH has, in the order in which it announces them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name as it goes over the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $wire,)*
                }
            }

            /// The version that is spoken, as the `VERSION` packet has it.
            #[must_use]
            pub const fn version(self) -> &'static str {
                match self {
                    $(Self::$name => $version,)*
                }
            }
        }

        /// `SSH_FXP_EXTENDED`: a request beyond the draft, told by its name.
        ///
        /// Servers answer names they do not know with the status `OP_UNSUPPORTED`.
        /// Source: draft-ietf-secsh-filexfer-02 §8, OpenSSH's `PROTOCOL`.
        #[derive(Clone, Copy, Eq, PartialEq)]
        pub enum Extension<'a> {
            $(#[doc = concat!("`", $wire, "`: ", $doc)] $name $(($fields<'a>))?,)*
            /// An extension that ketch does not know.
            Unknown {
                /// Its name, at most [`EXTENSION_NAME_LEN_MAX`] bytes.
                name: &'a [u8],
                /// What comes after the name.
                data: &'a [u8],
            },
        }

        impl<'a> Extension<'a> {
            /// Decodes the fields after the request id; bytes left over are an error.
            ///
            /// # Errors
            /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
            pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
                let name = r.string(EXTENSION_NAME_LEN_MAX)?;
                Ok(match ExtensionName::from_wire(name) {
                    $(Some(ExtensionName::$name) => {
                        extensions!(@decode r $name $(($fields))?)
                    })*
                    None => Self::Unknown { name, data: r.take_rest() },
                })
            }

            /// Appends the fields after the request id.
            pub fn encode(&self, w: &mut Writer<'_>) {
                w.string(self.name());
                match self {
                    $(extensions!(@pattern $name $(($fields) fields)?) => {
                        $(<$fields<'_>>::encode(fields, w))?
                    })*
                    Self::Unknown { data, .. } => w.bytes(data),
                }
            }

            /// The name as it goes over the wire.
            #[must_use]
            pub const fn name(&self) -> &'a [u8] {
                match self {
                    $(extensions!(@any $name $(($fields))?) => $wire.as_bytes(),)*
                    Self::Unknown { name, .. } => name,
                }
            }
        }
    };
    (@decode $r:ident $name:ident ($fields:ident)) => { Self::$name($fields::decode($r)?) };
    (@decode $r:ident $name:ident) => {{ $r.finish()?; Self::$name }};
    (@pattern $name:ident ($fields:ident) $bound:ident) => { Self::$name($bound) };
    (@pattern $name:ident) => { Self::$name };
    (@any $name:ident ($fields:ident)) => { Self::$name(_) };
    (@any $name:ident) => { Self::$name };
}

extensions! {
    PosixRename(PosixRename) = "posix-rename@openssh.com", "1", "renames, and replaces what was there.";
    Statvfs(Statvfs) = "statvfs@openssh.com", "2", "asks about the file system of a path.";
    Fstatvfs(Fstatvfs) = "fstatvfs@openssh.com", "2", "asks about the file system of an open file.";
    Hardlink(Hardlink) = "hardlink@openssh.com", "1", "gives a file a second name.";
    Fsync(Fsync) = "fsync@openssh.com", "1", "brings an open file to the disk.";
    Lsetstat(Lsetstat) = "lsetstat@openssh.com", "1", "sets attributes of a link itself.";
    Limits = "limits@openssh.com", "1", "asks what the server accepts.";
    ExpandPath(ExpandPath) = "expand-path@openssh.com", "1", "asks for an absolute path, `~` understood.";
    CopyData(CopyData) = "copy-data", "1", "copies between two open files on the server.";
    HomeDirectory(HomeDirectory) = "home-directory", "1", "asks for the home directory of a user.";
    UsersGroupsById(UsersGroupsById) = "users-groups-by-id@openssh.com", "1", "asks for names of users and groups.";
    CheckFileHandle(CheckFileHandle) = "check-file-handle", "", "asks for checksums of an open file.";
    CheckFileName(CheckFileName) = "check-file-name", "", "asks for checksums of a file.";
    Watch(Watch) = "watch@ketch", "1", "subscribes to changes in a directory.";
    WatchRead(WatchRead) = "watch-read@ketch", "1", "asks for events of a subscription.";
}

impl ExtensionName {
    /// The extension of this name; `None` if ketch does not know it.
    #[must_use]
    pub fn from_wire(name: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|known| known.as_str().as_bytes() == name)
    }

    /// Whether what servers say besides its name means nothing: there is one version only.
    const fn has_no_version(self) -> bool {
        matches!(self, Self::CheckFileHandle | Self::CheckFileName)
    }

    /// How a server announces it in its `VERSION`.
    #[must_use]
    pub const fn pair(self) -> Pair<'static> {
        Pair {
            name: self.as_str().as_bytes(),
            data: self.version().as_bytes(),
        }
    }
}

impl fmt::Display for ExtensionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Extension<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PosixRename(fields) => fields.fmt(f),
            Self::Statvfs(fields) => fields.fmt(f),
            Self::Fstatvfs(fields) => fields.fmt(f),
            Self::Hardlink(fields) => fields.fmt(f),
            Self::Fsync(fields) => fields.fmt(f),
            Self::Lsetstat(fields) => fields.fmt(f),
            Self::Limits => f.write_str("Limits"),
            Self::ExpandPath(fields) => fields.fmt(f),
            Self::CopyData(fields) => fields.fmt(f),
            Self::HomeDirectory(fields) => fields.fmt(f),
            Self::UsersGroupsById(fields) => fields.fmt(f),
            Self::CheckFileHandle(fields) => fields.fmt(f),
            Self::CheckFileName(fields) => fields.fmt(f),
            Self::Watch(fields) => fields.fmt(f),
            Self::WatchRead(fields) => fields.fmt(f),
            Self::Unknown { name, data } => {
                write!(f, "Unknown({:?}, {} bytes)", Escaped(name), data.len())
            }
        }
    }
}

/// Which of the known extensions a server has, in the version that ketch speaks.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct ExtensionSet {
    bits: u16,
}

impl ExtensionSet {
    /// None of them.
    pub const EMPTY: Self = Self { bits: 0 };

    /// The known ones among those that a `VERSION` announces. Others, and other versions, are left
    /// out; `check-file` stands for both of its requests.
    #[must_use]
    pub fn from_pairs(pairs: Pairs<'_>) -> Self {
        let mut set = Self::EMPTY;
        for pair in pairs {
            if pair.name == CHECK_FILE {
                set.insert(ExtensionName::CheckFileHandle);
                set.insert(ExtensionName::CheckFileName);
            } else if let Some(name) = ExtensionName::from_wire(pair.name)
                && (pair == name.pair() || name.has_no_version())
            {
                set.insert(name);
            }
        }
        set
    }

    /// Adds one.
    pub const fn insert(&mut self, name: ExtensionName) {
        self.bits |= Self::bit(name);
    }

    /// Takes one out, such as one that turned out not to work.
    pub const fn remove(&mut self, name: ExtensionName) {
        self.bits &= !Self::bit(name);
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn contains(self, name: ExtensionName) -> bool {
        self.bits & Self::bit(name) != 0
    }

    /// Those in the set, in the order of [`ExtensionName::ALL`].
    pub fn iter(self) -> impl Iterator<Item = ExtensionName> {
        ExtensionName::ALL
            .iter()
            .copied()
            .filter(move |&name| self.contains(name))
    }

    const fn bit(name: ExtensionName) -> u16 {
        1_u16.rotate_left(name as u32)
    }
}

impl FromIterator<ExtensionName> for ExtensionSet {
    fn from_iter<I: IntoIterator<Item = ExtensionName>>(names: I) -> Self {
        let mut set = Self::EMPTY;
        names.into_iter().for_each(|name| set.insert(name));
        set
    }
}

impl fmt::Debug for ExtensionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attrs, List};
    use proptest::prelude::*;

    #[test]
    fn requests_stand_as_openssh_has_them() {
        let attrs = Attrs::with_permissions(0o700).into();
        let table: [(Extension<'_>, &[u8]); 14] = [
            (
                Extension::PosixRename(PosixRename {
                    from: b"/a",
                    to: b"/b",
                }),
                b"\0\0\0\x18posix-rename@openssh.com\0\0\0\x02/a\0\0\0\x02/b",
            ),
            (
                Extension::Statvfs(Statvfs { path: b"/" }),
                b"\0\0\0\x13statvfs@openssh.com\0\0\0\x01/",
            ),
            (
                Extension::Fstatvfs(Fstatvfs { handle: b"h" }),
                b"\0\0\0\x14fstatvfs@openssh.com\0\0\0\x01h",
            ),
            (
                Extension::Hardlink(Hardlink {
                    from: b"/a",
                    to: b"/b",
                }),
                b"\0\0\0\x14hardlink@openssh.com\0\0\0\x02/a\0\0\0\x02/b",
            ),
            (
                Extension::Fsync(Fsync { handle: b"h" }),
                b"\0\0\0\x11fsync@openssh.com\0\0\0\x01h",
            ),
            (
                Extension::Lsetstat(Lsetstat { path: b"/l", attrs }),
                b"\0\0\0\x14lsetstat@openssh.com\0\0\0\x02/l\0\0\0\x04\0\0\x01\xc0",
            ),
            (Extension::Limits, b"\0\0\0\x12limits@openssh.com"),
            (
                Extension::ExpandPath(ExpandPath { path: b"~x" }),
                b"\0\0\0\x17expand-path@openssh.com\0\0\0\x02~x",
            ),
            (
                Extension::CopyData(CopyData {
                    from: b"r",
                    from_offset: 1,
                    len: 2,
                    to: b"w",
                    to_offset: 3,
                }),
                b"\0\0\0\x09copy-data\0\0\0\x01r\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\
                  \0\0\0\x01w\0\0\0\0\0\0\0\x03",
            ),
            (
                Extension::HomeDirectory(HomeDirectory { user: b"me" }),
                b"\0\0\0\x0ehome-directory\0\0\0\x02me",
            ),
            (
                Extension::UsersGroupsById(UsersGroupsById {
                    uids: List::new(&[0, 1000]),
                    gids: List::new(&[100]),
                }),
                b"\0\0\0\x1eusers-groups-by-id@openssh.com\
                  \0\0\0\x08\0\0\0\0\0\0\x03\xe8\0\0\0\x04\0\0\0\x64",
            ),
            (
                Extension::CheckFileHandle(CheckFileHandle {
                    handle: b"h",
                    algorithms: b"sha256,sha512",
                    offset: 1,
                    len: 2,
                    block_len: 256,
                }),
                b"\0\0\0\x11check-file-handle\0\0\0\x01h\0\0\0\x0dsha256,sha512\
                  \0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\x01\0",
            ),
            (
                Extension::CheckFileName(CheckFileName {
                    path: b"/a",
                    algorithms: b"sha256",
                    offset: 0,
                    len: 0,
                    block_len: 0,
                }),
                b"\0\0\0\x0fcheck-file-name\0\0\0\x02/a\0\0\0\x06sha256\
                  \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
            (
                Extension::Unknown {
                    name: b"later@ketch",
                    data: b"any",
                },
                b"\0\0\0\x0blater@ketchany",
            ),
        ];
        for (extension, bytes) in table {
            let mut out = Vec::new();
            extension.encode(&mut Writer::new(&mut out));
            assert_eq!(out, bytes, "{extension:?}");
            assert_eq!(Extension::decode(Reader::new(bytes)), Ok(extension));
            if let Extension::Unknown { .. } = extension {
                continue;
            }
            let longer = [bytes, b"?"].concat();
            let read = Extension::decode(Reader::new(&longer));
            assert_eq!(read, Err(DecodeError::Trailing { len: 1 }), "{extension:?}");
            assert!(ExtensionName::from_wire(extension.name()).is_some());
        }
    }

    #[test]
    fn ids_that_are_not_whole_are_refused() {
        let bytes = b"\0\0\0\x1eusers-groups-by-id@openssh.com\0\0\0\x03\0\0\0\0\0\0\0";
        assert_eq!(
            Extension::decode(Reader::new(bytes)),
            Err(DecodeError::Truncated)
        );
    }

    #[test]
    fn a_set_holds_what_was_announced_in_the_version_that_is_spoken() {
        let pairs = [
            ExtensionName::PosixRename.pair(),
            Pair {
                name: b"statvfs@openssh.com",
                data: b"3",
            },
            Pair {
                name: b"vendor@example.com",
                data: b"1",
            },
            ExtensionName::UsersGroupsById.pair(),
        ];
        let mut set = ExtensionSet::from_pairs(Pairs::new(&pairs));
        let known = [ExtensionName::PosixRename, ExtensionName::UsersGroupsById];
        assert_eq!(set, known.into_iter().collect());
        assert_eq!(set.iter().collect::<Vec<_>>(), known);
        set.remove(ExtensionName::PosixRename);
        assert!(!set.contains(ExtensionName::PosixRename));
        assert!(set.contains(ExtensionName::UsersGroupsById));
    }

    #[test]
    fn checksums_are_known_by_all_names_that_servers_announce() {
        let both = [ExtensionName::CheckFileHandle, ExtensionName::CheckFileName];
        for (name, data, known) in [
            (&b"check-file"[..], &b""[..], &both[..]),
            (b"check-file", b"1", &both),
            (b"check-file-name", b"1", &both[1..]),
            (b"check-file-handle", b"", &both[..1]),
        ] {
            let set = ExtensionSet::from_pairs(Pairs::new(&[Pair { name, data }]));
            assert_eq!(set.iter().collect::<Vec<_>>(), known);
        }
    }

    #[test]
    fn every_known_extension_has_a_place_of_its_own_in_the_set() {
        let all: ExtensionSet = ExtensionName::ALL.iter().copied().collect();
        assert_eq!(all.iter().count(), ExtensionName::ALL.len());
        for &name in ExtensionName::ALL {
            assert_eq!(
                ExtensionName::from_wire(name.as_str().as_bytes()),
                Some(name)
            );
        }
    }

    proptest! {
        #[test]
        fn every_extension_survives_the_wire(
            handle in proptest::collection::vec(any::<u8>(), 0..=256),
            path in proptest::collection::vec(any::<u8>(), 0..64),
            other in proptest::collection::vec(any::<u8>(), 0..64),
            offsets in any::<[u64; 3]>(), permissions in any::<Option<u32>>(),
            uids in any::<Vec<u32>>(), gids in any::<Vec<u32>>(),
        ) {
            assert_survives!(PosixRename, PosixRename { from: &path, to: &other });
            assert_survives!(Hardlink, Hardlink { from: &path, to: &other });
            assert_survives!(Statvfs, Statvfs { path: &path });
            assert_survives!(Fstatvfs, Fstatvfs { handle: &handle });
            assert_survives!(Fsync, Fsync { handle: &handle });
            let attrs = Attrs { permissions, ..Attrs::NONE }.into();
            assert_survives!(Lsetstat, Lsetstat { path: &path, attrs });
            assert_survives!(ExpandPath, ExpandPath { path: &path });
            let [from_offset, len, to_offset] = offsets;
            let (from, to) = (&handle[..], &path[..]);
            assert_survives!(CopyData, CopyData { from, from_offset, len, to, to_offset });
            assert_survives!(HomeDirectory, HomeDirectory { user: &other });
            let (uids, gids) = (List::new(&uids), List::new(&gids));
            assert_survives!(UsersGroupsById, UsersGroupsById { uids, gids });
            let (algorithms, block_len) = (&other[..], 256);
            assert_survives!(CheckFileHandle, CheckFileHandle {
                handle: &handle, algorithms, offset: from_offset, len, block_len,
            });
            assert_survives!(CheckFileName, CheckFileName {
                path: &path, algorithms, offset: from_offset, len, block_len,
            });
            assert_survives!(Extension, Extension::CopyData(CopyData {
                from, from_offset, len, to, to_offset,
            }));
        }
    }
}
