//! What the demo does and tells, in order.
#![expect(
    clippy::disallowed_methods,
    reason = "the demo says how long things take"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ketch_client::{GetOptions, Progress, PutOptions, RemotePath, Session, Sftp};
use ketch_listener::{Event, EventKind, Events, Watch};

use super::files;
use super::server::{self, USER};
use crate::args::DemoArgs;
use crate::failed::Failed;
use crate::output::{Bar, Lines, with_progress};
use crate::plan::cannot;

/// How often the demo looks at its own server: often, as it is for show.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Longest wait for an event that must come within a few intervals.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs the whole demo; an error is the first thing that did not work.
pub(super) async fn tell(args: DemoArgs) -> Result<(), Failed> {
    let begun = Instant::now();
    let mut say = Lines::new();
    let scene = Scene::new()?;
    say.line("ketch demo: an SFTP server and client of our own, on this machine only.\n")?;

    let server = server::start(&scene.root)?;
    say.line(&format!(
        "server    listens on {} and has a fresh host key:",
        server.address
    ))?;
    say.line(&format!("          {}", server.fingerprint()))?;
    say.flush()?;
    let session = server.connect().await?;
    let sftp = session.sftp().await?;
    say.line(&format!(
        "login     as {USER} with a fresh key; the host key is the one expected"
    ))?;

    large_file(&args, &scene, &sftp, &mut say).await?;
    small_files(&args, &scene, &sftp, &mut say).await?;
    watch(&scene, &session, &mut say).await?;

    session.disconnect().await;
    drop(server);
    let took = begun.elapsed().as_secs_f64();
    say.line(&format!(
        "\nAll of it worked, in {took:.1} s; nothing is left behind. Next:"
    ))?;
    say.line("    ketch serve --root DIR --user NAME --password-file FILE")?;
    say.line("    ketch get -r user@host:directory .")?;
    say.line("    ketch listen user@host:directory")?;
    say.flush()
}

/// One large file up and down again.
async fn large_file(
    args: &DemoArgs,
    scene: &Scene,
    sftp: &Sftp,
    say: &mut Lines,
) -> Result<(), Failed> {
    let len = u64::from(args.size) << 20;
    let (up, down) = (
        scene.local.join("large.bin"),
        scene.local.join("large-again.bin"),
    );
    say.line(&format!("\nfile      of {} MiB, random bytes", args.size))?;
    say.flush()?;
    let sum = files::write_random(&up, len)?;
    let remote = RemotePath::from("/large.bin");

    let progress = Arc::new(Progress::new());
    let put = sftp.put(
        &up,
        &remote,
        PutOptions::new().progress(Arc::clone(&progress)),
    );
    let (_, took) = timed(with_progress(put, &progress, "upload", Bar::Passes)).await?;
    say.line(&format!("upload    {}", rate(len, took)))?;
    say.flush()?;

    let progress = Arc::new(Progress::new());
    let get = sftp.get(
        &remote,
        &down,
        GetOptions::new().progress(Arc::clone(&progress)),
    );
    let (_, took) = timed(with_progress(get, &progress, "download", Bar::Passes)).await?;
    say.line(&format!("download  {}", rate(len, took)))?;

    for (path, what) in [
        (scene.root.join("large.bin"), "uploaded"),
        (down, "downloaded"),
    ] {
        if files::sum(&path)? != sum {
            return Err(Failed::Wrong(format!(
                "the {what} file is not the one that was sent"
            )));
        }
        fs::remove_file(&path).map_err(|e| cannot("remove", &path, e))?;
    }
    let hex: String = sum
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    say.line(&format!(
        "check     both copies have the same SHA-256: {hex}…"
    ))?;
    say.flush()
}

/// Many small files up and down again, and their directory listed.
async fn small_files(
    args: &DemoArgs,
    scene: &Scene,
    sftp: &Sftp,
    say: &mut Lines,
) -> Result<(), Failed> {
    let count = args.files;
    let (up, down) = (scene.local.join("many"), scene.local.join("many-again"));
    say.line(&format!(
        "\nfiles     {count} small ones, in directories of a hundred"
    ))?;
    say.flush()?;
    fs::create_dir(&up).map_err(|e| cannot("create", &up, e))?;
    files::write_many(&up, count)?;
    let remote = RemotePath::from("/many");

    let put = sftp.put(&up, &remote, PutOptions::new().recursive(true));
    let (_, took) = timed(put).await?;
    say.line(&format!("upload    {}", files_rate(count, took)))?;
    say.flush()?;

    let (names, took) = timed(list(sftp, &remote)).await?;
    let ms = took.as_secs_f64() * 1e3;
    say.line(&format!(
        "list      {} directories with {names} files in {ms:.1} ms",
        count.div_ceil(100)
    ))?;

    let get = sftp.get(&remote, &down, GetOptions::new().recursive(true));
    let (_, took) = timed(get).await?;
    say.line(&format!("download  {}", files_rate(count, took)))?;

    let sums = files::sums(&up)?;
    if names != count || files::sums(&down)? != sums {
        return Err(Failed::Wrong(
            "the small files did not come back as they were sent".into(),
        ));
    }
    say.line("check     every one has the same SHA-256 as before")?;
    say.flush()
}

