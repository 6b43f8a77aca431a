//! Directories with everything that can go wrong with them.

use super::*;
use crate::sink::trial::{self, item, trial_content};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};

fn sink(path: &Path, exists: Exists) -> DirectorySink {
    DirectorySink::new(DirectorySettings {
        exists,
        ..DirectorySettings::new("disk", path)
    })
}

/// Every file below `dir` that people see, with its content.
fn seen(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(below) = dirs.pop() {
        for entry in std::fs::read_dir(&below).expect("a directory") {
            let path = entry.expect("an entry").path();
            let is_hidden = path
                .file_name()
                .is_some_and(|name| name.as_bytes().starts_with(OURS));
            if path.is_dir() {
                dirs.push(path);
            } else if !is_hidden {
                let name = path.strip_prefix(dir).expect("below").display().to_string();
                found.push((name, std::fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}

/// Files that begin with `.ketch-` and end so.
fn ending(dir: &Path, end: &str) -> usize {
    let names = std::fs::read_dir(dir).expect("a directory");
    names
        .filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.as_bytes().starts_with(OURS) && name.as_bytes().ends_with(end.as_bytes())
        })
        .count()
}

/// What a delivery has no more use for.
fn hidden(dir: &Path) -> usize {
    ending(dir, ".part") + ending(dir, ".held")
}

fn names(dir: &Path) -> Vec<String> {
    seen(dir).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_file_comes_whole_with_its_time_and_directories() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for share in [false, true] {
        let root = dir.path().join(share.to_string());
        std::fs::create_dir(&root).unwrap();
        let sink = DirectorySink::new(DirectorySettings {
            share,
            ..DirectorySettings::new("disk", &root)
        });
        sink.check().await.unwrap();
        let content = trial_content(spool.path(), b"one,two");
        let placed = trial::deliver(&sink, &item(1, b"in/deep/a.csv"), Some(&content)).await;
        assert_eq!(placed.unwrap().name, b"in/deep/a.csv");
        assert_eq!(
            seen(&root),
            [("in/deep/a.csv".to_owned(), b"one,two".to_vec())]
        );
        let metadata = root.join("in/deep/a.csv").metadata().unwrap();
        assert_eq!(metadata.mtime(), 1_795_282_542);
        assert_eq!(metadata.mode() & 0o600, 0o600);
        let spooled = content.path.metadata().unwrap();
        assert_eq!(
            spooled.ino() == metadata.ino(),
            share,
            "shared if asked to be"
        );
        assert_eq!(hidden(&root.join("in/deep")), 0);
    }
}

#[tokio::test]
async fn a_taken_name_is_what_the_policy_says() {
    let spool = tempfile::tempdir().unwrap();
    for (exists, wanted) in [
        (Exists::Error, vec![("a.csv", "old")]),
        (Exists::Overwrite, vec![("a.csv", "new")]),
        (Exists::Unique, vec![("a-1.csv", "new"), ("a.csv", "old")]),
        (Exists::Append, vec![("a.csv", "oldnew")]),
        (Exists::Skip, vec![("a.csv", "old")]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.csv"), "old").unwrap();
        let content = trial_content(spool.path(), b"new");
        let sink = sink(dir.path(), exists);
        let delivered = trial::deliver(&sink, &item(1, b"a.csv"), Some(&content)).await;
        match exists {
            Exists::Error => assert!(matches!(delivered, Err(SinkError::Exists { .. }))),
            _ => assert!(delivered.is_ok(), "{exists:?}: {delivered:?}"),
        }
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
            .collect();
        assert_eq!(seen(dir.path()), wanted, "{exists:?}");
    }
}

/// Every step of a delivery is the last of a process once; the next one delivers again with the
/// same placement. There is one whole copy, and nothing else.
#[tokio::test]
async fn a_delivery_killed_at_any_step_leaves_one_whole_copy() {
    let spool = tempfile::tempdir().unwrap();
    let mut points = 0;
    for share in [false, true] {
        for (_, exists) in Exists::ALL {
            for step in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let settings = DirectorySettings {
                    exists,
                    share,
                    ..DirectorySettings::new("disk", dir.path())
                };
                let content = trial_content(spool.path(), b"one,two,three");
                let item = item(1, b"in/a.csv");
                let first = DirectorySink::new(settings.clone());
                let placement = first.place(&item, None).await.unwrap();
                first.inner.steps.kill_after(Some(step));
                let killed = trial::put(&first, &item, &placement, &content, false).await;
                // Somebody else's file comes in between where files are appended.
                let second = DirectorySink::new(settings);
                if exists == Exists::Append {
                    let other = self::item(2, b"in/a.csv");
                    trial::deliver(&second, &other, Some(&content))
                        .await
                        .unwrap();
                }
                trial::deliver_again(&second, &item, placement, &content)
                    .await
                    .unwrap();
                let text = match exists {
                    Exists::Append => b"one,two,three".repeat(2),
                    _ => b"one,two,three".to_vec(),
                };
                let wanted = [("in/a.csv".to_owned(), text)];
                assert_eq!(seen(dir.path()), wanted, "{exists:?}, step {step}");
                assert_eq!(hidden(&dir.path().join("in")), 0, "{exists:?}, step {step}");
                if killed.is_ok() {
                    assert!(step > 4, "{exists:?}: {step} steps");
                    break;
                }
                points += 1;
            }
        }
    }
    assert!(points > 50, "{points} kill points");
}

/// A consumer takes the file away as soon as it is there, and the process is killed at any step:
/// the consumer gets it once.
#[tokio::test]
async fn a_consumer_that_is_quicker_than_a_crash_gets_a_file_once() {
    let spool = tempfile::tempdir().unwrap();
    let mut taken_early = 0;
    for share in [false, true] {
        for (_, exists) in Exists::ALL {
            if exists == Exists::Append {
                continue; // nobody takes away what is appended to
            }
            for step in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let settings = DirectorySettings {
                    exists,
                    share,
                    ..DirectorySettings::new("disk", dir.path())
                };
                let content = trial_content(spool.path(), b"one,two,three");
                let item = item(1, b"in/a.csv");
                let first = DirectorySink::new(settings.clone());
                let placement = first.place(&item, None).await.unwrap();
                first.inner.steps.kill_after(Some(step));
                let killed = trial::put(&first, &item, &placement, &content, false).await;
                let took = |dir: &Path| {
                    let file = dir.join("in/a.csv");
                    let is_whole = std::fs::read(&file).is_ok_and(|text| text == b"one,two,three");
                    usize::from(is_whole && std::fs::remove_file(file).is_ok())
                };
                let early = took(dir.path());
                let second = DirectorySink::new(settings);
                trial::deliver_again(&second, &item, placement, &content)
                    .await
                    .unwrap();
                let got = early + took(dir.path());
                assert_eq!(got, 1, "{exists:?}, step {step}");
                assert_eq!(hidden(&dir.path().join("in")), 0, "{exists:?}, step {step}");
                if killed.is_ok() {
                    break;
                }
                taken_early += early;
            }
        }
    }
    assert!(taken_early > 0, "no crash was after a rename");
}

/// What happens to a delivery that stands before its visible step.
struct Meanwhile<F>(F, bool);

impl<F> crate::sink::fence::StillOurs for Meanwhile<F>
where
    F: Fn() -> Answer<'static, ()> + Send + Sync + 'static,
{
    fn still_ours(&self) -> Answer<'_, ()> {
        Box::pin(async {
            (self.0)().await?;
            self.1.then_some(()).ok_or_else(SinkError::lost)
        })
    }
}

/// Whoever is held up right before the last step, and finds that somebody else did it meanwhile and
/// put a newer version there, changes nothing any more, whatever the ledger answers.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_held_up_puts_nothing_over_what_is_newer() {
    let spool = tempfile::tempdir().unwrap();
    for is_told in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let slow = sink(dir.path(), Exists::Overwrite);
        let older = item(1, b"a.csv");
        let old = trial_content(spool.path(), b"old");
        let placement = slow.place(&older, None).await.unwrap();
        let meanwhile = {
            let (path, placement) = (dir.path().to_owned(), placement.clone());
            let (older, old) = (older.clone(), old.clone());
            let new = trial_content(spool.path(), b"new");
            move || -> Answer<'static, ()> {
                let quick = sink(&path, Exists::Overwrite);
                let (older, old, new) = (older.clone(), old.clone(), new.clone());
                let placement = placement.clone();
                Box::pin(async move {
                    trial::deliver_again(&quick, &older, placement, &old).await?;
                    let newer = item(2, b"a.csv");
                    trial::deliver(&quick, &newer, Some(&new)).await?;
                    Ok(())
                })
            }
        };
        let fence = Fence::asking(Arc::new(Meanwhile(meanwhile, !is_told)));
        let put = trial::put_fenced(&slow, &older, &placement, &old, false, &fence).await;
        assert_eq!(put.is_err(), is_told, "{put:?}");
        let wanted = [("a.csv".to_owned(), b"new".to_vec())];
        assert_eq!(seen(dir.path()), wanted, "told: {is_told}");
    }
}

