//! Directories get times and permissions of their originals, when all that is in them is there;
//! against OpenSSH's server.

use std::{
    collections::BTreeMap,
    fs,
    future::{Future, IntoFuture},
    os::unix::fs::PermissionsExt,
    path::Path,
    task::Poll,
    time::{Duration, UNIX_EPOCH},
};

use super::{pipe::Pipe, server::Habits, sim::Sim};
use crate::{GetOptions, Preserve, PutOptions, Resume, SyncOptions};

const DIRS: [(&str, u32, u64); 4] = [
    ("", 0o750, 1_000_000_000),
    ("a", 0o500, 1_000_000_001),
    ("a/deep", 0o555, 1_000_000_002),
    ("empty", 0o711, 1_000_000_003),
];

fn tree(root: &Path) {
    fs::create_dir_all(root.join("a/deep")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for n in 0..40 {
        fs::write(root.join(format!("a/f{n}")), "f").unwrap();
        fs::write(root.join(format!("a/deep/g{n}")), "g").unwrap();
    }
    for (name, mode, time) in DIRS.iter().rev() {
        set(&root.join(name), *mode, *time);
    }
}

fn set(dir: &Path, mode: u32, time: u64) {
    let file = fs::File::open(dir).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(time))
        .unwrap();
    file.set_permissions(fs::Permissions::from_mode(mode))
        .unwrap();
}

fn seen(root: &Path) -> BTreeMap<&'static str, (u32, u64)> {
    let look = |(name, ..): &(&'static str, u32, u64)| {
        let metadata = fs::metadata(root.join(name)).unwrap();
        let time = metadata.modified().unwrap().duration_since(UNIX_EPOCH);
        let mode = metadata.permissions().mode() & 0o777;
        (*name, (mode, time.unwrap().as_secs()))
    };
    DIRS.iter().map(look).collect()
}

#[test]
fn directories_are_as_their_originals_when_all_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    tree(&at("from"));
    let wanted: BTreeMap<_, _> = DIRS
        .iter()
        .map(|&(name, mode, time)| (name, (mode, time)))
        .collect();
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let preserve = Preserve::TIMES_AND_PERMISSIONS;
    let get = GetOptions::new().recursive(true).preserve(preserve);
    let put = PutOptions::new().recursive(true).preserve(preserve);
    let sync = SyncOptions::new()
        .get_options(GetOptions::new().preserve(preserve))
        .put_options(PutOptions::new().preserve(preserve));

    let report = pipe.run(sftp.get("from", at("got"), get)).unwrap();
    assert_eq!((report.files, report.remarks.len()), (80, 0));
    assert_eq!(seen(&at("got")), wanted);
    let report = pipe.run(sftp.put(at("from"), "sent", put)).unwrap();
    assert_eq!((report.files, report.remarks.len()), (80, 0));
    assert_eq!(seen(&at("sent")), wanted);

    // What was removed there changed the time, and what is as it was is not touched.
    let down = sync.clone().delete(true);
    fs::create_dir(at("down")).unwrap();
    fs::write(at("down/extra"), "").unwrap();
    let report = pipe.run(sftp.sync_down("from", at("down"), down));
    assert_eq!(report.unwrap().removed, 1);
    assert_eq!(seen(&at("down")), wanted);
    pipe.run(sftp.sync_up(at("from"), "up", sync.clone()))
        .unwrap();
    assert_eq!(seen(&at("up")), wanted);
    fs::write(at("up/a/extra"), "").unwrap();
    let report = pipe.run(sftp.sync_up(at("from"), "up", sync.delete(true)));
    assert_eq!(report.unwrap().removed, 1);
    assert_eq!(seen(&at("up")), wanted);

    // Without being asked for, they are not.
    let plain = GetOptions::new().recursive(true);
    pipe.run(sftp.get("from", at("plain"), plain)).unwrap();
    assert_ne!(seen(&at("plain"))["a/deep"].1, wanted["a/deep"].1);
}

