//! A running `ketch listen --config`.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to start, or to end when it was asked to.
const WAIT_MAX: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(2);

/// A daemon; killed when dropped. What it says is appended to `<name>.log` and `<name>.out`.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) began: Instant,
    log: PathBuf,
    /// Bytes of the log that others before it wrote.
    said_before: usize,
}

/// Memory and descriptors of a process.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "it is printed")]
pub(crate) struct Holds {
    pub(crate) memory_kib: u32,
    pub(crate) threads: u32,
    pub(crate) descriptors: u64,
}

impl Daemon {
    pub(crate) fn start(config: &Path, dir: &Path, name: &str) -> Self {
        let (out, log) = (
            dir.join(format!("{name}.out")),
            dir.join(format!("{name}.log")),
        );
        let append = |path: &Path| -> File {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap()
        };
        let said_before = std::fs::read(&log).map_or(0, |log| log.len());
        let child = Command::new(program())
            .args(["listen", "--config"])
            .arg(config)
            .env("HOME", dir)
            .env("SINK", dir.join("sink"))
            .stdin(Stdio::null())
            .stdout(append(&out))
            .stderr(append(&log))
            .spawn()
            .unwrap();
        Self {
            child,
            began: Instant::now(),
            log,
            said_before,
        }
    }

    /// Waits until it says that it is there: it has its ledger, and takes signals.
    pub(crate) fn is_there(&self) -> &Self {
        self.until_said("1 flow from 1 source");
        self
    }

    /// Waits until it has said that, since its start.
    pub(crate) fn until_said(&self, what: &str) {
        while !self.said().contains(what) {
            assert!(self.began.elapsed() < WAIT_MAX, "{what}: {}", self.log());
            sleep(LOOK);
        }
    }

    /// What it has said since its start.
    pub(crate) fn said(&self) -> String {
        let log = std::fs::read(&self.log).unwrap();
        String::from_utf8_lossy(&log[self.said_before..]).into_owned()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// What it holds of the system.
    pub(crate) fn holds(&self) -> Holds {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.unwrap().split_whitespace().next();
            number.unwrap().parse().unwrap()
        };
        Holds {
            memory_kib: field("VmRSS:"),
            threads: field("Threads:"),
            descriptors: std::fs::read_dir(process.join("fd")).unwrap().count() as u64,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }

    /// Ends it where it stands. It has to be running.
    pub(crate) fn kill(mut self) {
        if let Some(ended) = self.child.try_wait().unwrap() {
            panic!("it ended by itself, {ended}: {}", self.log());
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to read its configuration again.
    pub(crate) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks it to end, and waits until it has drained.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(Signal::TERM);
        }
        self.wait()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                began.elapsed() < WAIT_MAX,
                "it does not end: {}",
                self.log()
            );
            sleep(LOOK);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `ketch`, or what `KETCH_LISTEN_PROGRAM` names: whoever tries the runner on something else.
fn program() -> PathBuf {
    std::env::var_os("KETCH_LISTEN_PROGRAM")
        .map_or_else(|| env!("CARGO_BIN_EXE_ketch").into(), PathBuf::from)
}