/// A rename made of two steps that was cut off between them: the file that waits has its name already.
#[tokio::test]
async fn what_has_its_name_and_waits_still_is_delivered() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one");
    for exists in [Exists::Error, Exists::Unique, Exists::Skip] {
        let dir = tempfile::tempdir().unwrap();
        let sink = sink(dir.path(), exists);
        let item = item(1, b"a.csv");
        let placement = sink.place(&item, None).await.unwrap();
        let waiting = held_in(dir.path());
        std::fs::write(&waiting, "one").unwrap();
        std::fs::hard_link(&waiting, dir.path().join("a.csv")).unwrap();
        let job = Job {
            item,
            placement,
            content: content.clone(),
            again: true,
            fence: Fence::open(),
            runtime: Handle::current(),
        };
        let held = waiting.file_name().unwrap().as_bytes().to_vec();
        let done = sink.blocking(move |inner| inner.deliver_held(&inner.root()?, &held, &job));
        assert!(done.await.unwrap(), "{exists:?}: it is done by that");
        let wanted = [("a.csv".to_owned(), b"one".to_vec())];
        assert_eq!(seen(dir.path()), wanted, "{exists:?}");
        assert_eq!(hidden(dir.path()), 0, "{exists:?}");
    }
}

/// The path of the one file that waits in `dir`.
fn held_in(dir: &Path) -> PathBuf {
    let mut paths = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .find(|path| path.as_os_str().as_bytes().ends_with(b".held"))
        .unwrap()
}

