//! What arrives, and what is refused then, through the whole engine.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use ketch_protocol::{
    Attrs, Close, Extension, Fsetstat, Fstat, OpenFlags, PosixRename, Remove, Rename, Setstat,
    Write,
};

use super::{DENIED, FAILURE, MOODS, OK, Policy, flags, open_request, path, policy};
use crate::engine::simulation::{Got, Mood, Simulation};
use crate::observer::{Event, Observer, Watch, Who};
use crate::policy::arrivals::Arrivals;
use crate::shares::Kind;

/// Path, size, and whether the hash was told.
type Told = (String, u64, bool);

#[derive(Debug, Default)]
struct Arrived(Mutex<Vec<Told>>);

impl Observer for Arrived {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Arrived(file) = event {
            let path = String::from_utf8(file.path.to_vec()).unwrap();
            let told = (path, file.size, file.sha256.is_some());
            self.0.lock().unwrap().push(told);
        }
    }
}

fn arrivals() -> Arrivals {
    Arrivals::on_close().temporary_name("*.part").unwrap()
}

fn simulation(mood: Mood, seed: u64, arrivals: &Arrivals) -> (Simulation, Arc<Arrived>) {
    let policy = Policy {
        arrivals: Some(arrivals.clone()),
        exclusive_uploads: true,
        ..policy()
    };
    let mut simulation = Simulation::with(mood, seed, policy, u64::MAX);
    let observer = Arc::new(Arrived::default());
    let observers: Arc<[Arc<dyn Observer>]> = Arc::from([Arc::clone(&observer) as _]);
    let who = || Who {
        connection: 1,
        peer: "test".to_owned(),
        address: None,
        user: Some("anna".to_owned()),
        organisation: None,
        endpoint: None,
    };
    simulation
        .engine
        .observed(Watch::new(&observers, &Arc::default(), who).unwrap());
    (simulation, observer)
}

const CREATE: [OpenFlags; 3] = [OpenFlags::WRITE, OpenFlags::CREATE, OpenFlags::TRUNCATE];

fn upload(simulation: &mut Simulation, path: &str, bytes: &[u8]) -> Got {
    let handle = match simulation.ask(open_request(path, flags(&CREATE))) {
        Got::Handle(handle) => handle,
        other => return other,
    };
    let (handle, data) = (&handle[..], bytes);
    if !bytes.is_empty() {
        let offset = 0;
        let written = simulation.ask(Write {
            handle,
            offset,
            data,
        });
        assert_eq!(written, OK);
    }
    simulation.ask(Close { handle })
}

fn told(simulation: &mut Simulation, arrived: &Arrived) -> Vec<Told> {
    while simulation.host.run_one(&simulation.choices) {}
    std::mem::take(&mut arrived.0.lock().unwrap())
}

fn file(path: &str, size: u64) -> Told {
    (path.to_owned(), size, true)
}

#[test]
fn a_file_arrives_when_it_is_closed_and_stays_as_it_is() {
    for mood in MOODS {
        for seed in 0..10 {
            let (mut simulation, arrived) = simulation(mood, seed, &arrivals());
            assert_eq!(upload(&mut simulation, "/a", b"abc"), OK);
            assert_eq!(simulation.host.last_kind.get(), Some(Kind::Arrival));
            assert_eq!(told(&mut simulation, &arrived), [file("/a", 3)]);
            assert_eq!(upload(&mut simulation, "/empty", b""), OK);
            assert_eq!(told(&mut simulation, &arrived), [file("/empty", 0)]);
            let attrs = Attrs {
                permissions: Some(0o600),
                ..Attrs::NONE
            };
            assert_eq!(simulation.ask(Remove { path: b"/a" }), DENIED);
            let set = Setstat {
                path: b"/a",
                attrs: attrs.into(),
            };
            assert_eq!(simulation.ask(set), DENIED);
            let (from, to) = (b"/a", b"/b");
            assert_eq!(simulation.ask(Rename { from, to }), DENIED);
            assert_eq!(simulation.ask(open_request("/a", OpenFlags::WRITE)), DENIED);
            assert_eq!(upload(&mut simulation, "/a", b"other"), FAILURE);
            assert_eq!(upload(&mut simulation, "/a.part", b"other"), OK);
            let (from, to) = (b"/a.part", b"/a");
            let rename = PosixRename { from, to };
            assert_eq!(simulation.ask(Extension::PosixRename(rename)), FAILURE);
            assert_eq!(simulation.files.get(&path("/a")).unwrap(), b"abc");
            let read = simulation.ask(open_request("/a", OpenFlags::READ));
            assert!(matches!(read, Got::Handle(_)));
            assert_eq!(told(&mut simulation, &arrived), []);
        }
    }
}

