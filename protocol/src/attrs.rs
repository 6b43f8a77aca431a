//! File attributes (draft-02 §5): what a file is, how long, whose, from when.

use std::fmt;

use crate::limits::ATTRS_PAIRS_MAX;
use crate::{DecodeError, Pairs, Reader, Writer};

/// Attributes of a file, each of which may be missing.
///
/// In a reply, a missing field is one that the server does not tell; in a request, one that stays
/// as it is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Attrs {
    /// Length of the file in bytes.
    pub size: Option<u64>,
    /// Owner and group. They have one flag together: one cannot be set without the other.
    pub owner: Option<Owner>,
    /// File type and permission bits as POSIX has them in `st_mode`. Some servers leave the type
    /// out.
    pub permissions: Option<u32>,
    /// Times of last access and modification. They have one flag together.
    pub times: Option<Times>,
}

/// Owner and group of a file, as numbers that mean something to the server only.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
}

/// Times of a file in seconds since 1970-01-01 UTC; version 3 ends in February 2106.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Times {
    /// Last access.
    pub atime: u32,
    /// Last modification of the content.
    pub mtime: u32,
}

impl Attrs {
    /// No attribute at all.
    pub const NONE: Self = Self {
        size: None,
        owner: None,
        permissions: None,
        times: None,
    };

    /// Only these permission bits: what most requests that create something say.
    #[must_use]
    pub const fn with_permissions(permissions: u32) -> Self {
        Self {
            permissions: Some(permissions),
            ..Self::NONE
        }
    }

    /// What kind of file it is, from the mode bits.
    #[must_use]
    pub const fn file_type(&self) -> FileType {
        match self.permissions {
            Some(mode) => FileType::from_mode(mode),
            None => FileType::Unknown,
        }
    }

    /// Permission bits without the file type, set-uid, set-gid and sticky bits included.
    #[must_use]
    pub fn mode(&self) -> Option<u32> {
        self.permissions.map(|mode| mode & 0o7777)
    }
}

/// What kind of file something is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FileType {
    /// A plain file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// The server did not tell, or something else.
    Unknown,
}

impl FileType {
    /// From `st_mode`.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o060_000 => Self::BlockDevice,
            0o020_000 => Self::CharDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => Self::Unknown,
        }
    }

    /// The bits of `st_mode` that say so; none for `Unknown`.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::BlockDevice => 0o060_000,
            Self::CharDevice => 0o020_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::Unknown => 0,
        }
    }

    /// From the first letter of a `longname` that looks like a line of `ls -l`.
    ///
    /// The draft forbids to parse it. It is the only hint that servers give which leave the type
    /// out of the mode bits, and costs at most a needless `LSTAT` if it misleads.
    #[must_use]
    pub fn from_longname(longname: &[u8]) -> Self {
        let is_mode = |byte: &u8| b"rwxsStTlL-+.@".contains(byte);
        let Some((letter, rest)) = longname.split_first() else {
            return Self::Unknown;
        };
        if !rest.get(..9).is_some_and(|mode| mode.iter().all(is_mode)) {
            return Self::Unknown; // prose, not a mode string
        }
        match letter {
            b'-' => Self::Regular,
            b'd' => Self::Directory,
            b'l' => Self::Symlink,
            b'b' => Self::BlockDevice,
            b'c' => Self::CharDevice,
            b'p' => Self::Fifo,
            b's' => Self::Socket,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regular => "file",
            Self::Directory => "directory",
            Self::Symlink => "symbolic link",
            Self::BlockDevice => "block device",
            Self::CharDevice => "character device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::Unknown => "unknown kind of file",
        })
    }
}

/// `ATTRS` as it stands in a message: attributes, and pairs that go beyond the draft.
///
/// Few servers send pairs and no client needs them; `attrs.into()` makes one without.
/// Source: draft-ietf-secsh-filexfer-02 §5.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WireAttrs<'a> {
    /// The attributes of the draft.
    pub attrs: Attrs,
    /// Extended attributes, at most [`ATTRS_PAIRS_MAX`].
    pub extended: Pairs<'a>,
}

const SIZE: u32 = 0x0000_0001;
const UIDGID: u32 = 0x0000_0002;
const PERMISSIONS: u32 = 0x0000_0004;
const ACMODTIME: u32 = 0x0000_0008;
const EXTENDED: u32 = 0x8000_0000;