/// The names in the directories below `path`.
async fn list(sftp: &Sftp, path: &RemotePath) -> Result<u32, Failed> {
    let mut names = 0;
    let mut directories = sftp.read_dir(path);
    while let Some(directory) = directories.next().await {
        let mut files = sftp.read_dir(path.join(directory?.name()));
        while let Some(file) = files.next().await {
            file?;
            names += 1;
        }
    }
    Ok(names)
}

/// A directory that changes while it is watched, over another channel of the same connection.
async fn watch(scene: &Scene, session: &Session, say: &mut Lines) -> Result<(), Failed> {
    let directory = scene.root.join("inbox");
    fs::create_dir(&directory).map_err(|e| cannot("create", &directory, e))?;
    let watch = Watch::directory(session.sftp().await?, RemotePath::from("/inbox"));
    let mut events = watch.interval(WATCH_INTERVAL).start();
    if !events.listings(1).await {
        return Err(Failed::Wrong("the watch ended before it began".into()));
    }
    say.line(&format!(
        "\nwatch     /inbox, every {} ms",
        WATCH_INTERVAL.as_millis()
    ))?;
    say.flush()?;

    // Renamed into place, so that no listing finds it half written and each change is one event.
    let (draft, report) = (scene.root.join("draft"), directory.join("report.csv"));
    let put = |text: &str| fs::write(&draft, text).and_then(|()| fs::rename(&draft, &report));
    for (what, kind) in [
        ("a file is put there", EventKind::Created),
        ("it is replaced", EventKind::Modified),
        ("it is removed", EventKind::Removed),
    ] {
        let changed = Instant::now();
        match kind {
            EventKind::Created => put("a,b\n"),
            EventKind::Modified => put("a,b\n1,2\n"),
            _ => fs::remove_file(&report),
        }
        .map_err(|e| cannot("change", &report, e))?;
        let event = next_event(&mut events).await?;
        let ms = changed.elapsed().as_millis();
        let path = &event.path;
        if event.kind != kind || path.as_bytes() != b"/inbox/report.csv" {
            return Err(Failed::Wrong(format!(
                "{what}, but the event was {event:?}"
            )));
        }
        say.line(&format!(
            "event     {what}: {kind:?} {path}, seen after {ms} ms"
        ))?;
        say.flush()?;
    }
    Ok(())
}

async fn next_event(events: &mut Events) -> Result<Event, Failed> {
    match tokio::time::timeout(EVENT_TIMEOUT, events.next()).await {
        Ok(Some(event)) => Ok(event?),
        Ok(None) => Err(Failed::Wrong("the watch ended".into())),
        Err(_) => Err(Failed::Wrong("a change was not noticed".into())),
    }
}

/// Temporary directories, gone when the demo is: the server's root and a place for local files.
#[derive(Debug)]
struct Scene {
    /// Removes both when dropped.
    _directory: tempfile::TempDir,
    root: std::path::PathBuf,
    local: std::path::PathBuf,
}

impl Scene {
    fn new() -> Result<Self, Failed> {
        let what = "cannot make a temporary directory";
        let directory = tempfile::Builder::new()
            .prefix("ketch-demo-")
            .tempdir()
            .map_err(|error| Failed::local(what, error))?;
        let below = |name: &str| -> Result<_, Failed> {
            let path = Path::join(directory.path(), name);
            fs::create_dir(&path).map_err(|error| Failed::local(what, error))?;
            Ok(path)
        };
        let (root, local) = (below("server")?, below("here")?);
        Ok(Self {
            _directory: directory,
            root,
            local,
        })
    }
}

async fn timed<T, E: Into<Failed>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<(T, Duration), Failed> {
    let begun = Instant::now();
    let done = work.await.map_err(Into::into)?;
    Ok((done, begun.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "for show, with no decimals")]
fn rate(bytes: u64, took: Duration) -> String {
    let (mib, s) = (bytes as f64 / f64::from(1 << 20), took.as_secs_f64());
    format!("{mib:.0} MiB in {s:.2} s: {:.0} MiB/s", mib / s.max(1e-9))
}

fn files_rate(count: u32, took: Duration) -> String {
    let s = took.as_secs_f64();
    format!(
        "{count} files in {s:.2} s: {:.0} files/s",
        f64::from(count) / s.max(1e-9)
    )
}
