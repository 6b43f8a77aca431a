//! OpenSSH's binary lists of revoked keys (PROTOCOL.krl).

use std::collections::HashSet;

use ketch_wire::{DecodeError, Reader};

use super::{ENTRIES_MAX, REVOCATION_LIST_LEN_MAX, RevocationError, RevocationList, sha256};
use crate::certificate::Certificate;

/// What a list begins with.
pub(super) const MAGIC: &[u8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;
/// Most sections about certificates: one for each authority.
const CERTIFICATE_SECTIONS_MAX: usize = 1024;
/// Longest bitmap, in bytes, as OpenSSH has it: 2^24 serial numbers.
const BITMAP_LEN_MAX: usize = 2 * 1024 * 1024;
const PART_LEN_MAX: usize = REVOCATION_LIST_LEN_MAX;

mod section {
    pub(super) const CERTIFICATES: u8 = 1;
    pub(super) const EXPLICIT_KEY: u8 = 2;
    pub(super) const FINGERPRINT_SHA1: u8 = 3;
    pub(super) const SIGNATURE: u8 = 4;
    pub(super) const FINGERPRINT_SHA256: u8 = 5;
    pub(super) const EXTENSION: u8 = 255;

    pub(super) const SERIAL_LIST: u8 = 0x20;
    pub(super) const SERIAL_RANGE: u8 = 0x21;
    pub(super) const SERIAL_BITMAP: u8 = 0x22;
    pub(super) const KEY_ID: u8 = 0x23;
    pub(super) const CERTIFICATE_EXTENSION: u8 = 0x39;
}

/// Certificates of one authority, or of any, that are revoked.
#[derive(Clone, Default)]
pub(super) struct RevokedCertificates {
    /// The authority's key; `None` for any.
    authority: Option<Box<[u8]>>,
    /// From and to, in order and apart from each other once all are read.
    serials: Vec<(u64, u64)>,
    /// Offset, and a number whose bits stand for the serials from there.
    bitmaps: Vec<(u64, Box<[u8]>)>,
    key_ids: HashSet<Box<[u8]>>,
}

/// Reads what follows the magic.
pub(super) fn decode(body: &[u8]) -> Result<RevocationList, RevocationError> {
    let mut r = Reader::new(body);
    if r.u32()? != FORMAT_VERSION {
        return Err(RevocationError::Unknown {
            what: "its version",
        });
    }
    let _list_version = r.u64()?;
    let _made = r.u64()?;
    let _flags = r.u64()?;
    let _reserved = r.string(PART_LEN_MAX)?;
    let _comment = r.string(PART_LEN_MAX)?;
    let mut list = RevocationList::default();
    while !r.is_empty() {
        let kind = r.u8()?;
        let mut content = Reader::new(r.string(PART_LEN_MAX)?);
        match kind {
            section::CERTIFICATES => {
                if list.certificates.len() == CERTIFICATE_SECTIONS_MAX {
                    return Err(RevocationError::TooLong);
                }
                list.certificates
                    .push(RevokedCertificates::decode(content)?);
            }
            section::EXPLICIT_KEY => {
                while !content.is_empty() {
                    list.add_sha256(sha256(content.string(PART_LEN_MAX)?))?;
                }
            }
            section::FINGERPRINT_SHA1 => {
                while !content.is_empty() {
                    let hash = content.string(20)?.try_into();
                    list.sha1
                        .insert(hash.map_err(|_| RevocationError::Malformed)?);
                }
            }
            section::FINGERPRINT_SHA256 => {
                while !content.is_empty() {
                    let hash = content.string(32)?.try_into();
                    list.add_sha256(hash.map_err(|_| RevocationError::Malformed)?)?;
                }
            }
            section::SIGNATURE => {
                // What was read is the key; OpenSSH has ignored signatures since 9.4.
                let _signature = r.string(PART_LEN_MAX)?;
            }
            section::EXTENSION => extension(content)?,
            _ => return Err(RevocationError::Unknown { what: "a section" }),
        }
        if list.entries() > ENTRIES_MAX {
            return Err(RevocationError::TooLong);
        }
    }
    Ok(list)
}

/// An extension may be passed over unless it says that it is critical.
fn extension(mut r: Reader<'_>) -> Result<(), RevocationError> {
    let _name = r.string(PART_LEN_MAX)?;
    let is_critical = r.bool()?;
    let _content = r.string(PART_LEN_MAX)?;
    r.finish()?;
    if is_critical {
        Err(RevocationError::Unknown {
            what: "a critical extension",
        })
    } else {
        Ok(())
    }
}

impl RevokedCertificates {
    fn decode(mut r: Reader<'_>) -> Result<Self, RevocationError> {
        let authority = r.string(PART_LEN_MAX)?;
        let _reserved = r.string(PART_LEN_MAX)?;
        let mut revoked = Self {
            authority: (!authority.is_empty()).then(|| authority.into()),
            ..Self::default()
        };
        while !r.is_empty() {
            let kind = r.u8()?;
            let mut content = Reader::new(r.string(PART_LEN_MAX)?);
            match kind {
                section::SERIAL_LIST => {
                    while !content.is_empty() {
                        let serial = content.u64()?;
                        revoked.serials.push((serial, serial));
                    }
                }
                section::SERIAL_RANGE => {
                    let (from, to) = (content.u64()?, content.u64()?);
                    content.finish()?;
                    if from > to {
                        return Err(RevocationError::Malformed);
                    }
                    revoked.serials.push((from, to));
                }
                section::SERIAL_BITMAP => {
                    let offset = content.u64()?;
                    let bits = content.mpint(BITMAP_LEN_MAX)?.magnitude();
                    content.finish()?;
                    revoked.bitmaps.push((offset, bits.into()));
                }
                section::KEY_ID => {
                    while !content.is_empty() {
                        revoked.key_ids.insert(content.string(PART_LEN_MAX)?.into());
                    }
                }
                section::CERTIFICATE_EXTENSION => extension(content)?,
                _ => return Err(RevocationError::Unknown { what: "a section" }),
            }
            if revoked.entries() > ENTRIES_MAX {
                return Err(RevocationError::TooLong);
            }
        }
        revoked.serials = joined(revoked.serials);
        Ok(revoked)
    }

    pub(super) fn entries(&self) -> usize {
        self.serials.len() + self.bitmaps.len() + self.key_ids.len()
    }

    pub(super) fn covers(&self, certificate: &Certificate) -> bool {
        let of_authority = self.authority.as_deref();
        if of_authority.is_some_and(|blob| blob != certificate.authority().as_blob()) {
            return false;
        }
        // Zero is what certificates have whose authority counts none, so it says nothing.
        let serial = certificate.serial();
        self.key_ids.contains(certificate.key_id().as_bytes())
            || (serial != 0 && self.has_serial(serial))
    }

    fn has_serial(&self, serial: u64) -> bool {
        let after = self.serials.partition_point(|&(from, _)| from <= serial);
        let in_range = self
            .serials
            .get(after.wrapping_sub(1))
            .is_some_and(|&(_, to)| serial <= to);
        in_range
            || self.bitmaps.iter().any(|(offset, bits)| {
                serial
                    .checked_sub(*offset)
                    .is_some_and(|bit| has_bit(bits, bit))
            })
    }
}

/// Whether a bit of a big-endian number is set, counted from its end.
fn has_bit(number: &[u8], bit: u64) -> bool {
    let from_end = usize::try_from(bit / 8).ok();
    let at = from_end.and_then(|from_end| number.len().checked_sub(from_end)?.checked_sub(1));
    at.and_then(|at| number.get(at))
        .is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

/// Ranges in order, with those that touch made one.
fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (from, to) in ranges {
        match joined.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    joined
}

impl From<DecodeError> for RevocationError {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bits_are_counted_from_the_end() {
        for (bit, set) in [
            (0, true),
            (1, false),
            (8, false),
            (9, true),
            (15, false),
            (16, false),
            (u64::MAX, false),
        ] {
            assert_eq!(has_bit(&[0b10, 0b1], bit), set, "{bit}");
        }
    }

    proptest! {
        #[test]
        fn joined_ranges_hold_the_same_serials(
            ranges in proptest::collection::vec((0..60_u64, 0..5_u64), 0..20), serial in 0..70_u64,
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(from, more)| (from, from + more)).collect();
            let expected = ranges.iter().any(|&(from, to)| (from..=to).contains(&serial));
            let revoked = RevokedCertificates { serials: joined(ranges), ..Default::default() };
            prop_assert_eq!(revoked.has_serial(serial), expected);
        }
    }
}
