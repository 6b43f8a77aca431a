//! Calls that are given up: dropped after any number of polls, at any moment of their lives.

use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use ketch_client::{Failure, GetOptions, Kind, OpenOptions, PutOptions, Sftp};

use crate::random::Random;
use crate::scene::Scene;

/// A file that is there to be looked at, read and downloaded.
pub(crate) const SMALL: &str = "small";
/// Its length: several READs.
pub(crate) const SMALL_LEN: u64 = 300_000;
/// A directory with [`ENTRIES`] files.
pub(crate) const DIRECTORY: &str = "directory";
pub(crate) const ENTRIES: usize = 300;
/// A file that takes longer than anybody waits for it here.
pub(crate) const LARGE: &str = "large";

/// Most polls that a call gets: enough for most of them to come to their end.
const POLLS_MAX: u64 = 6;
/// Most turns of the scheduler between the last poll and the drop.
const PAUSE_MAX: u64 = 8;

/// What became of the calls.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) dropped: AtomicU64,
    pub(crate) finished: AtomicU64,
}

/// Somebody who gives calls up.
pub(crate) struct Quitter {
    sftp: Sftp,
    /// Whole files of the client's to put, and where to get files to.
    local: PathBuf,
    number: u64,
    random: Random,
    tally: Arc<Tally>,
}

impl Quitter {
    pub(crate) fn new(scene: &Scene, sftp: &Sftp, number: u64, tally: &Arc<Tally>) -> Self {
        let seed = 0x6b65_7463_6800 + number;
        println!("quitter {number}: seed {seed:#x}");
        Self {
            sftp: sftp.clone(),
            local: scene.local(""),
            number,
            random: Random::new(seed),
            tally: Arc::clone(tally),
        }
    }

    /// Makes at least `calls` calls, and goes on until `enough`.
    pub(crate) async fn run(mut self, calls: u64, enough: Arc<AtomicBool>) {
        let mut round = 0;
        while round < calls || !enough.load(Ordering::SeqCst) {
            round += 1;
            let call = self.call(round);
            let polls = self.random.below(POLLS_MAX + 1);
            let pause = self.random.below(PAUSE_MAX + 1);
            let counter = match polled(call, polls, pause).await {
                Some(()) => &self.tally.finished,
                None => &self.tally.dropped,
            };
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Some call, not polled yet.
    fn call(&mut self, round: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let sftp = self.sftp.clone();
        let name = |what: &str| format!("{what}-{}-{round}", self.number);
        let local = |name: &str| self.local.join(name);
        match self.random.below(12) {
            0 => Box::pin(async move { check(sftp.stat(SMALL).await) }),
            1 => Box::pin(async move { check(sftp.stat("no-such-file").await) }),
            2 => Box::pin(async move { check(sftp.canonicalize("directory/..").await) }),
            3 => Box::pin(async move { check(sftp.open(SMALL, OpenOptions::reading()).await) }),
            4 => {
                let offset = self.random.below(SMALL_LEN);
                Box::pin(async move {
                    let file = sftp.open(SMALL, OpenOptions::reading()).await.unwrap();
                    check(file.read_at(offset, 200_000).await);
                    check(file.close().await);
                })
            }
            5 => {
                let (name, data) = (name("written"), self.random.bytes(50_000));
                Box::pin(async move {
                    let options = OpenOptions::writing();
                    let file = sftp.open(name.as_str(), options).await.unwrap();
                    check(file.write_at(7, &data).await);
                })
            }
            6 => Box::pin(async move {
                let mut entries = sftp.read_dir(DIRECTORY);
                let mut count = 0;
                while let Some(entry) = entries.next().await {
                    check(entry);
                    count += 1;
                }
                assert_eq!(count, ENTRIES);
            }),
            7 => {
                let name = name("made");
                Box::pin(async move {
                    check(sftp.create_dir(name.as_str()).await);
                    check(sftp.remove_dir(name.as_str()).await);
                })
            }
            8 => Box::pin(async move { check(sftp.statvfs("/").await) }),
            9 => {
                let local = local(&name("got"));
                Box::pin(async move { check(sftp.get(SMALL, local, GetOptions::new()).await) })
            }
            10 => {
                let local = local(&name("large"));
                Box::pin(async move { check(sftp.get(LARGE, local, GetOptions::new()).await) })
            }
            _ => {
                let (local, remote) = (local(SMALL), name("put"));
                Box::pin(async move {
                    check(sftp.put(local, remote.as_str(), PutOptions::new()).await);
                })
            }
        }
    }
}

/// Polls a future so often at most, lets some more time go by, and drops it.
async fn polled<T>(
    mut future: Pin<Box<dyn Future<Output = T> + Send>>,
    mut polls: u64,
    pause: u64,
) -> Option<T> {
    let polled = poll_fn(|cx| {
        if polls > 0 {
            polls -= 1;
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
        }
        if polls == 0 {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    })
    .await;
    for _ in 0..pause {
        // The answer may come now, when nobody polls any more and the slot is still there.
        tokio::task::yield_now().await;
    }
    polled
}

/// A call that was not given up did its work, or was told that there is no such file.
fn check<T, E: Failure>(result: Result<T, E>) {
    if let Err(error) = result {
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}
