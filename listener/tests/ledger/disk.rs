//! A ledger in a file whose disk fails: syncs and writes that answer with an error, and a disk
//! without space.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ketch_conformance::tiny_disk::TinyDisk;
use ketch_listener::flow::item::Change;
use ketch_listener::store::sqlite::SqliteStore;
use ketch_listener::store::{Claim, End, Order, State, Store, StoreError};

use super::contract;

/// Where the child finds its ledger, and the files that make its disk fail.
const CHILD: &str = "KETCH_LEDGER_DISK";

/// Stands before the C library's functions: while `fail-sync` or `fail-write` is there, syncs of the
/// ledger's files, or writes to them, answer with EIO.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static int fails(int fd, const char *what) {
    char path[4096], link[64];
    const char *dir = getenv("KETCH_LEDGER_DISK");
    int before = errno;
    if (!dir) return 0;
    snprintf(path, sizeof path, "%s/fail-%s", dir, what);
    if (access(path, F_OK)) { errno = before; return 0; }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) { errno = before; return 0; }
    path[n] = 0;
    if (!strstr(path, "/ledger")) return 0;
    errno = EIO;
    return 1;
}
int fsync(int fd) { return fails(fd, "sync") ? -1 : syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return fails(fd, "sync") ? -1 : syscall(SYS_fdatasync, fd); }
ssize_t write(int fd, const void *b, size_t n) {
    return fails(fd, "write") ? -1 : syscall(SYS_write, fd, b, n);
}
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) {
    return fails(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, b, n, at);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off_t at) {
    return fails(fd, "write") ? -1 : syscall(SYS_pwrite64, fd, b, n, at);
}
"#;

/// Builds a library that stands before the C library's functions.
pub(crate) fn shim(directory: &Path, text: &str) -> PathBuf {
    let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
    fs::write(&source, text).expect("written");
    // What builds SQLite is there.
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .status()
        .expect("a C compiler");
    assert!(built.success(), "{built}");
    library
}

#[test]
fn after_errors_of_its_disk_it_is_opened_again_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let ended = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "disk::child", "--nocapture"])
        .env(CHILD, directory.path())
        .env("LD_PRELOAD", shim(directory.path(), SHIM))
        .status()
        .expect("a child");
    assert!(ended.success(), "{ended}");
    assert!(directory.path().join("done").exists());
}

fn rows(from: u32, count: u32) -> Vec<Change> {
    (from..from + count)
        .map(|n| contract::present(&format!("d/{n:06}"), n))
        .collect()
}

/// Asks again until the ledger answers.
pub(crate) async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    for _ in 0..6_000 {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come back");
}

/// What the test above starts.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(directory) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let path = directory.join("ledger");
    let store = SqliteStore::open(&path).expect("a ledger");
    let flow = contract::flow("f");
    let mut known = 0;
    for what in ["fail-sync", "fail-write", "fail-sync"] {
        let first = rows(known, 5);
        let record = contract::record(0, &first);
        store.record(&flow, record).await.expect("recorded");
        let claims: Vec<Claim> = contract::claim(&store, &flow, Order::Any, contract::LONG).await;
        assert_eq!(claims.len(), 5, "those of before are done");
        fs::write(directory.join(what), "").expect("written");
        let more = rows(known + 5, 5);
        let record = contract::record(0, &more);
        for _ in 0..5 {
            let error = store.record(&flow, record).await.expect_err("no disk");
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
            // What cannot be trusted is not read either.
            let read = store.rows(&flow, None, None, 10).await;
            assert!(matches!(read, Err(StoreError::Unavailable { .. })));
        }
        fs::remove_file(directory.join(what)).expect("removed");
        patiently(async || store.record(&flow, record).await).await;
        // Claims are whose they were.
        for claim in &claims {
            store.finish(&claim.id, End::Done).await.expect("the claim");
        }
        for claim in contract::claim(&store, &flow, Order::Any, contract::LONG).await {
            store.finish(&claim.id, End::Done).await.expect("the claim");
        }
        known += 10;
        let all = store.rows(&flow, None, None, 1_000).await.expect("rows");
        assert_eq!(all.len(), known as usize);
        assert!(all.iter().all(|row| row.state == State::Done));
        let record = contract::record(0, &more);
        let again = store.record(&flow, record).await.expect("recorded");
        assert_eq!(again.items, 0);
    }
    drop(store);
    // All of it is checked.
    SqliteStore::open(&path).expect("a whole ledger");
    fs::write(directory.join("done"), "").expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_that_was_answered() {
    let disk = TinyDisk::mount(4_096).expect("this test mounts a tmpfs, which takes root");
    let path = disk.path().join("ledger");
    let store = SqliteStore::open(&path).expect("a ledger");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 2 * 1024 * 1024]).expect("written");
    let flow = contract::flow("f");
    let mut taken = 0;
    let error = loop {
        let changes = rows(taken, 50);
        match store.record(&flow, contract::record(0, &changes)).await {
            Ok(recorded) => assert_eq!(recorded.items, 50),
            Err(error) => break error,
        }
        taken += 50;
        assert!(taken < 100_000, "the disk has no end");
    };
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.is_transient());
    // It is full; what is known can be read, and nothing that fails does harm.
    let counts = store.counts(&flow).await.expect("counts");
    assert_eq!(counts.pending, u64::from(taken));
    let changes = rows(taken, 50);
    for _ in 0..3 {
        if let Err(error) = store.compact().await {
            assert!(error.is_transient(), "{error}");
        }
        let full = store.record(&flow, contract::record(0, &changes)).await;
        if let Err(error) = full {
            assert!(error.is_transient(), "{error}");
        }
    }
    fs::remove_file(&ballast).expect("removed");
    patiently(async || store.record(&flow, contract::record(0, &changes)).await).await;
    store.compact().await.expect("compacted");
    let counts = store.counts(&flow).await.expect("counts");
    assert_eq!(counts.pending, u64::from(taken) + 50);
    drop(store);
    // All of it is checked.
    let store = SqliteStore::open(&path).expect("a whole ledger");
    let all = rows(0, taken + 50);
    for part in all.chunks(5_000) {
        let again = store.record(&flow, contract::record(0, part)).await;
        assert_eq!(again.expect("recorded").items, 0);
    }
}
