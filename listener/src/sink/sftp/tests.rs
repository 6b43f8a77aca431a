//! Another server, which is ours over a stream in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use ketch_client::hostkey::HostKeys;
use ketch_client::{Connect, Session};
use ketch_server::{
    Answer as Answered, Call, FileSystem, LocalDirectory, Server, User, Work, generate_host_key,
};

use super::*;
use crate::sink::append::PREFIX;
use crate::sink::fence::Fence;
use crate::sink::template::uuid;
use crate::sink::trial::{self, item, trial_content};

async fn connect(root: &Path) -> Session {
    connect_as(User::new("ann", root)).await
}

async fn connect_as(user: User) -> Session {
    let server = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(user.password("correct horse"))
        .build()
        .unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let host_keys = HostKeys::only([server.host_key()]);
    #[expect(clippy::disallowed_methods, reason = "the server's end")]
    tokio::spawn(async move {
        let _ = server.serve_stream(far, "the test").await;
    });
    let connect = Connect::to("test")
        .user("ann")
        .password("correct horse".to_owned())
        .host_keys(host_keys);
    connect.connect_over(near).await.unwrap()
}

async fn sink(session: &Session, exists: Exists) -> SftpSink {
    let sftp = session.sftp().await.unwrap();
    let settings = SftpSinkSettings {
        exists,
        ..SftpSinkSettings::new("bank")
    };
    SftpSink::new(settings, Remote::over(sftp, RemotePath::from("/in")))
}

/// What is in a directory that people see, and what they do not.
fn seen(dir: &Path) -> (Vec<(String, String)>, usize) {
    let (mut found, mut hidden) = (Vec::new(), 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains(".ketch-") {
            // What tells of appends and of the directory itself is meant to stay.
            hidden += usize::from(!name.starts_with(PREFIX) && name != ".ketch-here");
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            found.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    found.sort();
    (found, hidden)
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
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("in/deep/er");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("a.csv"), "old").unwrap();
        let session = connect(root.path()).await;
        let sink = sink(&session, exists).await;
        sink.check().await.unwrap();
        let content = trial_content(spool.path(), b"new");
        let delivered = trial::deliver(&sink, &item(1, b"deep/er/a.csv"), Some(&content)).await;
        match exists {
            Exists::Error => assert!(matches!(delivered, Err(SinkError::Exists { .. }))),
            _ => assert!(delivered.is_ok(), "{exists:?}: {delivered:?}"),
        }
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect();
        assert_eq!(seen(&dir), (wanted, 0), "{exists:?}");
        // A new directory, and the time.
        let name = b"fresh/and/b.csv";
        trial::deliver(&sink, &item(2, name), Some(&content))
            .await
            .unwrap();
        let metadata = root.path().join("in/fresh/and/b.csv").metadata().unwrap();
        let modified = metadata.modified().unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(exists == Exists::Append || since.as_secs() == 1_795_282_542);
    }
}

#[tokio::test]
async fn a_delivery_killed_at_any_step_leaves_one_whole_copy() {
    let spool = tempfile::tempdir().unwrap();
    let mut points = 0;
    for (_, exists) in Exists::ALL {
        for step in 0.. {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("in")).unwrap();
            let session = connect(root.path()).await;
            let content = trial_content(spool.path(), b"one,two,three");
            let item = item(1, b"x/a.csv");
            let first = sink(&session, exists).await;
            let placement = first.place(&item, None).await.unwrap();
            first.steps.kill_after(Some(step));
            let killed = trial::put(&first, &item, &placement, &content, false).await;
            drop(first);
            let second = sink(&session, exists).await;
            if exists == Exists::Append {
                let other = self::item(2, b"x/a.csv");
                trial::deliver(&second, &other, Some(&content))
                    .await
                    .unwrap();
            }
            trial::deliver_again(&second, &item, placement, &content)
                .await
                .unwrap();
            let text = match exists {
                Exists::Append => "one,two,three".repeat(2),
                _ => "one,two,three".to_owned(),
            };
            let wanted = (vec![("a.csv".to_owned(), text)], 0);
            assert_eq!(
                seen(&root.path().join("in/x")),
                wanted,
                "{exists:?}, step {step}"
            );
            if killed.is_ok() {
                break;
            }
            points += 1;
        }
    }
    assert!(points >= 14, "{points} kill points");
}

