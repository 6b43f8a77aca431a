//! What ketch's client and server have in common that others lack: checksums that the server
//! computes, and the change feed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ketch_client::{
    GetOptions, PutOptions, RemotePath, SyncOptions, Timeouts, Verify, WatchEvent, WatchOptions,
};
use ketch_conformance::content::random_file;
use ketch_server::CommonConfig;

use crate::scene::{PATIENCE, Scene, turn};
use crate::wire::Over;

const LEN: u64 = 4 * 1024 * 1024;

async fn scene() -> Scene {
    Scene::new(Over::Duplex, Timeouts::default(), CommonConfig::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_and_comparing_content_leave_the_bytes_where_they_are() {
    let _turn = turn().await;
    let scene = scene().await;
    random_file(&scene.remote("f"), LEN).unwrap();
    let sftp = scene.session.sftp().await.unwrap();
    let hash = sftp.sha256("f").await.unwrap();
    assert_eq!(sftp.sha256("/f").await.unwrap(), hash);

    let before = scene.counts.read_bytes();
    let options = GetOptions::new().verify(Verify::Checksum);
    sftp.get("f", scene.local("f"), options).await.unwrap();
    let came = scene.counts.read_bytes() - before;
    assert!(came < LEN + LEN / 2, "{came} bytes: it was read twice");
    let before = scene.counts.read_bytes();
    let options = PutOptions::new().verify(Verify::Checksum);
    sftp.put(scene.local("f"), "g", options).await.unwrap();
    let came = scene.counts.read_bytes() - before;
    assert!(came < LEN / 2, "{came} bytes: it was read back");

    // The same content with another time: a sync by content sends nothing.
    fs::create_dir(scene.remote("tree")).unwrap();
    fs::create_dir(scene.local("tree")).unwrap();
    fs::copy(scene.remote("f"), scene.remote("tree/f")).unwrap();
    fs::copy(scene.remote("f"), scene.local("tree/f")).unwrap();
    let before = scene.counts.read_bytes();
    let options = SyncOptions::new().compare(ketch_client::Comparison::Content);
    let report = sftp
        .sync_down("tree", scene.local("tree"), options)
        .await
        .unwrap();
    let came = scene.counts.read_bytes() - before;
    assert!(came < LEN / 2, "{came} bytes: it was downloaded");
    assert_eq!(
        (report.copied, report.replaced, report.unchanged),
        (0, 0, 1),
        "{report:?}"
    );
}

/// The paths of what was written, as they come, until `last` is.
async fn until_written(changes: &mut ketch_client::Watch, last: &str) -> Vec<WatchEvent> {
    let last = WatchEvent::Written {
        path: RemotePath::from(last),
    };
    let mut events = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, changes.next()).await;
        let event = next.expect("nothing came").unwrap().unwrap();
        let is_last = event == last;
        events.push(event);
        if is_last {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_real_files_reach_a_client_while_it_transfers() {
    let _turn = turn().await;
    let scene = scene().await;
    fs::create_dir(scene.remote("in")).unwrap();
    let sftp = scene.session.sftp().await.unwrap();
    // Requests that wait come back without events, and are asked again.
    let options = WatchOptions::new()
        .recursive()
        .wait(Duration::from_millis(5));
    let mut changes = sftp.watch("in", options).await.unwrap();
    // By somebody else on the server.
    let deep = scene.remote("in/a/b/c");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f"), "x").unwrap();
    until_created(
        &mut changes,
        &["/in/a", "/in/a/b", "/in/a/b/c", "/in/a/b/c/f"],
    )
    .await;
    // By the client itself, on the same channel.
    let up = scene.local("up");
    random_file(&up, LEN).unwrap();
    sftp.put(&up, "in/up", PutOptions::new()).await.unwrap();
    fs::rename(scene.remote("in/up"), scene.remote("in/a/up")).unwrap();
    fs::write(scene.remote("in/end"), "x").unwrap();
    let events = until_written(&mut changes, "/in/end").await;
    let renamed = WatchEvent::Renamed {
        from: RemotePath::from("/in/up"),
        to: RemotePath::from("/in/a/up"),
        is_directory: false,
    };
    assert!(events.contains(&renamed), "{events:?}");
    // The end of what is watched is the end of the stream.
    fs::remove_dir_all(scene.remote("in")).unwrap();
    let mut last = Some(Ok(WatchEvent::Overflow));
    while last.is_some() {
        last = tokio::time::timeout(PATIENCE, changes.next())
            .await
            .unwrap();
    }
    drop(changes);
    assert_eq!(watched(&scene.remote("")), 0);
    sftp.stat("/").await.unwrap();
}

async fn until_created(changes: &mut ketch_client::Watch, paths: &[&str]) {
    let mut missing = paths.to_vec();
    while !missing.is_empty() {
        let next = tokio::time::timeout(PATIENCE, changes.next()).await;
        match next
            .unwrap_or_else(|_| panic!("{missing:?}"))
            .unwrap()
            .unwrap()
        {
            WatchEvent::Created { path, .. } => {
                missing.retain(|wanted| wanted.as_bytes() != path.as_bytes());
            }
            WatchEvent::Overflow => panic!("there is room for all"),
            _ => {}
        }
    }
}

/// How many directories beneath the root the kernel watches for this process.
fn watched(root: &Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let number = format!(" ino:{:x} ", fs::metadata(root).unwrap().ino());
    let entries = fs::read_dir("/proc/self/fdinfo").unwrap();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts.filter(|text| text.contains(&number)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_connection_frees_what_was_watched() {
    let _turn = turn().await;
    let scene = scene().await;
    let sftp = scene.session.sftp().await.unwrap();
    let options = WatchOptions::new().recursive();
    let mut changes = sftp.watch("/", options).await.unwrap();
    assert_eq!(watched(&scene.remote("")), 1);
    fs::write(scene.remote("f"), "x").unwrap();
    until_written(&mut changes, "/f").await;
    scene.session.disconnect().await;
    let root = scene.remote("");
    crate::scene::until("the watch is freed", || watched(&root) == 0).await;
    let end = tokio::time::timeout(PATIENCE, changes.next())
        .await
        .unwrap();
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}
