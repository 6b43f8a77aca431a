//! What is asked for when a channel is opened: a program, its surroundings, or a connection to
//! somewhere else (RFC 4254 §6 and §7.2).

use ketch_wire::{Reader, Writer};

use crate::message::connection::{PtyRequest, Request, TcpipOpen};

pub use crate::message::connection::WindowSize;

/// Most bytes that a command, a subsystem's name and the environment may have together; each
/// request has to fit the smallest packet that RFC 4253 §6.1 promises.
pub const START_LEN_MAX: usize = 32 * 1024 - 1024;
/// Most variables of the environment, ours and a peer's.
pub const ENV_MAX: usize = 64;
/// Most modes of a terminal that are read (RFC 4254 §8 has fewer).
const MODES_MAX: usize = 160;

/// What runs on a session channel (RFC 4254 §6.5).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Program {
    /// A subsystem, such as `sftp`.
    Subsystem(String),
    /// A command, which the other side's shell takes apart. Its bytes are sent as they are.
    Exec(Vec<u8>),
    /// The user's shell.
    Shell,
}

/// A program and its surroundings.
///
/// ```
/// use ketch_transport::session::SessionStart;
///
/// let start = SessionStart::exec("make test").env("LANG", "C.UTF-8");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SessionStart {
    /// What runs.
    pub program: Program,
    /// Variables that it is to find in its environment. Servers take those they were told to take
    /// (`AcceptEnv`), and do not say which.
    pub env: Vec<(String, String)>,
    /// The terminal that it is to find, if any.
    pub pty: Option<Pty>,
}

impl SessionStart {
    /// A program without surroundings of its own.
    #[must_use]
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            env: Vec::new(),
            pty: None,
        }
    }

    /// A subsystem.
    #[must_use]
    pub fn subsystem(name: impl Into<String>) -> Self {
        Self::new(Program::Subsystem(name.into()))
    }

    /// A command.
    #[must_use]
    pub fn exec(command: impl Into<Vec<u8>>) -> Self {
        Self::new(Program::Exec(command.into()))
    }

    /// The user's shell.
    #[must_use]
    pub const fn shell() -> Self {
        Self::new(Program::Shell)
    }

    /// Asks for a variable in the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Asks for a terminal. A server that gives none ends the start.
    #[must_use]
    pub fn pty(mut self, pty: Pty) -> Self {
        self.pty = Some(pty);
        self
    }

    /// Whether it is too long to be sent: a command, a name or a variable of more than
    /// [`START_LEN_MAX`] bytes, or more than [`ENV_MAX`] variables.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        let program = match &self.program {
            Program::Subsystem(name) => name.len(),
            Program::Exec(command) => command.len(),
            Program::Shell => 0,
        };
        let env = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let pty = self
            .pty
            .as_ref()
            .map_or(0, |pty| pty.term.len() + pty.modes.len() * 5);
        self.env.len() > ENV_MAX || program + env.sum::<usize>() + pty > START_LEN_MAX
    }

    /// The requests that ask for it, in the order in which they are sent, and whether each wants an
    /// answer.
    pub(crate) fn requests(&self, mut send: impl FnMut(Request<'_>, bool)) {
        if let Some(pty) = &self.pty {
            let modes = pty.encoded_modes();
            let request = PtyRequest {
                term: pty.term.as_bytes(),
                size: pty.size,
                modes: &modes,
            };
            send(Request::Pty(request), true);
        }
        for (name, value) in &self.env {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            send(Request::Env { name, value }, false);
        }
        send(
            match &self.program {
                Program::Subsystem(name) => Request::Subsystem(name),
                Program::Exec(command) => Request::Exec(command),
                Program::Shell => Request::Shell,
            },
            true,
        );
    }
}

impl From<&str> for SessionStart {
    /// A subsystem.
    fn from(subsystem: &str) -> Self {
        Self::subsystem(subsystem)
    }
}

/// A terminal (RFC 4254 §6.2).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Pty {
    /// The value for `TERM`.
    pub term: String,
    /// How large it is.
    pub size: WindowSize,
    /// Modes that it is to be in.
    pub modes: Vec<(TerminalMode, u32)>,
}

impl Pty {
    /// A terminal of that type and size, in the modes that the other side has.
    #[must_use]
    pub fn new(term: impl Into<String>, columns: u32, rows: u32) -> Self {
        Self {
            term: term.into(),
            size: WindowSize {
                columns,
                rows,
                ..WindowSize::default()
            },
            modes: Vec::new(),
        }
    }

    /// Sets a mode.
    #[must_use]
    pub fn mode(mut self, mode: TerminalMode, value: u32) -> Self {
        self.modes.push((mode, value));
        self
    }

