//! How a server can break SFTP: one name for each way. All of them end the channel, but for names
//! that are too many: these fail the call that asked for them.

use ketch_protocol::{PacketType, ProtocolError, RequestId};

/// The server broke the protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// The stream cannot be read.
    #[error("the server does not speak SFTP as it should")]
    Protocol(#[from] ProtocolError),
    /// It answered `INIT` with a version below 3, which nobody has spoken since the last century.
    #[error("the server speaks version {version} of SFTP only")]
    VersionTooLow {
        /// Its version.
        version: u32,
    },
    /// It answered a request that was not asked.
    #[error("the server answered request {id}, which was not asked")]
    Unrequested {
        /// The number it named.
        id: RequestId,
    },
    /// It answered a request with a reply that belongs to another kind of request.
    #[error("the server answered request {id} with {packet_type}, which does not fit it")]
    WrongType {
        /// The number it named.
        id: RequestId,
        /// What it sent.
        packet_type: PacketType,
    },
    /// It sent more data than was asked for.
    #[error("the server answered a read of {asked} bytes with {got}")]
    Overlong {
        /// Bytes asked for.
        asked: u32,
        /// Bytes announced.
        got: u32,
    },
    /// It said `OK` where a handle, data, names or attributes belong.
    #[error("the server answered request {id} with success and nothing else")]
    EmptySuccess {
        /// The number it named.
        id: RequestId,
    },
    /// It gave a handle that no request could carry.
    #[error("the server gave a handle of {len} bytes")]
    HandleTooLong {
        /// Its length in bytes; draft-02 §6.3 allows 256.
        len: usize,
    },
    /// It sent more names, or a longer path, than are kept for one who asks.
    #[error("the server sent {len} bytes of names, with those that wait more than are kept")]
    TooManyNames {
        /// Bytes of the answer that was not kept.
        len: usize,
    },
    /// It sends packets that answer nothing, one after the other.
    #[error("the server sends {packet_type} over and over, and no answers")]
    NoReplies {
        /// What it sent last.
        packet_type: PacketType,
    },
    /// It closed its side of the channel while requests waited.
    #[error("the server ended the SFTP session")]
    EndOfStream,
}
