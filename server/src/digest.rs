//! Hashes of a part of a file, in steps: what `check-file` is answered with
//! (draft-ietf-secsh-filexfer-extensions-00 §3).
//!
//! Nothing here reads: whoever runs the job brings the bytes, in their order.

use ketch_protocol::HashAlgorithm;
use ring::digest::{self, Context};

use crate::refusal::Refusal;

/// Shortest block that a hash of its own may be asked for, in bytes (§3 of the draft).
pub(crate) const BLOCK_LEN_MIN: u32 = 256;
/// Most bytes of hashes in one reply: 4,096 of SHA-256. Whoever wants more asks again.
pub(crate) const HASHES_LEN_MAX: usize = 128 * 1024;

/// What is to be hashed, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DigestPlan {
    pub(crate) algorithm: HashAlgorithm,
    /// First byte, from the start of the file.
    pub(crate) offset: u64,
    /// How many bytes; `None` for all up to the end.
    pub(crate) len: Option<u64>,
    /// Bytes for each hash; `None` for one hash of all.
    block_len: Option<u64>,
}

impl DigestPlan {
    /// Looks at what a request names. A `len` or `block_len` of zero means all.
    pub(crate) fn new(
        algorithms: &[u8],
        offset: u64,
        len: u64,
        block_len: u32,
    ) -> Result<Self, Refusal> {
        let algorithm = HashAlgorithm::first_of(algorithms).ok_or(Refusal::NO_ALGORITHM)?;
        if block_len != 0 && block_len < BLOCK_LEN_MIN {
            return Err(Refusal::SHORT_BLOCKS);
        }
        let plan = Self {
            algorithm,
            offset,
            len: (len != 0).then_some(len),
            block_len: (block_len != 0).then_some(u64::from(block_len)),
        };
        match (plan.len, plan.block_len) {
            (Some(len), Some(block)) if len.div_ceil(block) > plan.blocks_max() => {
                Err(Refusal::MANY_BLOCKS)
            }
            _ => Ok(plan),
        }
    }

    /// How many hashes fit into a reply.
    const fn blocks_max(&self) -> u64 {
        (HASHES_LEN_MAX / self.algorithm.hash_len()) as u64
    }
}

/// Hashes on their way.
pub(crate) struct Digest {
    plan: DigestPlan,
    context: Context,
    /// Bytes in `context`.
    held: u64,
    hashes: Vec<u8>,
}

impl Digest {
    pub(crate) fn new(plan: DigestPlan) -> Self {
        Self {
            plan,
            context: context(plan.algorithm),
            held: 0,
            hashes: Vec::new(),
        }
    }

    /// Takes the bytes that come next.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        let Some(block_len) = self.plan.block_len else {
            self.context.update(bytes);
            return Ok(());
        };
        while !bytes.is_empty() {
            if self
                .hashes
                .len()
                .saturating_add(self.plan.algorithm.hash_len())
                > HASHES_LEN_MAX
            {
                return Err(Refusal::MANY_BLOCKS);
            }
            let room = usize::try_from(block_len.saturating_sub(self.held)).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.context.update(now);
            self.held = self.held.saturating_add(now.len() as u64);
            if self.held == block_len {
                self.end_block();
            }
            bytes = later;
        }
        Ok(())
    }

    /// The hashes, one behind the other. Without blocks there is one even of nothing.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.plan.block_len.is_none() || self.held > 0 {
            self.end_block();
        }
        self.hashes
    }

    fn end_block(&mut self) {
        let context = std::mem::replace(&mut self.context, context(self.plan.algorithm));
        self.hashes.extend_from_slice(context.finish().as_ref());
        self.held = 0;
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

fn context(algorithm: HashAlgorithm) -> Context {
    Context::new(match algorithm {
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
        HashAlgorithm::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(len: u64, block_len: u32) -> Result<DigestPlan, Refusal> {
        DigestPlan::new(b"md5,sha256", 0, len, block_len)
    }

    #[test]
    fn nothing_has_one_hash_and_no_blocks() {
        let one = Digest::new(plan(0, 0).unwrap()).finish();
        assert_eq!(one, digest::digest(&digest::SHA256, b"").as_ref());
        assert_eq!(Digest::new(plan(0, 256).unwrap()).finish(), b"");
    }

    #[test]
    fn what_no_reply_can_hold_is_refused() {
        assert_eq!(plan(0, 255), Err(Refusal::SHORT_BLOCKS));
        assert_eq!(plan(4096 * 256 + 1, 256), Err(Refusal::MANY_BLOCKS));
        assert_eq!(plan(u64::MAX, 256), Err(Refusal::MANY_BLOCKS));
        assert!(plan(4096 * 256, 256).is_ok());
        assert_eq!(DigestPlan::new(b"md5", 0, 0, 0), Err(Refusal::NO_ALGORITHM));
        // The length is not known before it is read.
        let mut digest = Digest::new(plan(0, 256).unwrap());
        digest.update(&[0; 4096 * 256]).unwrap();
        assert_eq!(digest.update(&[0]), Err(Refusal::MANY_BLOCKS));
    }

    proptest! {
        #[test]
        fn blocks_are_hashed_one_by_one_however_they_come(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            cuts in proptest::collection::vec(1..900_usize, 1..8), block_len in 256..1500_u32,
        ) {
            let mut digest = Digest::new(plan(0, block_len).unwrap());
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                digest.update(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            let expected: Vec<u8> = bytes
                .chunks(block_len as usize)
                .flat_map(|block| digest::digest(&digest::SHA256, block).as_ref().to_vec())
                .collect();
            prop_assert_eq!(digest.finish(), expected);
        }
    }
}
