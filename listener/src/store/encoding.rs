//! The bytes of a row: one encoding for all stores, with a checksum.
//!
//! Numbers are LEB128, so that a row of a small file takes few bytes; texts and bytes have their
//! length before them. At the end stands the CRC-32 of flow, path and all bytes before it. The path
//! itself is the row's key and is not repeated; a sink's name for the file is left out where it is
//! the path, as it is where a tree is mirrored.

use ketch_client::{FileType, RemotePath};

use super::row::{Entry, directory, is_active};
use super::{Delivery, Next, Placement, State};
use crate::flow::item::{FlowName, ItemKind};
use crate::snapshot::Facts;

/// First byte of a row: the format of what follows.
const FORMAT: u8 = 1;
/// Bytes of the checksum at the end.
const CRC_LEN: usize = 4;

/// The kind of item that has an older name.
const RENAMED: u8 = 3;

const HAS_SIZE: u8 = 1;
const HAS_TIME: u8 = 1 << 1;
const HAS_SHA256: u8 = 1 << 2;
const HAS_REASON: u8 = 1 << 3;
const HAS_OWNER: u8 = 1 << 4;
const HAS_NEXT: u8 = 1 << 5;

const DONE: u8 = 1;
const NAME_IS_PATH: u8 = 1 << 1;
const HAS_LENGTH: u8 = 1 << 2;
const HAS_NOTE: u8 = 1 << 3;

const TOLD: u8 = 1;
const IS_THERE: u8 = 1 << 1;

/// Appends fields.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn number(&mut self, mut number: u64) {
        loop {
            let low = u8::try_from(number & 0x7f).unwrap_or(0);
            number >>= 7;
            if number == 0 {
                return self.byte(low);
            }
            self.byte(low | 0x80);
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn array(&mut self, bytes: &[u8; 32]) {
        self.0.extend_from_slice(bytes);
    }

    /// The bytes, with their checksum under `keys`.
    pub(super) fn seal(mut self, keys: &[&[u8]]) -> Vec<u8> {
        let crc = crc(keys, &self.0);
        self.0.extend_from_slice(&crc.to_le_bytes());
        self.0
    }
}

/// Takes fields off the front. `None` is damage.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the checksum of `bytes` under `keys`.
    pub(super) fn open(keys: &[&[u8]], bytes: &'a [u8]) -> Option<Self> {
        Self::begun(hasher(keys), bytes)
    }

    /// The same with a checksum that was begun with the keys.
    fn begun(mut hasher: crc32fast::Hasher, bytes: &'a [u8]) -> Option<Self> {
        let (fields, sum) = bytes.split_last_chunk::<CRC_LEN>()?;
        hasher.update(fields);
        (u32::from_le_bytes(*sum) == hasher.finalize()).then_some(Self(fields))
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            // What does not fit was never written.
            if (low << shift) >> shift != low {
                return None;
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn array(&mut self) -> Option<[u8; 32]> {
        let (array, rest) = self.0.split_first_chunk::<32>()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn finish(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn hasher(keys: &[&[u8]]) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    for key in keys {
        add_key(&mut hasher, key);
    }
    hasher
}

fn add_key(hasher: &mut crc32fast::Hasher, key: &[u8]) {
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
}

fn crc(keys: &[&[u8]], fields: &[u8]) -> u32 {
    let mut hasher = hasher(keys);
    hasher.update(fields);
    hasher.finalize()
}

/// Looks at the rows of one flow, one after the other, without a copy of anything.
#[derive(Clone, Debug)]
pub(super) struct Glances(crc32fast::Hasher);

/// What is looked at when all rows are.
#[derive(Debug)]
pub(super) struct Glance<'a> {
    pub(super) state: State,
    pub(super) columns: Columns<'a>,
    pub(super) is_owned: bool,
}

impl Glances {
    pub(super) fn of(flow: &FlowName) -> Self {
        Self(hasher(&[flow.as_str().as_bytes()]))
    }

    /// What the row of `path` says; `None` if its bytes are damaged.
    pub(super) fn at<'a>(&self, path: &'a [u8], bytes: &[u8]) -> Option<Glance<'a>> {
        let mut hasher = self.0.clone();
        add_key(&mut hasher, path);
        let mut r = Reader::begun(hasher, bytes)?;
        if r.byte()? != FORMAT {
            return None;
        }
        let state = state_of(r.byte()?)?;
        if r.byte()? == RENAMED {
            r.bytes()?;
        }
        let flags = r.byte()?;
        let facts = take_facts(&mut r, flags)?;
        optional(flags & HAS_SHA256, || r.array())?;
        let [sequence, _recorded, _attempts, due, _number, acted] = [(); 6].map(|()| r.number());
        let (sequence, due, acted) = (sequence?, due?, acted?);
        let active = is_active(state).then_some(());
        Some(Glance {
            state,
            columns: Columns {
                state: i64::from(state_byte(state)),
                due: active.map(|()| column(due)),
                sequence: active.map(|()| column(sequence)),
                directory: active.map(|()| directory(path)),
                changed: active.map(|()| facts.mtime.map_or(0, i64::from)),
                acted: (state == State::Acted).then(|| column(acted)),
            },
            is_owned: flags & HAS_OWNER != 0,
        })
    }
}

