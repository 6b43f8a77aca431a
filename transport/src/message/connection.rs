//! Messages of the connection protocol (RFC 4254): channels, their data, windows and requests.

use ketch_wire::{DecodeError, Reader, Writer};

use super::number;
use super::transport::TEXT_LEN_MAX;

/// Longest name of a channel type or of a request that is read, in bytes.
pub const TYPE_LEN_MAX: usize = 64;
/// Bytes of a `CHANNEL_DATA` payload before its data: number, channel, length.
pub const DATA_HEADER_LEN: usize = 9;

/// `SSH_MSG_GLOBAL_REQUEST` (RFC 4254 §4); what follows the two fields is not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GlobalRequest<'a> {
    /// Which request.
    pub name: &'a [u8],
    /// Whether the sender waits for `REQUEST_SUCCESS` or `REQUEST_FAILURE`.
    pub want_reply: bool,
}

impl<'a> GlobalRequest<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.string(TYPE_LEN_MAX)?,
            want_reply: r.bool()?,
        })
    }

    /// Appends the whole payload of a request without data.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { name, want_reply } = *self;
        w.u8(number::GLOBAL_REQUEST);
        w.string(name);
        w.bool(want_reply);
    }
}

/// `SSH_MSG_CHANNEL_OPEN` (RFC 4254 §5.1); data of other types than `session` is not read.
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
}

impl<'a> ChannelOpen<'a> {
    /// The type of channels that run programs and subsystems (RFC 4254 §6.1).
    pub const SESSION: &'static [u8] = b"session";

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
        })
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            channel_type,
            sender,
            window,
            max_packet,
        } = *self;
        w.u8(number::CHANNEL_OPEN);
        w.string(channel_type);
        w.u32(sender);
        w.u32(window);
        w.u32(max_packet);
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
    /// `exit-status` (RFC 4254 §6.10).
    ExitStatus(u32),
    /// `exit-signal` (RFC 4254 §6.10), by the signal's name.
    ExitSignal(&'a str),
    /// Any other, by its name; the data is not read.
    Other(&'a [u8]),
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
        let request = match name {
            b"subsystem" => Request::Subsystem(r.text(TYPE_LEN_MAX)?),
            b"exit-status" => Request::ExitStatus(r.u32()?),
            b"exit-signal" => {
                let signal = r.text(TYPE_LEN_MAX)?;
                r.bool()?; // core dumped
                r.string(TEXT_LEN_MAX)?; // message
                r.string(TEXT_LEN_MAX)?; // language tag
                Request::ExitSignal(signal)
            }
            _ => {
                r.take_rest();
                Request::Other(name)
            }
        };
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
        match request {
            Request::Subsystem(name) => {
                w.string(b"subsystem");
                w.bool(want_reply);
                w.string(name.as_bytes());
            }
            Request::ExitStatus(code) => {
                w.string(b"exit-status");
                w.bool(want_reply);
                w.u32(code);
            }
            Request::ExitSignal(signal) => {
                w.string(b"exit-signal");
                w.bool(want_reply);
                w.string(signal.as_bytes());
                w.bool(false);
                w.string(b"");
                w.string(b"");
            }
            Request::Other(name) => {
                w.string(name);
                w.bool(want_reply);
            }
        }
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

    #[test]
    fn requests_cut_short_are_errors_not_panics() {
        for request in [
            Request::Subsystem("sftp"),
            Request::ExitStatus(3),
            Request::ExitSignal("TERM"),
        ] {
            let message = ChannelRequest {
                recipient: 1,
                want_reply: true,
                request,
            };
            let bytes = payload(|w| message.encode(w));
            assert_eq!(
                ChannelRequest::decode(Reader::new(&bytes[1..])),
                Ok(message)
            );
            for cut in 1..bytes.len() {
                assert!(ChannelRequest::decode(Reader::new(&bytes[1..cut])).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(
            a in any::<u32>(), b in any::<u32>(), c in any::<u32>(), d in any::<u32>(),
            text in vec(any::<u8>(), 0..60), flag in any::<bool>(),
        ) {
            let m = GlobalRequest { name: &text, want_reply: flag };
            let bytes = payload(|w| m.encode(w));
            prop_assert_eq!(GlobalRequest::decode(Reader::new(&bytes[1..])), Ok(m));

            let m = ChannelOpen { channel_type: &text, sender: a, window: b, max_packet: c };
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
        }
    }
}
