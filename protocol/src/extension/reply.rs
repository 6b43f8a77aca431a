//! What comes in an `SSH_FXP_EXTENDED_REPLY` of OpenSSH's extensions (its `PROTOCOL` file).
//!
//! All `decode` what a [`Response::ExtendedReply`](crate::Response::ExtendedReply) holds; bytes
//! after the last field are passed over, so that a later version may add some.

use crate::limits::PACKET_LEN_MAX;
use crate::{DecodeError, List, Reader, Writer};

/// The reply to `statvfs@openssh.com` and `fstatvfs@openssh.com`: a file system.
///
/// Source: OpenSSH `PROTOCOL`; the fields are those of POSIX `struct statvfs`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatVfs {
    /// Size of a block of the file system in bytes.
    pub block_size: u64,
    /// Size of a fragment in bytes: the unit of the three counts of blocks.
    pub fragment_size: u64,
    /// Size of the file system in fragments.
    pub blocks: u64,
    /// Fragments that are free.
    pub blocks_free: u64,
    /// Fragments that are free for who is not root.
    pub blocks_available: u64,
    /// Files that the file system can hold.
    pub files: u64,
    /// Files that can still be created.
    pub files_free: u64,
    /// Files that who is not root can still create.
    pub files_available: u64,
    /// Number of the file system.
    pub fsid: u64,
    /// [`READ_ONLY`](Self::READ_ONLY) and [`NO_SETUID`](Self::NO_SETUID).
    pub flags: u64,
    /// Longest name of a file in bytes.
    pub name_max: u64,
}

impl StatVfs {
    /// Nothing can be written.
    pub const READ_ONLY: u64 = 1;
    /// Set-uid and set-gid bits have no effect.
    pub const NO_SETUID: u64 = 2;

    /// Decodes the content of the reply.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            block_size: r.u64()?,
            fragment_size: r.u64()?,
            blocks: r.u64()?,
            blocks_free: r.u64()?,
            blocks_available: r.u64()?,
            files: r.u64()?,
            files_free: r.u64()?,
            files_available: r.u64()?,
            fsid: r.u64()?,
            flags: r.u64()?,
            name_max: r.u64()?,
        })
    }

    /// Appends the content of the reply.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            block_size,
            fragment_size,
            blocks,
            blocks_free,
            blocks_available,
            files,
            files_free,
            files_available,
            fsid,
            flags,
            name_max,
        } = *self;
        w.u64(block_size);
        w.u64(fragment_size);
        w.u64(blocks);
        w.u64(blocks_free);
        w.u64(blocks_available);
        w.u64(files);
        w.u64(files_free);
        w.u64(files_available);
        w.u64(fsid);
        w.u64(flags);
        w.u64(name_max);
    }

    /// Bytes that a user other than root can still write; as many as fit a `u64` if the server
    /// says more.
    #[must_use]
    pub const fn bytes_available(&self) -> u64 {
        self.blocks_available.saturating_mul(self.fragment_size)
    }
}

/// The reply to `limits@openssh.com`: what the server accepts. Zero means "no limit known".
///
/// Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ServerLimits {
    /// Longest packet in bytes.
    pub packet_len: u64,
    /// Longest `READ` that is answered in full, in bytes.
    pub read_len: u64,
    /// Longest `WRITE` in bytes of data.
    pub write_len: u64,
    /// Most handles open at a time.
    pub open_handles: u64,
}

impl ServerLimits {
    /// Decodes the content of the reply.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            packet_len: r.u64()?,
            read_len: r.u64()?,
            write_len: r.u64()?,
            open_handles: r.u64()?,
        })
    }

    /// Appends the content of the reply.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            packet_len,
            read_len,
            write_len,
            open_handles,
        } = *self;
        w.u64(packet_len);
        w.u64(read_len);
        w.u64(write_len);
        w.u64(open_handles);
    }
}

/// The reply to `users-groups-by-id@openssh.com`: names in the order of the numbers asked for.
///
/// Source: OpenSSH `PROTOCOL`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UsersGroups<'a> {
    /// Names of users, empty for those that the server does not know.
    pub users: List<'a, &'a [u8]>,
    /// Names of groups, empty for those that the server does not know.
    pub groups: List<'a, &'a [u8]>,
}

impl<'a> UsersGroups<'a> {
    /// Decodes the content of the reply.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let mut names =
            || List::decode_to_end(Reader::new(r.string(PACKET_LEN_MAX)?), PACKET_LEN_MAX);
        Ok(Self {
            users: names()?,
            groups: names()?,
        })
    }

    /// Appends the content of the reply.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { users, groups } = *self;
        w.scope(|w| users.encode(w));
        w.scope(|w| groups.encode(w));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_as_openssh_has_them() {
        let statvfs = StatVfs {
            block_size: 1,
            fragment_size: 2,
            blocks: 3,
            blocks_free: 4,
            blocks_available: 5,
            files: 6,
            files_free: 7,
            files_available: 8,
            fsid: 9,
            flags: 10,
            name_max: 11,
        };
        let bytes: Vec<u8> = (1_u64..=11).flat_map(u64::to_be_bytes).collect();
        assert_eq!(StatVfs::decode(Reader::new(&bytes)), Ok(statvfs));
        assert_eq!(statvfs.bytes_available(), 10);

        let limits = ServerLimits {
            packet_len: 1,
            read_len: 2,
            write_len: 3,
            open_handles: 4,
        };
        assert_eq!(
            ServerLimits::decode(Reader::new(&bytes)),
            Ok(limits),
            "the rest is passed over"
        );

        let names = UsersGroups {
            users: List::new(&[b"root", b""]),
            groups: List::new(&[b"wheel"]),
        };
        let bytes = b"\0\0\0\x0c\0\0\0\x04root\0\0\0\0\0\0\0\x09\0\0\0\x05wheel";
        assert_eq!(UsersGroups::decode(Reader::new(bytes)), Ok(names));
    }

    #[test]
    fn a_file_system_too_large_to_count_is_not_small() {
        let huge = StatVfs {
            blocks_available: 1 << 60,
            fragment_size: 4096,
            ..StatVfs::default()
        };
        assert_eq!(huge.bytes_available(), u64::MAX);
    }

    proptest! {
        #[test]
        fn every_reply_survives_the_wire(
            n in any::<[u64; 11]>(),
            users in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
            groups in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
        ) {
            let [block_size, fragment_size, blocks, blocks_free, blocks_available, ..] = n;
            let [.., files, files_free, files_available, fsid, flags, name_max] = n;
            let statvfs = StatVfs {
                block_size, fragment_size, blocks, blocks_free, blocks_available, files, files_free,
                files_available, fsid, flags, name_max,
            };
            let mut bytes = Vec::new();
            statvfs.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(StatVfs::decode(Reader::new(&bytes)), Ok(statvfs));
            for cut in 0..bytes.len() {
                prop_assert!(StatVfs::decode(Reader::new(&bytes[..cut])).is_err());
            }

            let [packet_len, read_len, write_len, open_handles, ..] = n;
            let limits = ServerLimits { packet_len, read_len, write_len, open_handles };
            bytes.clear();
            limits.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(ServerLimits::decode(Reader::new(&bytes)), Ok(limits));
            for cut in 0..bytes.len() {
                prop_assert!(ServerLimits::decode(Reader::new(&bytes[..cut])).is_err());
            }

            let users: Vec<_> = users.iter().map(|name| &name[..]).collect();
            let groups: Vec<_> = groups.iter().map(|name| &name[..]).collect();
            assert_survives!(UsersGroups, UsersGroups {
                users: List::new(&users), groups: List::new(&groups),
            });
        }
    }
}