    /// As RFC 4254 §8 has them.
    fn encoded_modes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.modes.len() * 5 + 1);
        let mut w = Writer::new(&mut bytes);
        for (mode, value) in &self.modes {
            w.u8(mode.0);
            w.u32(*value);
        }
        w.u8(TerminalMode::END);
        bytes
    }

    /// What a peer asks for; `None` if it cannot be understood.
    pub(crate) fn from_request(request: &PtyRequest<'_>) -> Option<Self> {
        let term = std::str::from_utf8(request.term).ok()?.to_owned();
        let mut r = Reader::new(request.modes);
        let mut modes = Vec::new();
        // From 160 on the length of a value is not known: what follows is not read.
        while let Ok(mode @ 1..160) = r.u8() {
            modes.push((TerminalMode(mode), r.u32().ok()?));
            if modes.len() > MODES_MAX {
                return None;
            }
        }
        Some(Self {
            term,
            size: request.size,
            modes,
        })
    }
}

/// A terminal's mode, by its number in RFC 4254 §8 (RFC 8160 adds one).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TerminalMode(pub u8);

#[expect(
    missing_docs,
    reason = "the names are those of RFC 4254 §8 and termios(3)"
)]
impl TerminalMode {
    const END: u8 = 0;
    pub const VINTR: Self = Self(1);
    pub const VQUIT: Self = Self(2);
    pub const VERASE: Self = Self(3);
    pub const VKILL: Self = Self(4);
    pub const VEOF: Self = Self(5);
    pub const IGNPAR: Self = Self(30);
    pub const ICRNL: Self = Self(36);
    pub const IXON: Self = Self(38);
    pub const IUTF8: Self = Self(42);
    pub const ISIG: Self = Self(50);
    pub const ICANON: Self = Self(51);
    pub const ECHO: Self = Self(53);
    pub const ECHOE: Self = Self(54);
    pub const OPOST: Self = Self(70);
    pub const ONLCR: Self = Self(72);
    pub const TTY_OP_ISPEED: Self = Self(128);
    pub const TTY_OP_OSPEED: Self = Self(129);
}

/// A connection that is carried on a channel (RFC 4254 §7.2).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Tcpip {
    /// Where it is to go (`direct-tcpip`), or where it came in (`forwarded-tcpip`). A peer's words:
    /// not checked to be a name or an address.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Who made the connection, as far as the other side wants to tell.
    pub originator_host: String,
    /// From which port.
    pub originator_port: u16,
}

impl Tcpip {
    /// A connection to there, of which nothing is told where it comes from.
    #[must_use]
    pub fn to(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            // Some servers insist on an address.
            originator_host: "127.0.0.1".to_owned(),
            originator_port: 0,
        }
    }

    /// Tells who made the connection.
    #[must_use]
    pub fn originator(mut self, host: impl Into<String>, port: u16) -> Self {
        self.originator_host = host.into();
        self.originator_port = port;
        self
    }

    pub(crate) fn as_message(&self) -> TcpipOpen<'_> {
        TcpipOpen {
            host: self.host.as_bytes(),
            port: u32::from(self.port),
            originator_host: self.originator_host.as_bytes(),
            originator_port: u32::from(self.originator_port),
        }
    }

    /// What a peer asks for; `None` if its hosts are no text.
    pub(crate) fn from_message(message: &TcpipOpen<'_>) -> Option<Self> {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        Some(Self {
            host: text(message.host)?,
            port: u16::try_from(message.port).ok()?,
            originator_host: text(message.originator_host)?,
            originator_port: u16::try_from(message.originator_port).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_come_back_and_reading_stops_where_values_have_no_known_length() {
        let pty = Pty::new("xterm", 80, 24)
            .mode(TerminalMode::ECHO, 0)
            .mode(TerminalMode::TTY_OP_OSPEED, 38_400);
        let modes = pty.encoded_modes();
        assert_eq!(modes, [53, 0, 0, 0, 0, 129, 0, 0, 0x96, 0, 0]);
        let mut request = PtyRequest {
            term: b"xterm",
            size: pty.size,
            modes: &modes,
        };
        assert_eq!(Pty::from_request(&request), Some(pty.clone()));
        // Without its end, or with something unknown behind it, it is understood as well.
        request.modes = &modes[..10];
        assert_eq!(Pty::from_request(&request), Some(pty.clone()));
        let unknown = [&modes[..10], &[200, 1, 2]].concat();
        request.modes = &unknown;
        assert_eq!(Pty::from_request(&request), Some(pty));
        request.modes = &modes[..3];
        assert_eq!(Pty::from_request(&request), None);
        request.term = b"\xff";
        assert_eq!(Pty::from_request(&request), None);
    }

    #[test]
    fn what_does_not_fit_a_packet_is_too_long() {
        assert!(!SessionStart::exec(vec![b'x'; START_LEN_MAX]).is_too_long());
        assert!(SessionStart::exec(vec![b'x'; START_LEN_MAX + 1]).is_too_long());
        let many = (0..=ENV_MAX).fold(SessionStart::shell(), |start, n| {
            start.env(n.to_string(), "")
        });
        assert!(many.is_too_long());
    }
}
