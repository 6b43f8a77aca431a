//! Messages of the transport layer that may come at any time, and service requests
//! (RFC 4253 §10 and §11, RFC 8308 §2.3).

use ketch_wire::{DecodeError, Reader, Writer};

use super::number;

/// Longest text that a peer may send for people or logs, in bytes.
pub const TEXT_LEN_MAX: usize = 16 * 1024;
/// Most extensions in an `EXT_INFO` that is read.
pub const EXTENSIONS_MAX: u32 = 64;

/// `SSH_MSG_DISCONNECT`: the sender ends the connection (RFC 4253 §11.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Disconnect<'a> {
    /// Why, as a number of RFC 4250 §4.2.2; see [`DisconnectReason`].
    pub reason: u32,
    /// Why, for people. The peer's bytes: escape before showing.
    pub description: &'a [u8],
}

impl<'a> Disconnect<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them. A missing language tag is allowed: some peers leave it out.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
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
            reason,
            description,
        } = *self;
        w.u8(number::DISCONNECT);
        w.u32(reason);
        w.string(description);
        w.string(b"");
    }
}

/// Why a side disconnects (RFC 4250 §4.2.2); numbers without a name are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DisconnectReason(pub u32);

#[expect(missing_docs, reason = "the names are those of RFC 4250 §4.2.2")]
impl DisconnectReason {
    pub const HOST_NOT_ALLOWED_TO_CONNECT: Self = Self(1);
    pub const PROTOCOL_ERROR: Self = Self(2);
    pub const KEY_EXCHANGE_FAILED: Self = Self(3);
    pub const MAC_ERROR: Self = Self(5);
    pub const SERVICE_NOT_AVAILABLE: Self = Self(7);
    pub const PROTOCOL_VERSION_NOT_SUPPORTED: Self = Self(8);
    pub const HOST_KEY_NOT_VERIFIABLE: Self = Self(9);
    pub const CONNECTION_LOST: Self = Self(10);
    pub const BY_APPLICATION: Self = Self(11);
    pub const TOO_MANY_CONNECTIONS: Self = Self(12);
    pub const AUTH_CANCELLED_BY_USER: Self = Self(13);
    pub const NO_MORE_AUTH_METHODS_AVAILABLE: Self = Self(14);
}

/// `SSH_MSG_UNIMPLEMENTED`: the receiver did not know a message (RFC 4253 §11.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unimplemented {
    /// Packet sequence number of the message that was not known.
    pub sequence: u32,
}

impl Unimplemented {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let message = Self { sequence: r.u32()? };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { sequence } = *self;
        w.u8(number::UNIMPLEMENTED);
        w.u32(sequence);
    }
}

/// `SSH_MSG_SERVICE_REQUEST` or `SSH_MSG_SERVICE_ACCEPT` (RFC 4253 §10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Service<'a> {
    /// Name of the service.
    pub name: &'a [u8],
}

impl<'a> Service<'a> {
    /// The authentication service (RFC 4252), the only one that is asked for.
    pub const USERAUTH: &'static [u8] = b"ssh-userauth";

    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            name: r.string(ketch_wire::NAME_LEN_MAX)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload; `number` is that of the request or of the acceptance.
    pub fn encode(&self, number: u8, w: &mut Writer<'_>) {
        let Self { name } = *self;
        w.u8(number);
        w.string(name);
    }
}

/// `SSH_MSG_EXT_INFO`: what a side can do beyond the RFCs (RFC 8308 §2.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExtInfo<'a> {
    /// Content of `server-sig-algs`: signature algorithms that the server verifies (RFC 8308 §3.1).
    pub server_sig_algs: Option<&'a [u8]>,
}

impl<'a> ExtInfo<'a> {
    /// Name of the extension that lists signature algorithms (RFC 8308 §3.1).
    pub const SERVER_SIG_ALGS: &'static [u8] = b"server-sig-algs";

    /// Decodes the fields after the message number; unknown extensions are passed over.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] for more than [`EXTENSIONS_MAX`].
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let mut message = Self {
            server_sig_algs: None,
        };
        let count = r.u32()?;
        if count > EXTENSIONS_MAX {
            return Err(DecodeError::BadValue {
                field: "nr-extensions",
            });
        }
        for _ in 0..count {
            let (name, value) = (r.string(TEXT_LEN_MAX)?, r.string(TEXT_LEN_MAX)?);
            if name == Self::SERVER_SIG_ALGS {
                message.server_sig_algs = Some(value);
            }
        }
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { server_sig_algs } = *self;
        w.u8(number::EXT_INFO);
        w.u32(u32::from(server_sig_algs.is_some()));
        if let Some(algorithms) = server_sig_algs {
            w.string(Self::SERVER_SIG_ALGS);
            w.string(algorithms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(encode: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut Writer::new(&mut bytes));
        bytes
    }

    #[test]
    fn a_disconnect_without_a_language_tag_is_read() {
        let bytes = [0, 0, 0, 11, 0, 0, 0, 3, b'b', b'y', b'e'];
        let message = Disconnect::decode(Reader::new(&bytes)).unwrap();
        assert_eq!(
            message,
            Disconnect {
                reason: 11,
                description: b"bye"
            }
        );
    }

    #[test]
    fn a_flood_of_extensions_is_refused_by_its_count() {
        let bytes = [0xff; 4];
        assert_eq!(
            ExtInfo::decode(Reader::new(&bytes)),
            Err(DecodeError::BadValue {
                field: "nr-extensions"
            })
        );
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(
            number in any::<u32>(), text in proptest::collection::vec(any::<u8>(), 0..60),
            algorithms in proptest::option::of("[a-z,-]{0,60}"),
        ) {
            let message = Disconnect { reason: number, description: &text };
            let bytes = payload(|w| message.encode(w));
            prop_assert_eq!(Disconnect::decode(Reader::new(&bytes[1..])), Ok(message));

            let message = Unimplemented { sequence: number };
            let bytes = payload(|w| message.encode(w));
            prop_assert_eq!(Unimplemented::decode(Reader::new(&bytes[1..])), Ok(message));

            let message = Service { name: &text };
            let bytes = payload(|w| message.encode(number::SERVICE_REQUEST, w));
            prop_assert_eq!(Service::decode(Reader::new(&bytes[1..])), Ok(message));

            let message = ExtInfo { server_sig_algs: algorithms.as_ref().map(String::as_bytes) };
            let bytes = payload(|w| message.encode(w));
            prop_assert_eq!(ExtInfo::decode(Reader::new(&bytes[1..])), Ok(message));
            for cut in 1..bytes.len() {
                prop_assert!(ExtInfo::decode(Reader::new(&bytes[1..cut])).is_err());
            }
        }
    }
}
