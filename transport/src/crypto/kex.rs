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
//! | `nist` | `ecdh-sha2-nistp256`, `-nistp384`, `-nistp521` | RFC 5656 |
//! | `hybrid`, `sntrup761` | `mlkem768x25519-sha256`, `sntrup761x25519-sha512` | draft-ietf-sshm-mlkem-hybrid-kex, draft-ietf-sshm-ntruprime-ssh |
//! | `group` | `diffie-hellman-group…` | RFC 4253 §8, RFC 4419, RFC 8268 |
//! | `prime` | none: whether a server's group is safe | |
//!
//! Secrets are wiped when they are dropped as far as the crates beneath allow: `ring` leaves what it
//! had on the stack, and `crypto-bigint` its table of powers.

use std::fmt;

use ketch_wire::Writer;
use zeroize::Zeroizing;

use super::derive::Hash;
use super::{Random, RandomFailed};
use crate::algorithm::Kex;

mod group;
mod hybrid;
mod nist;
mod prime;
mod sntrup761;
mod x25519;

pub(crate) use group::{Group, TESTED_BITS_MAX, UnsafeGroup};
use hybrid::{Hybrid, MlKem768, Sntrup761};
use nist::Curve;

/// What a method is made of.
#[derive(Clone, Copy)]
enum Method {
    X25519,
    Nist(Curve),
    MlKem768X25519,
    Sntrup761X25519,
    /// In a group that is known by its number.
    Group(fn() -> &'static Group),
    /// In a group that the server names.
    GroupExchange,
}

impl Kex {
    const fn method(self) -> (Method, Hash) {
        match self {
            Self::MlKem768X25519 => (Method::MlKem768X25519, Hash::Sha256),
            Self::Sntrup761X25519 | Self::Sntrup761X25519OpenSsh => {
                (Method::Sntrup761X25519, Hash::Sha512)
            }
            Self::Curve25519Sha256 | Self::Curve25519Sha256Libssh => (Method::X25519, Hash::Sha256),
            // The hash goes with the size of the curve: RFC 5656 §6.2.1.
            Self::EcdhNistP256 => (Method::Nist(Curve::P256), Hash::Sha256),
            Self::EcdhNistP384 => (Method::Nist(Curve::P384), Hash::Sha384),
            Self::EcdhNistP521 => (Method::Nist(Curve::P521), Hash::Sha512),
            Self::DhGroup14Sha256 => (Method::Group(Group::modp_2048), Hash::Sha256),
            Self::DhGroup16Sha512 => (Method::Group(Group::modp_4096), Hash::Sha512),
            Self::DhGroup18Sha512 => (Method::Group(Group::modp_8192), Hash::Sha512),
            Self::DhGroupExchangeSha256 => (Method::GroupExchange, Hash::Sha256),
            Self::DhGroup14Sha1 => (Method::Group(Group::modp_2048), Hash::Sha1),
            Self::DhGroup1Sha1 => (Method::Group(Group::modp_1024), Hash::Sha1),
            Self::DhGroupExchangeSha1 => (Method::GroupExchange, Hash::Sha1),
        }
    }

    /// The hash function of the method: for the exchange hash and for the keys.
    pub(crate) const fn hash(self) -> Hash {
        self.method().1
    }

    /// Whether the server names the group first (RFC 4419); only the client's half of that is here.
    pub(crate) const fn is_group_exchange(self) -> bool {
        matches!(self.method().0, Method::GroupExchange)
    }
}

/// The peer's public value is none: of the wrong length, not on the curve, out of range, or one that
/// makes the secret predictable (RFC 8731 §3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct BadPublicValue;

/// Why a server has no answer to a client's public value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RespondError {
    /// The client's value is bad, or the method is a group exchange and there is no group.
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
    Nist(nist::Secret),
    MlKem768X25519(Hybrid<MlKem768>),
    Sntrup761X25519(Hybrid<Sntrup761>),
    Group(group::Secret),
}

impl ClientShare {
    /// Makes a secret. `group` is the one that the server named, and counts for the methods of group
    /// exchange alone.
    ///
    /// # Panics
    /// If the method is a group exchange and there is no group: the handshake asks for one first.
    pub(crate) fn generate(
        kex: Kex,
        group: Option<&Group>,
        random: &mut dyn Random,
    ) -> Result<Self, RandomFailed> {
        let in_group = |group: &Group, random: &mut dyn Random| {
            let secret = group::Secret::generate(group, random)?;
            Ok((secret.public(), Secret::Group(secret)))
        };
        let (public, secret) = match kex.method().0 {
            Method::X25519 => {
                let secret = x25519::Secret::generate(random)?;
                (secret.public().to_vec(), Secret::X25519(secret))
            }
            Method::Nist(curve) => {
                let secret = nist::Secret::generate(curve, random)?;
                (secret.public().to_vec(), Secret::Nist(secret))
            }
            Method::MlKem768X25519 => {
                let secret = Hybrid::generate(random)?;
                (secret.public().to_vec(), Secret::MlKem768X25519(secret))
            }
            Method::Sntrup761X25519 => {
                let secret = Hybrid::generate(random)?;
                (secret.public().to_vec(), Secret::Sntrup761X25519(secret))
            }
            Method::Group(group) => in_group(group(), random)?,
            Method::GroupExchange => {
                in_group(group.expect("a group exchange has a group by now"), random)?
            }
        };
        Ok(Self { secret, public })
    }

    /// The content of the field that carries our public value, without its length.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret that this share and the server's public value make.
    pub(crate) fn agree(self, server_public: &[u8]) -> Result<SharedSecret, BadPublicValue> {
        match self.secret {
            Secret::X25519(secret) => Ok(SharedSecret::mpint(&*secret.agree(server_public)?)),
            Secret::Nist(secret) => secret.agree(server_public),
            Secret::MlKem768X25519(secret) => secret.agree(server_public),
            Secret::Sntrup761X25519(secret) => secret.agree(server_public),
            Secret::Group(secret) => secret.agree(server_public),
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
///
/// A group exchange has no half here: it is refused as a bad value would be, and a server must not
/// offer it.
pub(crate) fn respond(
    kex: Kex,
    client_public: &[u8],
    random: &mut dyn Random,
) -> Result<Response, RespondError> {
    match kex.method().0 {
        Method::X25519 => {
            let secret = x25519::Secret::generate(random)?;
            Ok(Response {
                public: secret.public().to_vec(),
                secret: SharedSecret::mpint(&*secret.agree(client_public)?),
            })
        }
        Method::Nist(curve) => {
            let secret = nist::Secret::generate(curve, random)?;
            Ok(Response {
                public: secret.public().to_vec(),
                secret: secret.agree(client_public)?,
            })
        }
        Method::MlKem768X25519 => hybrid::respond::<MlKem768>(client_public, random),
        Method::Sntrup761X25519 => hybrid::respond::<Sntrup761>(client_public, random),
        Method::Group(group) => {
            // Before anything is raised to a power: garbage must cost nothing.
            let theirs = group().public_value(client_public)?;
            let secret = group::Secret::generate(group(), random)?;
            Ok(Response {
                public: secret.public(),
                secret: secret.agree_with(&theirs),
            })
        }
        Method::GroupExchange => Err(RespondError::BadPublicValue),
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

    /// From the bytes of a hash, all of which count (draft-ietf-sshm-mlkem-hybrid-kex §2.4).
    fn string(bytes: &[u8]) -> Self {
        let mut secret = Self::with_room(bytes.len());
        Writer::new(&mut secret).string(bytes);
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

#[cfg(test)]
mod tests;
