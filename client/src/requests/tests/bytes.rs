//! That a copy is what its original was: parts that are continued, checksums, holes, attributes.

mod changing;
mod get;
mod put;
mod sink;

use super::{server, sim};

/// Bytes of which no two stretches are the same.
fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = Vec::with_capacity(len + 8);
    while content.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(len);
    content
}

/// A file that is large enough to be worth continuing, in bytes.
const LEN: usize = 11 << 20;
