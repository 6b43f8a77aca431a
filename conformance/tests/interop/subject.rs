//! What a cell of the matrix is about: one algorithm or way to log in, forced by our side while the
//! peer offers all it has.

use ketch_keys::SignatureAlgorithm;
use ketch_transport::algorithm::{CipherName, Compression, Kex, MacName};
use ketch_transport::info::Algorithms;
use ketch_transport::profile::{Preferences, Profile};

/// One row of the matrix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    Kex(Kex),
    HostKey(SignatureAlgorithm),
    Cipher(CipherName),
    Mac(MacName),
    Compression(Compression),
    UserKey(SignatureAlgorithm),
    Login(Method),
    Rekey,
}

/// A way to log in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    None,
    PublicKey,
    Password,
    KeyboardInteractive,
    /// A key first, then a password.
    KeyThenPassword,
}

impl Method {
    pub(crate) const ALL: [Self; 5] = [
        Self::None,
        Self::PublicKey,
        Self::Password,
        Self::KeyboardInteractive,
        Self::KeyThenPassword,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PublicKey => "publickey",
            Self::Password => "password",
            Self::KeyboardInteractive => "keyboard-interactive",
            Self::KeyThenPassword => "publickey, then password",
        }
    }
}

impl Subject {
    /// Every row, as our own lists have them.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        all.extend(Kex::ALL.iter().copied().map(Self::Kex));
        all.extend(SignatureAlgorithm::ALL.iter().copied().map(Self::HostKey));
        all.extend(CipherName::ALL.iter().copied().map(Self::Cipher));
        all.extend(MacName::ALL.iter().copied().map(Self::Mac));
        all.extend(Compression::ALL.iter().copied().map(Self::Compression));
        all.extend(SignatureAlgorithm::ALL.iter().copied().map(Self::UserKey));
        all.extend(Method::ALL.map(Self::Login));
        all.push(Self::Rekey);
        all
    }

    /// The heading under which the row stands.
    pub(crate) const fn category(self) -> &'static str {
        match self {
            Self::Kex(_) => "Key exchange",
            Self::HostKey(_) => "Host key",
            Self::Cipher(_) => "Cipher",
            Self::Mac(_) => "MAC",
            Self::Compression(_) => "Compression",
            Self::UserKey(_) => "User key",
            Self::Login(_) => "Login",
            Self::Rekey => "Re-exchange",
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kex(kex) => kex.name(),
            Self::HostKey(key) | Self::UserKey(key) => key.name(),
            Self::Cipher(cipher) => cipher.name(),
            Self::Mac(mac) => mac.name(),
            Self::Compression(compression) => compression.name(),
            Self::Login(method) => method.name(),
            Self::Rekey => "begun by the peer",
        }
    }

    /// Whether what was agreed on is what the row is about.
    pub(crate) fn is_agreed(self, algorithms: &Algorithms) -> bool {
        let directions = [algorithms.client_to_server, algorithms.server_to_client];
        match self {
            Self::Kex(kex) => algorithms.kex == kex,
            Self::HostKey(key) => algorithms.host_key == key,
            Self::Cipher(cipher) => directions.iter().all(|suite| suite.cipher == cipher),
            Self::Mac(mac) => directions.iter().all(|suite| suite.mac == Some(mac)),
            Self::Compression(compression) => directions
                .iter()
                .all(|suite| suite.compression == compression),
            Self::UserKey(_) | Self::Login(_) | Self::Rekey => true,
        }
    }

    /// How to log in for this row.
    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Login(method) => method,
            _ => Method::PublicKey,
        }
    }

    /// Whether the row is about something else than logging in.
    pub(crate) const fn is_default_login(self) -> bool {
        !matches!(self, Self::UserKey(_) | Self::Login(_) | Self::Rekey)
    }

    /// The user's key for this row.
    pub(crate) const fn user_key(self) -> SignatureAlgorithm {
        match self {
            Self::UserKey(key) => key,
            _ => SignatureAlgorithm::Ed25519,
        }
    }

    /// The host's key for this row, among those that the peer has too.
    pub(crate) fn host_key(self, offered: &[String]) -> SignatureAlgorithm {
        if let Self::HostKey(key) = self {
            return key;
        }
        use SignatureAlgorithm::{EcdsaP256, Ed25519, RsaSha256, RsaSha512};
        first([Ed25519, EcdsaP256, RsaSha512, RsaSha256], offered, |key| {
            key.name()
        })
    }
}

fn first<T: Copy, const N: usize>(
    wanted: [T; N],
    offered: &[String],
    name: impl Fn(T) -> &'static str,
) -> T {
    let has = |each: &&T| offered.iter().any(|offer| offer == name(**each));
    wanted.iter().find(has).copied().unwrap_or(wanted[0])
}

/// What our side offers in a cell: the algorithm of the row alone, and beside it one of each other
/// kind, which the peer has.
pub(crate) fn preferences(subject: Subject, offer: &crate::offer::Offer) -> Preferences {
    let mut preferences = Profile::Legacy.for_client();
    let kex = match subject {
        Subject::Kex(kex) => kex,
        _ => first(
            [Kex::Curve25519Sha256, Kex::Curve25519Sha256Libssh],
            &offer.kex,
            Kex::name,
        ),
    };
    let mac = match subject {
        Subject::Mac(mac) => mac,
        // Encrypt-then-MAC with CBC is left out for peers that are not known to be strict.
        Subject::Cipher(cipher) if cipher.is_cbc() => first(
            [MacName::HmacSha256, MacName::HmacSha1],
            &offer.mac,
            MacName::name,
        ),
        _ => first(
            [
                MacName::HmacSha256Etm,
                MacName::HmacSha256,
                MacName::HmacSha1,
            ],
            &offer.mac,
            MacName::name,
        ),
    };
    let cipher = match subject {
        Subject::Cipher(cipher) => cipher,
        // A MAC is used only beside a cipher that brings none.
        Subject::Mac(_) => first(
            [CipherName::Aes128Ctr, CipherName::Aes256Ctr],
            &offer.cipher,
            CipherName::name,
        ),
        _ => first(
            [
                CipherName::Aes128Gcm,
                CipherName::Aes128Ctr,
                CipherName::Aes256Ctr,
                CipherName::Aes192Ctr,
            ],
            &offer.cipher,
            CipherName::name,
        ),
    };
    let compression = match subject {
        Subject::Compression(compression) => compression,
        _ => Compression::None,
    };
    preferences.kex = vec![kex];
    preferences.host_key = vec![subject.host_key(&offer.host_key)];
    preferences.cipher = vec![cipher];
    preferences.mac = vec![mac];
    preferences.compression = vec![compression];
    let user_key = subject.user_key();
    preferences.user_key = vec![user_key];
    if user_key.is_certificate() {
        // Servers name the plain algorithm for it, too (`server-sig-algs`).
        preferences.user_key.push(user_key.plain());
    }
    preferences
}
