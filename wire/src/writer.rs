//! Appends fields to a vector in wire order (RFC 4251 §5).

use crate::NameList;

/// Writes fields to the end of a vector that somebody else keeps and reuses.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`; what is in it already stays.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// A `byte`.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// A `boolean`, 1 for true (RFC 4251 §5).
    pub fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    /// A `uint32`.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A `uint64`.
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes without a length in front.
    pub fn bytes(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    /// A `string`.
    ///
    /// # Panics
    /// If `value` is longer than 4 GiB, which no message of ours comes near.
    pub fn string(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("a string is shorter than 4 GiB"));
        self.bytes(value);
    }

    /// An `mpint` from the big-endian magnitude of a number that is not negative.
    ///
    /// Leading zeros are dropped and one zero byte is put in front of a high bit (RFC 4251 §5).
    pub fn mpint(&mut self, magnitude: &[u8]) {
        let zeros = magnitude.iter().take_while(|&&byte| byte == 0).count();
        let magnitude = magnitude.get(zeros..).unwrap_or_default();
        self.scope(|w| {
            if magnitude.first().is_some_and(|&byte| byte >= 0x80) {
                w.u8(0);
            }
            w.bytes(magnitude);
        });
    }

    /// A `name-list`.
    pub fn name_list(&mut self, list: NameList<'_>) {
        self.string(list.as_bytes());
    }

    /// A `name-list` of the given names, joined by commas.
    pub fn names<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        self.scope(|w| {
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    w.u8(b',');
                }
                w.bytes(name.as_bytes());
            }
        });
    }

    /// A `string` whose content `fill` writes; the length is patched in afterwards.
    ///
    /// # Panics
    /// If the content is longer than 4 GiB, which no message of ours comes near.
    pub fn scope(&mut self, fill: impl FnOnce(&mut Writer<'_>)) {
        let start = self.out.len();
        self.u32(0);
        fill(&mut Writer::new(self.out));
        let body = self.out.len().saturating_sub(start).saturating_sub(4);
        let len = u32::try_from(body).expect("a string is shorter than 4 GiB");
        if let Some(slot) = self.out.get_mut(start..start.saturating_add(4)) {
            slot.copy_from_slice(&len.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mpints_are_written_as_rfc_4251_section_5_shows() {
        let table: [(&[u8], &[u8]); 5] = [
            (&[], &[0, 0, 0, 0]),
            (&[0, 0], &[0, 0, 0, 0]),
            (
                &[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
                &[0, 0, 0, 8, 0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7],
            ),
            (&[0x80], &[0, 0, 0, 2, 0, 0x80]),
            (&[0, 0x7f], &[0, 0, 0, 1, 0x7f]),
        ];
        for (magnitude, wire) in table {
            let mut out = Vec::new();
            Writer::new(&mut out).mpint(magnitude);
            assert_eq!(out, wire);
        }
    }

    #[test]
    fn a_scope_patches_its_length() {
        let mut out = vec![9];
        Writer::new(&mut out).scope(|w| w.u32(5));
        assert_eq!(out, [9, 0, 0, 0, 4, 0, 0, 0, 5]);
    }
}
