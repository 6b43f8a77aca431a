//! The names of one directory with their facts, in some 20 bytes each.
//!
//! They lie sorted in chunks. Within a chunk each entry has the bytes it shares with the name before,
//! the rest of its name, its size, and the difference of its time to the time before:
//!
//! ```text
//! varint shared   varint rest_len   rest   u8 flags   [varint size]   [zigzag varint mtime − last]
//! ```
//!
//! A change rewrites the chunk it falls into. The same chunks are written to disk (`file.rs`).

use std::cmp::Ordering;

use ketch_client::FileType;

use crate::snapshot::Facts;

/// Bytes after which a chunk is closed: it is at most one entry longer.
const CHUNK_LEN: usize = 8 * 1024;

/// Longest name that is taken.
pub(super) const NAME_LEN_MAX: usize = 64 * 1024;

const KIND: u8 = 0b0000_0111;
const HAS_SIZE: u8 = 0b0000_1000;
const HAS_MTIME: u8 = 0b0001_0000;
const MISSED: u8 = 0b0110_0000;
const MISSED_SHIFT: u32 = 5;
const UNTOLD: u8 = 0b1000_0000;

/// What is known of a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub facts: Facts,
    /// Complete listings in a row that lacked it: at most 3.
    pub missed: u8,
    /// Whether the ledger has it. Directories are kept before it has.
    pub told: bool,
}

impl Entry {
    pub(super) const fn told(facts: Facts) -> Self {
        Self {
            facts,
            missed: 0,
            told: true,
        }
    }
}

/// The names of one directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Block {
    chunks: Vec<Box<[u8]>>,
    len: u64,
}

impl Block {
    /// How many names there are.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory, about.
    pub(super) fn size(&self) -> usize {
        let chunks = self.chunks.iter().map(|chunk| chunk.len() + 16);
        chunks.sum::<usize>() + self.chunks.capacity() * size_of::<Box<[u8]>>()
    }

    /// The chunks, for writing them down.
    pub(super) fn chunks(&self) -> &[Box<[u8]>] {
        &self.chunks
    }

    /// Takes chunks that were written down. `None` if they do not hold `len` sorted names.
    pub(super) fn from_chunks(chunks: Vec<Box<[u8]>>, len: u64) -> Option<Self> {
        let mut last: Option<Vec<u8>> = None;
        let mut found = 0_u64;
        for chunk in &chunks {
            let mut cursor = Cursor::over(std::slice::from_ref(chunk));
            let before = found;
            while let Some((name, _)) = cursor.next() {
                let rises = last.as_deref().is_none_or(|last| last < name);
                if !rises || name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
                    return None;
                }
                last.get_or_insert_default().clear();
                last.get_or_insert_default().extend_from_slice(name);
                found += 1;
            }
            if !cursor.is_at_end() || found == before {
                return None;
            }
        }
        (found == len).then_some(Self { chunks, len })
    }

    /// All names in order.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor::over(&self.chunks)
    }

    /// What is known of `name`.
    pub(super) fn get(&self, name: &[u8]) -> Option<Entry> {
        let at = self.chunk_of(name);
        let mut cursor = Cursor::over(self.chunks.get(at..=at)?);
        while let Some((found, entry)) = cursor.next() {
            match found.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(entry),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The chunk that `name` is in, or would be.
    fn chunk_of(&self, name: &[u8]) -> usize {
        self.chunks
            .partition_point(|chunk| first_name(chunk) <= name)
            .saturating_sub(1)
    }

    /// Sets or takes away (`None`) names. `edits` are sorted by name, each once.
    pub(super) fn edit(&mut self, edits: &[(Vec<u8>, Option<Entry>)]) {
        let Some((first, _)) = edits.first() else {
            return;
        };
        let at = self.chunk_of(first);
        let mut rest = edits;
        let mut old = std::mem::take(&mut self.chunks).into_iter();
        let mut new: Vec<Box<[u8]>> = old.by_ref().take(at).collect();
        let mut old = old.peekable();
        loop {
            let chunk = old.next();
            let here = match old.peek() {
                Some(next) => {
                    let bound = first_name(next);
                    rest.partition_point(|(name, _)| name.as_slice() < bound)
                }
                None => rest.len(),
            };
            let (now, later) = rest.split_at_checked(here).unwrap_or((rest, &[]));
            rest = later;
            match chunk {
                Some(chunk) if now.is_empty() => new.push(chunk),
                chunk => self.merge(chunk, now, &mut new),
            }
            if rest.is_empty() {
                break;
            }
        }
        new.extend(old);
        new.shrink_to_fit();
        self.chunks = new;
    }

    fn merge(
        &mut self,
        chunk: Option<Box<[u8]>>,
        edits: &[(Vec<u8>, Option<Entry>)],
        out: &mut Vec<Box<[u8]>>,
    ) {
        let mut encoder = Encoder::default();
        let mut edits = edits.iter().peekable();
        let mut cursor = Cursor::over(chunk.as_slice());
        while let Some((name, entry)) = cursor.next() {
            while let Some((new, set)) = edits.next_if(|(new, _)| new.as_slice() < name) {
                if let Some(set) = set {
                    encoder.push(new, *set);
                    self.len += 1;
                }
            }
            match edits.next_if(|(new, _)| new == name) {
                None => encoder.push(name, entry),
                Some((_, Some(set))) => encoder.push(name, *set),
                Some((_, None)) => self.len = self.len.saturating_sub(1),
            }
        }
        for (new, set) in edits {
            if let Some(set) = set {
                encoder.push(new, *set);
                self.len += 1;
            }
        }
        encoder.finish(out);
    }
}

fn first_name(chunk: &[u8]) -> &[u8] {
    let mut at = 1; // nothing is shared at the start of a chunk: one zero byte
    varint(chunk, &mut at)
        .and_then(|len| usize::try_from(len).ok())
        .and_then(|len| chunk.get(at..at.checked_add(len)?))
        .unwrap_or_default()
}

/// Reads chunk after chunk. What is no entry ends the chunk.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    chunks: std::slice::Iter<'a, Box<[u8]>>,
    chunk: &'a [u8],
    at: usize,
    name: Vec<u8>,
    mtime: u32,
}

