//! Where the program says what happens: syslog (RFC 3164, as syslog(3) writes it), or stderr.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;

use clap::ValueEnum;
use ketch_server::{Event, Observer};

/// The socket of the machine's log.
const SYSLOG: &str = "/dev/log";
/// Longest line, in bytes; RFC 3164 §4.1 allows no more to be relied on.
const LINE_LEN_MAX: usize = 1024;

/// How much is said (sshd_config(5), `LogLevel`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Level {
    /// Nothing.
    Quiet,
    /// What ends the program.
    Fatal,
    /// What went wrong.
    Error,
    /// Who came, and what was done.
    Info,
    /// As `INFO`, as are those that follow: what is only looked at is not told (`docs/sftp-server.md`).
    Verbose,
    /// As `INFO`.
    Debug,
    /// As `INFO`.
    Debug1,
    /// As `INFO`.
    Debug2,
    /// As `INFO`.
    Debug3,
}

impl Level {
    /// Its number in a line for syslog.
    const fn severity(self) -> u8 {
        match self {
            Self::Quiet | Self::Fatal => 2,
            Self::Error => 3,
            Self::Info | Self::Verbose => 6,
            Self::Debug | Self::Debug1 | Self::Debug2 | Self::Debug3 => 7,
        }
    }
}

/// Which part of the system a line is said to be from (syslog(3)).
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum Facility {
    Daemon,
    User,
    Auth,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl Facility {
    const fn number(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Daemon => 3,
            Self::Auth => 4,
            Self::Local0 => 16,
            Self::Local1 => 17,
            Self::Local2 => 18,
            Self::Local3 => 19,
            Self::Local4 => 20,
            Self::Local5 => 21,
            Self::Local6 => 22,
            Self::Local7 => 23,
        }
    }
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log {
    /// `None` is stderr.
    syslog: Option<UnixDatagram>,
    facility: Facility,
    level: Level,
}

impl Log {
    /// Opens the log. A machine without syslog gets nothing: sshd logs for itself, too.
    pub(crate) fn open(stderr: bool, facility: Facility, level: Level) -> Self {
        let syslog = (!stderr).then(UnixDatagram::unbound).and_then(Result::ok);
        if let Some(socket) = &syslog {
            // A log that is full must not hold up files.
            let _ = socket.set_nonblocking(true);
            let _ = socket.connect(SYSLOG);
        }
        Self {
            syslog,
            facility,
            level,
        }
    }

    /// Says it, if so much is wanted. What a terminal could obey is escaped.
    pub(crate) fn write(&self, level: Level, text: &str) {
        if level > self.level {
            return;
        }
        let mut line: String = text.chars().flat_map(harmless).collect();
        if let Some((end, _)) = line.char_indices().find(|(at, _)| *at >= LINE_LEN_MAX) {
            line.truncate(end);
        }
        match &self.syslog {
            Some(socket) => {
                let priority = self.facility.number() * 8 + level.severity();
                let id = std::process::id();
                let line = format!("<{priority}>ketch-sftp-server[{id}]: {line}");
                let _ = socket.send(line.as_bytes());
            }
            None => {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }
}

impl Observer for Log {
    /// In the words of sftp-server(8), as far as it has some.
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Operation(done) => {
                let path = String::from_utf8_lossy(done.path);
                let mut line = format!("{} \"{path}\"", done.kind.name());
                if let Some(other) = done.other {
                    let _ = write!(line, " \"{}\"", String::from_utf8_lossy(other));
                }
                if !done.text.is_empty() {
                    let _ = write!(line, " refused: {}", done.text);
                }
                self.write(Level::Info, &line);
            }
            Event::Transferred(file) => {
                let path = String::from_utf8_lossy(file.path);
                let (read, written) = (file.read, file.written);
                let forced = if file.is_closed {
                    "close"
                } else {
                    "forced close"
                };
                let line = format!("{forced} \"{path}\" bytes read {read} written {written}");
                self.write(Level::Info, &line);
            }
            _ => {}
        }
    }
}

fn harmless(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_could_obey_is_escaped() {
        let shown: String = "a\x1b[2J\né".chars().flat_map(harmless).collect();
        assert_eq!(shown, "a\\u{1b}[2J\\né");
    }
}
