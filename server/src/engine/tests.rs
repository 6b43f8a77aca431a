//! What a client sees, through the whole engine.

mod arrivals;
mod checksums;
mod observed;
mod rights;
mod script;
mod slow;
mod splits;
mod watching;

use ketch_protocol::{
    Attrs, Close, CopyData, Extension, Fsetstat, Fstat, Fsync, Hardlink, HomeDirectory, Init,
    Lsetstat, Mkdir, Open, OpenFlags, Opendir, Owner, Pairs, PosixRename, Read, Readdir, Reader,
    Readlink, Realpath, Remove, Rename, Rmdir, ServerLimits, Setstat, Stat, StatusCode, Symlink,
    SymlinkOrder, Write,
};
use proptest::prelude::*;

use super::simulation::{Got, Mood, Simulation, policy};
use super::{Broken, JOBS_LIMIT, LONG_JOBS_MAX};
use crate::handles::SESSION_HANDLES_MAX;
use crate::path::VPath;
use crate::policy::{Access, Policy};
use crate::session::REQUESTS_MAX;

const OK: Got = Got::Status(StatusCode::OK);
const EOF: Got = Got::Status(StatusCode::EOF);
const FAILURE: Got = Got::Status(StatusCode::FAILURE);
const DENIED: Got = Got::Status(StatusCode::PERMISSION_DENIED);
const NO_SUCH_FILE: Got = Got::Status(StatusCode::NO_SUCH_FILE);
const UNSUPPORTED: Got = Got::Status(StatusCode::OP_UNSUPPORTED);

fn path(named: &str) -> VPath {
    VPath::resolve(named.as_bytes()).unwrap()
}

fn flags(all: &[OpenFlags]) -> OpenFlags {
    all.iter().fold(OpenFlags(0), |all, flag| all | *flag)
}

fn open_request(path: &str, flags: OpenFlags) -> Open<'_> {
    Open {
        path: path.as_bytes(),
        flags,
        attrs: Attrs::NONE.into(),
    }
}

fn open(simulation: &mut Simulation, path: &str) -> Vec<u8> {
    let flags = flags(&[OpenFlags::READ, OpenFlags::WRITE, OpenFlags::CREATE]);
    match simulation.ask(open_request(path, flags)) {
        Got::Handle(handle) => handle,
        other => panic!("{other:?}"),
    }
}

const MOODS: [Mood; 3] = [Mood::Ready, Mood::Moody, Mood::Blocking];

#[test]
fn a_close_behind_writes_of_the_same_batch_waits_for_them() {
    for mood in MOODS {
        for seed in 0..40 {
            let mut simulation = Simulation::new(mood, seed);
            let handle = open(&mut simulation, "/f");
            let mut ids = Vec::new();
            for part in 0..8_u64 {
                let data = vec![u8::try_from(part).unwrap(); 1000];
                let write = Write {
                    handle: &handle,
                    offset: part * 1000,
                    data: &data,
                };
                ids.push(simulation.request(write));
            }
            ids.push(simulation.request(Close { handle: &handle }));
            let late = simulation.request(Read {
                handle: &handle,
                offset: 0,
                len: 1,
            });
            simulation.jumble(3000);
            for id in ids {
                assert_eq!(simulation.take(id), OK, "{mood:?} {seed}");
            }
            assert_eq!(
                simulation.take(late),
                FAILURE,
                "the handle is closed for what comes after"
            );
            let expected: Vec<u8> = (0..8).flat_map(|part| [part; 1000]).collect();
            assert_eq!(simulation.files.get(&path("/f")).unwrap(), expected);
            simulation.assert_idle();
            assert_eq!(simulation.budget.open(), 0);
        }
    }
}

#[test]
fn a_read_sees_the_writes_before_it_and_not_those_behind_it() {
    for mood in MOODS {
        for seed in 0..40 {
            let mut simulation = Simulation::new(mood, seed);
            let handle = open(&mut simulation, "/f");
            let mut reads = Vec::new();
            for round in 0..10_u8 {
                let data = [round; 100];
                simulation.request(Write {
                    handle: &handle,
                    offset: 0,
                    data: &data,
                });
                reads.push(simulation.request(Read {
                    handle: &handle,
                    offset: 0,
                    len: 100,
                }));
            }
            simulation.jumble(500);
            for (round, id) in (0..10).zip(reads) {
                assert_eq!(
                    simulation.take(id),
                    Got::Data(vec![round; 100]),
                    "{mood:?} {seed}"
                );
            }
            simulation.assert_idle();
        }
    }
}

