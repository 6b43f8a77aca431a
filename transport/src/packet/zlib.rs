//! Compression of payloads with zlib (RFC 4253 §6.2): a stream over all packets of a direction, of
//! which each packet carries one piece, flushed so that it can be inflated when it is in.
//!
//! What a payload inflates to is bounded before it is made ([`INFLATED_LEN_MAX`]).

use std::fmt;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use zeroize::Zeroize;

use super::{Input, Lent, PACKET_LEN_MAX, PacketError};

/// Longest payload that a packet inflates to: as long as one that came uncompressed.
pub(super) const INFLATED_LEN_MAX: usize = PACKET_LEN_MAX as usize;
/// How hard is tried: zlib's own default, and OpenSSH's.
const LEVEL: u32 = 6;
/// What a payload that cannot be made shorter grows by, at least: ends of blocks, and the flush.
const SLACK: usize = 64;

/// Longest piece of the stream that a payload of that length makes: five bytes for each 16 KiB that
/// are stored as they are, and the flush, with room to spare.
pub(super) const fn deflated_len_max(payload_len: usize) -> usize {
    payload_len + payload_len / 64 + SLACK
}

/// Makes payloads shorter.
pub(super) struct Deflater {
    zlib: Compress,
    packed: Vec<u8>,
}

/// Makes them what they were.
pub(super) struct Inflater {
    zlib: Decompress,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self {
            zlib: Compress::new(flate2::Compression::new(LEVEL), true),
            packed: Vec::new(),
        }
    }

    /// The next piece of the stream; all of `payload` can be had back from it.
    pub(super) fn deflate(&mut self, payload: &[u8]) -> &[u8] {
        self.packed.clear();
        self.packed.reserve(deflated_len_max(payload.len()));
        let start = self.zlib.total_in();
        loop {
            let taken = usize::try_from(self.zlib.total_in() - start).unwrap_or(usize::MAX);
            let rest = payload.get(taken..).unwrap_or_default();
            self.zlib
                .compress_vec(rest, &mut self.packed, FlushCompress::Partial)
                .expect("a stream of ours is in order");
            // Room that is left means that nothing waits to be put there (zlib's manual).
            if self.packed.len() < self.packed.capacity() {
                return &self.packed;
            }
            self.packed.reserve(deflated_len_max(rest.len()));
        }
    }
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self {
            zlib: Decompress::new(true),
        }
    }

    /// Inflates a packet's piece of the stream into the space of `input`, which has
    /// [`INFLATED_LEN_MAX`] bytes of it.
    pub(super) fn inflate<'a>(
        &mut self,
        packed: &[u8],
        input: &mut Input<'a>,
    ) -> Result<Lent<'a>, PacketError> {
        let space = input.space();
        let end = space.len().min(INFLATED_LEN_MAX);
        let space = &mut space[..end];
        let len = self.fill(packed, space);
        if len.is_err() {
            space.fill(0); // as after a wrong tag, nobody looks at it
        }
        input
            .lend_space(len?)
            .filter(|payload| !payload.bytes.is_empty())
            .ok_or(PacketError::BadCompression)
    }

    fn fill(&mut self, packed: &[u8], space: &mut [u8]) -> Result<usize, PacketError> {
        let (mut taken, mut filled) = (0, 0);
        loop {
            let (before_in, before_out) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self
                .zlib
                .decompress(
                    &packed[taken..],
                    &mut space[filled..],
                    FlushDecompress::Sync,
                )
                .map_err(|_| PacketError::BadCompression)?;
            let step = |now: u64, before| usize::try_from(now - before).unwrap_or(usize::MAX);
            let took = step(self.zlib.total_in(), before_in);
            let gave = step(self.zlib.total_out(), before_out);
            taken += took;
            filled += gave;
            // A stream has no end before the connection's. Where the space is full there may be more.
            if status == Status::StreamEnd || filled == space.len() {
                return Err(PacketError::BadCompression);
            }
            if taken == packed.len() {
                return Ok(filled);
            }
            if took == 0 && gave == 0 {
                return Err(PacketError::BadCompression);
            }
        }
    }
}

impl Drop for Deflater {
    fn drop(&mut self) {
        self.packed.zeroize();
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deflater")
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inflater")
    }
}
