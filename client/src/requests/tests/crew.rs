//! One plan on several channels, of which some are lost: every file whole, once, and no trace of
//! anything else.

mod held;
mod striped;

use std::{collections::BTreeMap, fs, io, pin::Pin, sync::Arc, time::Duration};

use ketch_protocol::{
    Attrs, ExtensionName, FileType, NameEntry, Names, PacketType, RemotePath, Request, Response,
    StatusCode, Times,
};
use proptest::prelude::*;

use super::{
    server::{Habits, Node, Server},
    sim::{Sim, poll},
};
use crate::{
    Control, Failure, Filter, GetOptions, Kind, Progress, PutOptions, Report, TransferError,
    requests::Settings,
    transfer::{crew::MANY_FILES, get, outcome::Outcome, plan::Work, put, trial::Order},
};

/// Channels to one server: they have their requests of their own, and its files in common.
struct Team {
    sims: Vec<Sim>,
    nodes: BTreeMap<Vec<u8>, Node>,
    habits: Habits,
    seed: u64,
    /// Whether others come when all were lost.
    may_be_lost: bool,
    /// See [`Sim::only_woken`].
    only_woken: bool,
}

impl Team {
    fn new(habits: Habits, seed: u64) -> Self {
        let mut team = Self {
            sims: Vec::new(),
            nodes: BTreeMap::from([(b"/".to_vec(), Node::Dir)]),
            habits,
            seed,
            may_be_lost: true,
            only_woken: true,
        };
        team.add();
        team
    }

    fn add(&mut self) {
        self.seed = self.seed.wrapping_mul(31).wrapping_add(7);
        let mut sim = Sim::new(self.habits.clone(), self.seed);
        sim.packets_max = 4;
        sim.only_woken = self.only_woken;
        self.sims.push(sim);
    }

    /// Has another channel work on it.
    fn grow<W: Work>(&mut self, outcome: &Outcome<W>) {
        self.add();
        let sim = self.sims.last().expect("just added");
        outcome.add_worker(sim.sftp.shared(), None);
    }

    /// One turn of everybody. Says whether anything happened.
    fn turn(&mut self) -> bool {
        let mut moved = false;
        for sim in &mut self.sims {
            std::mem::swap(&mut self.nodes, &mut sim.server.nodes);
            moved |= sim.turn();
            std::mem::swap(&mut self.nodes, &mut sim.server.nodes);
        }
        moved
    }

    /// A connection is lost, with all that was on its way.
    fn lose(&mut self, index: usize) {
        let index = index % self.sims.len();
        let mut sim = self.sims.remove(index);
        let why = io::Error::from(io::ErrorKind::ConnectionReset);
        sim.requests.on_closed(Arc::new(why));
        sim.run_threads();
    }

    fn run<W: Work>(
        &mut self,
        outcome: &mut Outcome<W>,
        mut event: impl FnMut(&mut Self, &Outcome<W>, usize),
    ) -> Result<Report, TransferError> {
        outcome.plan().set_second_chance(self.may_be_lost);
        let mut idle = 0;
        for turn in 0..100_000 {
            event(self, outcome, turn);
            if let Some(result) = poll(Pin::new(&mut *outcome)) {
                // What is still to be cleaned up is.
                for _ in 0..5 {
                    self.turn();
                }
                return result;
            }
            idle = if self.turn() { 0 } else { idle + 1 };
            assert!(idle < 20, "nothing happens any more, seed {}", self.seed);
        }
        panic!("no end in sight, seed {}", self.seed);
    }

    /// Turns of everybody until nothing happens any more.
    fn settle(&mut self) {
        let mut idle = 0;
        while idle < 5 {
            idle = if self.turn() { 0 } else { idle + 1 };
        }
    }

    /// Requests that came to the server, of all who are there.
    fn asked(&self) -> usize {
        self.sims.iter().map(|sim| sim.server.log.len()).sum()
    }

    fn handles(&self) -> usize {
        self.sims.iter().map(|sim| sim.server.handles()).sum()
    }
}

