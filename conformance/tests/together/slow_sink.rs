//! A sink that sleeps 5 s a write stops its own transfer and nothing else: the echo and the
//! keepalives go on, and what waits for the sink stays within [`HELD_MAX`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ketch_client::{ChannelStream, GetOptions, HELD_MAX, Sink, Timeouts};
use ketch_conformance::content::{Sha256, random_file};
use ketch_server::CommonConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::random::Random;
use crate::scene::{PATIENCE, Scene, turn, until};
use crate::wire::{Counts, Over};

/// How long each of the first writes sleeps.
const NAP: Duration = Duration::from_secs(5);
/// Writes that sleep. The client has four threads for slow disks: all of them sleep.
const NAPS: u64 = 4;
/// Several times what may be held.
const FILE_LEN: u64 = 4 * HELD_MAX as u64;

/// How often who asks asks, and how many answers may be missing before it gives up: a minute's,
/// because a busy machine may be silent for long.
const KEEPALIVE: Duration = Duration::from_millis(200);
const KEEPALIVES_MAX: u32 = 300;
/// Questions and answers that are counted before it is sure that they pass.
const EXCHANGES: u64 = 15;

/// Messages through the echo while every write sleeps, and their length.
const PINGS: usize = 100;
const PING_LEN: usize = 10_000;

/// The last READ may bring so much less than would have filled what may be held.
const READ_LEN_MAX: u64 = 64 * 1024;
/// Heap of both ends beside what is held: receive arenas, outgoing buffers and queues, the duplex
/// stream's, the server's blocks, and what this test itself sends and receives.
const HEAP_AROUND: usize = 4 * 1024 * 1024;

