//! A get, a put, an echo and calls that are given up, all at once on one connection.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ketch_client::{GetOptions, PutOptions, Timeouts};
use ketch_conformance::content::{Sha256, random_file};
use ketch_server::CommonConfig;

use crate::dropped::{DIRECTORY, ENTRIES, LARGE, Quitter, SMALL, SMALL_LEN, Tally};
use crate::echo;
use crate::random::Random;
use crate::scene::{Scene, names, turn, until_equal};
use crate::wire::Over;

const MIB: u64 = 1024 * 1024;
/// What is downloaded, and what is uploaded.
const FILE_LEN: u64 = 40 * MIB;
/// What goes through the echo.
const ECHO_LEN: usize = 20 * 1024 * 1024;
/// How many give calls up at a time, and how many calls each makes at least.
const QUITTERS: u64 = 6;
const CALLS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_an_echo_and_dropped_calls_share_a_duplex_stream() {
    everything_at_once(Over::Duplex).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_an_echo_and_dropped_calls_share_a_socket() {
    everything_at_once(Over::Socket).await;
}

async fn everything_at_once(over: Over) {
    let _turn = turn().await;
    let scene = Scene::new(over, Timeouts::default(), CommonConfig::default()).await;
    let down = random_file(&scene.remote("down"), FILE_LEN).unwrap();
    let up = random_file(&scene.local("up"), FILE_LEN).unwrap();
    let small = random_file(&scene.remote(SMALL), SMALL_LEN).unwrap();
    fs::copy(scene.remote(SMALL), scene.local(SMALL)).unwrap();
    random_file(&scene.remote(LARGE), 2 * FILE_LEN).unwrap();
    fs::create_dir(scene.remote(DIRECTORY)).unwrap();
    for entry in 0..ENTRIES {
        fs::write(scene.remote(DIRECTORY).join(entry.to_string()), "").unwrap();
    }
    let sftp = scene.session.sftp().await.unwrap();
    sftp.stat("/").await.unwrap();
    let open_before = scene.open_files();

    let tally = Arc::new(Tally::default());
    let enough = Arc::new(AtomicBool::new(false));
    let quitters: Vec<_> = (0..QUITTERS)
        .map(|number| Quitter::new(&scene, &sftp, number, &tally).run(CALLS, Arc::clone(&enough)))
        .map(tokio::spawn)
        .collect();
    let get = sftp.get("down", scene.local("down"), GetOptions::new());
    let put = sftp.put(scene.local("up"), "up", PutOptions::new());
    let echo = echo::there_and_back(scene.session.clone(), Random::new(7), ECHO_LEN);
    let (got, put, ()) = tokio::join!(get, put, echo);
    assert_eq!(
        (got.unwrap().bytes, put.unwrap().bytes),
        (FILE_LEN, FILE_LEN)
    );
    assert_eq!(Sha256::of_file(&scene.local("down")).unwrap(), down);
    assert_eq!(Sha256::of_file(&scene.remote("up")).unwrap(), up);

    enough.store(true, Ordering::SeqCst);
    for quitter in quitters {
        quitter.await.unwrap();
    }
    println!("{over:?}: {tally:?}");
    let enough_of_both = QUITTERS * CALLS / 10;
    assert!(
        tally.dropped.load(Ordering::SeqCst) > enough_of_both,
        "{tally:?}"
    );
    assert!(
        tally.finished.load(Ordering::SeqCst) > enough_of_both,
        "{tally:?}"
    );

    // The session is still there: what closes is closed because nobody wanted it any more.
    let what = "all that nobody waits for is closed";
    until_equal(what, &open_before, || scene.open_files()).await;
    let what = "no temporary file is left";
    until_equal(what, &Vec::new(), || scene.temporary_files()).await;
    for path in [scene.local(""), scene.remote("")]
        .iter()
        .flat_map(|dir| names(dir))
    {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let whole = match name.split('-').next() {
            Some("got" | "put") => small,
            Some("large") if name != LARGE => Sha256::of_file(&scene.remote(LARGE)).unwrap(),
            _ => continue,
        };
        assert_eq!(Sha256::of_file(&path).unwrap(), whole, "{}", path.display());
    }

    assert!(!scene.session.is_closed());
    assert_eq!(sftp.stat(SMALL).await.unwrap().size, Some(SMALL_LEN));
    sftp.get(SMALL, scene.local("again"), GetOptions::new())
        .await
        .unwrap();
    assert_eq!(Sha256::of_file(&scene.local("again")).unwrap(), small);
    echo::there_and_back(scene.session.clone(), Random::new(8), 100_000).await;
    scene.session.disconnect().await;
}
