//! Every request with every set of rights: what happened to the tree, and what was told of it, is
//! what the rights allow; and what they allow, happens.
//!
//! The oracle knows no request: it compares the tree before and after, and looks at the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ketch_protocol::{
    Attrs, Close, CopyData, Extension, Fsetstat, Hardlink, Lsetstat, Mkdir, OpenFlags, Opendir,
    PosixRename, Read, Readdir, Readlink, Remove, Rename, Rmdir, Setstat, Stat, Statvfs, Symlink,
    SymlinkOrder, Times, Write,
};

use super::{DENIED, EOF, FAILURE, NO_SUCH_FILE, OK, Policy, open_request, path, policy};
use crate::engine::simulation::{Got, Mood, Simulation};
use crate::fs::{Answer, Call, FileSystem, Links, Metadata, TYPE_BITS, TYPE_DIRECTORY, TYPE_LINK};
use crate::path::VPath;
use crate::policy::{Right, Rights, Rules};

/// What a client can do in one go; `true` where its subject is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Act {
    /// Opens, writes a byte at 1, reads, closes.
    Open(OpenFlags, bool),
    /// Copies `/f` into a file that is there or made.
    CopyData(bool),
    List,
    Stat(bool),
    Lstat,
    Statvfs,
    Readlink,
    Remove(bool),
    RemoveLink,
    Rmdir,
    Mkdir,
    Rename {
        over: bool,
    },
    PosixRename {
        over: bool,
    },
    RenameDirectory,
    Symlink,
    Hardlink,
    Resize,
    ResizeHandle,
    Chmod,
    Lchmod,
    Times,
    ChmodHandle,
}

const FLAGS: [OpenFlags; 6] = [
    OpenFlags::READ,
    OpenFlags::WRITE,
    OpenFlags::APPEND,
    OpenFlags::CREATE,
    OpenFlags::TRUNCATE,
    OpenFlags::EXCLUSIVE,
];

fn acts() -> Vec<Act> {
    let mut acts = Vec::new();
    for set in 0..1_u32 << FLAGS.len() {
        let flags = (0..FLAGS.len())
            .filter(|n| set >> n & 1 == 1)
            .fold(OpenFlags(0), |all, n| all | FLAGS[n]);
        acts.extend([Act::Open(flags, false), Act::Open(flags, true)]);
    }
    acts.extend([
        Act::CopyData(false),
        Act::CopyData(true),
        Act::List,
        Act::Stat(false),
        Act::Stat(true),
        Act::Lstat,
        Act::Statvfs,
        Act::Readlink,
        Act::Remove(false),
        Act::Remove(true),
        Act::RemoveLink,
        Act::Rmdir,
        Act::Mkdir,
        Act::Rename { over: false },
        Act::Rename { over: true },
        Act::PosixRename { over: false },
        Act::PosixRename { over: true },
        Act::RenameDirectory,
        Act::Symlink,
        Act::Hardlink,
        Act::Resize,
        Act::ResizeHandle,
        Act::Chmod,
        Act::Lchmod,
        Act::Times,
        Act::ChmodHandle,
    ]);
    acts
}

type Tree = BTreeMap<VPath, (Option<Vec<u8>>, Metadata)>;

fn tree(simulation: &Simulation) -> Tree {
    let files = &simulation.files;
    let look = |path: VPath| {
        let call = Call::Metadata {
            path: path.clone(),
            links: Links::Stay,
        };
        let Ok(Answer::Metadata(metadata)) = files.try_call(&call) else {
            panic!("{path} is gone");
        };
        // What a link leads to is seen at its own place.
        let is_link = metadata.mode & TYPE_BITS == TYPE_LINK;
        let content = files.get(&path).ok().filter(|_| !is_link);
        (path, (content, metadata))
    };
    files.paths().into_iter().map(look).collect()
}

