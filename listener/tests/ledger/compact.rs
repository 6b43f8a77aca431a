//! A ledger in a file that is compacted: killed meanwhile, and on a disk that is full.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ketch_conformance::tiny_disk::TinyDisk;
use ketch_listener::flow::item::Change;
use ketch_listener::store::sqlite::SqliteStore;
use ketch_listener::store::{End, Order, Store};

use super::contract;
use super::disk::patiently;
use super::world::Dice;

/// Where the child finds its directory.
const CHILD: &str = "KETCH_LEDGER_COMPACTS";
/// Rows that are there from the beginning.
const ROWS: u32 = 10_000;
/// So much more in the file than its rows need has it written anew, in bytes.
const ROOM: usize = 75 * 1024 * 1024;
/// What is left of a full disk: less than the rows take, in bytes.
const LEFT: u64 = 512 * 1024;

fn rows(from: u32, to: u32) -> Vec<Change> {
    (from..to)
        .map(|n| contract::present(&format!("d{}/file-{n:07}", n % 50), n))
        .collect()
}

async fn filled(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).expect("a ledger");
    let flow = contract::flow("f");
    let changes = rows(0, ROWS);
    let recorded = contract::record(0, &changes);
    store.record(&flow, recorded).await.expect("recorded");
    for n in 0..20 {
        for claim in contract::claim(&store, &flow, Order::Any, contract::LONG).await {
            let end = match n % 3 {
                0 => End::Dead { reason: "no" },
                _ => End::Done,
            };
            store.finish(&claim.id, end).await.expect("the claim");
        }
    }
    store
}

/// Makes the file larger than its rows need.
async fn blow_up(store: &SqliteStore) {
    let flow = contract::flow("f");
    let bulk = "x".repeat(ROOM);
    let kept = store.set_value(&flow, "bulk", Some(&bulk)).await;
    kept.expect("kept");
}

async fn let_go(store: &SqliteStore) {
    let gone = store.set_value(&contract::flow("f"), "bulk", None).await;
    gone.expect("gone");
}

/// What the next test kills: it records rows and compacts, again and again; there is much to be done at
/// the first time. While it compacts, the file `compacting` is there; rows that it was told are recorded
/// stand in `answered`.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let store = SqliteStore::open(directory.join("ledger")).expect("a ledger");
    let flow = contract::flow("f");
    let mut row = ROWS;
    let mut answered = File::create(directory.join("answered")).expect("a file");
    loop {
        for _ in 0..3 {
            let changes = rows(row, row + 1);
            let recorded = contract::record(0, &changes);
            store.record(&flow, recorded).await.expect("recorded");
            row += 1;
            let line = format!("{row}\n");
            answered.write_all(line.as_bytes()).expect("written");
        }
        fs::write(directory.join("compacting"), "").expect("written");
        store.compact().await.expect("compacted");
        fs::remove_file(directory.join("compacting")).expect("removed");
    }
}

/// The last number in a file of lines.
fn last(path: &Path) -> u32 {
    let text = fs::read_to_string(path).expect("a file");
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = whole.lines().next_back().expect("a line");
    line.parse().expect("a number")
}

/// Starts it with the ledger `large`.
fn start(directory: &Path) -> Child {
    for left in ["compacting", "ledger-wal", "ledger-shm"] {
        let _ = fs::remove_file(directory.join(left));
    }
    fs::copy(directory.join("large"), directory.join("ledger")).expect("copied");
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "compact::child", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::null())
        .spawn()
        .expect("a child")
}

