//! Links in trees that are copied: left out, followed, or made anew; against OpenSSH's server, and
//! against one that lies.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
};

use ketch_protocol::{
    Attrs, Extension, FileType, NameEntry, Names, PacketType, Request, RequestId, Response, Status,
    StatusCode,
};

use super::{
    pipe::Pipe,
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{
    Failure, Filter, GetOptions, Kind, Links, Overwrite, PutOptions, Remarkable, Report,
    SyncOptions, TransferError, WhySkipped, transfer::put,
};

/// What is in a directory, with what is below it: files with their content, links with where they
/// lead.
fn seen(dir: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let file_type = entry.file_type().unwrap();
        if file_type.is_dir() {
            let below = seen(&entry.path());
            all.extend(below.into_iter().map(|below| format!("{name}/{below}")));
            all.insert(name);
        } else if file_type.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            all.insert(format!("{name} -> {}", target.display()));
        } else {
            let content = fs::read_to_string(entry.path()).unwrap();
            all.insert(format!("{name}: {content}"));
        }
    }
    all
}

fn set(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

/// Links of every kind: to a file, to a directory beside, up into a circle, to nothing, to itself,
/// out, and absolute.
fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("from/a/deep")).unwrap();
    fs::create_dir(dir.join("from/b")).unwrap();
    fs::create_dir(dir.join("outside")).unwrap();
    fs::write(dir.join("from/f"), "f").unwrap();
    fs::write(dir.join("from/a/g"), "g").unwrap();
    fs::write(dir.join("from/a/deep/h"), "h").unwrap();
    fs::write(dir.join("outside/secret"), "s").unwrap();
    symlink("f", dir.join("from/to_f")).unwrap();
    symlink("../a/deep", dir.join("from/b/to_deep")).unwrap();
    symlink("..", dir.join("from/a/up")).unwrap();
    symlink("nowhere", dir.join("from/broken")).unwrap();
    symlink("round", dir.join("from/round")).unwrap();
    symlink("../outside", dir.join("from/out")).unwrap();
    symlink(dir.join("outside/secret"), dir.join("from/absolute")).unwrap();
}

const PLAIN: [&str; 6] = ["f: f", "a", "a/g: g", "a/deep", "a/deep/h: h", "b"];

fn followed() -> BTreeSet<String> {
    let more = set(&[
        "to_f: f",
        "b/to_deep",
        "b/to_deep/h: h",
        "out",
        "out/secret: s",
        "absolute: s",
    ]);
    &set(&PLAIN) | &more
}

fn skipped(report: &Report) -> BTreeSet<(String, WhySkipped)> {
    let name = |place: &crate::Place| {
        let place = place.to_string();
        let (_, name) = place.split_once("from/").unwrap_or_default();
        name.to_owned()
    };
    let skipped = report.skipped.iter();
    skipped
        .map(|skipped| (name(&skipped.place), skipped.why))
        .collect()
}

impl PartialOrd for WhySkipped {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WhySkipped {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        format!("{self:?}").cmp(&format!("{other:?}"))
    }
}

fn why(all: &[(&str, WhySkipped)]) -> BTreeSet<(String, WhySkipped)> {
    all.iter()
        .map(|&(name, why)| (name.to_owned(), why))
        .collect()
}

const CIRCLES: [(&str, WhySkipped); 3] = [
    ("a/up", WhySkipped::LeadsBack),
    ("broken", WhySkipped::LeadsNowhere),
    ("round", WhySkipped::LeadsNowhere),
];