fn simulation(rules: Option<Rules>) -> Simulation {
    let policy = Policy {
        rules: rules.map(Arc::new),
        ..policy()
    };
    let mut simulation = Simulation::with(Mood::Ready, 1, policy, u64::MAX);
    simulation.files.put(&path("/f"), b"fff".to_vec()).unwrap();
    simulation.files.put(&path("/g"), b"gggg".to_vec()).unwrap();
    simulation
        .files
        .put(&path("/d/h"), b"hhhhh".to_vec())
        .unwrap();
    for call in [
        Call::CreateDirectory {
            path: path("/e"),
            mode: 0o755,
        },
        Call::Symlink {
            target: b"f".to_vec(),
            link: path("/l"),
        },
    ] {
        simulation.files.try_call(&call).unwrap();
    }
    simulation.ask(Stat { path: b"/" });
    simulation
}

/// What became of an act: the tree, and all that was told.
fn perform(simulation: &mut Simulation, act: Act) -> Vec<Got> {
    let attrs = |size, permissions, times| Attrs {
        size,
        permissions,
        times,
        owner: None,
    };
    let ask_open =
        |simulation: &mut Simulation, path: &str, flags| simulation.ask(open_request(path, flags));
    match act {
        Act::Open(flags, is_there) => {
            let opened = ask_open(simulation, if is_there { "/f" } else { "/new" }, flags);
            let Got::Handle(handle) = &opened else {
                return vec![opened];
            };
            let write = simulation.ask(Write {
                handle,
                offset: 1,
                data: b"x",
            });
            let read = simulation.ask(Read {
                handle,
                offset: 0,
                len: 10,
            });
            let close = simulation.ask(Close { handle });
            vec![write, read, close]
        }
        Act::CopyData(is_there) => {
            let from = ask_open(simulation, "/f", OpenFlags::READ);
            let flags = OpenFlags::WRITE | OpenFlags::CREATE;
            let to = ask_open(simulation, if is_there { "/g" } else { "/new" }, flags);
            let (Got::Handle(from), Got::Handle(to)) = (&from, &to) else {
                return vec![];
            };
            let copy = CopyData {
                from,
                from_offset: 0,
                len: 0,
                to,
                to_offset: 0,
            };
            vec![simulation.ask(Extension::CopyData(copy))]
        }
        Act::List => {
            let opened = simulation.ask(Opendir { path: b"/d" });
            let Got::Handle(handle) = &opened else {
                return vec![opened];
            };
            vec![simulation.ask(Readdir { handle })]
        }
        Act::Stat(true) => vec![simulation.ask(Stat { path: b"/f" })],
        Act::Stat(false) => vec![simulation.ask(Stat { path: b"/new" })],
        Act::Lstat => vec![simulation.ask(ketch_protocol::Lstat { path: b"/l" })],
        Act::Statvfs => {
            vec![simulation.ask(Extension::Statvfs(Statvfs { path: b"/f" }))]
        }
        Act::Readlink => vec![simulation.ask(Readlink { path: b"/l" })],
        Act::Remove(true) => vec![simulation.ask(Remove { path: b"/f" })],
        Act::Remove(false) => vec![simulation.ask(Remove { path: b"/new" })],
        Act::RemoveLink => vec![simulation.ask(Remove { path: b"/l" })],
        Act::Rmdir => vec![simulation.ask(Rmdir { path: b"/e" })],
        Act::Mkdir => vec![simulation.ask(Mkdir {
            path: b"/new",
            attrs: Attrs::NONE.into(),
        })],
        Act::Rename { over } => vec![simulation.ask(Rename {
            from: b"/f",
            to: if over { b"/g" } else { b"/new" },
        })],
        Act::PosixRename { over } => {
            let rename = PosixRename {
                from: b"/f",
                to: if over { b"/g" } else { b"/new" },
            };
            vec![simulation.ask(Extension::PosixRename(rename))]
        }
        Act::RenameDirectory => vec![simulation.ask(Rename {
            from: b"/d",
            to: b"/new",
        })],
        Act::Symlink => vec![simulation.ask(Symlink {
            target: b"f",
            link: b"/new",
            order: SymlinkOrder::OpenSsh,
        })],
        Act::Hardlink => {
            let link = Hardlink {
                from: b"/f",
                to: b"/new",
            };
            vec![simulation.ask(Extension::Hardlink(link))]
        }
        Act::Resize => vec![simulation.ask(Setstat {
            path: b"/f",
            attrs: attrs(Some(1), None, None).into(),
        })],
        Act::Chmod => vec![simulation.ask(Setstat {
            path: b"/f",
            attrs: attrs(None, Some(0o600), None).into(),
        })],
        Act::Lchmod => {
            let set = Lsetstat {
                path: b"/f",
                attrs: attrs(None, Some(0o600), None).into(),
            };
            vec![simulation.ask(Extension::Lsetstat(set))]
        }
        Act::Times => {
            let times = Times { atime: 7, mtime: 7 };
            vec![simulation.ask(Setstat {
                path: b"/f",
                attrs: attrs(None, None, Some(times)).into(),
            })]
        }
        Act::ResizeHandle | Act::ChmodHandle => {
            let (flags, attrs) = match act {
                Act::ResizeHandle => (OpenFlags::WRITE, attrs(Some(1), None, None)),
                _ => (OpenFlags::READ, attrs(None, Some(0o600), None)),
            };
            let opened = ask_open(simulation, "/f", flags);
            let Got::Handle(handle) = &opened else {
                return vec![opened];
            };
            vec![simulation.ask(Fsetstat {
                handle,
                attrs: attrs.into(),
            })]
        }
    }
}

