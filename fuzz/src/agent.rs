//! What an ssh-agent says: frames put together, however they are cut, and replies that are answers.

use ketch_client::agent::message::{
    BadReply, FRAME_LEN_MAX, Frames, decode_identities, decode_signature,
};

/// A stream of an agent; the first byte says in pieces of which length it comes.
pub fn agent_reply(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = payloads(stream, stream.len().max(1));
    assert_eq!(payloads(stream, usize::from(cut).max(1)), whole);
    for payload in whole.0 {
        assert!(payload.len() <= FRAME_LEN_MAX);
        // A reply is the answer to one question at most.
        let (listed, signed) = (decode_identities(&payload), decode_signature(&payload));
        assert!(listed.is_err() || signed.is_err());
        if let Ok(listed) = listed {
            let held: usize = listed.iter().map(|each| 8 + each.key.len()).sum();
            assert!(held <= payload.len(), "more than there is");
        }
        if payload.first() == Some(&5) {
            assert_eq!(signed, Err(BadReply::Refused));
        }
    }
}

/// The payloads of a stream that comes in pieces, and what ended it.
fn payloads(stream: &[u8], cut: usize) -> (Vec<Vec<u8>>, Option<BadReply>) {
    let mut frames = Frames::default();
    let mut payloads = Vec::new();
    for piece in stream.chunks(cut) {
        frames.push(piece);
        loop {
            match frames.next_payload() {
                Ok(Some(payload)) => payloads.push(payload),
                Ok(None) => break,
                Err(error) => return (payloads, Some(error)),
            }
        }
    }
    (payloads, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_holds_for_replies_that_are_known() {
        let list = [12, 0, 0, 0, 1, 0, 0, 0, 1, b'k', 0, 0, 0, 1, b'c'];
        let signature = [14, 0, 0, 0, 1, b's'];
        for payload in [&list[..], &signature, &[5], &[28], &[6], &[]] {
            let mut stream = u32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
            stream.extend_from_slice(payload);
            let twice = [&stream[..], &stream].concat();
            assert_eq!(payloads(&twice, 3).0, [payload, payload]);
            for cut in [1, 2, 7] {
                agent_reply(&[&[cut][..], &twice].concat());
            }
        }
        agent_reply(&[1, 0xff, 0xff, 0xff, 0xff, 14]);
    }
}
