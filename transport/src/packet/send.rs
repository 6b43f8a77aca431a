//! Outgoing packets (RFC 4253 §6): framed, padded and sealed in one buffer, which the driver writes
//! to the stream in one call.
//!
//! Bulk data is produced where it is sealed: [`Slots`] are the data fields of all the packets that a
//! run of bytes spans, at their final offsets. A byte read from a file into a slot is encrypted
//! there and copied once more, by the kernel.

use std::fmt;
use std::io::IoSliceMut;

use super::zlib::{Deflater, deflated_len_max};
use super::{PACKETS_MAX, PADDING_MIN, PacketError};
use crate::algorithm::Compression;
use crate::crypto::{KeyMaterial, LENGTH_LEN, Random, RandomFailed, Sealing, Suite};
use crate::message::connection::{ChannelData, DATA_HEADER_LEN};

/// Most unsent bytes that the buffer holds.
const OUTPUT_MAX: usize = 1024 * 1024;
/// Length of a buffer that no bulk data went through.
const BUFFER_SMALL: usize = 16 * 1024;
/// Bulk data is added only while fewer unsent bytes than this wait: a stream that takes little at a
/// time would otherwise have most of the buffer moved to its front again and again.
const BULK_LOW: usize = 256 * 1024;
/// Most unsent bytes with bulk data added. The buffer is longer, so that moving is rare.
const BULK_HIGH: usize = 544 * 1024;
/// Most data bytes that are put in one channel packet, whatever the peer accepts: RFC 4253 §6.1
/// promises no more, and larger ones are no faster.
pub const PACKET_DATA_MAX: usize = 32 * 1024;
/// Most packets that one run of slots spans.
pub const SLOTS_MAX: usize = 16;
/// Bytes of a channel packet before its data.
const SLOT_HEADER_LEN: usize = LENGTH_LEN + 1 + DATA_HEADER_LEN;
/// What the length of a packet that hides its own is a multiple of: of the blocks of all ciphers, and
/// as much as can be padded to from anywhere (256 cannot: `padding_length` is one byte, and the least
/// padding is four).
pub const PADDED_MULTIPLE: usize = 240;
/// Packets that no run of slots takes from the end of the count: for the exchange that has to come,
/// and for a last word.
const RESERVED_PACKETS: u64 = 1024;
/// Random bytes that are drawn at once for padding.
const PADDING_POOL_LEN: usize = 2048;

/// No more fits into the output buffer until the stream took some of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutputFull;

impl fmt::Display for OutputFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the output buffer is full")
    }
}

