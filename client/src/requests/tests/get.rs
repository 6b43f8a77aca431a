//! Downloads against a simulated server.

use std::{
    fs, io,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex},
};

use ketch_protocol::{PacketType, StatusCode};
use proptest::prelude::*;

use super::{
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{
    Durability, Failure, FileType, Filter, GetOptions, Kind, Overwrite, Progress, PutOptions, Sink,
    TransferError,
    requests::{Settings, stall::STALL_TIMEOUT},
};

/// Bytes that differ from their neighbours, and from those a packet further on.
fn content(len: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..=250).collect();
    let mut content = period.repeat(len / period.len() + 1);
    content.truncate(len);
    content
}

/// What is in a directory, with what is below it.
fn names(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(
                self::names(&entry.path())
                    .into_iter()
                    .map(|below| format!("{name}/{below}")),
            );
        }
        names.push(name);
    }
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_file_arrives_whole_whatever_the_server_s_habits(
        len in 0..1_500_000_usize, read_max in 1000..300_000_u32, short in any::<bool>(),
        shuffle in any::<bool>(), tells_size in any::<bool>(), big in any::<bool>(),
        seed in any::<u64>(), cut_max in 1..300_000_usize,
    ) {
        let len = if big { len } else { len / 100 };
        let dir = tempfile::tempdir().unwrap();
        let mut habits = Habits { read_max, short, shuffle, tells_size, ..Habits::default() };
        if seed % 3 == 0 {
            habits.extensions.clear();
        }
        let mut sim = Sim::new(habits, seed);
        sim.settle(); // the greeting does not take part in the shuffling
        sim.cut_max = cut_max.max(len / 200);
        sim.server.file("/a", content(len));
        let sftp = sim.sftp.clone();
        let report = sim.run(sftp.get("/a", dir.path().join("b"), GetOptions::new())).unwrap();
        prop_assert_eq!((report.files, report.bytes), (1, len as u64));
        prop_assert!(fs::read(dir.path().join("b")).unwrap() == content(len));
        prop_assert_eq!(names(dir.path()), ["b"]);
        sim.settle();
        prop_assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn a_file_that_was_begun_before_the_server_named_its_limits_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        early: true,
        ..Settings::default()
    };
    let mut sim = Sim::with_settings(Habits::default(), 1, settings);
    sim.server.file("/a", content(8_000_000));
    let local = dir.path().join("b");
    let sftp = sim.sftp.clone();
    sim.run(sftp.get("/a", &local, GetOptions::new())).unwrap();
    assert_eq!(sim.server.read_peak, 65_523);
    assert!(fs::read(&local).unwrap() == content(8_000_000));
}

fn tree(sim: &mut Sim) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    sim.server.dir("/t");
    for a in 0..4 {
        sim.server.dir(&format!("/t/d{a}"));
        sim.server.dir(&format!("/t/d{a}/empty"));
        for n in 0..60 {
            let path = format!("d{a}/f{n}");
            let data = content(n * 700);
            sim.server.file(&format!("/t/{path}"), data.clone());
            files.push((path, data));
        }
    }
    files
}

#[test]
fn a_tree_arrives_whole_with_its_times_and_what_was_left_out_is_said() {
    for seed in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let shuffle = seed % 2 == 0;
        let mut sim = Sim::new(
            Habits {
                shuffle,
                short: true,
                ..Habits::default()
            },
            seed,
        );
        sim.settle();
        let files = tree(&mut sim);
        sim.server.nodes.insert(b"/t/link".to_vec(), Node::Link);
        let progress = Arc::new(Progress::new());
        let options = GetOptions::new()
            .recursive(true)
            .preserve_times(true)
            .progress(Arc::clone(&progress));
        let sftp = sim.sftp.clone();
        let local = dir.path().join("new");
        let report = sim.run(sftp.get("/t", &local, options)).unwrap();
        assert_eq!(report.files, 240);
        assert_eq!(report.directories, 9);
        assert_eq!(report.skipped_count, 1);
        assert_eq!(report.skipped[0].file_type, FileType::Symlink);
        for (path, data) in &files {
            assert!(
                fs::read(local.join(path)).unwrap() == *data,
                "{path}, seed {seed}"
            );
            let modified = fs::metadata(local.join(path)).unwrap().modified().unwrap();
            assert_eq!(crate::platform::seconds(modified), 1_000_000_001);
        }
        assert!(local.join("d1/empty").is_dir());
        assert_eq!(names(&local).len(), 240 + 8);
        let bytes: usize = files.iter().map(|(_, data)| data.len()).sum();
        assert_eq!((progress.files_done(), progress.files_total()), (240, 240));
        assert_eq!(
            (progress.bytes_done(), progress.bytes_total()),
            (bytes as u64, bytes as u64)
        );
        sim.settle();
        assert_eq!(sim.server.handles(), 0);
        assert!(
            sim.server.open_peak > 16,
            "opens overlap: {}",
            sim.server.open_peak
        );
        assert!(
            sim.server.open_peak <= 500,
            "half of what the server allows"
        );
    }
}

