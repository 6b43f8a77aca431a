//! The upload of one file over one channel, as a machine: what to write next, what was answered.
//!
//! No I/O, no clock: [`Upload::poll`] says which bytes of the source to read and send, and the
//! owner reports how many there were. The source's size is a hint: a read that comes up short is
//! its end. The first failed write is remembered whatever is answered after it: OpenSSH's client
//! once let a later success hide it (its commit 2c504a74e).

use ketch_protocol::StatusCode;

use super::ranges::Span;

/// One file being written over one channel.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Bytes of one WRITE.
    chunk: u32,
    /// What is left to send of the range dealt last.
    range: Span,
    expected: Option<u64>,
    /// Where the source ended, once it did.
    end: Option<u64>,
    /// The end of the last byte sent.
    sent: u64,
    acknowledged: u64,
    in_flight: u32,
    failed: Option<StatusCode>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Read these bytes from the source and send them; then call [`Upload::on_sent`].
    Write(Span),
    /// All that was dealt has been sent: [`Upload::deal`] another range.
    Starved,
    /// All that was dealt is sent, and the end of the source was met; answers are still to come.
    /// There may be ranges before it that others gave back: [`Upload::deal`] another, if there is one.
    Sent,
    /// As [`Step::Sent`], and everything was acknowledged.
    Done {
        /// Bytes of the whole file.
        size: u64,
    },
    /// A write failed: nothing more is sent.
    Failed(StatusCode),
}

/// The source ended before the size that it had when it was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the file shrank from {expected} to {got} bytes while it was read")]
pub struct SourceShrank {
    /// Where it ended.
    pub got: u64,
    /// Its size when it was opened.
    pub expected: u64,
}

impl Upload {
    /// A source that had `expected` bytes when it was opened, sent in pieces of `chunk`.
    pub(crate) fn new(expected: Option<u64>, chunk: u32) -> Self {
        Self {
            chunk: chunk.max(1),
            range: Span { offset: 0, len: 0 },
            expected,
            end: None,
            sent: 0,
            acknowledged: 0,
            in_flight: 0,
            failed: None,
        }
    }

    /// The server said that it allows pieces of `chunk` bytes: the first ones may be sent before.
    pub(crate) const fn allow(&mut self, chunk: u32) {
        if chunk > self.chunk {
            self.chunk = chunk;
        }
    }

    /// Adds a range to send. Only after [`Step::Starved`], [`Step::Sent`] or [`Step::Done`].
    pub(crate) const fn deal(&mut self, range: Span) {
        self.range = range;
    }

    /// Returns the next thing to do. Nothing changes until [`Upload::on_sent`] is called, so that
    /// a caller who cannot read or send now may ask again later.
    pub(crate) fn poll(&self) -> Step {
        if let Some(code) = self.failed {
            return Step::Failed(code);
        }
        if self.range.len > 0 {
            // The probing byte behind the expected end rides in the last piece.
            let len = if self.range.len == self.chunk.saturating_add(1) {
                self.range.len
            } else {
                self.range.len.min(self.chunk)
            };
            return Step::Write(Span {
                offset: self.range.offset,
                len,
            });
        }
        match self.end {
            Some(size) if self.in_flight == 0 => Step::Done { size },
            Some(_) => Step::Sent,
            None => Step::Starved,
        }
    }

