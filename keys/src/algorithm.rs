//! The names of key types and of signature algorithms.
//!
//! A key type is what a key *is*; a signature algorithm is how it is used. They are not the same:
//! an RSA key signs with three algorithms (RFC 8332), and a certificate's algorithm is not the one
//! that stands in the signature. Names are compared letter for letter, never by their beginning.

use std::fmt;

/// What a key is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum KeyType {
    /// Ed25519 (RFC 8709).
    Ed25519,
    /// ECDSA on NIST P-256 (RFC 5656).
    EcdsaP256,
    /// ECDSA on NIST P-384 (RFC 5656).
    EcdsaP384,
    /// ECDSA on NIST P-521 (RFC 5656).
    EcdsaP521,
    /// RSA (RFC 4253 §6.6).
    Rsa,
    /// Ed25519 in a security key (PROTOCOL.u2f).
    SkEd25519,
    /// ECDSA on NIST P-256 in a security key (PROTOCOL.u2f).
    SkEcdsaP256,
}

impl KeyType {
    /// All that are implemented.
    pub const ALL: &[Self] = &[
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    /// The name at the beginning of a key's blob.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::Rsa => "ssh-rsa",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The name at the beginning of a certificate's blob.
    #[must_use]
    pub const fn certificate_name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519-cert-v01@openssh.com",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384-cert-v01@openssh.com",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521-cert-v01@openssh.com",
            Self::Rsa => "ssh-rsa-cert-v01@openssh.com",
            Self::SkEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
        }
    }

    /// The type of that name, and whether it is the name of its certificates.
    pub(crate) fn from_blob_name(name: &[u8]) -> Option<(Self, bool)> {
        Self::ALL.iter().find_map(|&each| {
            if each.name().as_bytes() == name {
                Some((each, false))
            } else if each.certificate_name().as_bytes() == name {
                Some((each, true))
            } else {
                None
            }
        })
    }

    /// The algorithms that plain keys of this type sign with, preferred first.
    #[must_use]
    pub const fn algorithms(self) -> &'static [SignatureAlgorithm] {
        use SignatureAlgorithm as A;
        match self {
            Self::Ed25519 => &[A::Ed25519],
            Self::EcdsaP256 => &[A::EcdsaP256],
            Self::EcdsaP384 => &[A::EcdsaP384],
            Self::EcdsaP521 => &[A::EcdsaP521],
            Self::Rsa => &[A::RsaSha512, A::RsaSha256, A::RsaSha1],
            Self::SkEd25519 => &[A::SkEd25519],
            Self::SkEcdsaP256 => &[A::SkEcdsaP256],
        }
    }

    /// The algorithms that certificates of keys of this type are used with, preferred first.
    #[must_use]
    pub const fn certificate_algorithms(self) -> &'static [SignatureAlgorithm] {
        use SignatureAlgorithm as A;
        match self {
            Self::Ed25519 => &[A::Ed25519Cert],
            Self::EcdsaP256 => &[A::EcdsaP256Cert],
            Self::EcdsaP384 => &[A::EcdsaP384Cert],
            Self::EcdsaP521 => &[A::EcdsaP521Cert],
            Self::Rsa => &[A::RsaSha512Cert, A::RsaSha256Cert, A::RsaSha1Cert],
            Self::SkEd25519 => &[A::SkEd25519Cert],
            Self::SkEcdsaP256 => &[A::SkEcdsaP256Cert],
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Defines the algorithms: name on the wire, type of the key, algorithm in the signature blob.
macro_rules! signature_algorithms {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $key_type:ident, $plain:ident;)*) => {
        /// How a host or a user proves to hold a key, as it is negotiated and named in requests.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum SignatureAlgorithm { $($(#[$doc])* $variant,)* }

        impl SignatureAlgorithm {
            /// All that are implemented.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The type of the key that it is used with.
            #[must_use]
            pub const fn key_type(self) -> KeyType {
                match self { $(Self::$variant => KeyType::$key_type),* }
            }

            /// The algorithm whose name stands in the signature itself: a certificate's algorithm
            /// without the certificate, any other unchanged (PROTOCOL.certkeys).
            #[must_use]
            pub const fn plain(self) -> Self {
                match self { $(Self::$variant => Self::$plain),* }
            }
        }
    };
}

