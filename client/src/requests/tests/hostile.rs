//! Servers that lie (rows L1 to L8 of `docs/threats.md`): each lie ends in an error of its own,
//! nothing is left, nothing grows and nobody waits for ever.

use std::{fs, path::Path, pin::pin};

use ketch_protocol::{
    Attrs, Data, FileType, NameEntry, Names, PacketType, Request, RequestId, Response, Status,
    StatusCode,
};

use super::{
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{
    Failure, GetOptions, Kind, OpenOptions, PutOptions, ReadFault, SftpError, TransferError,
    requests::{misbehaved::PeerMisbehaved, stall::STALL_TIMEOUT},
};

fn content(len: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..=250).collect();
    let mut content = period.repeat(len / period.len() + 1);
    content.truncate(len);
    content
}

fn packet(id: RequestId, response: &Response<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    response.encode_packet(id, &mut bytes);
    bytes
}

fn status(id: RequestId, code: StatusCode) -> Vec<u8> {
    packet(id, &Response::Status(Status::new(code)))
}

fn data(id: RequestId, bytes: &[u8]) -> Vec<u8> {
    packet(id, &Response::Data(Data { data: bytes }))
}

fn attrs(id: RequestId, size: u64) -> Vec<u8> {
    let attrs = Attrs {
        size: Some(size),
        ..Attrs::with_permissions(FileType::Regular.mode_bits() | 0o644)
    };
    packet(id, &Response::Attrs(attrs.into()))
}

/// A name of a listing, of a file of this kind.
fn entry(filename: &[u8], attrs: Attrs) -> NameEntry<'_> {
    NameEntry {
        filename,
        longname: b"",
        attrs: attrs.into(),
    }
}

fn of_kind(file_type: FileType) -> Attrs {
    Attrs::with_permissions(file_type.mode_bits() | 0o755)
}

/// Everything below a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().unwrap().is_dir() {
            let below = names(&entry.path());
            found.extend(below.into_iter().map(|below| format!("{name}/{below}")));
        }
        found.push(name);
    }
    found.sort();
    found
}

/// What a lie to a request is recognised by, and how it is told.
type Told = (
    &'static str,
    fn(RequestId) -> Vec<u8>,
    fn(&PeerMisbehaved) -> bool,
);

/// Lies that end the channel, whatever was asked.
const LIES: [Told; 7] = [
    (
        "a number that was never asked",
        |id| status(id ^ 0x4000_0000, StatusCode::OK),
        |fault| matches!(fault, PeerMisbehaved::Unrequested { .. }),
    ),
    (
        "two answers to one request",
        |id| {
            [
                status(id, StatusCode::FAILURE),
                status(id, StatusCode::FAILURE),
            ]
            .concat()
        },
        |fault| matches!(fault, PeerMisbehaved::Unrequested { .. }),
    ),
    (
        "an answer to another kind of request",
        |id| packet(id, &Response::ExtendedReply(b"")),
        |fault| matches!(fault, PeerMisbehaved::WrongType { .. }),
    ),
    (
        "a second greeting",
        |_| vec![0, 0, 0, 5, 2, 0, 0, 0, 3],
        |fault| matches!(fault, PeerMisbehaved::Protocol(_)),
    ),
    (
        "a packet without end",
        |_| vec![0xff, 0xff, 0xff, 0xff, 101],
        |fault| matches!(fault, PeerMisbehaved::Protocol(_)),
    ),
    (
        "a packet of no bytes",
        |_| vec![0, 0, 0, 0],
        |fault| matches!(fault, PeerMisbehaved::Protocol(_)),
    ),
    (
        "a packet cut short",
        |id| {
            let mut bytes = vec![0, 0, 0, 6, 101];
            bytes.extend(id.to_be_bytes());
            bytes.push(0);
            bytes
        },
        |fault| matches!(fault, PeerMisbehaved::Protocol(_)),
    ),
];

fn fault_of(error: &TransferError) -> &PeerMisbehaved {
    match error {
        TransferError::Misbehaved { source } => source,
        other => panic!("no fault of the server's: {other:?}"),
    }
}