/// The rights without which what is seen here could not have happened; the second: one of the two
/// that let ask for attributes.
fn needed(act: Act, before: &Tree, after: &Tree, told: &[Got]) -> (Rights, bool) {
    let mut rights = BTreeSet::new();
    let mut asked = false;
    let renames = matches!(
        act,
        Act::Rename { .. } | Act::PosixRename { .. } | Act::RenameDirectory
    );
    for (path, (content, metadata)) in before {
        match after.get(path) {
            None => {
                rights.insert(if renames {
                    Right::Rename
                } else {
                    Right::Delete
                });
            }
            // A second name shows in the number of names.
            Some((now, is))
                if now != content && is.mode & TYPE_BITS == metadata.mode & TYPE_BITS =>
            {
                rights.insert(Right::Overwrite);
            }
            Some((_, is)) => {
                let kept = (is.mode, is.modified) == (metadata.mode, metadata.modified);
                if !kept {
                    rights.insert(Right::Attributes);
                }
            }
        }
    }
    for (path, (_, is)) in after {
        if !before.contains_key(path) {
            let makes_directory = is.mode & TYPE_BITS == TYPE_DIRECTORY && !renames;
            rights.insert(if makes_directory {
                Right::Mkdir
            } else {
                Right::Write
            });
        }
    }
    for got in told {
        match got {
            Got::Data(_) => drop(rights.insert(Right::Read)),
            Got::Names(_) if act == Act::List => drop(rights.insert(Right::List)),
            Got::Names(_) | Got::Size(_) | Got::Extended(_) => asked = true,
            Got::Status(_) | Got::Handle(_) => {}
        }
    }
    (rights.into_iter().collect(), asked)
}

/// Every set of rights; of those that opening a file never asks for, all or none are in it there.
fn every_set(act: Act) -> impl Iterator<Item = Rights> {
    let other = [
        Right::Delete,
        Right::Rename,
        Right::Mkdir,
        Right::Attributes,
    ];
    (0..1_u32 << Right::ALL.len()).filter_map(move |set| {
        let has = |right: &Right| set >> *right as u32 & 1 == 1;
        let others = other.iter().filter(|right| has(right)).count();
        let is_told_apart = !matches!(act, Act::Open(..)) || others == 0 || others == 4;
        is_told_apart.then(|| Right::ALL.into_iter().filter(has).collect())
    })
}