impl<'a> WireAttrs<'a> {
    /// Decodes attributes and moves `r` past them.
    ///
    /// Flags that the draft does not know bring no field (OpenSSH reads them so, too).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::TooLong`] above [`ATTRS_PAIRS_MAX`] pairs.
    pub fn decode_next(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = r.u32()?;
        let size = if flags & SIZE != 0 {
            Some(r.u64()?)
        } else {
            None
        };
        let owner = match flags & UIDGID {
            0 => None,
            _ => Some(Owner {
                uid: r.u32()?,
                gid: r.u32()?,
            }),
        };
        let permissions = if flags & PERMISSIONS != 0 {
            Some(r.u32()?)
        } else {
            None
        };
        let times = match flags & ACMODTIME {
            0 => None,
            _ => Some(Times {
                atime: r.u32()?,
                mtime: r.u32()?,
            }),
        };
        let extended = if flags & EXTENDED != 0 {
            let count = r.u32()?;
            let len = usize::try_from(count).unwrap_or(usize::MAX);
            if len > ATTRS_PAIRS_MAX {
                return Err(DecodeError::TooLong {
                    len,
                    max: ATTRS_PAIRS_MAX,
                });
            }
            Pairs::decode_counted(r, count)?
        } else {
            Pairs::EMPTY
        };
        Ok(Self {
            attrs: Attrs {
                size,
                owner,
                permissions,
                times,
            },
            extended,
        })
    }

    /// Appends the attributes.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            attrs:
                Attrs {
                    size,
                    owner,
                    permissions,
                    times,
                },
            extended,
        } = *self;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        w.u32(
            flag(size.is_some(), SIZE)
                | flag(owner.is_some(), UIDGID)
                | flag(permissions.is_some(), PERMISSIONS)
                | flag(times.is_some(), ACMODTIME)
                | flag(!extended.is_empty(), EXTENDED),
        );
        if let Some(size) = size {
            w.u64(size);
        }
        if let Some(Owner { uid, gid }) = owner {
            w.u32(uid);
            w.u32(gid);
        }
        if let Some(permissions) = permissions {
            w.u32(permissions);
        }
        if let Some(Times { atime, mtime }) = times {
            w.u32(atime);
            w.u32(mtime);
        }
        if !extended.is_empty() {
            w.u32(extended.count());
            extended.encode(w);
        }
    }
}