/// One is held up while it copies; meanwhile another delivers and dies before it can say so, and a
/// consumer takes the file. The slow one, which has lost its claim, makes nothing wait again, so the
/// third delivers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_held_up_makes_nothing_wait_again() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one");
    for (_, exists) in Exists::ALL {
        if exists == Exists::Append {
            continue; // nothing waits
        }
        let dir = tempfile::tempdir().unwrap();
        let item = item(1, b"a.csv");
        let slow = sink(dir.path(), exists);
        let placement = slow.place(&item, None).await.unwrap();
        // Its content comes when it is let go on.
        let pipe = spool.path().join(format!("{exists:?}"));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let slowly = Content {
            path: pipe.clone(),
            ..content.clone()
        };
        let fence = Fence::open();
        let first = trial::put_fenced(&slow, &item, &placement, &slowly, false, &fence);
        let meanwhile = async {
            // It opens once the other end is open.
            let opened = tokio::task::spawn_blocking(|| File::options().write(true).open(pipe));
            let mut pipe = opened.await.unwrap().unwrap();
            let quick = sink(dir.path(), exists);
            trial::put(&quick, &item, &placement, &content, true)
                .await
                .unwrap();
            std::fs::remove_file(dir.path().join("a.csv")).unwrap();
            assert!(fence.close());
            io::Write::write_all(&mut pipe, b"one").unwrap();
        };
        let (late, ()) = tokio::join!(first, meanwhile);
        assert!(matches!(late, Err(SinkError::Fenced(_))), "{late:?}");
        assert_eq!(hidden(dir.path()), 0, "{exists:?}");
        let third = sink(dir.path(), exists);
        trial::deliver_again(&third, &item, placement, &content)
            .await
            .unwrap();
        assert_eq!(seen(dir.path()), [], "{exists:?}");
    }
}

