//! Messages of the key exchange (RFC 4253 §7.1 and §8, RFC 4419 §3, RFC 5656 §4).

use ketch_wire::{DecodeError, NameList, Reader, Writer};

use super::number;

/// Longest public value of a key exchange that is read, in bytes.
pub const PUBLIC_VALUE_LEN_MAX: usize = 8 * 1024;
/// Longest host key that is read, in bytes.
pub const HOST_KEY_LEN_MAX: usize = 8 * 1024;
/// Longest signature that is read, in bytes.
pub const SIGNATURE_LEN_MAX: usize = 4 * 1024;

/// `SSH_MSG_KEXINIT`: what a side offers (RFC 4253 §7.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KexInit<'a> {
    /// Random bytes that make the exchange hash unlike any other.
    pub cookie: [u8; 16],
    /// Key exchange methods, and [markers](crate::algorithm::marker).
    pub kex: NameList<'a>,
    /// Host key algorithms.
    pub host_key: NameList<'a>,
    /// Ciphers from client to server.
    pub cipher_client_to_server: NameList<'a>,
    /// Ciphers from server to client.
    pub cipher_server_to_client: NameList<'a>,
    /// MACs from client to server.
    pub mac_client_to_server: NameList<'a>,
    /// MACs from server to client.
    pub mac_server_to_client: NameList<'a>,
    /// Compression from client to server.
    pub compression_client_to_server: NameList<'a>,
    /// Compression from server to client.
    pub compression_server_to_client: NameList<'a>,
    /// Languages from client to server; of no use.
    pub languages_client_to_server: NameList<'a>,
    /// Languages from server to client; of no use.
    pub languages_server_to_client: NameList<'a>,
    /// The next packet is a guess, made before the peer's offer was seen (RFC 4253 §7).
    pub first_kex_packet_follows: bool,
}

impl<'a> KexInit<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            cookie: r.array()?,
            kex: r.name_list()?,
            host_key: r.name_list()?,
            cipher_client_to_server: r.name_list()?,
            cipher_server_to_client: r.name_list()?,
            mac_client_to_server: r.name_list()?,
            mac_server_to_client: r.name_list()?,
            compression_client_to_server: r.name_list()?,
            compression_server_to_client: r.name_list()?,
            languages_client_to_server: r.name_list()?,
            languages_server_to_client: r.name_list()?,
            first_kex_packet_follows: r.bool()?,
        };
        r.u32()?; // reserved
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            cookie,
            kex,
            host_key,
            cipher_client_to_server,
            cipher_server_to_client,
            mac_client_to_server,
            mac_server_to_client,
            compression_client_to_server,
            compression_server_to_client,
            languages_client_to_server,
            languages_server_to_client,
            first_kex_packet_follows,
        } = *self;
        w.u8(number::KEXINIT);
        w.bytes(&cookie);
        w.name_list(kex);
        w.name_list(host_key);
        w.name_list(cipher_client_to_server);
        w.name_list(cipher_server_to_client);
        w.name_list(mac_client_to_server);
        w.name_list(mac_server_to_client);
        w.name_list(compression_client_to_server);
        w.name_list(compression_server_to_client);
        w.name_list(languages_client_to_server);
        w.name_list(languages_server_to_client);
        w.bool(first_kex_packet_follows);
        w.u32(0);
    }
}

/// The client's public value: `SSH_MSG_KEXDH_INIT` (RFC 4253 §8), `SSH_MSG_KEX_ECDH_INIT` (RFC 5656
/// §4) and `SSH_MSG_KEX_DH_GEX_INIT` (RFC 4419 §3), which differ in their numbers alone: an `mpint`
/// and a `string` have the same form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientPublic<'a> {
    /// e or Q_C; what it holds is the method's affair.
    pub public: &'a [u8],
}

impl<'a> ClientPublic<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            public: r.string(PUBLIC_VALUE_LEN_MAX)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload, with the number that the method has for it.
    pub fn encode(&self, number: u8, w: &mut Writer<'_>) {
        let Self { public } = *self;
        w.u8(number);
        w.string(public);
    }
}

/// The server's half and its proof: `SSH_MSG_KEXDH_REPLY` (RFC 4253 §8), `SSH_MSG_KEX_ECDH_REPLY`
/// (RFC 5656 §4) and `SSH_MSG_KEX_DH_GEX_REPLY` (RFC 4419 §3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerReply<'a> {
    /// K_S: the server's public host key or certificate, as a blob.
    pub host_key: &'a [u8],
    /// f or Q_S.
    pub public: &'a [u8],
    /// The signature of the exchange hash, as a blob.
    pub signature: &'a [u8],
}

