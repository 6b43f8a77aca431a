//! Why a stream of packets cannot be read on.

use crate::{DecodeError, PacketType, RequestId};

/// Why a decoder gave up: the peer broke the protocol, and where the next packet begins is unknown
/// or no longer to be trusted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A packet is longer than [`Limits::packet_len`](crate::Limits::packet_len) allows.
    #[error("a packet of {len} bytes is longer than the {max} allowed")]
    PacketTooLong {
        /// Length that the packet names, in bytes.
        len: usize,
        /// Longest allowed, in bytes.
        max: usize,
    },
    /// A packet of no bytes, which cannot even hold its type.
    #[error("a packet is empty")]
    PacketEmpty,
    /// The peer wrote text where the first packet should be: often a login script that prints.
    #[error("the peer sent text in place of SFTP: \"{text}\"")]
    NotSftp {
        /// The first bytes that came (at most [`TEXT_LEN_MAX`](Self::TEXT_LEN_MAX)), escaped.
        text: String,
    },
    /// A packet came where it must not: before the greeting, or a second greeting.
    #[error("{packet_type} came out of turn")]
    OutOfTurn {
        /// Type of the packet.
        packet_type: PacketType,
    },
    /// The fields of a packet are not what its type asks for.
    #[error("{packet_type} is malformed")]
    Malformed {
        /// Type of the packet.
        packet_type: PacketType,
        /// Number of the request, where it could be read.
        id: Option<RequestId>,
        /// What is wrong with the fields.
        source: DecodeError,
    },
}

impl ProtocolError {
    /// Most bytes of [`NotSftp`](Self::NotSftp) text that are kept.
    pub const TEXT_LEN_MAX: usize = 256;
}