/// What waits is removed while the first attempt copies: nobody else had the claim, so it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_waited_is_removed_by_a_stranger_and_the_file_comes() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = trial_content(spool.path(), b"one");
    let (sink, item) = (sink(dir.path(), Exists::Error), item(1, b"a.csv"));
    let placement = sink.place(&item, None).await.unwrap();
    let job = Job {
        item: item.clone(),
        placement: placement.clone(),
        content: content.clone(),
        again: false,
        fence: Fence::open(),
        runtime: Handle::current(),
    };
    let waiting = held_in(dir.path());
    let done = sink.blocking(move |inner| {
        let (root, _) = inner.make_directories(b"")?;
        let held = waiting.file_name().unwrap().as_bytes().to_vec();
        std::fs::remove_file(&waiting).unwrap();
        inner.deliver_held(&root, &held, &job)
    });
    assert!(!done.await.unwrap(), "nothing waited");
    assert_eq!((seen(dir.path()).len(), hidden(dir.path())), (0, 0));
    trial::put(&sink, &item, &placement, &content, false)
        .await
        .unwrap();
    assert_eq!(names(dir.path()), ["a.csv"]);
}

/// Where two names cannot be exchanged, nothing that waited is made anew, and who lost its claim leaves
/// alone what waits.
#[tokio::test(flavor = "multi_thread")]
async fn without_exchange_nothing_waits_again_either() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (held, is_closed) in [(true, false), (true, true), (false, false), (false, true)] {
        let job = Job {
            item: item(1, b"a.csv"),
            placement: Placement {
                name: b"a.csv".to_vec(),
                length: None,
                note: Vec::new(),
            },
            content: trial_content(spool.path(), b"one"),
            again: false,
            fence: Fence::open(),
            runtime: Handle::current(),
        };
        if is_closed {
            assert!(job.fence.close());
        }
        let path = dir.path().join("waits");
        let _ = std::fs::remove_file(&path);
        if held {
            std::fs::write(&path, "").unwrap();
        }
        std::fs::write(dir.path().join("part"), "one").unwrap();
        let replaced = sink(dir.path(), Exists::Error)
            .blocking(move |inner| inner.replace(&inner.root()?, b"part", b"waits", &job))
            .await;
        match replaced {
            Ok(replaced) => assert!(!is_closed && replaced == held),
            Err(error) => assert!(is_closed && matches!(error, SinkError::Fenced(_))),
        }
        let text = std::fs::read_to_string(path).ok();
        let wanted = held.then_some(if is_closed { "" } else { "one" });
        assert_eq!(text.as_deref(), wanted, "closed: {is_closed}");
    }
}

/// Nothing becomes visible behind a closed fence, and the next attempt delivers once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_becomes_visible_behind_a_closed_fence() {
    let spool = tempfile::tempdir().unwrap();
    for (_, exists) in Exists::ALL {
        let dir = tempfile::tempdir().unwrap();
        let sink = sink(dir.path(), exists);
        let (item, content) = (item(1, b"a.csv"), trial_content(spool.path(), b"one"));
        let mut placement = sink.place(&item, None).await.unwrap();
        for note in [placement.note.clone(), Vec::new()] {
            placement.note = note;
            let fence = Fence::open();
            assert!(fence.close());
            let put = trial::put_fenced(&sink, &item, &placement, &content, false, &fence).await;
            assert!(
                matches!(put, Err(SinkError::Fenced(_))),
                "{exists:?}: {put:?}"
            );
            let text: Vec<u8> = seen(dir.path())
                .into_iter()
                .flat_map(|(_, text)| text)
                .collect();
            assert!(text.is_empty(), "{exists:?}");
        }
        trial::deliver_again(&sink, &item, placement, &content)
            .await
            .unwrap();
        let wanted = [("a.csv".to_owned(), b"one".to_vec())];
        assert_eq!(seen(dir.path()), wanted, "{exists:?}");
    }
}

