//! Uploads against a simulated server.

use std::{
    fs, io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ketch_protocol::{ExtensionName, PacketType, Request, Response, Status, StatusCode};
use proptest::prelude::*;

use super::{
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{
    Durability, Failure, Kind, Outcome, Overwrite, Progress, PutOptions, Remarkable, Source,
    TransferError, requests::stall::STALL_TIMEOUT,
};

/// Bytes that differ from their neighbours, and from those a packet further on.
fn content(len: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..=250).collect();
    let mut content = period.repeat(len / period.len() + 1);
    content.truncate(len);
    content
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_file_arrives_whole_whatever_the_server_s_habits(
        len in 0..1_500_000_usize, shuffle in any::<bool>(), tells_size in any::<bool>(),
        big in any::<bool>(), seed in any::<u64>(), window in 40_000..3_000_000_usize,
        posix in any::<bool>(), limits in any::<bool>(),
    ) {
        let len = if big { len } else { len / 100 };
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), content(len)).unwrap();
        let mut habits = Habits { shuffle, tells_size, ..Habits::default() };
        habits.extensions.retain(|&name| match name {
            ExtensionName::PosixRename => posix,
            ExtensionName::Limits => limits,
            _ => true,
        });
        let mut sim = Sim::new(habits, seed);
        sim.settle();
        sim.link.window_max = window;
        sim.server.file("/old", b"old".to_vec());
        let sftp = sim.sftp.clone();
        let report = sim.run(sftp.put(dir.path().join("a"), "/old", PutOptions::new())).unwrap();
        prop_assert_eq!((report.files, report.bytes), (1, len as u64));
        prop_assert!(sim.server.data("/old") == Some(&content(len)[..]));
        prop_assert_eq!(sim.server.paths(), ["/", "/old"]);
        prop_assert_eq!(report.remarks.len(), usize::from(!posix));
        sim.settle();
        prop_assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn why_a_directory_cannot_be_made_is_what_the_server_said_then() {
    for (made, looked, wanted) in [
        (
            StatusCode::PERMISSION_DENIED,
            StatusCode::NO_SUCH_FILE,
            "made",
        ),
        (StatusCode::FAILURE, StatusCode::PERMISSION_DENIED, "looked"),
        (StatusCode::FAILURE, StatusCode::NO_SUCH_FILE, "made"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "f").unwrap();
        let mut sim = Sim::new(Habits::default(), 1);
        let sftp = sim.sftp.clone();
        sim.server.lies = Some(Box::new(move |id, request| {
            let (code, message) = match request {
                Request::Mkdir(_) => (made, "made"),
                Request::Stat(_) => (looked, "looked"),
                _ => return None,
            };
            let message = message.as_bytes();
            let status = Status {
                message,
                ..Status::new(code)
            };
            let mut packet = Vec::new();
            Response::Status(status).encode_packet(id, &mut packet);
            Some(packet)
        }));
        let options = PutOptions::new().recursive(true);
        let error = sim.run(sftp.put(dir.path(), "/no", options)).unwrap_err();
        let said = error.to_string();
        assert!(said.ends_with(wanted), "{said}");
    }
}

#[test]
fn a_tree_arrives_whole_with_its_times() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    for a in 0..4 {
        fs::create_dir_all(dir.path().join(format!("d{a}/empty"))).unwrap();
        for n in 0..60 {
            let path = dir.path().join(format!("d{a}/f{n}"));
            fs::write(&path, content(n * 700)).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            crate::platform::set_times(&file, 1_000_000_000, 1_000_000_001).unwrap();
            count += 1;
        }
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
    for seed in 0..6 {
        let mut sim = Sim::new(
            Habits {
                shuffle: seed % 2 == 1,
                ..Habits::default()
            },
            seed,
        );
        sim.settle();
        // What is there already is used.
        sim.server.dir("/t");
        let progress = Arc::new(Progress::new());
        let options = PutOptions::new()
            .recursive(true)
            .preserve_times(true)
            .progress(Arc::clone(&progress));
        let sftp = sim.sftp.clone();
        let report = sim.run(sftp.put(dir.path(), "/t", options)).unwrap();
        assert_eq!((report.files, report.directories), (count, 9));
        assert_eq!(report.skipped_count, u64::from(cfg!(unix)));
        for a in 0..4 {
            assert_eq!(
                sim.server.nodes[format!("/t/d{a}/empty").as_bytes()],
                Node::Dir
            );
            for n in 0..60 {
                let Node::File { data, times, .. } =
                    &sim.server.nodes[format!("/t/d{a}/f{n}").as_bytes()]
                else {
                    panic!()
                };
                assert!(*data == content(n * 700));
                assert_eq!(times.map(|times| times.mtime), Some(1_000_000_001));
            }
        }
        assert_eq!(progress.files_done(), count);
        assert_eq!(progress.bytes_done(), progress.bytes_total());
        assert_eq!(sim.server.handles(), 0);
        assert!(
            sim.server.open_peak > 8,
            "opens overlap: {}",
            sim.server.open_peak
        );
        assert!(
            !sim.server
                .paths()
                .iter()
                .any(|path| path.contains(".ketch-"))
        );
    }
}

#[test]
fn names_in_a_directory_that_was_made_for_them_are_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..30 {
        fs::write(dir.path().join(format!("f{n}")), content(n)).unwrap();
    }
    let asked = |there: bool, options: PutOptions| {
        let mut sim = Sim::new(Habits::default(), 1);
        sim.settle();
        if there {
            sim.server.dir("/t");
            sim.server.file("/t/f7", b"old".to_vec());
        }
        let sftp = sim.sftp.clone();
        let put = sftp.put(dir.path(), "/t", options.recursive(true));
        let files = match sim.run(put) {
            Ok(report) => report.files,
            Err(TransferError::Incomplete { report }) => report.files,
            Err(error) => panic!("{error}"),
        };
        let kept = sim.server.data("/t/f7") == Some(b"old");
        assert_eq!(files, 30 - u64::from(kept));
        (sim.server.asked(PacketType::LSTAT), kept)
    };
    assert_eq!(asked(false, PutOptions::new()), (0, false));
    assert_eq!(asked(true, PutOptions::new()), (30, false));
    // Who wants nothing replaced has every name looked at.
    let never = PutOptions::new().overwrite(Overwrite::Never);
    assert_eq!(asked(false, never.clone()), (30, false));
    assert_eq!(asked(true, never), (30, true));
}

