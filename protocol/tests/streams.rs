//! However the bytes of a stream are cut, the decoders see the same.

use ketch_protocol::{
    Attrs, Close, Data, Extension, Init, Limits, NameEntry, Names, Open, OpenFlags, Pair, Pairs,
    ReplyDecoder, ReplyEvent, Request, RequestDecoder, RequestEvent, Response, Stat, Status,
    StatusCode, Version, Write,
};
use proptest::prelude::*;

/// Decodes `stream` in inputs of the given lengths, over and over, and gives the events back as
/// text; pieces of one body are joined. Checks what holds for every step.
macro_rules! transcript {
    ($decoder:ident, $piece:path, $stream:expr, $lengths:expr) => {{
        let stream: &[u8] = $stream;
        let lengths: &[usize] = $lengths;
        let mut lengths = lengths.iter().copied().cycle();
        let mut decoder = $decoder::new(Limits::default());
        let mut transcript: Vec<String> = Vec::new();
        let mut body: Vec<u8> = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let (mut input, after) =
                rest.split_at(lengths.next().unwrap_or(rest.len()).min(rest.len()));
            rest = after;
            loop {
                let step = decoder
                    .next(input)
                    .map_err(|e| TestCaseError::fail(e.to_string()))?;
                let consumed = &input[..step.consumed];
                input = &input[step.consumed..];
                match step.event {
                    None => break,
                    Some($piece { offset, bytes, .. }) => {
                        prop_assert!(!bytes.is_empty());
                        prop_assert_eq!(usize::try_from(offset).unwrap(), body.len());
                        let tail = &consumed[consumed.len() - bytes.len()..];
                        prop_assert_eq!(tail.as_ptr_range(), bytes.as_ptr_range());
                        body.extend_from_slice(bytes);
                    }
                    Some(event) => {
                        let body = std::mem::take(&mut body);
                        transcript.push(format!("{body:?} {event:?}"));
                    }
                }
            }
            prop_assert!(input.is_empty(), "without an event, everything is consumed");
        }
        transcript
    }};
}

fn replies(stream: &[u8], lengths: &[usize]) -> Result<Vec<String>, TestCaseError> {
    Ok(transcript!(
        ReplyDecoder,
        ReplyEvent::DataPiece,
        stream,
        lengths
    ))
}

fn requests(stream: &[u8], lengths: &[usize]) -> Result<Vec<String>, TestCaseError> {
    Ok(transcript!(
        RequestDecoder,
        RequestEvent::WritePiece,
        stream,
        lengths
    ))
}

/// Bytes of one packet from a server; `kind` chooses what.
fn append_reply(kind: u8, id: u32, bytes: &[u8], out: &mut Vec<u8>) {
    let attrs = Attrs {
        size: Some(u64::from(id)),
        ..Attrs::NONE
    }
    .into();
    let response = match kind {
        0 => Response::Status(Status {
            code: StatusCode(id),
            message: bytes,
            language: b"en",
        }),
        1 => Response::Handle(bytes.get(..256).unwrap_or(bytes)),
        2 | 3 => Response::Data(Data { data: bytes }),
        4 => {
            let entry = NameEntry {
                filename: bytes,
                longname: b"x",
                attrs,
            };
            return Response::Name(Names::new(&[entry; 3])).encode_packet(id, out);
        }
        5 => Response::Attrs(attrs),
        6 => Response::ExtendedReply(bytes),
        7 => {
            // `DATA` with bytes after what its length says.
            let len = u32::try_from(bytes.len() + 12).unwrap();
            out.extend_from_slice(&len.to_be_bytes());
            out.push(103);
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
            out.extend_from_slice(bytes);
            return out.extend_from_slice(b"???");
        }
        _ => {
            // No reply has this type.
            let len = u32::try_from(bytes.len() + 1).unwrap();
            out.extend_from_slice(&len.to_be_bytes());
            out.push(99);
            return out.extend_from_slice(bytes);
        }
    };
    response.encode_packet(id, out);
}

