//! What a connection tells the layer above; payload is lent from the receive arena.

use crate::auth::{AuthAttempt, Questions};
use crate::channel::ChannelId;
use crate::packet::Lent;
use crate::session::{Pty, Tcpip, WindowSize};
use ketch_keys::PublicKey;

/// What happened, in the order in which it happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Client: is this host key trusted? Answer with
    /// [`accept_host_key`](crate::connection::Connection::accept_host_key); nothing is read before.
    HostKey(PublicKey),
    /// Client: a credential is wanted. Answer with
    /// [`authenticate`](crate::connection::Connection::authenticate); nothing is read before.
    AuthWanted {
        /// Methods that may go on, as the server names them; `None` before it said anything.
        methods: Option<Vec<String>>,
        /// What was tried last was right, but more is wanted.
        partial: bool,
    },
    /// Client: the key would do, and these bytes are to be signed with it. Answer with
    /// [`signature`](crate::connection::Connection::signature), or try another credential.
    Sign(Vec<u8>),
    /// Client: the server has questions for the user. Answer with
    /// [`answers`](crate::connection::Connection::answers), or try another credential.
    Questions(Questions),
    /// Client: the password is right but has expired; the server's words. Answer with a
    /// [`PasswordChange`](crate::auth::Credential::PasswordChange), or try another credential.
    PasswordExpired(String),
    /// Client: a text for the user. The peer's bytes: escape before showing.
    Banner(&'a [u8]),
    /// Server, if the [configuration](crate::config::ServerConfig::ask_before_keys) has it so: the
    /// first key exchange is to be computed. Answer with
    /// [`exchange_keys`](crate::connection::Connection::exchange_keys) when there is time for it;
    /// nothing is read before.
    KeysWanted,
    /// Server: somebody wants in. Answer with
    /// [`accept_auth`](crate::connection::Connection::accept_auth),
    /// [`reject_auth`](crate::connection::Connection::reject_auth),
    /// [`accept_auth_partially`](crate::connection::Connection::accept_auth_partially),
    /// [`ask`](crate::connection::Connection::ask) or
    /// [`password_expired`](crate::connection::Connection::password_expired); nothing is read
    /// before.
    Attempt(AuthAttempt),
    /// Client: the server let us in.
    Authenticated,
    /// A channel of ours is open and its program runs. Data may show it before this says so.
    ChannelReady(ChannelId),
    /// A channel of ours was refused.
    ChannelRefused(ChannelId, Refusal),
    /// Server: something is asked for on a session. Answer with
    /// [`answer_request`](crate::connection::Connection::answer_request); nothing is read before.
    Request(ChannelId, SessionRequest<'a>),
    /// A channel is asked for. Answer with
    /// [`answer_open`](crate::connection::Connection::answer_open); nothing is read before.
    ChannelAsked(PeerChannel),
    /// Server: it is to listen. Answer with
    /// [`answer_forward`](crate::connection::Connection::answer_forward); nothing is read before.
    ForwardAsked {
        /// The address; empty for all, `localhost` for the loopback ones.
        address: &'a str,
        /// The port; 0 for any.
        port: u16,
    },
    /// Server: it is to listen no more. Answer with
    /// [`answer_cancel_forward`](crate::connection::Connection::answer_cancel_forward); nothing is
    /// read before.
    CancelForwardAsked {
        /// The address, as it was asked for.
        address: &'a str,
        /// The port.
        port: u16,
    },
    /// Client: the server listens on this port, or does not. Answers come in the order of the
    /// requests.
    ForwardAnswered(Option<u16>),
    /// Client: the server listens no more, or does not know of it.
    ForwardCancelled(bool),
    /// Client: the server says that it holds these host keys, and has proved nothing. They may be
    /// asked for with [`ask_proofs`](crate::connection::Connection::ask_proofs).
    HostKeysOffered(Vec<PublicKey>),
    /// Client: the server has proved that it holds these host keys; none if a proof was wrong.
    HostKeysProved(Vec<PublicKey>),
    /// The answer to a ping of ours.
    Pong,
    /// Data came on a channel.
    Data(ChannelId, Lent<'a>),
    /// Data came beside the stream; type 1 is stderr (RFC 4254 §5.2).
    ExtendedData(ChannelId, u32, &'a [u8]),
    /// The program at the other end is done.
    Exit(ChannelId, Exit),
    /// Server: the terminal of a program has another size.
    WindowChange(ChannelId, WindowSize),
    /// Server: the program is to get a signal, named without `SIG`.
    Signal(ChannelId, &'a str),
    /// The peer will send no more data on the channel.
    Eof(ChannelId),
    /// The channel is gone: both sides have closed it, or the peer did not in time.
    Closed(ChannelId),
}

/// What a client asks for on a session (RFC 4254 §6).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SessionRequest<'a> {
    /// To run a subsystem.
    Subsystem(&'a str),
    /// To run a command.
    Exec(&'a [u8]),
    /// To run the user's shell.
    Shell,
    /// To have a variable in the environment.
    Env {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: &'a str,
    },
    /// To have a terminal.
    Pty(Pty),
}

impl SessionRequest<'_> {
    /// Whether a program runs on the channel when it is granted.
    #[must_use]
    pub const fn starts(&self) -> bool {
        matches!(self, Self::Subsystem(_) | Self::Exec(_) | Self::Shell)
    }
}

/// A channel that a peer asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PeerChannel {
    /// Server: a connection that it is to make.
    DirectTcpip(Tcpip),
    /// Client: a connection to a port that it had the server listen on.
    ForwardedTcpip(Tcpip),
}

/// How the program at the other end of a channel ended (RFC 4254 §6.10).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Exit {
    /// With this status.
    Status(u32),
    /// By a signal. What it says is the peer's, escaped.
    Signal {
        /// Its name without `SIG`.
        name: String,
        /// Whether the program left an image of its memory.
        core_dumped: bool,
        /// For people; may be empty.
        message: String,
    },
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal { name, message, .. } => {
                write!(f, "ended by signal {name}")?;
                if message.is_empty() {
                    return Ok(());
                }
                write!(f, ": {message}")
            }
        }
    }
}

/// Why a channel of ours was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The channel itself, with a reason of RFC 4254 §5.1 and the peer's words, escaped.
    Channel {
        /// The reason's number.
        reason: u32,
        /// For people.
        description: String,
    },
    /// The subsystem: the server has none of that name, or does not give it to this user.
    Subsystem,
    /// The command: the server does not run any for this user.
    Exec,
    /// The shell: the server does not give this user any.
    Shell,
    /// The terminal: the server does not give this user any.
    Pty,
    /// The peer closed the channel before it was ready.
    Closed,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Channel {
                reason,
                description,
            } => {
                write!(
                    f,
                    "the server refused to open a channel: {description} (reason {reason})"
                )
            }
            Self::Subsystem => f.write_str("the server refused the subsystem"),
            Self::Exec => f.write_str("the server refused to run the command"),
            Self::Shell => f.write_str("the server refused to run a shell"),
            Self::Pty => f.write_str("the server refused to give a terminal"),
            Self::Closed => f.write_str("the server closed the channel before it was ready"),
        }
    }
}

impl std::error::Error for Refusal {}