#[test]
fn handles_are_as_few_as_the_server_has_and_files_under_way_are_more() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..300 {
        fs::write(dir.path().join(format!("f{n}")), content(4096)).unwrap();
    }
    for handles in [0, 20] {
        let mut habits = Habits::default();
        habits.limits.open_handles = handles;
        let mut sim = Sim::new(habits, 1);
        sim.settle();
        let sftp = sim.sftp.clone();
        let options = PutOptions::new().recursive(true);
        assert_eq!(
            sim.run(sftp.put(dir.path(), "/t", options)).unwrap().files,
            300
        );
        match handles {
            0 => assert!(sim.server.open_peak > 20, "{}", sim.server.open_peak),
            _ => assert!(sim.server.open_peak <= 10, "{}", sim.server.open_peak),
        }
    }
}

#[test]
fn every_failed_write_fails_the_file_and_leaves_nothing() {
    for nth in 1..=64 {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), content(65 * 65_507)).unwrap();
        let fails = Some((PacketType::WRITE, nth, StatusCode::FAILURE));
        let mut sim = Sim::new(
            Habits {
                fails,
                shuffle: nth % 2 == 0,
                ..Habits::default()
            },
            9,
        );
        sim.settle();
        sim.server.file("/old", b"old".to_vec());
        let sftp = sim.sftp.clone();
        let error = sim
            .run(sftp.put(dir.path().join("a"), "/old", PutOptions::new()))
            .unwrap_err();
        assert!(matches!(error, TransferError::Refused { .. }), "{error:?}");
        assert_eq!(sim.server.data("/old"), Some(&b"old"[..]));
        assert_eq!(sim.server.paths(), ["/", "/old"], "{nth}");
        sim.settle();
        assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn every_other_failure_is_told_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let failures = [
        (
            PacketType::OPEN,
            StatusCode::PERMISSION_DENIED,
            Kind::Permission,
        ),
        (PacketType::CLOSE, StatusCode::FAILURE, Kind::Peer),
        (
            PacketType::EXTENDED,
            StatusCode::NO_SPACE_ON_FILESYSTEM,
            Kind::NoSpace,
        ),
        (PacketType::WRITE, StatusCode::QUOTA_EXCEEDED, Kind::NoSpace),
    ];
    for (packet_type, status, kind) in failures {
        // The first extended request asks for the limits.
        let nth = if packet_type == PacketType::EXTENDED {
            2
        } else {
            1
        };
        let fails = Some((packet_type, nth, status));
        let mut sim = Sim::new(
            Habits {
                fails,
                ..Habits::default()
            },
            1,
        );
        let sftp = sim.sftp.clone();
        let error = sim
            .run(sftp.put(dir.path().join("a"), "/a", PutOptions::new()))
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{packet_type}");
        sim.settle();
        assert_eq!(sim.server.paths(), ["/"], "{packet_type}");
    }
}

#[test]
fn what_is_there_is_not_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.file("/old", b"old".to_vec());
    let never = PutOptions::new().overwrite(Overwrite::Never);
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.put(dir.path().join("a"), "/old", never.clone()))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
    assert_eq!(
        sim.server.asked(PacketType::OPEN),
        0,
        "found out before anything was sent"
    );
    sim.run(sftp.put(dir.path().join("a"), "/new", never))
        .unwrap();
    assert_eq!(sim.server.paths(), ["/", "/new", "/old"]);
}

