//! Transfers that are continued: a first run that the fuzzer writes the script of, and a second one
//! over a connection on which nothing goes wrong.
//!
//! In the first run answers are refused, shortened, spoilt, held back and mixed up, and it is ended
//! anywhere. Between the runs the part may be damaged, and the source be changed without its size
//! and its time telling. Whatever happened:
//!
//! - nothing panics, and the first run ends;
//! - what the first run calls done is what the server has, or what was here, if no answer lied;
//! - the second run succeeds, and the copy is the source byte by byte: no two versions in one file,
//!   and nothing that the first run got wrong;
//! - no handle is closed that was not open.

mod store;

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use ketch_client::{GetOptions, PutOptions, Report, Resume, Sftp, TransferError, fuzzing};
use ketch_protocol::StatusCode;

use self::store::{Server, Store};
use crate::{script::Script, sftp_client::content};

/// Bytes of a part that are not believed, in place of the usual 8 MiB.
const TAIL_LEN: u64 = 100_000;
/// Bytes of the source.
const LEN: usize = 450_001;
/// Steps of a script at most.
const STEPS_MAX: usize = 300;
/// Turns after which an honest run has ended.
const TURNS_MAX: usize = 2000;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Down,
    Up,
}

/// One file, copied twice.
pub fn sftp_resume(data: &[u8]) {
    play(data);
}

/// What tells that something was continued.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "for tests"))]
struct Continued {
    /// Parts that the first run left.
    parts: usize,
    /// Bytes that the second one sent.
    written: usize,
}

fn play(data: &[u8]) -> Continued {
    fuzzing::set_tail_of_parts(TAIL_LEN);
    let mut script = Script(data);
    let choice = script.byte();
    let direction = if choice & 1 == 0 {
        Direction::Down
    } else {
        Direction::Up
    };
    let resume = if choice & 2 == 0 {
        Resume::Verified
    } else {
        Resume::Full
    };
    let dir = tempfile::tempdir().expect("a directory for a test");
    let mut case = Case {
        direction,
        resume,
        extensions: choice >> 2,
        local: dir.path().join("f"),
        store: Store::new(),
        source: content(0, LEN),
    };
    case.place_source();
    case.first(&mut script);
    let here = fs::read_dir(dir.path()).map_or(0, Iterator::count);
    let parts = here + case.store.len() - 1 - usize::from(case.copy().is_some());
    case.meddle(&mut script, dir.path());
    let written = case.second();
    Continued { parts, written }
}

struct Case {
    direction: Direction,
    resume: Resume,
    extensions: u8,
    local: PathBuf,
    store: Store,
    source: Vec<u8>,
}

impl Case {
    /// Puts the source where it is copied from, always as old.
    fn place_source(&mut self) {
        match self.direction {
            Direction::Down => drop(self.store.insert(b"/f".to_vec(), self.source.clone())),
            Direction::Up => {
                fs::write(&self.local, &self.source).expect("a file for a test");
                let file = fs::File::options().write(true).open(&self.local);
                let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
                file.and_then(|file| file.set_modified(then))
                    .expect("a file for a test");
            }
        }
    }

    /// What has the final name.
    fn copy(&self) -> Option<Vec<u8>> {
        match self.direction {
            Direction::Down => fs::read(&self.local).ok(),
            Direction::Up => self.store.get(&b"/f"[..]).cloned(),
        }
    }

    async fn transfer(
        direction: Direction,
        resume: Resume,
        sftp: Sftp,
        local: &Path,
    ) -> Result<Report, TransferError> {
        match direction {
            Direction::Down => {
                let options = GetOptions::new().resume(resume);
                sftp.get("/f", local, options).await
            }
            Direction::Up => {
                let options = PutOptions::new().resume(resume);
                sftp.put(local, "/f", options).await
            }
        }
    }

