//! The change feed on a file system in memory, through the whole engine.

use std::time::Duration;

use ketch_protocol::{
    Attrs, Close, Extension, Mkdir, OpenFlags, Opendir, Reader, Remove, Rename, Rmdir, Stat, Watch,
    WatchKind, WatchKinds, WatchRead, WatchReply, Write,
};

use super::{EOF, FAILURE, NO_SUCH_FILE, OK, UNSUPPORTED, flags, open, open_request, path};
use crate::engine::simulation::{Got, Mood, Simulation, policy};
use crate::fs::feed::FEED_EVENTS_MAX;
use crate::policy::{Policy, Right, Rights, Rules};
use crate::session::REQUESTS_MAX;

/// What was told: kind, path, new name.
type Told = (WatchKind, String, String);

fn subscribe(simulation: &mut Simulation, path: &str, recursive: bool) -> Got {
    let id = simulation.request(Extension::Watch(Watch {
        path: path.as_bytes(),
        flags: u32::from(recursive),
        kinds: WatchKinds::ALL,
    }));
    simulation.settle();
    simulation.take(id)
}

fn subscribed(simulation: &mut Simulation, path: &str, recursive: bool) -> Vec<u8> {
    match subscribe(simulation, path, recursive) {
        Got::Handle(handle) => handle,
        other => panic!("{other:?}"),
    }
}

fn read_request(handle: &[u8], wait: u32) -> Extension<'_> {
    Extension::WatchRead(WatchRead { handle, wait })
}

fn told(got: &Got) -> Vec<Told> {
    let Got::Extended(data) = got else {
        panic!("{got:?}")
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let reply = WatchReply::decode(Reader::new(data)).unwrap();
    let events = reply.events.iter();
    events
        .map(|event| (event.kind, text(event.path), text(event.to)))
        .collect()
}

fn one(kind: WatchKind, path: &str) -> Told {
    (kind, path.to_owned(), String::new())
}

fn mkdir(path: &[u8]) -> Mkdir<'_> {
    let attrs = Attrs::NONE.into();
    Mkdir { path, attrs }
}

/// What waits as bytes is taken after the turn has looked for events.
#[test]
fn a_read_that_waited_to_be_taken_is_looked_at_in_the_turn_that_takes_it() {
    let mut simulation = Simulation::new(Mood::Blocking, 1);
    simulation.files.put(&path("/f"), Vec::new()).unwrap();
    let handle = subscribed(&mut simulation, "/", false);
    for _ in 0..REQUESTS_MAX {
        simulation.request(Stat { path: b"/f" });
    }
    simulation.request(read_request(&handle, 60_000));
    simulation.hang();
    assert_eq!(simulation.engine.deadline(), None, "it is not taken");
    assert!(simulation.host.run_one(&simulation.choices));
    simulation.turn(0);
    assert!(simulation.engine.deadline().is_some());
}

#[test]
fn what_happens_is_told_in_its_order_and_a_read_waits_for_it() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/in/old"), Vec::new()).unwrap();
    let handle = subscribed(&mut simulation, "/in", true);
    let waiting = simulation.request(read_request(&handle, 60_000));
    simulation.settle();
    assert!(!simulation.has(waiting));
    assert_eq!(simulation.ask(mkdir(b"/elsewhere")), OK);
    assert!(!simulation.has(waiting), "nothing happened there");
    let file = open(&mut simulation, "/in/new");
    assert_eq!(
        told(&simulation.take(waiting)),
        [one(WatchKind::CREATED, "/in/new")]
    );
    for _ in 0..3 {
        let write = Write {
            handle: &file,
            offset: 0,
            data: b"abc",
        };
        assert_eq!(simulation.ask(write), OK);
    }
    assert_eq!(simulation.ask(Close { handle: &file }), OK);
    let renames = [
        (&b"/in/new"[..], &b"/in/newer"[..]),
        (b"/in/old", b"/elsewhere/old"),
        (b"/elsewhere/old", b"/in/back"),
    ];
    for (from, to) in renames {
        assert_eq!(simulation.ask(Rename { from, to }), OK);
    }
    assert_eq!(simulation.ask(Remove { path: b"/in/newer" }), OK);
    let renamed = (WatchKind::RENAMED, "/in/new".into(), "/in/newer".into());
    let expected = [
        one(WatchKind::MODIFIED, "/in/new"),
        one(WatchKind::WRITTEN, "/in/new"),
        renamed,
        one(WatchKind::REMOVED, "/in/old"),
        one(WatchKind::CREATED, "/in/back"),
        one(WatchKind::REMOVED, "/in/newer"),
    ];
    let got = simulation.ask(read_request(&handle, 0));
    assert_eq!(told(&got), expected, "three writes are one change");
    let got = simulation.ask(read_request(&handle, 0));
    assert_eq!(told(&got), [], "no wait, no event: an answer all the same");
    assert_eq!(simulation.ask(Close { handle: &handle }), OK);
    simulation.assert_idle();
}

#[test]
fn a_read_waits_no_longer_than_it_was_told_to() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let handle = subscribed(&mut simulation, "/", false);
    let read = simulation.request(read_request(&handle, 5000));
    simulation.settle();
    assert!(!simulation.has(read));
    assert!(simulation.engine.deadline().is_some());
    simulation.host.tick.set(Duration::from_secs(6));
    simulation.settle();
    assert_eq!(told(&simulation.take(read)), []);
    assert_eq!(simulation.engine.deadline(), None);
    simulation.assert_idle();
}