/// What an act needs that leaves no trace: a handle to read with, and what it asks for without
/// making use of it.
fn silently_needed(act: Act) -> Rights {
    match act {
        Act::Open(flags, _) if !flags.contains(OpenFlags::WRITE) => {
            let idle = [OpenFlags::APPEND, OpenFlags::CREATE, OpenFlags::TRUNCATE];
            match idle.into_iter().any(|flag| flags.contains(flag)) {
                true => Rights::ALL,
                false => Rights::from([Right::Read]),
            }
        }
        Act::Open(flags, _) if flags.contains(OpenFlags::READ) => Rights::from([Right::Read]),
        // That there is something to replace cannot be asked for.
        Act::PosixRename { over: true } => Rights::from([Right::Write]),
        Act::CopyData(_) | Act::ChmodHandle => Rights::from([Right::Read]),
        _ => Rights::NONE,
    }
}

#[test]
fn every_act_has_the_effects_that_its_rights_allow_and_no_others() {
    let mut cells = 0;
    for act in acts() {
        let mut free = simulation(None);
        let before = tree(&free);
        let told_all = perform(&mut free, act);
        let after_all = tree(&free);
        let (mut wanted, asks) = needed(act, &before, &after_all, &told_all);
        let has_effect = wanted != Rights::NONE || asks;
        wanted = silently_needed(act).iter().fold(wanted, Rights::and);
        for rights in every_set(act) {
            cells += 1;
            let mut bound = simulation(Some(Rules::new(rights)));
            let told = perform(&mut bound, act);
            let after = tree(&bound);
            let context = format!("{act:?} with {rights:?}: {told:?}");
            let (used, asked) = needed(act, &before, &after, &told);
            let may_ask = rights.has(Right::List) || rights.has(Right::Read);
            for right in used.iter() {
                assert!(rights.has(right), "{right:?} was not given: {context}");
            }
            assert!(!asked || may_ask, "{context}");
            let has_all = wanted.iter().all(|right| rights.has(right)) && (!asks || may_ask);
            // A second name shares the content's rights: they are the same everywhere here.
            let needs_sight = act == Act::Hardlink;
            if has_effect && has_all && (!needs_sight || may_ask) {
                assert_eq!(told, told_all, "{context}");
                assert!(after == after_all, "{context}");
            } else if let Some(Got::Status(status)) = told.first() {
                let status = Got::Status(*status);
                let known = [OK, EOF, FAILURE, DENIED, NO_SUCH_FILE];
                assert!(known.contains(&status), "{context}");
            }
        }
    }
    assert!(cells >= 2000, "{cells}");
}

fn by_path(rules: &[(&str, Rights)]) -> Simulation {
    let add =
        |rules: Rules, (pattern, rights): &(&str, Rights)| rules.rule(pattern, *rights).unwrap();
    simulation(Some(rules.iter().fold(Rules::default(), add)))
}