#[test]
fn every_lie_in_place_of_every_answer_ends_a_download() {
    let kinds = [
        PacketType::STAT,
        PacketType::OPEN,
        PacketType::READ,
        PacketType::OPENDIR,
        PacketType::READDIR,
    ];
    for (name, tell, is_expected) in LIES {
        for kind in kinds {
            let dir = tempfile::tempdir().unwrap();
            let mut sim = Sim::new(Habits::default(), 1);
            sim.settle();
            sim.server.dir("/t");
            sim.server.file("/t/a", content(300_000));
            let mut seen = 0;
            sim.server.lies = Some(Box::new(move |id, request| {
                seen += usize::from(request.packet_type() == kind);
                (request.packet_type() == kind && seen == 1).then(|| tell(id))
            }));
            let sftp = sim.sftp.clone();
            let options = GetOptions::new().recursive(true);
            let error = sim
                .run(sftp.get("/t", dir.path().join("b"), options))
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Peer, "{name}, {kind}");
            // Two refusals of a STAT are an error of their own before the second is looked at.
            if !name.starts_with("two") {
                assert!(is_expected(fault_of(&error)), "{name}, {kind}: {error:?}");
            }
            assert!(sim.link.closed, "{name}, {kind}");
            sim.run_threads();
            let left = names(dir.path());
            assert!(left.is_empty() || left == ["b"], "{name}, {kind}: {left:?}");
            let later = sim.run(sftp.stat("/t")).unwrap_err();
            assert_eq!(later.kind(), Kind::Peer, "{name}, {kind}");
        }
    }
}

#[test]
fn every_lie_in_place_of_every_answer_ends_an_upload() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(300_000)).unwrap();
    let kinds = [
        PacketType::LSTAT,
        PacketType::OPEN,
        PacketType::FSTAT,
        PacketType::CLOSE,
        PacketType::EXTENDED,
    ];
    for (name, tell, is_expected) in LIES {
        for kind in kinds {
            let mut sim = Sim::new(Habits::default(), 1);
            sim.settle();
            sim.server.lies = Some(Box::new(move |id, request| {
                let asked = request.packet_type();
                // An EXTENDED may be answered by EXTENDED_REPLY as far as its type goes.
                (asked == kind).then(|| tell(id))
            }));
            let sftp = sim.sftp.clone();
            let error = sim
                .run(sftp.put(dir.path().join("a"), "/a", PutOptions::new()))
                .unwrap_err();
            assert_eq!(error.kind(), Kind::Peer, "{name}, {kind}");
            if !name.starts_with("two") {
                assert!(is_expected(fault_of(&error)), "{name}, {kind}: {error:?}");
            }
            assert!(sim.server.data("/a").is_none(), "{name}, {kind}");
        }
    }
}

