//! `SSH_MSG_CHANNEL_REQUEST`: what is asked for on a channel, and what is told (RFC 4254 §5.4, §6).

use ketch_wire::{DecodeError, Reader, Writer};

use super::TYPE_LEN_MAX;
use crate::message::number;
use crate::message::transport::TEXT_LEN_MAX;

/// Longest command that is read, in bytes.
const COMMAND_LEN_MAX: usize = 64 * 1024;
/// Longest name of an environment variable or of a terminal type that is read, in bytes.
const NAME_LEN_MAX: usize = 256;

/// `SSH_MSG_CHANNEL_REQUEST` (RFC 4254 §5.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelRequest<'a> {
    /// The number that the receiver of this message gave the channel.
    pub recipient: u32,
    /// Whether the sender waits for `CHANNEL_SUCCESS` or `CHANNEL_FAILURE`.
    pub want_reply: bool,
    /// What is asked for or told.
    pub request: Request<'a>,
}

/// The requests that ketch sends or acts upon; all others are answered with a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// `subsystem` (RFC 4254 §6.5).
    Subsystem(&'a str),
    /// `exec` (RFC 4254 §6.5): the command, in the bytes that the other side's shell takes.
    Exec(&'a [u8]),
    /// `shell` (RFC 4254 §6.5).
    Shell,
    /// `env` (RFC 4254 §6.4).
    Env {
        /// The variable.
        name: &'a [u8],
        /// What it is to be.
        value: &'a [u8],
    },
    /// `pty-req` (RFC 4254 §6.2).
    Pty(PtyRequest<'a>),
    /// `window-change` (RFC 4254 §6.7).
    WindowChange(WindowSize),
    /// `signal` (RFC 4254 §6.9), by its name without `SIG`.
    Signal(&'a str),
    /// `exit-status` (RFC 4254 §6.10).
    ExitStatus(u32),
    /// `exit-signal` (RFC 4254 §6.10).
    ExitSignal(ExitSignal<'a>),
    /// Any other, by its name; the data is not read.
    Other(&'a [u8]),
}

/// What `pty-req` says of the terminal (RFC 4254 §6.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PtyRequest<'a> {
    /// The value for `TERM`.
    pub term: &'a [u8],
    /// How large it is.
    pub size: WindowSize,
    /// Its modes, encoded as RFC 4254 §8 has it.
    pub modes: &'a [u8],
}

/// The size of a terminal (RFC 4254 §6.2); zeros say that it is not known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u32,
    /// Lines.
    pub rows: u32,
    /// Pixels across.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl WindowSize {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            columns: r.u32()?,
            rows: r.u32()?,
            width: r.u32()?,
            height: r.u32()?,
        })
    }

    fn encode(self, w: &mut Writer<'_>) {
        let Self {
            columns,
            rows,
            width,
            height,
        } = self;
        w.u32(columns);
        w.u32(rows);
        w.u32(width);
        w.u32(height);
    }
}

/// What `exit-signal` says of a program that a signal ended (RFC 4254 §6.10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExitSignal<'a> {
    /// The signal's name without `SIG`.
    pub signal: &'a str,
    /// Whether the program left an image of its memory.
    pub core_dumped: bool,
    /// For people. The peer's bytes: escape before showing.
    pub message: &'a [u8],
    /// The language of the message.
    pub language: &'a [u8],
}