    /// Records that `got` bytes of `span`, which [`Upload::poll`] gave, were read and sent; fewer
    /// than its length mean that the source ends there. With `got` of zero nothing was sent.
    ///
    /// # Errors
    /// If the source has become shorter than it was: what was sent is no version of it.
    pub(crate) fn on_sent(&mut self, span: Span, got: u32) -> Result<(), SourceShrank> {
        let got = got.min(span.len);
        let sent = self.range.split_to(got);
        self.sent = sent.end();
        if got > 0 {
            self.in_flight += 1;
        }
        if got < span.len {
            self.range.len = 0;
            self.end = Some(self.sent);
            if let Some(expected) = self.expected
                && self.sent < expected
            {
                return Err(SourceShrank {
                    got: self.sent,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Leaves out what was dealt up to `to`, a hole of the source, and says how many bytes.
    pub(crate) fn skip(&mut self, to: u64) -> u64 {
        let len = to.saturating_sub(self.range.offset);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let span = self.range.split_to(len);
        self.sent = self.sent.max(span.end());
        self.acknowledged = self.acknowledged.saturating_add(u64::from(span.len));
        u64::from(span.len)
    }

    /// Records the answer to a WRITE of `len` bytes.
    pub(crate) fn on_status(&mut self, len: u32, code: StatusCode) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if code == StatusCode::OK {
            self.acknowledged = self.acknowledged.saturating_add(u64::from(len));
        } else if self.failed.is_none() {
            self.failed = Some(code);
        }
    }

    /// A WRITE of the bytes of `span` will not be answered.
    pub(crate) const fn on_lost(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether all that was dealt was sent.
    pub(crate) const fn is_sent(&self) -> bool {
        self.range.len == 0
    }

    /// Whether all that was dealt was acknowledged.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.range.len == 0 && self.in_flight == 0 && self.failed.is_none()
    }

    /// Bytes that were dealt and not sent.
    pub(crate) const fn left_to_send(&self) -> u32 {
        self.range.len
    }

    /// Gives back what was dealt and not sent.
    pub(crate) fn give_back(&mut self) -> Option<Span> {
        let rest = std::mem::replace(&mut self.range, Span { offset: 0, len: 0 });
        (rest.len > 0).then_some(rest)
    }

    /// Nothing is left to be dealt: the source ends at `end`, which somebody else may have met.
    pub(crate) const fn end_at(&mut self, end: u64) {
        self.end = Some(end);
    }

    /// Bytes that were acknowledged.
    pub(crate) const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether the source turned out longer than it was.
    pub(crate) fn has_outgrown(&self) -> bool {
        self.expected.is_some_and(|size| self.sent > size)
    }

    /// Where the source ended, once it did.
    pub(crate) const fn end(&self) -> Option<u64> {
        self.end
    }

    /// Bytes sent so far.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::ranges::Ranges;
    use proptest::prelude::*;

    #[test]
    fn what_lies_before_the_end_is_sent_after_the_end_was_met() {
        let mut upload = Upload::new(Some(100), 40);
        // Somebody else was lost: the last range comes first.
        upload.deal(Span {
            offset: 80,
            len: 21,
        });
        let Step::Write(last) = upload.poll() else {
            panic!("nothing to send");
        };
        upload.on_sent(last, 20).unwrap();
        assert_eq!(upload.poll(), Step::Sent);
        upload.deal(Span { offset: 0, len: 30 });
        let first = Span { offset: 0, len: 30 };
        assert_eq!(upload.poll(), Step::Write(first));
        upload.on_sent(first, 30).unwrap();
        upload.on_status(20, StatusCode::OK);
        assert_eq!((upload.poll(), upload.end()), (Step::Sent, Some(100)));
        upload.on_status(30, StatusCode::OK);
        assert_eq!(upload.poll(), Step::Done { size: 100 });
    }

    /// Sends `source`, thought to have `expected` bytes, to a server whose `fails`th answer is a
    /// failure; answers come in an order that `order` picks.
    fn run(
        source: &[u8],
        expected: Option<u64>,
        chunk: u32,
        fails: Option<usize>,
        order: &[usize],
    ) -> Result<Result<Vec<u8>, StatusCode>, SourceShrank> {
        let mut ranges = Ranges::new(expected);
        let mut upload = Upload::new(expected, chunk);
        let mut remote = vec![0xee; source.len()];
        let mut open = Vec::new();
        let mut answers = 0;
        let mut order = order.iter().copied().cycle();
        for _ in 0..100_000 {
            match upload.poll() {
                Step::Write(span) if open.len() < 7 => {
                    let at = usize::try_from(span.offset).unwrap().min(source.len());
                    let piece = &source[at..(at + span.len as usize).min(source.len())];
                    remote[at..at + piece.len()].copy_from_slice(piece);
                    let got = u32::try_from(piece.len()).unwrap();
                    upload.on_sent(span, got)?;
                    if got > 0 {
                        open.push(got);
                    }
                    if upload.has_outgrown() {
                        ranges.outgrown();
                    }
                    continue;
                }
                Step::Starved => {
                    upload.deal(ranges.deal().expect("an end or another range"));
                    continue;
                }
                Step::Done { size } => {
                    assert_eq!(size, source.len() as u64);
                    assert_eq!(upload.acknowledged, size);
                    return Ok(Ok(remote));
                }
                Step::Failed(code) if open.is_empty() => return Ok(Err(code)),
                Step::Write(_) | Step::Sent | Step::Failed(_) => {}
            }
            assert!(!open.is_empty(), "asleep with nothing in flight");
            let at = order.next().unwrap_or(0) % open.len();
            let len = open.swap_remove(at);
            let fail = fails == Some(answers);
            answers += 1;
            upload.on_status(
                len,
                if fail {
                    StatusCode::FAILURE
                } else {
                    StatusCode::OK
                },
            );
        }
        panic!("no end in sight");
    }

    proptest! {
        #[test]
        fn every_byte_is_sent_and_acknowledged(
            len in 0..50_000_usize, known in any::<bool>(), chunk in 1..9000_u32,
            order in proptest::collection::vec(any::<usize>(), 1..20),
        ) {
            let chunk = chunk.max(u32::try_from(len / 1000).unwrap());
            let source: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let sent = run(&source, known.then_some(len as u64), chunk, None, &order);
            prop_assert_eq!(sent, Ok(Ok(source)));
        }

        #[test]
        fn a_source_that_grew_is_sent_whole(len in 2..50_000_usize, less in 1..50_000_usize) {
            prop_assume!(less < len);
            let source = vec![7; len];
            let sent = run(&source, Some((len - less) as u64), 1000, None, &[0]);
            prop_assert_eq!(sent, Ok(Ok(source)));
        }

        #[test]
        fn the_first_failed_write_ends_the_upload_whatever_follows(
            fails in 0..40_usize, order in proptest::collection::vec(any::<usize>(), 1..20),
        ) {
            let source = vec![7; 40_000];
            let sent = run(&source, Some(40_000), 1000, Some(fails), &order);
            prop_assert_eq!(sent, Ok(Err(StatusCode::FAILURE)));
        }
    }

    #[test]
    fn a_source_that_shrank_is_not_sent_as_if_it_were_whole() {
        let sent = run(&[7; 100], Some(200), 64, None, &[0]);
        assert_eq!(
            sent,
            Err(SourceShrank {
                got: 100,
                expected: 200
            })
        );
    }
}
