//! Messages that are about no channel: global requests and what they carry (RFC 4254 §4 and §7.1),
//! and the extensions `ping@openssh.com` and `hostkeys-00@openssh.com` (OpenSSH's PROTOCOL §1.8 and
//! §2.5).

use ketch_wire::{DecodeError, Reader, Writer};

use super::{HOST_LEN_MAX, PORT_MAX, TYPE_LEN_MAX};
use crate::message::number;

/// `SSH_MSG_GLOBAL_REQUEST` (RFC 4254 §4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GlobalRequest<'a> {
    /// Which request.
    pub name: &'a [u8],
    /// Whether the sender waits for `REQUEST_SUCCESS` or `REQUEST_FAILURE`.
    pub want_reply: bool,
    /// What the request adds.
    pub data: &'a [u8],
}

impl<'a> GlobalRequest<'a> {
    /// Asks whether the peer is there; either answer says that it is.
    pub const KEEPALIVE: &'static [u8] = b"keepalive@openssh.com";
    /// Asks a server to listen (RFC 4254 §7.1).
    pub const FORWARD: &'static [u8] = b"tcpip-forward";
    /// Asks it to listen no more (RFC 4254 §7.1).
    pub const CANCEL_FORWARD: &'static [u8] = b"cancel-tcpip-forward";
    /// A client will open no more sessions (OpenSSH's PROTOCOL §2.2).
    pub const NO_MORE_SESSIONS: &'static [u8] = b"no-more-sessions@openssh.com";
    /// A server tells all its host keys.
    pub const HOST_KEYS: &'static [u8] = b"hostkeys-00@openssh.com";
    /// A client asks it to prove that it holds them.
    pub const PROVE_HOST_KEYS: &'static [u8] = b"hostkeys-prove-00@openssh.com";

    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.string(TYPE_LEN_MAX)?,
            want_reply: r.bool()?,
            data: r.take_rest(),
        })
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            name,
            want_reply,
            data,
        } = *self;
        w.u8(number::GLOBAL_REQUEST);
        w.string(name);
        w.bool(want_reply);
        w.bytes(data);
    }
}

/// Where a server is asked to listen: what `tcpip-forward` and `cancel-tcpip-forward` add
/// (RFC 4254 §7.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ForwardAddress<'a> {
    /// The address; empty for all, `localhost` for the loopback ones.
    pub address: &'a [u8],
    /// The port; 0 lets the server choose.
    pub port: u32,
}

impl<'a> ForwardAddress<'a> {
    /// Decodes the data of the request.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] for a port that does not exist.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            address: r.string(HOST_LEN_MAX)?,
            port: r.u32()?,
        };
        r.finish()?;
        if message.port > PORT_MAX {
            return Err(DecodeError::BadValue { field: "port" });
        }
        Ok(message)
    }

    /// Appends the data of the request.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { address, port } = *self;
        w.string(address);
        w.u32(port);
    }
}

/// What `REQUEST_SUCCESS` adds for a `tcpip-forward` of port 0: the port that was chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BoundPort(pub u32);

impl BoundPort {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] for a port that does not exist.
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let port = r.u32()?;
        r.finish()?;
        if port == 0 || port > PORT_MAX {
            return Err(DecodeError::BadValue { field: "port" });
        }
        Ok(Self(port))
    }
}

/// A run of strings: the keys of `hostkeys-00@openssh.com` and of the request for proofs, and the
/// signatures that answer it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HostKeys<'a>(&'a [u8]);

impl<'a> HostKeys<'a> {
    /// Longest key or signature that is read, in bytes: a certificate is the longest.
    pub const LEN_MAX: usize = 16 * 1024;

    /// Checks that all of it is strings, of which there are at most `max`.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] if there are more.
    pub fn decode(bytes: &'a [u8], max: usize) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        for _ in 0..max {
            if r.is_empty() {
                break;
            }
            r.string(Self::LEN_MAX)?;
        }
        if !r.is_empty() {
            return Err(DecodeError::BadValue { field: "host keys" });
        }
        Ok(Self(bytes))
    }

    /// The strings.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut r = Reader::new(self.0);
        std::iter::from_fn(move || {
            if r.is_empty() {
                return None;
            }
            r.string(Self::LEN_MAX).ok()
        })
    }
}

/// What a server signs to prove that it holds a key.
#[must_use]
pub fn prove_data(session_id: &[u8], key_blob: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut w = Writer::new(&mut data);
    w.string(GlobalRequest::PROVE_HOST_KEYS);
    w.string(session_id);
    w.string(key_blob);
    data
}

/// `SSH2_MSG_PING` or `SSH2_MSG_PONG`, which brings the same data back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ping<'a> {
    /// Any data.
    pub data: &'a [u8],
}

impl<'a> Ping<'a> {
    /// The extension's name in `EXT_INFO`, where its value is `0`.
    pub const EXTENSION: &'static [u8] = b"ping@openssh.com";

    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            data: r.string(r.remaining())?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload; `number` is that of the question or of the answer.
    pub fn encode(&self, number: u8, w: &mut Writer<'_>) {
        let Self { data } = *self;
        w.u8(number);
        w.string(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded(encode: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut Writer::new(&mut bytes));
        bytes
    }

    #[test]
    fn ports_that_do_not_exist_are_refused() {
        for (port, listens, bound) in [
            (0, true, false),
            (1, true, true),
            (65_535, true, true),
            (65_536, false, false),
            (u32::MAX, false, false),
        ] {
            let bytes = encoded(|w| ForwardAddress { address: b"", port }.encode(w));
            let decoded = ForwardAddress::decode(Reader::new(&bytes));
            assert_eq!(decoded.is_ok(), listens, "{port}");
            let decoded = BoundPort::decode(Reader::new(&bytes[4..]));
            assert_eq!(decoded.is_ok(), bound, "{port}");
        }
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(
            text in vec(any::<u8>(), 0..60), port in 0_u32..65_536,
            keys in vec(vec(any::<u8>(), 0..40), 0..16), number in any::<u8>(),
        ) {
            let m = ForwardAddress { address: &text, port };
            let bytes = encoded(|w| m.encode(w));
            prop_assert_eq!(ForwardAddress::decode(Reader::new(&bytes)), Ok(m));
            for cut in 0..bytes.len() {
                prop_assert!(ForwardAddress::decode(Reader::new(&bytes[..cut])).is_err());
            }

            let m = Ping { data: &text };
            let bytes = encoded(|w| m.encode(number, w));
            prop_assert_eq!(Ping::decode(Reader::new(&bytes[1..])), Ok(m));

            let bytes = encoded(|w| keys.iter().for_each(|key| w.string(key)));
            let decoded = HostKeys::decode(&bytes, 16).unwrap();
            prop_assert!(decoded.iter().eq(keys.iter()));
            prop_assert_eq!(HostKeys::decode(&bytes, keys.len()), Ok(decoded));
            if !keys.is_empty() {
                prop_assert!(HostKeys::decode(&bytes, keys.len() - 1).is_err());
                prop_assert!(HostKeys::decode(&bytes[..bytes.len() - 1], 16).is_err());
            }
        }
    }
}