#[test]
fn data_of_lengths_that_were_not_asked_for_is_refused_before_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    for more in [1, 1000, 100_000] {
        let mut sim = Sim::new(Habits::default(), 1);
        sim.settle();
        sim.server.file("/a", content(300_000));
        sim.server.lies = Some(Box::new(move |id, request| match request {
            Request::Read(read) if read.offset > 0 => {
                Some(data(id, &vec![7; read.len as usize + more]))
            }
            _ => None,
        }));
        let sftp = sim.sftp.clone();
        let error = sim
            .run(sftp.get("/a", dir.path().join("a"), GetOptions::new()))
            .unwrap_err();
        assert!(
            matches!(fault_of(&error), PeerMisbehaved::Overlong { .. }),
            "{error:?}"
        );
        assert!(names(dir.path()).is_empty());
    }
    // A length that its packet does not hold.
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.server.file("/a", content(300_000));
    sim.server.lies = Some(Box::new(|id, request| match request {
        Request::Read(_) => {
            let mut bytes = data(id, b"abc");
            bytes[9..13].copy_from_slice(&u32::MAX.to_be_bytes());
            Some(bytes)
        }
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    let read = sim.run(async {
        let file = sftp.open("/a", OpenOptions::reading()).await.unwrap();
        file.read_at(0, 100_000).await
    });
    assert_eq!(read.unwrap_err().kind(), Kind::Peer);
}

#[test]
fn data_of_no_bytes_and_crumbs_are_not_asked_for_for_ever() {
    for len in [0_usize, 1, 100] {
        for size in [0, 1000, 500_000, 1 << 40] {
            let dir = tempfile::tempdir().unwrap();
            let mut sim = Sim::new(Habits::default(), 1);
            sim.settle();
            sim.server.file("/a", content(500_000));
            sim.server.lies = Some(Box::new(move |id, request| match request {
                Request::Read(read) if read.offset < 500_000 => {
                    Some(data(id, &vec![7; len.min(read.len as usize)]))
                }
                Request::Stat(_) => Some(attrs(id, size)),
                _ => None,
            }));
            let sftp = sim.sftp.clone();
            let result = sim.run(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
            let reads = sim.server.asked(PacketType::READ);
            assert!(reads < 200_000, "{len} of {size}: {reads} READs");
            match result {
                // Nothing at all is a file of no bytes, if the server had said so; and a hundred
                // bytes at a time get on.
                Ok(report) => assert!(
                    report.bytes <= 1000 || len == 100,
                    "{len} of {size}: {report:?}"
                ),
                Err(error) => {
                    let TransferError::Read { source, .. } = &error else {
                        panic!("{len} of {size}: {error:?}")
                    };
                    assert!(
                        matches!(
                            source,
                            ReadFault::Crumbs { .. } | ReadFault::Truncated { .. }
                        ),
                        "{len} of {size}: {error:?}"
                    );
                    assert!(names(dir.path()).is_empty());
                }
            }
        }
    }
}

#[test]
fn a_size_is_a_hint_and_never_believed() {
    const LEN: u64 = 200_000;
    for says in [
        0,
        1,
        LEN - 1,
        LEN,
        LEN + 1,
        1 << 32,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), 1);
        sim.settle();
        sim.server.file("/a", content(200_000));
        sim.server.lies = Some(Box::new(move |id, request| match request {
            Request::Stat(_) => Some(attrs(id, says)),
            _ => None,
        }));
        let sftp = sim.sftp.clone();
        let result = sim.run(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
        if says <= LEN {
            assert_eq!(result.unwrap().bytes, LEN, "{says}");
            assert_eq!(fs::read(dir.path().join("a")).unwrap(), content(200_000));
        } else {
            let error = result.unwrap_err();
            assert!(
                matches!(
                    &error,
                    TransferError::Read {
                        source: ReadFault::Truncated { .. },
                        ..
                    }
                ),
                "{says}: {error:?}"
            );
            assert!(names(dir.path()).is_empty(), "{says}");
        }
    }
}

#[test]
fn sizes_that_do_not_fit_together_into_a_number_stop_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.server.dir("/t");
    for n in 0..50 {
        sim.server.file(&format!("/t/{n}"), content(10));
    }
    // A listing without permissions: each file is looked at by itself.
    let listing: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let mut listed = false;
    sim.server.lies = Some(Box::new(move |id, request| match request {
        Request::Readdir(_) if !listed => {
            listed = true;
            let entries: Vec<_> = listing
                .iter()
                .map(|name| entry(name.as_bytes(), Attrs::NONE))
                .collect();
            Some(packet(id, &Response::Name(Names::new(&entries))))
        }
        Request::Readdir(_) => Some(status(id, StatusCode::EOF)),
        // The size comes when all of them are under way.
        Request::Lstat(_) => Some(attrs(id, u64::MAX)),
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap_err();
    let TransferError::Incomplete { report } = error else {
        panic!("{error:?}")
    };
    assert_eq!((report.files, report.failed_count), (0, 50));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_link_that_becomes_a_directory_leads_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    let dir = outside.path().join("a");
    fs::create_dir(&dir).unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    // One name three times: a link, a directory with a file, a file.
    let mut turn = 0;
    sim.server.dir("/t");
    sim.server.dir("/t/x");
    sim.server.file("/t/x/f", content(10));
    sim.server.lies = Some(Box::new(move |id, request| match request {
        Request::Readdir(_) if turn == 0 => {
            turn += 1;
            let entries = [
                entry(b"x", of_kind(FileType::Symlink)),
                entry(b"x", of_kind(FileType::Directory)),
            ];
            Some(packet(id, &Response::Name(Names::new(&entries))))
        }
        Request::Readdir(_) if turn == 1 => {
            turn += 1;
            Some(status(id, StatusCode::EOF))
        }
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    let report = sim
        .run(sftp.get("/t", &dir, GetOptions::new().recursive(true)))
        .unwrap();
    assert_eq!((report.files, report.skipped_count), (1, 1));
    assert_eq!(names(outside.path()), ["a", "a/x", "a/x/f"]);
}

#[test]
fn what_is_something_else_by_the_time_it_is_opened_fails_alone() {
    let listed = [
        ("was a file", FileType::Regular, Node::Dir),
        ("was a directory", FileType::Directory, Node::Link),
        ("was nothing known", FileType::Unknown, Node::Link),
    ];
    for (name, says, is) in listed {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), 1);
        sim.settle();
        sim.server.dir("/t");
        sim.server.file("/t/good", content(10));
        sim.server.nodes.insert(b"/t/x".to_vec(), is);
        let mut turn = 0;
        sim.server.lies = Some(Box::new(move |id, request| match request {
            Request::Readdir(_) => {
                turn += 1;
                let kind = if says == FileType::Unknown {
                    Attrs::NONE
                } else {
                    of_kind(says)
                };
                let entries = [entry(b"x", kind), entry(b"good", Attrs::NONE)];
                Some(match turn {
                    1 => packet(id, &Response::Name(Names::new(&entries))),
                    _ => status(id, StatusCode::EOF),
                })
            }
            Request::Open(open) if open.path == b"/t/x" => Some(status(id, StatusCode::FAILURE)),
            _ => None,
        }));
        let sftp = sim.sftp.clone();
        let result = sim.run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)));
        let left = names(dir.path());
        assert!(left.contains(&"good".to_owned()), "{name}: {left:?}");
        assert!(!dir.path().join("x").is_file(), "{name}");
        match result {
            Ok(report) => assert_eq!(report.skipped_count, 1, "{name}"),
            Err(TransferError::Incomplete { report }) => {
                assert_eq!((report.files, report.failed_count), (1, 1), "{name}");
            }
            Err(error) => panic!("{name}: {error:?}"),
        }
    }
}

#[test]
fn a_message_with_as_many_names_as_fit_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.server.dir("/t");
    let mut turn = 0;
    sim.server.lies = Some(Box::new(move |id, request| match request {
        Request::Readdir(_) => {
            turn += 1;
            // 16 bytes each, and a packet has 257 KiB.
            let link = of_kind(FileType::Symlink);
            let entries = vec![entry(b"x", link); 15_000];
            Some(match turn {
                1 => packet(id, &Response::Name(Names::new(&entries))),
                _ => status(id, StatusCode::EOF),
            })
        }
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    let report = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap();
    assert_eq!(report.skipped_count, 15_000);
    assert!(report.skipped.len() <= crate::REPORTED_MAX);
    // A count that its packet does not hold is no count.
    sim.server.lies = Some(Box::new(|id, request| match request {
        Request::Readdir(_) => {
            let mut bytes = packet(id, &Response::Name(Names::new(&[])));
            bytes[9..13].copy_from_slice(&1_000_000_u32.to_be_bytes());
            Some(bytes)
        }
        _ => None,
    }));
    let error = sim.run(async { sftp.read_dir("/t").next().await });
    assert_eq!(error.unwrap().unwrap_err().kind(), Kind::Peer);
}

#[test]
fn a_status_needs_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.server.lies = Some(Box::new(|id, request| match request {
        Request::Stat(_) => {
            let mut bytes = vec![0, 0, 0, 9, 101];
            bytes.extend(id.to_be_bytes());
            bytes.extend(StatusCode::PERMISSION_DENIED.0.to_be_bytes());
            Some(bytes)
        }
        // Text that is none, and more of it than anybody reads.
        Request::Open(_) => {
            let text = [0x1b; 100_000];
            let status = Status {
                code: StatusCode::PERMISSION_DENIED,
                message: &text,
                language: b"",
            };
            Some(packet(id, &Response::Status(status)))
        }
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    assert_eq!(
        sim.run(sftp.stat("/a")).unwrap_err().kind(),
        Kind::Permission
    );
    let error = sim
        .run(sftp.get("/a", dir.path().join("a"), GetOptions::new()))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Permission);
    let said = error.to_string();
    assert!(said.len() < 10_000, "{} bytes", said.len());
    assert!(!said.chars().any(char::is_control), "{said:?}");
}

#[test]
fn greetings_are_taken_from_version_3_on_and_with_64_extensions() {
    let greeting = |version: u32, extensions: usize| {
        let mut bytes = vec![0, 0, 0, 0, 2];
        bytes.extend(version.to_be_bytes());
        for n in 0..extensions {
            let name = format!("x{n:03}@y");
            bytes.extend([0, 0, 0, 6]);
            bytes.extend(name.bytes());
            bytes.extend([0, 0, 0, 1, b'1']);
        }
        let len = u32::try_from(bytes.len() - 4).unwrap();
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        bytes
    };
    let greeted = |bytes: &[u8]| {
        let habits = Habits {
            greets: false,
            extensions: Vec::new(),
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, 1);
        sim.server.file("/a", content(10));
        sim.settle();
        sim.deliver(bytes);
        let sftp = sim.sftp.clone();
        sim.run(sftp.stat("/a"))
    };
    for (version, extensions) in [(3, 0), (3, 64), (4, 0), (6, 10), (u32::MAX, 0)] {
        let result = greeted(&greeting(version, extensions));
        assert_eq!(result.unwrap().size, Some(10), "{version}, {extensions}");
    }
    for (version, extensions) in [(0, 0), (2, 0), (3, 65), (3, 1000)] {
        let error = greeted(&greeting(version, extensions)).unwrap_err();
        assert_eq!(error.kind(), Kind::Peer, "{version}, {extensions}");
    }
    let error = greeted(b"This account is not available.\n").unwrap_err();
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        said.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(said.contains("This account is not available"), "{said}");
}

#[test]
fn silence_after_any_request_ends_what_was_begun() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("a"), content(200_000)).unwrap();
    let kinds = [
        (PacketType::INIT, false),
        (PacketType::STAT, true),
        (PacketType::LSTAT, false),
        (PacketType::OPEN, true),
        (PacketType::READ, true),
        (PacketType::WRITE, false),
        (PacketType::FSTAT, false),
        (PacketType::CLOSE, false),
        (PacketType::EXTENDED, false),
        (PacketType::OPENDIR, true),
        (PacketType::READDIR, true),
    ];
    for (kind, recursive) in kinds {
        for nth in [1, 2, 3] {
            let dir = tempfile::tempdir().unwrap();
            let habits = Habits {
                silent_from: Some((kind, nth)),
                silent_for_good: true,
                greets: kind != PacketType::INIT,
                ..Habits::default()
            };
            let mut sim = Sim::new(habits, 1);
            sim.server.dir("/t");
            sim.server.file("/t/a", content(200_000));
            let sftp = sim.sftp.clone();
            let options = GetOptions::new().recursive(recursive);
            let mut get = pin!(sftp.get("/t", dir.path().join("b"), options));
            let mut put = pin!(sftp.put(from.path().join("a"), "/p", PutOptions::new()));
            let (mut got, mut sent) = (None, None);
            for _ in 0..4 {
                for _ in 0..50 {
                    got = got.or_else(|| poll(get.as_mut()));
                    sent = sent.or_else(|| poll(put.as_mut()));
                    sim.turn();
                }
                sim.pass_time(STALL_TIMEOUT);
            }
            assert!(got.is_some() && sent.is_some(), "{kind} {nth}: no end");
            sim.run_threads();
            let left = names(dir.path());
            assert!(
                !left.iter().any(|name| name.contains(".ketch-")),
                "{kind} {nth}: {left:?}"
            );
            if let Some(Ok(_)) = sent {
                assert!(sim.server.data("/p") == Some(&content(200_000)[..]));
            }
        }
    }
}

#[test]
fn packets_that_answer_nothing_put_off_no_end() {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.server.lies = Some(Box::new(|_, _| Some(Vec::new())));
    let sftp = sim.sftp.clone();
    let mut call = pin!(sftp.stat("/a"));
    let mut ended = None;
    for _ in 0..200 {
        ended = ended.or_else(|| poll(call.as_mut()));
        sim.turn();
        sim.pass_time(STALL_TIMEOUT / 2);
        if !sim.link.closed {
            // A request in the place of an answer, as Tectia sends one.
            sim.deliver(b"\0\0\0\x0e\xc8\0\0\0\0\0\0\0\x05x@y.z");
        }
    }
    let error = ended.expect("an end").unwrap_err();
    assert!(
        matches!(error.kind(), Kind::Timeout | Kind::Peer),
        "{error:?}"
    );
}

#[test]
fn answers_that_come_after_the_end_are_passed_over_and_their_handles_closed() {
    for turns in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), 1);
        sim.settle();
        sim.packets_max = 4;
        sim.server.dir("/t");
        for n in 0..50 {
            sim.server.file(&format!("/t/{n}"), content(40_000));
        }
        let sftp = sim.sftp.clone();
        {
            let options = GetOptions::new().recursive(true);
            let mut get = pin!(sftp.get("/t", dir.path().join("b"), options));
            for _ in 0..turns {
                assert!(poll(get.as_mut()).is_none());
                sim.turn();
            }
            // All answers to what was asked so far come after it was given up.
        }
        sim.packets_max = 1000;
        sim.settle();
        assert_eq!(sim.server.handles(), 0, "{turns}");
        assert!(sim.requests.is_idle(), "{turns}");
        assert!(sim.requests.inner.core.table.is_empty(), "{turns}");
        assert!(sim.run(sftp.stat("/t")).is_ok(), "the channel is in order");
        let left = names(dir.path());
        assert!(
            !left.iter().any(|name| name.contains(".ketch-")),
            "{left:?}"
        );
    }
}

