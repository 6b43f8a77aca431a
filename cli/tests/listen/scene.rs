//! A served tree, a sink, a writer in a thread, and the configuration between them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use ketch_conformance::deliveries::judge::Identity;
use ketch_conformance::deliveries::received::Directory;
use ketch_conformance::deliveries::{Judge, Verdict, Writer, WriterConfig, Written};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use tempfile::TempDir;

use super::bucket::Bucket;
use super::daemon::Daemon;

/// The rule that all scenes have: a file that stands still for so long is complete.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// How often the tree is looked at, with few files.
const INTERVAL: Duration = Duration::from_millis(200);
/// When nothing more has arrived for this time, nothing more arrives.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How long is waited for something to arrive twice, once all has arrived, with few files.
const CALM: Duration = Duration::from_millis(2500);
const LOOK: Duration = Duration::from_millis(100);
/// Files for which a daemon takes so long that times in a life of it are as long again.
const STRETCH: u64 = 25_000;
/// New files, of a hundred operations of a writer.
const NEW_OF_100: u32 = 60;
/// Longest pause between two operations of a writer.
const PACE_MAX: Duration = Duration::from_millis(12);
/// A writer that may have so many files is to end.
const ENOUGH: u64 = u64::MAX - 1;
/// Files in one directory, about.
const TOGETHER: u64 = 500;

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let wanted = std::env::var(name).ok();
    wanted.map_or(default, |number| number.parse().expect("a number"))
}

/// How much is written, and how often a daemon is killed meanwhile, or cut off, or asked to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) files: u64,
    pub(crate) kills: u64,
}

impl Load {
    /// What the environment says, or so much.
    pub(crate) fn new(files: u64, kills: u64) -> Self {
        Self {
            files: number("KETCH_LISTEN_FILES", files),
            kills: number("KETCH_LISTEN_KILLS", kills).max(1),
        }
    }

    /// A time in the life of a daemon, which takes longer the more files there are.
    pub(crate) fn stretched(self, few: Duration) -> Duration {
        few + few.mul_f64(count(self.files) / count(STRETCH))
    }

    /// What is written at most before the kill number `n`, from 0.
    pub(crate) const fn share(self, n: u64) -> u64 {
        self.files * (n + 1) / self.kills
    }

    /// A writer that writes for about as long as the kills take, each of which takes `each` with few
    /// files.
    pub(crate) fn writer(self, seed: u64, each: Duration) -> WriterConfig {
        let all = self.stretched(each).mul_f64(count(self.kills));
        let pace = all.mul_f64(f64::from(NEW_OF_100) / 100.0 / count(self.files.max(1)));
        WriterConfig {
            seed,
            files: self.files,
            directories: WriterConfig::default()
                .directories
                .max(self.files / TOGETHER),
            pace: pace.min(PACE_MAX),
            settle: SETTLE,
            ..WriterConfig::default()
        }
    }
}

fn count(number: u64) -> f64 {
    f64::from(u32::try_from(number).expect("that many are not made"))
}

/// How things stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remains {
    /// Versions that stand by now and have not arrived.
    pub(crate) backlog: usize,
    /// Files that have arrived.
    pub(crate) arrived: usize,
    /// Temporary files in the sink.
    pub(crate) unfinished: usize,
    /// How long they are together.
    pub(crate) unfinished_bytes: u64,
}

pub(crate) fn seed() -> u64 {
    number("KETCH_LISTEN_SEED", 20_261_122)
}

/// What differs from scene to scene, in the words of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Lines at the top.
    pub(crate) top: String,
    /// Lines of the flow.
    pub(crate) flow: String,
    /// The `settle` table.
    pub(crate) settle: String,
    /// The sinks; a directory of numbered files if there are none.
    pub(crate) sinks: Option<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            top: String::new(),
            flow: "versions = \"fast\"\n".to_owned(),
            settle: format!("{{ period = \"{}ms\", polls = 2 }}", SETTLE.as_millis()),
            sinks: None,
        }
    }
}