#[test]
fn a_rename_behind_write_fsync_and_close_comes_last() {
    for mood in MOODS {
        for seed in 0..40 {
            let mut simulation = Simulation::new(mood, seed);
            let handle = open(&mut simulation, "/f.part");
            let rename = PosixRename {
                from: b"/f.part",
                to: b"/f",
            };
            let ids = [
                simulation.request(Write {
                    handle: &handle,
                    offset: 0,
                    data: &[7; 5000],
                }),
                simulation.request(Extension::Fsync(Fsync { handle: &handle })),
                simulation.request(Close { handle: &handle }),
                simulation.request(Extension::PosixRename(rename)),
            ];
            // Up to the moment of the rename the final name does not exist; from then on it is whole.
            let stat = simulation.request(Stat { path: b"/f" });
            simulation.jumble(2000);
            for id in ids {
                assert_eq!(simulation.take(id), OK, "{mood:?} {seed}");
            }
            assert_eq!(simulation.take(stat), Got::Size(5000));
        }
    }
}

#[test]
fn reads_beyond_the_clients_window_wait_and_everything_else_goes_on() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/f"), vec![5; 3 << 20]).unwrap();
    let handle = open(&mut simulation, "/f");
    // 64 times 32 KiB is exactly the window that OpenSSH's client offers, without room for heads.
    simulation.channel.window = 2 << 20;
    let reads: Vec<_> = (0..64)
        .map(|n| {
            simulation.request(Read {
                handle: &handle,
                offset: n * 32768,
                len: 32768,
            })
        })
        .collect();
    let end = simulation.request(Read {
        handle: &handle,
        offset: 3 << 20,
        len: 32768,
    });
    let stat = simulation.request(Stat { path: b"/f" });
    simulation.settle();
    assert!(simulation.has(reads[0]) && !simulation.has(reads[63]));
    assert!(
        simulation.has(stat),
        "a reply that arises while reads wait is not held back"
    );
    simulation.channel.window += 100_000;
    simulation.settle();
    assert_eq!(simulation.take(reads[63]), Got::Data(vec![5; 32768]));
    assert_eq!(simulation.take(end), EOF);
    simulation.assert_idle();
}

#[test]
fn a_client_that_reads_nothing_is_answered_within_bounds() {
    for mood in MOODS {
        let mut simulation = Simulation::new(mood, 3);
        simulation.files.put(&path("/f"), vec![5; 1 << 20]).unwrap();
        let handle = open(&mut simulation, "/f");
        simulation.channel.window = 0;
        let mut ids = Vec::new();
        for n in 0..20_000_u64 {
            ids.push(simulation.request(Read {
                handle: &handle,
                offset: n,
                len: 255 * 1024,
            }));
            ids.push(simulation.request(Stat { path: b"/f" }));
        }
        let bytes = simulation.fed;
        simulation.settle();
        let taken = simulation.fed - bytes;
        assert!(
            taken <= simulation.window + (512 * 1024),
            "{taken} bytes were taken"
        );
        let credit = simulation.fed - simulation.channel.credit;
        assert!(credit > 0, "what is not taken gets no new window");
        assert!(simulation.host.most_tasks.get() <= JOBS_LIMIT + LONG_JOBS_MAX);
        assert!(ids.iter().filter(|id| simulation.has(**id)).count() <= REQUESTS_MAX);
    }
}

#[test]
fn copied_writes_give_credit_only_when_they_are_written() {
    let mut simulation = Simulation::new(Mood::Blocking, 3);
    let handle = open(&mut simulation, "/f");
    let before = simulation.channel.credit;
    let id = simulation.request(Write {
        handle: &handle,
        offset: 0,
        data: &[1; 100_000],
    });
    while simulation.turn(usize::MAX) {}
    let given = simulation.channel.credit - before;
    assert!(
        given < 100,
        "{given} bytes of credit before anything was written"
    );
    simulation.settle();
    assert_eq!(simulation.take(id), OK);
    simulation.assert_idle();
}