    /// The run that goes as the script says.
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn first(&mut self, script: &mut Script<'_>) {
        let (mut machine, sftp) = fuzzing::Machine::new(Instant::now(), false);
        let mut server = Server::new(&mut self.store);
        let transfer = Self::transfer(self.direction, self.resume, sftp, &self.local);
        let mut transfer = Some(Box::pin(transfer));
        let mut result = None;
        let mut is_truthful = true;
        let mut turn =
            |machine: &mut fuzzing::Machine, server: &mut Server<'_>, transfer: &mut Option<_>| {
                poll_once(transfer, &mut result);
                server.receive(&machine.turn());
            };
        turn(&mut machine, &mut server, &mut transfer);
        machine.receive(&Server::greeting(self.extensions));
        for _ in 0..STEPS_MAX {
            if script.is_over() || machine.is_closed() {
                break;
            }
            let op = script.byte() % 16;
            let which = usize::from(script.byte());
            let at = (!server.due.is_empty()).then(|| which % server.due.len());
            match (op, at) {
                (0..=3, Some(at)) => machine.receive(&server.due.remove(at).bytes),
                (4..=6, Some(_)) => {
                    let mut due = std::mem::take(&mut server.due);
                    if which & 1 != 0 {
                        due.reverse();
                    }
                    due.iter().for_each(|due| machine.receive(&due.bytes));
                }
                (7, Some(at)) => {
                    server.due[at].refuse(refusal(script));
                }
                (8, _) => {
                    server.refuses = Some(refusal(script));
                }
                (9, Some(at)) => server.due[at].shorten(which * 97),
                (10, Some(at)) => is_truthful &= !server.due[at].flip(which * 97),
                (11, Some(at)) if which > 128 => {
                    // Said to be done, and was not, for all that the client knows.
                    is_truthful &= server.due[at].is_done;
                    server.due[at].refuse(StatusCode::OK);
                }
                (12, _) => machine.pass_time(Duration::from_secs(which as u64 % 70)),
                (13, _) if which > 200 => transfer = None,
                (14, _) if which > 200 => break,
                _ => {}
            }
            turn(&mut machine, &mut server, &mut transfer);
        }
        if script.byte() & 1 == 0 {
            // It falls silent before it is gone.
            for _ in 0..4 {
                machine.pass_time(machine.stall() + Duration::from_secs(1));
                turn(&mut machine, &mut server, &mut transfer);
                turn(&mut machine, &mut server, &mut transfer);
            }
            assert!(transfer.is_none(), "it waits for ever: {machine:?}");
        }
        machine.cut();
        poll_once(&mut transfer, &mut result);
        assert!(transfer.is_none(), "it waits for a connection that is gone");
        if let Some(Ok(report)) = result
            && is_truthful
        {
            assert_eq!(report.bytes, LEN as u64);
            assert!(self.copy().as_ref() == Some(&self.source), "called done");
        } else if is_truthful && let Some(copy) = self.copy() {
            // Nobody knows whether the last rename was done; if it was, the copy is whole.
            assert!(copy == self.source, "half a file has its name");
        }
    }

    /// What happens between the runs.
    fn meddle(&mut self, script: &mut Script<'_>, dir: &Path) {
        let (what, at) = (script.byte(), script.number());
        if what & 1 != 0 {
            let at = usize::try_from(at % LEN as u64).unwrap_or_default();
            self.source[at] ^= 1;
            self.place_source();
        }
        let damage = |part: &mut Vec<u8>| {
            let at = usize::try_from(at % (part.len() as u64 + 1)).unwrap_or_default();
            match what >> 1 & 3 {
                1 => part.truncate(at),
                2 => part.resize(part.len() + at, 0),
                3 => part.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 2),
                _ => {}
            }
        };
        match self.direction {
            Direction::Down => {
                for entry in fs::read_dir(dir).expect("a directory").flatten() {
                    if entry.path() != self.local {
                        let mut part = fs::read(entry.path()).expect("a part");
                        damage(&mut part);
                        fs::write(entry.path(), part).expect("a part");
                    }
                }
            }
            Direction::Up => {
                let parts = self.store.iter_mut().filter(|(path, _)| path[..] != *b"/f");
                parts.for_each(|(_, part)| damage(part));
            }
        }
    }

    /// The run in which nothing goes wrong.
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn second(&mut self) -> usize {
        let (mut machine, sftp) = fuzzing::Machine::new(Instant::now(), false);
        let mut server = Server::new(&mut self.store);
        let transfer = Self::transfer(self.direction, self.resume, sftp, &self.local);
        let mut transfer = Some(Box::pin(transfer));
        let mut result = None;
        poll_once(&mut transfer, &mut result);
        server.receive(&machine.turn());
        machine.receive(&Server::greeting(self.extensions));
        for _ in 0..TURNS_MAX {
            if transfer.is_none() {
                break;
            }
            server.receive(&machine.turn());
            for due in std::mem::take(&mut server.due) {
                machine.receive(&due.bytes);
            }
            poll_once(&mut transfer, &mut result);
        }
        let written = server.written;
        let report = result
            .unwrap_or_else(|| panic!("no end: {machine:?}"))
            .unwrap_or_else(|error| panic!("the second run: {error}"));
        assert_eq!(report.bytes, LEN as u64);
        assert!(
            self.copy().as_ref() == Some(&self.source),
            "not the source: {:?} {:?}",
            self.direction,
            self.resume
        );
        written
    }
}

/// A refusal: neither `OK` nor `EOF`. A server that says twice that a file ends at the same place is
/// believed, whatever size it has told.
fn refusal(script: &mut Script<'_>) -> StatusCode {
    StatusCode(2 + u32::from(script.byte() % 20))
}

/// Polls a future that may be over already, and keeps its output.
fn poll_once<F: Future + Unpin>(future: &mut Option<F>, output: &mut Option<F::Output>) {
    if let Some(running) = future
        && let Poll::Ready(ready) = pin!(running).poll(&mut Context::from_waker(Waker::noop()))
    {
        *output = Some(ready);
        *future = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A first run in which so many answers come, and then nothing.
    fn ended_after(choice: u8, answers: usize, meddling: [u8; 3]) -> Vec<u8> {
        let mut script = vec![choice];
        script.extend([0, 0].repeat(answers));
        script.extend([14, 255, 1]);
        script.extend(meddling);
        script
    }

    #[test]
    fn what_is_ended_anywhere_is_continued() {
        let (mut found, mut continued) = (0, 0);
        for choice in 0..4 {
            for answers in (0..24).step_by(2) {
                let played = play(&ended_after(choice, answers, [0, 0, 0]));
                found += played.parts;
                continued += usize::from(choice & 1 != 0 && played.written < LEN);
                // The source is another, or the part is damaged.
                let meddling = u8::try_from(answers % 7).unwrap() + 1;
                sftp_resume(&ended_after(choice, answers, [meddling, 120, 77]));
            }
        }
        assert!(found > 10 && continued > 5, "{found} {continued}");
    }

    #[test]
    fn scripts_at_random_end_and_are_continued() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            u8::try_from(seed >> 56).unwrap()
        };
        for _ in 0..30 {
            let script: Vec<u8> = (0..120).map(|_| random()).collect();
            sftp_resume(&script);
        }
    }
}