impl std::error::Error for OutputFull {}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendError {
    /// There is no room for it.
    Full(OutputFull),
    /// The keys have sealed as much as they may ([`PacketError::Exhausted`]): nothing can be sent
    /// before they are exchanged, and messages of the exchange cannot either.
    Exhausted,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(full) => full.fmt(f),
            Self::Exhausted => PacketError::Exhausted.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

impl From<OutputFull> for SendError {
    fn from(full: OutputFull) -> Self {
        Self::Full(full)
    }
}

/// Seals the packets of one direction.
pub struct Sender {
    sealing: Sealing,
    sequence: u32,
    packets: u64,
    bytes: u64,
    /// Packets and bytes under earlier keys.
    before: (u64, u64),
    /// Zeroed once and written over again and again; `head..tail` is sealed and unsent.
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
    padding: PaddingPool,
    /// Somebody is logged in: what was agreed on compression holds from then on.
    compresses: bool,
    compression: Compression,
    deflater: Option<Box<Deflater>>,
    /// Slots that wait to be compressed.
    plain: Vec<u8>,
}

impl Sender {
    /// Before the first keys: packets in clear.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sealing: Sealing::Clear,
            sequence: 0,
            packets: 0,
            bytes: 0,
            before: (0, 0),
            buffer: Vec::new(),
            head: 0,
            tail: 0,
            padding: PaddingPool {
                bytes: Vec::new(),
                used: 0,
            },
            compresses: false,
            compression: Compression::None,
            deflater: None,
            plain: Vec::new(),
        }
    }

    /// A sender with keys made from fixed bytes, of somebody who is logged in: for tests, fuzzing and
    /// measurements only.
    #[doc(hidden)]
    #[must_use]
    pub fn with_test_keys(suite: Suite) -> Self {
        let mut sender = Self::new();
        sender.start_compression();
        sender.install(suite, &super::recv::test_keys(suite), false);
        sender
    }

    /// Packets from now on are sealed with these keys (RFC 4253 §7.3).
    pub(crate) fn install(&mut self, suite: Suite, keys: &KeyMaterial, reset: bool) {
        self.sealing = Sealing::new(suite, keys);
        self.before.0 += self.packets;
        self.before.1 += self.bytes;
        self.packets = 0;
        self.bytes = 0;
        if reset {
            self.sequence = 0;
        }
        self.compression = suite.compression;
        self.restart_compression();
    }

    /// Somebody is logged in: if so agreed, payloads are compressed from the next packet on.
    pub(crate) fn start_compression(&mut self) {
        self.compresses = true;
        self.restart_compression();
    }

    /// The compression's state is made anew with the keys (RFC 4253 §6.2), as OpenSSH does it.
    fn restart_compression(&mut self) {
        self.deflater = (self.compresses && self.compression == Compression::ZlibOpenSsh)
            .then(|| Box::new(Deflater::new()));
    }

    /// Whether so much went under the keys that only a last word is left. The exchange of keys that
    /// was due long before did not come about.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.packets + RESERVED_PACKETS >= PACKETS_MAX || self.bytes >= self.sealing.bytes_max()
    }

    /// As if so much had been sent, so that a test need not wait for it.
    #[cfg(test)]
    pub(crate) const fn pretend_used(&mut self, packets: u64, bytes: u64) {
        self.packets = packets;
        self.bytes = bytes;
    }

    /// Draws fresh bytes for padding when they run out; call it now and then.
    pub(crate) fn refill_padding(&mut self, random: &mut dyn Random) -> Result<(), RandomFailed> {
        if self.padding.used >= self.padding.bytes.len() {
            self.padding.bytes.resize(PADDING_POOL_LEN, 0);
            random.fill(&mut self.padding.bytes)?;
            self.padding.used = 0;
        }
        Ok(())
    }

    /// Packets and bytes that went under these keys.
    #[must_use]
    pub const fn used(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    /// Packets and bytes since the connection began.
    pub(crate) const fn total(&self) -> (u64, u64) {
        (
            self.before.0.saturating_add(self.packets),
            self.before.1.saturating_add(self.bytes),
        )
    }

    pub(crate) const fn rekey_bytes(&self) -> u64 {
        self.sealing.rekey_bytes()
    }

    /// How many packets were sent, modulo 2^32, or since the last reset.
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Sealed bytes that the stream has not taken yet.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.buffer[self.head..self.tail]
    }

    /// The stream took the first `len` bytes of [`Sender::output`].
    pub fn consume(&mut self, len: usize) {
        self.head = self.head.saturating_add(len).min(self.tail);
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        }
    }

    /// Bytes of bulk data that may be added now.
    #[must_use]
    pub const fn free(&self) -> usize {
        let unsent = self.tail - self.head;
        if unsent < BULK_LOW {
            BULK_HIGH - unsent
        } else {
            0
        }
    }

    /// Gives the buffer away if nothing waits in it, so that an idle connection holds none.
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        (self.head == self.tail && self.buffer.capacity() > 0)
            .then(|| std::mem::take(&mut self.buffer))
    }

    /// Takes a buffer to work in, if it has none.
    pub fn give_buffer(&mut self, buffer: Vec<u8>) {
        if self.buffer.capacity() == 0 {
            self.buffer = buffer;
        }
    }

    /// Whether there is no buffer to work in.
    #[must_use]
    pub const fn lacks_buffer(&self) -> bool {
        self.buffer.capacity() == 0
    }

    /// Appends bytes that are no packet: the identification line.
    pub(crate) fn send_clear_line(&mut self, line: &str) {
        let end = self.reserve(line.len() + 2);
        self.buffer[self.tail..end - 2].copy_from_slice(line.as_bytes());
        self.buffer[end - 2..end].copy_from_slice(b"\r\n");
        self.tail = end;
    }

    /// Seals a packet with that payload.
    ///
    /// # Errors
    /// [`SendError::Full`] if the peer takes nothing and control messages alone have filled the
    /// buffer; [`SendError::Exhausted`] if the keys are.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_to(payload, 1)
    }

    /// Seals a packet with that payload, padded so that only how many times [`PADDED_MULTIPLE`] it
    /// is long can be seen: what is used to log in, a password above all.
    ///
    /// # Errors
    /// As those of [`Sender::send`].
    pub fn send_padded(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_to(payload, PADDED_MULTIPLE)
    }

    fn send_to(&mut self, payload: &[u8], multiple: usize) -> Result<(), SendError> {
        // The stream of compressed payloads has no gaps: look for room before, at its longest.
        let len_max = match self.deflater {
            None => payload.len(),
            Some(_) => deflated_len_max(payload.len()),
        };
        if self.tail - self.head + self.layout(len_max, multiple).1 > OUTPUT_MAX {
            return Err(OutputFull.into());
        }
        if self.packets >= PACKETS_MAX {
            return Err(SendError::Exhausted);
        }
        match self.deflater.take() {
            None => self.put(payload, multiple),
            Some(mut deflater) => {
                self.put(deflater.deflate(payload), multiple);
                self.deflater = Some(deflater);
            }
        }
        Ok(())
    }

    /// Seals a packet with that payload behind the others.
    fn put(&mut self, payload: &[u8], multiple: usize) {
        let (padding, total) = self.layout(payload.len(), multiple);
        self.reserve(total);
        let start = self.tail + LENGTH_LEN + 1;
        self.buffer[start..start + payload.len()].copy_from_slice(payload);
        self.seal(self.tail, payload.len(), padding);
        self.tail += total;
    }

    /// Room for `len` bytes of channel data in packets of at most `data_max` bytes; `None` if the
    /// buffer is too full now, they span more than [`SLOTS_MAX`] packets, or the keys are exhausted.
    pub fn slots(&mut self, channel: u32, len: usize, data_max: usize) -> Option<Slots<'_>> {
        if len == 0 || len > data_max.saturating_mul(SLOTS_MAX) || len > self.free() {
            return None;
        }
        if self.is_exhausted() {
            return None;
        }
        let stride = self.layout(DATA_HEADER_LEN + data_max, 1).1;
        let count = len.div_ceil(data_max);
        let last = len - (count - 1) * data_max;
        let total = stride * (count - 1) + self.layout(DATA_HEADER_LEN + last, 1).1;
        if self.deflater.is_none() {
            self.reserve(total);
        } else if self.plain.len() < total {
            self.plain.resize(total, 0);
        }
        Some(Slots {
            sender: self,
            channel,
            len,
            data_max,
            stride,
        })
    }

    /// Padding of a packet with that much payload, and its whole length with tag. Its padded part is
    /// a multiple of the cipher's block, and of `multiple` if that is more.
    const fn layout(&self, payload_len: usize, multiple: usize) -> (usize, usize) {
        let shape = self.sealing.shape();
        let padded = if shape.length_is_padded {
            LENGTH_LEN
        } else {
            0
        } + 1
            + payload_len;
        let block = if multiple > shape.block {
            multiple
        } else {
            shape.block
        };
        let short = block - padded % block;
        let padding = if short < PADDING_MIN {
            short + block
        } else {
            short
        };
        (padding, LENGTH_LEN + 1 + payload_len + padding + shape.tag)
    }

    /// Makes `len` bytes behind `tail` writable; returns where they end.
    fn reserve(&mut self, len: usize) -> usize {
        if self.tail + len > self.buffer.len() {
            if self.head > 0 {
                self.buffer.copy_within(self.head..self.tail, 0);
                self.tail -= self.head;
                self.head = 0;
            }
            if self.tail + len > self.buffer.len() {
                // All at once: what is not written to costs no memory, and moving becomes rare.
                let whole = if self.tail + len > BUFFER_SMALL {
                    OUTPUT_MAX
                } else {
                    BUFFER_SMALL
                };
                self.buffer.resize(whole.max(self.tail + len), 0);
            }
        }
        self.tail + len
    }

    /// Frames and seals the packet that starts at `start`, whose payload is in place.
    fn seal(&mut self, start: usize, payload_len: usize, padding: usize) {
        let len = 1 + payload_len + padding;
        let body_end = start + LENGTH_LEN + len;
        let wire_len = u32::try_from(len).expect("a packet is shorter than 4 GiB");
        self.buffer[start..start + LENGTH_LEN].copy_from_slice(&wire_len.to_be_bytes());
        self.buffer[start + LENGTH_LEN] =
            u8::try_from(padding).expect("padding is shorter than 256 bytes");
        self.padding
            .fill(&mut self.buffer[body_end - padding..body_end]);
        let tag_len = self.sealing.shape().tag;
        let (packet, behind) = self.buffer[start..].split_at_mut(body_end - start);
        self.sealing
            .seal(self.sequence, packet, &mut behind[..tag_len]);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets += 1;
        self.bytes += u64::try_from(LENGTH_LEN + len + tag_len).unwrap_or(u64::MAX);
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unsent = self.tail - self.head;
        f.debug_struct("Sender")
            .field("sequence", &self.sequence)
            .field("unsent", &unsent)
            .finish()
    }
}

