//! The binary packet layer (RFC 4253 §4.2 and §6): identification lines, then packets.
//!
//! [`Input`] is what was read from the stream; [`Receiver`] opens the packets in it, in place;
//! [`Sender`] frames, pads and seals outgoing payloads, in place too. One code serves both roles and
//! both directions.

mod ident;
mod input;
#[cfg(test)]
mod laws;
mod recv;
mod send;
mod zlib;

pub use ident::{Identification, IdentificationError, IdentificationReader, Progress};
pub use input::{Input, Lent, Place};
pub use recv::{Packet, PacketError, Receiver};
pub use send::{OutputFull, PACKET_DATA_MAX, PADDED_MULTIPLE, SLOTS_MAX, SendError, Sender, Slots};

/// Shortest padding (RFC 4253 §6).
const PADDING_MIN: usize = 4;
/// Most packets under one set of keys: the next would repeat a sequence number (RFC 4344 §3.1).
const PACKETS_MAX: u64 = u32::MAX as u64;
/// Longest packet that is accepted before authentication, in bytes of `packet_length`
/// (RFC 4253 §6.1 asks for 35,000 in all).
pub const PACKET_LEN_MAX_BEFORE_AUTH: u32 = 35_000;
/// Longest packet that is accepted after authentication: 256 KiB of data and what is around it.
pub const PACKET_LEN_MAX: u32 = 256 * 1024 + 1024;
