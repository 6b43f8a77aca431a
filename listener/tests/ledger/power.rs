//! A ledger in a file whose machine loses its power.
//!
//! A child works with a ledger while a library before the C library writes down each write, truncation,
//! sync and removal of its files, in their order. The disk is then made again as it may stand after a
//! loss of power at any moment of that: what was synced is there; of what was not, each sector of 512
//! bytes may be there or not, in any order, and the last names may be missing, or removed ones be back.
//! What the ledger says after that must be what it said after the last call that it answered, or after
//! the one that was under way.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ketch_conformance::tiny_disk::TinyDisk;
use ketch_listener::flow::item::{Change, FlowName};
use ketch_listener::store::sqlite::SqliteStore;
use ketch_listener::store::{Claim, End, Order, Placement, State, Store, StoreError};

use super::world::Dice;
use super::{contract, disk};

/// Where the child finds its directory: the ledger is in `disk` below it, what is done to that in `log`.
const CHILD: &str = "KETCH_LEDGER_POWER";
/// What the child does, in calls of the ledger.
const CALLS: u32 = 500;
/// Written by the child after each call: a number that stands for all that the ledger says then.
const ANSWERED: &str = "ledger.answered";
const SECTOR: usize = 512;

/// Writes down what is done to files in `disk`.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;
static const char *name_of(const char *path) {
    static char root[4096];
    if (!root[0]) snprintf(root, sizeof root, "%s/disk", getenv("KETCH_LEDGER_POWER"));
    size_t n = strlen(root);
    if (strncmp(path, root, n)) return 0;
    if (!path[n]) return "";
    return path[n] == '/' ? path + n + 1 : 0;
}
static void note(char op, const char *name, uint64_t at, uint64_t len, const void *bytes) {
    char head[32];
    uint64_t size = strlen(name);
    if (out < 0) {
        char path[4096];
        snprintf(path, sizeof path, "%s/log", getenv("KETCH_LEDGER_POWER"));
        out = syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_APPEND, 0600);
    }
    memset(head, 0, sizeof head);
    head[0] = op;
    memcpy(head + 8, &size, 8);
    memcpy(head + 16, &at, 8);
    memcpy(head + 24, &len, 8);
    if (syscall(SYS_write, out, head, sizeof head) != sizeof head) abort();
    if (syscall(SYS_write, out, name, size) != (long)size) abort();
    if (op == 'w' && syscall(SYS_write, out, bytes, len) != (long)len) abort();
}
static void note_fd(char op, int fd, uint64_t at, uint64_t len, const void *bytes) {
    char path[4096], link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return;
    path[n] = 0;
    const char *name = name_of(path);
    if (name) note(op, name, at, len, bytes);
}
#define ONE(done, op, at, len, bytes) \
    pthread_mutex_lock(&lock); \
    long n = done; \
    if (n >= 0) note_fd(op, fd, at, len, bytes); \
    pthread_mutex_unlock(&lock); \
    return n
ssize_t write(int fd, const void *b, size_t size) {
    ONE(syscall(SYS_write, fd, b, size), 'w', lseek(fd, 0, SEEK_CUR) - n, n, b);
}
ssize_t pwrite(int fd, const void *b, size_t size, off_t at) {
    ONE(syscall(SYS_pwrite64, fd, b, size, at), 'w', at, n, b);
}
ssize_t pwrite64(int fd, const void *b, size_t size, off_t at) {
    ONE(syscall(SYS_pwrite64, fd, b, size, at), 'w', at, n, b);
}
int ftruncate(int fd, off_t size) { ONE(syscall(SYS_ftruncate, fd, size), 't', size, 0, 0); }
int ftruncate64(int fd, off_t size) { ONE(syscall(SYS_ftruncate, fd, size), 't', size, 0, 0); }
int fsync(int fd) { ONE(syscall(SYS_fsync, fd), 's', 0, 0, 0); }
int fdatasync(int fd) { ONE(syscall(SYS_fdatasync, fd), 's', 0, 0, 0); }
int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int n = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    const char *name = n ? 0 : name_of(path);
    if (name) note('u', name, 0, 0, 0);
    pthread_mutex_unlock(&lock);
    return n;
}
"#;

