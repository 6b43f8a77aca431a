//! Checksums that a server computes: `check-file-handle` and `check-file-name`
//! (draft-ietf-secsh-filexfer-extensions-00 §3).
//!
//! ProFTPD's mod_sftp, Bitvise, VShell and Apache MINA have them, OpenSSH does not. The draft has
//! servers announce `check-file`; VShell names the requests instead, mod_sftp says nothing at
//! version 3.

use crate::limits::{HANDLE_LEN_MAX, PACKET_LEN_MAX, PATH_LEN_MAX};
use crate::request::debug_fields;
use crate::{DecodeError, Reader, Writer};

/// Longest list of names of algorithms that is read, in bytes.
const ALGORITHMS_LEN_MAX: usize = 256;
/// Under this name servers announce both requests; some begin their replies with it, and some
/// clients ask by it.
pub const CHECK_FILE: &[u8] = b"check-file";

/// An algorithm that `check-file` may use, by its name in the draft.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HashAlgorithm {
    /// `sha256`.
    Sha256,
    /// `sha384`.
    Sha384,
    /// `sha512`.
    Sha512,
    /// `sha1`: for clients that know no other. It tells damage, not malice.
    Sha1,
}

impl HashAlgorithm {
    /// All of them, the one to be asked for first leading.
    pub const ALL: [Self; 4] = [Self::Sha256, Self::Sha384, Self::Sha512, Self::Sha1];

    /// The first of a request's list of names that is known here.
    #[must_use]
    pub fn first_of(names: &[u8]) -> Option<Self> {
        names.split(|&byte| byte == b',').find_map(|name| {
            Self::ALL
                .into_iter()
                .find(|known| known.as_str().as_bytes() == name)
        })
    }

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sha1 => "sha1",
        }
    }

    /// Bytes of one hash.
    #[must_use]
    pub const fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
        }
    }
}

/// `check-file-handle`: hashes of an open file.
///
/// The server answers with `ExtendedReply` ([`CheckFileReply`]), or with `Status`. Source:
/// draft-ietf-secsh-filexfer-extensions-00 §3.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct CheckFileHandle<'a> {
    /// Handle of the file, open for reading, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
    /// Names of algorithms, separated by commas: the server takes the first it has.
    pub algorithms: &'a [u8],
    /// First byte to be hashed, from the start of the file.
    pub offset: u64,
    /// Bytes to be hashed; zero for all up to the end.
    pub len: u64,
    /// Bytes for each hash, at least 256; zero for one hash of everything.
    pub block_len: u32,
}

/// `check-file-name`: hashes of a file.
///
/// The server answers with `ExtendedReply` ([`CheckFileReply`]), or with `Status`. Source:
/// draft-ietf-secsh-filexfer-extensions-00 §3.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct CheckFileName<'a> {
    /// Path of the file, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
    /// Names of algorithms, separated by commas: the server takes the first it has.
    pub algorithms: &'a [u8],
    /// First byte to be hashed, from the start of the file.
    pub offset: u64,
    /// Bytes to be hashed; zero for all up to the end.
    pub len: u64,
    /// Bytes for each hash, at least 256; zero for one hash of everything.
    pub block_len: u32,
}

macro_rules! check_file {
    ($name:ident, $field:ident, $max:ident) => {
        impl<'a> $name<'a> {
            /// Decodes the fields after the name of the extension.
            ///
            /// # Errors
            /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
            pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
                let message = Self {
                    $field: r.string($max)?,
                    algorithms: r.string(ALGORITHMS_LEN_MAX)?,
                    offset: r.u64()?,
                    len: r.u64()?,
                    block_len: r.u32()?,
                };
                r.finish()?;
                Ok(message)
            }

            /// Appends the fields after the name of the extension.
            pub fn encode(&self, w: &mut Writer<'_>) {
                let Self {
                    $field,
                    algorithms,
                    offset,
                    len,
                    block_len,
                } = *self;
                w.string($field);
                w.string(algorithms);
                w.u64(offset);
                w.u64(len);
                w.u32(block_len);
            }
        }

        debug_fields!($name {
            esc $field, esc algorithms, val offset, val len, val block_len
        });
    };
}

check_file!(CheckFileHandle, handle, HANDLE_LEN_MAX);
check_file!(CheckFileName, path, PATH_LEN_MAX);

/// The reply to `check-file-handle` and `check-file-name`.
///
/// Source: draft-ietf-secsh-filexfer-extensions-00 §3.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CheckFileReply<'a> {
    /// The algorithm that the server took: one of those that were named, if it keeps to the draft.
    pub algorithm: &'a [u8],
    /// The hashes one after the other, one for each block.
    pub hashes: &'a [u8],
}

impl<'a> CheckFileReply<'a> {
    /// Decodes the content of the reply, with or without the `check-file` that earlier drafts put
    /// first (draft-ietf-secsh-filexfer-09 §9.1.2).
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let mut algorithm = r.string(ALGORITHMS_LEN_MAX)?;
        if algorithm == CHECK_FILE {
            algorithm = r.string(ALGORITHMS_LEN_MAX)?;
        }
        let hashes = r.take_rest();
        if hashes.len() > PACKET_LEN_MAX {
            return Err(DecodeError::BadValue { field: "hashes" });
        }
        Ok(Self { algorithm, hashes })
    }

    /// Appends the content of the reply.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { algorithm, hashes } = *self;
        w.string(algorithm);
        w.bytes(hashes);
    }

    /// As [`CheckFileReply::encode`], with the name in front that earlier drafts put there. Who asks
    /// by the name `check-file`, as paramiko does, expects it.
    pub fn encode_named(&self, w: &mut Writer<'_>) {
        w.string(CHECK_FILE);
        self.encode(w);
    }

    /// The one hash that was asked for, if it is one by `algorithm`.
    #[must_use]
    pub fn one(&self, algorithm: HashAlgorithm) -> Option<&'a [u8]> {
        (self.algorithm == algorithm.as_str().as_bytes()
            && self.hashes.len() == algorithm.hash_len())
        .then_some(self.hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_with_and_without_the_name_of_earlier_drafts() {
        let hash = [7; 32];
        let mut plain = Vec::new();
        let reply = CheckFileReply {
            algorithm: b"sha256",
            hashes: &hash,
        };
        reply.encode(&mut Writer::new(&mut plain));
        let mut named = b"\0\0\0\x0acheck-file".to_vec();
        named.extend_from_slice(&plain);
        for bytes in [plain, named] {
            let read = CheckFileReply::decode(Reader::new(&bytes)).unwrap();
            assert_eq!(read, reply);
            assert_eq!(read.one(HashAlgorithm::Sha256), Some(&hash[..]));
            assert_eq!(read.one(HashAlgorithm::Sha512), None);
        }
    }

    #[test]
    fn the_first_known_name_is_taken() {
        for (names, first) in [
            (&b"sha256"[..], Some(HashAlgorithm::Sha256)),
            (b"crc32,md5,sha1,sha512", Some(HashAlgorithm::Sha1)),
            (b"sha512,sha1", Some(HashAlgorithm::Sha512)),
            (b"SHA256,sha-256,", None),
            (b"", None),
        ] {
            assert_eq!(HashAlgorithm::first_of(names), first);
        }
    }

    #[test]
    fn a_hash_of_another_length_is_none() {
        let reply = CheckFileReply {
            algorithm: b"sha256",
            hashes: &[7; 31],
        };
        assert_eq!(reply.one(HashAlgorithm::Sha256), None);
    }
}