fn content(len: usize, salt: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i / 1000 + i + salt) % 251).unwrap();
    (0..len).map(byte).collect()
}

/// Loses connections in some turns, and has another come in its place or not.
fn losses<W: Work>(losses: Vec<(usize, usize)>) -> impl FnMut(&mut Team, &Outcome<W>, usize) {
    move |team, outcome, turn| {
        for &(when, which) in &losses {
            if when == turn {
                team.lose(which);
                team.grow(outcome);
            }
        }
    }
}

fn arb_losses() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0..60_usize, 0..4_usize), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_download_by_many_with_losses_is_whole(
        channels in 1..4_usize, shuffle in any::<bool>(), seed in any::<u64>(),
        large in 0..2_000_000_usize, small in 0..40_usize, cuts in arb_losses(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut team = Team::new(Habits { shuffle, ..Habits::default() }, seed);
        let server = &mut team.sims[0].server;
        server.dir("/t");
        server.dir("/t/sub");
        server.file("/t/large", content(large, 1));
        for n in 0..small {
            server.file(&format!("/t/sub/{n}"), content(n * 900, n));
        }
        team.nodes = server.nodes.clone();
        let progress = Arc::new(Progress::new());
        let options = GetOptions::new().recursive(true).progress(Arc::clone(&progress));
        let shared = team.sims[0].sftp.shared().clone();
        let local = dir.path().join("t");
        let mut outcome = get::start_to_path(&shared, "/t".into(), local.clone(), options);
        for _ in 1..channels {
            team.grow(&outcome);
        }
        let report = team.run(&mut outcome, losses(cuts)).unwrap();
        prop_assert_eq!((report.files, report.directories), (1 + small as u64, 2));
        // Nothing is counted twice, whatever came twice.
        prop_assert_eq!(progress.files_done(), report.files);
        prop_assert_eq!((progress.bytes_done(), progress.bytes_total()), (report.bytes, report.bytes));
        prop_assert!(fs::read(local.join("large")).unwrap() == content(large, 1));
        for n in 0..small {
            let found = fs::read(local.join(format!("sub/{n}"))).unwrap();
            prop_assert!(found == content(n * 900, n));
        }
        prop_assert_eq!(fs::read_dir(&local).unwrap().count(), 2);
        prop_assert_eq!(fs::read_dir(local.join("sub")).unwrap().count(), small);
        prop_assert_eq!(team.handles(), 0);
    }

    #[test]
    fn an_upload_by_many_with_losses_is_whole(
        channels in 1..4_usize, shuffle in any::<bool>(), seed in any::<u64>(), posix in any::<bool>(),
        large in 0..2_000_000_usize, small in 0..40_usize, cuts in arb_losses(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("large"), content(large, 1)).unwrap();
        for n in 0..small {
            fs::write(dir.path().join(format!("sub/{n}")), content(n * 900, n)).unwrap();
        }
        let mut habits = Habits { shuffle, ..Habits::default() };
        habits.extensions.retain(|&name| posix || name != ExtensionName::PosixRename);
        let mut team = Team::new(habits, seed);
        let progress = Arc::new(Progress::new());
        let options = PutOptions::new().recursive(true).progress(Arc::clone(&progress));
        let shared = team.sims[0].sftp.shared().clone();
        let mut outcome =
            put::start_from_path(&shared, dir.path().to_owned(), "/t".into(), options);
        for _ in 1..channels {
            team.grow(&outcome);
        }
        let report = team.run(&mut outcome, losses(cuts)).unwrap();
        prop_assert_eq!((report.files, report.directories), (1 + small as u64, 2));
        prop_assert_eq!(progress.files_done(), report.files);
        prop_assert_eq!((progress.bytes_done(), progress.bytes_total()), (report.bytes, report.bytes));
        let mut expected = BTreeMap::from([
            (b"/".to_vec(), None),
            (b"/t".to_vec(), None),
            (b"/t/sub".to_vec(), None),
            (b"/t/large".to_vec(), Some(content(large, 1))),
        ]);
        for n in 0..small {
            expected.insert(format!("/t/sub/{n}").into_bytes(), Some(content(n * 900, n)));
        }
        let found: BTreeMap<_, _> = team.nodes.iter().map(|(path, node)| {
            let data = match node {
                Node::File { data, .. } => Some(data.clone()),
                Node::Dir | Node::Link => None,
            };
            (path.clone(), data)
        }).collect();
        let names = |of: &BTreeMap<Vec<u8>, _>| -> Vec<RemotePath> {
            of.keys().map(|path| RemotePath::from(&path[..])).collect()
        };
        prop_assert_eq!(names(&found), names(&expected));
        prop_assert!(found == expected);
        prop_assert_eq!(team.handles(), 0);
    }
}

