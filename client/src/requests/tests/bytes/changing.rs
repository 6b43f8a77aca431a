//! Files that grow, shrink or vanish while they are read, at any moment, in both directions: what
//! gets its name is one version or a later one up to where it ended, and never half of two.

use std::{fs, pin::pin};

use super::{
    content,
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{GetOptions, PutOptions, ReadFault, TransferError};

/// Bytes before the change, and after growth.
const LEN: usize = 700_000;
const GROWN: usize = 1_300_000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Change {
    Grows,
    Shrinks,
    Vanishes,
}

const CHANGES: [Change; 3] = [Change::Grows, Change::Shrinks, Change::Vanishes];

/// Turns after which the change comes.
fn moments() -> impl Iterator<Item = usize> {
    (0..24).chain([40, 80])
}

#[test]
fn a_remote_file_that_changes_while_it_is_read() {
    for change in CHANGES {
        let (mut whole, mut failed) = (0, 0);
        for moment in moments() {
            let dir = tempfile::tempdir().unwrap();
            let mut sim = Sim::new(Habits::default(), 1 + moment as u64);
            sim.packets_max = 2;
            sim.settle();
            sim.server.file("/a", content(GROWN)[..LEN].to_vec());
            let sftp = sim.sftp.clone();
            let local = dir.path().join("a");
            let mut get = pin!(sftp.get("/a", &local, GetOptions::new()));
            let mut over = None;
            for _ in 0..moment {
                over = over.or_else(|| poll(get.as_mut()));
                sim.turn();
            }
            match change {
                Change::Grows => sim.server.file("/a", content(GROWN)),
                Change::Shrinks => sim.server.file("/a", content(GROWN)[..LEN / 2].to_vec()),
                Change::Vanishes => drop(sim.server.nodes.remove(&b"/a"[..])),
            }
            let result = match over {
                Some(result) => result,
                None => sim.run(get),
            };
            sim.settle();
            assert_eq!(sim.server.handles(), 0, "{change:?} {moment}");
            match result {
                Ok(report) => {
                    whole += 1;
                    let here = fs::read(&local).unwrap();
                    assert_eq!(report.bytes, here.len() as u64);
                    assert!(content(GROWN).starts_with(&here), "{change:?} {moment}");
                    let sizes: &[usize] = match change {
                        Change::Grows => &[LEN, GROWN],
                        Change::Shrinks => &[LEN, LEN / 2],
                        Change::Vanishes => &[LEN],
                    };
                    assert!(sizes.contains(&here.len()), "{change:?} {moment}");
                }
                Err(error) => {
                    failed += 1;
                    let fits = match change {
                        Change::Grows => false,
                        Change::Shrinks => matches!(
                            error,
                            TransferError::Read {
                                source: ReadFault::Truncated { .. } | ReadFault::Shrank { .. },
                                ..
                            }
                        ),
                        Change::Vanishes => matches!(error, TransferError::Refused { .. }),
                    };
                    assert!(fits, "{change:?} {moment}: {error}");
                    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
                }
            }
        }
        assert!(whole > 0, "{change:?}");
        assert_eq!(failed > 0, change != Change::Grows, "{change:?}");
    }
}

#[test]
fn a_local_file_that_changes_while_it_is_read() {
    for change in CHANGES {
        if change == Change::Vanishes && cfg!(windows) {
            continue; // there a file that is open cannot vanish
        }
        let (mut whole, mut failed) = (0, 0);
        for (moment, slow) in moments().flat_map(|moment| [(moment, false), (moment, true)]) {
            let dir = tempfile::tempdir().unwrap();
            let local = dir.path().join("a");
            fs::write(&local, &content(GROWN)[..LEN]).unwrap();
            let mut sim = Sim::new(Habits::default(), 1 + moment as u64);
            sim.link.window_max = 100_000;
            sim.packets_max = 1;
            sim.settle();
            sim.slow_threads = slow;
            let sftp = sim.sftp.clone();
            let mut put = pin!(sftp.put(&local, "/a", PutOptions::new()));
            let mut over = None;
            for turn in 0..moment {
                over = over.or_else(|| poll(put.as_mut()));
                if slow && turn % 3 == 0 {
                    sim.run_threads();
                }
                sim.turn();
            }
            sim.slow_threads = false;
            match change {
                Change::Grows => fs::write(&local, content(GROWN)).unwrap(),
                Change::Shrinks => {
                    let file = fs::File::options().write(true).open(&local).unwrap();
                    file.set_len(LEN as u64 / 2).unwrap();
                }
                Change::Vanishes => fs::remove_file(&local).unwrap(),
            }
            let result = match over {
                Some(result) => result,
                None => sim.run(put),
            };
            sim.settle();
            assert_eq!(sim.server.handles(), 0, "{change:?} {moment}");
            match result {
                Ok(report) => {
                    whole += 1;
                    let there = sim.server.data("/a").unwrap();
                    assert_eq!(report.bytes, there.len() as u64);
                    assert!(content(GROWN).starts_with(there), "{change:?} {moment}");
                    let sizes: &[usize] = match change {
                        Change::Grows => &[LEN, GROWN],
                        Change::Shrinks => &[LEN, LEN / 2],
                        Change::Vanishes => &[LEN],
                    };
                    assert!(sizes.contains(&there.len()), "{change:?} {moment}");
                }
                Err(error) => {
                    failed += 1;
                    let fits = match change {
                        Change::Grows => false,
                        Change::Shrinks => matches!(error, TransferError::Changed { .. }),
                        Change::Vanishes => matches!(error, TransferError::Local { .. }),
                    };
                    assert!(fits, "{change:?} {moment}: {error}");
                    let left = sim.server.nodes.values();
                    let left = left.filter(|node| matches!(node, Node::File { .. }));
                    assert_eq!(left.count(), 0, "{change:?} {moment}");
                }
            }
        }
        assert!(whole > 0, "{change:?}");
        assert_eq!(failed > 0, change != Change::Grows, "{change:?}");
    }
}
