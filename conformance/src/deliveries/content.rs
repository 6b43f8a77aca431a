//! Files that tell by themselves whether they are whole.
//!
//! A line of [`HEADER_LEN`] bytes says which content this is, how long the whole file is and what the
//! SHA-256 of the rest is. The rest is random, so no part of it can pass for another.

use crate::content::Sha256;
use crate::random::Random;

/// Bytes of the line at the beginning, and of the shortest file.
pub const HEADER_LEN: usize = 128;
const MAGIC: &str = "ketch-proof";

/// Makes content number `id` with `len` bytes in all, [`HEADER_LEN`] at least.
#[must_use]
pub fn make(seed: u64, id: u64, len: u64) -> Vec<u8> {
    let len = usize::try_from(len).unwrap_or(HEADER_LEN).max(HEADER_LEN);
    let mut body = Vec::with_capacity(len - HEADER_LEN + 8);
    Random::new(seed ^ id.wrapping_mul(0x2545_f491_4f6c_dd1d)).fill(&mut body, len - HEADER_LEN);
    let mut file = format!(
        "{MAGIC} id={id:016x} len={len:012} body={} ",
        Sha256::of(&body)
    );
    while file.len() < HEADER_LEN - 1 {
        file.push('.');
    }
    file.push('\n');
    let mut file = file.into_bytes();
    file.append(&mut body);
    file
}

/// What a file says of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// All of that content and nothing else.
    Whole(u64),
    /// It says that it is that content, but it is not all there, or not right.
    Torn {
        /// Which it says it is.
        id: u64,
        /// What is wrong, in words.
        why: String,
    },
    /// It does not begin as these files do.
    Strange(String),
}

/// Judges the bytes of a file.
#[must_use]
pub fn check(file: &[u8]) -> Found {
    let Some((header, body)) = file.split_at_checked(HEADER_LEN) else {
        return Found::Strange(format!("{} bytes, shorter than a header", file.len()));
    };
    let header = String::from_utf8_lossy(header);
    let field = |name: &str| {
        header
            .split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let id = field("id").and_then(|id| u64::from_str_radix(id, 16).ok());
    let len = field("len").and_then(|len| len.parse::<usize>().ok());
    let (true, Some(id), Some(len), Some(hash)) =
        (header.starts_with(MAGIC), id, len, field("body"))
    else {
        return Found::Strange("no header".to_owned());
    };
    if file.len() != len {
        let why = format!("{} of {len} bytes", file.len());
        return Found::Torn { id, why };
    }
    if Sha256::of(body).to_string() != hash {
        let why = "its bytes are not those of its header".to_owned();
        return Found::Torn { id, why };
    }
    Found::Whole(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_known_and_anything_else_is_not() {
        for len in [0, 128, 129, 5000] {
            let file = make(7, 42, len);
            assert_eq!(file.len() as u64, len.max(HEADER_LEN as u64));
            assert_eq!(check(&file), Found::Whole(42));
        }
        let (one, two) = (make(7, 1, 4000), make(7, 2, 4000));
        assert_ne!(one[HEADER_LEN..], two[HEADER_LEN..]);
        assert!(matches!(check(&one[..3999]), Found::Torn { id: 1, .. }));
        let spliced = [&one[..2000], &two[2000..]].concat();
        assert!(matches!(check(&spliced), Found::Torn { id: 1, .. }));
        let longer = [&one[..], b"x"].concat();
        assert!(matches!(check(&longer), Found::Torn { id: 1, .. }));
        assert!(matches!(check(&one[1..]), Found::Strange(_)));
        assert!(matches!(check(b""), Found::Strange(_)));
    }
}