/// Who processes files takes them away behind the server's back.
#[test]
fn when_it_was_fetched_the_next_one_of_its_name_arrives() {
    let (mut simulation, arrived) = simulation(Mood::Ready, 1, &arrivals());
    for bytes in [&b"monday"[..], b"tue"] {
        assert_eq!(upload(&mut simulation, "/orders", bytes), OK);
        let len = bytes.len() as u64;
        assert_eq!(told(&mut simulation, &arrived), [file("/orders", len)]);
        assert_eq!(upload(&mut simulation, "/orders", b"again"), FAILURE);
        let call = crate::fs::Call::Remove {
            path: path("/orders"),
        };
        crate::fs::FileSystem::try_call(&*simulation.files, &call).unwrap();
    }
}

#[test]
fn a_temporary_name_is_free_until_it_becomes_another() {
    let (mut simulation, arrived) = simulation(Mood::Ready, 1, &arrivals());
    for bytes in [&b"a"[..], b"ab"] {
        assert_eq!(upload(&mut simulation, "/x.part", bytes), OK);
    }
    let (from, to) = (b"/x.part", b"/y.part");
    assert_eq!(simulation.ask(Rename { from, to }), OK);
    assert_eq!(told(&mut simulation, &arrived), []);
    let (from, to) = (b"/y.part", b"/x");
    assert_eq!(simulation.ask(Rename { from, to }), OK);
    assert_eq!(told(&mut simulation, &arrived), [file("/x", 2)]);
    assert_eq!(simulation.ask(Remove { path: b"/x" }), DENIED);
}

/// The requests of a batch are decided in their turn, and not when they come.
#[test]
fn what_follows_a_close_in_one_batch_comes_after_the_arrival() {
    for mood in MOODS {
        for seed in 0..20 {
            let (mut simulation, arrived) = simulation(mood, seed, &arrivals());
            let Got::Handle(handle) = simulation.ask(open_request("/x.part", flags(&CREATE)))
            else {
                panic!("no handle");
            };
            let still_open = simulation.ask(Rename {
                from: b"/x.part",
                to: b"/x",
            });
            assert_eq!(still_open, FAILURE, "it is open");
            let handle = &handle[..];
            let ids = [
                simulation.request(Write {
                    handle,
                    offset: 0,
                    data: &[7; 5000],
                }),
                simulation.request(Close { handle }),
                simulation.request(Rename {
                    from: b"/x.part",
                    to: b"/x",
                }),
                simulation.request(Remove { path: b"/x" }),
            ];
            simulation.jumble(2000);
            let got = ids.map(|id| simulation.take(id));
            assert_eq!(got, [OK, OK, OK, DENIED], "{mood:?} {seed}");
            assert_eq!(told(&mut simulation, &arrived), [file("/x", 5000)]);
            simulation.assert_idle();
        }
    }
}

#[test]
fn a_file_arrives_with_its_trigger() {
    let arrivals = Arrivals::on_trigger(".done").unwrap();
    let (mut simulation, arrived) = simulation(Mood::Ready, 1, &arrivals);
    assert_eq!(upload(&mut simulation, "/x", b"a"), OK);
    assert_eq!(
        upload(&mut simulation, "/x", b"abc"),
        OK,
        "it has not arrived"
    );
    assert_eq!(upload(&mut simulation, "/none.done", b""), OK);
    assert_eq!(told(&mut simulation, &arrived), []);
    assert_eq!(upload(&mut simulation, "/x.done", b""), OK);
    assert_eq!(told(&mut simulation, &arrived), [file("/x", 3)]);
    assert_eq!(simulation.ask(Remove { path: b"/x" }), DENIED);
    assert_eq!(simulation.ask(Remove { path: b"/x.done" }), OK);
    // A trigger that comes while the file is written waits for its end.
    let Got::Handle(handle) = simulation.ask(open_request("/y", flags(&CREATE))) else {
        panic!("no handle");
    };
    assert_eq!(upload(&mut simulation, "/y.done", b""), OK);
    assert_eq!(told(&mut simulation, &arrived), []);
    assert_eq!(simulation.ask(Close { handle: &handle }), OK);
    assert_eq!(told(&mut simulation, &arrived), [file("/y", 0)]);
}

