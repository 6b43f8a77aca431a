//! Whatever is done in whatever order, the ledger says what a count of the tree would, and no more
//! is there than may be.

use proptest::prelude::*;

use super::*;
use crate::fs::MemoryFileSystem;

const BYTES: u64 = 10_000;
const FILES: u64 = 6;

/// Four names, and one beneath a directory.
const NAMES: [&str; 5] = ["/a", "/b", "/c", "/d", "/d/e"];

#[derive(Clone, Debug)]
enum Step {
    Open {
        name: usize,
        how: OpenHow,
    },
    Write {
        handle: usize,
        offset: u16,
        len: u16,
    },
    Resize {
        handle: usize,
        size: u16,
    },
    ResizePath {
        name: usize,
        size: u16,
    },
    Close {
        handle: usize,
    },
    Remove {
        name: usize,
    },
    RemoveDirectory {
        name: usize,
    },
    Mkdir {
        name: usize,
    },
    Rename {
        from: usize,
        to: usize,
        target: Target,
    },
    Symlink {
        name: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES.len();
    let handle = 0..4_usize;
    let create = prop_oneof![
        Just(Create::Never),
        Just(Create::New { mode: 0o600 }),
        Just(Create::IfMissing { mode: 0o600 }),
    ];
    let how =
        (any::<bool>(), any::<bool>(), create).prop_map(|(append, truncate, create)| OpenHow {
            read: false,
            write: true,
            append,
            truncate,
            exclusive: false,
            create,
        });
    let target = prop_oneof![Just(Target::MayExist), Just(Target::MustNotExist)];
    let number = 0..6000_u16;
    let step = prop_oneof![
        4 => (name(), how).prop_map(|(name, how)| Step::Open { name, how }),
        6 => (handle.clone(), number.clone(), number.clone())
            .prop_map(|(handle, offset, len)| Step::Write { handle, offset, len }),
        1 => (handle.clone(), number.clone()).prop_map(|(handle, size)| Step::Resize { handle, size }),
        1 => (name(), number).prop_map(|(name, size)| Step::ResizePath { name, size }),
        2 => handle.prop_map(|handle| Step::Close { handle }),
        2 => name().prop_map(|name| Step::Remove { name }),
        1 => name().prop_map(|name| Step::RemoveDirectory { name }),
        1 => name().prop_map(|name| Step::Mkdir { name }),
        2 => (name(), name(), target).prop_map(|(from, to, target)| Step::Rename { from, to, target }),
        1 => name().prop_map(|name| Step::Symlink { name }),
    ];
    proptest::collection::vec(step, 1..60)
}

fn path(name: usize) -> VPath {
    VPath::resolve(NAMES[name].as_bytes()).unwrap()
}

fn call_of(step: &Step) -> Option<Call> {
    Some(match *step {
        Step::Open { name, how } => Call::Open {
            path: path(name),
            how,
        },
        Step::ResizePath { name, size } => Call::Change {
            path: path(name),
            links: Links::Follow,
            change: resize(size),
        },
        Step::Remove { name } => Call::Remove { path: path(name) },
        Step::RemoveDirectory { name } => Call::RemoveDirectory { path: path(name) },
        Step::Mkdir { name } => Call::CreateDirectory {
            path: path(name),
            mode: 0o700,
        },
        Step::Rename { from, to, target } => Call::Rename {
            from: path(from),
            to: path(to),
            target,
        },
        Step::Symlink { name } => Call::Symlink {
            // What is opened through a link, or has two names, is put right by the next count.
            target: b"nowhere".to_vec(),
            link: path(name),
        },
        _ => return None,
    })
}

fn resize(size: u16) -> Change {
    Change {
        size: Some(size.into()),
        ..Change::default()
    }
}

fn count(files: &Arc<MemoryFileSystem>) -> Amount {
    let files: Arc<dyn FileSystem> = Arc::clone(files) as _;
    let mut work = std::pin::pin!(walk::count(files));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match work.as_mut().poll(&mut context) {
        std::task::Poll::Ready(found) => found.unwrap().amount,
        std::task::Poll::Pending => panic!("memory does not wait"),
    }
}

fn ledger(metered: &Metered) -> (i128, i128) {
    let counts = metered.book.ledger.counts();
    (counts.bytes, counts.files)
}

/// Runs the second tier, which does not wait here either.
fn run<T>(work: Work<T>) -> io::Result<T> {
    let mut work = work;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match work.as_mut().poll(&mut context) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("memory does not wait"),
    }
}

