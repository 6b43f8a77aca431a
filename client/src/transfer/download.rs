//! The download of one file over one channel, as a machine: what to ask for next, what came.
//!
//! No I/O, no clock: [`Download::poll`] says which READ to send, the three `on_…` take what the
//! server answered, and the owner writes the bytes at the offset they belong to. Answers may come
//! in any order, be short, or end early (draft-ietf-secsh-filexfer-02 §6.4 promises whole reads
//! of plain files, servers do not keep it); the size may be unknown, too small or too large.

use super::{
    chunk::{CHUNK_MIN, Chunk},
    ranges::Span,
};

/// Answers of less than [`CHUNK_MIN`] bytes, though more was asked, that one run of bytes may get.
pub(crate) const SHORT_ANSWERS_MAX: u8 = 32;

/// READs in flight for a file whose size nobody knows, before the first one was answered whole.
const AHEAD_START: u32 = 1;

/// One file being read over one channel.
#[derive(Debug)]
pub(crate) struct Download {
    chunk: Chunk,
    /// What is left to ask for of the range dealt last.
    range: Span,
    retry: Vec<Ask>,
    in_flight: u32,
    /// What the server had said, if it said anything.
    expected: Option<u64>,
    size: Size,
    /// READs in flight at most while the end is not known.
    ahead_max: u32,
    /// The end of the last byte that came.
    highest: u64,
}

/// What is known of the size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Size {
    Unknown,
    Expected(u64),
    Met(u64),
}

/// What to do next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Send this READ.
    Request(Ask),
    /// All that was dealt has been asked for: [`Download::deal`] another range, if there is one.
    Starved,
    /// Nothing can be asked until an answer comes.
    Wait,
    /// Everything that was dealt has come, and the end of the file lies at `size`. There may be ranges
    /// before it that others gave back: [`Download::deal`] another, if there is one.
    Done {
        /// Bytes of the whole file.
        size: u64,
    },
}

/// One READ: kept with the request, and handed back with its answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ask {
    /// The bytes asked for.
    pub span: Span,
    /// Very short answers that this run of bytes already got.
    pub tries: u8,
}

/// How an answer to a READ broke the protocol, or the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadFault {
    /// More bytes came than were asked for.
    #[error("the server answered a read of {asked} bytes with {got}")]
    Overlong {
        /// Bytes asked for.
        asked: u32,
        /// Bytes that came.
        got: u32,
    },
    /// The answers do not get on.
    #[error("the server gives only crumbs of the file at byte {offset}")]
    Crumbs {
        /// Where in the file.
        offset: u64,
    },
    /// The file ends before bytes that were already read: it was cut while it was read.
    #[error("the file shrank to {end} bytes while it was read")]
    Shrank {
        /// Where it ends now.
        end: u64,
    },
    /// The file ends before the size that the server had named.
    #[error("the file ended after {got} of {expected} bytes")]
    Truncated {
        /// Where it ended.
        got: u64,
        /// What the listing or `STAT` said.
        expected: u64,
    },
}

impl Download {
    /// A file of which the server said that it has `expected` bytes, read in pieces of `chunk`.
    pub(crate) fn new(expected: Option<u64>, chunk: Chunk) -> Self {
        let (size, ahead_max) = match expected {
            None | Some(0) => (Size::Unknown, AHEAD_START),
            Some(size) => (Size::Expected(size), u32::MAX),
        };
        let range = Span { offset: 0, len: 0 };
        Self {
            chunk,
            range,
            retry: Vec::new(),
            in_flight: 0,
            expected: expected.filter(|&size| size > 0),
            size,
            ahead_max,
            highest: 0,
        }
    }

    /// The server said that it allows READs of `max` bytes.
    pub(crate) const fn allow(&mut self, max: u32) {
        self.chunk.allow(max);
    }

    /// Adds a range to read. Only after [`Step::Starved`] or [`Step::Done`].
    pub(crate) const fn deal(&mut self, range: Span) {
        self.range = range;
    }

    /// Returns the next thing to do; call until it is neither a request nor `Starved`.
    ///
    /// # Errors
    /// When all has come that will, and it is not the file that the server announced.
    pub(crate) fn poll(&mut self) -> Result<Step, ReadFault> {
        if let Some(mut ask) = self.retry.pop() {
            // What a long request left over is asked for in pieces the server can answer.
            let span = ask.span.split_to(self.chunk.len());
            let tries = ask.tries;
            if ask.span.len > 0 {
                self.retry.push(ask);
            }
            return Ok(self.request(Ask { span, tries }));
        }
        if let Some(finished) = self.finished() {
            return finished.map(|size| Step::Done { size });
        }
        // Ranges come in any order once one was given back: there may be some before the end.
        if matches!(self.size, Size::Met(_)) && self.range.len == 0 {
            return Ok(Step::Wait);
        }
        if self.size == Size::Unknown && self.in_flight >= self.ahead_max {
            return Ok(Step::Wait);
        }
        if self.range.len == 0 {
            return Ok(Step::Starved);
        }
        // The probing byte behind the expected end rides in the last request.
        let len = self.chunk.len();
        let len = if self.range.len == len.saturating_add(1) {
            self.range.len
        } else {
            len
        };
        let span = self.range.split_to(len);
        Ok(self.request(Ask { span, tries: 0 }))
    }