/// A consumer takes the file away as soon as it is there, and the process is killed at any step:
/// the consumer gets it once.
#[tokio::test]
async fn a_consumer_that_is_quicker_than_a_crash_gets_a_file_once() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one,two,three");
    let mut taken_early = 0;
    for exists in [
        Exists::Error,
        Exists::Overwrite,
        Exists::Unique,
        Exists::Skip,
    ] {
        for step in 0.. {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("in")).unwrap();
            let session = connect(root.path()).await;
            let item = item(1, b"x/a.csv");
            let first = sink(&session, exists).await;
            let placement = first.place(&item, None).await.unwrap();
            first.steps.kill_after(Some(step));
            let killed = trial::put(&first, &item, &placement, &content, false).await;
            drop(first);
            let took = || {
                let file = root.path().join("in/x/a.csv");
                let is_whole = std::fs::read(&file).is_ok_and(|text| text == b"one,two,three");
                usize::from(is_whole && std::fs::remove_file(file).is_ok())
            };
            let early = took();
            let second = sink(&session, exists).await;
            trial::deliver_again(&second, &item, placement, &content)
                .await
                .unwrap();
            assert_eq!(early + took(), 1, "{exists:?}, step {step}");
            assert_eq!(
                seen(&root.path().join("in/x")).1,
                0,
                "{exists:?}, step {step}"
            );
            if killed.is_ok() {
                break;
            }
            taken_early += early;
        }
    }
    assert!(taken_early > 0, "no crash was after a rename");
}

/// What waits for an item that went another way goes when the sink is told; what was delivered does not
/// wait, wherever it is by now.
#[tokio::test]
async fn what_waits_goes_when_it_is_given_up() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one");
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("in")).unwrap();
    let session = connect(root.path()).await;
    let sink = sink(&session, Exists::Error).await;
    let item = item(1, b"x/a.csv");
    let placement = sink.place(&item, None).await.unwrap();
    let dir = root.path().join("in/x");
    assert!(sink.waits(&placement).await.unwrap());
    assert_eq!(seen(&dir).1, 1);
    sink.forget(&placement).await.unwrap();
    assert!(!sink.waits(&placement).await.unwrap());
    sink.forget(&placement).await.unwrap();
    assert_eq!(seen(&dir).1, 0);
    let placement = sink.place(&item, None).await.unwrap();
    trial::put(&sink, &item, &placement, &content, false)
        .await
        .unwrap();
    std::fs::remove_file(dir.join("a.csv")).unwrap();
    assert!(!sink.waits(&placement).await.unwrap());
}

/// Several processes would append over each other.
#[tokio::test]
async fn appending_bears_no_other_process() {
    let root = tempfile::tempdir().unwrap();
    let session = connect(root.path()).await;
    for (_, exists) in Exists::ALL {
        let sink = sink(&session, exists).await;
        assert_eq!(sink.alone().is_some(), exists == Exists::Append);
    }
}

/// Two items with the same name and the same bytes are two files, whatever was cut when.
#[tokio::test]
async fn of_two_items_that_look_alike_each_is_there_once() {
    let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(root.path().join("in")).unwrap();
    let session = connect(root.path()).await;
    let content = trial_content(spool.path(), b"same");
    let sink = sink(&session, Exists::Unique).await;
    let (one, two) = (item(1, b"a"), item(2, b"a"));
    // Both chose the free name, and the second was cut before it came there.
    let first = sink.place(&one, None).await.unwrap();
    let second = sink.place(&two, None).await.unwrap();
    assert_eq!(first.name, second.name);
    trial::deliver_again(&sink, &one, first, &content)
        .await
        .unwrap();
    trial::deliver_again(&sink, &two, second, &content)
        .await
        .unwrap();
    let wanted = ["a", "a-1"].map(|name| (name.to_owned(), "same".to_owned()));
    assert_eq!(seen(&root.path().join("in")), (wanted.to_vec(), 0));
}