#[test]
fn a_disk_that_turns_slow_is_left_to_threads_in_the_middle_of_a_turn() {
    let mut simulation = Simulation::new(Mood::Ready, 3);
    let handle = open(&mut simulation, "/f");
    // Each look at the clock: every call takes a second from now on.
    simulation.host.tick.set(std::time::Duration::from_secs(1));
    let ids: Vec<_> = (0..10_u64)
        .map(|n| {
            // Not adjacent: each is a call of its own.
            simulation.request(Write {
                handle: &handle,
                offset: n * 2000,
                data: &[1; 1000],
            })
        })
        .collect();
    let close = simulation.request(Close { handle: &handle });
    while simulation.turn(usize::MAX) {}
    assert!(
        simulation.host.most_tasks.get() > 0,
        "some were handed to a thread"
    );
    simulation.settle();
    for id in ids {
        assert_eq!(simulation.take(id), OK);
    }
    assert_eq!(simulation.take(close), OK);
    assert_eq!(simulation.files.get(&path("/f")).unwrap().len(), 19_000);
    simulation.assert_idle();
}

#[test]
fn a_write_that_finds_no_space_fails_and_the_session_goes_on() {
    for mood in MOODS {
        for seed in 0..20 {
            let mut simulation = Simulation::with(mood, seed, policy(), 10_000);
            let handle = open(&mut simulation, "/f");
            let fits = simulation.request(Write {
                handle: &handle,
                offset: 0,
                data: &[1; 9_000],
            });
            simulation.settle();
            let full = simulation.request(Write {
                handle: &handle,
                offset: 20_000,
                data: &[2; 5_000],
            });
            let close = simulation.request(Close { handle: &handle });
            simulation.jumble(1000);
            assert_eq!(simulation.take(fits), OK, "{mood:?} {seed}");
            assert_eq!(simulation.take(full), FAILURE, "{mood:?} {seed}");
            assert_eq!(simulation.take(close), OK);
            simulation.assert_idle();
        }
    }
}

#[test]
fn the_129th_handle_is_refused_and_closing_makes_room() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let handles: Vec<_> = (0..SESSION_HANDLES_MAX)
        .map(|_| open(&mut simulation, "/f"))
        .collect();
    let one_more = || open_request("/f", OpenFlags::READ);
    assert_eq!(simulation.ask(one_more()), FAILURE);
    assert_eq!(
        simulation.ask(Close {
            handle: &handles[5]
        }),
        OK
    );
    assert!(matches!(simulation.ask(one_more()), Got::Handle(_)));
    assert_eq!(
        simulation.ask(Close {
            handle: &handles[5]
        }),
        FAILURE
    );
    let budget = std::sync::Arc::clone(&simulation.budget);
    drop(simulation);
    assert_eq!(
        budget.open(),
        0,
        "what a client left open is closed with its session"
    );
}

#[test]
fn a_failed_open_leaves_no_handle() {
    for mood in MOODS {
        let mut simulation = Simulation::new(mood, 1);
        for _ in 0..2 * SESSION_HANDLES_MAX {
            assert_eq!(
                simulation.ask(open_request("/none", OpenFlags::READ)),
                NO_SUCH_FILE
            );
        }
        assert_eq!(simulation.ask(open_request("/", OpenFlags::READ)), FAILURE);
        assert_eq!(simulation.ask(Opendir { path: b"/none" }), NO_SUCH_FILE);
        assert_eq!(simulation.budget.open(), 0);
    }
}

#[test]
fn a_directory_is_read_to_its_end_once() {
    for mood in MOODS {
        let mut simulation = Simulation::new(mood, 1);
        for n in 0..300 {
            simulation
                .files
                .put(&path(&format!("/d/file{n:03}")), Vec::new())
                .unwrap();
        }
        let Got::Handle(handle) = simulation.ask(Opendir { path: b"d" }) else {
            panic!()
        };
        // Surplus requests are answered with the end, too.
        let ids: Vec<_> = (0..6)
            .map(|_| simulation.request(Readdir { handle: &handle }))
            .collect();
        simulation.jumble(100);
        let mut names = Vec::new();
        let mut ends = 0;
        for id in ids {
            match simulation.take(id) {
                Got::Names(more) => names.extend(more),
                other => {
                    assert_eq!(other, EOF);
                    ends += 1;
                }
            }
        }
        assert_eq!((names.len(), ends), (300, 3));
        assert!(names.is_sorted() && names[299] == b"file299");
        let read = Read {
            handle: &handle,
            offset: 0,
            len: 1,
        };
        assert_eq!(simulation.ask(read), FAILURE, "a directory is no file");
        assert_eq!(simulation.ask(Close { handle: &handle }), OK);
    }
}