#[test]
fn a_tree_of_links_is_downloaded_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let mut get = |to: &str, links| {
        let options = GetOptions::new()
            .recursive(true)
            .preserve_times(true)
            .links(links);
        let report = pipe.run(sftp.get("from", dir.path().join(to), options));
        (report.unwrap(), seen(&dir.path().join(to)))
    };
    let (report, has) = get("skip", Links::Skip);
    assert_eq!((has, report.skipped_count), (set(&PLAIN), 7));

    let (report, has) = get("follow", Links::Follow);
    assert_eq!(has, followed());
    assert_eq!(skipped(&report), why(&CIRCLES));
    assert_eq!((report.files, report.directories, report.links), (7, 6, 0));

    for _ in 0..2 {
        let (report, has) = get("copy", Links::Copy);
        let links = set(&[
            "to_f -> f",
            "b/to_deep -> ../a/deep",
            "a/up -> ..",
            "broken -> nowhere",
            "round -> round",
        ]);
        assert_eq!(has, &set(&PLAIN) | &links);
        let out = [
            ("absolute", WhySkipped::LeadsOut),
            ("out", WhySkipped::LeadsOut),
        ];
        assert_eq!(skipped(&report), why(&out));
        assert_eq!((report.files, report.links), (3, 5));
    }
    let time = |side: &str| {
        let metadata = fs::symlink_metadata(dir.path().join(side).join("to_f"));
        crate::platform::seconds(metadata.unwrap().modified().unwrap())
    };
    assert_eq!(time("copy"), time("from"));
}

#[test]
fn a_tree_of_links_is_uploaded_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let mut put = |to: &str, links, overwrite| {
        let options = PutOptions::new()
            .recursive(true)
            .links(links)
            .overwrite(overwrite);
        let result = pipe.run(sftp.put(dir.path().join("from"), to, options));
        (result, seen(&dir.path().join(to)))
    };
    let (report, has) = put("skip", Links::Skip, Overwrite::Replace);
    assert_eq!((has, report.unwrap().skipped_count), (set(&PLAIN), 7));

    let (report, has) = put("follow", Links::Follow, Overwrite::Replace);
    assert_eq!(has, followed());
    assert_eq!(skipped(&report.unwrap()), why(&CIRCLES));

    let absolute = format!(
        "absolute -> {}",
        dir.path().join("outside/secret").display()
    );
    let links = set(&[
        "to_f -> f",
        "b/to_deep -> ../a/deep",
        "a/up -> ..",
        "broken -> nowhere",
        "round -> round",
        "out -> ../outside",
        &absolute,
    ]);
    for _ in 0..2 {
        let (report, has) = put("copy", Links::Copy, Overwrite::Replace);
        assert_eq!(has, &set(&PLAIN) | &links);
        let report = report.unwrap();
        assert_eq!(
            (report.files, report.links, report.skipped_count),
            (3, 7, 0)
        );
    }
    // What is there stays where it is to.
    fs::remove_file(dir.path().join("copy/to_f")).unwrap();
    fs::write(dir.path().join("copy/to_f"), "mine").unwrap();
    let (result, has) = put("copy", Links::Copy, Overwrite::Never);
    let TransferError::Incomplete { report } = result.unwrap_err() else {
        panic!()
    };
    assert_eq!((report.links, report.failed_count), (0, 10));
    assert!(has.contains("to_f: mine"));
    // A link takes the place of a file, and of nothing else.
    fs::remove_file(dir.path().join("copy/broken")).unwrap();
    fs::create_dir(dir.path().join("copy/broken")).unwrap();
    let (result, has) = put("copy", Links::Copy, Overwrite::Replace);
    let TransferError::Incomplete { report } = result.unwrap_err() else {
        panic!()
    };
    assert_eq!((report.links, report.failed_count), (6, 1));
    assert!(has.contains("to_f -> f") && has.contains("broken"));
    let temporary = |line: &String| line.contains(".ketch-");
    assert!(!has.iter().any(temporary), "{has:?}");
}

