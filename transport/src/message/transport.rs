//! Messages of the transport layer that may come at any time, and service requests
//! (RFC 4253 §10 and §11, RFC 8308 §2.3).

use ketch_wire::{DecodeError, NameList, Reader, Writer};

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
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExtInfo<'a> {
    /// `server-sig-algs`: signature algorithms that the server verifies (RFC 8308 §3.1).
    pub server_sig_algs: Option<NameList<'a>>,
    /// `ping@openssh.com` in its version 0: `PING` is answered (PROTOCOL §1.10).
    pub ping: bool,
    /// `publickey-hostbound@openssh.com` in its version 0: signatures of users may cover the host
    /// key, too (PROTOCOL §3.1).
    pub host_bound: bool,
}

impl<'a> ExtInfo<'a> {
    const SERVER_SIG_ALGS: &'static [u8] = b"server-sig-algs";
    const PING: &'static [u8] = b"ping@openssh.com";
    const HOST_BOUND: &'static [u8] = b"publickey-hostbound@openssh.com";
    /// The only version of OpenSSH's extensions that is known.
    const VERSION: &'static [u8] = b"0";

    /// Decodes the fields after the message number; unknown extensions are passed over. Of two with
    /// one name the later counts, as RFC 8308 §2.5 has it of two messages.
    ///
    /// # Errors
    /// As [`Reader`] has them, and [`DecodeError::BadValue`] for more than [`EXTENSIONS_MAX`].
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        let count = r.u32()?;
        if count > EXTENSIONS_MAX {
            return Err(DecodeError::BadValue {
                field: "nr-extensions",
            });
        }
        for _ in 0..count {
            let (name, mut value) = (r.string(TEXT_LEN_MAX)?, r);
            let content = r.string(TEXT_LEN_MAX)?;
            match name {
                Self::SERVER_SIG_ALGS => message.server_sig_algs = Some(value.name_list()?),
                Self::PING => message.ping = content == Self::VERSION,
                Self::HOST_BOUND => message.host_bound = content == Self::VERSION,
                _ => {}
            }
        }
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            server_sig_algs,
            ping,
            host_bound,
        } = *self;
        w.u8(number::EXT_INFO);
        let count = [server_sig_algs.is_some(), ping, host_bound];
        w.u32(count.into_iter().map(u32::from).sum());
        if let Some(algorithms) = server_sig_algs {
            w.string(Self::SERVER_SIG_ALGS);
            w.name_list(algorithms);
        }
        if ping {
            w.string(Self::PING);
            w.string(Self::VERSION);
        }
        if host_bound {
            w.string(Self::HOST_BOUND);
            w.string(Self::VERSION);
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

    #[test]
    fn extensions_of_another_version_are_others() {
        let extension = |name: &[u8], value: &[u8]| {
            let mut bytes = payload(|w| w.u32(2));
            let mut w = Writer::new(&mut bytes);
            for field in [&b"no-flow-control"[..], b"p", name, value] {
                w.string(field);
            }
            ExtInfo::decode(Reader::new(&bytes)).map(|m| (m.ping, m.host_bound))
        };
        assert_eq!(extension(ExtInfo::PING, b"0"), Ok((true, false)));
        assert_eq!(extension(ExtInfo::PING, b"1"), Ok((false, false)));
        assert_eq!(extension(ExtInfo::HOST_BOUND, b"0"), Ok((false, true)));
        assert_eq!(extension(ExtInfo::HOST_BOUND, b""), Ok((false, false)));
        for list in [&b"a,,b"[..], b",", b"a b"] {
            assert!(extension(ExtInfo::SERVER_SIG_ALGS, list).is_err());
        }
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(
            number in any::<u32>(), text in proptest::collection::vec(any::<u8>(), 0..60),
            algorithms in proptest::option::of("[a-z-]{1,20}(,[a-z-]{1,20}){0,3}"),
            ping in any::<bool>(), host_bound in any::<bool>(),
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

            let server_sig_algs = algorithms.as_ref().map(|names| NameList::new(names).unwrap());
            let message = ExtInfo { server_sig_algs, ping, host_bound };
            let bytes = payload(|w| message.encode(w));
            prop_assert_eq!(ExtInfo::decode(Reader::new(&bytes[1..])), Ok(message));
            for cut in 1..bytes.len() {
                prop_assert!(ExtInfo::decode(Reader::new(&bytes[1..cut])).is_err());
            }
        }
    }
}