/// Nothing becomes visible behind a closed fence; and a name that is gone proves nothing in a
/// directory that was made anew.
#[tokio::test]
async fn what_is_fenced_waits_and_another_directory_proves_nothing() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one");
    for (_, exists) in Exists::ALL {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("in/x");
        std::fs::create_dir_all(&dir).unwrap();
        let session = connect(root.path()).await;
        let sink = sink(&session, exists).await;
        let item = item(1, b"x/a");
        let placement = sink.place(&item, None).await.unwrap();
        let fence = Fence::open();
        assert!(fence.close());
        let put = trial::put_fenced(&sink, &item, &placement, &content, false, &fence).await;
        assert!(
            matches!(put, Err(SinkError::Fenced(_))),
            "{exists:?}: {put:?}"
        );
        assert!(seen(&dir).0.is_empty(), "{exists:?}");
        std::fs::rename(&dir, root.path().join("in/old")).unwrap();
        std::fs::create_dir(&dir).unwrap();
        if exists != Exists::Append {
            // Another item's directory number, which is not the old one's.
            let other = self::item(2, b"x/b");
            let fresh = self::sink(&session, exists).await;
            fresh.place(&other, None).await.unwrap();
        }
        trial::deliver_again(&sink, &item, placement, &content)
            .await
            .unwrap();
        let wanted = vec![("a".to_owned(), "one".to_owned())];
        assert_eq!(seen(&dir).0, wanted, "{exists:?}");
    }
}

/// The connection is lost at a random moment of an upload: the next one, on another, leaves one
/// whole copy.
#[tokio::test]
async fn an_upload_that_was_cut_is_whole_the_next_time() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), &vec![b'x'; 3_000_000]);
    for exists in [Exists::Error, Exists::Unique, Exists::Append] {
        for polls in [3_usize, 9, 27, 81] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("in")).unwrap();
            let item = item(1, b"a.csv");
            let session = connect(root.path()).await;
            let first = sink(&session, exists).await;
            let placement = first.place(&item, None).await.unwrap();
            {
                let mut put = Box::pin(trial::put(&first, &item, &placement, &content, false));
                for _ in 0..polls {
                    tokio::select! {
                        biased;
                        _ = &mut put => break,
                        () = tokio::task::yield_now() => {}
                    }
                }
                session.disconnect().await;
            }
            let session = connect(root.path()).await;
            let second = sink(&session, exists).await;
            trial::deliver_again(&second, &item, placement, &content)
                .await
                .unwrap();
            let (found, _) = seen(&root.path().join("in"));
            let lens: Vec<_> = found.iter().map(|(_, text)| text.len()).collect();
            assert_eq!(lens, [3_000_000], "{exists:?}, {polls} polls");
        }
    }
}

#[tokio::test]
async fn another_file_under_the_chosen_name_is_not_taken_for_ours() {
    let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(root.path().join("in")).unwrap();
    let session = connect(root.path()).await;
    let content = trial_content(spool.path(), b"ours");
    let placement = Placement {
        name: b"a".to_vec(),
        length: None,
        note: Vec::new(),
    };
    for (text, is_ours) in [("ours", true), ("else", false), ("longer", false)] {
        std::fs::write(root.path().join("in/a"), text).unwrap();
        let sink = sink(&session, Exists::Unique).await;
        let put = trial::put(&sink, &item(1, b"a"), &placement, &content, true).await;
        match is_ours {
            true => put.unwrap(),
            false => assert!(matches!(put, Err(SinkError::Taken { .. })), "{text}"),
        }
    }
}

