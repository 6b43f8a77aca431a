//! The methods of key exchange: two public values cross the wire, one secret is known to both ends.
//!
//! The handshake sees a [`ClientShare`], [`respond`] and a [`SharedSecret`]; which mathematics stand
//! behind them is decided here, once, by [`Kex`]. A public value is the content of the field that
//! carries it: of a `string` for curves and hybrids, of an `mpint` for groups. Both are hashed and
//! sent with their length in front, so the messages and the exchange hash have one shape for all.
//!
//! | file | methods | source |
//! | --- | --- | --- |
//! | `x25519` | `curve25519-sha256` | RFC 8731 |

use std::fmt;

use ketch_wire::Writer;
use zeroize::Zeroizing;

use super::derive::Hash;
use super::{Random, RandomFailed};
use crate::algorithm::Kex;

mod x25519;

impl Kex {
    /// The hash function of the method: for the exchange hash and for the keys.
    pub(crate) const fn hash(self) -> Hash {
        match self {
            Self::Curve25519Sha256 | Self::Curve25519Sha256Libssh => Hash::Sha256,
        }
    }

    /// Whether the server names the group first (RFC 4419).
    pub(crate) const fn is_group_exchange(self) -> bool {
        match self {
            Self::Curve25519Sha256 | Self::Curve25519Sha256Libssh => false,
        }
    }
}

/// The peer's public value is none: of the wrong length, not on the curve, out of range, or one that
/// makes the secret predictable (RFC 8731 §3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadPublicValue;

/// Why a server has no answer to a client's public value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RespondError {
    /// The client's value is bad.
    BadPublicValue,
    /// There is no randomness for a value of our own.
    Random(RandomFailed),
}

impl From<BadPublicValue> for RespondError {
    fn from(_: BadPublicValue) -> Self {
        Self::BadPublicValue
    }
}

impl From<RandomFailed> for RespondError {
    fn from(failed: RandomFailed) -> Self {
        Self::Random(failed)
    }
}

/// The client's secret for one exchange, and the public value that goes with it.
pub(crate) struct ClientShare {
    secret: Secret,
    public: Vec<u8>,
}

enum Secret {
    X25519(x25519::Secret),
}

impl ClientShare {
    /// Makes a secret. `group` is the server's, for the methods where it names one.
    pub(crate) fn generate(
        kex: Kex,
        _group: Option<&Group>,
        random: &mut dyn Random,
    ) -> Result<Self, RandomFailed> {
        match kex {
            Kex::Curve25519Sha256 | Kex::Curve25519Sha256Libssh => {
                let secret = x25519::Secret::generate(random)?;
                Ok(Self {
                    public: secret.public().to_vec(),
                    secret: Secret::X25519(secret),
                })
            }
        }
    }

    /// The content of the field that carries our public value, without its length.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret that this share and the server's public value make.
    pub(crate) fn agree(self, server_public: &[u8]) -> Result<SharedSecret, BadPublicValue> {
        match self.secret {
            Secret::X25519(secret) => Ok(SharedSecret::mpint(&*secret.agree(server_public)?)),
        }
    }
}

impl fmt::Debug for ClientShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientShare").finish_non_exhaustive()
    }
}

/// A server's answer to a client's public value.
pub(crate) struct Response {
    /// The content of the field that carries our public value, without its length.
    pub(crate) public: Vec<u8>,
    pub(crate) secret: SharedSecret,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").finish_non_exhaustive()
    }
}

/// The server's half of a method.
pub(crate) fn respond(
    kex: Kex,
    client_public: &[u8],
    random: &mut dyn Random,
) -> Result<Response, RespondError> {
    match kex {
        Kex::Curve25519Sha256 | Kex::Curve25519Sha256Libssh => {
            let secret = x25519::Secret::generate(random)?;
            Ok(Response {
                public: secret.public().to_vec(),
                secret: SharedSecret::mpint(&*secret.agree(client_public)?),
            })
        }
    }
}

/// K, as it stands in the exchange hash: its length in front.
pub(crate) struct SharedSecret(Zeroizing<Vec<u8>>);

impl SharedSecret {
    /// From the big-endian bytes of a number, which may start with zeros (RFC 4253 §8).
    pub(crate) fn mpint(magnitude: &[u8]) -> Self {
        let mut secret = Self::with_room(magnitude.len());
        Writer::new(&mut secret).mpint(magnitude);
        Self(secret)
    }

    fn with_room(len: usize) -> Zeroizing<Vec<u8>> {
        // Room for the length and a sign, too: a vector that grows leaves copies behind.
        Zeroizing::new(Vec::with_capacity(len + 5))
    }

    pub(super) fn encoded(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret")
    }
}

/// A group that a server named.
#[derive(Debug)]
pub(crate) struct Group(());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_with_a_high_bit_keeps_its_sign() {
        assert_eq!(
            SharedSecret::mpint(&[0, 0x80]).encoded(),
            [0, 0, 0, 2, 0, 0x80]
        );
        assert_eq!(SharedSecret::mpint(&[0, 0]).encoded(), [0, 0, 0, 0]);
    }
}