/// Who asks whether the other is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asks {
    /// The server alone: what the client sends while all else is quiet are answers.
    Server,
    /// The client alone.
    Client,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_sink_does_not_keep_the_client_from_answering() {
    while_the_sink_sleeps(Over::Duplex, Asks::Server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_sink_does_not_keep_the_client_from_asking() {
    while_the_sink_sleeps(Over::Socket, Asks::Client).await;
}

async fn while_the_sink_sleeps(over: Over, asks: Asks) {
    let _turn = turn().await;
    let (mut timeouts, mut transport) = (Timeouts::default(), CommonConfig::default());
    let keepalive = |side| (asks == side).then_some(KEEPALIVE);
    timeouts.keepalive = keepalive(Asks::Client);
    timeouts.keepalives_max = KEEPALIVES_MAX;
    // Shorter than the nap: a sink that sleeps is no server that stalls.
    timeouts.stall = NAP * 4 / 5;
    transport.timers.keepalive = keepalive(Asks::Server);
    transport.timers.keepalives_max = KEEPALIVES_MAX;
    let scene = Scene::new(over, timeouts, transport).await;
    let hash = random_file(&scene.remote("file"), FILE_LEN).unwrap();
    let sftp = scene.session.sftp().await.unwrap();
    sftp.stat("file").await.unwrap();
    let mut echo = scene.session.open_subsystem("echo").await.unwrap();
    ping(&mut echo, &mut Random::new(1)).await;

    let heap = dhat::Profiler::builder().testing().build();
    let sink = Arc::new(SleepySink::new(&scene));
    let read_before = scene.counts.read_bytes();
    let get = {
        let (sftp, sink) = (sftp.clone(), Arc::clone(&sink));
        tokio::spawn(async move { sftp.get_to("file", sink, GetOptions::new()).await })
    };
    until("every thread sleeps in a write", || sink.naps() == NAPS).await;
    until("as much is held as may be", || {
        scene.counts.read_bytes() - read_before >= HELD_MAX as u64 - READ_LEN_MAX
    })
    .await;

    let mut random = Random::new(2);
    for _ in 0..PINGS {
        ping(&mut echo, &mut random).await;
    }
    assert_eq!(
        sink.written(),
        0,
        "the writes slept while {PINGS} echoes came back"
    );

    // All is quiet now but for questions and answers.
    let quiet = settled(&scene.counts).await;
    until(
        "questions are asked and answered while the sink sleeps",
        || {
            let (reads, writes) = scene.counts.events();
            reads > quiet.0 + EXCHANGES && writes > quiet.1 + EXCHANGES
        },
    )
    .await;
    assert!(!scene.session.is_closed());
    assert_eq!(sink.written(), 0, "the writes slept all the time");
    let pinged = (PINGS * PING_LEN) as u64;
    let held = scene.counts.read_bytes() - read_before - pinged;
    assert!(
        held <= HELD_MAX as u64 + overhead(held + pinged),
        "{held} bytes were read"
    );
    sink.wake_up();

    let report = get.await.unwrap().unwrap();
    assert_eq!(report.bytes, FILE_LEN);
    assert_eq!(Sha256::of_file(&scene.local("sunk")).unwrap(), hash);
    let heap_peak = dhat::HeapStats::get().max_bytes;
    drop(heap);
    println!("{over:?}: {held} bytes held, {heap_peak} bytes of heap at most");
    assert!(
        heap_peak <= HELD_MAX + HEAP_AROUND,
        "{heap_peak} bytes of heap"
    );
    assert!(
        heap_peak >= HELD_MAX / 2,
        "the heap was not measured: {heap_peak} bytes"
    );
    ping(&mut echo, &mut random).await;
    scene.session.disconnect().await;
}

/// What packets and messages add to so many bytes of content; at most a hundredth, and keepalives.
const fn overhead(bytes: u64) -> u64 {
    bytes / 100 + 64 * 1024
}

/// Waits until nothing has passed for as long as questions are apart, and says what has.
async fn settled(counts: &Counts) -> (u64, u64) {
    let mut seen = counts.read_bytes();
    loop {
        tokio::time::sleep(KEEPALIVE / 2).await;
        let now = counts.read_bytes();
        if now.saturating_sub(seen) < 1000 {
            return counts.events();
        }
        seen = now;
    }
}

/// Sends something through the echo and takes it back.
async fn ping(echo: &mut ChannelStream, random: &mut Random) {
    let sent = random.bytes(PING_LEN);
    let mut back = vec![0; PING_LEN];
    let there_and_back = async {
        echo.write_all(&sent).await.unwrap();
        echo.read_exact(&mut back).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, there_and_back)
        .await
        .expect("the echo answers");
    assert!(sent == back, "the echo gives what it got");
}

/// A file whose first writes sleep: each at least for a nap, and all until the test is done with
/// what it does meanwhile.
struct SleepySink {
    file: File,
    naps: AtomicU64,
    written: AtomicU64,
    awake: Mutex<bool>,
    waking: Condvar,
}

impl SleepySink {
    fn new(scene: &Scene) -> Self {
        Self {
            file: File::create_new(scene.local("sunk")).unwrap(),
            naps: AtomicU64::new(0),
            written: AtomicU64::new(0),
            awake: Mutex::new(false),
            waking: Condvar::new(),
        }
    }

    /// Writes that have begun to sleep.
    fn naps(&self) -> u64 {
        self.naps.load(Ordering::SeqCst).min(NAPS)
    }

    /// Writes that have come to their end.
    fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    fn wake_up(&self) {
        *self.awake.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.waking.notify_all();
    }
}

impl Sink for SleepySink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.naps.fetch_add(1, Ordering::SeqCst) < NAPS {
            std::thread::sleep(NAP);
            let awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
            let (awake, _) = self
                .waking
                .wait_timeout_while(awake, 2 * PATIENCE, |awake| !*awake)
                .unwrap_or_else(PoisonError::into_inner);
            if !*awake {
                return Err(io::ErrorKind::TimedOut.into()); // the test has failed long ago
            }
        }
        self.file.write_all_at(bytes, offset)?;
        self.written.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