/// Two users of one directory: each has a session of its own, and they know of each other's files.
#[test]
fn a_file_that_another_session_writes_is_not_renamed_nor_triggered() {
    let arrivals = Arrivals::on_trigger(".done").unwrap();
    let arrivals = arrivals.temporary_name("*.part").unwrap();
    let (mut writer, told_writer) = simulation(Mood::Ready, 1, &arrivals);
    let (mut other, told_other) = simulation(Mood::Ready, 2, &arrivals);
    // The two simulated file systems hold the same.
    assert_eq!(upload(&mut other, "/d.part", b"abc"), OK);
    assert_eq!(upload(&mut other, "/d", b"abc"), OK);
    let open = |simulation: &mut Simulation, path: &str| {
        let Got::Handle(handle) = simulation.ask(open_request(path, flags(&CREATE))) else {
            panic!("no handle");
        };
        handle
    };
    let temporary = open(&mut writer, "/d.part");
    let (from, to) = (b"/d.part", b"/e");
    assert_eq!(other.ask(Rename { from, to }), FAILURE, "it is open");
    assert_eq!(writer.ask(Close { handle: &temporary }), OK);
    assert_eq!(other.ask(Rename { from, to }), OK);

    let file_of = [open(&mut writer, "/d"), open(&mut other, "/d")];
    assert_eq!(upload(&mut other, "/d.done", b""), OK);
    assert_eq!(
        other.ask(Close {
            handle: &file_of[1]
        }),
        OK
    );
    assert_eq!(told(&mut other, &told_other), []);
    assert_eq!(told(&mut writer, &told_writer), []);
    assert!(!arrivals.has_arrived(&path("/d")));
    assert_eq!(
        writer.ask(Close {
            handle: &file_of[0]
        }),
        OK
    );
    assert_eq!(told(&mut writer, &told_writer), [file("/d", 0)]);

    // Who is lost writes no more, and what it wrote does not arrive.
    let _lost = open(&mut writer, "/f");
    assert_eq!(upload(&mut other, "/f.done", b""), OK);
    assert!(arrivals.is_being_written(&path("/f")));
    drop(writer);
    assert!(!arrivals.is_being_written(&path("/f")) && !arrivals.has_arrived(&path("/f")));
}

#[test]
fn what_was_lost_or_went_wrong_has_not_arrived() {
    let arrivals = arrivals();
    let (mut lost, arrived) = simulation(Mood::Ready, 1, &arrivals);
    let opened = lost.ask(open_request("/x", flags(&CREATE)));
    let Got::Handle(handle) = opened else {
        panic!("no handle");
    };
    let handle = &handle[..];
    let write = |offset| Write {
        handle,
        offset,
        data: b"abc",
    };
    assert_eq!(lost.ask(write(0)), OK);
    // The connection is gone.
    drop(lost);
    assert!(!arrivals.has_arrived(&path("/x")));
    assert_eq!(*arrived.0.lock().unwrap(), []);
    let (mut failed, arrived) = simulation(Mood::Ready, 1, &arrivals);
    let Got::Handle(handle) = failed.ask(open_request("/x", flags(&CREATE))) else {
        panic!("no handle");
    };
    let handle = &handle[..];
    let (offset, data) = (u64::MAX, b"abc");
    assert_eq!(
        failed.ask(Write {
            handle,
            offset,
            data
        }),
        FAILURE
    );
    assert_eq!(failed.ask(Close { handle }), OK);
    assert_eq!(told(&mut failed, &arrived), []);
    // Somebody looks at how far it came, and goes away.
    let look = flags(&[OpenFlags::WRITE, OpenFlags::CREATE]);
    let Got::Handle(handle) = failed.ask(open_request("/x", look)) else {
        panic!("no handle");
    };
    assert_eq!(failed.ask(Close { handle: &handle }), OK);
    assert_eq!(told(&mut failed, &arrived), []);
}