/// Something that was done to a file.
#[derive(Clone, Debug)]
enum Act {
    Write {
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate(usize),
    /// Of the directory, if the name is empty.
    Sync,
    Unlink,
}

fn read_log(log: &[u8]) -> Vec<(String, Act)> {
    let mut acts = Vec::new();
    let mut rest = log;
    while let Some((head, behind)) = rest.split_at_checked(32) {
        let number = |at: usize| {
            let bytes = head[at..at + 8].try_into().expect("eight");
            usize::try_from(u64::from_ne_bytes(bytes)).expect("a length")
        };
        let (name, behind) = behind.split_at(number(8));
        let name = String::from_utf8(name.to_vec()).expect("a name");
        let (bytes, behind) = behind.split_at(if head[0] == b'w' { number(24) } else { 0 });
        let act = match head[0] {
            b'w' => Act::Write {
                at: number(16),
                bytes: bytes.to_vec(),
            },
            b't' => Act::Truncate(number(16)),
            b's' => Act::Sync,
            b'u' => Act::Unlink,
            other => panic!("what is {other}?"),
        };
        acts.push((name, act));
        rest = behind;
    }
    assert!(rest.is_empty());
    acts
}

fn apply(content: &mut Vec<u8>, act: &Act) {
    match act {
        Act::Write { at, bytes } => {
            let end = at + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*at..end].copy_from_slice(bytes);
        }
        Act::Truncate(len) => content.resize(*len, 0),
        Act::Sync | Act::Unlink => {}
    }
}

/// A file as it is on the disk, and what was done to it since it was synced.
#[derive(Clone, Debug, Default)]
struct OnDisk {
    synced: Vec<u8>,
    since: Vec<Act>,
}

impl OnDisk {
    /// What may be found after a loss of power.
    fn after_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let mut content = self.synced.clone();
        let count = self.since.len() as u64;
        let (mode, stop) = (dice.roll(6), dice.roll(count + 1));
        for (n, act) in (0..).zip(&self.since) {
            match mode {
                1 => apply(&mut content, act),
                // In order, and the last one torn.
                2 if n < stop => apply(&mut content, act),
                2 if n == stop => apply_some(&mut content, act, dice),
                // Whole, in any order.
                3 | 4 if dice.roll(2) == 0 => apply(&mut content, act),
                5 => apply_some(&mut content, act, dice),
                _ => {}
            }
        }
        content
    }
}

/// Some sectors of it.
fn apply_some(content: &mut Vec<u8>, act: &Act, dice: &mut Dice) {
    let Act::Write { at, bytes } = act else {
        if dice.roll(2) == 0 {
            apply(content, act);
        }
        return;
    };
    let mut from = 0;
    while from < bytes.len() {
        let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
        if dice.roll(2) == 0 {
            let part = Act::Write {
                at: at + from,
                bytes: bytes[from..to].to_vec(),
            };
            apply(content, &part);
        }
        from = to;
    }
}

/// A change of the directory.
#[derive(Clone, Debug)]
enum Entry {
    Made(String, usize),
    Removed(String),
}

/// A disk with one directory.
#[derive(Debug, Default)]
struct Disk {
    files: Vec<OnDisk>,
    /// The names as a process sees them, and as they are on the disk with what was done since.
    seen: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    since: Vec<Entry>,
    /// It says that it has synced, and has not.
    lies: bool,
}

fn enter(names: &mut BTreeMap<String, usize>, entry: &Entry) {
    match entry {
        Entry::Made(name, file) => _ = names.insert(name.clone(), *file),
        Entry::Removed(name) => _ = names.remove(name),
    }
}

impl Disk {
    fn act(&mut self, name: &str, act: &Act) {
        match act {
            Act::Sync if self.lies => {}
            Act::Sync if name.is_empty() => {
                for entry in std::mem::take(&mut self.since) {
                    enter(&mut self.synced, &entry);
                }
            }
            Act::Sync => {
                if let Some(&file) = self.seen.get(name) {
                    let OnDisk { synced, since } = &mut self.files[file];
                    for act in since.drain(..) {
                        apply(synced, &act);
                    }
                }
            }
            Act::Unlink => {
                self.seen.remove(name);
                self.since.push(Entry::Removed(name.to_owned()));
            }
            Act::Write { .. } | Act::Truncate(_) => {
                let file = *self.seen.entry(name.to_owned()).or_insert_with(|| {
                    self.files.push(OnDisk::default());
                    let file = self.files.len() - 1;
                    self.since.push(Entry::Made(name.to_owned(), file));
                    file
                });
                self.files[file].since.push(act.clone());
            }
        }
    }