#[tokio::test]
async fn of_many_with_one_name_each_gets_its_own() {
    for exists in [Exists::Unique, Exists::Append] {
        let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(root.path().join("in")).unwrap();
        let session = connect(root.path()).await;
        let sink = sink(&session, exists).await;
        let contents: Vec<_> = (0..12)
            .map(|number: u8| trial_content(spool.path(), &[b'a' + number; 40]))
            .collect();
        let deliveries = contents.iter().enumerate().map(|(number, content)| {
            let (sink, item) = (&sink, item(u64::try_from(number).unwrap(), b"a.csv"));
            async move { trial::deliver(sink, &item, Some(content)).await.map(|_| ()) }
        });
        trial::all(deliveries).await.unwrap();
        let (found, hidden) = seen(&root.path().join("in"));
        let mut runs: Vec<u8> = Vec::new();
        for (_, text) in &found {
            for run in text.as_bytes().chunks(40) {
                assert!(
                    run.len() == 40 && run.iter().all(|byte| *byte == run[0]),
                    "torn"
                );
                runs.push(run[0]);
            }
        }
        runs.sort_unstable();
        assert_eq!(runs, (b'a'..b'a' + 12).collect::<Vec<_>>(), "{exists:?}");
        assert_eq!(
            (found.len(), hidden),
            (if exists == Exists::Unique { 12 } else { 1 }, 0)
        );
    }
}

/// The server would let all of these out of the sink's directory, as far as its own root: the sink
/// does not ask for it.
#[tokio::test]
async fn evil_names_lead_nowhere() {
    let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(root.path().join("in")).unwrap();
    std::fs::create_dir(root.path().join("out")).unwrap();
    std::fs::write(root.path().join("out/canary"), "canary").unwrap();
    let session = connect(root.path()).await;
    let content = trial_content(spool.path(), b"evil");
    let (mut refused, names) = (0, trial::evil_names());
    for exists in [Exists::Overwrite, Exists::Unique, Exists::Append] {
        let sink = sink(&session, exists).await;
        for name in &names {
            let delivered = trial::deliver(&sink, &item(1, name), Some(&content)).await;
            refused += usize::from(delivered.is_err());
            let placement = Placement {
                name: name.clone(),
                length: Some(0),
                note: Vec::new(),
            };
            let _ = trial::put(&sink, &item(2, b"a"), &placement, &content, true).await;
        }
    }
    assert!(refused > 300, "{refused} refused");
    let canary = ("canary".to_owned(), "canary".to_owned());
    assert_eq!(seen(&root.path().join("out")), (vec![canary], 0));
    assert_eq!(
        std::fs::read_dir(root.path()).unwrap().count(),
        2,
        "nothing beside"
    );
}

/// A full disk cut a line of the notes: the next append is noted all the same, and found again.
#[tokio::test]
async fn a_note_that_was_cut_short_spoils_no_other() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one,two");
    let id = uuid(&item(9, b"a.csv"));
    for torn in [
        "begin 0 5 01".to_owned(),
        format!("begin 0 5 {id}"),
        format!("begin 0 5 {id}\ndone {id}"),
    ] {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("in")).unwrap();
        let session = connect(root.path()).await;
        let sink = sink(&session, Exists::Append).await;
        let item = item(1, b"a.csv");
        let placement = sink.place(&item, None).await.unwrap();
        // The first one makes the notes, and the file, which is empty again.
        trial::put(&sink, &item, &placement, &content, false)
            .await
            .unwrap();
        let entries = std::fs::read_dir(root.path().join("in")).unwrap();
        let notes = entries
            .map(|entry| entry.unwrap())
            .find(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
            .unwrap();
        std::fs::write(notes.path(), &torn).unwrap();
        std::fs::write(root.path().join("in/a.csv"), "").unwrap();
        for _ in 0..2 {
            trial::put(&sink, &item, &placement, &content, true)
                .await
                .unwrap();
        }
        let wanted = vec![("a.csv".to_owned(), "one,two".to_owned())];
        assert_eq!(seen(&root.path().join("in")).0, wanted, "{torn}");
    }
}

