//! Looks at the write-ahead log that a killed process left, before SQLite does.
//!
//! SQLite takes a log up to its first frame whose checksum is wrong and drops the rest without a
//! word: right for a torn end, wrong for a flipped bit in the middle, behind which lie transactions
//! that were answered as durable. Each frame's checksum goes on from that of the frame before it
//! (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>), which stands in that frame's
//! header; so a frame behind a damaged one can still be told to be whole. A whole frame that ends a
//! transaction, behind a damaged one that does not belong to that transaction, is damage.
//!
//! What cannot be told is damage inside the last transaction from a write that a loss of power tore:
//! that transaction is dropped, as SQLite does, and its work is done again. Any of its frames may be
//! torn then, and others of it be whole, its last one too; what is whole of a transaction that was
//! taken back may stand behind it, but ends none.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::HINT;
use super::open::{beside, unavailable};
use crate::store::StoreError;

/// Bytes of the log's header, and of each frame's.
const HEADER_LEN: usize = 32;
const FRAME_HEADER_LEN: usize = 24;
/// What a disk writes whole or not at all, in bytes.
const SECTOR_LEN: usize = 512;
/// Largest page that SQLite has, in bytes.
const PAGE_MAX: usize = 65_536;

/// Refuses a log whose middle is damaged.
pub(super) fn check(path: &Path) -> Result<(), StoreError> {
    let file = match File::open(beside(path, "-wal")) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unavailable("open its log")(error)),
    };
    let whole = is_whole(&mut BufReader::new(file)).map_err(unavailable("read its log"))?;
    if whole {
        return Ok(());
    }
    Err(StoreError::Damaged {
        row: "its write-ahead log".to_owned(),
        hint: HINT,
    })
}

/// Two running sums over pairs of words.
type Sum = (u32, u32);

fn add(mut sum: Sum, bytes: &[u8], big_endian: bool) -> Sum {
    let word = |bytes: &[u8; 4]| {
        if big_endian {
            u32::from_be_bytes(*bytes)
        } else {
            u32::from_le_bytes(*bytes)
        }
    };
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    for [first, second] in pairs {
        sum.0 = sum.0.wrapping_add(word(first)).wrapping_add(sum.1);
        sum.1 = sum.1.wrapping_add(word(second)).wrapping_add(sum.0);
    }
    sum
}

/// The big-endian word number `at`.
fn word(bytes: &[u8], at: usize) -> u32 {
    let (words, _) = bytes.as_chunks::<4>();
    words.get(at).map_or(0, |word| u32::from_be_bytes(*word))
}

/// Fills `buffer`; whether there was enough.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_whole(file: &mut impl Read) -> std::io::Result<bool> {
    let mut header = [0; HEADER_LEN];
    if !fill(file, &mut header)? {
        return Ok(true);
    }
    let big_endian = word(&header, 0) & 1 == 1;
    let page = usize::try_from(word(&header, 2)).unwrap_or(usize::MAX);
    let salts = (word(&header, 4), word(&header, 5));
    let (head, _) = header.split_at(24);
    let start = add((0, 0), head, big_endian);
    let header_whole = start == (word(&header, 6), word(&header, 7));
    if !header_whole || !(512..=PAGE_MAX).contains(&page) {
        // SQLite would take none of it. It is written and synced before any frame that counts, so
        // frames behind it mean that it was damaged later.
        let mut frame = [0; FRAME_HEADER_LEN];
        return Ok(!fill(file, &mut frame)? || word(&frame, 0) == 0);
    }
    let mut sum = start;
    let mut frame = vec![0; FRAME_HEADER_LEN.saturating_add(page)];
    // Whether a frame was damaged, and whether its transaction has ended since.
    let (mut bad, mut ended) = (false, false);
    let mut at = HEADER_LEN;
    while fill(file, &mut frame)? {
        let (head, content) = frame.split_at(FRAME_HEADER_LEN);
        let (counted, _) = head.split_at(8);
        let said = (word(head, 4), word(head, 5));
        let ours = (word(head, 2), word(head, 3)) == salts;
        let whole = ours && add(add(sum, counted, big_endian), content, big_endian) == said;
        let commits = word(head, 1) != 0;
        if whole && commits {
            if bad && ended {
                return Ok(false);
            }
            ended = bad;
        } else if !whole {
            // The frame may itself have ended its transaction. A loss of power leaves sectors of
            // different age, so what its header says counts only if that is in one of them.
            let one_sector = at % SECTOR_LEN <= SECTOR_LEN.saturating_sub(FRAME_HEADER_LEN);
            ended = ended || (one_sector && ours && commits);
            bad = true;
        }
        sum = said;
        at = at.saturating_add(frame.len());
    }
    Ok(true)
}