#[test]
fn what_is_followed_is_filtered_as_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let filter = || {
        let filter = Filter::new().exclude("to_*/").unwrap();
        filter.exclude("secret").unwrap()
    };
    let get = GetOptions::new().recursive(true).links(Links::Follow);
    let get = get.select(filter());
    let report = pipe.run(sftp.get("from", dir.path().join("here"), get));
    let put = PutOptions::new().recursive(true).links(Links::Follow);
    let put = put.select(filter());
    let sent = pipe.run(sftp.put(dir.path().join("from"), "there", put));
    assert_eq!(report.unwrap().excluded, 2);
    assert_eq!(sent.unwrap().excluded, 2);
    let mut wanted = followed();
    for gone in ["b/to_deep", "b/to_deep/h: h", "out/secret: s"] {
        wanted.remove(gone);
    }
    assert_eq!(seen(&dir.path().join("here")), wanted);
    assert_eq!(seen(&dir.path().join("there")), wanted);
}

fn packet(id: RequestId, response: &Response<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    response.encode_packet(id, &mut out);
    out
}

fn of_kind(file_type: FileType) -> Attrs {
    Attrs::with_permissions(file_type.mode_bits() | 0o777)
}

fn entry(name: &[u8], attrs: Attrs) -> NameEntry<'_> {
    NameEntry {
        filename: name,
        longname: b"",
        attrs: attrs.into(),
    }
}

/// A server whose `/t` holds what is said, once, whose links lead to `target`, and that calls
/// everything a file that it is asked about.
fn liar(listed: &'static [(&'static str, FileType)], target: &'static [u8]) -> Sim {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.server.dir("/t");
    for (name, file_type) in listed {
        let path = format!("/t/{name}");
        if *file_type == FileType::Directory {
            sim.server.dir(&path);
            sim.server.file(&format!("{path}/f"), b"evil".to_vec());
        } else {
            sim.server.file(&path, b"evil".to_vec());
        }
    }
    let mut turns = 0;
    sim.server.lies = Some(Box::new(move |id, request| match request {
        Request::Readdir(_) if turns < 2 => {
            turns += 1;
            let entries: Vec<_> = listed
                .iter()
                .map(|(name, file_type)| entry(name.as_bytes(), of_kind(*file_type)))
                .collect();
            let end = Status::new(StatusCode::EOF);
            Some(match turns {
                1 => packet(id, &Response::Name(Names::new(&entries))),
                _ => packet(id, &Response::Status(end)),
            })
        }
        Request::Readlink(_) => {
            let entries = [entry(target, Attrs::NONE)];
            Some(packet(id, &Response::Name(Names::new(&entries))))
        }
        _ => None,
    }));
    sim
}

#[test]
fn nothing_is_written_through_a_link_that_the_server_planted() {
    const LINK: (&str, FileType) = ("x", FileType::Symlink);
    const DIRECTORY: (&str, FileType) = ("x", FileType::Directory);
    for listed in [&[LINK, DIRECTORY], &[DIRECTORY, LINK]] {
        // Outside stands what a link would lead to.
        let outside = tempfile::tempdir().unwrap();
        let dir = outside.path().join("here");
        fs::create_dir_all(dir.join("victim")).unwrap();
        let mut sim = liar(listed, b"victim");
        let sftp = sim.sftp.clone();
        let options = GetOptions::new().recursive(true).links(Links::Copy);
        let result = sim.run(sftp.get("/t", &dir, options));
        let has = seen(&dir);
        assert!(
            !has.iter().any(|line| line.starts_with("victim/")),
            "{has:?}"
        );
        // One of the two has the name, and the other has failed.
        match result {
            Err(TransferError::Incomplete { report }) => {
                assert_eq!(report.failed_count, 1, "{has:?}");
            }
            other => panic!("{other:?} {has:?}"),
        }
        assert!(
            has.contains("x -> victim") || has.contains("x/f: evil"),
            "{has:?}"
        );
    }
}