/// The data fields of the packets that a run of channel data spans, not sealed yet.
///
/// Fill them, then [`commit`](Slots::commit); dropping them sends nothing.
#[derive(Debug)]
pub struct Slots<'a> {
    sender: &'a mut Sender,
    channel: u32,
    len: usize,
    data_max: usize,
    /// From one packet to the next.
    stride: usize,
}

impl Slots<'_> {
    /// Bytes of data in all slots together.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Copies a few bytes, such as a header, to position `at` of the data; what lies beyond the end
    /// is dropped.
    pub fn write_at(&mut self, mut at: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() && at < self.len {
            let (slot, within) = (at / self.data_max, at % self.data_max);
            let take = bytes.len().min(self.data_max - within).min(self.len - at);
            let start = slot * self.stride + SLOT_HEADER_LEN + within;
            self.area()[start..start + take].copy_from_slice(&bytes[..take]);
            at += take;
            bytes = &bytes[take..];
        }
    }

    /// Lends the slots from byte `from` on, in order, as a vectored read wants them.
    pub fn fill<R>(&mut self, from: usize, read: impl FnOnce(&mut [IoSliceMut<'_>]) -> R) -> R {
        let mut pieces: [IoSliceMut<'_>; SLOTS_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        let (len_all, data_max, stride) = (self.len, self.data_max, self.stride);
        let mut rest = self.area();
        let mut at = 0; // position of `rest` in the data
        while at < len_all {
            let len = data_max.min(len_all - at);
            let (packet, behind) = if rest.len() > stride {
                rest.split_at_mut(stride)
            } else {
                (rest, &mut [][..])
            };
            let slot = &mut packet[SLOT_HEADER_LEN..SLOT_HEADER_LEN + len];
            if from < at + len {
                pieces[count] = IoSliceMut::new(&mut slot[from.saturating_sub(at)..]);
                count += 1;
            }
            at += len;
            rest = behind;
        }
        read(&mut pieces[..count])
    }

    /// Where the packets are put together: where they will be sealed, or, if they are compressed
    /// before that, beside it.
    fn area(&mut self) -> &mut [u8] {
        let sender = &mut *self.sender;
        match sender.deflater {
            None => &mut sender.buffer[sender.tail..],
            Some(_) => &mut sender.plain,
        }
    }

    /// Seals the packets that hold the first `len` bytes; slots behind them are dropped.
    pub fn commit(self, len: usize) {
        let Self {
            sender,
            channel,
            data_max,
            stride,
            ..
        } = self;
        let mut left = len.min(self.len);
        if let Some(mut deflater) = sender.deflater.take() {
            let mut plain = std::mem::take(&mut sender.plain);
            for packet in plain.chunks_mut(stride) {
                let data = left.min(data_max);
                if data == 0 {
                    break;
                }
                let payload = &mut packet[LENGTH_LEN + 1..][..DATA_HEADER_LEN + data];
                payload[..DATA_HEADER_LEN].copy_from_slice(&data_header(channel, data));
                sender.put(deflater.deflate(payload), 1);
                left -= data;
            }
            sender.plain = plain;
            sender.deflater = Some(deflater);
            return;
        }
        while left > 0 {
            let data = left.min(data_max);
            let at = sender.tail + LENGTH_LEN + 1;
            sender.buffer[at..at + DATA_HEADER_LEN].copy_from_slice(&data_header(channel, data));
            let (padding, total) = sender.layout(DATA_HEADER_LEN + data, 1);
            sender.seal(sender.tail, DATA_HEADER_LEN + data, padding);
            sender.tail += total;
            left -= data;
        }
    }
}

fn data_header(channel: u32, data_len: usize) -> [u8; DATA_HEADER_LEN] {
    let wire_len = u32::try_from(data_len).expect("data of a packet is shorter than 4 GiB");
    ChannelData::header(channel, wire_len)
}

/// Random bytes for padding, drawn many at a time: a system call a packet is what costs.
#[derive(Debug)]
struct PaddingPool {
    bytes: Vec<u8>,
    used: usize,
}

impl PaddingPool {
    /// Fills `out`; with zeros once the pool is used up, which RFC 4253 §6 allows (its SHOULD is for
    /// ciphers that leak equal blocks, which none of ours do).
    fn fill(&mut self, out: &mut [u8]) {
        let end = self.used.saturating_add(out.len());
        match self.bytes.get(self.used..end) {
            Some(fresh) => out.copy_from_slice(fresh),
            None => out.fill(0),
        }
        self.used = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::CipherName;
    use crate::packet::{Input, PACKET_LEN_MAX, Receiver};
    use ketch_wire::Reader;
    use proptest::prelude::*;

    fn data_of(bytes: &[u8], cipher: CipherName) -> Vec<(u32, Vec<u8>)> {
        let mut arena = bytes.to_vec();
        let mut input = Input::new(&mut arena);
        let mut receiver = Receiver::with_test_keys(Suite::aead(cipher), PACKET_LEN_MAX);
        let mut seen = Vec::new();
        while let Some(packet) = receiver.next(&mut input).unwrap() {
            let message = ChannelData::decode(Reader::new(&packet.payload.bytes[1..])).unwrap();
            seen.push((message.recipient, message.data.to_vec()));
        }
        assert_eq!(input.remaining(), 0);
        seen
    }

    #[test]
    fn dropped_slots_send_nothing() {
        let mut sender = Sender::with_test_keys(Suite::aead(CipherName::Aes128Gcm));
        assert!(sender.slots(1, 100, 10).is_some());
        assert!(sender.output().is_empty());
    }

    #[test]
    fn a_full_buffer_has_no_slots_and_takes_control_messages() {
        let mut sender = Sender::with_test_keys(Suite::aead(CipherName::Aes128Gcm));
        while let Some(slots) = sender.slots(1, PACKET_DATA_MAX, PACKET_DATA_MAX) {
            slots.commit(PACKET_DATA_MAX);
        }
        assert!(sender.output().len() >= BULK_LOW);
        assert!(sender.send(b"control").is_ok());
        assert_eq!(
            std::iter::repeat_with(|| sender.send(&[0; 1024])).find(Result::is_err),
            Some(Err(SendError::Full(OutputFull)))
        );
        sender.consume(sender.output().len());
        assert!(sender.slots(1, PACKET_DATA_MAX, PACKET_DATA_MAX).is_some());
    }

    proptest! {
        #[test]
        fn slots_carry_what_is_written_to_them(
            len in 1_usize..200, data_max in 20_usize..70, committed in 0_usize..220,
            header in 0_usize..40, which in 0_usize..3,
        ) {
            let cipher = CipherName::AEAD[which];
            let expected: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut sender = Sender::with_test_keys(Suite::aead(cipher));
            let header = header.min(len);
            let mut slots = sender.slots(7, len, data_max).unwrap();
            let filled = slots.fill(header, |pieces| {
                let mut at = header;
                for piece in pieces {
                    let end = at + piece.len();
                    piece.copy_from_slice(&expected[at..end]);
                    at = end;
                }
                at
            });
            prop_assert_eq!(filled, len);
            slots.write_at(0, &expected[..header]);
            let committed = committed.min(len);
            slots.commit(committed);
            let seen = data_of(sender.output(), cipher);
            prop_assert!(seen.iter().all(|(channel, data)| *channel == 7 && data.len() <= data_max));
            let seen: Vec<u8> = seen.into_iter().flat_map(|(_, data)| data).collect();
            prop_assert_eq!(&seen[..], &expected[..committed]);
        }
    }
}
