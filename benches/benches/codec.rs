//! What the SFTP codec costs: nothing per byte, little per packet.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ketch_protocol::{
    Attrs, Data, Limits, NameEntry, Names, PROTOCOL_VERSION, Pairs, Read, ReplyDecoder, ReplyEvent,
    Request, RequestDecoder, RequestEvent, Response, Status, StatusCode, Version, Write,
};

/// What a socket read brings at most.
const READ_LEN: usize = 256 * 1024;

/// Decodes all of `stream` in pieces of a socket read; returns how many events came.
fn read_replies(decoder: &mut ReplyDecoder, stream: &[u8]) -> usize {
    let mut events = 0;
    for mut input in stream.chunks(READ_LEN) {
        loop {
            let step = decoder.next(input).expect("a good stream");
            input = &input[step.consumed..];
            match step.event {
                None => break,
                Some(ReplyEvent::DataPiece { bytes, .. }) => {
                    black_box(bytes.as_ptr());
                }
                Some(ReplyEvent::Reply {
                    response: Response::Name(names),
                    ..
                }) => {
                    names.iter().for_each(|entry| {
                        black_box(entry.attrs);
                    });
                }
                Some(_) => {}
            }
            events += 1;
        }
    }
    events
}

/// A decoder that has seen the greeting.
fn greeted() -> ReplyDecoder {
    let mut version = Vec::new();
    Version {
        version: PROTOCOL_VERSION,
        extensions: Pairs::EMPTY,
    }
    .encode_packet(&mut version);
    let mut decoder = ReplyDecoder::new(Limits::default());
    read_replies(&mut decoder, &version);
    decoder
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("replies");
    let entry = NameEntry {
        filename: b"a-file-of-some-name.csv",
        longname:
            b"-rw-r--r--    1 user     group        4096 Nov 21 08:00 a-file-of-some-name.csv",
        attrs: Attrs::with_permissions(0o100_644).into(),
    };
    let entries = [entry; 100];
    let body = vec![7; 65_523]; // with its 13 bytes of header two channel packets of 32 KiB
    let cases: [(&str, Response<'_>, usize); 3] = [
        ("data of 64 KiB", Response::Data(Data { data: &body }), 64),
        (
            "name of 100 entries",
            Response::Name(Names::new(&entries)),
            64,
        ),
        (
            "status",
            Response::Status(Status::new(StatusCode::OK)),
            1000,
        ),
    ];
    for (name, response, count) in cases {
        let mut stream = Vec::new();
        (0..count).for_each(|_| response.encode_packet(7, &mut stream));
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                greeted,
                |decoder| read_replies(decoder, black_box(&stream)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("requests");
    group.throughput(Throughput::Elements(1000));
    let mut out = Vec::new();
    group.bench_function("read, encoded", |b| {
        b.iter(|| {
            out.clear();
            for id in 0..1000 {
                let offset = u64::from(id) * 65_523;
                let read = Read {
                    handle: &[0, 0, 0, 1],
                    offset,
                    len: 65_523,
                };
                Request::Read(black_box(read)).encode_packet(id, &mut out);
            }
            out.len()
        });
    });
    group.bench_function("header of write, encoded", |b| {
        b.iter(|| {
            out.clear();
            for id in 0..1000 {
                let offset = u64::from(id) * 65_523;
                Write::encode_header(id, black_box(&[0, 0, 0, 1]), offset, 65_523, &mut out);
            }
            out.len()
        });
    });
    group.finish();

    let mut group = c.benchmark_group("requests, decoded");
    let body = vec![7; 32 * 1024];
    let mut stream = Vec::new();
    let write = Request::Write(Write {
        handle: &[0, 0, 0, 1],
        offset: 0,
        data: &body,
    });
    (0..64).for_each(|id| write.encode_packet(id, &mut stream));
    group.throughput(Throughput::Bytes(stream.len() as u64));
    group.bench_function("write of 32 KiB", |b| {
        b.iter_batched_ref(
            greeted_by_client,
            |decoder| read_requests(decoder, black_box(&stream)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn greeted_by_client() -> RequestDecoder {
    let mut init = Vec::new();
    ketch_protocol::Init {
        version: PROTOCOL_VERSION,
        extensions: Pairs::EMPTY,
    }
    .encode_packet(&mut init);
    let mut decoder = RequestDecoder::new(Limits::default());
    read_requests(&mut decoder, &init);
    decoder
}

fn read_requests(decoder: &mut RequestDecoder, stream: &[u8]) -> usize {
    let mut events = 0;
    for mut input in stream.chunks(READ_LEN) {
        loop {
            let step = decoder.next(input).expect("a good stream");
            input = &input[step.consumed..];
            match step.event {
                None => break,
                Some(RequestEvent::WritePiece { bytes, .. }) => {
                    black_box(bytes.as_ptr());
                }
                Some(_) => {}
            }
            events += 1;
        }
    }
    events
}

criterion_group!(benches, replies, requests);
criterion_main!(benches);
