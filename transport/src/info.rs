//! What an embedding program may know of a connection: how it is protected, and what went over it.

use crate::algorithm::{Kex, SignatureAlgorithm};
use crate::crypto::Suite;
use ketch_keys::PublicKey;

/// How a connection is protected and what went over it, at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// How the peer introduced itself; empty before it did.
    pub peer_identification: String,
    /// What was agreed on; `None` before the first keys are in use.
    pub algorithms: Option<Algorithms>,
    /// Fingerprint of the server's host key, `SHA256:…`; empty before it is known.
    pub host_key_fingerprint: String,
    /// What came and went.
    pub traffic: Traffic,
}

/// The algorithms of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Algorithms {
    /// How the keys were agreed on.
    pub kex: Kex,
    /// How the host proved itself.
    pub host_key: SignatureAlgorithm,
    /// What packets from client to server go through.
    pub client_to_server: Suite,
    /// What packets from server to client go through.
    pub server_to_client: Suite,
    /// Both sides keep strict key exchange.
    pub strict: bool,
}

/// With what a server proved who it is in the first key exchange: good for showing somebody else, such
/// as an agent, whom this client talks to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HostProof {
    /// The host key, or its certificate.
    pub host_key: PublicKey,
    /// The session identifier (RFC 4253 §7.2).
    pub session_id: Vec<u8>,
    /// The host key's signature over that.
    pub signature: Vec<u8>,
}

/// Counters of a connection; they only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes of packets that came, headers and tags with them.
    pub bytes_in: u64,
    /// Bytes of packets that were sealed.
    pub bytes_out: u64,
    /// Packets that came.
    pub packets_in: u64,
    /// Packets that were sealed.
    pub packets_out: u64,
    /// Key exchanges after the first.
    pub rekeys: u64,
}
