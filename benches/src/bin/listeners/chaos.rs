//! What is lost, doubled and torn by listeners that are killed under load.

#![expect(
    clippy::disallowed_methods,
    reason = "the moments of kills are a matter of the clock"
)]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ketch_conformance::deliveries::judge::{Identity, Judge};
use ketch_conformance::deliveries::received::Directory;
use ketch_conformance::deliveries::{Writer, WriterConfig};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_conformance::random::Random;

use super::{Failed, poller, rclone};

/// How long each is left in peace in the end.
const PEACE: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(200);
/// Longest life.
const LIFE_MAX_MS: u64 = 2500;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kills of each
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// New files
    #[arg(long, default_value_t = 3000)]
    files: u64,
    /// Pause between two operations of the writer, in milliseconds
    #[arg(long, default_value_t = 20)]
    pace: u64,
    /// Decides what is written and when is killed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Who is killed, separated by commas
    #[arg(long, value_delimiter = ',', default_values = ["ketch", "rclone", "poller"])]
    who: Vec<Who>,
    /// The ketch program [default: the one beside this program]
    #[arg(long)]
    ketch: Option<PathBuf>,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Who {
    /// `ketch listen --config`
    Ketch,
    /// `rclone copy`, again and again
    Rclone,
    /// The sequential poller
    Poller,
}

pub(crate) fn run(arguments: &Arguments, all: &super::Arguments) -> Result<(), Failed> {
    println!("{arguments:?}");
    for &who in &arguments.who {
        one(who, arguments, all)?;
    }
    Ok(())
}

fn one(who: Who, arguments: &Arguments, all: &super::Arguments) -> Result<(), Failed> {
    let dir = tempfile::Builder::new()
        .prefix("ketch-bench-")
        .tempdir_in(&all.dir)?;
    for name in ["served", "sink", "copies"] {
        fs::create_dir(dir.path().join(name))?;
    }
    let server = OpenSshServer::start(OpenSshConfig::default())?;
    let mut contender = Contender {
        who,
        server: &server,
        dir: dir.path(),
        all,
        ketch: match &arguments.ketch {
            Some(ketch) => ketch.clone(),
            None => std::env::current_exe()?.with_file_name("ketch"),
        },
        harvested: HashSet::new(),
    };
    contender.configure()?;
    let journal = dir.path().join("journal");
    let config = WriterConfig {
        seed: arguments.seed,
        files: arguments.files,
        pace: Duration::from_millis(arguments.pace),
        settle: SETTLE,
        ..WriterConfig::default()
    };
    let mut writer = Writer::new(&dir.path().join("served"), &journal, config)?;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let writing = std::thread::spawn(move || {
        let go_on = || !stopped.load(std::sync::atomic::Ordering::SeqCst);
        writer.run(|| go_on().then_some(u64::MAX))
    });
    let mut random = Random::new(arguments.seed);
    for _ in 0..arguments.kills {
        let life = Duration::from_millis(random.below(LIFE_MAX_MS));
        contender.live(life)?;
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    writing.join().map_err(|_| "the writer panicked")??;
    contender.live(PEACE)?;
    let judge = Judge::new(&journal, Identity::Path)?;
    let mut sink = Directory::numbered(&contender.sink());
    println!(
        "{who:?}, {} kills: {}",
        arguments.kills,
        judge.verdict(sink.look()?)
    );
    Ok(())
}

struct Contender<'a> {
    who: Who,
    server: &'a OpenSshServer,
    dir: &'a Path,
    all: &'a super::Arguments,
    ketch: PathBuf,
    /// Of rclone's copies: those that have been put aside.
    harvested: HashSet<u64>,
}

