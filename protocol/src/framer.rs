//! Cuts a stream of bytes into packets (draft-02 §3), under the two decoders of `decoder.rs`.
//!
//! For each packet its *head* is brought together: all of it for most types, only the fields
//! before the body for bulk data, nothing but the type for packets that will be skipped. A head
//! that lies whole in the input is lent from there; one that the end of the input cuts is
//! collected in the framer's buffer. What comes after the head is left to the decoder, or skipped.

use crate::packet::{LENGTH_LEN, PREFIX_LEN};
use crate::{Escaped, Limits, PacketType, ProtocolError};

/// Capacity in bytes that the buffer keeps between packets: what an idle session costs.
const BUFFER_KEPT: usize = 1024;

/// How much of a packet is its head, given its type and the bytes after the type that are there
/// so far: a number of bytes after the type (it may grow as more of them are seen), or all.
pub(crate) type HeadLen = fn(PacketType, &[u8]) -> Option<usize>;

/// Where in the stream of packets the input stands.
#[derive(Debug)]
pub(crate) struct Framer {
    packet_len_max: usize,
    head_len: HeadLen,
    /// Start of a packet that the end of an input cut: never longer than the head needs.
    buffer: Vec<u8>,
    /// The buffer held a head that was lent by the last call.
    lent: bool,
    /// Bytes after the last head that are not wanted: the rest of its packet, unless the decoder
    /// takes a body itself.
    skip: usize,
    /// Whether a packet was seen yet: text in its place is told apart.
    first: bool,
}

/// A head that is together.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) packet_type: PacketType,
    /// Input consumed up to the end of the head.
    pub(crate) consumed: usize,
    /// Bytes of the packet after the head.
    pub(crate) rest: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// In the input, from here to `consumed`, length and type in front.
    Input(usize),
    Buffer,
}

impl Framer {
    pub(crate) fn new(limits: Limits, head_len: HeadLen) -> Self {
        let packet_len_max = limits.packet_len;
        Self {
            packet_len_max,
            head_len,
            buffer: Vec::new(),
            lent: false,
            skip: 0,
            first: true,
        }
    }

    /// Brings the next head together; `None` if all input was taken before it was.
    pub(crate) fn head(&mut self, input: &[u8]) -> Result<Option<Head>, ProtocolError> {
        if self.lent {
            self.lent = false;
            self.buffer.clear();
            self.buffer.shrink_to(BUFFER_KEPT);
        }
        let skipped = self.skip.min(input.len());
        self.skip = self.skip.saturating_sub(skipped);
        if self.skip > 0 {
            return Ok(None);
        }
        let fresh = input.get(skipped..).unwrap_or_default();
        if self.buffer.is_empty() {
            let (needed, packet_len) = self.measure(fresh, &[])?;
            if let (Some(head), Some(packet_len)) = (fresh.get(..needed), packet_len) {
                let packet_type = PacketType(head.get(LENGTH_LEN).copied().unwrap_or_default());
                let consumed = skipped.saturating_add(needed);
                self.skip = packet_len.saturating_sub(needed);
                let place = Place::Input(skipped);
                return Ok(Some(Head {
                    packet_type,
                    consumed,
                    rest: self.skip,
                    place,
                }));
            }
            self.buffer.extend_from_slice(fresh);
            return Ok(None);
        }
        let mut rest = fresh;
        loop {
            let (needed, packet_len) = self.measure(&self.buffer, rest)?;
            let missing = needed.saturating_sub(self.buffer.len());
            if missing == 0
                && let Some(packet_len) = packet_len
            {
                self.lent = true;
                let packet_type = self.buffer.get(LENGTH_LEN).copied().unwrap_or_default();
                let packet_type = PacketType(packet_type);
                let consumed = input.len().saturating_sub(rest.len());
                self.skip = packet_len.saturating_sub(needed);
                let place = Place::Buffer;
                return Ok(Some(Head {
                    packet_type,
                    consumed,
                    rest: self.skip,
                    place,
                }));
            }
            let Some((more, left)) = rest.split_at_checked(missing.min(rest.len())) else {
                return Ok(None);
            };
            if more.is_empty() {
                return Ok(None);
            }
            self.buffer.extend_from_slice(more);
            rest = left;
        }
    }

    /// The bytes of a head after length and type.
    pub(crate) fn bytes<'s>(&'s self, head: &Head, input: &'s [u8]) -> &'s [u8] {
        let whole = match head.place {
            Place::Input(start) => input.get(start..head.consumed),
            Place::Buffer => Some(&self.buffer[..]),
        };
        whole
            .and_then(|bytes| bytes.get(PREFIX_LEN..))
            .unwrap_or_default()
    }

    /// The decoder took the body after the last head itself: only `surplus` bytes of the packet
    /// are left to be skipped.
    pub(crate) const fn body_ended(&mut self, surplus: usize) {
        self.skip = surplus;
    }

    #[cfg(test)]
    pub(crate) fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether the last head was the first of the stream; asked once for each.
    pub(crate) const fn take_first(&mut self) -> bool {
        std::mem::replace(&mut self.first, false)
    }

    /// How many bytes of the packet at the start of `have` are needed for its head, length and
    /// type included, and, when that is known, how long the packet is with its length field.
    ///
    /// `ahead` is input after `have`: it is looked at only to report text.
    fn measure(&self, have: &[u8], ahead: &[u8]) -> Result<(usize, Option<usize>), ProtocolError> {
        let Some(length) = have.first_chunk() else {
            return Ok((LENGTH_LEN, None));
        };
        let len = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        // The length is checked as soon as its last byte is there, before anything is kept.
        if len > self.packet_len_max {
            return Err(self.too_long(len, *length, have, ahead));
        }
        if len == 0 {
            return Err(ProtocolError::PacketEmpty);
        }
        let packet_len = len.saturating_add(LENGTH_LEN);
        let Some((&[.., packet_type], fields)) = have.split_first_chunk::<PREFIX_LEN>() else {
            return Ok((PREFIX_LEN, None));
        };
        let needed = match (self.head_len)(PacketType(packet_type), fields) {
            Some(head_len) => packet_len.min(head_len.saturating_add(PREFIX_LEN)),
            None => packet_len,
        };
        Ok((needed, Some(packet_len)))
    }

    /// A login script that prints sends text where the first length should be.
    fn too_long(&self, len: usize, length: [u8; 4], have: &[u8], ahead: &[u8]) -> ProtocolError {
        let is_text = |byte: &u8| byte.is_ascii_graphic() || b" \t\r\n".contains(byte);
        if !(self.first && length.iter().all(is_text)) {
            return ProtocolError::PacketTooLong {
                len,
                max: self.packet_len_max,
            };
        }
        let text = have
            .iter()
            .chain(ahead)
            .copied()
            .take(ProtocolError::TEXT_LEN_MAX);
        ProtocolError::NotSftp {
            text: Escaped(&text.collect::<Vec<u8>>()).to_string(),
        }
    }
}