#[test]
fn links_out_of_the_destination_are_not_made() {
    let targets: [&[u8]; 7] = [
        b"/etc/passwd",
        b"..",
        b"../victim",
        b"y/../../victim",
        b"./../victim",
        b"a\0b",
        b"",
    ];
    for target in targets {
        let outside = tempfile::tempdir().unwrap();
        let dir = outside.path().join("here");
        let mut sim = liar(
            &[("x", FileType::Symlink), ("y", FileType::Regular)],
            target,
        );
        let sftp = sim.sftp.clone();
        let options = GetOptions::new().recursive(true).links(Links::Copy);
        let report = sim.run(sftp.get("/t", &dir, options)).unwrap();
        assert_eq!((report.files, report.links), (1, 0), "{target:?}");
        assert_eq!(report.skipped[0].why, WhySkipped::LeadsOut, "{target:?}");
        assert_eq!(seen(outside.path()), set(&["here", "here/y: evil"]));
    }
}

#[test]
fn a_circle_that_the_server_denies_ends_at_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.server.dir("/t");
    let mut turns = 0_u32;
    let mut places = 0_u32;
    // Every directory holds one link, which leads to a directory; each is said to be elsewhere.
    sim.server.lies = Some(Box::new(move |id, request| match request {
        Request::Stat(stat) if stat.path != b"/t" => {
            let attrs = of_kind(FileType::Directory);
            Some(packet(id, &Response::Attrs(attrs.into())))
        }
        Request::Realpath(_) => {
            places += 1;
            let name = format!("/{places}");
            let entries = [entry(name.as_bytes(), Attrs::NONE)];
            Some(packet(id, &Response::Name(Names::new(&entries))))
        }
        Request::Opendir(_) => {
            turns = 0;
            Some(packet(id, &Response::Handle(b"h")))
        }
        Request::Readdir(_) => {
            turns += 1;
            let entries = [entry(b"l", of_kind(FileType::Symlink))];
            let end = Status::new(StatusCode::EOF);
            Some(match turns {
                1 => packet(id, &Response::Name(Names::new(&entries))),
                _ => packet(id, &Response::Status(end)),
            })
        }
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    let options = GetOptions::new().recursive(true).links(Links::Follow);
    let error = sim.run(sftp.get("/t", dir.path(), options)).unwrap_err();
    let TransferError::Incomplete { report } = error else {
        panic!("{error:?}")
    };
    assert_eq!((report.failed_count, report.directories), (1, 65));
    assert!(matches!(
        report.failed[0].error,
        TransferError::TooMuch { .. }
    ));
}

/// What was asked about names, line by line.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server that has a link, a file or nothing at `/t/l`, and says `FAILURE` to what `refuses`
/// says of the lines that it keeps: `NAME -> TARGET`, `mv NAME`, `rm NAME`.
fn keeper(posix: bool, old: Option<Node>, refuses: fn(&str) -> bool) -> (Sim, Asked) {
    let mut habits = Habits::default();
    if !posix {
        habits.extensions.clear();
    }
    let mut sim = Sim::new(habits, 1);
    sim.settle();
    sim.server.dir("/t");
    if let Some(old) = old {
        sim.server.nodes.insert(b"/t/l".to_vec(), old);
    }
    let log = Asked::default();
    let told = Arc::clone(&log);
    sim.server.lies = Some(Box::new(move |id, request| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = match request {
            Request::Symlink(link) => format!("{} -> {}", text(link.link), text(link.target)),
            Request::Remove(remove) => format!("rm {}", text(remove.path)),
            Request::Rename(rename) => format!("mv {}", text(rename.to)),
            Request::Extended(Extension::PosixRename(rename)) => format!("mv {}", text(rename.to)),
            _ => return None,
        };
        let refused = refuses(&line);
        told.lock().unwrap().push(line);
        refused.then(|| packet(id, &Response::Status(Status::new(StatusCode::FAILURE))))
    }));
    (sim, log)
}

/// Puts a directory that holds nothing but the link `l`, and says what became of it.
fn put_link(sim: &mut Sim, overwrite: Overwrite) -> Result<Report, TransferError> {
    let dir = tempfile::tempdir().unwrap();
    symlink("f", dir.path().join("l")).unwrap();
    let sftp = sim.sftp.clone();
    let options = PutOptions::new().recursive(true).links(Links::Copy);
    let result = sim.run(sftp.put(dir.path(), "/t", options.overwrite(overwrite)));
    sim.settle();
    result
}

fn incomplete(result: Result<Report, TransferError>) -> Report {
    match result {
        Err(TransferError::Incomplete { report }) => *report,
        other => panic!("{other:?}"),
    }
}

fn remarks(report: &Report) -> Vec<Remarkable> {
    report.remarks.iter().map(|remark| remark.what).collect()
}

fn assert_asked(log: &Asked, wanted: &[&str]) {
    let log = log.lock().unwrap();
    assert_eq!(log.len(), wanted.len(), "{log:?}");
    for (line, wanted) in log.iter().zip(wanted) {
        // Its 16 digits are left to chance.
        let line = match line.split_once("/t/.l.ketch-") {
            Some((before, rest)) => format!("{before}TEMPORARY{}", &rest[16..]),
            None => line.clone(),
        };
        assert_eq!(line, *wanted);
    }
}

const MAKE: &str = "TEMPORARY -> f";
const RENAME: &str = "mv /t/l";
const CLEAR: &str = "rm /t/l";
const TIDY: &str = "rm TEMPORARY";

fn mine() -> Node {
    Node::File {
        data: b"mine".to_vec(),
        times: None,
        mode: 0o644,
    }
}

#[test]
fn a_server_without_posix_rename_loses_the_old_name_for_a_moment() {
    for (posix, old, wanted) in [
        (false, None, &[MAKE, RENAME][..]),
        (false, Some(Node::Link), &[MAKE, RENAME, CLEAR, RENAME]),
        (false, Some(mine()), &[MAKE, RENAME, CLEAR, RENAME]),
        (true, None, &[MAKE, RENAME]),
        (true, Some(mine()), &[MAKE, RENAME]),
    ] {
        let cleared = !posix && old.is_some();
        let (mut sim, log) = keeper(posix, old, |_| false);
        let report = put_link(&mut sim, Overwrite::Replace).unwrap();
        assert_eq!(report.links, 1);
        assert_asked(&log, wanted);
        let remarked = cleared.then_some(Remarkable::NotReplacedAtomically);
        assert_eq!(remarks(&report), Vec::from_iter(remarked));
        assert_eq!(sim.server.paths(), ["/", "/t", "/t/l"]);
        assert_eq!(sim.server.nodes[&b"/t/l"[..]], Node::Link);
    }
}

#[test]
fn a_link_that_cannot_be_made_takes_nothing_s_place() {
    for posix in [false, true] {
        for (overwrite, asked) in [(Overwrite::Replace, MAKE), (Overwrite::Never, "/t/l -> f")] {
            // No links, no room, no quota left: all of it is this one status.
            let (mut sim, log) = keeper(posix, Some(mine()), |line| line.contains(" -> "));
            let report = incomplete(put_link(&mut sim, overwrite));
            assert_eq!((report.links, report.failed_count), (0, 1));
            assert_asked(&log, &[asked]);
            assert_eq!(remarks(&report), []);
            assert_eq!(sim.server.paths(), ["/", "/t", "/t/l"]);
            assert_eq!(sim.server.nodes[&b"/t/l"[..]], mine());
        }
    }
}

#[test]
fn a_link_that_does_not_get_its_name_leaves_nothing_of_ours() {
    let no_rename: fn(&str) -> bool = |line| line == RENAME;
    let no_remove: fn(&str) -> bool = |line| line == RENAME || line == CLEAR;
    for (posix, old, refuses, wanted) in [
        (true, Some(mine()), no_rename, &[MAKE, RENAME, TIDY][..]),
        (false, Some(mine()), no_remove, &[MAKE, RENAME, CLEAR, TIDY]),
        (
            false,
            Some(mine()),
            no_rename,
            &[MAKE, RENAME, CLEAR, RENAME, TIDY],
        ),
        (false, None, no_rename, &[MAKE, RENAME, CLEAR, RENAME, TIDY]),
    ] {
        let was_there = old.is_some();
        let (mut sim, log) = keeper(posix, old, refuses);
        let report = incomplete(put_link(&mut sim, Overwrite::Replace));
        assert_eq!((report.links, report.failed_count), (0, 1));
        assert_asked(&log, wanted);
        let is_there = sim.server.nodes.contains_key(&b"/t/l"[..]);
        // Whoever has lost something is told so.
        let lost = was_there && !is_there;
        let remarked = lost.then_some(Remarkable::NotReplacedAtomically);
        assert_eq!(remarks(&report), Vec::from_iter(remarked));
        assert_eq!(
            is_there,
            was_there && !wanted.ends_with(&[CLEAR, RENAME, TIDY])
        );
        let temporary = |path: &String| path.contains(".ketch-");
        assert!(!sim.server.paths().iter().any(temporary));
    }
}

#[test]
fn a_link_that_is_made_after_its_connection_was_lost_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    symlink("f", dir.path().join("l")).unwrap();
    let asked = Asked::default();
    let told = Arc::clone(&asked);
    let mut lost = Sim::new(Habits::default(), 1);
    lost.server.lies = Some(Box::new(move |_, request| {
        let Request::Symlink(link) = request else {
            return None;
        };
        let name = String::from_utf8_lossy(link.link).into_owned();
        told.lock().unwrap().push(name);
        Some(Vec::new()) // neither done nor answered
    }));
    let options = PutOptions::new().recursive(true).links(Links::Copy);
    let shared = lost.sftp.shared().clone();
    let from = dir.path().to_owned();
    let mut outcome = put::start_from_path(&shared, from, "/t".into(), options);
    outcome.plan().set_second_chance(true);
    assert!(poll(Pin::new(&mut outcome)).is_none());
    lost.settle();
    assert_eq!(asked.lock().unwrap().len(), 1);
    lost.requests
        .on_closed(Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));

    let mut sim = Sim::new(Habits::default(), 2);
    sim.server.nodes = lost.server.nodes.clone();
    outcome.add_worker(sim.sftp.shared(), None);
    let mut late = asked.lock().unwrap().pop();
    let mut result = None;
    for _ in 0..1000 {
        result = result.or_else(|| poll(Pin::new(&mut outcome)));
        sim.turn();
        // The server comes to it when the link is already being made anew.
        if sim.server.asked(PacketType::SYMLINK) > 0
            && let Some(late) = late.take()
        {
            sim.server.nodes.insert(late.into_bytes(), Node::Link);
        }
    }
    assert_eq!(result.expect("an end").unwrap().links, 1);
    assert!(late.is_none(), "it was made late");
    assert_eq!(sim.server.paths(), ["/", "/t", "/t/l"]);
}