#[test]
fn a_close_ends_the_read_that_waits_and_so_does_the_end_of_the_directory() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    assert_eq!(simulation.ask(mkdir(b"/d")), OK);
    let handle = subscribed(&mut simulation, "/d", true);
    let read = simulation.request(read_request(&handle, 60_000));
    let second = simulation.request(read_request(&handle, 60_000));
    simulation.settle();
    assert_eq!(simulation.take(second), FAILURE, "one at a time");
    let close = simulation.request(Close { handle: &handle });
    simulation.settle();
    assert_eq!((simulation.take(read), simulation.take(close)), (EOF, OK));

    let handle = subscribed(&mut simulation, "/d", true);
    assert_eq!(simulation.ask(mkdir(b"/d/e")), OK);
    assert_eq!(simulation.ask(Rmdir { path: b"/d/e" }), OK);
    assert_eq!(simulation.ask(Rmdir { path: b"/d" }), OK);
    let events = told(&simulation.ask(read_request(&handle, 60_000)));
    assert_eq!(events.len(), 2, "what was before the end comes first");
    assert_eq!(simulation.ask(read_request(&handle, 60_000)), EOF);
    assert_eq!(simulation.ask(Close { handle: &handle }), OK);
    simulation.assert_idle();
}

#[test]
fn a_client_that_sends_no_more_waits_no_more() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let handle = subscribed(&mut simulation, "/", true);
    let read = simulation.request(read_request(&handle, 60_000));
    simulation.settle();
    simulation.engine.end_watches();
    simulation.settle();
    assert_eq!(told(&simulation.take(read)), []);
    simulation.assert_idle();
}

#[test]
fn a_client_that_does_not_read_is_told_that_events_were_lost() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let handle = subscribed(&mut simulation, "/", true);
    for n in 0..=FEED_EVENTS_MAX {
        simulation
            .files
            .put(&path(&format!("/{n}")), Vec::new())
            .unwrap();
    }
    simulation.files.put(&path("/last"), Vec::new()).unwrap();
    let mut all = Vec::new();
    loop {
        let events = told(&simulation.ask(read_request(&handle, 0)));
        if events.is_empty() {
            break;
        }
        all.extend(events);
    }
    assert_eq!(all.first(), Some(&one(WatchKind::OVERFLOW, "")));
    assert!(all.contains(&one(WatchKind::CREATED, "/last")));
    assert!(all.len() <= FEED_EVENTS_MAX);
}

#[test]
fn only_directories_are_watched_only_as_handles_and_only_so_many() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/f"), Vec::new()).unwrap();
    assert_eq!(subscribe(&mut simulation, "/f", true), FAILURE);
    assert_eq!(subscribe(&mut simulation, "/none", true), NO_SUCH_FILE);
    let unknown = Extension::Watch(Watch {
        path: b"/",
        flags: 2,
        kinds: WatchKinds::ALL,
    });
    assert_eq!(simulation.ask(unknown), UNSUPPORTED);
    let handles: Vec<_> = (0..crate::session::WATCHES_MAX)
        .map(|_| subscribed(&mut simulation, "/", true))
        .collect();
    assert_eq!(subscribe(&mut simulation, "/", true), FAILURE);
    let close = Close {
        handle: &handles[0],
    };
    assert_eq!(simulation.ask(close), OK);
    subscribed(&mut simulation, "/", true);
    let file = open(&mut simulation, "/f");
    assert_eq!(simulation.ask(read_request(&file, 0)), FAILURE);
    let Got::Handle(directory) = simulation.ask(Opendir { path: b"/" }) else {
        panic!()
    };
    assert_eq!(simulation.ask(read_request(&directory, 0)), FAILURE);
    let write = Write {
        handle: &handles[1],
        offset: 0,
        data: b"x",
    };
    assert_eq!(simulation.ask(write), FAILURE);
}

#[test]
fn names_that_may_not_be_listed_are_not_told() {
    let rules = Rules::new(Rights::ALL)
        .rule("/secret", Rights::from([Right::Write, Right::Rename]))
        .unwrap();
    let policy = Policy {
        rules: Some(rules.into()),
        ..policy()
    };
    let mut simulation = Simulation::with(Mood::Ready, 1, policy, u64::MAX);
    assert_eq!(
        subscribe(&mut simulation, "/secret", true),
        NO_SUCH_FILE,
        "what may not be listed may not be watched"
    );
    let handle = subscribed(&mut simulation, "/", true);
    let files = simulation.files.clone();
    files.put(&path("/secret/a"), Vec::new()).unwrap();
    files.put(&path("/open"), Vec::new()).unwrap();
    let rename = |from: &str, to: &str| crate::fs::Call::Rename {
        from: path(from),
        to: path(to),
        target: crate::fs::Target::MustNotExist,
    };
    for call in [rename("/open", "/secret/b"), rename("/secret/a", "/shown")] {
        crate::fs::FileSystem::try_call(&*files, &call).unwrap();
    }
    let events = told(&simulation.ask(read_request(&handle, 0)));
    let kinds = [WatchKind::CREATED, WatchKind::WRITTEN, WatchKind::REMOVED];
    let mut expected: Vec<_> = kinds.map(|kind| one(kind, "/open")).to_vec();
    expected.push(one(WatchKind::CREATED, "/shown"));
    assert_eq!(events, expected);
}

#[test]
fn a_subscription_that_is_still_being_made_holds_nothing_up() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    let id = simulation.request(Extension::Watch(Watch {
        path: b"/",
        flags: 1,
        kinds: WatchKinds::ALL,
    }));
    let new = flags(&[OpenFlags::WRITE, OpenFlags::CREATE]);
    let opened = simulation.request(open_request("/f", new));
    let stat = simulation.request(Stat { path: b"/f" });
    simulation.hang();
    assert!(!simulation.has(id));
    assert_eq!(simulation.take(stat), Got::Size(0));
    simulation.take(opened);
    simulation.settle();
    assert!(matches!(simulation.take(id), Got::Handle(_)));
}