#[test]
fn a_directory_is_renamed_without_arriving_and_not_with_what_arrived_in_it() {
    let (mut simulation, arrived) = simulation(Mood::Ready, 1, &arrivals());
    simulation
        .files
        .put(&path("/d.part/f"), Vec::new())
        .unwrap();
    let (from, to) = (b"/d.part", b"/d");
    assert_eq!(simulation.ask(Rename { from, to }), OK);
    let (from, to) = (b"/d", b"/e");
    assert_eq!(simulation.ask(Rename { from, to }), OK);
    assert_eq!(upload(&mut simulation, "/e/a", b"abc"), OK);
    assert_eq!(told(&mut simulation, &arrived), [file("/e/a", 3)]);
    let (from, to) = (b"/e", b"/d");
    assert_eq!(simulation.ask(Rename { from, to }), DENIED);
}

/// A handle that was opened to look, under the name that it had on its way or the one it arrived by.
#[test]
fn a_handle_that_reads_changes_nothing_of_what_has_arrived() {
    let change = |handle: &[u8], simulation: &mut Simulation| {
        let attrs = Attrs {
            permissions: Some(0o600),
            ..Attrs::NONE
        };
        let attrs = attrs.into();
        simulation.ask(Fsetstat { handle, attrs })
    };
    for (arrivals, expected) in [(arrivals(), FAILURE), (arrivals().allow_changes(), OK)] {
        let (mut simulation, _) = simulation(Mood::Ready, 1, &arrivals);
        assert_eq!(upload(&mut simulation, "/a.part", b"abc"), OK);
        let Got::Handle(before) = simulation.ask(open_request("/a.part", OpenFlags::READ)) else {
            panic!("no handle");
        };
        let (from, to) = (b"/a.part", b"/a");
        assert_eq!(simulation.ask(Rename { from, to }), OK);
        let Got::Handle(after) = simulation.ask(open_request("/a", OpenFlags::READ)) else {
            panic!("no handle");
        };
        assert_eq!(change(&before, &mut simulation), expected);
        assert_eq!(change(&after, &mut simulation), expected);
    }
}

#[test]
fn where_changes_are_allowed_each_upload_is_an_arrival() {
    let (mut simulation, arrived) = simulation(Mood::Ready, 1, &arrivals().allow_changes());
    for len in [3, 2] {
        let bytes = vec![0; len];
        assert_eq!(upload(&mut simulation, "/a", &bytes), OK);
        assert_eq!(told(&mut simulation, &arrived), [file("/a", len as u64)]);
    }
    assert_eq!(simulation.ask(Remove { path: b"/a" }), OK);
}

#[test]
fn a_look_that_fails_is_no_failed_upload() {
    let (mut simulation, arrived) = simulation(Mood::Ready, 1, &arrivals());
    let Got::Handle(handle) = simulation.ask(open_request("/x", flags(&CREATE))) else {
        panic!("no handle");
    };
    let handle = &handle[..];
    simulation.looks_fail.store(true, Ordering::Relaxed);
    assert_eq!(simulation.ask(Fstat { handle }), FAILURE);
    assert_eq!(simulation.ask(Close { handle }), OK);
    assert_eq!(told(&mut simulation, &arrived), [file("/x", 0)]);
}

/// Two uploads of one name: the second is refused before it empties the file, whoever it is.
#[test]
fn of_two_writers_of_an_exclusive_file_the_second_is_refused() {
    let (mut simulation, arrived) = simulation(Mood::Ready, 1, &arrivals());
    let Got::Handle(handle) = simulation.ask(open_request("/x", flags(&CREATE))) else {
        panic!("no handle");
    };
    let handle = &handle[..];
    let (offset, data) = (0, b"abc");
    assert_eq!(
        simulation.ask(Write {
            handle,
            offset,
            data
        }),
        OK
    );
    assert_eq!(upload(&mut simulation, "/x", b""), FAILURE);
    let read = simulation.ask(open_request("/x", OpenFlags::READ));
    assert!(matches!(read, Got::Handle(_)), "reading is nobody's harm");
    assert_eq!(simulation.ask(Close { handle }), OK);
    assert_eq!(told(&mut simulation, &arrived), [file("/x", 3)]);
}
