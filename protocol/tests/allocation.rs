//! No message makes the codec allocate by a length or a count that it names.
//!
//! The heap profiler is one for the process, so everything here is one test, in a binary of its
//! own, and without the test harness, whose threads allocate as well.

use ketch_protocol::limits::PACKET_LEN_MAX;
use ketch_protocol::{
    Data, DecodeError, Limits, PacketType, ProtocolError, Reader, ReplyDecoder, ReplyEvent,
    Request, RequestDecoder, RequestEvent, Response, Write,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const VERSION: &[u8] = b"\0\0\0\x05\x02\0\0\0\x03";
const INIT: &[u8] = b"\0\0\0\x05\x01\0\0\0\x03";

/// The result of `work`, the bytes it allocated in all, and its highest amount at one time over
/// what was there before.
fn measured<T>(work: impl FnOnce() -> T) -> (T, u64, usize) {
    let _profiler = dhat::Profiler::builder().testing().build();
    let result = work();
    let stats = dhat::HeapStats::get();
    (result, stats.total_bytes, stats.max_bytes)
}

fn replies() -> ReplyDecoder {
    let mut decoder = ReplyDecoder::new(Limits::default());
    decoder.next(VERSION).expect("a greeting");
    decoder
}

fn requests() -> RequestDecoder {
    let mut decoder = RequestDecoder::new(Limits::default());
    decoder.next(INIT).expect("a greeting");
    decoder
}

/// Hands `input` over in pieces of `piece` bytes; how many events there were, and how many bytes
/// of bodies.
fn feed(decoder: &mut ReplyDecoder, input: &[u8], piece: usize) -> (usize, usize) {
    let (mut events, mut bytes) = (0, 0);
    for mut input in input.chunks(piece) {
        loop {
            let step = decoder.next(input).expect("well-formed");
            input = &input[step.consumed..];
            let Some(event) = step.event else { break };
            events += 1;
            if let ReplyEvent::DataPiece { bytes: piece, .. } = event {
                bytes += piece.len();
            }
        }
    }
    (events, bytes)
}

fn main() {
    nothing_is_allocated_by_a_length_that_a_message_names();
    println!("nothing is allocated by a length that a message names");
}

fn nothing_is_allocated_by_a_length_that_a_message_names() {
    // The announced length is the longest allowed, only a few bytes come.
    let longest = u32::try_from(PACKET_LEN_MAX).expect("fits").to_be_bytes();
    for packet_type in (0..=u8::MAX).filter(|number| ![1, 2].contains(number)) {
        let start = [&longest[..], &[packet_type, 0, 0, 0, 7, 0, 0, 0, 9, b'x']].concat();
        let (mut to_client, mut to_server) = (replies(), requests());
        let (_, total, _) = measured(|| {
            let _ = to_client.next(&start).map(|step| step.consumed);
            let _ = to_server.next(&start).map(|step| step.consumed);
        });
        assert!(
            total <= 128,
            "type {packet_type}: {total} bytes for {} that came",
            start.len()
        );
    }

    // Byte by byte, the buffer holds no more than twice what came.
    let start = [&longest[..], &[104, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff]].concat();
    let drip = [start, vec![0; 5_000]].concat();
    let mut decoder = replies();
    let ((events, _), _, most) = measured(|| feed(&mut decoder, &drip, 1));
    assert_eq!(events, 0);
    assert!(
        most <= 3 * drip.len(),
        "{most} bytes for {} that came",
        drip.len()
    );

    // Packets, strings, lists and bodies of 2^32 - 1.
    let huge: [(&str, &[u8], ProtocolError); 4] = [
        (
            "packet",
            b"\xff\xff\xff\xff\x68",
            ProtocolError::PacketTooLong {
                len: 0xffff_ffff,
                max: PACKET_LEN_MAX,
            },
        ),
        (
            "names",
            b"\0\0\0\x0d\x68\0\0\0\x07\xff\xff\xff\xff\0\0\0\0",
            malformed(PacketType::NAME, DecodeError::Truncated),
        ),
        (
            "extended attributes",
            b"\0\0\0\x0d\x69\0\0\0\x07\x80\0\0\0\xff\xff\xff\xff",
            malformed(
                PacketType::ATTRS,
                DecodeError::TooLong {
                    len: 0xffff_ffff,
                    max: 16,
                },
            ),
        ),
        (
            "data",
            b"\0\0\0\x0a\x67\0\0\0\x07\xff\xff\xff\xffx",
            malformed(PacketType::DATA, DecodeError::Truncated),
        ),
    ];
    for (what, bytes, error) in huge {
        let mut decoder = replies();
        let (read, total, _) = measured(|| decoder.next(bytes).err());
        assert_eq!(read, Some(error), "{what}");
        assert_eq!(total, 0, "{what}");
    }
    let path = b"\0\0\0\x0a\x11\0\0\0\x07\xff\xff\xff\xff/";
    let mut decoder = requests();
    let (read, total, _) = measured(|| {
        matches!(
            decoder.next(path).expect("answerable").event,
            Some(RequestEvent::Refused { id: 7, .. })
        )
    });
    assert!(read);
    assert_eq!(total, 0);

    // Whole messages, and bodies cut anywhere, cost nothing at all.
    let mut stream = Vec::new();
    let data = vec![7; 200_000];
    Response::Handle(b"h").encode_packet(1, &mut stream);
    Response::Data(Data { data: &data }).encode_packet(2, &mut stream);
    let mut decoder = replies();
    let (read, total, _) = measured(|| feed(&mut decoder, &stream, 32_768));
    assert_eq!((read, total), ((1 + 1 + 7 + 1, data.len()), 0));

    // A cut in the head of a body costs the head.
    let mut stream = Vec::new();
    let handle = [1; 256];
    Request::Write(Write {
        handle: &handle,
        offset: 0,
        data: &data,
    })
    .encode_packet(1, &mut stream);
    let mut decoder = requests();
    let (left, _, most) = measured(|| {
        let mut left = data.len();
        for mut input in stream.chunks(100) {
            loop {
                let step = decoder.next(input).expect("well-formed");
                input = &input[step.consumed..];
                match step.event {
                    None => break,
                    Some(RequestEvent::WritePiece { bytes, .. }) => left -= bytes.len(),
                    Some(_) => {}
                }
            }
        }
        left
    });
    assert_eq!(left, 0);
    assert!(most <= 2 * Write::header_len(handle.len()), "{most}");

    // A handle that is too long is refused before it is there.
    let len = u32::try_from(PACKET_LEN_MAX).expect("fits").to_be_bytes();
    let head = [
        &len[..],
        &[6, 0, 0, 0, 7],
        &200_000_u32.to_be_bytes(),
        &[0; 12],
    ]
    .concat();
    let mut decoder = requests();
    let (refused, _, most) = measured(|| {
        let mut refused = 0;
        for mut input in head.chunks(1).chain(data.chunks(100)) {
            loop {
                let step = decoder.next(input).expect("answerable");
                input = &input[step.consumed..];
                let Some(event) = step.event else { break };
                assert!(matches!(event, RequestEvent::Refused { id: 7, .. }));
                refused += 1;
            }
        }
        refused
    });
    assert_eq!(refused, 1);
    assert!(most <= 2 * head.len(), "{most}");

    // Walking over a list costs nothing.
    let mut names = b"\0\0\0\x64".to_vec();
    for _ in 0..100 {
        names.extend_from_slice(b"\0\0\0\x01a\0\0\0\x01b\0\0\0\0");
    }
    let (count, total, _) =
        measured(
            || match Response::decode(PacketType::NAME, Reader::new(&names)) {
                Ok(Response::Name(names)) => {
                    names.iter().filter(|entry| entry.filename == b"a").count()
                }
                _ => 0,
            },
        );
    assert_eq!((count, total), (100, 0));
}

fn malformed(packet_type: PacketType, source: DecodeError) -> ProtocolError {
    ProtocolError::Malformed {
        packet_type,
        id: Some(7),
        source,
    }
}