#[test]
fn the_first_failed_write_counts_in_every_order_of_the_answers() {
    const BLOCK: usize = 1000;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(64 * BLOCK)).unwrap();
    for nth in 1..=64 {
        for seed in 0..4 {
            let mut habits = Habits {
                fails: Some((PacketType::WRITE, nth, StatusCode::NO_SPACE_ON_FILESYSTEM)),
                shuffle: true,
                ..Habits::default()
            };
            habits.limits.write_len = BLOCK as u64;
            let mut sim = Sim::new(habits, seed * 64 + nth as u64);
            sim.settle();
            sim.packets_max = 5;
            sim.server.file("/old", b"old".to_vec());
            let sftp = sim.sftp.clone();
            let error = sim
                .run(sftp.put(dir.path().join("a"), "/old", PutOptions::new()))
                .unwrap_err();
            // Where the last one fails, its size may have come before its status.
            let short = nth == 64 && matches!(error, TransferError::WrongSize { .. });
            assert!(
                short || error.kind() == Kind::NoSpace,
                "{nth}, {seed}: {error:?}"
            );
            sim.settle();
            assert_eq!(sim.server.data("/old"), Some(&b"old"[..]), "{nth}, {seed}");
            assert_eq!(sim.server.paths(), ["/", "/old"], "{nth}, {seed}");
            assert_eq!(sim.server.handles(), 0);
        }
    }
}