/// The checksum that stands at the end of an encoded row.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    bytes
        .last_chunk::<CRC_LEN>()
        .map_or(0, |sum| u32::from_le_bytes(*sum))
}

/// The bytes of a row.
pub(super) fn encode(flow: &FlowName, entry: &Entry) -> Vec<u8> {
    let Entry {
        path,
        sequence,
        kind,
        facts,
        sha256,
        recorded,
        state,
        attempts,
        reason,
        due,
        owner,
        number,
        acted,
        deliveries,
        next,
    } = entry;
    let mut w = Writer::default();
    w.byte(FORMAT);
    w.byte(state_byte(*state));
    w.byte(match kind {
        ItemKind::Created => 0,
        ItemKind::Modified => 1,
        ItemKind::Removed => 2,
        ItemKind::Renamed { .. } => RENAMED,
    });
    if let ItemKind::Renamed { from } = kind {
        w.bytes(from.as_bytes());
    }
    let mut flags = facts_flags(facts);
    for (flag, there) in [
        (HAS_SHA256, sha256.is_some()),
        (HAS_REASON, reason.is_some()),
        (HAS_OWNER, owner.is_some()),
        (HAS_NEXT, next.is_some()),
    ] {
        if there {
            flags |= flag;
        }
    }
    w.byte(flags);
    put_facts(&mut w, facts);
    if let Some(sha256) = sha256 {
        w.array(sha256);
    }
    for field in [
        *sequence,
        *recorded,
        u64::from(*attempts),
        *due,
        *number,
        *acted,
    ] {
        w.number(field);
    }
    for text in [reason, owner].into_iter().flatten() {
        w.bytes(text.as_bytes());
    }
    w.number(deliveries.len() as u64);
    for delivery in deliveries {
        put_delivery(&mut w, delivery, path);
    }
    if let Some(Next {
        facts,
        sha256,
        told,
    }) = next
    {
        let there = if facts.is_some() { IS_THERE } else { 0 };
        let sum = if sha256.is_some() { HAS_SHA256 } else { 0 };
        w.byte(u8::from(*told) | there | sum);
        if let Some(facts) = facts {
            w.byte(facts_flags(facts));
            put_facts(&mut w, facts);
        }
        if let Some(sha256) = sha256 {
            w.array(sha256);
        }
    }
    w.seal(&[flow.as_str().as_bytes(), path.as_bytes()])
}