#[test]
fn evil_names_are_refused_counted_and_reported_and_nothing_is_written_elsewhere() {
    let outside = tempfile::tempdir().unwrap();
    let dir = outside.path().join("a/b");
    fs::create_dir_all(&dir).unwrap();
    let evil: Vec<Vec<u8>> = [
        &b"../x"[..],
        b"/tmp/ketch-evil",
        b"..\\x",
        b"a/b",
        b"",
        b"a\0b",
        b"x/",
        b"..//..",
        b"C:\\x",
        b"./x",
        &[b'n'; 300],
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    let count = evil.len() as u64;
    let mut sim = Sim::new(
        Habits {
            evil,
            ..Habits::default()
        },
        1,
    );
    sim.server.dir("/t");
    sim.server.file("/t/good", content(10));
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get("/t", &dir, GetOptions::new().recursive(true)))
        .unwrap_err();
    let TransferError::Incomplete { report } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((report.files, report.failed_count), (1, count));
    assert!(
        report
            .failed
            .iter()
            .all(|failed| matches!(failed.error, TransferError::Name { .. }))
    );
    assert_eq!(error.kind(), Kind::Peer);
    assert_eq!(names(outside.path()), ["a", "a/b", "a/b/good"]);
}

#[cfg(unix)]
#[test]
fn no_link_below_the_target_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("d0")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("f"), dir.path().join("plain")).unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    tree(&mut sim);
    sim.server.file("/t/plain", content(5));
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap_err();
    let TransferError::Incomplete { report } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(report.files, 181, "all but what is below d0");
    assert_eq!(names(outside.path()), [""; 0]);
    assert!(
        !fs::symlink_metadata(dir.path().join("plain"))
            .unwrap()
            .is_symlink(),
        "replaced"
    );
}

#[test]
fn an_endless_directory_ends_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(
        Habits {
            endless: true,
            ..Habits::default()
        },
        1,
    );
    sim.server.dir("/t");
    sim.packets_max = 1000;
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap_err();
    assert!(matches!(error, TransferError::TooMuch { .. }), "{error:?}");
}

#[test]
fn every_failed_read_fails_the_file_and_leaves_nothing() {
    for nth in 1..40 {
        let dir = tempfile::tempdir().unwrap();
        let fails = Some((PacketType::READ, nth, StatusCode::FAILURE));
        let mut sim = Sim::new(
            Habits {
                fails,
                shuffle: nth % 2 == 0,
                ..Habits::default()
            },
            1,
        );
        sim.settle();
        sim.server.file("/a", content(40 * 65_523));
        let sftp = sim.sftp.clone();
        let error = sim
            .run(sftp.get("/a", dir.path().join("a"), GetOptions::new()))
            .unwrap_err();
        assert!(matches!(error, TransferError::Refused { .. }), "{error:?}");
        assert_eq!(names(dir.path()), [""; 0], "{nth}");
        sim.settle();
        assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn one_file_that_fails_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Some((PacketType::OPEN, 17, StatusCode::PERMISSION_DENIED));
    let mut sim = Sim::new(
        Habits {
            fails,
            ..Habits::default()
        },
        1,
    );
    tree(&mut sim);
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Permission);
    let TransferError::Incomplete { report } = error else {
        panic!()
    };
    assert_eq!((report.files, report.failed_count), (239, 1));
}