#[test]
fn several_channels_share_one_large_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut team = Team::new(Habits::default(), 1);
    let whole = content(16_000_000, 3);
    team.sims[0].server.file("/a", whole.clone());
    team.nodes = team.sims[0].server.nodes.clone();
    let shared = team.sims[0].sftp.shared().clone();
    let local = dir.path().join("a");
    let mut down = get::start_to_path(&shared, "/a".into(), local.clone(), GetOptions::new());
    team.grow(&down);
    team.grow(&down);
    let report = team.run(&mut down, |_, _, _| {}).unwrap();
    assert_eq!((report.files, report.bytes), (1, 16_000_000));
    assert!(fs::read(&local).unwrap() == whole);
    for sim in &team.sims {
        let reads = sim.server.asked(PacketType::READ);
        assert!(reads > 10, "everybody reads: {reads}");
    }
    let shared = team.sims[0].sftp.shared().clone();
    let mut up = put::start_from_path(&shared, local, "/b".into(), PutOptions::new());
    for sim in &team.sims[1..] {
        up.add_worker(sim.sftp.shared(), None);
    }
    let report = team.run(&mut up, |_, _, _| {}).unwrap();
    assert_eq!((report.files, report.bytes), (1, 16_000_000));
    let Some(Node::File { data, .. }) = team.nodes.get(&b"/b"[..]) else {
        panic!("not there");
    };
    assert!(*data == whole);
    assert_eq!(team.nodes.len(), 3);
    for sim in &team.sims {
        let writes = sim.server.asked(PacketType::WRITE);
        assert!(writes > 10, "everybody writes: {writes}");
    }
}

#[test]
fn a_plan_without_a_second_chance_ends_with_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut team = Team::new(Habits::default(), 1);
    team.sims[0].server.file("/a", content(3_000_000, 3));
    team.nodes = team.sims[0].server.nodes.clone();
    let shared = team.sims[0].sftp.shared().clone();
    let local = dir.path().join("a");
    team.may_be_lost = false;
    let mut down = get::start_to_path(&shared, "/a".into(), local, GetOptions::new());
    let error = team
        .run(&mut down, |team, _, turn| {
            if turn == 12 {
                team.lose(0);
            }
        })
        .unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn one_channel_s_failure_ends_the_file_for_all_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(3_000_000, 3)).unwrap();
    for nth in [1, 5, 9] {
        let habits = Habits {
            fails: Some((PacketType::WRITE, nth, StatusCode::FAILURE)),
            ..Habits::default()
        };
        let mut team = Team::new(habits, 1);
        let shared = team.sims[0].sftp.shared().clone();
        let from = dir.path().join("a");
        let mut up = put::start_from_path(&shared, from, "/b".into(), PutOptions::new());
        team.grow(&up);
        team.grow(&up);
        let error = team.run(&mut up, |_, _, _| {}).unwrap_err();
        assert!(matches!(error, TransferError::Refused { .. }), "{error}");
        assert_eq!(team.nodes.len(), 1);
        assert_eq!(team.handles(), 0);
    }
}