/// What waits for an item that went another way goes when the sink is told, and a name that is gone
/// proves nothing in a directory that was made anew.
#[tokio::test]
async fn a_missing_file_proves_nothing_in_another_directory() {
    let spool = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), Exists::Error);
    let (item, content) = (item(1, b"in/a.csv"), trial_content(spool.path(), b"one"));
    let placement = sink.place(&item, None).await.unwrap();
    assert_eq!(hidden(&dir.path().join("in")), 1);
    assert!(sink.waits(&placement).await.unwrap());
    sink.forget(&placement).await.unwrap();
    assert!(!sink.waits(&placement).await.unwrap());
    sink.forget(&placement).await.unwrap();
    assert_eq!(hidden(&dir.path().join("in")), 0);

    let placement = sink.place(&item, None).await.unwrap();
    std::fs::rename(dir.path().join("in"), dir.path().join("out")).unwrap();
    trial::deliver_again(&sink, &item, placement, &content)
        .await
        .unwrap();
    assert_eq!(
        names(dir.path()),
        ["in/a.csv"],
        "an older directory is not this one"
    );
}

/// Somebody removes the directory with what waits in it. Made anew, by us or by others, it may have the
/// number of the old one (ext4 gives it again at once), which proves nothing.
#[tokio::test]
async fn a_missing_file_proves_nothing_in_a_directory_made_anew() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one");
    for is_made_by_others in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let sink = sink(dir.path(), Exists::Error);
        let item = item(1, b"in/a.csv");
        let placement = sink.place(&item, None).await.unwrap();
        let below = dir.path().join("in");
        let old = below.metadata().unwrap().ino();
        // More than a tick of the clock by which directories are born.
        std::thread::sleep(Duration::from_millis(50));
        std::fs::remove_dir_all(&below).unwrap();
        for left in (0..500).rev() {
            std::fs::create_dir(&below).unwrap();
            // Other tests make directories as well.
            let is_same = below.metadata().unwrap().ino() == old;
            if is_made_by_others && (is_same || left == 0) {
                break;
            }
            std::fs::remove_dir(&below).unwrap();
            if is_same {
                break;
            }
        }
        trial::deliver_again(&sink, &item, placement, &content)
            .await
            .unwrap();
        assert_eq!(
            names(dir.path()),
            ["in/a.csv"],
            "by others: {is_made_by_others}"
        );
    }
}

/// Who had to make the directory knows that nothing can have come of what waited in it.
#[tokio::test]
async fn a_missing_file_proves_nothing_to_who_made_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), Exists::Error);
    let placement = sink.place(&item(1, b"in/a.csv"), None).await.unwrap();
    let (below, is_new) = sink.inner.make_directories(b"in").unwrap();
    assert!(!is_new);
    sink.forget(&placement).await.unwrap();
    let fate = |is_new| sink.inner.fate(&below, is_new, &placement).unwrap();
    assert!(matches!(fate(false), Fate::Named));
    assert!(matches!(fate(true), Fate::Unknown));
    assert!(sink.inner.make_directories(b"in/b").unwrap().1);
}

/// A note that knows the directory by its number alone proves that a file waits, and nothing else.
#[tokio::test]
async fn a_note_without_a_birth_proves_nothing_by_a_missing_file() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one");
    for waits in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let sink = sink(dir.path(), Exists::Error);
        let item = item(1, b"a.csv");
        let mut placement = sink.place(&item, None).await.unwrap();
        // After the format, the digits, the start of the machine and the device.
        let number = dir.path().metadata().unwrap().ino();
        placement.note[25..33].copy_from_slice(&number.to_be_bytes());
        if !waits {
            sink.forget(&placement).await.unwrap();
        }
        trial::deliver_again(&sink, &item, placement, &content)
            .await
            .unwrap();
        assert_eq!(names(dir.path()), ["a.csv"], "waits: {waits}");
        assert_eq!(hidden(dir.path()), 0, "waits: {waits}");
    }
}

