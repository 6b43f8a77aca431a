//! Messages of the connection protocol (RFC 4254): channels, their data, windows and requests.

use ketch_wire::{DecodeError, Reader, Writer};

use super::number;
use super::transport::TEXT_LEN_MAX;

mod global;
mod request;

pub use global::{BoundPort, ForwardAddress, GlobalRequest, HostKeys, Ping, prove_data};
pub use request::{ChannelRequest, ExitSignal, PtyRequest, Request, WindowSize};

/// Longest name of a channel type or of a request that is read, in bytes.
pub const TYPE_LEN_MAX: usize = 64;
/// Bytes of a `CHANNEL_DATA` payload before its data: number, channel, length.
pub const DATA_HEADER_LEN: usize = 9;
/// Longest name or address of a host in requests to forward, in bytes.
pub const HOST_LEN_MAX: usize = 255;
/// The largest port there is.
pub(crate) const PORT_MAX: u32 = 65_535;

/// `SSH_MSG_CHANNEL_OPEN` (RFC 4254 §5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelOpen<'a> {
    /// What kind of channel.
    pub channel_type: &'a [u8],
    /// The sender's number for it.
    pub sender: u32,
    /// Bytes that may be sent to the sender at first.
    pub window: u32,
    /// Most data bytes in one message to the sender.
    pub max_packet: u32,
    /// What the type adds: nothing to a session, a [`TcpipOpen`] to forwarded connections.
    pub rest: &'a [u8],
}

impl<'a> ChannelOpen<'a> {
    /// The type of channels that run programs and subsystems (RFC 4254 §6.1).
    pub const SESSION: &'static [u8] = b"session";
    /// A connection that a client wants the server to make (RFC 4254 §7.2).
    pub const DIRECT_TCPIP: &'static [u8] = b"direct-tcpip";
    /// A connection that came to a port that a client had the server listen on (RFC 4254 §7.2).
    pub const FORWARDED_TCPIP: &'static [u8] = b"forwarded-tcpip";

    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            channel_type: r.string(TYPE_LEN_MAX)?,
            sender: r.u32()?,
            window: r.u32()?,
            max_packet: r.u32()?,
            rest: r.take_rest(),
        })
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            channel_type,
            sender,
            window,
            max_packet,
            rest,
        } = *self;
        w.u8(number::CHANNEL_OPEN);
        w.string(channel_type);
        w.u32(sender);
        w.u32(window);
        w.u32(max_packet);
        w.bytes(rest);
    }
}

/// What `direct-tcpip` and `forwarded-tcpip` add to a `CHANNEL_OPEN` (RFC 4254 §7.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpipOpen<'a> {
    /// Where the connection is to go, or where it came in.
    pub host: &'a [u8],
    /// The port there.
    pub port: u32,
    /// Who made the connection.
    pub originator_host: &'a [u8],
    /// From which port.
    pub originator_port: u32,
}

impl<'a> TcpipOpen<'a> {
    /// Decodes what follows the fields of the `CHANNEL_OPEN`.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] for ports that do not exist.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            host: r.string(HOST_LEN_MAX)?,
            port: r.u32()?,
            originator_host: r.string(HOST_LEN_MAX)?,
            originator_port: r.u32()?,
        };
        r.finish()?;
        if message.port > PORT_MAX || message.originator_port > PORT_MAX {
            return Err(DecodeError::BadValue { field: "port" });
        }
        Ok(message)
    }

    /// Appends the fields.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            host,
            port,
            originator_host,
            originator_port,
        } = *self;
        w.string(host);
        w.u32(port);
        w.string(originator_host);
        w.u32(originator_port);
    }
}

/// `SSH_MSG_CHANNEL_OPEN_CONFIRMATION` (RFC 4254 §5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenConfirmation {
    /// The number that the receiver of this message gave the channel.
    pub recipient: u32,
    /// The number that its sender gives it.
    pub sender: u32,
    /// Bytes that may be sent to the sender at first.
    pub window: u32,
    /// Most data bytes in one message to the sender.
    pub max_packet: u32,
}