#[test]
fn missing_files_directories_and_local_directories_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.dir("/d");
    sim.server.file("/a", content(10));
    let sftp = sim.sftp.clone();
    let mut get = |remote: &str, local: &str, options: GetOptions| {
        sim.run(sftp.get(remote, dir.path().join(local), options))
            .map_err(|error| error.kind())
    };
    assert_eq!(
        get("/none", "x", GetOptions::new()).unwrap_err(),
        Kind::NotFound
    );
    assert_eq!(
        get("/none", "x", GetOptions::new().recursive(true)).unwrap_err(),
        Kind::NotFound
    );
    assert_eq!(get("/d", "x", GetOptions::new()).unwrap_err(), Kind::Local);
    assert_eq!(
        get("/a", "no/x", GetOptions::new()).unwrap_err(),
        Kind::NotFound
    );
    assert_eq!(
        get("/a", "one", GetOptions::new().recursive(true))
            .unwrap()
            .files,
        1
    );
    let never = GetOptions::new().overwrite(Overwrite::Never);
    assert_eq!(get("/a", "one", never).unwrap_err(), Kind::Exists);
    let durable = GetOptions::new().durability(Durability::FileAndDirectory);
    assert_eq!(get("/a", "one", durable).unwrap().bytes, 10);
    assert_eq!(names(dir.path()), ["one"]);
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
}

#[test]
fn a_download_dropped_at_any_turn_leaves_nothing() {
    for turns in (0..60).step_by(2) {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), 1);
        sim.packets_max = 3;
        tree(&mut sim);
        sim.server.file("/t/big", content(2_000_000));
        let sftp = sim.sftp.clone();
        {
            let mut get = pin!(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)));
            assert!(poll(get.as_mut()).is_none());
            for _ in 0..turns {
                sim.turn();
            }
            assert!(poll(get.as_mut()).is_none(), "{turns}");
        }
        sim.settle();
        assert_eq!(sim.server.handles(), 0, "{turns}");
        let left: Vec<_> = names(dir.path())
            .into_iter()
            .filter(|name| name.contains(".ketch-"))
            .collect();
        assert_eq!(left, [""; 0], "{turns}");
    }
}

#[test]
fn a_lost_connection_leaves_no_part() {
    for turns in (0..40).step_by(2) {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), 1);
        sim.packets_max = 2;
        sim.server.file("/a", content(8_000_000));
        let sftp = sim.sftp.clone();
        let mut get = pin!(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
        assert!(poll(get.as_mut()).is_none());
        for _ in 0..turns {
            sim.turn();
        }
        sim.requests.on_closed(Arc::new(io::Error::other("cut")));
        sim.run_threads();
        let error = poll(get).expect("told").unwrap_err();
        assert_eq!(error.kind(), Kind::Network);
        assert_eq!(names(dir.path()), [""; 0], "{turns}");
    }
}

#[test]
fn a_stalled_server_ends_the_download_and_leaves_no_part() {
    let dir = tempfile::tempdir().unwrap();
    let habits = Habits {
        silent_from: Some((PacketType::READ, 5)),
        ..Habits::default()
    };
    let mut sim = Sim::new(habits, 1);
    sim.server.file("/a", content(8_000_000));
    let sftp = sim.sftp.clone();
    let mut get = pin!(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
    assert!(poll(get.as_mut()).is_none());
    sim.settle();
    assert!(poll(get.as_mut()).is_none());
    sim.pass_time(STALL_TIMEOUT);
    sim.settle();
    assert_eq!(poll(get).expect("told").unwrap_err().kind(), Kind::Timeout);
    assert_eq!(names(dir.path()), [""; 0]);
    assert!(!sim.link.closed);
}

#[test]
fn what_somebody_else_writes_is_left_alone_and_what_a_killed_run_left_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    // A small one would have no name before it is whole.
    sim.server.file("/a", content(400_000));
    let sftp = sim.sftp.clone();
    // Begin, and look what the part is called; then pretend it was left by another process.
    let part = {
        let mut get = pin!(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
        assert!(poll(get.as_mut()).is_none());
        while names(dir.path()).is_empty() {
            sim.turn();
        }
        names(dir.path()).remove(0)
    };
    sim.settle();
    fs::write(dir.path().join(&part), b"theirs").unwrap();
    let writer = fs::File::open(dir.path().join(&part)).unwrap();
    writer.lock().unwrap();
    sim.run(sftp.get("/a", dir.path().join("a"), GetOptions::new()))
        .unwrap();
    assert_eq!(fs::read(dir.path().join(&part)).unwrap(), b"theirs");
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), content(400_000));
    // It was killed.
    drop(writer);
    sim.run(sftp.get("/a", dir.path().join("a"), GetOptions::new()))
        .unwrap();
    assert_eq!(names(dir.path()), ["a"]);
}