#[test]
fn giving_up_leaves_nothing_on_any_channel() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(3_000_000, 3)).unwrap();
    let mut team = Team::new(Habits::default(), 1);
    let shared = team.sims[0].sftp.shared().clone();
    let from = dir.path().join("a");
    let mut up = put::start_from_path(&shared, from, "/b".into(), PutOptions::new());
    team.grow(&up);
    for _ in 0..12 {
        assert!(poll(Pin::new(&mut up)).is_none());
        team.turn();
    }
    assert_eq!(team.nodes.len(), 2);
    drop(up);
    for _ in 0..20 {
        team.turn();
    }
    assert_eq!(team.nodes.len(), 1);
    assert_eq!(team.handles(), 0);
}

#[test]
fn all_channels_of_a_transfer_pause_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(12_000_000, 3)).unwrap();
    let mut team = Team::new(Habits::default(), 1);
    let shared = team.sims[0].sftp.shared().clone();
    let control = Control::new();
    let options = PutOptions::new().control(control.clone());
    let mut up = put::start_from_path(&shared, dir.path().join("a"), "/b".into(), options);
    team.grow(&up);
    team.grow(&up);
    for _ in 0..20 {
        assert!(poll(Pin::new(&mut up)).is_none());
        team.turn();
    }
    control.pause();
    team.turn();
    team.settle();
    let asked = team.asked();
    team.settle();
    assert_eq!(team.asked(), asked);
    // A channel that is lost meanwhile is not missed before it is needed.
    team.lose(1);
    team.settle();
    assert_eq!(
        team.asked(),
        team.sims.iter().map(|sim| sim.server.log.len()).sum()
    );
    assert!(poll(Pin::new(&mut up)).is_none());
    control.resume();
    let report = team.run(&mut up, |_, _, _| {}).unwrap();
    assert_eq!((report.files, report.bytes), (1, 12_000_000));
    let Some(Node::File { data, .. }) = team.nodes.get(&b"/b"[..]) else {
        panic!("not there");
    };
    assert!(*data == content(12_000_000, 3));
    assert_eq!(team.nodes.len(), 2);
}

#[test]
fn all_channels_of_a_cancelled_transfer_take_back_what_they_began() {
    for turns in [0, 3, 12, 20] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), content(12_000_000, 3)).unwrap();
        let mut team = Team::new(Habits::default(), 1);
        let shared = team.sims[0].sftp.shared().clone();
        let control = Control::new();
        let options = PutOptions::new().control(control.clone());
        let mut up = put::start_from_path(&shared, dir.path().join("a"), "/b".into(), options);
        team.grow(&up);
        team.grow(&up);
        let cancel = |_: &mut Team, _: &Outcome<put::Up>, turn| {
            if turn == turns {
                control.cancel();
            }
        };
        let error = team.run(&mut up, cancel).unwrap_err();
        assert_eq!(error.kind(), Kind::Cancelled, "{error}");
        assert_eq!((team.nodes.len(), team.handles()), (1, 0));
    }
}

#[test]
fn a_transfer_whose_connection_is_being_made_anew_is_cancelled_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut team = Team::new(Habits::default(), 1);
    team.sims[0].server.file("/a", content(3_000_000, 3));
    team.nodes = team.sims[0].server.nodes.clone();
    let shared = team.sims[0].sftp.shared().clone();
    let control = Control::new();
    let options = GetOptions::new().control(control.clone());
    let mut down = get::start_to_path(&shared, "/a".into(), dir.path().join("a"), options);
    down.plan().set_second_chance(true);
    for _ in 0..12 {
        assert!(poll(Pin::new(&mut down)).is_none());
        team.turn();
    }
    team.lose(0);
    assert!(poll(Pin::new(&mut down)).is_none(), "another may come");
    control.cancel();
    let error = poll(Pin::new(&mut down)).expect("an end").unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
    drop(down);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Time passes until the channels that wait for their server have waited too long.
fn stall(team: &mut Team) {
    team.settle();
    for sim in &mut team.sims {
        sim.pass_time(Duration::from_secs(61));
    }
}

