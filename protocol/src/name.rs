//! Names of files: `SSH_FXP_NAME` (draft-02 §7), the reply to `READDIR`, `REALPATH`, `READLINK`.

use std::fmt;

use crate::limits::PACKET_LEN_MAX;
use crate::packet::{LENGTH_LEN, encode_packet};
use crate::{
    DecodeError, Element, Escaped, FileType, List, PacketType, Reader, RequestId, WireAttrs, Writer,
};

/// The entries of a `NAME`, decoded as they are walked.
pub type Names<'a> = List<'a, NameEntry<'a>>;

/// One file in a `NAME`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct NameEntry<'a> {
    /// Name within the directory for `READDIR`, a path for `REALPATH` and `READLINK`.
    ///
    /// It is what the server says: it may hold slashes, control characters, `..`, or nothing.
    pub filename: &'a [u8],
    /// A line for people, as `ls -l` prints it; nobody promises its form.
    pub longname: &'a [u8],
    /// What the server tells about the file.
    pub attrs: WireAttrs<'a>,
}

impl NameEntry<'_> {
    /// What kind of file it is: from the mode bits, else from the first letter of `longname`.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        match self.attrs.attrs.file_type() {
            FileType::Unknown => FileType::from_longname(self.longname),
            known => known,
        }
    }
}

impl<'a> Element<'a> for NameEntry<'a> {
    fn decode_next(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            filename: r.string(PACKET_LEN_MAX)?,
            longname: r.string(PACKET_LEN_MAX)?,
            attrs: WireAttrs::decode_next(r)?,
        })
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            filename,
            longname,
            attrs,
        } = *self;
        w.string(filename);
        w.string(longname);
        attrs.encode(w);
    }
}

impl fmt::Debug for NameEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameEntry")
            .field("filename", &Escaped(self.filename))
            .field("longname", &Escaped(self.longname))
            .field("attrs", &self.attrs)
            .finish()
    }
}

impl<'a> Names<'a> {
    /// Decodes the fields after the request id.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there are fewer entries than announced, and whatever an
    /// entry may have wrong.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let count = r.u32()?;
        Self::decode_counted(&mut r, count)
    }
}

/// Writes a `NAME` packet entry by entry to the end of a vector.
///
/// The vector holds a whole packet after [`new`](Self::new) and after every
/// [`push`](Self::push), so a directory can be read until the packet is long enough.
#[derive(Debug)]
pub struct NamesWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    count: u32,
}

impl<'o> NamesWriter<'o> {
    /// Bytes of a `NAME` without entries: length, type, id, count.
    const EMPTY_LEN: usize = 13;

    /// Appends a `NAME` without entries.
    pub fn new(id: RequestId, out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        encode_packet(PacketType::NAME, id, out, |w| w.u32(0));
        Self {
            out,
            start,
            count: 0,
        }
    }

    /// Appends `entry` if the packet is then no longer than `packet_len_max` bytes, the length
    /// field included, and says whether it did.
    #[must_use]
    pub fn push(&mut self, entry: &NameEntry<'_>, packet_len_max: usize) -> bool {
        let before = self.out.len();
        entry.encode(&mut Writer::new(self.out));
        let length = u32::try_from(self.packet_len().saturating_sub(LENGTH_LEN));
        let (Ok(length), true) = (length, self.packet_len() <= packet_len_max) else {
            self.out.truncate(before);
            return false;
        };
        self.count = self.count.saturating_add(1);
        self.patch(0, length);
        self.patch(Self::EMPTY_LEN.saturating_sub(4), self.count);
        true
    }

    /// How many entries there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Length of the packet in bytes, the length field included.
    #[must_use]
    pub const fn packet_len(&self) -> usize {
        self.out.len().saturating_sub(self.start)
    }

    /// Overwrites the field that lies `at` bytes into the packet.
    fn patch(&mut self, at: usize, value: u32) {
        let field = self.out.get_mut(self.start.saturating_add(at)..);
        if let Some(field) = field.and_then(|rest| rest.first_chunk_mut()) {
            *field = value.to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attrs;
    use proptest::prelude::*;

    const ENTRY: NameEntry<'_> = NameEntry {
        filename: b"a",
        longname: b"-rw-r--r-- 1 u g 5 Jan 1 a",
        attrs: WireAttrs {
            attrs: Attrs {
                size: Some(5),
                ..Attrs::NONE
            },
            extended: List::EMPTY,
        },
    };

    #[test]
    fn entries_stand_as_draft_section_7_has_them() {
        let mut out = Vec::new();
        let mut names = NamesWriter::new(9, &mut out);
        assert!(names.push(&ENTRY, 100));
        assert_eq!((names.count(), names.packet_len()), (1, 60));
        let bytes = [
            &[
                0, 0, 0, 56, 104, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 26,
            ][..],
            ENTRY.longname,
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5],
        ];
        assert_eq!(out, bytes.concat());
        let names = Names::decode(Reader::new(&out[9..])).unwrap();
        assert_eq!(names, Names::new(&[ENTRY]));
        assert_eq!(
            ENTRY.file_type(),
            FileType::Regular,
            "told by the longname alone"
        );
    }

    #[test]
    fn an_entry_that_does_not_fit_leaves_the_packet_as_it_was() {
        let mut out = b"before".to_vec();
        let mut names = NamesWriter::new(1, &mut out);
        assert!(names.push(&ENTRY, 60), "as long as the packet may be");
        assert!(!names.push(&ENTRY, 106), "one byte too long");
        assert!(names.push(&ENTRY, 107));
        assert_eq!((names.count(), names.packet_len()), (2, 107));
        let mut whole = b"before".to_vec();
        crate::Response::Name(Names::new(&[ENTRY, ENTRY])).encode_packet(1, &mut whole);
        assert_eq!(out, whole);
    }

    #[test]
    fn a_count_that_lies_is_an_error() {
        let mut bytes = Vec::new();
        crate::Response::Name(Names::new(&[ENTRY])).encode(&mut Writer::new(&mut bytes));
        for count in [2, 1_000_000, u32::MAX] {
            bytes[..4].copy_from_slice(&count.to_be_bytes());
            assert_eq!(
                Names::decode(Reader::new(&bytes)),
                Err(DecodeError::Truncated)
            );
        }
        bytes[..4].fill(0);
        assert_eq!(
            Names::decode(Reader::new(&bytes)),
            Ok(Names::EMPTY),
            "the rest is passed over"
        );
    }

    proptest! {
        #[test]
        fn every_list_of_names_survives_the_wire(
            names in proptest::collection::vec(any::<(Vec<u8>, Vec<u8>, Option<u64>)>(), 0..4),
        ) {
            let entries: Vec<_> = names
                .iter()
                .map(|(filename, longname, size)| NameEntry {
                    filename,
                    longname,
                    attrs: Attrs { size: *size, ..Attrs::NONE }.into(),
                })
                .collect();
            let mut bytes = Vec::new();
            crate::Response::Name(Names::new(&entries)).encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(Names::decode(Reader::new(&bytes)), Ok(Names::new(&entries)));
            for cut in 0..bytes.len() {
                prop_assert!(Names::decode(Reader::new(&bytes[..cut])).is_err());
            }
        }
    }
}