#[test]
fn a_server_that_cannot_replace_is_helped_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let habits = Habits {
        extensions: Vec::new(),
        ..Habits::default()
    };
    let mut sim = Sim::new(habits.clone(), 1);
    sim.server.file("/old", b"old".to_vec());
    let sftp = sim.sftp.clone();
    let report = sim
        .run(sftp.put(dir.path().join("a"), "/old", PutOptions::new()))
        .unwrap();
    assert_eq!(report.remarks[0].what, Remarkable::NotReplacedAtomically);
    let report = sim
        .run(sftp.put(dir.path().join("a"), "/new", PutOptions::new()))
        .unwrap();
    assert!(report.remarks.is_empty());

    // The second rename fails: the old file is gone, so what was sent must stay.
    let fails = Some((PacketType::RENAME, 2, StatusCode::PERMISSION_DENIED));
    let mut sim = Sim::new(Habits { fails, ..habits }, 1);
    sim.server.file("/old", b"old".to_vec());
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.put(dir.path().join("a"), "/old", PutOptions::new()))
        .unwrap_err();
    let TransferError::LeftAs { temporary, .. } = &error else {
        panic!("{error:?}")
    };
    sim.settle();
    assert_eq!(
        sim.server.data(temporary.to_str().unwrap()),
        Some(&content(1000)[..])
    );
}

#[test]
fn the_old_file_is_not_removed_for_a_rename_that_would_fail_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    for status in [
        StatusCode::PERMISSION_DENIED,
        StatusCode::OP_UNSUPPORTED,
        StatusCode::NO_SUCH_FILE,
    ] {
        let habits = Habits {
            extensions: Vec::new(),
            fails: Some((PacketType::RENAME, 1, status)),
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, 1);
        sim.server.file("/old", b"old".to_vec());
        let sftp = sim.sftp.clone();
        sim.run(sftp.put(dir.path().join("a"), "/old", PutOptions::new()))
            .unwrap_err();
        sim.settle();
        assert_eq!(sim.server.paths(), ["/", "/old"], "{status:?}");
        assert_eq!(sim.server.data("/old"), Some(&b"old"[..]), "{status:?}");
    }
}

#[test]
fn durability_is_asked_for_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let durable = PutOptions::new().durability(Durability::File);
    let mut sim = Sim::new(Habits::default(), 1);
    let sftp = sim.sftp.clone();
    sim.run(sftp.put(dir.path().join("a"), "/a", durable.clone()))
        .unwrap();
    assert_eq!(
        sim.server.asked(PacketType::EXTENDED),
        3,
        "limits, fsync, rename"
    );
    let mut sim = Sim::new(
        Habits {
            extensions: Vec::new(),
            ..Habits::default()
        },
        1,
    );
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.put(dir.path().join("a"), "/a", durable))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    sim.settle();
    assert_eq!(sim.server.paths(), ["/"]);
}

#[test]
fn an_upload_dropped_at_any_turn_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..30 {
        fs::write(dir.path().join(format!("f{n}")), content(n * 20_000)).unwrap();
    }
    let mut finished = false;
    for turns in 0..400 {
        let mut sim = Sim::new(Habits::default(), 1);
        sim.packets_max = 3;
        let sftp = sim.sftp.clone();
        {
            let mut put = pin!(sftp.put(dir.path(), "/t", PutOptions::new().recursive(true)));
            assert!(poll(put.as_mut()).is_none());
            for _ in 0..turns {
                sim.turn();
            }
            finished = poll(put.as_mut()).is_some();
        }
        sim.settle();
        assert_eq!(sim.server.handles(), 0, "{turns}");
        let left: Vec<_> = sim
            .server
            .paths()
            .into_iter()
            .filter(|path| path.contains(".ketch-"))
            .collect();
        assert_eq!(left, [""; 0], "{turns}");
        if finished {
            break;
        }
    }
    assert!(finished, "the last one was whole");
}

#[test]
fn a_lost_answer_to_the_last_rename_is_not_called_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let silent_from = Some((PacketType::EXTENDED, 2));
    let mut sim = Sim::new(
        Habits {
            silent_from,
            ..Habits::default()
        },
        1,
    );
    let sftp = sim.sftp.clone();
    let mut put = pin!(sftp.put(dir.path().join("a"), "/a", PutOptions::new()));
    assert!(poll(put.as_mut()).is_none());
    sim.settle();
    sim.requests.on_closed(Arc::new(io::Error::other("cut")));
    let error = poll(put).expect("told").unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (Kind::Network, Outcome::Unknown)
    );
}