#[test]
fn a_channel_that_stalls_leaves_its_work_to_the_others() {
    for way in ["down", "up"] {
        for seed in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            let mut team = Team::new(Habits::default(), seed);
            let shared = team.sims[0].sftp.shared().clone();
            let whole = content(6_000_000, 3);
            fs::write(dir.path().join("a"), &whole).unwrap();
            team.sims[0].server.file("/a", whole.clone());
            team.nodes = team.sims[0].server.nodes.clone();
            let begun = content(9_000, 1);
            let small = (0..60).map(|n| format!("{n}"));
            let run = |team: &mut Team, silent: PacketType| {
                // The others answer; this one says nothing from here on.
                team.sims[1].server.habits.silent_from = Some((silent, 3));
                team.sims[1].server.habits.silent_for_good = true;
            };
            if way == "down" {
                for name in small {
                    team.nodes.insert(
                        format!("/{name}").into_bytes(),
                        Node::File {
                            data: begun.clone(),
                            times: None,
                            mode: 0o644,
                        },
                    );
                }
                let local = dir.path().join("copy");
                let options = GetOptions::new().recursive(true);
                let mut down = get::start_to_path(&shared, "/".into(), local.clone(), options);
                team.grow(&down);
                team.grow(&down);
                run(&mut team, PacketType::READ);
                let report = finish(&mut team, &mut down);
                assert_eq!((report.files, report.failed_count), (61, 0));
                assert!(fs::read(local.join("a")).unwrap() == whole);
                for n in 0..60 {
                    assert!(fs::read(local.join(n.to_string())).unwrap() == begun);
                }
                assert_eq!(fs::read_dir(&local).unwrap().count(), 61);
            } else {
                let from = dir.path().join("from");
                fs::create_dir(&from).unwrap();
                fs::rename(dir.path().join("a"), from.join("a")).unwrap();
                for name in small {
                    fs::write(from.join(name), &begun).unwrap();
                }
                let options = PutOptions::new().recursive(true);
                let mut up = put::start_from_path(&shared, from, "/t".into(), options);
                team.grow(&up);
                team.grow(&up);
                run(&mut team, PacketType::WRITE);
                let report = finish(&mut team, &mut up);
                assert_eq!((report.files, report.failed_count), (61, 0));
                let data = |path: &str| match team.nodes.get(path.as_bytes()) {
                    Some(Node::File { data, .. }) => data.clone(),
                    _ => panic!("{path} is not there"),
                };
                assert!(data("/t/a") == whole);
                for n in 0..60 {
                    assert!(data(&format!("/t/{n}")) == begun);
                }
                // The root, what was there, the directory, and the files: nothing else.
                assert_eq!(team.nodes.len(), 3 + 61, "{:?}", team.nodes.keys());
            }
        }
    }
}

/// A directory of which a listing brings some names at a time: some are taken, some left out, some no
/// names.
fn long_listing() -> (Habits, Server) {
    let habits = Habits {
        names_max: 3,
        evil: vec![b"a/b".to_vec(), b"a/c".to_vec()],
        silent_from: Some((PacketType::READDIR, 9)),
        ..Habits::default()
    };
    let mut server = Server::new(habits.clone(), 1);
    server.dir("/t");
    for n in 0..40 {
        server.file(&format!("/t/{n}"), content(900 + n, n));
        server.file(&format!("/t/{n}.no"), content(9, n));
    }
    (habits, server)
}

/// It is taken as often as it is there.
fn assert_not_doubled(result: Result<Report, TransferError>, progress: &Progress) {
    let Err(TransferError::Incomplete { report }) = result else {
        panic!("{result:?}")
    };
    assert_eq!((report.files, report.directories), (40, 1), "{report:?}");
    assert_eq!((report.excluded, report.failed_count), (40, 2));
    assert_eq!(report.bytes, (900..940).sum::<u64>());
    assert_eq!(progress.files_done(), 40);
    assert_eq!(progress.bytes_done(), report.bytes);
}