#[test]
fn a_write_that_a_file_makes_fails_if_any_part_of_it_did() {
    for nth in 1..=6 {
        let habits = Habits {
            fails: Some((PacketType::WRITE, nth, StatusCode::FAILURE)),
            shuffle: true,
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, nth as u64);
        sim.settle();
        let sftp = sim.sftp.clone();
        let result = sim.run(async {
            let file = sftp.open("/a", OpenOptions::writing()).await.unwrap();
            file.write_at(0, &content(6 * 32_000)).await
        });
        if sim.server.asked(PacketType::WRITE) >= nth {
            assert!(
                matches!(result, Err(SftpError::Refused { .. })),
                "{nth}: {result:?}"
            );
        }
    }
}

#[test]
fn directories_without_end_do_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.packets_max = 1000;
    sim.server.dir("/t");
    let mut count = 0;
    sim.server.lies = Some(Box::new(move |id, request| match request {
        Request::Readdir(_) => {
            let listed: Vec<String> = (0..500).map(|n| format!("{:0>240}", count + n)).collect();
            count += listed.len();
            let entries: Vec<_> = listed
                .iter()
                .map(|name| entry(name.as_bytes(), of_kind(FileType::Directory)))
                .collect();
            Some(packet(id, &Response::Name(Names::new(&entries))))
        }
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap_err();
    let TransferError::TooMuch { limit, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(limit, "256 MiB of names that wait");
}

#[test]
fn names_that_are_none_are_shown_cut_and_soon_only_counted() {
    let dir = tempfile::tempdir().unwrap();
    let evil = (0..1500).map(|n| format!("{n}{}", "x".repeat(2000)).into_bytes());
    let habits = Habits {
        evil: evil.collect(),
        names_max: 50,
        ..Habits::default()
    };
    let mut sim = Sim::new(habits, 1);
    sim.server.dir("/t");
    sim.packets_max = 1000;
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap_err();
    let TransferError::Incomplete { report } = error else {
        panic!("{error:?}")
    };
    assert_eq!(report.failed_count, 1500);
    assert_eq!(report.failed.len(), crate::REPORTED_MAX);
    for failed in &report.failed {
        let TransferError::Name { path, .. } = &failed.error else {
            panic!("{failed:?}")
        };
        assert_eq!(path.as_bytes().len(), "/t/".len() + 255);
    }
}
