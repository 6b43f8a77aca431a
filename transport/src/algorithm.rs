//! The algorithms of RFC 4253 §6 to §7 as types.
//!
//! Names exist only here: everything behind [`negotiate`](crate::negotiation::negotiate) compares
//! enums. Which are offered stands in [`profile`](crate::profile).

use std::fmt;

pub use ketch_keys::SignatureAlgorithm;

/// Defines an enum of algorithms with their names on the wire.
macro_rules! algorithms {
    ($(#[$doc:meta])* pub enum $type:ident { $($(#[$item:meta])* $variant:ident => $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum $type { $($(#[$item])* $variant,)* }

        impl $type {
            /// All that are implemented.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The algorithm of that name, compared letter for letter.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|each| each.name() == name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

algorithms! {
    /// How the shared secret is made.
    pub enum Kex {
        /// ML-KEM-768 and X25519 with SHA-256 (draft-ietf-sshm-mlkem-hybrid-kex).
        MlKem768X25519 => "mlkem768x25519-sha256",
        /// Streamlined NTRU Prime and X25519 with SHA-512 (draft-ietf-sshm-ntruprime-ssh).
        Sntrup761X25519 => "sntrup761x25519-sha512",
        /// The same under the name it had first.
        Sntrup761X25519OpenSsh => "sntrup761x25519-sha512@openssh.com",
        /// X25519 with SHA-256 (RFC 8731).
        Curve25519Sha256 => "curve25519-sha256",
        /// The same under the name it had before RFC 8731.
        Curve25519Sha256Libssh => "curve25519-sha256@libssh.org",
        /// ECDH on P-256 with SHA-256 (RFC 5656).
        EcdhNistP256 => "ecdh-sha2-nistp256",
        /// ECDH on P-384 with SHA-384 (RFC 5656).
        EcdhNistP384 => "ecdh-sha2-nistp384",
        /// ECDH on P-521 with SHA-512 (RFC 5656).
        EcdhNistP521 => "ecdh-sha2-nistp521",
        /// 2048-bit group of RFC 3526 with SHA-256 (RFC 8268).
        DhGroup14Sha256 => "diffie-hellman-group14-sha256",
        /// 4096-bit group of RFC 3526 with SHA-512 (RFC 8268).
        DhGroup16Sha512 => "diffie-hellman-group16-sha512",
        /// 8192-bit group of RFC 3526 with SHA-512 (RFC 8268).
        DhGroup18Sha512 => "diffie-hellman-group18-sha512",
        /// A group that the server names, with SHA-256 (RFC 4419). Client only.
        DhGroupExchangeSha256 => "diffie-hellman-group-exchange-sha256",
        /// 2048-bit group of RFC 3526 with SHA-1 (RFC 4253 §8.2): for old partners.
        DhGroup14Sha1 => "diffie-hellman-group14-sha1",
        /// 1024-bit group of RFC 2409 with SHA-1 (RFC 4253 §8.1): for old partners.
        DhGroup1Sha1 => "diffie-hellman-group1-sha1",
        /// A group that the server names, with SHA-1 (RFC 4419). Client only, for old partners.
        DhGroupExchangeSha1 => "diffie-hellman-group-exchange-sha1",
    }
}

impl Kex {
    /// Whether a quantum computer does not break it.
    #[must_use]
    pub const fn is_post_quantum(self) -> bool {
        matches!(
            self,
            Self::MlKem768X25519 | Self::Sntrup761X25519 | Self::Sntrup761X25519OpenSsh
        )
    }
}

algorithms! {
    /// How packets are kept secret; the first three keep them whole too, the others need a
    /// [`MacName`] beside them.
    pub enum CipherName {
        /// AES-256 in Galois/Counter Mode (RFC 5647, in OpenSSH's form).
        Aes256Gcm => "aes256-gcm@openssh.com",
        /// AES-128 in Galois/Counter Mode (RFC 5647, in OpenSSH's form).
        Aes128Gcm => "aes128-gcm@openssh.com",
        /// ChaCha20 with Poly1305 (OpenSSH's PROTOCOL.chacha20poly1305).
        ChaCha20Poly1305 => "chacha20-poly1305@openssh.com",
        /// AES-256 in counter mode (RFC 4344 §4).
        Aes256Ctr => "aes256-ctr",
        /// AES-192 in counter mode (RFC 4344 §4).
        Aes192Ctr => "aes192-ctr",
        /// AES-128 in counter mode (RFC 4344 §4).
        Aes128Ctr => "aes128-ctr",
        /// AES-256 in CBC mode (RFC 4253 §6.3): for old partners only.
        Aes256Cbc => "aes256-cbc",
        /// AES-192 in CBC mode (RFC 4253 §6.3): for old partners only.
        Aes192Cbc => "aes192-cbc",
        /// AES-128 in CBC mode (RFC 4253 §6.3): for old partners only.
        Aes128Cbc => "aes128-cbc",
        /// Triple DES in CBC mode (RFC 4253 §6.3): for old partners only.
        TripleDesCbc => "3des-cbc",
    }
}

impl CipherName {
    /// Those that authenticate what they encrypt.
    pub const AEAD: &[Self] = &[Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// Whether it authenticates what it encrypts, so that no MAC is used beside it.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        matches!(
            self,
            Self::Aes256Gcm | Self::Aes128Gcm | Self::ChaCha20Poly1305
        )
    }

    /// Whether it chains blocks (CVE-2008-5161).
    #[must_use]
    pub const fn is_cbc(self) -> bool {
        matches!(
            self,
            Self::Aes256Cbc | Self::Aes192Cbc | Self::Aes128Cbc | Self::TripleDesCbc
        )
    }
}

algorithms! {
    /// How packets are kept whole under a cipher that does not do it itself. Tags have their full
    /// length: the 96-bit forms are not implemented.
    pub enum MacName {
        /// HMAC-SHA-256 of the encrypted packet (OpenSSH PROTOCOL §1.6).
        HmacSha256Etm => "hmac-sha2-256-etm@openssh.com",
        /// HMAC-SHA-512 of the encrypted packet (OpenSSH PROTOCOL §1.6).
        HmacSha512Etm => "hmac-sha2-512-etm@openssh.com",
        /// HMAC-SHA-256 of the plain packet (RFC 6668).
        HmacSha256 => "hmac-sha2-256",
        /// HMAC-SHA-512 of the plain packet (RFC 6668).
        HmacSha512 => "hmac-sha2-512",
        /// HMAC-SHA-1 of the encrypted packet (OpenSSH PROTOCOL §1.6): for old partners only.
        HmacSha1Etm => "hmac-sha1-etm@openssh.com",
        /// HMAC-SHA-1 of the plain packet (RFC 4253 §6.4): for old partners only.
        HmacSha1 => "hmac-sha1",
    }
}

impl MacName {
    /// Whether the tag is that of the encrypted packet, whose length then stays in clear.
    #[must_use]
    pub const fn is_etm(self) -> bool {
        matches!(
            self,
            Self::HmacSha256Etm | Self::HmacSha512Etm | Self::HmacSha1Etm
        )
    }
}

algorithms! {
    /// Whether payloads are compressed before they are sealed (RFC 4253 §6.2).
    pub enum Compression {
        /// They are not.
        None => "none",
        /// With zlib, from the end of authentication on.
        ZlibOpenSsh => "zlib@openssh.com",
    }
}

/// Names in the list of key exchange methods that are no methods but say what a side can do.
pub mod marker {
    /// The client reads `EXT_INFO` (RFC 8308 §2.1).
    pub const EXT_INFO_CLIENT: &str = "ext-info-c";
    /// The server reads `EXT_INFO` (RFC 8308 §2.1).
    pub const EXT_INFO_SERVER: &str = "ext-info-s";
    /// The client keeps strict key exchange (OpenSSH PROTOCOL §1.10).
    pub const STRICT_CLIENT: &str = "kex-strict-c-v00@openssh.com";
    /// The server keeps strict key exchange (OpenSSH PROTOCOL §1.10).
    pub const STRICT_SERVER: &str = "kex-strict-s-v00@openssh.com";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_letter_for_letter() {
        for cipher in CipherName::ALL {
            assert_eq!(CipherName::from_name(cipher.name()), Some(*cipher));
        }
        assert_eq!(CipherName::from_name("AES128-GCM@openssh.com"), None);
    }
}
