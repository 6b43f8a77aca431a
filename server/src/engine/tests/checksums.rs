//! `check-file-handle` and `check-file-name`, through the whole engine.

use ketch_protocol::{
    CHECK_FILE, CheckFileHandle, CheckFileName, CheckFileReply, Close, Extension, OpenFlags,
    Opendir, Reader, Rename, StatusCode, Write, Writer,
};
use ring::digest;
use std::sync::atomic::Ordering;

use super::{DENIED, FAILURE, MOODS, NO_SUCH_FILE, OK, flags, open, open_request, path};
use crate::engine::LONG_JOBS_MAX;
use crate::engine::simulation::{Got, Mood, Simulation, policy};
use crate::policy::{Access, Policy};

fn by_name(path: &str) -> CheckFileName<'_> {
    CheckFileName {
        path: path.as_bytes(),
        algorithms: b"sha256",
        offset: 0,
        len: 0,
        block_len: 0,
    }
}

fn by_handle(handle: &[u8]) -> CheckFileHandle<'_> {
    CheckFileHandle {
        handle,
        algorithms: b"sha256",
        offset: 0,
        len: 0,
        block_len: 0,
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn hash(got: &Got) -> (Vec<u8>, Vec<u8>) {
    let Got::Extended(data) = got else {
        panic!("{got:?}")
    };
    let reply = CheckFileReply::decode(Reader::new(data)).unwrap();
    (reply.algorithm.to_vec(), reply.hashes.to_vec())
}

#[test]
fn a_part_is_hashed_as_a_whole_or_in_blocks() {
    let content: Vec<u8> = (0..1_300_000_u32).map(|n| n.to_be_bytes()[2]).collect();
    for mood in MOODS {
        let mut simulation = Simulation::new(mood, 1);
        simulation.files.put(&path("/f"), content.clone()).unwrap();
        simulation.files.put(&path("/empty"), Vec::new()).unwrap();
        let handle = open(&mut simulation, "/f");
        let whole = (b"sha256".to_vec(), sha256(&content));
        let got = simulation.ask(Extension::CheckFileName(by_name("/f")));
        assert_eq!(hash(&got), whole);
        let got = simulation.ask(Extension::CheckFileHandle(by_handle(&handle)));
        assert_eq!(hash(&got), whole);
        let got = simulation.ask(Extension::CheckFileName(by_name("/empty")));
        assert_eq!(hash(&got).1, sha256(b""));
        let part = CheckFileHandle {
            algorithms: b"crc32,sha1,sha256",
            offset: 100,
            len: 1000,
            block_len: 300,
            ..by_handle(&handle)
        };
        let got = simulation.ask(Extension::CheckFileHandle(part));
        let blocks: Vec<u8> = content[100..1100]
            .chunks(300)
            .flat_map(|block| {
                let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, block);
                sha1.as_ref().to_vec()
            })
            .collect();
        assert_eq!(hash(&got), (b"sha1".to_vec(), blocks));
        simulation.assert_idle();
    }
}

#[test]
fn who_asks_by_the_old_name_is_answered_by_it() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/f"), b"abc".to_vec()).unwrap();
    let handle = open(&mut simulation, "/f");
    let mut data = Vec::new();
    by_handle(&handle).encode(&mut Writer::new(&mut data));
    let got = simulation.ask(Extension::Unknown {
        name: CHECK_FILE,
        data: &data,
    });
    let Got::Extended(reply) = &got else {
        panic!("{got:?}")
    };
    assert!(reply.starts_with(b"\0\0\0\x0acheck-file\0\0\0\x06sha256"));
    assert_eq!(hash(&got).1, sha256(b"abc"));
}