#[tokio::test]
async fn another_file_under_the_chosen_name_is_not_taken_for_ours() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"ours");
    let placement = Placement {
        name: b"a".to_vec(),
        length: None,
        note: Vec::new(),
    };
    for (text, is_ours) in [("ours", true), ("else", false), ("longer", false)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), text).unwrap();
        let sink = sink(dir.path(), Exists::Unique);
        let put = trial::put(&sink, &item(1, b"a"), &placement, &content, true).await;
        match is_ours {
            true => put.unwrap(),
            false => assert!(matches!(put, Err(SinkError::Taken { .. })), "{text}"),
        }
        assert_eq!(names(dir.path()), ["a"]);
    }
    // The same bytes, and another item's.
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(dir.path(), Exists::Unique);
    let other = item(2, b"a");
    trial::put(&sink, &other, &placement, &content, false)
        .await
        .unwrap();
    let file = File::open(dir.path().join("a")).unwrap();
    if sys::id(&file).is_some() {
        let put = trial::put(&sink, &item(1, b"a"), &placement, &content, true).await;
        assert!(matches!(put, Err(SinkError::Taken { .. })), "{put:?}");
    }
}

#[tokio::test]
async fn of_many_with_one_name_each_gets_its_own() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for exists in [Exists::Unique, Exists::Append] {
        let root = dir.path().join(format!("{exists:?}"));
        std::fs::create_dir(&root).unwrap();
        let sinks = [sink(&root, exists), sink(&root, exists)];
        let contents: Vec<_> = (0..24)
            .map(|number: u8| trial_content(spool.path(), &[b'a' + number; 40]))
            .collect();
        let deliveries = contents.iter().enumerate().map(|(number, content)| {
            let sink = &sinks[number % 2];
            let item = item(u64::try_from(number).unwrap(), b"in/a.csv");
            async move { trial::deliver(sink, &item, Some(content)).await.map(|_| ()) }
        });
        trial::all(deliveries).await.unwrap();
        let found = seen(&root);
        let mut runs: Vec<u8> = Vec::new();
        for (_, text) in &found {
            assert_eq!(text.len() % 40, 0);
            for run in text.chunks(40) {
                assert!(run.iter().all(|byte| *byte == run[0]), "torn");
                runs.push(run[0]);
            }
        }
        runs.sort_unstable();
        assert_eq!(runs, (b'a'..b'a' + 24).collect::<Vec<_>>(), "{exists:?}");
        assert_eq!(found.len(), if exists == Exists::Unique { 24 } else { 1 });
    }
}

#[tokio::test]
async fn evil_names_lead_nowhere() {
    let (jail, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = jail.path().join("in");
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(jail.path().join("out")).unwrap();
    std::fs::write(jail.path().join("out/canary"), "canary").unwrap();
    // Links that lead out, of directories and of files.
    symlink("../out", root.join("link")).unwrap();
    symlink("../out/canary", root.join("file")).unwrap();
    symlink("../out/fresh", root.join("dangling")).unwrap();
    let content = trial_content(spool.path(), b"evil");
    let mut refused = 0;
    let evil = trial::evil_names();
    assert!(evil.len() >= 300);
    for (_, exists) in Exists::ALL {
        let sink = sink(&root, exists);
        for name in &evil {
            let delivered = trial::deliver(&sink, &item(1, name), Some(&content)).await;
            refused += usize::from(delivered.is_err());
            // As if the ledger said so.
            let placement = Placement {
                name: name.clone(),
                length: Some(0),
                note: Vec::new(),
            };
            for again in [false, true] {
                let _ = trial::put(&sink, &item(2, b"a"), &placement, &content, again).await;
            }
        }
    }
    assert!(refused > 300, "{refused} refused");
    assert_eq!(
        seen(&jail.path().join("out")),
        [("canary".to_owned(), b"canary".to_vec())]
    );
    let beside = std::fs::read_dir(jail.path()).unwrap().count();
    assert_eq!(beside, 2, "nothing beside");
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing() {
    let disk = TinyDisk::mount();
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), &vec![7; 512 * 1024]);
    for (_, exists) in Exists::ALL {
        let sink = sink(disk.0.path(), exists);
        let error = trial::deliver(&sink, &item(1, b"in/a.csv"), Some(&content)).await;
        assert_eq!(error.unwrap_err().kind(), Kind::NoSpace, "{exists:?}");
        assert!(exists == Exists::Append || seen(disk.0.path()).is_empty());
        assert_eq!(ending(&disk.0.path().join("in"), ".part"), 0);
        let small = trial_content(spool.path(), b"small");
        trial::deliver(&sink, &item(2, b"in/a.csv"), Some(&small))
            .await
            .unwrap();
        assert_eq!(
            seen(disk.0.path()),
            [("in/a.csv".to_owned(), b"small".to_vec())]
        );
        std::fs::remove_dir_all(disk.0.path().join("in")).unwrap();
    }
}

