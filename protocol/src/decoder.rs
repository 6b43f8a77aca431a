//! Bytes in, events out: the client's and the server's view of the stream.
//!
//! Both decoders take input as it comes, cut anywhere. The bodies of `DATA` and `WRITE` are never
//! put together: each piece is lent where it lies in the input. Other messages are decoded in
//! place if they lie whole in the input, and from the framer's bounded buffer if not.

mod reply;
mod request;

pub use reply::{ReplyDecoder, ReplyEvent};
pub use request::{Refusal, RequestDecoder, RequestEvent};

use crate::RequestId;

/// What a call of a decoder's `next` did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step<E> {
    /// Bytes of the input that are done with: the next call takes the input from here on. Zero is
    /// possible beside an event.
    pub consumed: usize,
    /// What was seen; `None` if all input was consumed and more is needed.
    pub event: Option<E>,
}

impl<E> Step<E> {
    const fn event(consumed: usize, event: E) -> Self {
        Self {
            consumed,
            event: Some(event),
        }
    }

    const fn wait(input: &[u8]) -> Self {
        Self {
            consumed: input.len(),
            event: None,
        }
    }
}

/// A `DATA` or `WRITE` whose body is being handed on.
#[derive(Debug)]
struct Body {
    id: RequestId,
    /// Bytes handed on.
    offset: u32,
    /// Bytes still to come.
    left: u32,
    /// Bytes of the packet after the body, which are skipped.
    surplus: usize,
}

/// The next part of a body.
enum Part<'s> {
    Piece { offset: u32, bytes: &'s [u8] },
    End,
}

impl Body {
    /// Takes what the input has of the body: `None` if it is empty and bytes are to come.
    fn next<'s>(&mut self, input: &'s [u8]) -> Option<Part<'s>> {
        if self.left == 0 {
            return Some(Part::End);
        }
        let len = u32::try_from(input.len())
            .unwrap_or(u32::MAX)
            .min(self.left);
        let bytes = input.get(..usize::try_from(len).ok()?)?;
        if bytes.is_empty() {
            return None;
        }
        let offset = self.offset;
        self.offset = self.offset.saturating_add(len);
        self.left = self.left.saturating_sub(len);
        Some(Part::Piece { offset, bytes })
    }
}