fn names(simulation: &mut Simulation, directory: &str) -> Vec<String> {
    let path = directory.as_bytes();
    let Got::Handle(handle) = simulation.ask(Opendir { path }) else {
        panic!("no handle");
    };
    let mut names = Vec::new();
    loop {
        match simulation.ask(Readdir { handle: &handle }) {
            Got::Names(more) => names.extend(more),
            Got::Status(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let text = |name| String::from_utf8(name).unwrap();
    names.into_iter().map(text).collect()
}

#[test]
fn what_may_not_be_listed_is_not_there() {
    let mut simulation = by_path(&[("/d", Rights::NONE), ("/g", Rights::from([Right::Write]))]);
    assert_eq!(names(&mut simulation, "/"), ["e", "f", "l"]);
    for path in [&b"/d"[..], b"/d/h", b"/d/none", b"/g"] {
        assert_eq!(simulation.ask(Stat { path }), NO_SUCH_FILE);
        assert_eq!(simulation.ask(Opendir { path }), NO_SUCH_FILE);
        assert_eq!(simulation.ask(Readlink { path }), NO_SUCH_FILE);
        assert_eq!(simulation.ask(Remove { path }), NO_SUCH_FILE);
        let open = open_request(std::str::from_utf8(path).unwrap(), OpenFlags::READ);
        assert_eq!(simulation.ask(open), NO_SUCH_FILE);
    }
}

/// A whole batch of names that are left out is not the end of the directory.
#[test]
fn names_behind_many_that_are_hidden_are_listed() {
    let mut simulation = by_path(&[("h*", Rights::NONE)]);
    for n in 0..1000 {
        let name = path(&format!("/many/h{n:04}"));
        simulation.files.put(&name, Vec::new()).unwrap();
    }
    simulation.files.put(&path("/many/z"), Vec::new()).unwrap();
    assert_eq!(names(&mut simulation, "/many"), ["z"]);
}

#[test]
fn a_directory_takes_nothing_to_where_other_rights_hold() {
    let mut simulation = by_path(&[("/d/h", Rights::NONE), ("/x/y", Rights::NONE)]);
    let rename = |from, to| Rename { from, to };
    assert_eq!(simulation.ask(rename(b"/d", b"/new")), DENIED);
    assert_eq!(simulation.ask(rename(b"/e", b"/x")), DENIED);
    assert_eq!(simulation.ask(rename(b"/none", b"/d2/x")), NO_SUCH_FILE);
    // Files may be renamed there, and directories elsewhere.
    assert_eq!(simulation.ask(rename(b"/f", b"/x")), OK);
    assert_eq!(simulation.ask(rename(b"/e", b"/e2")), OK);
    assert!(simulation.files.get(&path("/d/h")).is_ok());
    simulation.assert_idle();
}

/// Between the look and the rename nothing else of the session comes, and a batch of requests is
/// answered in full.
#[test]
fn a_rename_that_looks_first_keeps_its_place() {
    for mood in [Mood::Ready, Mood::Moody, Mood::Blocking] {
        for seed in 0..20 {
            let rules = Rules::default().rule("**/secret", Rights::NONE).unwrap();
            let policy = Policy {
                rules: Some(Arc::new(rules)),
                ..policy()
            };
            let mut simulation = Simulation::with(mood, seed, policy, u64::MAX);
            simulation.files.put(&path("/a"), b"a".to_vec()).unwrap();
            let ids = [
                simulation.request(Rename {
                    from: b"/a",
                    to: b"/b",
                }),
                simulation.request(Mkdir {
                    path: b"/a",
                    attrs: Attrs::NONE.into(),
                }),
                simulation.request(Rename {
                    from: b"/a",
                    to: b"/c",
                }),
                simulation.request(Remove { path: b"/b" }),
            ];
            simulation.jumble(500);
            let got: Vec<_> = ids.into_iter().map(|id| simulation.take(id)).collect();
            assert_eq!(got, [OK, OK, DENIED, OK], "{mood:?} {seed}");
            assert_eq!(simulation.files.paths(), [path("/a")]);
            simulation.assert_idle();
        }
    }
}

/// Who may see none of thousands of names does not have them all looked at in one turn.
#[test]
fn a_listing_of_hidden_names_leaves_the_turn() {
    let rules = Rules::new(Rights::ALL)
        .rule("/secret*", Rights::NONE)
        .unwrap();
    let policy = Policy {
        rules: Some(Arc::new(rules)),
        ..policy()
    };
    let mut simulation = Simulation::with(Mood::Ready, 1, policy, u64::MAX);
    for n in 0..1000 {
        let name = format!("/secret{n}");
        simulation.files.put(&path(&name), Vec::new()).unwrap();
    }
    let Got::Handle(handle) = simulation.ask(Opendir { path: b"/" }) else {
        panic!("no handle");
    };
    let listed = simulation.request(Readdir { handle: &handle });
    simulation.hang();
    assert_eq!(simulation.host.tasks(), 1, "it goes on elsewhere");
    assert!(!simulation.has(listed));
    simulation.settle();
    assert_eq!(simulation.take(listed), EOF);
    simulation.assert_idle();
}
