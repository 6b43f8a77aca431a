//! A process and everything it started, seen through `/proc` (proc(5)).
//!
//! sshd puts each connection into a session of its own, so a signal to its process group does not
//! reach them; the tree of parents does.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// One process, by its number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    pid: i32,
}

impl Process {
    /// The process with that number.
    ///
    /// # Panics
    /// If `pid` is none that a kernel hands out.
    #[must_use]
    pub fn from_id(pid: u32) -> Self {
        Self {
            pid: i32::try_from(pid).expect("a process id fits i32"),
        }
    }

    /// The calling process.
    #[must_use]
    pub fn current() -> Self {
        Self::from_id(std::process::id())
    }

    /// Its number.
    #[must_use]
    pub const fn id(self) -> i32 {
        self.pid
    }

    /// Its children, without theirs, zombies included.
    #[must_use]
    pub fn children(self) -> Vec<Self> {
        every_process()
            .filter(|stat| stat.parent == self.pid)
            .map(|stat| stat.process())
            .collect()
    }

    /// Everything that it started and that what it started did, zombies included.
    #[must_use]
    pub fn descendants(self) -> Vec<Self> {
        let all: Vec<Stat> = every_process().collect();
        let mut family = vec![self.pid];
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            family.extend(
                all.iter()
                    .filter(|stat| stat.parent == parent)
                    .map(|stat| stat.pid),
            );
            next += 1;
        }
        family.into_iter().skip(1).map(|pid| Self { pid }).collect()
    }

    /// Its descendants that have no children themselves.
    #[must_use]
    pub fn leaves(self) -> Vec<Self> {
        let mut leaves = self.descendants();
        leaves.retain(|process| process.children().is_empty());
        leaves
    }

    /// Whether it has ended and only waits for its parent to ask how.
    #[must_use]
    pub fn is_zombie(self) -> bool {
        self.stat().is_some_and(|stat| stat.state == 'Z')
    }

    /// Whether it has ended, whether or not its parent asked how.
    #[must_use]
    pub fn has_ended(self) -> bool {
        self.stat()
            .is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
    }

    /// Processor time, user and system, of itself and of the children it has waited for, in the
    /// kernel's steps of 10 ms; `None` when there is no such process any more.
    #[must_use]
    pub fn cpu_time(self) -> Option<Duration> {
        let stat = self.stat()?;
        // proc(5): in units of sysconf(_SC_CLK_TCK).
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let nanos = u128::from(stat.ticks) * 1_000_000_000 / u128::from(ticks_per_second);
        Some(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }

    /// Its resident memory in bytes; `None` when there is no such process any more.
    #[must_use]
    pub fn resident(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    }

    /// Whether it listens on a TCP port of IPv4 itself: that somebody does says nothing, where ports
    /// are handed out to whoever asks.
    #[must_use]
    pub fn listens_on(self, port: u16) -> bool {
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let sockets: Vec<String> = table
            .lines()
            .filter_map(|line| listening(line, port))
            .map(|inode| format!("socket:[{inode}]"))
            .collect();
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid));
        files.into_iter().flatten().flatten().any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|link| sockets.iter().any(|socket| link.as_os_str() == &**socket))
        })
    }

    /// Stops it, as ctrl-Z does, until [`Process::resume`].
    pub fn suspend(self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once.
    pub fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Ends its descendants at once.
    pub fn kill_descendants(self) {
        // What is stopped starts nothing: stop until nobody new is found, then end them all.
        let mut seen: Vec<Self> = Vec::new();
        loop {
            let mut found = self.descendants();
            found.retain(|process| !seen.contains(process));
            if found.is_empty() {
                break;
            }
            found.iter().for_each(|process| process.suspend());
            seen.extend(found);
        }
        seen.iter().for_each(|process| process.signal(Signal::KILL));
    }

    /// Ends it and its descendants at once.
    pub fn kill_tree(self) {
        self.suspend();
        self.kill_descendants();
        self.signal(Signal::KILL);
    }

    fn signal(self, signal: Signal) {
        // One that has ended meanwhile is what the caller wanted or can do nothing about.
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, signal);
        }
    }

    fn stat(self) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?)
    }
}

/// The fields of `/proc/PID/stat` that matter here.
struct Stat {
    pid: i32,
    state: char,
    parent: i32,
    /// utime + stime + cutime + cstime.
    ticks: u64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // The second field is a name in parentheses and may hold anything, parentheses too.
        let (head, tail) = line.rsplit_once(')')?;
        let pid = head.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        // Field 3 of proc(5) is the first here; 14 to 17 are the four times.
        let ticks = fields
            .get(11..15)?
            .iter()
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Some(Self {
            pid,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            ticks,
        })
    }

    const fn process(&self) -> Process {
        Process { pid: self.pid }
    }
}

/// The inode of the socket of a line of `/proc/net/tcp` (proc_net(5)), if it listens on that port.
fn listening(line: &str, port: u16) -> Option<&str> {
    /// `TCP_LISTEN`.
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, of_local) = fields.get(1)?.rsplit_once(':')?;
    let is_it = *fields.get(3)? == LISTEN && u16::from_str_radix(of_local, 16) == Ok(port);
    fields.get(9).copied().filter(|_| is_it)
}

fn every_process() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
        // One that ends while we look is simply not there.
        .filter_map(|entry| Stat::parse(&fs::read_to_string(entry.path().join("stat")).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_name_with_a_parenthesis_is_no_end_of_the_name() {
        let line = "42 (a) R 1 (b) S 7 42 42 0 -1 4194560 1 2 0 0 10 20 3 4 20 0 1 0 9 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.pid, stat.state, stat.parent, stat.ticks),
            (42, 'S', 7, 37)
        );
    }

    #[test]
    fn a_grandchild_in_a_session_of_its_own_is_found_and_ended() {
        let mut child = Command::new("sh")
            .args(["-c", "setsid sh -c 'sleep 60; true' & wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process::from_id(child.id());
        while process.descendants().len() < 2 {
            assert_eq!(child.try_wait().unwrap(), None, "ended by itself");
            std::thread::yield_now();
        }
        let family = process.descendants();
        let leaves = process.leaves();
        assert!(
            leaves.len() == 1 && family.contains(&leaves[0]),
            "{leaves:?} of {family:?}"
        );
        process.kill_tree();
        child.wait().unwrap();
        for each in family {
            // Who lost the parent is somebody else's to wait for; a zombie does nothing more.
            while !each.has_ended() {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn who_listens_is_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(Process::current().listens_on(port));
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!Process::from_id(other.id()).listens_on(port));
        other.kill().unwrap();
        other.wait().unwrap();
        let line = "  1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     \
                    0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listening(line, 8080), Some("4711"));
        assert_eq!(listening(line, 8081), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 8080), None);
    }

    #[test]
    fn processor_time_is_counted() {
        let mut sum = 0_u64;
        while Process::current().cpu_time().unwrap() < Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(Process { pid: i32::MAX }.cpu_time().is_none());
    }
}
