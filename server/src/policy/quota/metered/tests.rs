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
        std::task::Poll::Ready(found) => found.unwrap(),
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
