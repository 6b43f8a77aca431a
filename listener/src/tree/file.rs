//! What is known of a tree, as one file.
//!
//! ```text
//! "ketch tree\n"  u8 version  [u8; 16] ledger  u8 given_up  u32 witnesses  u64 directories
//! for each directory, by path:
//!   varint shared  varint rest_len  rest  u8 flags  [u32 mtime]  varint names  varint chunks
//!   for each chunk: varint len  bytes (see `block.rs`)
//! u32 CRC-32 of all that is before it
//! ```
//!
//! Integers are big-endian. It is written beside its place, synced and renamed, so that there is
//! always a whole one. What is damaged, of another version or of another ledger is told and not used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use ketch_client::RemotePath;

use super::block::{Block, NAME_LEN_MAX, put_varint};
use super::known::{Node, Snapshot};
use super::times::Trust;

const MAGIC: &[u8; 11] = b"ketch tree\n";
const VERSION: u8 = 1;
const HAS_MTIME: u8 = 1;
const LISTED: u8 = 2;

/// Longest chunk that is read: one is at most a name longer than it should be.
const CHUNK_LEN_MAX: u64 = 128 * 1024;
/// Longest path of a directory.
const PATH_LEN_MAX: usize = 64 * NAME_LEN_MAX;

/// Why a snapshot was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file could not be read or written.
    #[error("cannot read or write the snapshot")]
    Io(#[from] io::Error),
    /// It is no snapshot, or one of another version of this program.
    #[error("not a snapshot of this version")]
    Foreign,
    /// It belongs to another ledger.
    #[error("the snapshot of another ledger")]
    OtherLedger,
    /// It is cut off or was changed.
    #[error("the snapshot is damaged")]
    Damaged,
}

impl Snapshot {
    /// Reads what [`crate::detect::Detector::save`] wrote for the ledger `ledger`. `None` if there
    /// is no such file.
    ///
    /// # Errors
    /// [`SnapshotError`]; to go on without it costs look-ups in the ledger, nothing else.
    pub fn load(path: &Path, ledger: [u8; 16]) -> Result<Option<Self>, SnapshotError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Self::read(BufReader::with_capacity(1 << 18, file), ledger).map(Some)
    }

    /// Writes it for the ledger `ledger`: to a temporary file beside `path`, synced and renamed.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn save(&self, path: &Path, ledger: [u8; 16]) -> Result<(), SnapshotError> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".snapshot-")
            .tempfile_in(directory)?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        self.write(&mut out, ledger)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        #[cfg(unix)]
        File::open(directory)?.sync_all()?;
        Ok(())
    }

    fn write(&self, out: impl Write, ledger: [u8; 16]) -> io::Result<()> {
        let mut out = Summed::new(out);
        out.write_all(MAGIC)?;
        out.write_all(&[VERSION])?;
        out.write_all(&ledger)?;
        let (given_up, witnesses) = match self.trust {
            Trust::Learning(witnesses) => (0, witnesses),
            Trust::GivenUp => (1, 0),
        };
        out.write_all(&[given_up])?;
        out.write_all(&witnesses.to_be_bytes())?;
        out.write_all(&(self.directories.len() as u64).to_be_bytes())?;
        let mut last: &[u8] = &[];
        let mut head = Vec::new();
        for (path, node) in &self.directories {
            let path = path.as_bytes();
            let shared = last.iter().zip(path).take_while(|(a, b)| a == b).count();
            let rest = path.get(shared..).unwrap_or_default();
            last = path;
            head.clear();
            put_varint(&mut head, shared as u64);
            put_varint(&mut head, rest.len() as u64);
            head.extend_from_slice(rest);
            head.push(u8::from(node.mtime.is_some()) * HAS_MTIME + u8::from(node.listed) * LISTED);
            if let Some(mtime) = node.mtime {
                head.extend_from_slice(&mtime.to_be_bytes());
            }
            put_varint(&mut head, node.block.len());
            put_varint(&mut head, node.block.chunks().len() as u64);
            out.write_all(&head)?;
            for chunk in node.block.chunks() {
                head.clear();
                put_varint(&mut head, chunk.len() as u64);
                out.write_all(&head)?;
                out.write_all(chunk)?;
            }
        }
        let sum = out.sum.clone().finalize();
        out.write_all(&sum.to_be_bytes())?;
        out.inner.flush()
    }

    fn read(input: impl Read, ledger: [u8; 16]) -> Result<Self, SnapshotError> {
        let mut input = Summed::new(input);
        if input.array::<11>().is_ok_and(|magic| magic != *MAGIC) {
            return Err(SnapshotError::Foreign);
        }
        if input.array()? != [VERSION] {
            return Err(SnapshotError::Foreign);
        }
        if input.array()? != ledger {
            return Err(SnapshotError::OtherLedger);
        }
        let [given_up] = input.array()?;
        let witnesses = u32::from_be_bytes(input.array()?);
        let trust = match given_up {
            0 => Trust::Learning(witnesses),
            _ => Trust::GivenUp,
        };
        let count = u64::from_be_bytes(input.array()?);
        let mut directories = BTreeMap::new();
        let mut path: Vec<u8> = Vec::new();
        for index in 0..count {
            let shared = input.length(path.len())?;
            let rest = input.length(PATH_LEN_MAX - shared)?;
            let rest = input.bytes(rest)?;
            if index > 0 && path.get(shared..).is_none_or(|old| old >= rest.as_slice()) {
                return Err(SnapshotError::Damaged); // not sorted
            }
            path.truncate(shared);
            path.extend_from_slice(&rest);
            let [flags] = input.array()?;
            let mtime = match flags & HAS_MTIME {
                0 => None,
                _ => Some(u32::from_be_bytes(input.array()?)),
            };
            let names = input.varint()?;
            let mut chunks = Vec::new();
            for _ in 0..input.varint()? {
                let len = input.length(usize::try_from(CHUNK_LEN_MAX).unwrap_or(usize::MAX))?;
                chunks.push(input.bytes(len)?.into_boxed_slice());
            }
            let block = Block::from_chunks(chunks, names).ok_or(SnapshotError::Damaged)?;
            let node = Node {
                block,
                mtime,
                listed: flags & LISTED != 0,
            };
            directories.insert(RemotePath::from(path.as_slice()), node);
        }
        let sum = input.sum.clone().finalize();
        let mut end = [0; 1];
        if input.array()? != sum.to_be_bytes() || input.inner.read(&mut end)? != 0 {
            return Err(SnapshotError::Damaged);
        }
        Ok(Self { directories, trust })
    }
}