#[test]
fn a_stalled_server_ends_the_upload() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1_000_000)).unwrap();
    let silent_from = Some((PacketType::WRITE, 3));
    let mut sim = Sim::new(
        Habits {
            silent_from,
            ..Habits::default()
        },
        1,
    );
    let sftp = sim.sftp.clone();
    let mut put = pin!(sftp.put(dir.path().join("a"), "/a", PutOptions::new()));
    assert!(poll(put.as_mut()).is_none());
    sim.settle();
    sim.pass_time(STALL_TIMEOUT);
    sim.settle();
    let error = poll(put).expect("told").unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (Kind::Timeout, Outcome::NotDone)
    );
    assert_eq!(sim.server.paths(), ["/"], "what had been sent is removed");
}

#[test]
fn an_upload_to_a_server_that_answers_nothing_more_ends_at_the_first_stall() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1_000_000)).unwrap();
    let habits = Habits {
        silent_from: Some((PacketType::WRITE, 3)),
        silent_for_good: true,
        ..Habits::default()
    };
    let mut sim = Sim::new(habits, 1);
    let sftp = sim.sftp.clone();
    let mut put = pin!(sftp.put(dir.path().join("a"), "/a", PutOptions::new()));
    assert!(poll(put.as_mut()).is_none());
    sim.settle();
    sim.pass_time(STALL_TIMEOUT);
    sim.settle();
    // That what was begun is removed is asked for, and not waited for.
    let error = poll(put).expect("told").unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (Kind::Timeout, Outcome::NotDone)
    );
    assert!(sim.server.log.contains(&PacketType::REMOVE));
    assert!(!sim.link.closed);
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(10)).unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    let sftp = sim.sftp.clone();
    let mut put = |local: &str, remote: &str, options: PutOptions| {
        sim.run(sftp.put(dir.path().join(local), remote, options))
            .map_err(|error| error.kind())
    };
    assert_eq!(
        put("none", "/x", PutOptions::new()).unwrap_err(),
        Kind::NotFound
    );
    assert_eq!(put(".", "/x", PutOptions::new()).unwrap_err(), Kind::Local);
    assert_eq!(put("a", "/", PutOptions::new()).unwrap_err(), Kind::Local);
    assert_eq!(
        put("a", "/no/x", PutOptions::new().recursive(true))
            .unwrap()
            .files,
        1
    );
    assert_eq!(
        put("none", "/x", PutOptions::new().recursive(true)).unwrap_err(),
        Kind::NotFound
    );
}

/// Gives what it has, in pieces of its own.
struct Memory {
    data: Vec<u8>,
    says: Option<u64>,
    calls: AtomicUsize,
}

impl Source for Memory {
    fn size(&self) -> Option<u64> {
        self.says
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(offset).unwrap().min(self.data.len());
        let len = (self.data.len() - at).min(buf.len()).min(100_003);
        buf[..len].copy_from_slice(&self.data[at..at + len]);
        Ok(len)
    }
}

#[test]
fn an_embedder_s_source_is_sent_whole_and_read_on_threads_only() {
    for says in [None, Some(3_000_000), Some(10), Some(0)] {
        let source = Arc::new(Memory {
            data: content(3_000_000),
            says,
            calls: AtomicUsize::new(0),
        });
        let mut sim = Sim::new(Habits::default(), 1);
        let sftp = sim.sftp.clone();
        {
            let mut put = pin!(sftp.put_from(Arc::clone(&source) as _, "/a", PutOptions::new()));
            assert!(poll(put.as_mut()).is_none());
            sim.slow_threads = true;
            sim.settle();
            assert_eq!(source.calls.load(Ordering::Relaxed), 0);
            sim.slow_threads = false;
            assert_eq!(sim.run(put).unwrap().bytes, 3_000_000);
        }
        assert!(sim.server.data("/a") == Some(&content(3_000_000)[..]));
    }
}

/// Servers may wait until a part of their window was used before they open it again.
#[test]
fn an_upload_ends_though_a_server_keeps_a_part_of_its_window_back() {
    let window = 24_576; // dropbear's
    for adjusts_at in [window / 3, window / 2, window / 2 + 1] {
        for len in [1000, 12_287, 12_288, 24_000, 24_576, 400_000] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a"), content(len)).unwrap();
            let mut sim = Sim::new(Habits::default(), 1);
            sim.settle();
            sim.link.window_max = window;
            sim.link.window = window - 100; // what introduced the client
            sim.link.adjusts_at = adjusts_at;
            let sftp = sim.sftp.clone();
            let options = PutOptions::new();
            let report = sim.run(sftp.put(dir.path().join("a"), "/a", options));
            assert_eq!(report.unwrap().bytes, len as u64);
            assert!(sim.server.data("/a") == Some(&content(len)[..]));
        }
    }
}