#[test]
fn paths_are_answered_on_the_tree_that_the_user_sees() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let name = |name: &str| Got::Names(vec![name.as_bytes().to_vec()]);
    for (asked, answer) in [
        (".", "/"),
        ("", "/"),
        ("../../etc", "/etc"),
        ("a/./b//c/..", "/a/b"),
        ("/x", "/x"),
    ] {
        assert_eq!(
            simulation.ask(Realpath {
                path: asked.as_bytes()
            }),
            name(answer)
        );
    }
    let expand = |path| Extension::ExpandPath(ketch_protocol::ExpandPath { path });
    assert_eq!(simulation.ask(expand(b"~")), name("/"));
    assert_eq!(simulation.ask(expand(b"~/a")), name("/a"));
    assert_eq!(simulation.ask(expand(b"a")), name("/a"));
    assert_eq!(simulation.ask(expand(b"~root/a")), FAILURE);
    let home = |user| Extension::HomeDirectory(HomeDirectory { user });
    assert_eq!(simulation.ask(home(b"")), name("/"));
    assert_eq!(simulation.ask(home(b"anna")), name("/"));
    assert_eq!(
        simulation.ask(home(b"root")),
        simulation.ask(home(b"no such user"))
    );
}

#[test]
fn rename_keeps_what_is_there_and_posix_rename_replaces_it() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/a"), b"a".to_vec()).unwrap();
    simulation.files.put(&path("/b"), b"b".to_vec()).unwrap();
    assert_eq!(
        simulation.ask(Rename {
            from: b"/a",
            to: b"/b"
        }),
        FAILURE
    );
    assert_eq!(simulation.files.get(&path("/b")).unwrap(), b"b");
    assert_eq!(
        simulation.ask(Rename {
            from: b"/a",
            to: b"/c"
        }),
        OK
    );
    let replace = PosixRename {
        from: b"/c",
        to: b"/b",
    };
    assert_eq!(simulation.ask(Extension::PosixRename(replace)), OK);
    assert_eq!(simulation.files.get(&path("/b")).unwrap(), b"a");
}

#[test]
fn attributes_are_masked_and_owners_refused() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/a"), b"abc".to_vec()).unwrap();
    let owner = Attrs {
        owner: Some(Owner { uid: 0, gid: 0 }),
        size: Some(0),
        ..Attrs::NONE
    };
    assert_eq!(
        simulation.ask(Setstat {
            path: b"/a",
            attrs: owner.into()
        }),
        DENIED
    );
    let lset = Lsetstat {
        path: b"/a",
        attrs: owner.into(),
    };
    assert_eq!(simulation.ask(Extension::Lsetstat(lset)), DENIED);
    let handle = open(&mut simulation, "/a");
    assert_eq!(
        simulation.ask(Fsetstat {
            handle: &handle,
            attrs: owner.into()
        }),
        DENIED
    );
    assert_eq!(
        simulation.ask(Fstat { handle: &handle }),
        Got::Size(3),
        "nothing was changed"
    );
    let huge = Attrs {
        size: Some(u64::MAX),
        ..Attrs::NONE
    };
    assert_eq!(
        simulation.ask(Setstat {
            path: b"/a",
            attrs: huge.into()
        }),
        FAILURE
    );
    let write = Write {
        handle: &handle,
        offset: u64::MAX - 1,
        data: b"abc",
    };
    assert_eq!(simulation.ask(write), FAILURE);
    let read = Read {
        handle: &handle,
        offset: u64::MAX,
        len: u32::MAX,
    };
    assert_eq!(simulation.ask(read), EOF);
}