impl From<Attrs> for WireAttrs<'_> {
    fn from(attrs: Attrs) -> Self {
        Self {
            attrs,
            extended: Pairs::EMPTY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pair;
    use crate::limits::EXTENSION_NAME_LEN_MAX;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Result<WireAttrs<'_>, DecodeError> {
        let mut r = Reader::new(bytes);
        let attrs = WireAttrs::decode_next(&mut r)?;
        r.finish()?;
        Ok(attrs)
    }

    #[rustfmt::skip]
    const ALL_FIELDS: [u8; 55] = [
        0x80, 0, 0, 0x0f, // flags
        0, 0, 0, 1, 0, 0, 0, 2, // size 2^32 + 2
        0, 0, 3, 0xe8, 0, 0, 0, 100, // uid 1000, gid 100
        0, 0, 0x81, 0xa4, // a plain file, rw-r--r--
        0x65, 0, 0, 0, 0x65, 0, 0, 1, // atime, mtime
        0, 0, 0, 1, // one pair
        0, 0, 0, 5, b'a', b'@', b'b', b'.', b'c', 0, 0, 0, 6, 0, 1, 2, 0xff, b'\n', b'x',
    ];

    #[test]
    fn fields_stand_as_draft_section_5_has_them() {
        let attrs = Attrs {
            size: Some((1 << 32) + 2),
            owner: Some(Owner {
                uid: 1000,
                gid: 100,
            }),
            permissions: Some(0o100_644),
            times: Some(Times {
                atime: 0x6500_0000,
                mtime: 0x6500_0001,
            }),
        };
        let pairs = [Pair {
            name: b"a@b.c",
            data: b"\x00\x01\x02\xff\nx",
        }];
        let all = WireAttrs {
            attrs,
            extended: Pairs::new(&pairs),
        };
        assert_eq!(decode(&ALL_FIELDS), Ok(all));
        let mut bytes = Vec::new();
        all.encode(&mut Writer::new(&mut bytes));
        assert_eq!(bytes, ALL_FIELDS);
        assert_eq!(decode(&[0; 4]), Ok(Attrs::NONE.into()));
        assert_eq!(
            (attrs.file_type(), attrs.mode()),
            (FileType::Regular, Some(0o644))
        );
    }

    #[test]
    fn unknown_flags_bring_no_field() {
        for bit in (0..32).filter(|bit| ![0, 1, 2, 3, 31].contains(bit)) {
            let mut bytes = ALL_FIELDS;
            bytes[3 - bit / 8] |= 1 << (bit % 8);
            assert_eq!(decode(&bytes), decode(&ALL_FIELDS), "bit {bit}");
        }
    }

    #[test]
    fn more_pairs_than_allowed_are_refused_before_they_are_read() {
        for (count, error) in [
            (16_u32, DecodeError::Truncated),
            (
                17,
                DecodeError::TooLong {
                    len: 17,
                    max: ATTRS_PAIRS_MAX,
                },
            ),
            (
                u32::MAX,
                DecodeError::TooLong {
                    len: 0xffff_ffff,
                    max: ATTRS_PAIRS_MAX,
                },
            ),
        ] {
            let mut bytes = vec![0x80, 0, 0, 0];
            bytes.extend(count.to_be_bytes());
            assert_eq!(decode(&bytes), Err(error), "{count}");
        }
        let pairs = [Pair {
            name: &[b'x'; EXTENSION_NAME_LEN_MAX],
            data: b"",
        }; ATTRS_PAIRS_MAX];
        let full = WireAttrs {
            attrs: Attrs::NONE,
            extended: Pairs::new(&pairs),
        };
        let mut bytes = Vec::new();
        full.encode(&mut Writer::new(&mut bytes));
        assert_eq!(decode(&bytes), Ok(full));
    }

    #[test]
    fn file_types_are_told_by_mode_and_by_longname() {
        let table: [(u32, &[u8], FileType); 7] = [
            (
                0o100_644,
                b"-rw-r--r-- 1 a b 1 Jan 1 00:00 x",
                FileType::Regular,
            ),
            (0o040_755, b"drwxr-xr-x", FileType::Directory),
            (0o120_777, b"lrwxrwxrwx 1", FileType::Symlink),
            (0o060_660, b"brw-rw---- 1", FileType::BlockDevice),
            (0o020_620, b"crw--w---- 1", FileType::CharDevice),
            (0o010_644, b"prw-r--r-- 1", FileType::Fifo),
            (0o140_755, b"srwxr-xr-x 1", FileType::Socket),
        ];
        for (mode, longname, file_type) in table {
            assert_eq!(FileType::from_mode(mode), file_type);
            assert_eq!(FileType::from_mode(file_type.mode_bits()), file_type);
            assert_eq!(FileType::from_longname(longname), file_type);
        }
        for longname in [
            &b""[..],
            b"d",
            b"data.csv 12 bytes",
            b"-rw-rw-rw",
            b"?---------",
        ] {
            assert_eq!(FileType::from_longname(longname), FileType::Unknown);
        }
        assert_eq!(
            Attrs::with_permissions(0o644).file_type(),
            FileType::Unknown
        );
        assert_eq!(Attrs::NONE.file_type(), FileType::Unknown);
    }

    proptest! {
        #[test]
        fn every_set_of_attributes_survives_the_wire(
            size in any::<Option<u64>>(), owner in any::<Option<(u32, u32)>>(),
            permissions in any::<Option<u32>>(), times in any::<Option<(u32, u32)>>(),
            pairs in proptest::collection::vec(any::<([u8; 3], [u8; 2])>(), 0..=ATTRS_PAIRS_MAX),
        ) {
            let pairs: Vec<_> = pairs.iter().map(|(name, data)| Pair { name, data }).collect();
            let attrs = WireAttrs {
                attrs: Attrs {
                    size,
                    owner: owner.map(|(uid, gid)| Owner { uid, gid }),
                    permissions,
                    times: times.map(|(atime, mtime)| Times { atime, mtime }),
                },
                extended: Pairs::new(&pairs),
            };
            let mut bytes = Vec::new();
            attrs.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(decode(&bytes), Ok(attrs));
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut]), Err(DecodeError::Truncated));
            }
        }
    }
}
