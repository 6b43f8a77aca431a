//! The binary packet layer (RFC 4253 §4.2 and §6): identification lines, then packets.
//!
//! [`Input`] is what was read from the stream; [`Receiver`] opens the packets in it, in place;
//! [`Sender`] frames, pads and seals outgoing payloads, in place too. One code serves both roles and
//! both directions.

mod ident;
mod input;
mod recv;
mod send;

pub use ident::{Identification, IdentificationError, IdentificationReader, Progress};
pub use input::{Input, Lent, Place};
pub use recv::{Packet, PacketError, Receiver};
pub use send::{OutputFull, PACKET_DATA_MAX, SLOTS_MAX, Sender, Slots};

/// Longest packet that is accepted before authentication, in bytes of `packet_length`
/// (RFC 4253 §6.1 asks for 35,000 in all).
pub const PACKET_LEN_MAX_BEFORE_AUTH: u32 = 35_000;
/// Longest packet that is accepted after authentication: 256 KiB of data and what is around it.
pub const PACKET_LEN_MAX: u32 = 256 * 1024 + 1024;