/// The file that tells a directory from others is made by one and read by another, and may be cut
/// short by a crash: it is made whole, and never taken for none.
#[tokio::test]
async fn a_directory_that_has_half_a_number_gets_a_whole_one() {
    let here = |root: &tempfile::TempDir| root.path().join("in/.ketch-here");
    for half in [&b""[..], b"half"] {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("in")).unwrap();
        let session = connect(root.path()).await;
        let (one, two) = (
            sink(&session, Exists::Error).await,
            sink(&session, Exists::Error).await,
        );
        std::fs::write(here(&root), half).unwrap();
        let first = one.place(&item(1, b"a"), None).await.unwrap();
        let number = std::fs::read(here(&root)).unwrap();
        assert_eq!(number.len(), 8);
        assert_eq!(first.note.get(9..), Some(&*number));
        let second = two.place(&item(2, b"b"), None).await.unwrap();
        assert_eq!(second.note.get(9..), Some(&*number));
        // What is hidden there besides waits.
        assert_eq!(seen(&root.path().join("in")), (Vec::new(), 2));
    }
    // No directory has none for good: where none could be made, the next item looks again.
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(here(&root)).unwrap();
    let session = connect(root.path()).await;
    let sink = sink(&session, Exists::Error).await;
    let first = sink.place(&item(1, b"a"), None).await.unwrap();
    assert_eq!(first.note.get(9..), Some(&[0; 8][..]));
    std::fs::remove_dir(here(&root)).unwrap();
    let second = sink.place(&item(2, b"b"), None).await.unwrap();
    assert_ne!(second.note.get(9..), Some(&[0; 8][..]));
}

/// What a test does about a call, before it is done: an error is its answer.
type Before = Arc<dyn Fn(&Call) -> std::io::Result<()> + Send + Sync>;

/// A directory where something happens before a call.
struct Watched {
    files: Arc<LocalDirectory>,
    before: Before,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl FileSystem for Watched {
    fn call(self: Arc<Self>, call: Call) -> Work<Answered> {
        if let Err(error) = (self.before)(&call) {
            return Box::pin(async { Err(error) });
        }
        Arc::clone(&self.files).call(call)
    }
}

async fn watched(root: &Path, before: Before) -> Session {
    let files = Arc::new(LocalDirectory::open(root).unwrap());
    connect_as(User::with_file_system(
        "ann",
        Arc::new(Watched { files, before }),
    ))
    .await
}

fn hidden_file(dir: &Path, end: &str) -> Option<std::path::PathBuf> {
    let paths = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .into_iter()
        .find(|path| path.to_string_lossy().ends_with(end))
}

/// Where nothing is replaced in one step, nothing waits; a process that is killed at any step leaves the
/// old version, nothing for a moment, or the new one, and the next attempt the new one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn without_a_rename_that_replaces_nothing_waits_and_nothing_is_lost() {
    use std::os::unix::fs::PermissionsExt as _;

    use ketch_client::identity::Identity;
    use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer, SftpProgram};

    let spool = tempfile::tempdir().unwrap();
    let program = spool.path().join("sftp-server");
    let script = "#!/bin/sh\nexec /usr/lib/openssh/sftp-server -P posix-rename \"$@\"\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = OpenSshServer::start(OpenSshConfig {
        sftp: SftpProgram::At(program),
        ..OpenSshConfig::default()
    })
    .unwrap();
    let connect = Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .host_keys(HostKeys::files([server.known_hosts()]));
    let session = connect.connect().await.unwrap();
    let sftp = session.sftp().await.unwrap();
    assert!(!sftp.has_posix_rename().await.unwrap());
    let content = trial_content(spool.path(), b"new");
    let mut points = 0;
    for exists in [
        Exists::Overwrite,
        Exists::Error,
        Exists::Unique,
        Exists::Skip,
    ] {
        for step in 0.. {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path();
            if exists == Exists::Overwrite {
                std::fs::write(dir.join("a"), "old").unwrap();
            }
            let sink = || {
                let settings = SftpSinkSettings {
                    exists,
                    ..SftpSinkSettings::new("bank")
                };
                let root = RemotePath::from(dir.to_str().unwrap());
                SftpSink::new(settings, Remote::over(sftp.clone(), root))
            };
            let (first, item) = (sink(), item(1, b"a"));
            let placement = first.place(&item, None).await.unwrap();
            assert!(placement.note.is_empty(), "its absence would prove nothing");
            first.steps.kill_after(Some(step));
            let killed = trial::put(&first, &item, &placement, &content, false).await;
            trial::deliver_again(&sink(), &item, placement, &content)
                .await
                .unwrap();
            let wanted = (vec![("a".to_owned(), "new".to_owned())], 0);
            assert_eq!(seen(dir), wanted, "{exists:?}, step {step}");
            if killed.is_ok() {
                break;
            }
            points += 1;
        }
    }
    assert!(points >= 8, "{points} kill points");
}