#[test]
fn a_link_that_is_made_when_nobody_waits_any_more_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    symlink("f", dir.path().join("l")).unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    let (sftp, control) = (sim.sftp.clone(), crate::Control::new());
    let options = PutOptions::new().recursive(true).links(Links::Copy);
    let mut put = Box::pin(sftp.put(dir.path(), "/t", options.control(control.clone())));
    // The server takes other requests first.
    let asked = Arc::new(Mutex::new(None));
    let note = Arc::clone(&asked);
    sim.server.lies = Some(Box::new(move |id, request| match request {
        Request::Symlink(symlink) => {
            let link = symlink.link.to_vec();
            note.lock().unwrap().get_or_insert((id, link));
            Some(Vec::new())
        }
        _ => None,
    }));
    let mut result = None;
    for _ in 0..1000 {
        result = result.or_else(|| poll(put.as_mut()));
        sim.turn();
        if asked.lock().unwrap().is_some() {
            control.cancel();
        }
    }
    assert_eq!(
        sim.server.asked(PacketType::REMOVE),
        0,
        "not before it is there"
    );
    let (id, link) = asked.lock().unwrap().take().unwrap();
    sim.server.nodes.insert(link, Node::Link);
    let ok = Response::Status(Status::new(StatusCode::OK));
    sim.server.say(packet(id, &ok));
    for _ in 0..100 {
        result = result.or_else(|| poll(put.as_mut()));
        sim.turn();
    }
    assert!(
        matches!(result, Some(Err(TransferError::Cancelled))),
        "{result:?}"
    );
    assert_eq!(sim.server.paths(), ["/", "/t"]);
}