/// The row of these bytes; `None` if they are damaged.
pub(super) fn decode(flow: &FlowName, path: &[u8], bytes: &[u8]) -> Option<Entry> {
    let mut r = Reader::open(&[flow.as_str().as_bytes(), path], bytes)?;
    if r.byte()? != FORMAT {
        return None;
    }
    let state = state_of(r.byte()?)?;
    let kind = match r.byte()? {
        0 => ItemKind::Created,
        1 => ItemKind::Modified,
        2 => ItemKind::Removed,
        RENAMED => ItemKind::Renamed {
            from: RemotePath::from(r.bytes()?),
        },
        _ => return None,
    };
    let flags = r.byte()?;
    let facts = take_facts(&mut r, flags)?;
    let sha256 = optional(flags & HAS_SHA256, || r.array())?;
    let [sequence, recorded, attempts, due, number, acted] = [(); 6].map(|()| r.number());
    let reason = optional(flags & HAS_REASON, || r.text())?;
    let owner = optional(flags & HAS_OWNER, || r.text())?;
    let count = r.number()?;
    let mut deliveries = Vec::new();
    for _ in 0..count {
        deliveries.push(take_delivery(&mut r, path)?);
    }
    let next = optional(flags & HAS_NEXT, || take_next(&mut r))?;
    r.finish()?;
    Some(Entry {
        path: RemotePath::from(path),
        sequence: sequence?,
        kind,
        facts,
        sha256,
        recorded: recorded?,
        state,
        attempts: u32::try_from(attempts?).ok()?,
        reason,
        due: due?,
        owner,
        number: number?,
        acted: acted?,
        deliveries,
        next,
    })
}

/// The columns that repeat what the body says, so that indexes can be made of it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Columns<'a> {
    pub(super) state: i64,
    pub(super) due: Option<i64>,
    pub(super) sequence: Option<i64>,
    pub(super) directory: Option<&'a [u8]>,
    pub(super) changed: Option<i64>,
    pub(super) acted: Option<i64>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let active = entry.is_active().then_some(());
        Self {
            state: i64::from(state_byte(entry.state)),
            due: active.map(|()| column(entry.due)),
            sequence: active.map(|()| column(entry.sequence)),
            directory: active.map(|()| entry.directory()),
            changed: active.map(|()| entry.facts.mtime.map_or(0, i64::from)),
            acted: (entry.state == State::Acted).then(|| column(entry.acted)),
        }
    }
}

/// Databases' integers have a sign.
pub(super) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The number of a state in rows and columns.
pub(super) const fn state_byte(state: State) -> u8 {
    match state {
        State::Known => 0,
        State::Pending => 1,
        State::Claimed => 2,
        State::Committed => 3,
        State::Done => 4,
        State::Acted => 5,
        State::Dead => 6,
    }
}

fn state_of(byte: u8) -> Option<State> {
    State::ALL
        .into_iter()
        .find(|state| state_byte(*state) == byte)
}

/// `Some(None)` where the flag is not set; `None` where it is and the field is damaged.
fn optional<T>(flag: u8, take: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
    if flag == 0 {
        Some(None)
    } else {
        take().map(Some)
    }
}

const fn facts_flags(facts: &Facts) -> u8 {
    let size = if facts.size.is_some() { HAS_SIZE } else { 0 };
    let time = if facts.mtime.is_some() { HAS_TIME } else { 0 };
    size | time
}

fn put_facts(w: &mut Writer, facts: &Facts) {
    w.byte(match facts.kind {
        FileType::Regular => 0,
        FileType::Directory => 1,
        FileType::Symlink => 2,
        FileType::BlockDevice => 3,
        FileType::CharDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Unknown => 7,
    });
    for field in [facts.size, facts.mtime.map(u64::from)]
        .into_iter()
        .flatten()
    {
        w.number(field);
    }
}

fn take_facts(r: &mut Reader<'_>, flags: u8) -> Option<Facts> {
    let kind = match r.byte()? {
        0 => FileType::Regular,
        1 => FileType::Directory,
        2 => FileType::Symlink,
        3 => FileType::BlockDevice,
        4 => FileType::CharDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Unknown,
        _ => return None,
    };
    let size = optional(flags & HAS_SIZE, || r.number())?;
    let mtime = optional(flags & HAS_TIME, || u32::try_from(r.number()?).ok())?;
    Some(Facts { kind, size, mtime })
}