impl Contender<'_> {
    fn configure(&self) -> Result<(), Failed> {
        let text = format!(
            "state = {state:?}
[[source]]
name = \"there\"
url = \"sftp://{user}@{addr}{served}\"
identity = [{identity:?}]
host_key = [{host_key:?}]
[[flow]]
name = \"chaos\"
source = \"there\"
interval = \"{interval}ms\"
recursive = true
exclude = [\"*.part\"]
first = \"news\"
settle = {{ period = \"{settle}ms\", polls = 2 }}
[[flow.sink]]
name = \"disk\"
kind = \"directory\"
path = {sink:?}
template = \"{{path}}.{{sequence}}\"
exists = \"error\"
",
            state = self.dir.join("state"),
            user = self.server.user(),
            addr = self.server.addr(),
            served = self.dir.join("served").display(),
            identity = self.server.identity().private(),
            host_key = self.server.host_key().public_key().to_string(),
            interval = INTERVAL.as_millis(),
            settle = SETTLE.as_millis(),
            sink = self.dir.join("sink"),
        );
        fs::write(self.dir.join("ketch.toml"), text)?;
        Ok(())
    }

    /// Where its deliveries are, each under a name of its own.
    fn sink(&self) -> PathBuf {
        self.dir.join(match self.who {
            Who::Rclone => "copies",
            Who::Ketch | Who::Poller => "sink",
        })
    }

    /// Starts it, and kills it when `life` is over.
    fn live(&mut self, life: Duration) -> Result<(), Failed> {
        let began = Instant::now();
        while began.elapsed() < life {
            let mut child = self.start()?;
            let left = life.saturating_sub(began.elapsed());
            let ended = end_within(&mut child, left)?;
            child.kill()?;
            child.wait()?;
            if self.who == Who::Rclone {
                self.harvest(&self.dir.join("sink"))?;
            }
            if ended {
                sleep(INTERVAL.min(life.saturating_sub(began.elapsed())));
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<Child, Failed> {
        let served = self.dir.join("served");
        let mut command = match self.who {
            Who::Ketch => {
                let mut command = std::process::Command::new(&self.ketch);
                command
                    .args(["listen", "--config"])
                    .arg(self.dir.join("ketch.toml"));
                command
            }
            Who::Rclone => {
                let mut command = rclone(self.server, self.server.port());
                command
                    .args(["--min-age", "1s", "--exclude", "*.part", "--retries", "1"])
                    .arg(format!(":sftp:{}", served.display()))
                    .arg(self.dir.join("sink"));
                command
            }
            Who::Poller => {
                let mut command = poller(self.all, self.dir)?;
                command
                    .args(["fetch", "127.0.0.1", &self.server.port().to_string()])
                    .arg(self.server.user())
                    .arg(self.server.identity().private())
                    .arg(&served)
                    .arg(self.dir.join("sink"))
                    .arg(self.dir.join("store"))
                    .arg(INTERVAL.as_secs_f64().to_string())
                    .arg(SETTLE.as_secs_f64().to_string());
                command
            }
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))?;
        Ok(command
            .env("HOME", self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?)
    }

    /// Gives what rclone has copied since the last time names of their own: it writes each copy to a
    /// new file, which takes the place of the old.
    fn harvest(&mut self, dir: &Path) -> Result<(), Failed> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.harvest(&path)?;
                continue;
            }
            let inode = entry.metadata()?.ino();
            if path.to_string_lossy().ends_with(".partial") || !self.harvested.insert(inode) {
                continue;
            }
            let below = path
                .strip_prefix(self.dir.join("sink"))?
                .display()
                .to_string();
            let copy = self.dir.join("copies").join(format!("{below}.{inode}"));
            if let Some(parent) = copy.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::hard_link(&path, copy)?;
        }
        Ok(())
    }
}

/// Whether it ended by itself.
fn end_within(child: &mut Child, limit: Duration) -> std::io::Result<bool> {
    let began = Instant::now();
    loop {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        if began.elapsed() >= limit {
            return Ok(false);
        }
        sleep(Duration::from_millis(2).min(limit.saturating_sub(began.elapsed())));
    }
}