impl<'a> ServerReply<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            host_key: r.string(HOST_KEY_LEN_MAX)?,
            public: r.string(PUBLIC_VALUE_LEN_MAX)?,
            signature: r.string(SIGNATURE_LEN_MAX)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload, with the number that the method has for it.
    pub fn encode(&self, number: u8, w: &mut Writer<'_>) {
        let Self {
            host_key,
            public,
            signature,
        } = *self;
        w.u8(number);
        w.string(host_key);
        w.string(public);
        w.string(signature);
    }
}

/// `SSH_MSG_KEX_DH_GEX_REQUEST`: which groups the client takes (RFC 4419 §3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupRequest {
    /// Fewest bits of p.
    pub min: u32,
    /// Bits that would be best.
    pub preferred: u32,
    /// Most bits of p.
    pub max: u32,
}

impl GroupRequest {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'_>) -> Result<Self, DecodeError> {
        let message = Self {
            min: r.u32()?,
            preferred: r.u32()?,
            max: r.u32()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            min,
            preferred,
            max,
        } = *self;
        w.u8(number::KEX_DH_GEX_REQUEST);
        w.u32(min);
        w.u32(preferred);
        w.u32(max);
    }
}

/// `SSH_MSG_KEX_DH_GEX_GROUP`: the group that the server chose (RFC 4419 §3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupChoice<'a> {
    /// The safe prime, the content of an `mpint`.
    pub p: &'a [u8],
    /// The generator, the content of an `mpint`.
    pub g: &'a [u8],
}

impl<'a> GroupChoice<'a> {
    /// Decodes the fields after the message number.
    ///
    /// # Errors
    /// As [`Reader`] has them.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            p: r.string(PUBLIC_VALUE_LEN_MAX)?,
            g: r.string(PUBLIC_VALUE_LEN_MAX)?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the whole payload.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { p, g } = *self;
        w.u8(number::KEX_DH_GEX_GROUP);
        w.string(p);
        w.string(g);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn names() -> impl Strategy<Value = String> {
        vec("[a-z0-9@.-]{1,20}", 0..4).prop_map(|names| names.join(","))
    }

    proptest! {
        #[test]
        fn every_kexinit_survives_the_wire(
            cookie in any::<[u8; 16]>(), lists in vec(names(), 10), follows in any::<bool>(),
        ) {
            let list = |index: usize| NameList::new(&lists[index]).unwrap();
            let message = KexInit {
                cookie,
                kex: list(0),
                host_key: list(1),
                cipher_client_to_server: list(2),
                cipher_server_to_client: list(3),
                mac_client_to_server: list(4),
                mac_server_to_client: list(5),
                compression_client_to_server: list(6),
                compression_server_to_client: list(7),
                languages_client_to_server: list(8),
                languages_server_to_client: list(9),
                first_kex_packet_follows: follows,
            };
            let mut bytes = Vec::new();
            message.encode(&mut Writer::new(&mut bytes));
            prop_assert_eq!(KexInit::decode(Reader::new(&bytes[1..])), Ok(message));
            for cut in 1..bytes.len() {
                prop_assert!(KexInit::decode(Reader::new(&bytes[1..cut])).is_err());
            }
        }

        #[test]
        fn every_half_of_the_exchange_survives_the_wire(
            host_key in vec(any::<u8>(), 0..80), public in vec(any::<u8>(), 0..40),
            signature in vec(any::<u8>(), 0..90), bits in any::<[u32; 3]>(),
        ) {
            let written = |encode: &dyn Fn(&mut Writer<'_>)| {
                let mut bytes = Vec::new();
                encode(&mut Writer::new(&mut bytes));
                bytes
            };
            let message = ServerReply { host_key: &host_key, public: &public, signature: &signature };
            let bytes = written(&|w| message.encode(number::KEX_ECDH_REPLY, w));
            prop_assert_eq!(ServerReply::decode(Reader::new(&bytes[1..])), Ok(message));
            let message = ClientPublic { public: &public };
            let bytes = written(&|w| message.encode(number::KEX_ECDH_INIT, w));
            prop_assert_eq!(ClientPublic::decode(Reader::new(&bytes[1..])), Ok(message));
            for cut in 1..bytes.len() {
                prop_assert!(ClientPublic::decode(Reader::new(&bytes[1..cut])).is_err());
            }
            let message = GroupChoice { p: &host_key, g: &public };
            let bytes = written(&|w| message.encode(w));
            prop_assert_eq!(GroupChoice::decode(Reader::new(&bytes[1..])), Ok(message));
            for cut in 1..bytes.len() {
                prop_assert!(GroupChoice::decode(Reader::new(&bytes[1..cut])).is_err());
            }
            let [min, preferred, max] = bits;
            let message = GroupRequest { min, preferred, max };
            let bytes = written(&|w| message.encode(w));
            prop_assert_eq!(GroupRequest::decode(Reader::new(&bytes[1..])), Ok(message));
            for cut in 1..bytes.len() {
                prop_assert!(GroupRequest::decode(Reader::new(&bytes[1..cut])).is_err());
            }
        }
    }
}