#[tokio::test]
async fn what_others_left_unfinished_goes_and_what_is_in_use_stays() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let part = |digit: &str| dir.path().join(format!(".ketch-{}.part", digit.repeat(16)));
    for digit in ["a", "b"] {
        std::fs::write(part(digit), "half").unwrap();
    }
    std::fs::write(dir.path().join(".ketch-mine"), "kept").unwrap();
    let in_use = File::open(part("b")).unwrap();
    sys::lock_shared(&in_use);
    let content = trial_content(spool.path(), b"x");
    let sink = sink(dir.path(), Exists::Error);
    trial::deliver(&sink, &item(1, b"x"), Some(&content))
        .await
        .unwrap();
    assert!(!part("a").exists() && part("b").exists());
    assert!(dir.path().join(".ketch-mine").exists());
}

/// Who tidies up finds a file between its making and its mark, and removes it: it is made again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_before_it_is_marked_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (sinks, stop) = (
        [
            sink(dir.path(), Exists::Error),
            sink(dir.path(), Exists::Error),
        ],
        Arc::new(std::sync::atomic::AtomicBool::new(false)),
    );
    let [maker, tidier] = sinks;
    let tidies = {
        let stop = Arc::clone(&stop);
        tidier.blocking(move |inner| {
            let root = inner.root()?;
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                inner.tidy.lock().unwrap().clear();
                inner.tidy(&root);
            }
            Ok(())
        })
    };
    let makes = maker.blocking(move |inner| {
        let root = inner.root()?;
        let lost = (0..2000).filter(|_| {
            let part = part_name();
            let made = inner.create_part(&root, &part);
            made.is_err() || root.remove(&part).is_err()
        });
        let lost = lost.count();
        stop.store(true, std::sync::atomic::Ordering::Release);
        Ok(lost)
    });
    let (tidied, lost) = tokio::join!(tidies, makes);
    tidied.unwrap();
    assert_eq!(lost.unwrap(), 0);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink(&dir.path().join("share"), Exists::Error);
    assert_eq!(sink.check().await.unwrap_err().kind(), Kind::NotFound);
    let error = sink.place(&item(1, b"a"), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

/// A tmpfs with room for very little.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a tmpfs, which takes root"
        );
        Self(dir)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

/// A process ended in the middle of a line of the notes: the next append is noted all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_note_that_was_cut_short_spoils_no_other() {
    use std::ffi::OsStr;
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one,two");
    let id = uuid(&item(9, b"a.csv"));
    for torn in [
        "begin 0 5 01".to_owned(),
        format!("begin 0 5 {id}"),
        format!("begin 0 5 {id}\ndone {id}"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(OsStr::from_bytes(&notes_name(b"a.csv"))),
            &torn,
        )
        .unwrap();
        let sink = sink(dir.path(), Exists::Append);
        let item = item(1, b"a.csv");
        let placement = sink.place(&item, None).await.unwrap();
        for _ in 0..2 {
            trial::put(&sink, &item, &placement, &content, true)
                .await
                .unwrap();
        }
        let wanted = [("a.csv".to_owned(), b"one,two".to_vec())];
        assert_eq!(seen(dir.path()), wanted, "{torn}");
    }
}
