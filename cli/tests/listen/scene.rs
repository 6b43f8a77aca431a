//! A served tree, a sink, a writer in a thread, and the configuration between them.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use ketch_conformance::deliveries::judge::Identity;
use ketch_conformance::deliveries::received::Directory;
use ketch_conformance::deliveries::{Judge, Verdict, Writer, WriterConfig, Written};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use tempfile::TempDir;

use super::daemon::Daemon;

/// The rule that all scenes have: a file that stands still for so long is complete.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
/// How often the tree is looked at.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);
/// What has not arrived after this time does not arrive.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How long is waited for something to arrive twice, once all has arrived.
const CALM: Duration = Duration::from_millis(2500);
const LOOK: Duration = Duration::from_millis(100);

/// A number from the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    let wanted = std::env::var(name).ok();
    wanted.map_or(default, |number| number.parse().expect("a number"))
}

pub(crate) fn files(default: u64) -> u64 {
    number("KETCH_LISTEN_FILES", default)
}

pub(crate) fn kills(default: u64) -> u64 {
    number("KETCH_LISTEN_KILLS", default)
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
    sink: Directory,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(Rules::default())
    }

    pub(crate) fn with(rules: Rules) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["served", "sink"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
        let sink = Directory::numbered(&dir.path().join("sink"));
        let addr = server.addr();
        let scene = Self {
            dir,
            server,
            rules,
            addr,
            sink,
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
            interval = INTERVAL.as_millis(),
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
        let thread = std::thread::spawn(move || writer.run(|| true).unwrap());
        Writing { thread }
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    pub(crate) fn judge(&self) -> Judge {
        Judge::new(&self.journal(), Identity::Path).unwrap()
    }

    /// Versions that stand by now and have not arrived.
    pub(crate) fn backlog(&mut self) -> usize {
        let judge = self.judge();
        judge.missing(self.sink.look().unwrap())
    }

    /// Files that have arrived.
    pub(crate) fn arrived(&mut self) -> usize {
        self.sink.look().unwrap().len()
    }

    /// Temporary files in the sink.
    pub(crate) fn unfinished(&mut self) -> usize {
        self.sink.look().unwrap();
        self.sink.unfinished()
    }

    /// Waits until all has arrived and then for a while; what is in the sink then, judged.
    pub(crate) fn settled(&mut self) -> Verdict {
        self.settled_by(Identity::Path)
    }

    /// The same with a rule for what the same version is.
    pub(crate) fn settled_by(&mut self, identity: Identity) -> Verdict {
        let judge = Judge::new(&self.journal(), identity).unwrap();
        let began = Instant::now();
        while judge.missing(self.sink.look().unwrap()) > 0 && began.elapsed() < PATIENCE {
            sleep(LOOK);
        }
        sleep(CALM);
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
}

impl Writing {
    /// Whether it has nothing more to write.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Lets it write all it wanted to.
    pub(crate) fn finish(self) -> Written {
        let written = self.thread.join().unwrap();
        println!("{written:?}");
        written
    }
}