/// Bytes of one packet from a client; `kind` chooses what.
fn append_request(kind: u8, id: u32, bytes: &[u8], out: &mut Vec<u8>) {
    let attrs = Attrs {
        size: Some(u64::from(id)),
        ..Attrs::NONE
    }
    .into();
    let short = bytes.get(..256).unwrap_or(bytes);
    let request = match kind {
        0 => Request::Stat(Stat { path: bytes }),
        1 => Request::Close(Close { handle: short }),
        2 | 3 => Request::Write(Write {
            handle: short,
            offset: 1 << 40,
            data: bytes,
        }),
        4 => Request::Open(Open {
            path: bytes,
            flags: OpenFlags(id),
            attrs,
        }),
        5 => Request::Extended(Extension::Unknown {
            name: b"x@y",
            data: bytes,
        }),
        6 => Request::Close(Close { handle: bytes }), // may be too long
        7 => Request::Write(Write {
            handle: bytes,
            offset: 0,
            data: b"d",
        }), // so may this
        _ => {
            // No request has this type.
            let len = u32::try_from(bytes.len() + 5).unwrap();
            out.extend_from_slice(&len.to_be_bytes());
            out.push(99);
            out.extend_from_slice(&id.to_be_bytes());
            return out.extend_from_slice(bytes);
        }
    };
    request.encode_packet(id, out);
}

const PAIRS: &[Pair<'_>] = &[
    Pair {
        name: b"a@b",
        data: b"1",
    },
    Pair {
        name: b"",
        data: b"",
    },
];

fn server_stream(packets: &[(u8, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    Version {
        version: 3,
        extensions: Pairs::new(PAIRS),
    }
    .encode_packet(&mut out);
    packets
        .iter()
        .for_each(|(kind, id, bytes)| append_reply(*kind, *id, bytes, &mut out));
    out
}

fn client_stream(packets: &[(u8, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    Init {
        version: 3,
        extensions: Pairs::new(PAIRS),
    }
    .encode_packet(&mut out);
    packets
        .iter()
        .for_each(|(kind, id, bytes)| append_request(*kind, *id, bytes, &mut out));
    out
}

fn packets(most: usize) -> impl Strategy<Value = Vec<(u8, u32, Vec<u8>)>> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20),
        proptest::collection::vec(any::<u8>(), 200..400),
    ];
    proptest::collection::vec((0..9_u8, any::<u32>(), bytes), 0..most)
}

proptest! {
    #[test]
    fn replies_are_the_same_however_they_are_cut(
        packets in packets(12), lengths in proptest::collection::vec(1..60_usize, 1..8),
    ) {
        let stream = server_stream(&packets);
        let whole = replies(&stream, &[stream.len()])?;
        prop_assert!(whole.len() > packets.len());
        prop_assert_eq!(replies(&stream, &lengths)?, &whole[..]);
        prop_assert_eq!(replies(&stream, &[1])?, &whole[..]);
    }

    #[test]
    fn requests_are_the_same_however_they_are_cut(
        packets in packets(12), lengths in proptest::collection::vec(1..60_usize, 1..8),
    ) {
        let stream = client_stream(&packets);
        let whole = requests(&stream, &[stream.len()])?;
        prop_assert!(whole.len() > packets.len());
        prop_assert_eq!(requests(&stream, &lengths)?, &whole[..]);
        prop_assert_eq!(requests(&stream, &[1])?, &whole[..]);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic_or_stand_still(
        noise in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..600),
        cut in 1..20_usize,
    ) {
        // After an error a decoder is of no use, but it stays safe to call.
        for input in noise.chunks(cut) {
            let mut replies = ReplyDecoder::new(Limits::default());
            let mut requests = RequestDecoder::new(Limits::default());
            let _ = replies.next(b"\0\0\0\x05\x02\0\0\0\x03");
            let _ = requests.next(b"\0\0\0\x05\x01\0\0\0\x03");
            for _ in 0..4 {
                let _ = replies.next(input).map(|step| step.consumed);
                let _ = requests.next(input).map(|step| step.consumed);
            }
        }
    }
}

/// A script of 200 packets, cut in two at every byte.
#[test]
fn every_single_cut_of_a_long_script_is_harmless() {
    let script: Vec<(u8, u32, Vec<u8>)> = (0..200_u32)
        .map(|n| {
            (
                u8::try_from(n % 9).unwrap(),
                n,
                vec![b'x'; usize::try_from(n * 7 % 13).unwrap()],
            )
        })
        .collect();
    let from_server = server_stream(&script);
    let whole = replies(&from_server, &[from_server.len()]).unwrap();
    for cut in 1..from_server.len() {
        let read = replies(&from_server, &[cut, from_server.len()]).unwrap();
        assert!(read == whole, "cut at {cut}");
    }
    let from_client = client_stream(&script);
    let whole = requests(&from_client, &[from_client.len()]).unwrap();
    for cut in 1..from_client.len() {
        let read = requests(&from_client, &[cut, from_client.len()]).unwrap();
        assert!(read == whole, "cut at {cut}");
    }
}