#[test]
fn a_listing_that_stalls_is_begun_again_and_brings_nothing_twice() {
    // Neither needs a connection that can be made anew: the same channel goes on with one request at
    // a time, or another one of the session comes.
    for is_same in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (habits, server) = long_listing();
        let mut team = Team::new(habits, 1);
        if is_same {
            team.sims = vec![Sim::of(team.habits.clone(), 1, Settings::default())];
        }
        team.nodes = server.nodes;
        let progress = Arc::new(Progress::new());
        let options = GetOptions::new()
            .recursive(true)
            .select(Filter::new().exclude("*.no").unwrap())
            .progress(Arc::clone(&progress));
        let shared = team.sims[0].sftp.shared().clone();
        let mut down = get::start_to_path(&shared, "/t".into(), dir.path().join("t"), options);
        if !is_same {
            down.plan().set_other_channels();
        }
        team.settle();
        assert!(poll(Pin::new(&mut down)).is_none());
        let done = progress.files_done();
        assert!((1..40).contains(&done), "it stalls in the middle: {done}");
        stall(&mut team);
        team.habits.silent_from = None;
        team.sims[0].server.habits.silent_from = None;
        team.settle();
        if !is_same {
            assert_eq!(down.plan().facts().workers, 0, "the channel was left");
            team.grow(&down);
        }
        let mut result = None;
        for _ in 0..1000 {
            result = result.or_else(|| poll(Pin::new(&mut down)));
            team.turn();
        }
        assert_not_doubled(result.expect("an end"), &progress);
        assert_eq!(team.sims.last().expect("one").server.handles(), 0);
    }
}

#[test]
fn sizes_that_add_up_to_more_than_a_number_holds_are_no_overflow() {
    let dir = tempfile::tempdir().unwrap();
    let habits = Habits {
        silent_from: Some((PacketType::READ, 1)),
        ..Habits::default()
    };
    let mut team = Team::new(habits, 1);
    team.sims[0].server.lies = Some(Box::new(|id, request| {
        let Request::Readdir(_) = request else {
            return None;
        };
        let attrs = Attrs {
            size: Some(1 << 63),
            times: Some(Times { atime: 1, mtime: 1 }),
            ..Attrs::with_permissions(FileType::Regular.mode_bits() | 0o644)
        };
        let entry = |filename| NameEntry {
            filename,
            longname: b"",
            attrs: attrs.into(),
        };
        let mut bytes = Vec::new();
        Response::Name(Names::new(&[entry(b"a"), entry(b"b"), entry(b"c")]))
            .encode_packet(id, &mut bytes);
        Some(bytes)
    }));
    for name in ["a", "b", "c"] {
        let path = format!("/{name}");
        team.sims[0].server.file(&path, content(9, 1));
    }
    team.nodes = team.sims[0].server.nodes.clone();
    let shared = team.sims[0].sftp.shared().clone();
    let local = dir.path().join("t");
    let options = GetOptions::new().recursive(true);
    let down = get::start_to_path(&shared, "/".into(), local, options);
    // Each begins a file of its own.
    team.grow(&down);
    team.grow(&down);
    for _ in 0..40 {
        team.turn();
    }
    assert_eq!(down.plan().facts().joint_bytes, u64::MAX);
    assert_eq!(down.plan().seen().left, u64::MAX);
}

/// Turns until it is done; channels whose server is silent wait too long when nothing else happens.
fn finish<W: Work>(team: &mut Team, outcome: &mut Outcome<W>) -> Report {
    let (mut idle, mut stalls) = (0, 0);
    for _ in 0..100_000 {
        if let Some(result) = poll(Pin::new(&mut *outcome)) {
            assert!(stalls > 0, "nothing stalled");
            return result.unwrap();
        }
        idle = if team.turn() { 0 } else { idle + 1 };
        if idle > 10 {
            stall(team);
            (idle, stalls) = (0, stalls + 1);
            assert!(stalls < 5, "nothing happens any more");
        }
    }
    panic!("no end in sight");
}