/// All that a run has.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    pub(crate) server: OpenSshServer,
    pub(crate) rules: Rules,
    /// Where the listener connects to.
    pub(crate) addr: SocketAddr,
    /// What goes into the directory of the sink by way of a bucket.
    pub(crate) bucket: Option<Bucket>,
    sink: Directory,
    judge: Option<Judge>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(Rules::default())
    }

    pub(crate) fn with(rules: Rules) -> Self {
        Self::over(OpenSshConfig::default(), rules)
    }

    /// With a server of its own kind.
    pub(crate) fn over(server: OpenSshConfig, rules: Rules) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["served", "sink"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let server = OpenSshServer::start(server).unwrap();
        let sink = Directory::numbered(&dir.path().join("sink"));
        let addr = server.addr();
        let scene = Self {
            dir,
            server,
            rules,
            addr,
            bucket: None,
            sink,
            judge: None,
        };
        scene.configure("state");
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file, with its state in the directory `state`.
    pub(crate) fn configure(&self, state: &str) -> PathBuf {
        let Rules {
            top,
            flow,
            settle,
            sinks,
        } = &self.rules;
        let mut text = String::new();
        let _ = write!(
            text,
            "state = {state:?}
{top}
[[source]]
name = \"there\"
url = \"sftp://{user}@{addr}{served}\"
identity = [{identity:?}]
host_key = [{host_key:?}]
timeouts = {{ reconnect_max = \"1s\" }}

[[flow]]
name = \"proof\"
source = \"there\"
interval = \"{interval}ms\"
recursive = true
exclude = [\"*.part\"]
first = \"news\"
settle = {settle}
{flow}
",
            state = self.path(state),
            user = self.server.user(),
            addr = self.addr,
            served = self.path("served").display(),
            identity = self.server.identity().private(),
            host_key = self.server.host_key().public_key().to_string(),
            interval = Load::new(0, 1).stretched(INTERVAL).as_millis(),
        );
        text.push_str(&sinks.clone().unwrap_or_else(|| self.directory_sink()));
        let file = self.path(&format!("{state}.toml"));
        fs::write(&file, text).unwrap();
        file
    }

    /// A sink in which what arrives twice is there twice.
    pub(crate) fn directory_sink(&self) -> String {
        format!(
            "[[flow.sink]]
name = \"disk\"
kind = \"directory\"
path = {:?}
template = \"{{path}}.{{sequence}}\"
exists = \"error\"
",
            self.path("sink")
        )
    }

    /// The same on the server.
    pub(crate) fn sftp_sink(&self) -> String {
        self.directory_sink().replace(
            "kind = \"directory\"",
            "kind = \"sftp\"\nsource = \"there\"",
        )
    }

    /// Starts the daemon.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_with("state")
    }

    /// Starts a daemon with a state of its own.
    pub(crate) fn daemon_with(&self, state: &str) -> Daemon {
        Daemon::start(&self.path(&format!("{state}.toml")), self.dir.path(), state)
    }

    /// Starts a writer in the served tree.
    pub(crate) fn write(&self, config: WriterConfig) -> Writing {
        println!("{config:?}");
        let (served, journal) = (self.path("served"), self.journal());
        let mut writer = Writer::new(&served, &journal, config).unwrap();
        let allowed = Arc::new(AtomicU64::new(u64::MAX));
        let asked = Arc::clone(&allowed);
        let thread = std::thread::spawn(move || {
            let files = || match asked.load(Ordering::SeqCst) {
                ENOUGH => None,
                files => Some(files),
            };
            writer.run(files).unwrap()
        });
        Writing { thread, allowed }
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    pub(crate) fn judge(&self) -> Judge {
        Judge::new(&self.journal(), Identity::Path).unwrap()
    }

    /// Looks at the journal and the sink. What was looked at before is not looked at again.
    pub(crate) fn look(&mut self) -> Remains {
        let judge = match self.judge.take() {
            Some(mut judge) => {
                judge.read_on().unwrap();
                judge
            }
            None => self.judge(),
        };
        if let Some(bucket) = &mut self.bucket {
            bucket.copy();
        }
        let deliveries = self.sink.look().unwrap();
        let (backlog, arrived) = (judge.missing(deliveries), deliveries.len());
        self.judge = Some(judge);
        Remains {
            backlog,
            arrived,
            unfinished: self.sink.unfinished(),
            unfinished_bytes: self.sink.unfinished_bytes(),
        }
    }

    /// Whether a name came or went in the sink since the last look.
    pub(crate) fn is_touched(&self) -> bool {
        match &self.bucket {
            Some(bucket) => bucket.is_touched(),
            None => self.sink.is_touched().unwrap(),
        }
    }

    /// Files that are being fetched, or were when a daemon was killed.
    pub(crate) fn spooled(&self) -> BTreeSet<PathBuf> {
        let mut dirs = vec![self.path("state/spool"), self.path("sink/.ketch-spool")];
        let mut files = BTreeSet::new();
        while let Some(dir) = dirs.pop() {
            // What is fetched comes and goes.
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    true => dirs.push(entry.path()),
                    false => _ = files.insert(entry.path()),
                }
            }
        }
        files
    }

    /// Waits until all has arrived and then for a while; what is in the sink then, judged.
    pub(crate) fn settled(&mut self) -> Verdict {
        self.settled_by(Identity::Path)
    }

    /// The same with a rule for what the same version is.
    pub(crate) fn settled_by(&mut self, identity: Identity) -> Verdict {
        let judge = Judge::new(&self.journal(), identity).unwrap();
        let load = Load {
            files: u64::try_from(judge.history().standing.len()).unwrap(),
            kills: 1,
        };
        let (mut arrived, mut since) = (0, Instant::now());
        loop {
            let began = Instant::now();
            if let Some(bucket) = &mut self.bucket {
                bucket.copy();
            }
            let deliveries = self.sink.look().unwrap();
            if deliveries.len() > arrived {
                (arrived, since) = (deliveries.len(), Instant::now());
            }
            if judge.missing(deliveries) == 0 || since.elapsed() > PATIENCE {
                break;
            }
            // Looking takes no more than a quarter of the time.
            sleep(LOOK.max(began.elapsed() * 3));
        }
        sleep(load.stretched(CALM));
        if let Some(bucket) = &mut self.bucket {
            bucket.copy_again();
        }
        judge.verdict(self.sink.whole_again().unwrap())
    }

    /// Asserts that nothing was lost, doubled or torn; shows the log otherwise.
    pub(crate) fn assert_clean(&self, what: &str, verdict: &Verdict) {
        println!("{what}: {verdict}");
        if !verdict.is_clean() {
            self.show_log();
        }
        assert!(verdict.is_clean(), "{what}: {verdict}");
    }

    /// The end of what daemons said.
    pub(crate) fn show_log(&self) {
        for entry in fs::read_dir(self.dir.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|end| end == "log") {
                let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
                let from = text.len().saturating_sub(6000);
                let end: String = text.chars().skip(text[..from].chars().count()).collect();
                println!("--- {}: {end}", entry.path().display());
            }
        }
        if let Some(keep) = std::env::var_os("KETCH_LISTEN_KEEP") {
            let kept = Path::new(&keep).join(self.dir.path().file_name().unwrap());
            let mut copy = std::process::Command::new("cp");
            let _ = copy.arg("-a").arg(self.dir.path()).arg(&kept).status();
            println!("kept as {}", kept.display());
        }
    }
}

/// A writer at work.
pub(crate) struct Writing {
    thread: JoinHandle<Written>,
    allowed: Arc<AtomicU64>,
}

impl Writing {
    /// How many new files there may be, until more are allowed.
    pub(crate) fn allow(&self, files: u64) {
        self.allowed.store(files, Ordering::SeqCst);
    }

    /// Whether it has nothing more to write.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets it write no more; what it has begun it ends.
    pub(crate) fn end(self) -> Written {
        self.allow(ENOUGH);
        let written = self.thread.join().unwrap();
        println!("{written:?}");
        written
    }

    /// Lets it write all it wanted to.
    pub(crate) fn finish(self) -> Written {
        self.allow(u64::MAX);
        let written = self.thread.join().unwrap();
        println!("{written:?}");
        written
    }
}
