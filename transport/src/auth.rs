//! Authentication (RFC 4252): who may come after whom is the same for both roles, what is asked and
//! answered is not, so each role has a machine of its own.
//!
//! Neither machine decides anything: the client's asks for a credential and for a signature, the
//! server's hands an attempt up, and both wait for the answer. While they wait no further packet is
//! taken; what came early stays in the receive arena, which is the bound.

pub(crate) mod client;
pub(crate) mod server;

use std::fmt;

use zeroize::Zeroizing;

use crate::crypto::hostkey::PublicKey;

/// With what a client tries to log in.
pub enum Credential {
    /// Nothing: asks which methods there are (RFC 4252 §5.2).
    None,
    /// A password (RFC 4252 §8).
    Password(Zeroizing<String>),
    /// A key; a signature is asked for next (RFC 4252 §7).
    PublicKey(PublicKey),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password(_) => f.write_str("Password(..)"),
            Self::PublicKey(key) => f.debug_tuple("PublicKey").field(key).finish(),
        }
    }
}

/// An attempt to log in that the server has to decide.
#[derive(Debug)]
pub struct AuthAttempt {
    /// Who wants in: at most 255 bytes, any characters.
    pub user: String,
    /// How.
    pub method: Method,
}

/// How somebody wants in.
#[non_exhaustive]
pub enum Method {
    /// Without proof; usually to learn which methods there are.
    None,
    /// With this password.
    Password(Zeroizing<String>),
    /// Would this key do? Nothing is proved yet.
    PublicKeyQuery(PublicKey),
    /// With this key, whose signature over this session was verified.
    PublicKey(PublicKey),
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password(_) => f.write_str("Password(..)"),
            Self::PublicKeyQuery(key) => f.debug_tuple("PublicKeyQuery").field(key).finish(),
            Self::PublicKey(key) => f.debug_tuple("PublicKey").field(key).finish(),
        }
    }
}
