//! The SFTP client of one channel against a server that the fuzzer writes the script of.
//!
//! Downloads, an upload, listings and calls are under way; each step of the script says which
//! request is answered, how, and with what lie. Whatever the server does:
//!
//! - nothing panics, and when the server has fallen silent everything that was begun has ended
//!   after two stalls;
//! - a download that is called done has every byte in its place, one of the sizes it was told;
//! - an upload that is called done has every byte at the server, and no write of it was refused;
//! - no file is written outside of the destination, and no part of one is left.

mod server;
mod work;

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use ketch_client::{Report, Sftp, TransferError, fuzzing::Machine};

use self::server::Server;
pub(crate) use self::server::{packet, status};
use crate::script::Script;

/// Steps of a script at most.
const STEPS_MAX: usize = 400;
/// Bytes of the upload.
const SOURCE_LEN: usize = 150_001;
/// Turns after which a server that is silent has been given up.
const STALLS: usize = 4;

/// What the byte of every file at this offset is.
pub(crate) fn byte_at(offset: u64) -> u8 {
    u8::try_from(offset % 251).unwrap_or_default()
}

pub(crate) fn content(offset: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| byte_at(offset.wrapping_add(at)))
        .collect()
}

/// One client with its work under way, and one script.
pub fn sftp_client(data: &[u8]) {
    let mut script = Script(data);
    let outside = tempfile::tempdir().expect("a directory for a test");
    let play = Play::begin(&mut script, outside.path());
    play.run(&mut script);
    let left: Vec<_> = walk(outside.path());
    for path in &left {
        let path = path.strip_prefix(outside.path()).expect("below it");
        assert!(
            path.starts_with("a/b") || path == Path::new("a"),
            "outside of the destination: {}",
            path.display()
        );
        assert!(
            !path.to_string_lossy().contains(".ketch-"),
            "left behind: {}",
            path.display()
        );
    }
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

struct Play {
    machine: Machine,
    sftp: Option<Sftp>,
    server: Server,
    running: Vec<Running>,
    truth: Arc<Mutex<Truth>>,
    /// The longest piece in which the client receives.
    cut: usize,
}

/// What is to be compared in the end.
#[derive(Default)]
struct Truth {
    sunk: Vec<Option<u8>>,
    finished: Option<u64>,
    aborted: bool,
    downloaded: Option<Result<Report, TransferError>>,
    uploaded: Option<Result<Report, TransferError>>,
}

impl Play {
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn begin(script: &mut Script<'_>, outside: &Path) -> Self {
        let (what, manner) = (script.byte(), script.byte());
        let (machine, sftp) = Machine::new(Instant::now(), manner & 1 != 0);
        let mut server = Server::new(script);
        let truth: Arc<Mutex<Truth>> = Arc::default();
        let mut running: Vec<Running> = Vec::new();
        if what & 1 != 0 || what == 0 {
            running.push(work::download(&sftp, &truth));
        }
        if what & 2 != 0 || what == 0 {
            running.push(work::upload(&sftp, &truth));
        }
        if what & 4 != 0 {
            running.push(work::tree(&sftp, outside));
        }
        if what & 8 != 0 {
            work::calls(&sftp, &mut running);
        }
        if what & 16 != 0 {
            running.push(work::listing(&sftp));
        }
        server.greets = manner & 2 == 0;
        Self {
            machine,
            sftp: Some(sftp),
            server,
            running,
            truth,
            cut: usize::MAX,
        }
    }

    fn run(mut self, script: &mut Script<'_>) {
        self.turn();
        if self.server.greets {
            let greeting = self.server.greeting();
            self.deliver(&greeting);
        }
        for _ in 0..STEPS_MAX {
            if script.is_over() || self.machine.is_closed() {
                break;
            }
            self.step(script);
            self.turn();
        }
        // The server falls silent: whatever was begun comes to its end.
        for _ in 0..STALLS {
            self.machine
                .pass_time(self.machine.stall() + Duration::from_secs(1));
            self.turn();
            self.turn();
        }
        assert!(
            self.running.is_empty(),
            "{} wait for ever: {:?}",
            self.running.len(),
            self.machine
        );
        self.sftp = None;
        self.machine.cut();
        self.judge();
    }

    /// The client does what it can, and who waits for it looks.
    fn turn(&mut self) {
        self.running.retain_mut(|future| {
            let cx = &mut Context::from_waker(Waker::noop());
            future.as_mut().poll(cx).is_pending()
        });
        let out = self.machine.turn();
        self.server.receive(&out);
    }

    fn deliver(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.cut.max(1)) {
            self.machine.receive(piece);
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte() % 20;
        match op {
            0..=3 => {
                let which = script.byte();
                let reply = self.server.honest_at(usize::from(which));
                self.deliver(&reply);
            }
            4..=6 => {
                let replies = self.server.honest_all(script.byte());
                self.deliver(&replies);
            }
            7 => self
                .machine
                .pass_time(Duration::from_secs(script.number() % 100)),
            8 => {
                let which = usize::from(script.byte());
                if !self.running.is_empty() {
                    drop(self.running.swap_remove(which % self.running.len()));
                }
            }
            9 => self.cut = usize::from(script.byte()).max(1) * 7,
            10 => {
                self.server.is_truthful = false;
                let len = usize::from(script.byte());
                let raw = script.bytes(len);
                self.deliver(raw);
            }
            11 => {
                let reply = self.server.last.clone();
                self.deliver(&reply);
            }
            12 if script.byte() > 200 => self.machine.end_of_stream(),
            _ => {
                let reply = self.server.lie(script);
                self.deliver(&reply);
            }
        }
    }

    fn judge(self) {
        let truth = self.truth.lock().expect("nobody panicked");
        if let Some(Ok(report)) = &truth.downloaded {
            assert_eq!(truth.finished, Some(report.bytes));
            assert!(!truth.aborted);
        }
        // The last word may be that the server fell silent, though the file was whole by then.
        if let Some(len) = truth.finished {
            let len = usize::try_from(len).expect("it was held in memory");
            assert!(len <= truth.sunk.len(), "{len} of {}", truth.sunk.len());
            for (at, byte) in truth.sunk.iter().take(len).enumerate() {
                assert!(byte.is_some(), "nothing at {at}");
                if self.server.is_truthful {
                    assert_eq!(*byte, Some(byte_at(at as u64)), "at {at}");
                }
            }
        }
        if let Some(Ok(report)) = &truth.uploaded {
            assert_eq!(report.bytes, SOURCE_LEN as u64);
            if self.server.is_truthful {
                let whole = content(0, SOURCE_LEN);
                let there = self.server.written.values();
                assert!(
                    there
                        .clone()
                        .any(|file| !file.refused && file.data == whole),
                    "called done, and is nowhere"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that answers everything honestly.
    fn honest(work: u8, extensions: u8, size: u8) -> Vec<u8> {
        let mut script = vec![work, 0, extensions, size];
        script.extend([4, 0].repeat(60));
        script
    }

    #[test]
    fn an_honest_server_serves_everything() {
        for (work, extensions, size) in [(31, 0, 0), (8, 0xff, 200), (31, 0xff, 90), (31, 2, 1)] {
            sftp_client(&honest(work, extensions, size));
        }
        let outside = tempfile::tempdir().unwrap();
        let bytes = honest(7, 0, 200);
        let mut script = Script(&bytes);
        let mut play = Play::begin(&mut script, outside.path());
        let truth = Arc::clone(&play.truth);
        play.server.is_truthful = true;
        play.run(&mut script);
        let truth = truth.lock().unwrap();
        assert!(matches!(truth.downloaded, Some(Ok(_))));
        assert!(matches!(truth.uploaded, Some(Ok(_))));
        assert!(outside.path().join("a/b/d/f1").exists());
    }

    #[test]
    fn servers_that_lie_at_random_are_borne() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            u8::try_from(seed >> 56).unwrap()
        };
        for _ in 0..100 {
            let script: Vec<u8> = (0..200).map(|_| random()).collect();
            sftp_client(&script);
        }
    }
}
