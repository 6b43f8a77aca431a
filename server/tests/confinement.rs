//! No path, `..`, link or race leads out of a root: canaries stand outside and must neither be
//! read, nor changed, nor joined by anything new.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ketch_server::{
    Answer, Batch, Call, Change, Create, File, FileCall, FileSystem, Links, LocalDirectory,
    OpenHow, Target, VPath,
};
use rustix::fs::{CWD, Mode, RenameFlags};
use tempfile::TempDir;

const CANARY: &[u8] = b"canary: nobody may read this";

/// Who resolves paths.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// `openat2`.
    Kernel,
    /// One component after the other, as where that is missing.
    Steps,
}

/// Every test is run in both ways.
macro_rules! in_both_ways {
    ($($name:ident $($wait:ident)?),* $(,)?) => {
        mod by_the_kernel {
            $(#[tokio::test] async fn $name() { super::$name(super::Way::Kernel)$(.$wait)? })*
        }
        mod by_steps {
            $(#[tokio::test] async fn $name() { super::$name(super::Way::Steps)$(.$wait)? })*
        }
    };
}

in_both_ways! {
    no_path_leads_out_by_any_call,
    long_and_odd_names_lead_nobody_out,
    links_that_stay_beneath_are_followed,
    outside_names_are_answered_alike_whether_or_not_they_exist,
    what_is_no_plain_file_is_not_opened_and_blocks_nobody,
    bits_that_nobody_may_set_are_masked,
    times_of_a_link_are_its_own,
    rename_never_replaces_unless_it_may,
    a_large_directory_comes_in_batches_with_each_name_once await,
    a_race_between_directory_and_link_leads_nobody_out,
}

/// A root with canaries around it.
struct Jail {
    dir: TempDir,
    files: LocalDirectory,
}

impl Jail {
    fn new(way: Way) -> Self {
        let dir = TempDir::new().unwrap();
        let base = dir.path();
        for made in ["root/in/deep", "root-sibling", "outside/dir"] {
            fs::create_dir_all(base.join(made)).unwrap();
        }
        for canary in [
            "outside/canary",
            "outside/dir/canary",
            "root-sibling/canary",
            "canary",
        ] {
            fs::write(base.join(canary), CANARY).unwrap();
        }
        let root = base.join("root");
        fs::write(root.join("file"), b"inside").unwrap();
        fs::write(root.join("in/file"), b"inside").unwrap();
        let outside = base.join("outside");
        let link = |target: &Path, name: &str| symlink(target, root.join(name)).unwrap();
        link(&outside, "absolute-dir");
        link(&outside.join("canary"), "absolute-file");
        link(Path::new("../outside"), "relative-dir");
        link(Path::new("../outside/canary"), "relative-file");
        link(Path::new("../canary-to-be"), "dangling");
        link(Path::new("/proc/self/root"), "magic");
        link(Path::new("/proc/self/cwd"), "magic-cwd");
        link(Path::new("relative-dir"), "chain");
        link(Path::new(".."), "up");
        link(Path::new("in/../../outside"), "in-and-out");
        link(Path::new("../.."), "in/up-twice");
        link(Path::new("loop"), "loop");
        link(Path::new("in"), "good-dir");
        link(Path::new("in/file"), "good-file");
        link(Path::new("../file"), "in/good-up");
        let files = LocalDirectory::open(&root).unwrap();
        let files = match way {
            Way::Kernel => files,
            Way::Steps => files.resolved_by_steps(),
        };
        Self { dir, files }
    }

    fn outside(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for part in ["outside", "root-sibling", "canary", "canary-to-be"] {
            record(&self.dir.path().join(part), &mut snapshot);
        }
        snapshot
    }

    fn open(&self, named: &[u8], how: OpenHow) -> io::Result<Arc<dyn File>> {
        match self.files.try_call(&Call::Open {
            path: path(named),
            how,
        })? {
            Answer::File(file) => Ok(file),
            other => panic!("{other:?}"),
        }
    }

    fn call(&self, call: &Call) -> io::Result<Answer> {
        self.files.try_call(call)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
}

/// What there is: mode, links and content by path.
type Snapshot = BTreeMap<PathBuf, (u32, u64, i64, Vec<u8>)>;

fn record(at: &Path, into: &mut Snapshot) {
    let Ok(metadata) = fs::symlink_metadata(at) else {
        return;
    };
    let content = if metadata.is_file() {
        fs::read(at).unwrap()
    } else {
        Vec::new()
    };
    // The count of links of a directory counts its directories.
    let row = (metadata.mode(), metadata.nlink(), metadata.mtime(), content);
    into.insert(at.to_owned(), row);
    if metadata.is_dir() {
        for entry in fs::read_dir(at).unwrap() {
            record(&entry.unwrap().path(), into);
        }
    }
}

fn path(named: &[u8]) -> VPath {
    VPath::resolve(named).unwrap()
}

fn how(write: bool, create: Create) -> OpenHow {
    let mut how = OpenHow::read();
    how.write = write;
    how.truncate = write;
    how.create = create;
    how
}

fn read(file: &Arc<dyn File>) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let got = loop {
        match file.try_read_at(0, &mut [IoSliceMut::new(&mut bytes)]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            result => break result.unwrap(),
        }
    };
    bytes.truncate(got);
    bytes
}

/// Everything that a client can do with one path.
fn every_call(path: &VPath) -> Vec<Call> {
    let other = VPath::resolve(b"/file").unwrap();
    let mut change = Change::default();
    (change.mode, change.times) = (Some(0o600), Some((1, 1)));
    let mut cut = Change::default();
    cut.size = Some(0);
    let rename = |from: &VPath, to: &VPath, target| Call::Rename {
        from: from.clone(),
        to: to.clone(),
        target,
    };
    let path = || path.clone();
    vec![
        Call::Open {
            path: path(),
            how: how(false, Create::Never),
        },
        Call::Open {
            path: path(),
            how: how(true, Create::Never),
        },
        Call::Open {
            path: path(),
            how: how(true, Create::IfMissing { mode: 0o644 }),
        },
        Call::Open {
            path: path(),
            how: how(true, Create::New { mode: 0o644 }),
        },
        Call::OpenDirectory { path: path() },
        Call::Metadata {
            path: path(),
            links: Links::Follow,
        },
        Call::Metadata {
            path: path(),
            links: Links::Stay,
        },
        Call::Change {
            path: path(),
            links: Links::Follow,
            change,
        },
        Call::Change {
            path: path(),
            links: Links::Stay,
            change,
        },
        Call::Change {
            path: path(),
            links: Links::Follow,
            change: cut,
        },
        Call::Change {
            path: path(),
            links: Links::Stay,
            change: cut,
        },
        Call::ReadLink { path: path() },
        Call::Space { path: path() },
        Call::HardLink {
            from: path(),
            to: VPath::resolve(b"/hard").unwrap(),
        },
        Call::HardLink {
            from: other.clone(),
            to: path(),
        },
        Call::Symlink {
            target: b"x".to_vec(),
            link: path(),
        },
        Call::CreateDirectory {
            path: path(),
            mode: 0o777,
        },
        rename(&other, &path(), Target::MustNotExist),
        rename(&path(), &other, Target::MustNotExist),
        rename(&other, &path(), Target::MayExist),
        rename(&path(), &other, Target::MayExist),
        Call::Remove { path: path() },
        Call::RemoveDirectory { path: path() },
    ]
}

/// Does something with what a call opened, and says what was to be read there.
fn use_up(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::File(file) => {
            let seen = read(&file);
            let _ = file.try_write_at(0, &[IoSlice::new(b"overwritten")]);
            let _ = file.try_call(&FileCall::Space);
            seen
        }
        Answer::Directory(mut directory) => {
            let mut batch = Batch::default();
            directory.try_read(&mut batch).unwrap();
            batch
                .entries()
                .iter()
                .flat_map(|entry| entry.name.clone())
                .collect()
        }
        _ => Vec::new(),
    }
}

fn no_path_leads_out_by_any_call(way: Way) {
    let nasty = [
        "..",
        "../outside/canary",
        "/../../outside/canary",
        "in/../../outside/canary",
        "../root-sibling/canary",
        "absolute-dir",
        "absolute-dir/canary",
        "absolute-file",
        "relative-dir",
        "relative-dir/canary",
        "relative-dir/dir/canary",
        "relative-dir/new",
        "relative-file",
        "dangling",
        "magic",
        "magic/etc/passwd",
        "magic-cwd/Cargo.toml",
        "chain",
        "chain/canary",
        "chain/dir",
        "up",
        "up/outside/canary",
        "up/root/file",
        "in-and-out/canary",
        "in/up-twice/outside/canary",
        "in/up-twice/canary",
        "loop",
        "loop/x",
        "good-dir/up-twice",
        "good-dir/up-twice/canary",
        "/proc/self/root/etc/passwd",
        "//outside/canary",
        "..%2foutside/canary",
        "%2e%2e/outside/canary",
        "....//outside/canary",
        "~/../outside",
        "in/./../../outside/canary",
        "absolute-dir/../canary",
        "relative-dir/..",
        "up/..",
    ];
    let mut jail = Jail::new(way);
    for named in nasty {
        for call in every_call(&path(named.as_bytes())) {
            let before = jail.outside();
            let answer = jail.call(&call);
            let is_changed = answer.is_ok();
            if let Ok(answer) = answer {
                let seen = use_up(answer);
                let is_canary = seen.windows(6).any(|part| part == b"canary");
                assert!(!is_canary, "{named}: {call:?} told {}", seen.escape_ascii());
            }
            assert_eq!(jail.outside(), before, "{named}: {call:?}");
            if is_changed {
                // What was done may have removed a link that the next call is to try.
                jail = Jail::new(way);
            }
        }
    }
}

/// Names that something on the way could read as another: the longest, and odd bytes.
fn long_and_odd_names_lead_nobody_out(way: Way) {
    let long = [&b"l".repeat(255)[..], b"/../../outside/canary"].concat();
    let up = b"in/../".repeat(600);
    let up = [&up[..], b"../outside/canary"].concat();
    let odd: [&[u8]; 14] = [
        &long,
        &up,
        b"\xff\xfe/../../outside/canary",
        b"\xc0\xae\xc0\xae/outside/canary", // two dots, encoded too long
        "\u{ff0e}\u{ff0e}/outside/canary".as_bytes(), // fullwidth dots
        "\u{2025}/outside/canary".as_bytes(),
        "..\u{200b}/outside/canary".as_bytes(),
        b"..\n/outside/canary",
        b".. /outside/canary",
        b"...",
        b"\x1b]0;../outside\x07",
        b"-rf",
        b"relative-dir//./canary",
        b"./relative-dir/.//canary",
    ];
    let mut jail = Jail::new(way);
    for named in odd {
        for call in every_call(&path(named)) {
            let before = jail.outside();
            if let Ok(answer) = jail.call(&call) {
                let seen = use_up(answer);
                let is_canary = seen.windows(6).any(|part| part == b"canary");
                assert!(!is_canary, "{call:?} told {}", seen.escape_ascii());
                assert_eq!(jail.outside(), before, "{call:?}");
                jail = Jail::new(way);
            } else {
                assert_eq!(jail.outside(), before, "{call:?}");
            }
        }
    }
    // What has no meaning at all does not even become a path.
    let endless = b"a/".repeat(3000);
    for named in [&b"a\0b"[..], b"a\\..\\b", &b"l".repeat(256), &endless] {
        assert!(VPath::resolve(named).is_err(), "{}", named.escape_ascii());
    }
}

fn links_that_stay_beneath_are_followed(way: Way) {
    let jail = Jail::new(way);
    for named in [
        "good-file",
        "good-dir/file",
        "in/good-up",
        "good-dir/good-up",
    ] {
        let file = jail.open(named.as_bytes(), OpenHow::read()).unwrap();
        assert_eq!(read(&file), b"inside", "{named}");
    }
    // A file that exists is written through a link; nothing is made through one.
    let replace = OpenHow::replace(0o644);
    jail.open(b"good-file", replace)
        .unwrap()
        .try_write_at(0, &[IoSlice::new(b"new")])
        .unwrap();
    assert_eq!(fs::read(jail.root().join("in/file")).unwrap(), b"new");
    symlink("in/to-be", jail.root().join("pending")).unwrap();
    assert!(jail.open(b"pending", replace).is_err());
    assert!(!jail.root().join("in/to-be").exists());
}

fn outside_names_are_answered_alike_whether_or_not_they_exist(way: Way) {
    let jail = Jail::new(way);
    for (there, not_there) in [
        ("relative-dir/canary", "relative-dir/none"),
        ("absolute-file", "dangling"),
        ("up/outside", "up/none"),
        ("magic/etc", "magic/none"),
    ] {
        for links in [Links::Follow, Links::Stay] {
            if links == Links::Stay && !there.contains('/') {
                continue; // the link itself lies inside
            }
            let kind = |named: &str| {
                let call = Call::Metadata {
                    path: path(named.as_bytes()),
                    links,
                };
                jail.call(&call).unwrap_err().kind()
            };
            assert_eq!(kind(there), ErrorKind::PermissionDenied, "{there}");
            assert_eq!(kind(there), kind(not_there), "{there}");
        }
    }
}

fn what_is_no_plain_file_is_not_opened_and_blocks_nobody(way: Way) {
    let jail = Jail::new(way);
    rustix::fs::mknodat(
        CWD,
        jail.root().join("fifo"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    let _socket = UnixListener::bind(jail.root().join("socket")).unwrap();
    for named in [&b"fifo"[..], b"socket", b"in", b"/"] {
        for write in [false, true] {
            assert!(
                jail.open(named, how(write, Create::Never)).is_err(),
                "{named:?}"
            );
            let create = Create::IfMissing { mode: 0o644 };
            assert!(jail.open(named, how(write, create)).is_err(), "{named:?}");
        }
    }
}

fn bits_that_nobody_may_set_are_masked(way: Way) {
    let jail = Jail::new(way);
    let mode = |named: &str| {
        fs::metadata(jail.root().join(named))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    let create = Create::New { mode: 0o6777 };
    let file = jail.open(b"new", how(true, create)).unwrap();
    assert_eq!(mode("new") & 0o7000, 0);
    let mut change = Change::default();
    change.mode = Some(0o7755);
    file.try_call(&FileCall::Change(change)).unwrap();
    assert_eq!(mode("new"), 0o755);
    let call = Call::Change {
        path: path(b"file"),
        links: Links::Follow,
        change,
    };
    jail.call(&call).unwrap();
    assert_eq!(mode("file"), 0o755);
    jail.call(&Call::CreateDirectory {
        path: path(b"made"),
        mode: 0o7777,
    })
    .unwrap();
    assert_eq!(mode("made") & 0o7000, 0);
    // A file that its owner may not even read gets its mode back.
    change.mode = Some(0);
    jail.call(&Call::Change {
        path: path(b"file"),
        links: Links::Follow,
        change,
    })
    .unwrap();
    change.mode = Some(0o640);
    jail.call(&Call::Change {
        path: path(b"file"),
        links: Links::Follow,
        change,
    })
    .unwrap();
    assert_eq!(mode("file"), 0o640);
}

fn times_of_a_link_are_its_own(way: Way) {
    let jail = Jail::new(way);
    let mut change = Change::default();
    change.times = Some((11, 22));
    for (links, named) in [(Links::Stay, "relative-file"), (Links::Follow, "good-file")] {
        let call = Call::Change {
            path: path(named.as_bytes()),
            links,
            change,
        };
        jail.call(&call).unwrap();
    }
    let times = |named: &str| {
        let metadata = fs::symlink_metadata(jail.root().join(named)).unwrap();
        (metadata.atime(), metadata.mtime())
    };
    assert_eq!(times("relative-file").1, 22);
    assert_eq!(times("in/file"), (11, 22));
    assert_ne!(times("good-file").1, 22);
    assert_ne!(
        fs::metadata(jail.dir.path().join("outside/canary"))
            .unwrap()
            .mtime(),
        22
    );
}

fn rename_never_replaces_unless_it_may(way: Way) {
    let jail = Jail::new(way);
    let rename = |from: &str, to: &str, target| {
        let call = Call::Rename {
            from: path(from.as_bytes()),
            to: path(to.as_bytes()),
            target,
        };
        jail.call(&call).map(drop).map_err(|error| error.kind())
    };
    fs::write(jail.root().join("other"), b"other").unwrap();
    let (keep, replace) = (Target::MustNotExist, Target::MayExist);
    assert_eq!(rename("file", "other", keep), Err(ErrorKind::AlreadyExists));
    assert_eq!(rename("file", "in", keep), Err(ErrorKind::AlreadyExists));
    assert_eq!(rename("file", "loop", keep), Err(ErrorKind::AlreadyExists));
    assert_eq!(rename("file", "new", keep), Ok(()));
    assert_eq!(rename("new", "other", replace), Ok(()));
    assert_eq!(fs::read(jail.root().join("other")).unwrap(), b"inside");
    assert_eq!(
        rename("in", "in/deep/in", keep),
        Err(ErrorKind::InvalidInput)
    );
    assert!(
        jail.root().join("in/deep").is_dir(),
        "nothing was left behind"
    );
    assert!(!jail.root().join("in/deep/in").exists());
    assert_eq!(rename("/", "x", replace), Err(ErrorKind::PermissionDenied));
}

async fn a_large_directory_comes_in_batches_with_each_name_once(way: Way) {
    let jail = Jail::new(way);
    let many = jail.root().join("many");
    fs::create_dir(&many).unwrap();
    for n in 0..1000 {
        fs::write(many.join(format!("file{n}")), b"").unwrap();
    }
    fs::write(many.join(OsStr::from_bytes(b"not \xff utf-8\n")), b"12345").unwrap();
    let answer = jail
        .call(&Call::OpenDirectory {
            path: path(b"many"),
        })
        .unwrap();
    let Answer::Directory(mut directory) = answer else {
        panic!()
    };
    let mut names = std::collections::BTreeSet::new();
    loop {
        let mut batch = Batch::default();
        match directory.try_read(&mut batch) {
            // It is read ahead on a thread.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                (directory, batch) = directory.read(batch).await.unwrap();
            }
            result => result.unwrap(),
        }
        if batch.entries().is_empty() {
            break;
        }
        assert!(batch.entries().len() <= ketch_server::BATCH_ENTRIES_MAX);
        for entry in batch.entries() {
            assert!(names.insert(entry.name.clone()));
            assert_eq!(entry.metadata.size == 5, entry.name == b"not \xff utf-8\n");
        }
    }
    assert_eq!(names.len(), 1001);
}

/// One thread swaps a directory with a link that leads out, all the time; others do everything
/// that follows or makes names through it.
fn a_race_between_directory_and_link_leads_nobody_out(way: Way) {
    const ROUNDS: usize = 800;
    let jail = Jail::new(way);
    let root = jail.root();
    fs::create_dir(root.join("swap")).unwrap();
    fs::create_dir(root.join("swap/dir")).unwrap();
    fs::write(root.join("swap/canary"), b"inside").unwrap();
    symlink("../outside", root.join("swap-link")).unwrap();
    let before = jail.outside();
    let (is_over, swaps) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let (a, b) = (root.join("swap"), root.join("swap-link"));
                rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
                swaps.store(true, Ordering::Relaxed);
            }
        });
        while !swaps.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // The race is real: who opens the same name without confinement does get out.
        let plain = root.join("swap/canary");
        while !fs::read(&plain).is_ok_and(|bytes| bytes == CANARY) {}
        // And so does who looks where the name leads, and opens it when that lies beneath the root:
        // the way that many servers confine.
        let checked = || -> Option<Vec<u8>> {
            let real = fs::canonicalize(&plain).ok()?;
            real.starts_with(&root).then(|| fs::read(&plain).ok())?
        };
        while checked().is_none_or(|bytes| bytes != CANARY) {}
        for round in 0..ROUNDS {
            if let Ok(file) = jail.open(b"swap/canary", OpenHow::read()) {
                assert_eq!(read(&file), b"inside", "round {round}");
            }
            for named in [
                "swap/canary",
                "swap/new",
                "swap/dir",
                "swap",
                "swap/dir/../canary",
            ] {
                for mut call in every_call(&path(named.as_bytes())) {
                    // Removing and replacing what is swapped would end the race.
                    let ends_it = match &mut call {
                        Call::Remove { path } | Call::RemoveDirectory { path } => {
                            path.as_bytes() != b"/swap/new"
                        }
                        Call::Rename { from, .. } | Call::HardLink { from, .. } => {
                            from.as_bytes() != b"/swap/new"
                        }
                        Call::Open { path, how } if how.truncate => path.as_bytes() != b"/swap/new",
                        Call::Change { change, .. } => change.size.is_some(),
                        _ => false,
                    };
                    if !ends_it
                        && round % 8 == 0
                        && let Ok(Answer::File(file)) = jail.call(&call)
                    {
                        assert_ne!(read(&file), CANARY, "{call:?}");
                    }
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(jail.outside(), before);
}