fn put_delivery(w: &mut Writer, delivery: &Delivery, path: &RemotePath) {
    let Delivery {
        sink,
        placement: Placement { name, length, note },
        done,
    } = delivery;
    let is_path = name.as_slice() == path.as_bytes();
    let mut flags = if *done { DONE } else { 0 };
    if is_path {
        flags |= NAME_IS_PATH;
    }
    if length.is_some() {
        flags |= HAS_LENGTH;
    }
    if !note.is_empty() {
        flags |= HAS_NOTE;
    }
    w.byte(flags);
    w.bytes(sink.as_bytes());
    if !is_path {
        w.bytes(name);
    }
    if let Some(length) = length {
        w.number(*length);
    }
    if !note.is_empty() {
        w.bytes(note);
    }
}

fn take_delivery(r: &mut Reader<'_>, path: &[u8]) -> Option<Delivery> {
    let flags = r.byte()?;
    let sink = r.text()?;
    let name = if flags & NAME_IS_PATH == 0 {
        r.bytes()?
    } else {
        path
    };
    Some(Delivery {
        sink,
        placement: Placement {
            name: name.to_vec(),
            length: optional(flags & HAS_LENGTH, || r.number())?,
            note: optional(flags & HAS_NOTE, || r.bytes())?
                .unwrap_or_default()
                .to_vec(),
        },
        done: flags & DONE != 0,
    })
}

fn take_next(r: &mut Reader<'_>) -> Option<Next> {
    let flags = r.byte()?;
    let facts = optional(flags & IS_THERE, || {
        let flags = r.byte()?;
        take_facts(r, flags)
    })?;
    Some(Next {
        facts,
        sha256: optional(flags & HAS_SHA256, || r.array())?,
        told: flags & TOLD != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> impl Strategy<Value = Facts> {
        (any::<Option<u64>>(), any::<Option<u32>>()).prop_map(|(size, mtime)| Facts {
            kind: FileType::Regular,
            size,
            mtime,
        })
    }

    fn delivery() -> impl Strategy<Value = Delivery> {
        (
            any::<Option<u64>>(),
            any::<bool>(),
            "[ab]{0,3}",
            "[ab]{0,3}",
        )
            .prop_map(|(length, done, name, note)| Delivery {
                sink: "disk".to_owned(),
                placement: Placement {
                    name: name.into_bytes(),
                    length,
                    note: note.into_bytes(),
                },
                done,
            })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let numbers = any::<[u64; 5]>();
        let next = proptest::option::of((proptest::option::of(facts()), any::<bool>()));
        (
            facts(),
            numbers,
            proptest::sample::select(State::ALL.to_vec()),
            any::<Option<[u8; 32]>>(),
            any::<bool>(),
            proptest::collection::vec(delivery(), 0..3),
            next,
        )
            .prop_map(
                |(facts, numbers, state, sha256, renamed, deliveries, next)| {
                    let [sequence, recorded, due, number, acted] = numbers;
                    Entry {
                        path: RemotePath::from("ab"),
                        sequence,
                        kind: if renamed {
                            ItemKind::Renamed {
                                from: RemotePath::from(&b"\xff"[..]),
                            }
                        } else {
                            ItemKind::Modified
                        },
                        facts,
                        sha256,
                        recorded,
                        state,
                        attempts: 3,
                        reason: renamed.then(|| "why".to_owned()),
                        due,
                        owner: (!renamed).then(|| "me".to_owned()),
                        number,
                        acted,
                        deliveries,
                        next: next.map(|(facts, told)| Next {
                            facts,
                            sha256: None,
                            told,
                        }),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn rows_survive_and_every_flip_is_found(entry in entry(), bit in any::<prop::sample::Index>()) {
            let flow = FlowName::new("f").expect("a name");
            let mut bytes = encode(&flow, &entry);
            let glances = Glances::of(&flow);
            let glance = glances.at(b"ab", &bytes).expect("it is whole");
            prop_assert_eq!(&glance.columns, &Columns::of(&entry));
            prop_assert_eq!((glance.state, glance.is_owned), (entry.state, entry.owner.is_some()));
            prop_assert_eq!(decode(&flow, b"ab", &bytes), Some(entry));
            prop_assert_eq!(decode(&flow, b"aB", &bytes), None);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&flow, b"ab", &bytes), None);
            prop_assert!(glances.at(b"ab", &bytes).is_none());
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode(&flow, b"ab", &bytes[..cut]), None);
            }
        }
    }
}