/// Who was held up before it uploads, and finds its claim gone, leaves no file that would wait for a
/// name that it has had.
#[tokio::test]
async fn who_was_held_up_makes_no_waiting_file_anew() {
    let spool = tempfile::tempdir().unwrap();
    let content = trial_content(spool.path(), b"one");
    for exists in [Exists::Error, Exists::Unique, Exists::Skip] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("in");
        std::fs::create_dir(&dir).unwrap();
        let is_slow = Arc::new(AtomicBool::new(false));
        let (there, now) = (dir.clone(), Arc::clone(&is_slow));
        // Once it knows that its file waits, another delivers that, and a consumer takes it away.
        let before = Arc::new(move |call: &Call| {
            if matches!(call, Call::Metadata { path, .. } if path.to_string().ends_with("/a"))
                && now.swap(false, Ordering::AcqRel)
            {
                let held = hidden_file(&there, ".held").expect("it waits");
                std::fs::remove_file(held).expect("it was there");
            }
            Ok(())
        });
        let session = watched(root.path(), before).await;
        let sink = sink(&session, exists).await;
        let item = item(1, b"a");
        let placement = sink.place(&item, None).await.unwrap();
        is_slow.store(true, Ordering::Release);
        let fence = Fence::open();
        assert!(fence.close());
        let put = trial::put_fenced(&sink, &item, &placement, &content, false, &fence).await;
        assert!(matches!(put, Err(SinkError::Fenced(_))), "{put:?}");
        assert!(!is_slow.load(Ordering::Acquire), "it was in time");
        // The other ended before it could tell the ledger: nothing comes twice all the same.
        trial::deliver_again(&sink, &item, placement, &content)
            .await
            .unwrap();
        assert_eq!(seen(&dir), (Vec::new(), 0), "{exists:?}");
    }
}

/// The same in the middle of an upload that replaces: the file that it made anew goes again.
#[tokio::test]
async fn what_was_made_anew_beside_its_own_copy_goes_again() {
    let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = trial_content(spool.path(), b"one");
    let dir = root.path().join("in");
    std::fs::create_dir(&dir).unwrap();
    let session = connect(root.path()).await;
    let sink = sink(&session, Exists::Overwrite).await;
    let item = item(1, b"a");
    let placement = sink.place(&item, None).await.unwrap();
    let asked = AtomicU8::new(0);
    let there = dir.clone();
    let fence = Fence::asking(Arc::new(Asked(move || {
        match asked.fetch_add(1, Ordering::AcqRel) {
            0 => {
                let held = hidden_file(&there, ".held").expect("it waits");
                std::fs::remove_file(held).expect("it was there");
                std::fs::write(there.join("a"), "one").expect("written");
                Ok(())
            }
            _ => Err(SinkError::lost()),
        }
    })));
    let put = trial::put_fenced(&sink, &item, &placement, &content, false, &fence).await;
    assert!(matches!(put, Err(SinkError::Fenced(_))), "{put:?}");
    let wanted = vec![("a".to_owned(), "one".to_owned())];
    assert_eq!(seen(&dir), (wanted, 0));
}

/// A ledger that says what a test wants it to.
struct Asked<F>(F);

impl<F: Fn() -> Result<(), SinkError> + Send + Sync + 'static> crate::sink::fence::StillOurs
    for Asked<F>
{
    fn still_ours(&self) -> Answer<'_, ()> {
        Box::pin(async { (self.0)() })
    }
}