#[test]
fn only_what_may_be_read_is_hashed() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation
        .files
        .put(&path("/d/f"), b"abc".to_vec())
        .unwrap();
    let write_only = flags(&[OpenFlags::WRITE]);
    let Got::Handle(handle) = simulation.ask(open_request("/d/f", write_only)) else {
        panic!()
    };
    let ask = |simulation: &mut Simulation, handle: &[u8]| {
        simulation.ask(Extension::CheckFileHandle(by_handle(handle)))
    };
    assert_eq!(ask(&mut simulation, &handle), FAILURE);
    assert_eq!(ask(&mut simulation, b"made up"), FAILURE);
    let Got::Handle(directory) = simulation.ask(Opendir { path: b"/d" }) else {
        panic!()
    };
    assert_eq!(ask(&mut simulation, &directory), FAILURE);
    for (path, refused) in [("/d", FAILURE), ("/none", NO_SUCH_FILE)] {
        assert_eq!(
            simulation.ask(Extension::CheckFileName(by_name(path))),
            refused
        );
    }
    for check in [
        CheckFileName {
            algorithms: b"md5",
            ..by_name("/d/f")
        },
        CheckFileName {
            block_len: 255,
            ..by_name("/d/f")
        },
        CheckFileName {
            offset: u64::MAX,
            len: 2,
            ..by_name("/d/f")
        },
    ] {
        assert_eq!(simulation.ask(Extension::CheckFileName(check)), FAILURE);
    }
    simulation.assert_idle();

    let only_read = Policy {
        access: Access::ReadOnly,
        ..policy()
    };
    let mut simulation = Simulation::with(Mood::Ready, 1, only_read, u64::MAX);
    simulation.files.put(&path("/f"), b"abc".to_vec()).unwrap();
    let got = simulation.ask(Extension::CheckFileName(by_name("/f")));
    assert_eq!(hash(&got).1, sha256(b"abc"), "who may read may hash");
    assert_eq!(simulation.ask(open_request("/f", write_only)), DENIED);
}

#[test]
fn a_checksum_sees_the_writes_before_it_and_not_those_behind_it() {
    for mood in MOODS {
        for seed in 0..40 {
            let mut simulation = Simulation::new(mood, seed);
            let handle = open(&mut simulation, "/f");
            let mut asked = Vec::new();
            for round in 0..6_u8 {
                simulation.request(Write {
                    handle: &handle,
                    offset: 0,
                    data: &[round; 2000],
                });
                asked.push(simulation.request(Extension::CheckFileHandle(by_handle(&handle))));
            }
            simulation.jumble(700);
            for (round, id) in (0..6).zip(asked) {
                let got = simulation.take(id);
                assert_eq!(hash(&got).1, sha256(&[round; 2000]), "{mood:?} {seed}");
            }
            simulation.assert_idle();
        }
    }
}

#[test]
fn a_close_gives_up_the_checksums_of_its_handle_also_those_that_wait() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    for file in ["/f", "/g"] {
        simulation.files.put(&path(file), vec![1; 5000]).unwrap();
    }
    let handle = open(&mut simulation, "/f");
    let other = open(&mut simulation, "/g");
    let asked: Vec<_> = (0..LONG_JOBS_MAX + 3)
        .map(|_| simulation.request(Extension::CheckFileHandle(by_handle(&handle))))
        .collect();
    let kept = simulation.request(Extension::CheckFileHandle(by_handle(&other)));
    let close = simulation.request(Close { handle: &handle });
    simulation.hang();
    // Those that were not begun are answered at once; nothing has run yet.
    let answered = asked.iter().filter(|&&id| simulation.has(id)).count();
    assert_eq!(answered, 3);
    simulation.settle();
    for id in asked {
        assert_eq!(simulation.take(id), FAILURE);
    }
    assert_eq!(simulation.take(close), OK);
    assert_eq!(hash(&simulation.take(kept)).1, sha256(&[1; 5000]));
    simulation.assert_idle();
}

#[test]
fn a_checksum_by_name_holds_up_no_rename() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/f"), vec![1; 5000]).unwrap();
    let sum = simulation.request(Extension::CheckFileName(by_name("/f")));
    let rename = simulation.request(Rename {
        from: b"/f",
        to: b"/g",
    });
    simulation.hang();
    assert_eq!(simulation.take(rename), Got::Status(StatusCode::OK));
    assert!(!simulation.has(sum));
    simulation.settle();
    assert_eq!(hash(&simulation.take(sum)).1, sha256(&[1; 5000]));
}

#[test]
fn a_file_that_is_hashed_by_name_counts_as_open() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/f"), vec![1; 5000]).unwrap();
    let sum = simulation.request(Extension::CheckFileName(by_name("/f")));
    simulation.hang();
    assert_eq!(simulation.budget.open(), 1);
    simulation.settle();
    simulation.take(sum);
    assert_eq!(simulation.budget.open(), 0);
    assert_eq!(
        simulation.ask(Extension::CheckFileName(by_name("/none"))),
        NO_SUCH_FILE
    );
    assert_eq!(simulation.budget.open(), 0);
}

#[test]
fn a_session_that_ends_stops_its_checksums() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/f"), vec![1; 5 << 20]).unwrap();
    simulation.request(Extension::CheckFileName(by_name("/f")));
    simulation.hang();
    let Simulation { host, engine, .. } = simulation;
    drop(engine);
    let hashed = host.steps.load(Ordering::Relaxed);
    host.run_last();
    assert_eq!(
        host.steps.load(Ordering::Relaxed),
        hashed,
        "not one block was hashed"
    );
}