impl OpenConfirmation {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            recipient: r.u32()?,
            sender: r.u32()?,
            window: r.u32()?,
            max_packet: r.u32()?,
        })
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            recipient,
            sender,
            window,
            max_packet,
        } = *self;
        w.u8(number::CHANNEL_OPEN_CONFIRMATION);
        w.u32(recipient);
        w.u32(sender);
        w.u32(window);
        w.u32(max_packet);
    }
}

/// `SSH_MSG_CHANNEL_OPEN_FAILURE` (RFC 4254 §5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenFailure<'a> {
    /// The number that the receiver of this message gave the channel.
    pub recipient: u32,
    /// Why, as a number of RFC 4254 §5.1.
    pub reason: u32,
    /// Why, for people. The peer's bytes: escape before showing.
    pub description: &'a [u8],
}

impl<'a> OpenFailure<'a> {
    /// `SSH_OPEN_ADMINISTRATIVELY_PROHIBITED`.
    pub const PROHIBITED: u32 = 1;
    /// `SSH_OPEN_CONNECT_FAILED`.
    pub const CONNECT_FAILED: u32 = 2;
    /// `SSH_OPEN_UNKNOWN_CHANNEL_TYPE`.
    pub const UNKNOWN_TYPE: u32 = 3;
    /// `SSH_OPEN_RESOURCE_SHORTAGE`.
    pub const RESOURCE_SHORTAGE: u32 = 4;

    /// Decodes the fields after the message number; a missing language tag is allowed.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            recipient: r.u32()?,
            reason: r.u32()?,
            description: r.string(TEXT_LEN_MAX)?,
        };
        if !r.is_empty() {
            r.string(TEXT_LEN_MAX)?;
        }
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            recipient,
            reason,
            description,
        } = *self;
        w.u8(number::CHANNEL_OPEN_FAILURE);
        w.u32(recipient);
        w.u32(reason);
        w.string(description);
        w.string(b"");
    }
}

/// `SSH_MSG_CHANNEL_WINDOW_ADJUST`: credit for more bytes (RFC 4254 §5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WindowAdjust {
    /// The number that the receiver of this message gave the channel.
    pub recipient: u32,
    /// How many bytes more may be sent.
    pub bytes: u32,
}

impl WindowAdjust {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let message = Self {
            recipient: r.u32()?,
            bytes: r.u32()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { recipient, bytes } = *self;
        w.u8(number::CHANNEL_WINDOW_ADJUST);
        w.u32(recipient);
        w.u32(bytes);
    }
}

/// `SSH_MSG_CHANNEL_DATA` (RFC 4254 §5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelData<'a> {
    /// The number that the receiver of this message gave the channel.
    pub recipient: u32,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            recipient: r.u32()?,
            data: r.string(r.remaining())?,
        };
        r.finish()?;
        Ok(message)
    }

    /// The first [`DATA_HEADER_LEN`] bytes of a payload whose data is put behind them.
    #[must_use]
    pub const fn header(recipient: u32, len: u32) -> [u8; DATA_HEADER_LEN] {
        let [r0, r1, r2, r3] = recipient.to_be_bytes();
        let [l0, l1, l2, l3] = len.to_be_bytes();
        [number::CHANNEL_DATA, r0, r1, r2, r3, l0, l1, l2, l3]
    }
}

/// `SSH_MSG_CHANNEL_EXTENDED_DATA` (RFC 4254 §5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExtendedData<'a> {
    /// The number that the receiver of this message gave the channel.
    pub recipient: u32,
    /// What kind of data: 1 is stderr.
    pub data_type: u32,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> ExtendedData<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            recipient: r.u32()?,
            data_type: r.u32()?,
            data: r.string(r.remaining())?,
        };
        r.finish()?;
        Ok(message)
    }
}