impl<'a> Request<'a> {
    /// The request's name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'a [u8] {
        match *self {
            Self::Subsystem(_) => b"subsystem",
            Self::Exec(_) => b"exec",
            Self::Shell => b"shell",
            Self::Env { .. } => b"env",
            Self::Pty(_) => b"pty-req",
            Self::WindowChange(_) => b"window-change",
            Self::Signal(_) => b"signal",
            Self::ExitStatus(_) => b"exit-status",
            Self::ExitSignal(_) => b"exit-signal",
            Self::Other(name) => name,
        }
    }

    fn decode(name: &'a [u8], r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match name {
            b"subsystem" => Self::Subsystem(r.text(TYPE_LEN_MAX)?),
            b"exec" => Self::Exec(r.string(COMMAND_LEN_MAX)?),
            b"shell" => Self::Shell,
            b"env" => Self::Env {
                name: r.string(NAME_LEN_MAX)?,
                value: r.string(TEXT_LEN_MAX)?,
            },
            b"pty-req" => Self::Pty(PtyRequest {
                term: r.string(NAME_LEN_MAX)?,
                size: WindowSize::decode(r)?,
                modes: r.string(TEXT_LEN_MAX)?,
            }),
            b"window-change" => Self::WindowChange(WindowSize::decode(r)?),
            b"signal" => Self::Signal(r.text(TYPE_LEN_MAX)?),
            b"exit-status" => Self::ExitStatus(r.u32()?),
            b"exit-signal" => Self::ExitSignal(ExitSignal {
                signal: r.text(TYPE_LEN_MAX)?,
                core_dumped: r.bool()?,
                message: r.string(TEXT_LEN_MAX)?,
                language: r.string(TEXT_LEN_MAX)?,
            }),
            _ => {
                r.take_rest();
                Self::Other(name)
            }
        })
    }

    fn encode(&self, w: &mut Writer<'_>) {
        match *self {
            Self::Subsystem(name) | Self::Signal(name) => w.string(name.as_bytes()),
            Self::Exec(command) => w.string(command),
            Self::Env { name, value } => {
                w.string(name);
                w.string(value);
            }
            Self::Pty(PtyRequest { term, size, modes }) => {
                w.string(term);
                size.encode(w);
                w.string(modes);
            }
            Self::WindowChange(size) => size.encode(w),
            Self::ExitStatus(code) => w.u32(code),
            Self::ExitSignal(ExitSignal {
                signal,
                core_dumped,
                message,
                language,
            }) => {
                w.string(signal.as_bytes());
                w.bool(core_dumped);
                w.string(message);
                w.string(language);
            }
            Self::Shell | Self::Other(_) => {}
        }
    }
}

impl<'a> ChannelRequest<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let recipient = r.u32()?;
        let name = r.string(TYPE_LEN_MAX)?;
        let want_reply = r.bool()?;
        let request = Request::decode(name, &mut r)?;
        r.finish()?;
        Ok(Self {
            recipient,
            want_reply,
            request,
        })
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            recipient,
            want_reply,
            request,
        } = *self;
        w.u8(number::CHANNEL_REQUEST);
        w.u32(recipient);
        w.string(request.name());
        w.bool(want_reply);
        request.encode(w);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_survives_the_wire_and_none_survives_a_cut() {
        let size = WindowSize {
            columns: 80,
            rows: 24,
            width: 640,
            height: 480,
        };
        for request in [
            Request::Subsystem("sftp"),
            Request::Exec(b"ls -l\xff"),
            Request::Shell,
            Request::Env {
                name: b"LANG",
                value: b"C.UTF-8",
            },
            Request::Pty(PtyRequest {
                term: b"xterm",
                size,
                modes: &[53, 0, 0, 0, 1, 0],
            }),
            Request::WindowChange(size),
            Request::Signal("INT"),
            Request::ExitStatus(3),
            Request::ExitSignal(ExitSignal {
                signal: "TERM",
                core_dumped: true,
                message: b"ended",
                language: b"en",
            }),
            Request::Other(b"x@example.com"),
        ] {
            for want_reply in [false, true] {
                let message = ChannelRequest {
                    recipient: 1,
                    want_reply,
                    request,
                };
                let mut bytes = Vec::new();
                message.encode(&mut Writer::new(&mut bytes));
                assert_eq!(
                    ChannelRequest::decode(Reader::new(&bytes[1..])),
                    Ok(message)
                );
                for cut in 1..bytes.len() {
                    assert!(ChannelRequest::decode(Reader::new(&bytes[1..cut])).is_err());
                }
                bytes.push(0);
                let is_other = matches!(request, Request::Other(_));
                let longer = ChannelRequest::decode(Reader::new(&bytes[1..]));
                assert_eq!(longer.is_ok(), is_other, "{request:?}");
            }
        }
    }
}
