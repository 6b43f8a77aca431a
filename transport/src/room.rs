//! Room on a channel: data fields of outgoing packets, filled where they will be sealed.

use std::io::IoSliceMut;

use crate::channel::SendHalf;
use crate::packet::Slots;

/// Room for a run of bytes on a channel, within its window, not sent until [`Room::commit`].
///
/// Fill it straight from a file, then say how much came: a byte is read into its packet, sealed
/// there, and copied once more by the kernel. Dropping it sends nothing.
#[derive(Debug)]
pub struct Room<'a> {
    slots: Slots<'a>,
    half: &'a mut SendHalf,
}

impl<'a> Room<'a> {
    pub(crate) const fn new(slots: Slots<'a>, half: &'a mut SendHalf) -> Self {
        Self { slots, half }
    }

    /// Bytes that fit; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub const fn len(&self) -> usize {
        self.slots.len()
    }

    /// Copies a few bytes, such as a header, to position `at`; what lies beyond the end is dropped.
    pub fn write_at(&mut self, at: usize, bytes: &[u8]) {
        self.slots.write_at(at, bytes);
    }

    /// Lends the slots from byte `from` on, in order, as a vectored read wants them.
    pub fn fill<R>(&mut self, from: usize, read: impl FnOnce(&mut [IoSliceMut<'_>]) -> R) -> R {
        self.slots.fill(from, read)
    }

    /// Sends the first `len` bytes; the rest of the room is dropped.
    pub fn commit(self, len: usize) {
        let len = len.min(self.slots.len());
        self.half.debit(len);
        self.slots.commit(len);
    }
}