/// Reads or writes, and keeps the sum.
struct Summed<T> {
    inner: T,
    sum: crc32fast::Hasher,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            sum: crc32fast::Hasher::new(),
        }
    }
}

impl<W: Write> Summed<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<R: Read> Summed<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.inner
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => SnapshotError::Damaged,
                _ => SnapshotError::Io(error),
            })?;
        self.sum.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64, SnapshotError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(SnapshotError::Damaged)
    }

    fn length(&mut self, max: usize) -> Result<usize, SnapshotError> {
        match usize::try_from(self.varint()?) {
            Ok(len) if len <= max => Ok(len),
            _ => Err(SnapshotError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use ketch_client::FileType;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::super::block::Entry;
    use super::*;
    use crate::snapshot::Facts;

    fn tree() -> impl Strategy<Value = Snapshot> {
        let names = btree_map("[a-z]{1,8}", (any::<u64>(), any::<u32>()), 0..40);
        let node = (names, any::<Option<u32>>(), any::<bool>());
        let directories = btree_map("([a-c]{1,3}(/[a-c]{1,3}){0,3})?", node, 0..12);
        (directories, 0..9_u32).prop_map(|(directories, witnesses)| {
            let mut tree = Snapshot {
                trust: match witnesses {
                    8 => Trust::GivenUp,
                    witnesses => Trust::Learning(witnesses),
                },
                ..Snapshot::default()
            };
            for (path, (names, mtime, listed)) in directories {
                let node = tree.node_mut(&RemotePath::from(path.as_str()));
                node.mtime = mtime;
                node.listed = listed;
                let edits: Vec<_> = names
                    .into_iter()
                    .map(|(name, (size, mtime))| {
                        let facts = Facts {
                            kind: FileType::Regular,
                            size: Some(size),
                            mtime: Some(mtime),
                        };
                        (name.into_bytes(), Some(Entry::told(facts)))
                    })
                    .collect();
                node.block.edit(&edits);
            }
            tree
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_tree_survives_the_disk(tree in tree(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = Vec::new();
            tree.write(&mut bytes, [7; 16]).unwrap();
            prop_assert_eq!(Snapshot::read(bytes.as_slice(), [7; 16]).unwrap(), tree);
            prop_assert!(Snapshot::read(bytes.as_slice(), [8; 16]).is_err());
            let at = at.index(bytes.len());
            prop_assert!(Snapshot::read(bytes.get(..at).unwrap(), [7; 16]).is_err());
            bytes[at] ^= flip;
            prop_assert!(Snapshot::read(bytes.as_slice(), [7; 16]).is_err());
        }

        #[test]
        fn bytes_that_are_no_tree_do_no_harm(tail in vec(any::<u8>(), 0..200)) {
            let bytes = [MAGIC.as_slice(), &[VERSION], &[7; 16], &tail].concat();
            drop(Snapshot::read(bytes.as_slice(), [7; 16]));
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_a_missing_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tree");
        assert!(matches!(Snapshot::load(&path, [1; 16]), Ok(None)));
        let mut tree = Snapshot::default();
        tree.node_mut(&RemotePath::from("a")).listed = true;
        for _ in 0..2 {
            tree.save(&path, [1; 16]).unwrap();
            assert_eq!(Snapshot::load(&path, [1; 16]).unwrap(), Some(tree.clone()));
        }
        assert!(matches!(
            Snapshot::load(&path, [2; 16]),
            Err(SnapshotError::OtherLedger)
        ));
        std::fs::write(&path, b"something else altogether").unwrap();
        assert!(matches!(
            Snapshot::load(&path, [1; 16]),
            Err(SnapshotError::Foreign)
        ));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