proptest! {
    #[test]
    fn the_ledger_says_what_a_count_would(steps in steps(), on_threads in any::<bool>()) {
        let files = Arc::new(MemoryFileSystem::new());
        let quota = Quota::of_bytes(BYTES).files(FILES);
        let metered = Metered::new(Arc::clone(&files) as _, quota);
        let mut handles: Vec<Arc<dyn File>> = Vec::new();
        for step in &steps {
            if let Some(call) = call_of(step) {
                let result = match on_threads {
                    true => run(Arc::clone(&metered).call(call)),
                    false => metered.try_call(&call),
                };
                if let Ok(Answer::File(file)) = result {
                    handles.push(file);
                }
            }
            let pick = |handle: usize| handles.get(handle % handles.len().max(1)).cloned();
            match *step {
                Step::Write { handle, offset, len } if len > 0 => if let Some(file) = pick(handle) {
                    let bytes = vec![7; len.into()];
                    let _ = match on_threads {
                        true => run(file.write_at(offset.into(), bytes)),
                        false => file
                            .try_write_at(offset.into(), &[IoSlice::new(&bytes)])
                            .map(|_| ()),
                    };
                },
                Step::Resize { handle, size } => if let Some(file) = pick(handle) {
                    let call = FileCall::Change(resize(size));
                    let _ = match on_threads {
                        true => run(file.call(call)),
                        false => file.try_call(&call),
                    };
                },
                Step::Close { handle } if !handles.is_empty() => {
                    let handle = handle % handles.len();
                    drop(handles.swap_remove(handle));
                }
                _ => {}
            }
            let found = count(&files);
            prop_assert!(found.bytes <= BYTES && found.files <= FILES, "{step:?} {found:?}");
        }
        // What has no name any more counts as long as it is open.
        let (bytes, _) = ledger(&metered);
        prop_assert!(bytes >= i128::from(count(&files).bytes));
        drop(handles);
        let found = count(&files);
        prop_assert_eq!(ledger(&metered), (found.bytes.into(), found.files.into()));
    }
}

#[test]
fn a_byte_far_behind_the_start_costs_what_it_seems_to() {
    let metered = Metered::new(Arc::new(MemoryFileSystem::new()), Quota::of_bytes(BYTES));
    let (path, how) = (path(0), OpenHow::replace(0o600));
    let Ok(Answer::File(file)) = metered.try_call(&Call::Open { path, how }) else {
        panic!("no file");
    };
    let write = |offset| file.try_write_at(offset, &[IoSlice::new(b"x")]);
    assert_eq!(write(BYTES).unwrap_err().kind(), ErrorKind::QuotaExceeded);
    assert_eq!(write(BYTES - 1).unwrap(), 1);
    assert_eq!(write(0).unwrap(), 1, "what is there may be written again");
    let longer = FileCall::Change(Change {
        size: Some(BYTES + 1),
        ..Change::default()
    });
    assert!(file.try_call(&longer).is_err());
    assert!(metered.has_refused());
}

/// Removing a file that is open makes no room: its bytes are there until it is closed.
#[test]
fn what_is_removed_while_it_is_open_counts_until_it_is_closed() {
    let metered = Metered::new(Arc::new(MemoryFileSystem::new()), Quota::of_bytes(BYTES));
    let how = OpenHow::replace(0o600);
    let open = |name| match metered.try_call(&Call::Open {
        path: path(name),
        how,
    }) {
        Ok(Answer::File(file)) => file,
        other => panic!("{other:?}"),
    };
    let bytes = vec![0; 6000];
    let first = open(0);
    first.try_write_at(0, &[IoSlice::new(&bytes)]).unwrap();
    let rename = Call::Rename {
        from: path(0),
        to: path(1),
        target: Target::MayExist,
    };
    metered.try_call(&rename).unwrap();
    metered.try_call(&Call::Remove { path: path(1) }).unwrap();
    let second = open(0);
    assert!(second.try_write_at(0, &[IoSlice::new(&bytes)]).is_err());
    drop(first);
    second.try_write_at(0, &[IoSlice::new(&bytes)]).unwrap();
}

/// A file whose calls fail or wait when the test says so.
#[derive(Debug)]
struct Stubborn {
    file: Arc<dyn File>,
    blocks: AtomicBool,
    /// Writes of the second tier wait for a place, and then fail.
    gate: tokio::sync::Semaphore,
}