impl<'a> Cursor<'a> {
    fn over(chunks: &'a [Box<[u8]>]) -> Self {
        Self {
            chunks: chunks.iter(),
            chunk: &[],
            at: 0,
            name: Vec::new(),
            mtime: 0,
        }
    }

    /// The next name, lent until the one after it.
    pub(super) fn next(&mut self) -> Option<(&[u8], Entry)> {
        let entry = self.advance()?;
        Some((&self.name, entry))
    }

    /// The name that [`Cursor::advance`] came to.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Goes to the next name.
    pub(super) fn advance(&mut self) -> Option<Entry> {
        while self.at >= self.chunk.len() {
            self.chunk = self.chunks.next()?;
            self.at = 0;
            self.name.clear();
            self.mtime = 0;
        }
        let mut at = self.at;
        match self.entry(&mut at) {
            Some(entry) => {
                self.at = at;
                Some(entry)
            }
            None => {
                self.chunks = [].iter();
                None
            }
        }
    }

    /// Whether all bytes were entries.
    fn is_at_end(&self) -> bool {
        self.at >= self.chunk.len()
    }

    fn entry(&mut self, at: &mut usize) -> Option<Entry> {
        let shared = usize::try_from(varint(self.chunk, at)?).ok()?;
        let rest = usize::try_from(varint(self.chunk, at)?).ok()?;
        let end = at.checked_add(rest)?;
        let bytes = self.chunk.get(*at..end)?;
        if shared > self.name.len() || shared + rest > NAME_LEN_MAX {
            return None;
        }
        *at = end;
        let flags = *self.chunk.get(*at)?;
        *at += 1;
        let size = match flags & HAS_SIZE {
            0 => None,
            _ => Some(varint(self.chunk, at)?),
        };
        let mtime = match flags & HAS_MTIME {
            0 => None,
            _ => {
                let change = unzigzag(varint(self.chunk, at)?);
                let mtime = u32::try_from(i64::from(self.mtime).checked_add(change)?).ok()?;
                self.mtime = mtime;
                Some(mtime)
            }
        };
        self.name.truncate(shared);
        self.name.extend_from_slice(bytes);
        Some(Entry {
            facts: Facts {
                kind: kind_of(flags & KIND),
                size,
                mtime,
            },
            missed: (flags & MISSED) >> MISSED_SHIFT,
            told: flags & UNTOLD == 0,
        })
    }
}

/// Writes entries, which come sorted, into chunks.
#[derive(Default)]
struct Encoder {
    out: Vec<u8>,
    done: Vec<Box<[u8]>>,
    name: Vec<u8>,
    mtime: u32,
}