signature_algorithms! {
    /// Ed25519 (RFC 8709).
    Ed25519 => "ssh-ed25519", Ed25519, Ed25519;
    /// ECDSA on NIST P-256 with SHA-256 (RFC 5656).
    EcdsaP256 => "ecdsa-sha2-nistp256", EcdsaP256, EcdsaP256;
    /// ECDSA on NIST P-384 with SHA-384 (RFC 5656).
    EcdsaP384 => "ecdsa-sha2-nistp384", EcdsaP384, EcdsaP384;
    /// ECDSA on NIST P-521 with SHA-512 (RFC 5656).
    EcdsaP521 => "ecdsa-sha2-nistp521", EcdsaP521, EcdsaP521;
    /// RSA with SHA-512 (RFC 8332).
    RsaSha512 => "rsa-sha2-512", Rsa, RsaSha512;
    /// RSA with SHA-256 (RFC 8332).
    RsaSha256 => "rsa-sha2-256", Rsa, RsaSha256;
    /// RSA with SHA-1 (RFC 4253 §6.6): broken, for old partners by name only.
    RsaSha1 => "ssh-rsa", Rsa, RsaSha1;
    /// Ed25519 in a security key (PROTOCOL.u2f).
    SkEd25519 => "sk-ssh-ed25519@openssh.com", SkEd25519, SkEd25519;
    /// ECDSA on NIST P-256 in a security key (PROTOCOL.u2f).
    SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com", SkEcdsaP256, SkEcdsaP256;
    /// A certificate of an Ed25519 key (PROTOCOL.certkeys).
    Ed25519Cert => "ssh-ed25519-cert-v01@openssh.com", Ed25519, Ed25519;
    /// A certificate of an ECDSA key on NIST P-256.
    EcdsaP256Cert => "ecdsa-sha2-nistp256-cert-v01@openssh.com", EcdsaP256, EcdsaP256;
    /// A certificate of an ECDSA key on NIST P-384.
    EcdsaP384Cert => "ecdsa-sha2-nistp384-cert-v01@openssh.com", EcdsaP384, EcdsaP384;
    /// A certificate of an ECDSA key on NIST P-521.
    EcdsaP521Cert => "ecdsa-sha2-nistp521-cert-v01@openssh.com", EcdsaP521, EcdsaP521;
    /// A certificate of an RSA key, which signs with SHA-512.
    RsaSha512Cert => "rsa-sha2-512-cert-v01@openssh.com", Rsa, RsaSha512;
    /// A certificate of an RSA key, which signs with SHA-256.
    RsaSha256Cert => "rsa-sha2-256-cert-v01@openssh.com", Rsa, RsaSha256;
    /// A certificate of an RSA key, which signs with SHA-1: for old partners by name only.
    RsaSha1Cert => "ssh-rsa-cert-v01@openssh.com", Rsa, RsaSha1;
    /// A certificate of an Ed25519 key in a security key.
    SkEd25519Cert => "sk-ssh-ed25519-cert-v01@openssh.com", SkEd25519, SkEd25519;
    /// A certificate of an ECDSA key on NIST P-256 in a security key.
    SkEcdsaP256Cert => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", SkEcdsaP256, SkEcdsaP256;
}

impl SignatureAlgorithm {
    /// The algorithm of that name, compared letter for letter.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|each| each.name() == name)
    }

    /// Whether the key it is used with is a certificate.
    #[must_use]
    pub fn is_certificate(self) -> bool {
        self != self.plain()
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_algorithm_and_no_other_does() {
        for &algorithm in SignatureAlgorithm::ALL {
            assert_eq!(
                SignatureAlgorithm::from_name(algorithm.name()),
                Some(algorithm)
            );
            let plain = algorithm.plain();
            assert!(!plain.is_certificate(), "{plain}");
            assert_eq!(plain.key_type(), algorithm.key_type());
            assert_eq!(
                algorithm.is_certificate(),
                algorithm.name().contains("-cert-v01@")
            );
            let of_type = if algorithm.is_certificate() {
                algorithm.key_type().certificate_algorithms()
            } else {
                algorithm.key_type().algorithms()
            };
            assert!(of_type.contains(&algorithm), "{algorithm}");
        }
        for name in [
            "",
            "SSH-ED25519",
            "ssh-ed2551",
            "ssh-ed25519 ",
            "ssh-dss",
            "rsa-sha2-512-",
        ] {
            assert_eq!(SignatureAlgorithm::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_blob_is_named_after_its_type_alone() {
        for &key_type in KeyType::ALL {
            let plain = key_type.name().as_bytes();
            let certified = key_type.certificate_name().as_bytes();
            assert_eq!(KeyType::from_blob_name(plain), Some((key_type, false)));
            assert_eq!(KeyType::from_blob_name(certified), Some((key_type, true)));
        }
        // RFC 8332 §3: the new algorithms keep the old name in the key's blob.
        assert_eq!(KeyType::from_blob_name(b"rsa-sha2-512"), None);
    }
}
