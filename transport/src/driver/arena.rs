//! Receive arenas and output buffers: taken from a bounded pool when there is something to read or
//! write, given back when they are empty. An idle connection holds none.

use std::sync::{Mutex, PoisonError};

use crate::packet::{PACKET_LEN_MAX, Place};

/// Bytes that are read from the stream at once: below 64 KiB a byte costs twice as much, above
/// 256 KiB nothing is gained.
pub(super) const READ_LEN: usize = 256 * 1024;
/// Length of an arena: the largest packet that is accepted, and one read behind it.
pub const ARENA_LEN: usize = READ_LEN + PACKET_LEN_MAX as usize + 64;
/// Space behind the read bytes of a compressed connection, for what its packets inflate to: at least
/// the longest payload, and some shorter ones in the same round.
const INFLATE_LEN: usize = PACKET_LEN_MAX as usize + 128 * 1024;
/// Most buffers of each kind that wait in the pool of the process.
const POOLED_MAX: usize = 16;

/// Where the bytes of one turn lie.
#[derive(Debug)]
pub struct Arena {
    pub(super) bytes: Vec<u8>,
}

impl Arena {
    /// The bytes at a noted place; empty if it is none of this arena.
    #[must_use]
    pub fn bytes(&self, place: Place) -> &[u8] {
        self.bytes
            .get(place.start..place.start.saturating_add(place.len))
            .unwrap_or_default()
    }

    /// An arena with the given content, for tests of applications.
    #[doc(hidden)]
    #[must_use]
    pub const fn with_content(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }

    pub(super) fn take() -> Self {
        // Zeroed pages come from the system when they are first touched; most never are.
        Self {
            bytes: ARENAS.take().unwrap_or_else(|| vec![0; ARENA_LEN]),
        }
    }

    /// Makes room behind what is read, in which payloads are inflated.
    pub(super) fn make_space(&mut self) {
        if self.bytes.len() < ARENA_LEN + INFLATE_LEN {
            self.bytes.resize(ARENA_LEN + INFLATE_LEN, 0);
        }
    }

    pub(super) fn give_back(self) {
        ARENAS.put(self.bytes);
    }
}

/// Output buffers that wait to be used again.
pub(super) static OUTPUT_BUFFERS: Pool = Pool::new();
static ARENAS: Pool = Pool::new();

/// Buffers that wait to be used again.
pub(super) struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn put(&self, buffer: Vec<u8>) {
        let mut pooled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pooled.len() < POOLED_MAX {
            pooled.push(buffer);
        }
    }
}