impl ExtendedData<'_> {
    /// What a program writes beside its output (RFC 4254 §5.2), the only type there is.
    pub const STDERR: u32 = 1;

    /// What stands in front of `len` bytes of the data type [`Self::STDERR`].
    #[must_use]
    pub fn header(recipient: u32, len: u32) -> [u8; DATA_HEADER_LEN + 4] {
        let mut header = [0; DATA_HEADER_LEN + 4];
        header[0] = number::CHANNEL_EXTENDED_DATA;
        header[1..5].copy_from_slice(&recipient.to_be_bytes());
        header[5..9].copy_from_slice(&Self::STDERR.to_be_bytes());
        header[9..].copy_from_slice(&len.to_be_bytes());
        header
    }
}

/// A message that is only a channel number: `EOF`, `CLOSE`, `SUCCESS`, `FAILURE` (RFC 4254 §5.3, §5.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelOnly {
    /// The number that the receiver of this message gave the channel.
    pub recipient: u32,
}

impl ChannelOnly {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let message = Self {
            recipient: r.u32()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload of the message with that number.
    pub fn encode(&self, number: u8, w: &mut Writer<'_>) {
        let Self { recipient } = *self;
        w.u8(number);
        w.u32(recipient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn payload(encode: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut Writer::new(&mut bytes));
        bytes
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(
            a in any::<u32>(), b in any::<u32>(), c in any::<u32>(), d in any::<u32>(),
            text in vec(any::<u8>(), 0..60), flag in any::<bool>(),
        ) {
            let m = GlobalRequest { name: &text, want_reply: flag, data: &text };
            let bytes = payload(|w| m.encode(w));
            prop_assert_eq!(GlobalRequest::decode(Reader::new(&bytes[1..])), Ok(m));

            let m = ChannelOpen { channel_type: &text, sender: a, window: b, max_packet: c, rest: &text };
            let bytes = payload(|w| m.encode(w));
            prop_assert_eq!(ChannelOpen::decode(Reader::new(&bytes[1..])), Ok(m));

            let m = OpenConfirmation { recipient: a, sender: b, window: c, max_packet: d };
            let bytes = payload(|w| m.encode(w));
            prop_assert_eq!(OpenConfirmation::decode(Reader::new(&bytes[1..])), Ok(m));

            let m = OpenFailure { recipient: a, reason: b, description: &text };
            let bytes = payload(|w| m.encode(w));
            prop_assert_eq!(OpenFailure::decode(Reader::new(&bytes[1..])), Ok(m));

            let m = WindowAdjust { recipient: a, bytes: b };
            let bytes = payload(|w| m.encode(w));
            prop_assert_eq!(WindowAdjust::decode(Reader::new(&bytes[1..])), Ok(m));

            let m = ChannelOnly { recipient: a };
            let bytes = payload(|w| m.encode(number::CHANNEL_EOF, w));
            prop_assert_eq!(ChannelOnly::decode(Reader::new(&bytes[1..])), Ok(m));

            let mut bytes = ChannelData::header(a, u32::try_from(text.len()).unwrap()).to_vec();
            bytes.extend_from_slice(&text);
            let m = ChannelData { recipient: a, data: &text };
            prop_assert_eq!(ChannelData::decode(Reader::new(&bytes[1..])), Ok(m));

            let mut bytes = ExtendedData::header(a, u32::try_from(text.len()).unwrap()).to_vec();
            bytes.extend_from_slice(&text);
            let m = ExtendedData { recipient: a, data_type: 1, data: &text };
            prop_assert_eq!(ExtendedData::decode(Reader::new(&bytes[1..])), Ok(m));

            let m = TcpipOpen {
                host: &text, port: b % 65_536, originator_host: &text, originator_port: c % 65_536,
            };
            let bytes = payload(|w| m.encode(w));
            prop_assert_eq!(TcpipOpen::decode(Reader::new(&bytes)), Ok(m));
            for cut in 0..bytes.len() {
                prop_assert!(TcpipOpen::decode(Reader::new(&bytes[..cut])).is_err());
            }
        }
    }
}
