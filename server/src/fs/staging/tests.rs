//! Staged uploads on a directory of this machine and on a file system that is never at hand.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::fs::{LocalDirectory, Target};

/// Answers everything on the second tier only.
#[derive(Debug)]
struct Slow(Arc<LocalDirectory>);

impl FileSystem for Slow {
    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Arc::clone(&self.0).call(call)
    }
}

/// A tree with the layer over it, on either tier.
struct Scene {
    dir: tempfile::TempDir,
    staging: Arc<Staging>,
    files: Arc<StagedFiles>,
}

impl Scene {
    fn new(durability: Durability, is_slow: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let local = Arc::new(LocalDirectory::open(dir.path()).unwrap());
        let below: Arc<dyn FileSystem> = if is_slow {
            Arc::new(Slow(local))
        } else {
            local
        };
        let staging = Staging::new(below, durability);
        let files = Arc::new(StagedFiles(Arc::clone(&staging)));
        Self {
            dir,
            staging,
            files,
        }
    }

    async fn call(&self, call: Call) -> io::Result<Answer> {
        match self.files.try_call(&call) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Arc::clone(&self.files).call(call).await
            }
            result => result,
        }
    }

    async fn open(&self, name: &str, how: OpenHow) -> io::Result<Arc<dyn File>> {
        let path = path(name);
        match self.call(Call::Open { path, how }).await? {
            Answer::File(file) => Ok(file),
            other => panic!("{other:?}"),
        }
    }

    /// What is in the topmost directory, hidden names and all.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    async fn listed(&self) -> Vec<Vec<u8>> {
        let path = VPath::root();
        let Ok(Answer::Directory(mut directory)) = self.call(Call::OpenDirectory { path }).await
        else {
            panic!("no directory");
        };
        let mut names = Vec::new();
        loop {
            let (back, batch) = directory.read(Batch::default()).await.unwrap();
            directory = back;
            if batch.entries().is_empty() {
                return names;
            }
            names.extend(batch.entries().iter().map(|entry| entry.name.clone()));
        }
    }

    /// Until what a drop left to a task is done.
    async fn settle(&self) {
        for _ in 0..6000 {
            if !self.names().iter().any(|name| name.starts_with(".ketch-")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

fn path(name: &str) -> VPath {
    VPath::resolve(name.as_bytes()).unwrap()
}

async fn ask(file: &Arc<dyn File>, call: FileCall) -> io::Result<Answer> {
    match file.try_call(&call) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Arc::clone(file).call(call).await,
        result => result,
    }
}

async fn write(file: &Arc<dyn File>, bytes: &[u8]) {
    Arc::clone(file).write_at(0, bytes.to_vec()).await.unwrap();
}

const EVERYWHERE: [(Durability, bool); 4] = [
    (Durability::None, false),
    (Durability::None, true),
    (Durability::File, false),
    (Durability::Full, true),
];

#[tokio::test]
async fn a_file_has_its_name_when_it_is_published_and_not_before() {
    for (durability, is_slow) in EVERYWHERE {
        let scene = Scene::new(durability, is_slow);
        fs::write(scene.dir.path().join("old"), "before").unwrap();
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(scene.dir.path().join("old"), mode).unwrap();
        for name in ["old", "new"] {
            let file = scene.open(name, OpenHow::replace(0o644)).await.unwrap();
            assert!(file.is_staged());
            write(&file, b"after").await;
            assert_eq!(scene.listed().await, [b"old"]);
            let Ok(Answer::Metadata(metadata)) = ask(&file, FileCall::Metadata).await else {
                panic!("no metadata");
            };
            assert_eq!(metadata.size, 5);
            if name == "old" {
                assert_eq!(fs::read(scene.dir.path().join("old")).unwrap(), b"before");
                assert_eq!(metadata.mode & 0o777, 0o640);
            }
            ask(&file, FileCall::Publish).await.unwrap();
            drop(file);
            assert_eq!(fs::read(scene.dir.path().join(name)).unwrap(), b"after");
        }
        assert_eq!(scene.names(), ["new", "old"]);
    }
}

#[tokio::test]
async fn what_is_let_go_leaves_nothing() {
    for (durability, is_slow) in EVERYWHERE {
        let scene = Scene::new(durability, is_slow);
        let file = scene.open("new", OpenHow::replace(0o644)).await.unwrap();
        write(&file, b"half").await;
        assert_eq!(scene.names().len(), 1);
        drop(file);
        scene.settle().await;
        assert_eq!(scene.names(), [""; 0]);
    }
}

#[tokio::test]
async fn what_could_not_be_written_whole_does_not_get_its_name() {
    for (durability, is_slow) in EVERYWHERE {
        let scene = Scene::new(durability, is_slow);
        fs::write(scene.dir.path().join("old"), "before").unwrap();
        let file = scene.open("old", OpenHow::replace(0o644)).await.unwrap();
        write(&file, b"some").await;
        // No file is so long.
        let far = Arc::clone(&file).write_at(u64::MAX >> 1, vec![1]).await;
        let why = far.unwrap_err().kind();
        let error = ask(&file, FileCall::Publish).await.unwrap_err();
        assert_eq!(error.kind(), why);
        drop(file);
        scene.settle().await;
        assert_eq!(scene.names(), ["old"]);
        assert_eq!(fs::read(scene.dir.path().join("old")).unwrap(), b"before");
    }
}

#[tokio::test]
async fn what_is_changed_in_place_is_not_staged() {
    let scene = Scene::new(Durability::None, false);
    fs::write(scene.dir.path().join("f"), "f").unwrap();
    symlink("f", scene.dir.path().join("l")).unwrap();
    let append = OpenHow {
        append: true,
        truncate: false,
        ..OpenHow::replace(0o644)
    };
    let keep = OpenHow {
        truncate: false,
        ..OpenHow::replace(0o644)
    };
    for (name, how) in [
        ("f", append),
        ("f", keep),
        ("f", OpenHow::read()),
        ("l", OpenHow::replace(0o644)),
    ] {
        assert!(
            !scene.open(name, how).await.unwrap().is_staged(),
            "{name} {how:?}"
        );
    }
    assert_eq!(fs::read(scene.dir.path().join("f")).unwrap(), b"");
    assert!(
        fs::symlink_metadata(scene.dir.path().join("l"))
            .unwrap()
            .is_symlink()
    );
}

#[tokio::test]
async fn what_may_not_be_there_and_what_may_not_be_written_is_refused() {
    for is_slow in [false, true] {
        let scene = Scene::new(Durability::None, is_slow);
        let new = OpenHow {
            create: Create::New { mode: 0o644 },
            ..OpenHow::replace(0o644)
        };
        let file = scene.open("f", new).await.unwrap();
        // Somebody else was first.
        fs::write(scene.dir.path().join("f"), "first").unwrap();
        let error = ask(&file, FileCall::Publish).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            scene.open("f", new).await.unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        let mode = fs::Permissions::from_mode(0o444);
        fs::set_permissions(scene.dir.path().join("f"), mode).unwrap();
        assert_eq!(
            scene
                .open("f", OpenHow::replace(0o644))
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::PermissionDenied
        );
        drop(file);
        scene.settle().await;
        assert_eq!(scene.names(), ["f"]);
    }
}

#[tokio::test]
async fn of_two_exclusive_uploads_of_one_name_the_second_is_refused() {
    for is_slow in [false, true] {
        let scene = Scene::new(Durability::None, is_slow);
        let how = OpenHow {
            exclusive: true,
            ..OpenHow::replace(0o644)
        };
        let first = scene.open("f", how).await.unwrap();
        let error = scene.open("f", how).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceBusy);
        drop(scene.open("g", how).await.unwrap());
        ask(&first, FileCall::Publish).await.unwrap();
        drop(first);
        drop(scene.open("f", how).await.unwrap());
        scene.settle().await;
        assert_eq!(scene.names(), ["f"]);
    }
}

/// Two users of one directory, whose names are not held against each other.
#[tokio::test]
async fn what_another_user_brought_meanwhile_is_not_replaced_by_an_exclusive_upload() {
    let how = OpenHow {
        exclusive: true,
        ..OpenHow::replace(0o644)
    };
    for (durability, is_slow) in EVERYWHERE {
        let mut scene = Scene::new(durability, is_slow);
        let first = scene.open("f", how).await.unwrap();
        let (files, below) = (Arc::clone(&scene.files), Arc::clone(&scene.staging.files));
        scene.files = Arc::new(StagedFiles(Staging::new(below, durability)));
        let second = scene.open("f", how).await.unwrap();
        write(&second, b"second").await;
        ask(&second, FileCall::Publish).await.unwrap();
        let error = ask(&first, FileCall::Publish).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        drop((first, files));
        scene.settle().await;
        assert_eq!(scene.names(), ["f"]);
        assert_eq!(fs::read(scene.dir.path().join("f")).unwrap(), b"second");
    }
}

#[tokio::test]
async fn no_request_reaches_a_hidden_name() {
    let scene = Scene::new(Durability::None, false);
    let hidden = format!(".ketch-{}", "0123456789abcdef".repeat(2));
    fs::write(scene.dir.path().join(&hidden), "x").unwrap();
    fs::write(scene.dir.path().join("f"), "f").unwrap();
    let (hidden, plain) = (path(&hidden), path("f"));
    let calls = [
        Call::Open {
            path: hidden.clone(),
            how: OpenHow::read(),
        },
        Call::Metadata {
            path: hidden.clone(),
            links: Links::Stay,
        },
        Call::Remove {
            path: hidden.clone(),
        },
        Call::Rename {
            from: hidden.clone(),
            to: plain.clone(),
            target: Target::MayExist,
        },
        Call::Rename {
            from: plain.clone(),
            to: hidden.clone(),
            target: Target::MayExist,
        },
        Call::CreateDirectory {
            path: hidden.walk(b"below").unwrap(),
            mode: 0o700,
        },
    ];
    for call in calls {
        let error = scene.call(call.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{call:?}");
        let error = Arc::clone(&scene.files)
            .call(call.clone())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{call:?}");
    }
    assert_eq!(scene.listed().await, [b"f"]);
    assert_eq!(fs::read(scene.dir.path().join("f")).unwrap(), b"f");
}

#[tokio::test]
async fn what_a_killed_server_left_goes_and_what_is_being_written_stays() {
    let scene = Scene::new(Durability::None, false);
    fs::create_dir_all(scene.dir.path().join("a/b")).unwrap();
    let left = format!(".ketch-{}", "0123456789abcdef".repeat(2));
    for directory in ["", "a", "a/b"] {
        fs::write(scene.dir.path().join(directory).join(&left), "x").unwrap();
    }
    let others = ["a/.ketch-0123", "a/b/.f.ketch-0123456789abcdef", "a/plain"];
    for name in others {
        fs::write(scene.dir.path().join(name), "x").unwrap();
    }
    let file = scene.open("new", OpenHow::replace(0o644)).await.unwrap();
    scene.staging.reap_once().unwrap().await;
    assert!(scene.staging.reap_once().is_none());
    for directory in ["", "a", "a/b"] {
        assert!(!scene.dir.path().join(directory).join(&left).exists());
    }
    for name in others {
        assert!(scene.dir.path().join(name).exists(), "{name}");
    }
    ask(&file, FileCall::Publish).await.unwrap();
    assert!(scene.dir.path().join("new").exists());
}

/// One that is written anew and one that is changed where it is, in either order.
#[tokio::test]
async fn an_exclusive_file_is_not_replaced_while_it_is_changed_in_place_nor_changed_meanwhile() {
    for is_slow in [false, true] {
        let scene = Scene::new(Durability::None, is_slow);
        let other = StagedFiles(Staging::new(
            Arc::new(LocalDirectory::open(scene.dir.path()).unwrap()),
            Durability::None,
        ));
        let other = Arc::new(other);
        fs::write(scene.dir.path().join("f"), "old").unwrap();
        let anew = OpenHow {
            exclusive: true,
            ..OpenHow::replace(0o644)
        };
        let in_place = OpenHow {
            truncate: false,
            create: Create::Never,
            ..anew
        };
        for (first, second) in [(anew, in_place), (in_place, anew), (anew, anew)] {
            let held = scene.open("f", first).await.unwrap();
            let busy = |result: io::Result<Arc<dyn File>>| result.unwrap_err().kind();
            let again = busy(scene.open("f", second).await);
            assert_eq!(again, ErrorKind::ResourceBusy);
            // Of another user of the same directory as well.
            let (path, how) = (path("f"), second);
            let error = Arc::clone(&other).call(Call::Open { path, how }).await;
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ResourceBusy);
            if held.is_staged() {
                ask(&held, FileCall::Publish).await.unwrap();
            }
            drop(held);
            drop(scene.open("f", second).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_new_file_has_the_mode_that_was_asked_for() {
    for is_slow in [false, true] {
        let scene = Scene::new(Durability::None, is_slow);
        for mode in [0o400, 0o200, 0o440, 0o600] {
            let name = format!("f{mode:o}");
            let file = scene.open(&name, OpenHow::replace(mode)).await.unwrap();
            write(&file, b"x").await;
            ask(&file, FileCall::Publish).await.unwrap();
            let metadata = fs::metadata(scene.dir.path().join(&name)).unwrap();
            assert_eq!(
                metadata.permissions().mode() & 0o700,
                mode & 0o700,
                "{mode:o}"
            );
            assert_eq!(metadata.len(), 1);
        }
    }
}

/// Removes each hidden file once, in the moment in which it was made.
#[derive(Debug)]
struct Reaping(Arc<LocalDirectory>, std::sync::atomic::AtomicUsize);

impl FileSystem for Reaping {
    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Box::pin(async move {
            let opened = Arc::clone(&self.0).call(call.clone()).await;
            if let Call::Open { path, .. } = call
                && leads_to_hidden(&path)
                && self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2
            {
                let abandoned = Call::RemoveAbandoned { path };
                Arc::clone(&self.0).call(abandoned).await.unwrap();
            }
            opened
        })
    }
}

#[tokio::test]
async fn an_upload_whose_hidden_file_was_taken_for_a_leftover_gets_another() {
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(LocalDirectory::open(dir.path()).unwrap());
    let below = Arc::new(Reaping(local, std::sync::atomic::AtomicUsize::new(0)));
    let files = Arc::new(StagedFiles(Staging::new(below, Durability::None)));
    let (path, how) = (path("f"), OpenHow::replace(0o644));
    let Ok(Answer::File(file)) = files.call(Call::Open { path, how }).await else {
        panic!("no file");
    };
    write(&file, b"whole").await;
    ask(&file, FileCall::Publish).await.unwrap();
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"whole");
}