#[test]
fn links_are_made_in_openssh_order_and_only_beneath() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation
        .files
        .put(&path("/d/f"), b"abc".to_vec())
        .unwrap();
    let link = |target, link| Symlink {
        target,
        link,
        order: SymlinkOrder::OpenSsh,
    };
    assert_eq!(simulation.ask(link(b"d/f", b"/l")), OK);
    assert_eq!(
        simulation.ask(Readlink { path: b"/l" }),
        Got::Names(vec![b"d/f".to_vec()])
    );
    assert_eq!(simulation.ask(Stat { path: b"/l" }), Got::Size(3));
    for target in [&b"/etc/passwd"[..], b"../x", b"d/../../x", b""] {
        assert_eq!(simulation.ask(link(target, b"/bad")), DENIED);
    }
    // Renamed to the root, or made through a link to it, the first two would lead out.
    for target in [&b"../f"[..], b"..", b"l/../d"] {
        assert_eq!(simulation.ask(link(target, b"/d/e/bad")), DENIED);
    }
    assert_eq!(simulation.ask(Remove { path: b"/l" }), OK);
    assert!(simulation.files.get(&path("/d/f")).is_ok());

    let off = Policy {
        symbolic_links: false,
        hard_links: false,
        ..policy()
    };
    let mut simulation = Simulation::with(Mood::Ready, 1, off, u64::MAX);
    simulation.files.put(&path("/f"), b"abc".to_vec()).unwrap();
    assert_eq!(simulation.ask(link(b"f", b"/l")), DENIED);
    let hard = Extension::Hardlink(Hardlink {
        from: b"/f",
        to: b"/g",
    });
    assert_eq!(simulation.ask(hard), DENIED);
}

#[test]
fn who_may_only_read_changes_nothing_by_any_request() {
    let policy = Policy {
        access: Access::ReadOnly,
        ..policy()
    };
    let mut simulation = Simulation::with(Mood::Ready, 1, policy, u64::MAX);
    simulation.files.put(&path("/f"), b"abc".to_vec()).unwrap();
    simulation
        .files
        .put(&path("/d/g"), b"abc".to_vec())
        .unwrap();
    let before = simulation.files.paths();
    let all = [
        OpenFlags::WRITE,
        OpenFlags::APPEND,
        OpenFlags::CREATE,
        OpenFlags::TRUNCATE,
        OpenFlags::EXCLUSIVE,
    ];
    for set in 1..1_u32 << all.len() {
        let chosen: Vec<_> = all
            .iter()
            .enumerate()
            .filter(|(n, _)| set >> n & 1 == 1)
            .map(|(_, f)| *f)
            .collect();
        // EXCLUSIVE alone means nothing.
        if chosen != [OpenFlags::EXCLUSIVE] {
            for read in [OpenFlags(0), OpenFlags::READ] {
                assert_eq!(
                    simulation.ask(open_request("/f", flags(&chosen) | read)),
                    DENIED
                );
                assert_eq!(
                    simulation.ask(open_request("/new", flags(&chosen) | read)),
                    DENIED
                );
            }
        }
    }
    let Got::Handle(handle) = simulation.ask(open_request("/f", OpenFlags::READ)) else {
        panic!()
    };
    assert_eq!(
        simulation.ask(Write {
            handle: &handle,
            offset: 0,
            data: b"x"
        }),
        FAILURE
    );
    let none = Attrs::with_permissions(0o777);
    assert_eq!(
        simulation.ask(Setstat {
            path: b"/f",
            attrs: none.into()
        }),
        DENIED
    );
    assert_eq!(
        simulation.ask(Fsetstat {
            handle: &handle,
            attrs: none.into()
        }),
        DENIED
    );
    assert_eq!(
        simulation.ask(Mkdir {
            path: b"/e",
            attrs: none.into()
        }),
        DENIED
    );
    assert_eq!(simulation.ask(Rmdir { path: b"/d" }), DENIED);
    assert_eq!(simulation.ask(Remove { path: b"/f" }), DENIED);
    assert_eq!(
        simulation.ask(Rename {
            from: b"/f",
            to: b"/h"
        }),
        DENIED
    );
    let link = Symlink {
        target: b"f",
        link: b"/l",
        order: SymlinkOrder::OpenSsh,
    };
    assert_eq!(simulation.ask(link), DENIED);
    let copy = CopyData {
        from: &handle,
        from_offset: 0,
        len: 0,
        to: &handle,
        to_offset: 0,
    };
    for extension in [
        Extension::PosixRename(PosixRename {
            from: b"/f",
            to: b"/h",
        }),
        Extension::Hardlink(Hardlink {
            from: b"/f",
            to: b"/h",
        }),
        Extension::Lsetstat(Lsetstat {
            path: b"/f",
            attrs: none.into(),
        }),
        Extension::CopyData(copy),
    ] {
        assert_eq!(simulation.ask(extension), DENIED, "{extension:?}");
    }
    assert_eq!(
        simulation.ask(Read {
            handle: &handle,
            offset: 0,
            len: 9
        }),
        Got::Data(b"abc".into())
    );
    assert_eq!(simulation.files.paths(), before);
    assert_eq!(simulation.files.get(&path("/f")).unwrap(), b"abc");
}