#[test]
fn times_that_cannot_be_said_are_not_changed_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for (name, time) in [
        ("old", UNIX_EPOCH - Duration::from_secs(10)),
        ("late", UNIX_EPOCH + Duration::from_secs(1 << 33)),
        ("plain", UNIX_EPOCH + Duration::from_secs(1 << 30)),
    ] {
        let file = fs::File::create(from.join(name)).unwrap();
        let times = fs::FileTimes::new().set_accessed(time).set_modified(time);
        file.set_times(times).unwrap();
    }
    for (preserves, count) in [(true, 2), (false, 0)] {
        let mut sim = Sim::new(Habits::default(), 1);
        let sftp = sim.sftp.clone();
        let options = PutOptions::new().recursive(true).preserve_times(preserves);
        let report = sim.run(sftp.put(&from, "/t", options)).unwrap();
        let remarks = report.remarks.iter();
        let said = remarks.filter(|remark| remark.what == crate::Remarkable::TimesOutOfRange);
        assert_eq!((report.files, said.count()), (3, count), "{report:?}");
    }
}

#[test]
fn a_download_that_is_given_up_leaves_no_directory_as_if_it_were_whole() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("from")).unwrap();
    for n in 0..3000 {
        fs::write(at(&format!("from/{n}")), "f").unwrap();
    }
    set(&at("from"), 0o500, 1_000_000_000);
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let preserve = Preserve::TIMES_AND_PERMISSIONS;
    let get = GetOptions::new().recursive(true).preserve(preserve);
    let mut work = Box::pin(sftp.get("from", at("got"), get).into_future());
    pipe.run(std::future::poll_fn(|cx| {
        assert!(work.as_mut().poll(cx).is_pending(), "too quick to be cut");
        let is_there = fs::read_dir(at("got")).is_ok_and(|mut dir| dir.next().is_some());
        if is_there {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    drop(work);
    pipe.run(sftp.stat("from")).unwrap();
    let metadata = fs::metadata(at("got")).unwrap();
    assert_ne!(metadata.permissions().mode() & 0o777, 0o500);
}

#[test]
fn a_sync_goes_on_with_the_part_of_a_file_that_an_earlier_one_left() {
    let len = 20 << 20;
    let content: Vec<u8> = (0..=250).cycle().take(len).collect();
    for down in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("from")).unwrap();
        fs::create_dir(at("to")).unwrap();
        fs::write(at("from/big"), &content).unwrap();
        let options = || {
            SyncOptions::new()
                .get_options(GetOptions::new().resume(Resume::Verified))
                .put_options(PutOptions::new().resume(Resume::Verified))
        };
        let mut pipe = Pipe::open(dir.path());
        let sftp = pipe.sftp.clone();
        let run = |sftp: crate::Sftp| {
            let (from, to) = (at("from"), at("to"));
            async move {
                match down {
                    true => sftp.sync_down("from", to, options()).await,
                    false => sftp.sync_up(from, "to", options()).await,
                }
            }
        };
        // A run that is given up when some of it is there.
        pipe.run(async {
            let mut work = Box::pin(run(sftp.clone()));
            std::future::poll_fn(|cx| {
                assert!(work.as_mut().poll(cx).is_pending(), "too quick to be cut");
                let has = fs::read_dir(at("to"))
                    .unwrap()
                    .any(|entry| entry.unwrap().metadata().unwrap().len() > 14 << 20);
                if has { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
        // It is given up when its channel looks at it.
        pipe.run(sftp.stat("from")).unwrap();
        let left: Vec<_> = fs::read_dir(at("to")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        let report = pipe.run(run(sftp.clone())).unwrap();
        assert_eq!((report.copied, report.leftovers_removed), (1, 0));
        assert!(fs::read(at("to/big")).unwrap() == content);
        assert_eq!(fs::read_dir(at("to")).unwrap().count(), 1);
    }
}