    /// Records that `got` bytes came for `ask`, and were taken care of.
    ///
    /// A DATA without bytes means the end of the file: some servers answer so (draft-02 §6.4
    /// wants a `STATUS` of `EOF`), and asking again could go on for ever.
    ///
    /// # Errors
    /// `Overlong` or `Crumbs` if the server cannot mean it; `Truncated` if the end was announced
    /// to be further on.
    pub(crate) fn on_data(&mut self, ask: Ask, got: u32) -> Result<(), ReadFault> {
        let Ask { mut span, tries } = ask;
        if got > span.len {
            return Err(ReadFault::Overlong {
                asked: span.len,
                got,
            });
        }
        if got == 0 {
            return self.on_eof(ask);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        let asked = span.len;
        let came = span.split_to(got);
        self.highest = self.highest.max(came.end());
        if got == asked {
            self.chunk.on_whole();
            self.ahead_max = self.ahead_max.saturating_mul(2);
            if let Size::Expected(size) = self.size
                && self.highest > size
            {
                // The byte behind the end exists: the file grew, and is read to its end.
                self.size = Size::Unknown;
                self.ahead_max = self.in_flight.max(AHEAD_START).saturating_add(1);
            }
            return Ok(());
        }
        match self.size {
            // All of the announced bytes, and not the one behind them: the end.
            Size::Expected(size) if span.offset == size => {
                self.meet(size);
                return Ok(());
            }
            Size::Met(end) if span.offset >= end => return Ok(()),
            Size::Met(_) | Size::Expected(_) | Size::Unknown => {}
        }
        self.chunk.on_short(got);
        let tries = if got < CHUNK_MIN {
            tries.saturating_add(1)
        } else {
            tries
        };
        if tries > SHORT_ANSWERS_MAX {
            return Err(ReadFault::Crumbs {
                offset: span.offset,
            });
        }
        self.retry.push(Ask { span, tries });
        Ok(())
    }

    /// Takes back a READ that could not be sent, or what is left of one that is not answered.
    pub(crate) fn on_unsent(&mut self, ask: Ask) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if ask.span.len > 0 {
            self.retry.push(ask);
        }
    }

    /// Takes back bytes that came and were lost before they were written.
    pub(crate) fn on_lost(&mut self, span: Span) {
        self.retry.push(Ask { span, tries: 0 });
    }

    /// Whether all that was dealt has come.
    pub(crate) const fn is_quiet(&self) -> bool {
        self.range.len == 0 && self.in_flight == 0 && self.retry.is_empty()
    }

    /// Bytes that were dealt and not asked for.
    pub(crate) fn left_to_ask(&self) -> u64 {
        let again: u64 = self.retry.iter().map(|ask| u64::from(ask.span.len)).sum();
        again.saturating_add(u64::from(self.range.len))
    }

    /// Whether nothing is in flight.
    pub(crate) const fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// The end of the last byte that came.
    pub(crate) const fn highest(&self) -> u64 {
        self.highest
    }

    /// Gives back what was dealt and has not come; nothing is in flight any more.
    pub(crate) fn give_back(&mut self) -> impl Iterator<Item = Span> + use<> {
        let rest = std::mem::replace(&mut self.range, Span { offset: 0, len: 0 });
        let retry = std::mem::take(&mut self.retry);
        let spans = retry.into_iter().map(|ask| ask.span);
        spans.chain((rest.len > 0).then_some(rest))
    }

    /// Records that the file ends at or before the start of `ask`.
    ///
    /// # Errors
    /// `Truncated` if the server had named a larger size.
    pub(crate) fn on_eof(&mut self, ask: Ask) -> Result<(), ReadFault> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let end = ask.span.offset;
        match self.size {
            Size::Met(earlier) if earlier <= end => return Ok(()),
            // The answer to the probe behind the end may have come first.
            Size::Met(_) | Size::Expected(_)
                if let Some(expected) = self.expected
                    && end < expected =>
            {
                return Err(ReadFault::Truncated { got: end, expected });
            }
            Size::Met(_) | Size::Expected(_) | Size::Unknown => self.meet(end),
        }
        Ok(())
    }

    /// The file ends at `end`: what lies behind it is not asked for, what lies before it is.
    fn meet(&mut self, end: u64) {
        self.size = Size::Met(end);
        self.retry.retain(|ask| ask.span.offset < end);
        let before = end.saturating_sub(self.range.offset);
        self.range.len = u32::try_from(before)
            .unwrap_or(u32::MAX)
            .min(self.range.len);
    }

    /// The size, or what is wrong with the file, once nothing more is to come.
    pub(crate) const fn finished(&self) -> Option<Result<u64, ReadFault>> {
        match self.size {
            Size::Met(end) if self.is_quiet() => Some(if self.highest > end {
                Err(ReadFault::Shrank { end })
            } else {
                Ok(end)
            }),
            Size::Met(_) | Size::Unknown | Size::Expected(_) => None,
        }
    }

    /// Whether the file turned out longer than the server had said.
    pub(crate) fn has_outgrown(&self, expected: u64) -> bool {
        self.size == Size::Unknown && self.highest > expected
    }

    /// Where the end was met, once it was.
    pub(crate) const fn end(&self) -> Option<u64> {
        match self.size {
            Size::Met(end) => Some(end),
            Size::Unknown | Size::Expected(_) => None,
        }
    }

    /// What the server was seen to answer whole: the start for the next file.
    pub(crate) const fn chunk(&self) -> Chunk {
        self.chunk
    }

    fn request(&mut self, ask: Ask) -> Step {
        self.in_flight += 1;
        Step::Request(ask)
    }
}

#[cfg(test)]
#[path = "download/tests.rs"]
mod tests;
