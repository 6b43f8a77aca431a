//! Work that takes as long as it takes: copies and checksums, a block at a time.
//!
//! It looks between two blocks whether somebody still waits for it, and ends if not.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::cold::Mailbox;
use crate::digest::{Digest, DigestPlan};
use crate::fs::{Answer, Block, File, Work};
use crate::refusal::Refusal;
use crate::session::{CopyPlan, HashPlan};

/// What `copy-data` copies at a time, in bytes.
const COPY_LEN: usize = 256 * 1024;
/// What is hashed at a time, in bytes.
const HASH_LEN: usize = 512 * 1024;

/// A block that goes into a digest, and what comes of it.
pub(crate) struct HashStep {
    digest: Digest,
    block: Block,
    result: Result<(), Refusal>,
}

impl HashStep {
    /// Computes: for a thread that may take its time.
    pub(crate) fn perform(mut self) -> Self {
        self.result = self.digest.update(self.block.filled());
        self
    }
}

/// Runs a step where computing holds nobody up.
pub(crate) type Hasher = Box<dyn Fn(HashStep) -> Work<HashStep> + Send>;

/// Why hashing stopped.
enum Stop {
    Io(io::Error),
    /// This is what its client is told.
    Refused(Refusal),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Hashes a part of a file.
pub(super) async fn hash(
    file: Arc<dyn File>,
    plan: Arc<HashPlan>,
    mailbox: Arc<Mailbox>,
    hasher: Hasher,
) -> io::Result<Result<Vec<u8>, Refusal>> {
    let goes_on = || {
        if plan.is_cancelled() {
            return Err(Stop::Refused(Refusal::CLOSED_MEANWHILE));
        }
        if mailbox.is_abandoned() {
            return Err(Stop::Io(ErrorKind::Interrupted.into()));
        }
        Ok(())
    };
    match digested(file, plan.digest, hasher, goes_on).await {
        Ok((digest, _)) => Ok(Ok(digest.finish())),
        Err(Stop::Refused(why)) => Ok(Err(why)),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// Length and SHA-256 of a file.
pub(super) async fn sha256(
    file: Arc<dyn File>,
    hasher: Hasher,
) -> io::Result<(u64, Option<[u8; 32]>)> {
    let refused = |why: Refusal| io::Error::other(why.text);
    let plan = DigestPlan::new(b"sha256", 0, 0, 0).map_err(refused)?;
    match digested(file, plan, hasher, || Ok(())).await {
        Ok((digest, len)) => Ok((len, digest.finish().first_chunk().copied())),
        Err(Stop::Refused(why)) => Err(refused(why)),
        Err(Stop::Io(error)) => Err(error),
    }
}

/// Has what `plan` names computed, a block at a time, as long as `goes_on` says so; with it, how many
/// bytes there were.
async fn digested(
    file: Arc<dyn File>,
    plan: DigestPlan,
    hasher: Hasher,
    goes_on: impl Fn() -> Result<(), Stop>,
) -> Result<(Digest, u64), Stop> {
    let mut digest = Digest::new(plan);
    let mut block = Block::default();
    let mut at = plan.offset;
    let mut left = plan.len.unwrap_or(u64::MAX);
    while left > 0 {
        goes_on()?;
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(HASH_LEN);
        block = Block::renew(block, 0, want);
        block = Arc::clone(&file).read_at(at, block).await?;
        let got = block.filled().len() as u64;
        if got == 0 {
            break; // the end of the file
        }
        at = at.saturating_add(got);
        left = left.saturating_sub(got);
        let result = Ok(());
        let step = hasher(HashStep {
            digest,
            block,
            result,
        });
        let step = step.await?;
        step.result.map_err(Stop::Refused)?;
        (digest, block) = (step.digest, step.block);
    }
    Ok((digest, at.saturating_sub(plan.offset)))
}

/// Copies between files, a block at a time, until all is copied or nobody waits for it any more.
pub(super) async fn copy(plan: Box<CopyPlan>, mailbox: Arc<Mailbox>) -> io::Result<Answer> {
    let CopyPlan {
        from,
        from_offset,
        len,
        to,
        to_offset,
        ..
    } = *plan;
    let mut block = Block::default();
    let mut copied = 0_u64;
    loop {
        let left = len.map_or(u64::MAX, |len| len.saturating_sub(copied));
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_LEN);
        if want == 0 {
            return Ok(Answer::Done);
        }
        block = Block::renew(block, 0, want);
        block = Arc::clone(&from)
            .read_at(from_offset.saturating_add(copied), block)
            .await?;
        let got = block.filled().to_vec();
        if got.is_empty() {
            return Ok(Answer::Done); // the end of the file
        }
        let end = to_offset
            .checked_add(copied)
            .and_then(|at| at.checked_add(got.len() as u64));
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let at = to_offset.saturating_add(copied);
        copied = copied.saturating_add(got.len() as u64);
        Arc::clone(&to).write_at(at, got).await?;
        if mailbox.is_abandoned() {
            return Err(ErrorKind::Interrupted.into());
        }
    }
}