/// Has the further channels hold, then leave; says how many requests they saw after that.
fn leave_early<W: Work>(team: &mut Team, outcome: &mut Outcome<W>, turns: usize) -> Report {
    for _ in 0..turns {
        assert!(
            poll(Pin::new(&mut *outcome)).is_none(),
            "it ended too early"
        );
        team.turn();
    }
    let further = |team: &Team| -> Vec<usize> {
        team.sims[1..]
            .iter()
            .map(|sim| sim.server.log.len())
            .collect()
    };
    outcome.plan().order_further(Order::Hold);
    for _ in 0..20 {
        team.turn();
    }
    let asked = further(team);
    assert!(
        asked.iter().all(|asked| *asked > 0),
        "they worked: {asked:?}"
    );
    for _ in 0..5 {
        assert!(
            poll(Pin::new(&mut *outcome)).is_none(),
            "it ended too early"
        );
        team.turn();
    }
    assert_eq!(further(team), asked, "who is held asks for nothing");
    outcome.plan().order_further(Order::Leave);
    for _ in 0..10 {
        team.turn();
    }
    assert_eq!(outcome.plan().facts().workers, 1, "they are gone");
    let asked = further(team);
    let report = team.run(outcome, |_, _, _| {}).unwrap();
    assert_eq!(
        further(team),
        asked,
        "nothing more is asked of those who left"
    );
    assert_eq!(team.handles(), 0);
    report
}

/// The first request of an upload leaves with the login, so its answer is late on any path.
#[test]
fn a_first_answer_that_was_late_hides_no_short_path() {
    let team = Team::new(Habits::default(), 1);
    let items = (0..MANY_FILES).map(|n| {
        let path = format!("/t/{n}");
        (path.clone().into(), path.as_str().into())
    });
    let shared = team.sims[0].sftp.shared();
    let outcome = put::start_all(shared, items, PutOptions::new());
    let late = Duration::from_millis(20); // a long path, to all appearances
    let tell = |rtt| {
        outcome.plan().on_many_files(Some(rtt));
        outcome.plan().facts().rtt
    };
    assert_eq!(tell(late), Some(late));
    assert_eq!(tell(late / 2), Some(late), "as long as it was");
    assert_eq!(tell(late / 50), Some(late / 50));
    assert_eq!(tell(late / 100), Some(late / 50), "that is known");
}

#[test]
fn channels_that_do_not_pay_give_back_what_they_have() {
    for turns in [8, 18] {
        let dir = tempfile::tempdir().unwrap();
        let local = dir.path().join("t");
        fs::create_dir(&local).unwrap();
        fs::write(local.join("large"), content(16_000_000, 1)).unwrap();
        for n in 0..40 {
            fs::write(local.join(n.to_string()), content(n * 900, n)).unwrap();
        }
        let mut team = Team::new(Habits::default(), 1);
        let shared = team.sims[0].sftp.shared().clone();
        let progress = Arc::new(Progress::new());
        let options = PutOptions::new()
            .recursive(true)
            .progress(Arc::clone(&progress));
        let mut up = put::start_from_path(&shared, local.clone(), "/t".into(), options);
        team.grow(&up);
        team.grow(&up);
        let report = leave_early(&mut team, &mut up, turns);
        assert_eq!((report.files, progress.bytes_done()), (41, report.bytes));
        assert_eq!(team.nodes.len(), 2 + 41, "{:?}", team.nodes.keys());

        let back = dir.path().join("back");
        let mut others = Team::new(Habits::default(), 2);
        others.nodes = team.nodes.clone();
        let shared = others.sims[0].sftp.shared().clone();
        let progress = Arc::new(Progress::new());
        let options = GetOptions::new()
            .recursive(true)
            .progress(Arc::clone(&progress));
        let mut down = get::start_to_path(&shared, "/t".into(), back.clone(), options);
        others.grow(&down);
        others.grow(&down);
        let report = leave_early(&mut others, &mut down, turns + 6);
        assert_eq!((report.files, progress.bytes_done()), (41, report.bytes));
        assert_eq!(fs::read_dir(&back).unwrap().count(), 41);
        assert!(fs::read(back.join("large")).unwrap() == content(16_000_000, 1));
        for n in 0..40 {
            assert!(fs::read(back.join(n.to_string())).unwrap() == content(n * 900, n));
        }
    }
}

