//! What the request table needs of the stream below it: a channel, a pipe, a test.
//!
//! The channel of a connection is one [`Link`] (`channel.rs`); anything that carries bytes in
//! order can be another.

use std::{io::IoSliceMut, time::Instant};

pub(crate) use ketch_transport::driver::Place;

/// The buffer that holds what was received in this turn.
pub(crate) trait Places {
    /// The bytes at a place that was noted in this turn.
    fn bytes(&self, place: Place) -> &[u8];
}

/// The way to the server.
pub(crate) trait Link {
    /// The time of this turn.
    fn now(&self) -> Instant;

    /// Bytes that were accepted and could not leave yet.
    fn queued(&mut self) -> usize;

    /// Bytes that can leave at once when nothing is under way: a packet filled in place must not
    /// be longer.
    fn sendable_peak(&mut self) -> usize;

    /// Sends a packet, or queues it.
    ///
    /// # Errors
    /// [`Full`] if it was not taken.
    fn send(&mut self, packet: &[u8]) -> Result<(), Full>;

    /// Sends a packet that is filled where it will be sealed, and returns how many bytes of data
    /// went out; `None` if there is no room now. Zero bytes send nothing.
    fn send_filled(&mut self, packet: &mut dyn Fill) -> Option<usize>;

    /// Received bytes were consumed: the server may send as many more.
    fn give_credit(&mut self, bytes: usize);

    /// Ends the stream.
    fn close(&mut self);
}

/// A packet that consists of a header and of data read from somewhere.
pub(crate) trait Fill {
    /// Bytes of the header, and at most of data.
    fn len(&self) -> (usize, usize);

    /// Reads data into the slots, in their order, and says how much it was.
    fn fill(&mut self, slots: &mut [IoSliceMut<'_>]) -> usize;

    /// The header for so much data.
    fn header(&mut self, data_len: usize) -> &[u8];
}

/// The queue takes no more for now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Full;