/// Waits until the child compacts, or does not.
#[expect(clippy::disallowed_methods, reason = "a test that kills")]
fn until(directory: &Path, child: &mut Child, compacting: bool) -> Instant {
    while directory.join("compacting").exists() != compacting {
        let ended = child.try_wait().expect("it is ours");
        assert!(ended.is_none(), "{ended:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Instant::now()
}

/// `KETCH_LEDGER_COMPACT_KILLS` is how many kills fall into a compaction.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_compacts_it_loses_nothing() {
    let wanted = std::env::var("KETCH_LEDGER_COMPACT_KILLS").map_or(2, |n| n.parse().expect("one"));
    // Kills lose nothing that the kernel has, so no disk is waited for.
    let directory =
        TinyDisk::mount(1_024 * 1_024).expect("this test mounts a tmpfs, which takes root");
    let at = |name: &str| directory.path().join(name);
    let store = filled(&at("ledger")).await;
    blow_up(&store).await;
    let_go(&store).await;
    drop(store);
    fs::rename(at("ledger"), at("large")).expect("renamed");
    let mut dice = Dice(u64::from(std::process::id()));
    println!("seed {}", dice.0);
    // How long it takes here says only when to kill.
    let mut child = start(directory.path());
    let began = until(directory.path(), &mut child, true);
    let took = until(directory.path(), &mut child, false).duration_since(began);
    child.kill().expect("killed");
    child.wait().expect("it is ours");
    let flow = contract::flow("f");
    let (mut kills, mut inside, mut torn, mut more) = (0, 0, 0, 0);
    while inside < wanted {
        let mut child = start(directory.path());
        until(directory.path(), &mut child, true);
        std::thread::sleep(took.mul_f64(f64::from(u32::try_from(dice.roll(1_000)).unwrap()) / 1e3));
        child.kill().expect("killed");
        child.wait().expect("it is ours");
        kills += 1;
        inside += u32::from(at("compacting").exists());
        let log = fs::metadata(at("ledger-wal")).map_or(0, |log| log.len());
        torn += u32::from(log > 0);
        // All of it is checked.
        let store = SqliteStore::open(at("ledger")).expect("a whole ledger");
        let answered = last(&at("answered"));
        more += answered - ROWS;
        let counts = store.counts(&flow).await.expect("counts");
        assert!(counts.pending + counts.done + counts.dead >= u64::from(answered));
        let changes = rows(0, answered);
        let recorded = contract::record(0, &changes);
        let again = store.record(&flow, recorded).await.expect("recorded");
        assert_eq!(again.items, 0, "lost");
        assert_eq!((counts.done, counts.dead), (1_300, 700));
    }
    println!(
        "{kills} kills, {inside} of them while it compacted (which takes {took:?}), {torn} with a log \
         left; {more} rows recorded meanwhile, none lost"
    );
}

/// Writes until nothing more can be written, and gives `left` bytes back.
fn fill_up(path: &Path, left: u64) {
    let mut file = File::create(path).expect("a file");
    let block = vec![1; 64 * 1024];
    while file.write_all(&block).is_ok() {}
    let len = file.metadata().expect("its length").len();
    file.set_len(len - left).expect("shortened");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_it_is_refused_and_the_ledger_is_whole() {
    let disk = TinyDisk::mount(256 * 1_024).expect("this test mounts a tmpfs, which takes root");
    let (path, ballast) = (disk.path().join("ledger"), disk.path().join("ballast"));
    let flow = contract::flow("f");
    let store = filled(&path).await;
    blow_up(&store).await;
    let_go(&store).await;
    // Its log is short again.
    drop(store);
    let store = SqliteStore::open(&path).expect("a ledger");
    let large = fs::metadata(&path).expect("the ledger").len();
    fill_up(&ballast, LEFT);
    let before = store.rows(&flow, None, None, 10_000).await.expect("rows");
    for _ in 0..3 {
        let error = store.compact().await.expect_err("no room");
        assert!(error.is_transient(), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}", source.unwrap_or_default());
        assert!(text.contains("full"), "{text}");
        println!("{text}");
        // It is as it was, and its rows can be worked on: its log has no room to grow, but may be
        // emptied.
        let rows = store.rows(&flow, None, None, 10_000).await.expect("rows");
        assert_eq!(rows, before);
        let claims = contract::claim(&store, &flow, Order::Any, contract::LONG).await;
        assert_eq!(claims.len(), 100);
        for claim in &claims {
            patiently(async || store.finish(&claim.id, End::Released).await).await;
        }
    }
    drop(store);
    // Full as it is, it can be opened.
    let store = SqliteStore::open(&path).expect("a whole ledger");
    fs::remove_file(&ballast).expect("removed");
    store.compact().await.expect("compacted");
    let small = fs::metadata(&path).expect("the ledger").len();
    println!("{large} bytes, {small} when it was compacted");
    assert!(small < large / 4);
    drop(store);
    let store = SqliteStore::open(&path).expect("a whole ledger");
    let rows = store.rows(&flow, None, None, 10_000).await.expect("rows");
    assert_eq!(rows, before);
}