    /// Writes into `directory` what may be found after a loss of power.
    fn cut(&self, directory: &Path, dice: &mut Dice) {
        let mut names = self.synced.clone();
        let kept = dice.roll(self.since.len() as u64 + 1);
        for (_, entry) in (0..kept).zip(&self.since) {
            enter(&mut names, entry);
        }
        for (name, file) in names {
            let content = self.files[file].after_cut(dice);
            fs::write(directory.join(name), content).expect("written");
        }
    }
}

fn flow() -> FlowName {
    contract::flow("f")
}

/// A number for all that the ledger says. What is claimed waits again after a start.
async fn state(store: &SqliteStore) -> u64 {
    let flow = flow();
    let mut rows = store.rows(&flow, None, None, 1_000).await.expect("rows");
    for row in &mut rows {
        if row.state == State::Claimed {
            row.state = State::Pending;
        }
    }
    let value = store.value(&flow, "key").await.expect("a value");
    let mut hasher = DefaultHasher::new();
    format!("{rows:?} {value:?}").hash(&mut hasher);
    hasher.finish()
}

/// What the tests below start.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let path = directory.join("disk/ledger");
    let store = SqliteStore::open(&path).expect("a ledger");
    let mut answered = File::create(path.with_file_name(ANSWERED)).expect("a file");
    let mut dice = Dice(u64::from(std::process::id()));
    let mut claims: Vec<Claim> = Vec::new();
    let (mut version, mut since) = (0, 0);
    for call in 0..=CALLS {
        let line = format!("{:016x}\n", state(&store).await);
        answered.write_all(line.as_bytes()).expect("written");
        match dice.roll(16) {
            _ if call == CALLS => {}
            0..=3 => {
                let mut changes = Vec::new();
                for _ in 0..=dice.roll(40) {
                    version += 1;
                    let name = format!("d/file-{:03}", dice.roll(150));
                    changes.push(match dice.roll(8) {
                        0 => contract::removed(&name),
                        1 => Change::Renamed {
                            from: name.into(),
                            to: format!("e/file-{:03}", dice.roll(150)).into(),
                            facts: contract::facts(version),
                        },
                        _ => contract::present(&name, version),
                    });
                }
                let record = contract::record(since, &changes);
                store.record(&flow(), record).await.expect("recorded");
            }
            4 => {
                since = store.begin_scan(&flow(), since).await.expect("a scan").scan;
            }
            5 => {
                let value = format!("{call}");
                let kept = store.set_value(&flow(), "key", Some(&value)).await;
                kept.expect("kept");
            }
            6 => _ = store.replay(&flow(), None).await.expect("replayed"),
            7 if call % 8 == 0 => store.compact().await.expect("compacted"),
            _ if claims.is_empty() => {
                claims = contract::claim(&store, &flow(), Order::Any, contract::LONG).await;
            }
            choice => {
                let claim = claims.pop().expect("one");
                step(&store, &claim, choice, &mut dice).await;
            }
        }
    }
    drop(store);
    fs::write(directory.join("done"), "").expect("written");
}

async fn step(store: &SqliteStore, claim: &Claim, choice: u64, dice: &mut Dice) {
    let id = &claim.id;
    let placement = Placement {
        name: id.path.as_bytes().to_vec(),
        length: Some(choice),
        note: b"note".to_vec(),
    };
    let done = match choice {
        8 => store.fetched(id, [7; 32]).await,
        9 => store.placed(id, "disk", &placement).await,
        10 => store.delivered(id, "disk").await,
        11 => store.committed(id).await,
        _ => {
            let end = match dice.roll(6) {
                0 => End::Acted,
                1 => End::Dead { reason: "no" },
                2 => End::Released,
                3 => End::Superseded,
                _ => End::Done,
            };
            store.finish(id, end).await
        }
    };
    done.expect("the claim");
}

/// What was done to a ledger's files, in the order in which it was done.
fn life(memory: &Path) -> Vec<(String, Act)> {
    // As the kernel names it.
    let real = memory.canonicalize().expect("a directory");
    fs::create_dir(real.join("disk")).expect("a directory");
    let ended = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "power::child", "--nocapture"])
        .env(CHILD, &real)
        .env("LD_PRELOAD", disk::shim(&real, SHIM))
        .status()
        .expect("a child");
    assert!(ended.success(), "{ended}");
    assert!(real.join("done").exists());
    let acts = read_log(&fs::read(real.join("log")).expect("the log"));
    // Nothing was missed: made again in order, the files are what they are.
    let mut whole = BTreeMap::<&str, Vec<u8>>::new();
    for (name, act) in &acts {
        match act {
            Act::Unlink => _ = whole.remove(name.as_str()),
            act => apply(whole.entry(name).or_default(), act),
        }
    }
    let ledger = fs::read(real.join("disk/ledger")).expect("the ledger");
    assert!(whole["ledger"] == ledger, "the log has all of its writes");
    acts
}