#[test]
fn a_server_that_makes_no_links_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    symlink("f", dir.path().join("l")).unwrap();
    fs::write(dir.path().join("f"), "f").unwrap();
    let habits = Habits {
        fails: Some((PacketType::SYMLINK, 1, StatusCode::OP_UNSUPPORTED)),
        ..Habits::default()
    };
    let mut sim = Sim::new(habits, 1);
    let sftp = sim.sftp.clone();
    let options = PutOptions::new().recursive(true).links(Links::Copy);
    let error = sim.run(sftp.put(dir.path(), "/t", options)).unwrap_err();
    let TransferError::Incomplete { report } = error else {
        panic!("{error:?}")
    };
    assert_eq!((report.files, report.failed_count), (1, 1));
    assert_eq!(report.failed[0].error.kind(), Kind::Unsupported);
    sim.settle();
    assert_eq!(sim.server.paths(), ["/", "/t", "/t/f"]);
}

#[test]
fn a_tree_of_links_is_synced_as_the_policy_says() {
    let copied = [
        "to_f -> f",
        "b/to_deep -> ../a/deep",
        "a/up -> ..",
        "broken -> nowhere",
        "round -> round",
    ];
    for down in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        let mut pipe = Pipe::open(dir.path());
        let sftp = pipe.sftp.clone();
        let mut sync = |to: &str, links: Links| {
            let options = SyncOptions::new().links(links).delete(true);
            let result = if down {
                pipe.run(sftp.sync_down("from", dir.path().join(to), options))
            } else {
                pipe.run(sftp.sync_up(dir.path().join("from"), to, options))
            };
            (result.unwrap(), seen(&dir.path().join(to)))
        };
        let mut changed = |to: &str, links: Links| {
            let (report, has) = sync(to, links);
            let changes = (report.copied, report.replaced, report.removed);
            ((changes, report.skipped), has)
        };
        assert_eq!(
            changed("skip", Links::Skip),
            (((3, 0, 0), 7), set(&PLAIN)),
            "{down}"
        );
        assert_eq!(changed("skip", Links::Skip).0, ((0, 0, 0), 7));

        assert_eq!(
            changed("follow", Links::Follow),
            (((7, 0, 0), 3), followed()),
            "{down}"
        );
        assert_eq!(changed("follow", Links::Follow).0, ((0, 0, 0), 3));

        // Upward all links are made, downward those that stay within.
        let absolute = format!(
            "absolute -> {}",
            dir.path().join("outside/secret").display()
        );
        let mut wanted = &set(&PLAIN) | &set(&copied);
        if !down {
            wanted.extend(set(&["out -> ../outside", &absolute]));
        }
        let (made, left) = if down { (8, 2) } else { (10, 0) };
        assert_eq!(
            changed("copy", Links::Copy),
            (((made, 0, 0), left), wanted.clone()),
            "{down}"
        );
        assert_eq!(changed("copy", Links::Copy).0, ((0, 0, 0), left));

        // One that leads elsewhere is replaced, one that only the destination has is removed.
        let to = dir.path().join("copy");
        fs::remove_file(to.join("to_f")).unwrap();
        symlink("a/g", to.join("to_f")).unwrap();
        symlink("f", to.join("extra")).unwrap();
        assert_eq!(
            changed("copy", Links::Copy),
            (((0, 1, 1), left), wanted),
            "{down}"
        );
    }
}