#[test]
fn copy_data_copies_on_the_server_and_not_into_itself() {
    for mood in MOODS {
        let mut simulation = Simulation::new(mood, 1);
        let content: Vec<u8> = (0..700_000_u32)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        simulation.files.put(&path("/a"), content.clone()).unwrap();
        let (a, b) = (open(&mut simulation, "/a"), open(&mut simulation, "/b"));
        let copy = |from_offset, len| {
            Extension::CopyData(CopyData {
                from: &a,
                from_offset,
                len,
                to: &b,
                to_offset: 10,
            })
        };
        // Behind a write to the source, and before the close of both, in one batch.
        let ids = [
            simulation.request(Write {
                handle: &a,
                offset: 0,
                data: b"new",
            }),
            simulation.request(copy(0, 0)),
            simulation.request(Close { handle: &a }),
            simulation.request(Close { handle: &b }),
        ];
        simulation.jumble(300);
        for id in ids {
            assert_eq!(simulation.take(id), OK, "{mood:?}");
        }
        let copied = simulation.files.get(&path("/b")).unwrap();
        assert_eq!(copied.len(), 700_010);
        assert_eq!(&copied[10..13], b"new");
        assert_eq!(copied[13..], content[3..]);

        let (again, other) = (open(&mut simulation, "/a"), open(&mut simulation, "/a"));
        let same = CopyData {
            from: &again,
            from_offset: 0,
            len: 5,
            to: &other,
            to_offset: 9,
        };
        assert_eq!(simulation.ask(Extension::CopyData(same)), FAILURE);
        simulation.assert_idle();
    }
}

#[test]
fn everything_that_is_not_known_is_answered() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let unknown = Extension::Unknown {
        name: b"check-file@nowhere",
        data: b"xyz",
    };
    assert_eq!(simulation.ask(unknown), UNSUPPORTED);
    // A type that no request has, and a request that is cut.
    simulation.bytes(&[0, 0, 0, 5, 99, 0, 0, 0, 77]);
    simulation.bytes(&[0, 0, 0, 7, 5, 0, 0, 0, 78, 0, 0]);
    simulation.settle();
    assert_eq!(simulation.take(77), UNSUPPORTED);
    assert_eq!(simulation.take(78), Got::Status(StatusCode::BAD_MESSAGE));
    let Got::Extended(limits) = simulation.ask(Extension::Limits) else {
        panic!()
    };
    let limits = ServerLimits::decode(Reader::new(&limits)).unwrap();
    assert_eq!((limits.read_len, limits.open_handles), (261_120, 128));
    let read = Read {
        handle: &[9; 256],
        offset: 0,
        len: 1,
    };
    assert_eq!(simulation.ask(read), FAILURE);
    simulation.assert_idle();
}

#[test]
fn a_second_greeting_ends_the_session() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let mut bytes = Vec::new();
    Init {
        version: 3,
        extensions: Pairs::EMPTY,
    }
    .encode_packet(&mut bytes);
    let result = simulation
        .engine
        .on_data(&bytes, 0, &mut simulation.channel);
    assert!(
        matches!(result, Err(Broken::Protocol(_) | Broken::OutOfTurn)),
        "{result:?}"
    );
}

proptest! {
    /// Bytes that are no requests end a session or are answered; they never panic.
    #[test]
    fn any_bytes_are_survived(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
        kinds in proptest::collection::vec(0..22_u8, 0..20),
    ) {
        let mut simulation = Simulation::new(Mood::Moody, 1);
        let mut bytes: Vec<u8> = Vec::new();
        for (kind, part) in kinds.iter().zip(parts.iter().cycle()) {
            let len = u32::try_from(part.len() + 5).unwrap();
            bytes.extend(len.to_be_bytes());
            bytes.push(*kind);
            bytes.extend([0, 0, 0, 1]);
            bytes.extend(part);
        }
        bytes.extend(parts.concat());
        for part in bytes.chunks(100) {
            if simulation.engine.on_data(part, 0, &mut simulation.channel).is_err() {
                return Ok(());
            }
            simulation.engine.end_of_turn(&part.to_vec(), &mut simulation.channel);
            if simulation.engine.drive(&mut simulation.channel).is_err() {
                return Ok(());
            }
            while simulation.host.run_one(&simulation.choices) {}
        }
    }
}