/// What became of a ledger whose power was cut after the act `at`.
#[derive(Debug, Eq, PartialEq)]
enum Found {
    /// As it was after the last call that was answered.
    Last,
    /// As it was after the call that was under way.
    Next,
    Other(String),
}

async fn found(
    (disk, memory): (&Disk, &Path),
    dice: &mut Dice,
    answered: usize,
    states: &[u64],
) -> Found {
    let directory = tempfile::tempdir_in(memory).expect("a directory");
    disk.cut(directory.path(), dice);
    let _ = fs::remove_file(directory.path().join(ANSWERED));
    let store = match SqliteStore::open(directory.path().join("ledger")) {
        Ok(store) => store,
        Err(error) => return Found::Other(told(&error)),
    };
    let state = state(&store).await;
    // Before its first answer it is empty.
    let last = answered.saturating_sub(1);
    if states.get(last) == Some(&state) {
        return Found::Last;
    }
    if states.get(last + 1) == Some(&state) {
        return Found::Next;
    }
    let of = states.iter().position(|known| *known == state);
    Found::Other(format!("{answered} answers, it is at {of:?}"))
}

fn told(error: &StoreError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    format!("{error}: {source:?}")
}

async fn cuts(
    (acts, memory): (&[(String, Act)], &Path),
    count: usize,
    lies: bool,
    dice: &mut Dice,
) -> [usize; 3] {
    let answers = acts.iter().filter(|(name, _)| name == ANSWERED);
    let states: Vec<u64> = answers
        .filter_map(|(_, act)| match act {
            Act::Write { bytes, .. } => Some(bytes),
            _ => None,
        })
        .map(|line| std::str::from_utf8(&line[..16]).expect("a number"))
        .map(|line| u64::from_str_radix(line, 16).expect("a number"))
        .collect();
    assert_eq!(states.len(), CALLS as usize + 1);
    let mut places: Vec<usize> = (0..count)
        .map(|_| usize::try_from(dice.roll(acts.len() as u64)).expect("a place"))
        .collect();
    places.sort_unstable();
    let mut disk = Disk {
        lies,
        ..Disk::default()
    };
    let (mut at, mut answered) = (0, 0);
    let mut counted = [0; 3];
    for place in places {
        for (name, act) in &acts[at..place] {
            disk.act(name, act);
            answered += usize::from(name == ANSWERED && matches!(act, Act::Write { .. }));
        }
        at = place;
        let seed = dice.0;
        match found((&disk, memory), dice, answered, &states).await {
            Found::Last => counted[0] += 1,
            Found::Next => counted[1] += 1,
            Found::Other(what) => {
                if !lies {
                    println!("after act {place} of {}, seed {seed}: {what}", acts.len());
                }
                counted[2] += 1;
            }
        }
    }
    counted
}

/// `KETCH_LEDGER_CUTS` is how often the power is lost.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_of_power_all_that_was_answered_is_there_once() {
    let count = std::env::var("KETCH_LEDGER_CUTS").map_or(40, |n| n.parse().expect("a number"));
    // No sync is waited for here: which of them counts, the log says.
    let memory = TinyDisk::mount(256 * 1_024).expect("this test mounts a tmpfs, which takes root");
    let acts = life(memory.path());
    let life = (acts.as_slice(), memory.path());
    let mut dice = Dice(u64::from(std::process::id()));
    println!("seed {}", dice.0);
    let [last, next, other] = cuts(life, count, false, &mut dice).await;
    println!(
        "{count} losses of power in {} acts: {last} times as after the last answer, {next} times as \
         after the call under way, {other} times otherwise",
        acts.len()
    );
    assert_eq!(other, 0);
    // A disk that says that it has synced when it has not is seen through.
    let [_, _, other] = cuts(life, 20, true, &mut dice).await;
    println!("of 20 on a disk that lies, {other} are seen");
    assert!(other > 0);
}
