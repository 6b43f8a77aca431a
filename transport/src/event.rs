//! What a connection tells the layer above; payload is lent from the receive arena.

use crate::auth::{AuthAttempt, Questions};
use crate::channel::ChannelId;
use crate::crypto::hostkey::PublicKey;
use crate::packet::Lent;

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
    /// A channel of ours is open and its subsystem runs.
    ChannelReady(ChannelId),
    /// A channel of ours was refused; its number is free again.
    ChannelRefused(ChannelId, Refusal),
    /// Server: a subsystem is asked for. Answer with
    /// [`answer_subsystem`](crate::connection::Connection::answer_subsystem).
    Subsystem(ChannelId, &'a str),
    /// Data came on a channel.
    Data(ChannelId, Lent<'a>),
    /// Data came beside the stream; type 1 is stderr (RFC 4254 §5.2).
    ExtendedData(ChannelId, u32, &'a [u8]),
    /// The program at the other end is done.
    Exit(ChannelId, Exit),
    /// The peer will send no more data on the channel.
    Eof(ChannelId),
    /// Both sides have closed the channel; its number is free again.
    Closed(ChannelId),
}

/// How the program at the other end of a channel ended (RFC 4254 §6.10).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Exit {
    /// With this status.
    Status(u32),
    /// By a signal, named without `SIG`.
    Signal(String),
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
            Self::Closed => f.write_str("the server closed the channel before it was ready"),
        }
    }
}

impl std::error::Error for Refusal {}