#[test]
fn the_last_channel_stays_whatever_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut team = Team::new(Habits::default(), 1);
    team.sims[0].server.file("/a", content(3_000_000, 3));
    team.nodes = team.sims[0].server.nodes.clone();
    let shared = team.sims[0].sftp.shared().clone();
    let local = dir.path().join("a");
    let mut down = get::start_to_path(&shared, "/a".into(), local.clone(), GetOptions::new());
    team.grow(&down);
    for _ in 0..8 {
        assert!(poll(Pin::new(&mut down)).is_none());
        team.turn();
    }
    down.plan().order_further(Order::Leave);
    team.lose(0);
    let report = team.run(&mut down, |_, _, _| {}).unwrap();
    assert_eq!(report.files, 1);
    assert!(fs::read(&local).unwrap() == content(3_000_000, 3));
}

#[test]
fn a_temporary_file_that_a_lost_connection_creates_late_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(3_000, 3)).unwrap();
    let mut team = Team::new(Habits::default(), 1);
    let shared = team.sims[0].sftp.shared().clone();
    let from = dir.path().join("a");
    let mut up = put::start_from_path(&shared, from, "/b".into(), PutOptions::new());
    up.plan().set_second_chance(true);
    while team.sims[0].server.asked(PacketType::OPEN) == 0 {
        assert!(poll(Pin::new(&mut up)).is_none());
        team.turn();
    }
    // The request is there, and nothing came of it yet.
    let (temporary, late) = team.nodes.pop_first().map_or_else(
        || panic!("no root"),
        |root| {
            let late = team.nodes.pop_first().expect("a temporary file");
            team.nodes.insert(root.0, root.1);
            late
        },
    );
    team.lose(0);
    team.grow(&up);
    let mut is_late = false;
    let report = team
        .run(&mut up, |team, _, _| {
            if !is_late && team.sims[0].server.asked(PacketType::REMOVE) > 0 {
                is_late = true;
                team.nodes.insert(temporary.clone(), late.clone());
            }
        })
        .unwrap();
    assert!(is_late);
    assert_eq!(report.files, 1);
    let names: Vec<_> = team
        .nodes
        .keys()
        .map(|path| RemotePath::from(&path[..]))
        .collect();
    assert_eq!(names, [RemotePath::from("/"), RemotePath::from("/b")]);
}

#[test]
fn what_a_lost_connection_does_late_meets_no_file_of_the_next() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(3_000, 3)).unwrap();
    let mut team = Team::new(Habits::default(), 1);
    let shared = team.sims[0].sftp.shared().clone();
    let from = dir.path().join("a");
    let mut up = put::start_from_path(&shared, from, "/b".into(), PutOptions::new());
    up.plan().set_second_chance(true);
    while team.nodes.len() < 2 {
        assert!(poll(Pin::new(&mut up)).is_none());
        team.turn();
    }
    let temporaries = |team: &Team| -> Vec<Vec<u8>> {
        team.nodes
            .keys()
            .filter(|path| path.len() > 2)
            .cloned()
            .collect()
    };
    let first = temporaries(&team);
    // The next connection asks for its removal, is lost as well, and a third one comes.
    team.lose(0);
    team.grow(&up);
    while team.sims[0].server.asked(PacketType::REMOVE) == 0 {
        assert!(poll(Pin::new(&mut up)).is_none());
        team.turn();
    }
    team.lose(0);
    team.grow(&up);
    let report = team
        .run(&mut up, |team, _, _| {
            // The removal is done only now: of whatever has that name.
            for path in &first {
                let is_there = team.sims[0].server.asked(PacketType::OPEN) > 0;
                if is_there {
                    team.nodes.remove(path);
                }
            }
        })
        .unwrap();
    assert_eq!((report.files, team.nodes.len()), (1, 2));
}