impl File for Stubborn {
    fn try_write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.blocks.load(Ordering::Relaxed) {
            true => Err(ErrorKind::WouldBlock.into()),
            false => self.file.try_write_at(offset, slices),
        }
    }

    fn try_call(&self, call: &FileCall) -> io::Result<Answer> {
        self.file.try_call(call)
    }

    fn read_at(self: Arc<Self>, offset: u64, block: Block) -> Work<Block> {
        Arc::clone(&self.file).read_at(offset, block)
    }

    fn write_at(self: Arc<Self>, _: u64, _: Vec<u8>) -> Work<()> {
        Box::pin(async move {
            drop(self.gate.acquire().await);
            Err(ErrorKind::StorageFull.into())
        })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Arc::clone(&self.file).call(call)
    }
}

/// One write is put off, another fails, while a third of the same file is done: what is there is
/// charged all the same.
#[test]
fn writes_side_by_side_lose_no_charge() {
    let files = Arc::new(MemoryFileSystem::new());
    let metered = Metered::new(Arc::clone(&files) as _, Quota::of_bytes(BYTES));
    let call = Call::Open {
        path: path(0),
        how: OpenHow::replace(0o600),
    };
    let Ok(Answer::File(file)) = files.try_call(&call) else {
        panic!("no file");
    };
    let stubborn = Arc::new(Stubborn {
        file,
        blocks: AtomicBool::new(false),
        gate: tokio::sync::Semaphore::new(0),
    });
    let file = metered
        .book
        .metered(Arc::clone(&stubborn) as _, &call, None);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut failing = Arc::clone(&file).write_at(0, vec![0; 3000]);
    assert!(failing.as_mut().poll(&mut context).is_pending());
    let bytes = [7; 2000];
    file.try_write_at(0, &[IoSlice::new(&bytes)]).unwrap();
    assert_eq!(ledger(&metered).0, 3000);
    stubborn.blocks.store(true, Ordering::Relaxed);
    let put_off = file.try_write_at(3000, &[IoSlice::new(&bytes)]);
    assert_eq!(put_off.unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(
        ledger(&metered).0,
        3000,
        "it is charged again when it is done"
    );
    stubborn.gate.add_permits(1);
    assert!(failing.as_mut().poll(&mut context).is_ready());
    assert_eq!(ledger(&metered).0, 2000);
    // One that is given up, as its connection was lost: the next one to end looks.
    let mut lost = Arc::clone(&file).write_at(0, vec![0; 3000]);
    stubborn.gate.forget_permits(1);
    assert!(lost.as_mut().poll(&mut context).is_pending());
    drop(lost);
    assert_eq!(ledger(&metered).0, 3000);
    stubborn.blocks.store(false, Ordering::Relaxed);
    file.try_write_at(0, &[IoSlice::new(&bytes)]).unwrap();
    assert_eq!(ledger(&metered).0, 2000);
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_rename_that_does_nothing_makes_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn FileSystem> = Arc::new(crate::fs::LocalDirectory::open(dir.path()).unwrap());
    let metered = Metered::new(files, Quota::of_bytes(BYTES));
    std::fs::write(dir.path().join("a"), [0; 100]).unwrap();
    metered
        .book
        .ledger
        .charge(Amount {
            bytes: 100,
            files: 1,
        })
        .unwrap();
    let (from, to) = (path(0), path(1));
    let link = Call::HardLink {
        from: from.clone(),
        to: to.clone(),
    };
    Arc::clone(&metered).call(link).await.unwrap();
    assert_eq!(ledger(&metered), (200, 2));
    let target = Target::MayExist;
    let rename = Call::Rename { from, to, target };
    for _ in 0..3 {
        Arc::clone(&metered).call(rename.clone()).await.unwrap();
        let _ = metered.try_call(&rename);
        assert_eq!(ledger(&metered), (200, 2));
    }
    // Over one of two names of another file: that name is gone.
    std::fs::write(dir.path().join("c"), [0; 10]).unwrap();
    metered
        .book
        .ledger
        .charge(Amount {
            bytes: 10,
            files: 1,
        })
        .unwrap();
    let (from, to) = (path(2), path(1));
    let rename = Call::Rename { from, to, target };
    Arc::clone(&metered).call(rename).await.unwrap();
    assert_eq!(ledger(&metered), (110, 2));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "only a start to count from")]
async fn a_count_that_breaks_off_is_begun_again() {
    let metered = Metered::new(Arc::new(MemoryFileSystem::new()), Quota::of_bytes(BYTES));
    let start = Instant::now();
    let count = metered.count_if_due(start, true, Instant::now).unwrap();
    assert!(metered.count_if_due(start, true, Instant::now).is_none());
    drop(count);
    let count = metered.count_if_due(start, true, Instant::now).unwrap();
    count.await;
    assert!(metered.count_if_due(start, false, Instant::now).is_none());
}