/// Keeps what it is given.
#[derive(Default)]
struct Memory {
    data: Mutex<Vec<u8>>,
    finished: Mutex<Option<u64>>,
    aborted: Mutex<bool>,
    fails: bool,
}

impl Sink for Memory {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut data = self.data.lock().unwrap();
        let at = usize::try_from(offset).unwrap();
        let len = data.len().max(at + bytes.len());
        data.resize(len, 0);
        data[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self, size: u64) -> io::Result<()> {
        *self.finished.lock().unwrap() = Some(size);
        Ok(())
    }

    fn abort(&self) {
        *self.aborted.lock().unwrap() = true;
    }
}

#[test]
fn a_sink_that_is_slow_bounds_what_is_held_and_stops_nobody() {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.file("/a", content(20_000_000));
    sim.server.file("/small", content(10));
    let sink = Arc::new(Memory::default());
    let sftp = sim.sftp.clone();
    let mut get = pin!(sftp.get_to("/a", Arc::clone(&sink) as _, GetOptions::new()));
    assert!(poll(get.as_mut()).is_none());
    sim.slow_threads = true;
    for _ in 0..500 {
        sim.turn();
    }
    let held = sim.requests.inner.core.disk.held();
    assert!(held > 1_000_000, "it goes on until the bound: {held}");
    assert!(held <= crate::transfer::disk::HELD_MAX, "{held}");
    // Nothing is written, and others are served all the same.
    assert!(sink.data.lock().unwrap().is_empty());
    assert_eq!(sim.run(sftp.stat("/small")).unwrap().size, Some(10));
    sim.slow_threads = false;
    let report = sim.run(get).unwrap();
    assert_eq!(report.bytes, 20_000_000);
    assert_eq!(*sink.finished.lock().unwrap(), Some(20_000_000));
    assert!(*sink.data.lock().unwrap() == content(20_000_000));
}

#[test]
fn a_sink_that_fails_ends_the_download() {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.file("/a", content(20_000_000));
    let sink = Arc::new(Memory {
        fails: true,
        ..Memory::default()
    });
    let sftp = sim.sftp.clone();
    let error = sim
        .run(sftp.get_to("/a", Arc::clone(&sink) as _, GetOptions::new()))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NoSpace);
    assert!(*sink.aborted.lock().unwrap());
    assert_eq!(*sink.finished.lock().unwrap(), None);
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
}

#[test]
fn a_filter_says_what_is_taken_of_a_tree() {
    let filter = Filter::new()
        .exclude("/t/no/")
        .and_then(|filter| filter.exclude("/no/"))
        .and_then(|filter| filter.include("*.txt"))
        .and_then(|filter| filter.include("*/"))
        .and_then(|filter| filter.exclude("*"))
        .unwrap();
    let mut sim = Sim::new(Habits::default(), 3);
    for dir in ["/t", "/t/no", "/t/a", "/t/a/no"] {
        sim.server.dir(dir);
    }
    for file in [
        "/t/x.txt",
        "/t/y.bin",
        "/t/no/x.txt",
        "/t/a/x.txt",
        "/t/a/no/x.txt",
    ] {
        sim.server.file(file, content(10));
    }
    let dir = tempfile::tempdir().unwrap();
    let down = dir.path().join("down");
    let sftp = sim.sftp.clone();
    let options = GetOptions::new().recursive(true).select(filter.clone());
    let report = sim.run(sftp.get("/t", &down, options)).unwrap();
    assert_eq!((report.files, report.excluded), (3, 2));
    assert_eq!(
        names(&down),
        ["a", "a/no", "a/no/x.txt", "a/x.txt", "x.txt"]
    );

    fs::create_dir(down.join("no")).unwrap();
    fs::write(down.join("no/x.txt"), "no").unwrap();
    fs::write(down.join("y.bin"), "no").unwrap();
    let options = PutOptions::new().recursive(true).select(filter);
    let report = sim.run(sftp.put(&down, "/up", options)).unwrap();
    assert_eq!((report.files, report.excluded), (3, 2));
    let paths = sim.server.paths();
    let up: Vec<_> = paths
        .iter()
        .filter(|path| path.starts_with("/up"))
        .collect();
    assert_eq!(
        up,
        [
            "/up",
            "/up/a",
            "/up/a/no",
            "/up/a/no/x.txt",
            "/up/a/x.txt",
            "/up/x.txt"
        ]
    );
}
