//! The streaming decoders see the same stream, however it is cut.
//!
//! Whole or byte by byte, the same events come in the same order, and the same error at the end.
//! A piece of a body is always the tail of what the step consumed: whoever noted where the input
//! lies finds the bytes again by that.

use ketch_protocol::{
    Limits, ProtocolError, ReplyDecoder, ReplyEvent, RequestDecoder, RequestEvent, Step,
};

/// Bytes of the input that say where to cut.
const CUTS: usize = 4;

/// Both decoders over the same bytes, once whole and once cut as the first bytes say.
pub fn sftp_stream_cuts(data: &[u8]) {
    let Some((cuts, stream)) = data.split_first_chunk::<CUTS>() else {
        return;
    };
    assert_eq!(replies(stream, &[]), replies(stream, cuts));
    assert_eq!(requests(stream, &[]), requests(stream, cuts));
}

/// What a stream says, in a form that does not depend on the cuts.
#[derive(Debug, Eq, PartialEq)]
enum Said {
    /// An event other than a piece of a body, printed.
    Event(String),
    /// The pieces of one body, joined.
    Body(Vec<u8>),
    /// The end of it.
    Error(String),
}

/// A decoder's step, with the piece of a body apart from the other events.
type Parts<'s> = Step<Result<String, (u32, &'s [u8])>>;

fn replies(stream: &[u8], cuts: &[u8]) -> Vec<Said> {
    let mut decoder = ReplyDecoder::new(Limits::default().packet_len(4096));
    listen(stream, cuts, |input| {
        let step = decoder.next(input).map_err(|error| told(&error))?;
        let event = step.event.map(|event| match event {
            ReplyEvent::DataPiece { offset, bytes, .. } => Err((offset, bytes)),
            event => Ok(format!("{event:?}")),
        });
        // The piece is lent from the input, so that it may outlive the decoder's borrow.
        Ok(detach(step.consumed, event, input))
    })
}

fn requests(stream: &[u8], cuts: &[u8]) -> Vec<Said> {
    let mut decoder = RequestDecoder::new(Limits::default().packet_len(4096));
    listen(stream, cuts, |input| {
        let step = decoder.next(input).map_err(|error| told(&error))?;
        let event = step.event.map(|event| match event {
            RequestEvent::WritePiece { offset, bytes, .. } => Err((offset, bytes)),
            event => Ok(format!("{event:?}")),
        });
        Ok(detach(step.consumed, event, input))
    })
}

/// How an error is compared: text in place of a packet is quoted as far as it has come.
fn told(error: &ProtocolError) -> String {
    match error {
        ProtocolError::NotSftp { .. } => "NotSftp".to_owned(),
        error => format!("{error:?}"),
    }
}

/// Finds a lent piece again as the tail of the consumed input, by place and not by content.
fn detach<'i>(
    consumed: usize,
    event: Option<Result<String, (u32, &[u8])>>,
    input: &'i [u8],
) -> Parts<'i> {
    let event = event.map(|event| {
        event.map_err(|(offset, bytes)| {
            let tail = &input[consumed - bytes.len()..consumed];
            assert!(std::ptr::eq(tail, bytes), "the tail of what was consumed");
            assert!(!bytes.is_empty());
            (offset, tail)
        })
    });
    Step { consumed, event }
}

/// Feeds `stream` in parts as long as `cuts` says, over and over; without cuts, in one.
fn listen<'s>(
    stream: &'s [u8],
    cuts: &[u8],
    mut next: impl FnMut(&'s [u8]) -> Result<Parts<'s>, String>,
) -> Vec<Said> {
    let mut said = Vec::new();
    let mut rest = stream;
    let mut lengths = cuts.iter().map(|&cut| usize::from(cut) + 1).cycle();
    while !rest.is_empty() {
        let len = lengths.next().unwrap_or(usize::MAX).min(rest.len());
        let (mut part, later) = rest.split_at(len);
        rest = later;
        loop {
            let step = match next(part) {
                Ok(step) => step,
                Err(error) => {
                    said.push(Said::Error(error));
                    return said;
                }
            };
            part = &part[step.consumed..];
            match step.event {
                None => break,
                Some(Ok(event)) => said.push(Said::Event(event)),
                Some(Err((offset, bytes))) => join(&mut said, offset, bytes),
            }
        }
        assert!(part.is_empty(), "no event, and yet input was left");
    }
    said
}

/// Joins a piece to the body it belongs to.
fn join(said: &mut Vec<Said>, offset: u32, bytes: &[u8]) {
    if let Some(Said::Body(body)) = said.last_mut() {
        assert_eq!(body.len(), offset as usize, "pieces follow each other");
        body.extend_from_slice(bytes);
        return;
    }
    assert_eq!(offset, 0, "a body begins at its beginning");
    said.push(Said::Body(bytes.to_vec()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::tests as packets;

    #[test]
    fn a_good_session_passes_with_every_cut_at_every_byte() {
        let to_client = [packets::version(), packets::replies().concat()].concat();
        let to_server = [packets::init(), packets::requests().concat()].concat();
        for stream in [&to_client, &to_server] {
            for len in [0, 1, 2, 6, 12, 254] {
                sftp_stream_cuts(&[&[len; CUTS][..], stream].concat());
                sftp_stream_cuts(&[&[len, 0, 3, 40][..], stream].concat());
            }
        }
    }

    #[test]
    fn a_good_session_is_heard_to_its_end() {
        let to_client = [packets::version(), packets::replies().concat()].concat();
        let said = replies(&to_client, &[0]);
        assert!(
            !said.iter().any(|each| matches!(each, Said::Error(_))),
            "{said:?}"
        );
        assert!(
            said.contains(&Said::Body(b"some bytes".to_vec())),
            "{said:?}"
        );
        let to_server = [packets::init(), packets::requests().concat()].concat();
        let said = requests(&to_server, &[2]);
        assert!(
            !said.iter().any(|each| matches!(each, Said::Error(_))),
            "{said:?}"
        );
        assert!(
            said.contains(&Said::Body(b"some bytes".to_vec())),
            "{said:?}"
        );
    }
}
