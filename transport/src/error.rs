//! Why a connection ends: our limits, the peer's misbehaviour, or its own word.

use std::fmt;

use ketch_wire::DecodeError;

use crate::crypto::RandomFailed;
use crate::message::transport::DisconnectReason;
use crate::negotiation::NoCommonAlgorithm;
use crate::packet::{IdentificationError, OutputFull, PacketError, SendError};

/// Why a [`Connection`](crate::connection::Connection) is of no use any more.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer's first line is not that of SSH 2.0.
    #[error("the peer does not speak SSH 2.0")]
    Identification(#[source] IdentificationError),
    /// Bytes are not a packet.
    #[error("the packet layer failed")]
    Packet(#[source] PacketError),
    /// The two sides share no algorithm.
    #[error("the peer and this side have no algorithm in common")]
    NoCommonAlgorithm(#[source] NoCommonAlgorithm),
    /// The peer broke the protocol.
    #[error("the peer broke the SSH protocol")]
    Misbehaved(#[source] PeerMisbehaved),
    /// The peer ended the connection and said why.
    #[error("the peer disconnected: {} (reason {})", Escaped(.description), .reason.0)]
    Disconnected {
        /// Its reason, as a number of RFC 4250 §4.2.2.
        reason: DisconnectReason,
        /// Its words, at most 512 bytes of them, as they came.
        description: Vec<u8>,
    },
    /// The first packet was guessed from what the host chose last time, and it chose something else:
    /// forget the host and connect again.
    #[error("the server has changed since last time, and what was sent early was wrong")]
    WrongGuess,
    /// The host key was not accepted.
    #[error("the host key was not accepted")]
    HostKeyRefused,
    /// None of the host keys can make the signature that was agreed on.
    #[error("no host key can make the signature that was agreed on")]
    NoHostKey,
    /// A deadline passed.
    #[error("{0}")]
    TimedOut(Deadline),
    /// Too many attempts to authenticate failed.
    #[error("too many failed attempts to authenticate")]
    TooManyAttempts,
    /// The peer takes nothing, and the answers to what it sends have filled the output buffer.
    #[error("the peer reads nothing of what it asks for")]
    OutputFull(#[source] OutputFull),
    /// A channel that was opened early got another number than was foreseen: what was sent on it
    /// cannot be called back. Connecting again and opening it plainly works.
    #[error("the server gave the first channel another number than was foreseen")]
    WrongChannelForeseen,
    /// The system has no randomness to give.
    #[error("no randomness for keys")]
    RandomFailed(#[source] RandomFailed),
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Deadline {
    /// Identification and first key exchange.
    Handshake,
    /// Authentication.
    Authentication,
    /// A key exchange on a connection in use.
    Rekey,
    /// Keepalive requests were not answered.
    Keepalive,
    /// Output waited, and the peer took none of it.
    Output,
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "the handshake was not finished in time",
            Self::Authentication => "authentication was not finished in time",
            Self::Rekey => "the exchange of new keys was not finished in time",
            Self::Keepalive => "the peer answers no keepalives any more",
            Self::Output => "the peer takes nothing of what it is sent",
        })
    }
}

/// What the peer did that the RFCs forbid; one name for each violation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A message cannot be decoded.
    #[error("message {number} is malformed")]
    Malformed {
        /// Its number.
        number: u8,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// A message that may not come now (RFC 4253 §7.1, §10; RFC 4252 §6; strict key exchange).
    #[error("message {number} may not come {state}")]
    Unexpected {
        /// Its number.
        number: u8,
        /// What was going on.
        state: &'static str,
    },
    /// A public value that no honest peer sends (RFC 8731 §3).
    #[error("its public value for the key exchange is impossible")]
    BadPublicValue,
    /// The group that it chose is not of the size that was asked for, or not safe (RFC 4419 §3).
    #[error("its group for the key exchange is not safe")]
    UnsafeGroup,
    /// Its RSA host key is too short.
    #[error("its RSA host key has too few bits")]
    WeakHostKey,
    /// The signature of the exchange hash does not fit the host key (RFC 4253 §8).
    #[error("its signature of the key exchange is wrong")]
    BadHostSignature,
    /// The host key is of another type than agreed, or changed in a later exchange.
    #[error("its host key is not the agreed one")]
    BadHostKey,
    /// ChaCha20-Poly1305 without strict key exchange (CVE-2023-48795).
    #[error("it has no strict key exchange, and no cipher that is safe without")]
    NotStrict,
    /// Key exchange after key exchange without anything in between.
    #[error("it exchanges keys again and again")]
    RekeyStorm,
    /// A message names a channel that does not exist (RFC 4254 §5).
    #[error("message {number} names channel {channel}, which does not exist")]
    NoSuchChannel {
        /// The message's number.
        number: u8,
        /// The channel it names.
        channel: u32,
    },
    /// Data beyond the window, or in larger pieces than allowed (RFC 4254 §5.2).
    #[error("it sent {len} bytes where {allowed} were allowed")]
    WindowExceeded {
        /// Bytes in the message.
        len: usize,
        /// Bytes that were allowed.
        allowed: usize,
    },
    /// A window larger than 2^32 - 1 bytes (RFC 4254 §5.2).
    #[error("it adjusted a window past 2^32 - 1 bytes")]
    WindowOverflow,
    /// A channel with packets so small that nothing can be sent (RFC 4254 §5.1).
    #[error("it accepts no packets of a useful size on a channel")]
    PacketsTooSmall,
    /// Data beside a stream of a type that does not exist (RFC 4254 §5.2).
    #[error("it sent extended data of the unknown type {data_type}")]
    UnknownExtendedData {
        /// The type.
        data_type: u32,
    },
    /// Channels that it does not close although we did (RFC 4254 §5.3).
    #[error("it never closes its channels")]
    NeverCloses,
    /// Replies to requests that were never made.
    #[error("it answers what was not asked")]
    Unsolicited,
    /// Question after question while a user logs in (RFC 4256 §3.2).
    #[error("it asks the user without end")]
    EndlessQuestions,
    /// Another user in the middle of a login of several steps (RFC 4252 §5).
    #[error("it changed the user in the middle of a login")]
    UserChanged,
    /// A service other than authentication (RFC 4253 §10).
    #[error("it asks for a service that does not exist")]
    NoSuchService,
}

impl ConnectionError {
    /// The reason to send to the peer; `None` if there is nobody to send it to.
    pub(crate) const fn reason(&self) -> Option<DisconnectReason> {
        match self {
            Self::Identification(_) => Some(DisconnectReason::PROTOCOL_VERSION_NOT_SUPPORTED),
            Self::Packet(_) => Some(DisconnectReason::MAC_ERROR),
            Self::NoCommonAlgorithm(_)
            | Self::RandomFailed(_)
            | Self::WrongGuess
            | Self::NoHostKey
            | Self::Misbehaved(
                PeerMisbehaved::NotStrict
                | PeerMisbehaved::BadPublicValue
                | PeerMisbehaved::UnsafeGroup
                | PeerMisbehaved::BadHostKey
                | PeerMisbehaved::WeakHostKey
                | PeerMisbehaved::BadHostSignature,
            ) => Some(DisconnectReason::KEY_EXCHANGE_FAILED),
            Self::Misbehaved(PeerMisbehaved::NoSuchService) => {
                Some(DisconnectReason::SERVICE_NOT_AVAILABLE)
            }
            Self::Misbehaved(_) => Some(DisconnectReason::PROTOCOL_ERROR),
            Self::HostKeyRefused => Some(DisconnectReason::HOST_KEY_NOT_VERIFIABLE),
            Self::WrongChannelForeseen => Some(DisconnectReason::BY_APPLICATION),
            Self::TimedOut(_) => Some(DisconnectReason::CONNECTION_LOST),
            Self::TooManyAttempts => Some(DisconnectReason::NO_MORE_AUTH_METHODS_AVAILABLE),
            Self::Disconnected { .. } | Self::OutputFull(_) => None,
        }
    }
}

impl From<PeerMisbehaved> for ConnectionError {
    fn from(misbehaved: PeerMisbehaved) -> Self {
        Self::Misbehaved(misbehaved)
    }
}

impl From<PacketError> for ConnectionError {
    fn from(error: PacketError) -> Self {
        Self::Packet(error)
    }
}

impl From<SendError> for ConnectionError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Full(full) => Self::OutputFull(full),
            SendError::Exhausted => Self::Packet(PacketError::Exhausted),
        }
    }
}

impl From<RandomFailed> for ConnectionError {
    fn from(error: RandomFailed) -> Self {
        Self::RandomFailed(error)
    }
}

/// A peer's bytes, shown so that they move no cursor and end no line.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                // Beyond ASCII there are characters that turn the order of a line around.
                if c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() {
                    write!(f, "{c}")?;
                } else {
                    write!(f, "{}", c.escape_default())?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_moves_no_cursor() {
        let description = b"\x1b[2Jbye\r\n\xff\xe2\x80\xae".to_vec();
        let reason = DisconnectReason::BY_APPLICATION;
        let shown = ConnectionError::Disconnected {
            reason,
            description,
        }
        .to_string();
        assert!(
            shown.chars().all(|c| c == ' ' || c.is_ascii_graphic()),
            "{shown:?}"
        );
        assert!(shown.contains("bye"));
    }
}