impl Encoder {
    fn push(&mut self, name: &[u8], entry: Entry) {
        if self.out.len() >= CHUNK_LEN {
            self.done.push(self.out.as_slice().into());
            self.out.clear();
        }
        if self.out.is_empty() {
            self.name.clear();
            self.mtime = 0;
        }
        let shared = self
            .name
            .iter()
            .zip(name)
            .take_while(|(old, new)| old == new)
            .count();
        let rest = name.get(shared..).unwrap_or_default();
        put_varint(&mut self.out, shared as u64);
        put_varint(&mut self.out, rest.len() as u64);
        self.out.extend_from_slice(rest);
        let Facts { kind, size, mtime } = entry.facts;
        let mut flags = number_of(kind) | (entry.missed.min(3) << MISSED_SHIFT);
        flags |= if size.is_some() { HAS_SIZE } else { 0 };
        flags |= if mtime.is_some() { HAS_MTIME } else { 0 };
        flags |= if entry.told { 0 } else { UNTOLD };
        self.out.push(flags);
        if let Some(size) = size {
            put_varint(&mut self.out, size);
        }
        if let Some(mtime) = mtime {
            let change = i64::from(mtime) - i64::from(self.mtime);
            put_varint(&mut self.out, zigzag(change));
            self.mtime = mtime;
        }
        self.name.truncate(shared);
        self.name.extend_from_slice(rest);
    }

    fn finish(mut self, out: &mut Vec<Box<[u8]>>) {
        out.append(&mut self.done);
        if !self.out.is_empty() {
            out.push(self.out.into_boxed_slice());
        }
    }
}

/// Numbers in seven bits a byte, the low ones first; the high bit says that more follow.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

const fn number_of(kind: FileType) -> u8 {
    match kind {
        FileType::Regular => 0,
        FileType::Directory => 1,
        FileType::Symlink => 2,
        FileType::BlockDevice => 3,
        FileType::CharDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        _ => 7,
    }
}

const fn kind_of(number: u8) -> FileType {
    match number {
        0 => FileType::Regular,
        1 => FileType::Directory,
        2 => FileType::Symlink,
        3 => FileType::BlockDevice,
        4 => FileType::CharDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        _ => FileType::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            vec(1_u8..=255, 1..40),
            (0..3_000_u32).prop_map(|n| format!("order-{n:08}.csv").into_bytes()),
        ]
        .prop_filter("names have no slash", |name| !name.contains(&b'/'))
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (
            0_u8..8,
            any::<Option<u64>>(),
            any::<Option<u32>>(),
            0_u8..4,
            any::<bool>(),
        )
            .prop_map(|(kind, size, mtime, missed, told)| Entry {
                facts: Facts {
                    kind: kind_of(kind),
                    size,
                    mtime,
                },
                missed,
                told,
            })
    }

    fn all(block: &Block) -> BTreeMap<Vec<u8>, Entry> {
        let mut cursor = block.cursor();
        let mut found = BTreeMap::new();
        while let Some((name, entry)) = cursor.next() {
            found.insert(name.to_vec(), entry);
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_block_is_the_map_it_was_made_of(
            rounds in vec(btree_map(name(), any::<Option<()>>().prop_flat_map(|some| {
                (Just(some.is_some()), entry())
            }), 1..600), 1..6),
        ) {
            let mut model = BTreeMap::new();
            let mut block = Block::default();
            for round in rounds {
                let edits: Vec<_> = round
                    .into_iter()
                    .map(|(name, (set, entry))| (name, set.then_some(entry)))
                    .collect();
                for (name, set) in &edits {
                    match set {
                        Some(entry) => model.insert(name.clone(), *entry),
                        None => model.remove(name),
                    };
                }
                block.edit(&edits);
                prop_assert_eq!(&all(&block), &model);
                prop_assert_eq!(block.len(), model.len() as u64);
                for (name, entry) in &model {
                    prop_assert_eq!(block.get(name), Some(*entry));
                }
                let again = Block::from_chunks(block.chunks().to_vec(), block.len());
                prop_assert_eq!(again.as_ref(), Some(&block));
            }
            prop_assert_eq!(block.get(b"not there/"), None);
        }

        #[test]
        fn bytes_that_are_no_block_do_no_harm(bytes in vec(any::<u8>(), 0..300), len in 0_u64..20) {
            let chunks = vec![bytes.into_boxed_slice()];
            drop(Block::from_chunks(chunks, len));
        }

        #[test]
        fn numbers_survive(number in any::<u64>(), signed in any::<i64>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let mut at = 0;
            prop_assert_eq!(varint(&bytes, &mut at), Some(number));
            prop_assert_eq!(at, bytes.len());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }

    #[test]
    fn a_file_takes_few_bytes() {
        let facts = |n: u32| Facts {
            kind: FileType::Regular,
            size: Some(u64::from(n) * 977 % 10_000_000),
            mtime: Some(1_790_000_000 + n * 7919 % 86_400),
        };
        let edits: Vec<_> = (0..10_000_u32)
            .map(|n| {
                (
                    format!("order-{n:08}.csv").into_bytes(),
                    Some(Entry::told(facts(n))),
                )
            })
            .collect();
        let mut block = Block::default();
        block.edit(&edits);
        assert!(block.size() < 20 * 10_000, "{} bytes", block.size());
    }
}
