//! How long after a file appeared on a server a watch tells of it, by pushes and by polls.
//!
//! Our own server on loopback and a watch of a directory on it. Each round makes a file beside the
//! server, in this process, and waits for the event that names it. Printed are the medians and the
//! longest of all rounds.
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use ketch_client::hostkey::HostKeys;
use ketch_client::{Connect, RemotePath, Session};
use ketch_listener::{EventKind, Events, Push, Watch};
use ketch_server::{Server, User, generate_host_key};

/// Measures how soon a new file is told of.
#[derive(Parser)]
struct Args {
    /// Files that are told by pushes
    #[arg(long, default_value_t = 300)]
    pushes: u32,
    /// Files that are told by polls
    #[arg(long, default_value_t = 50)]
    polls: u32,
    /// Files that are in the directory already
    #[arg(long, default_value_t = 1_000)]
    known: u32,
    /// Milliseconds from one poll to the next
    #[arg(long, default_value_t = 200)]
    interval: u64,
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Fault> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> Result<(), Fault> {
    let root = tempfile::tempdir()?;
    let dir = root.path().join("in");
    std::fs::create_dir(&dir)?;
    for number in 0..args.known {
        std::fs::write(dir.join(format!("known-{number}")), "known")?;
    }
    let session = connect(root.path()).await?;
    let listing = listing_time(&session).await?;
    println!(
        "{} files known; a listing takes {:.2} ms",
        args.known,
        millis(listing)
    );

    // The interval is longer than this runs: what is told came by a push.
    let mut events = watch(&session, Push::Auto, Duration::from_secs(3600)).await?;
    if !events.pushed().await {
        return Err("the server tells no changes".into());
    }
    report(
        "push",
        rounds(&mut events, &dir, "push", args.pushes, Duration::ZERO).await?,
    );
    drop(events);

    let interval = Duration::from_millis(args.interval);
    let mut events = watch(&session, Push::Never, interval).await?;
    // Files come at any time between two polls.
    let times = rounds(&mut events, &dir, "poll", args.polls, interval).await?;
    report(&format!("poll every {} ms", args.interval), times);
    Ok(())
}

async fn connect(root: &Path) -> Result<Session, Fault> {
    let server = Server::builder()
        .host_key(generate_host_key()?)
        .user(User::new("ann", root).password("correct horse"))
        .build()?;
    let host_keys = HostKeys::only([server.host_key()]);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move { server.serve(listener).await });
    let connect = Connect::to("127.0.0.1").port(port).user("ann");
    let connect = connect
        .password("correct horse".to_owned())
        .host_keys(host_keys);
    Ok(connect.connect().await?)
}

async fn watch(session: &Session, push: Push, interval: Duration) -> Result<Events, Fault> {
    let watch = Watch::directory(session.sftp().await?, RemotePath::from("/in"));
    let mut events = watch.interval(interval).push(push).start();
    if events.listings(1).await {
        Ok(events)
    } else {
        Err("the connection was lost".into())
    }
}

/// The median of some listings.
async fn listing_time(session: &Session) -> Result<Duration, Fault> {
    let sftp = session.sftp().await?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let mut entries = sftp.read_dir("/in");
        while let Some(entry) = entries.next().await {
            entry?;
        }
        times.push(start.elapsed());
    }
    Ok(median(&mut times))
}

/// Makes `count` files and says how long each one took to be told of. Before each there is a pause
/// of up to `spread`.
async fn rounds(
    events: &mut Events,
    dir: &Path,
    name: &str,
    count: u32,
    spread: Duration,
) -> Result<Vec<Duration>, Fault> {
    let mut times = Vec::new();
    for number in 0..count {
        // A multiple of the golden ratio, which falls everywhere between two polls.
        let part = (f64::from(number) * 0.618_033_988_749).fract();
        tokio::time::sleep(Duration::from_millis(5) + spread.mul_f64(part)).await;
        let name = format!("{name}-{number}");
        let start = Instant::now();
        std::fs::write(dir.join(&name), "content")?;
        loop {
            let event = events.next().await.ok_or("the watch ended")??;
            if event.kind == EventKind::Created && event.path.file_name() == Some(name.as_bytes()) {
                break;
            }
        }
        times.push(start.elapsed());
    }
    Ok(times)
}

fn report(what: &str, mut times: Vec<Duration>) {
    let (count, median) = (times.len(), median(&mut times));
    let longest = times.last().copied().unwrap_or_default();
    let (median, longest) = (millis(median), millis(longest));
    println!("{what}: median {median:.2} ms, longest {longest:.2} ms, of {count} files");
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
