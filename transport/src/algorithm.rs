//! The algorithms of RFC 4253 §6 to §7 as types, and how two offers become a choice.
//!
//! Names exist only here: everything behind [`negotiate`] compares enums. Negotiation is a pure
//! function of two [`KexInit`]s and is tested as a table.

use std::fmt;

pub use ketch_keys::SignatureAlgorithm;

use crate::message::kex::KexInit;

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

/// MACs that are named in our `KEXINIT` although none is used: every cipher brings its own tag.
///
/// RFC 4253 §7.1 wants at least one name in each list, and some peers look for a common one before
/// they look at the cipher.
pub(crate) const MAC_NAMES: [&str; 2] = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"];
/// The only compression: none.
pub(crate) const COMPRESSION_NAMES: [&str; 1] = ["none"];

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

/// What a side offers, each list in order of preference.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Preferences {
    /// Key exchange methods.
    pub kex: Vec<Kex>,
    /// Host key algorithms: those a client accepts, or a server has keys for.
    pub host_key: Vec<SignatureAlgorithm>,
    /// Ciphers, the same in both directions.
    pub cipher: Vec<CipherName>,
}

impl Preferences {
    /// The secure and fast default: AES-GCM first where the processor has instructions for AES,
    /// ChaCha20-Poly1305 first elsewhere.
    #[must_use]
    pub fn modern() -> Self {
        use CipherName::{Aes128Gcm, Aes256Gcm, ChaCha20Poly1305};
        let cipher = if has_aes_instructions() {
            vec![Aes256Gcm, Aes128Gcm, ChaCha20Poly1305]
        } else {
            vec![ChaCha20Poly1305, Aes256Gcm, Aes128Gcm]
        };
        Self {
            kex: vec![Kex::Curve25519Sha256, Kex::Curve25519Sha256Libssh],
            host_key: vec![SignatureAlgorithm::Ed25519],
            cipher,
        }
    }
}

impl Default for Preferences {
    fn default() -> Self {
        Self::modern()
    }
}

fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// What two offers agree on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Negotiated {
    /// The key exchange method.
    pub kex: Kex,
    /// The server's signature algorithm.
    pub host_key: SignatureAlgorithm,
    /// Cipher from client to server.
    pub client_to_server: CipherName,
    /// Cipher from server to client.
    pub server_to_client: CipherName,
    /// Both sides keep strict key exchange.
    pub strict: bool,
    /// The client said that it reads `EXT_INFO`.
    pub client_reads_ext_info: bool,
    /// The server said that it reads `EXT_INFO`.
    pub server_reads_ext_info: bool,
    /// The first choices of both sides are the same, so a guessed packet counts (RFC 4253 §7).
    pub guess_is_right: bool,
}

/// Two offers have nothing in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoCommonAlgorithm {
    /// Which list: "key exchange", "host key", "cipher".
    pub category: &'static str,
    /// What the client offers.
    pub client: String,
    /// What the server offers.
    pub server: String,
}

impl fmt::Display for NoCommonAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            category,
            client,
            server,
        } = self;
        write!(
            f,
            "no common {category} algorithm: client offers {client}; server offers {server}"
        )
    }
}

impl std::error::Error for NoCommonAlgorithm {}

/// Chooses as RFC 4253 §7.1 has it: the first of the client's that the server has too.
///
/// # Errors
/// [`NoCommonAlgorithm`] names the list in which the two sides share nothing that we implement.
pub fn negotiate(
    client: &KexInit<'_>,
    server: &KexInit<'_>,
) -> Result<Negotiated, NoCommonAlgorithm> {
    let kex = choose("key exchange", client.kex, server.kex, Kex::from_name)?;
    let host_key = choose(
        "host key",
        client.host_key,
        server.host_key,
        SignatureAlgorithm::from_name,
    )?;
    let cipher = |client, server| {
        choose("cipher", client, server, |name| {
            CipherName::from_name(name).filter(|cipher| cipher.is_aead())
        })
    };
    Ok(Negotiated {
        kex,
        host_key,
        client_to_server: cipher(
            client.cipher_client_to_server,
            server.cipher_client_to_server,
        )?,
        server_to_client: cipher(
            client.cipher_server_to_client,
            server.cipher_server_to_client,
        )?,
        strict: client.kex.contains(marker::STRICT_CLIENT)
            && server.kex.contains(marker::STRICT_SERVER),
        client_reads_ext_info: client.kex.contains(marker::EXT_INFO_CLIENT),
        server_reads_ext_info: server.kex.contains(marker::EXT_INFO_SERVER),
        guess_is_right: client.kex.first() == server.kex.first()
            && client.host_key.first() == server.host_key.first(),
    })
}

fn choose<T>(
    category: &'static str,
    client: ketch_wire::NameList<'_>,
    server: ketch_wire::NameList<'_>,
    from_name: impl Fn(&str) -> Option<T>,
) -> Result<T, NoCommonAlgorithm> {
    client
        .iter()
        .filter(|name| server.contains(name))
        .find_map(from_name)
        .ok_or_else(|| NoCommonAlgorithm {
            category,
            client: client.as_str().to_owned(),
            server: server.as_str().to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_wire::NameList;

    fn offer<'a>(kex: &'a str, host_key: &'a str, cipher: &'a str) -> KexInit<'a> {
        let list = |names| NameList::new(names).unwrap();
        KexInit {
            cookie: [0; 16],
            kex: list(kex),
            host_key: list(host_key),
            cipher_client_to_server: list(cipher),
            cipher_server_to_client: list(cipher),
            mac_client_to_server: list("hmac-sha2-256"),
            mac_server_to_client: list("hmac-sha2-256"),
            compression_client_to_server: list("none"),
            compression_server_to_client: list("none"),
            languages_client_to_server: NameList::EMPTY,
            languages_server_to_client: NameList::EMPTY,
            first_kex_packet_follows: false,
        }
    }

    #[test]
    fn the_clients_first_choice_that_the_server_has_wins() {
        let client = offer(
            "sntrup761x25519-sha512,curve25519-sha256,ext-info-c,kex-strict-c-v00@openssh.com",
            "ssh-dss,ssh-ed25519",
            "chacha20-poly1305@openssh.com,aes128-gcm@openssh.com",
        );
        let server = offer(
            "sntrup761x25519-sha512,curve25519-sha256@libssh.org,curve25519-sha256",
            "ssh-ed25519,ssh-dss",
            "aes256-gcm@openssh.com,aes128-gcm@openssh.com",
        );
        let chosen = negotiate(&client, &server).unwrap();
        // A name that both have but that is not implemented here is passed over.
        assert_eq!(chosen.kex, Kex::Curve25519Sha256);
        assert_eq!(chosen.host_key, SignatureAlgorithm::Ed25519);
        assert_eq!(chosen.client_to_server, CipherName::Aes128Gcm);
        assert!(chosen.client_reads_ext_info && !chosen.server_reads_ext_info);
        assert!(!chosen.strict, "one side's mark is not enough");
        assert!(
            !chosen.guess_is_right,
            "the first host key algorithms differ"
        );
    }

    #[test]
    fn both_marks_make_it_strict() {
        let client = offer(
            "curve25519-sha256,kex-strict-c-v00@openssh.com",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
        );
        let server = offer(
            "curve25519-sha256,kex-strict-s-v00@openssh.com",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
        );
        let chosen = negotiate(&client, &server).unwrap();
        assert!(chosen.strict && chosen.guess_is_right);
        let crossed = offer(
            "curve25519-sha256,kex-strict-c-v00@openssh.com",
            "ssh-ed25519",
            "aes128-gcm@openssh.com",
        );
        assert!(
            !negotiate(&client, &crossed).unwrap().strict,
            "the server has a mark of its own"
        );
    }

    #[test]
    fn nothing_in_common_names_the_list() {
        let client = offer("curve25519-sha256", "ssh-ed25519", "aes128-gcm@openssh.com");
        for (server, category) in [
            (
                offer(
                    "ecdh-sha2-nistp256",
                    "ssh-ed25519",
                    "aes128-gcm@openssh.com",
                ),
                "key exchange",
            ),
            (
                offer("curve25519-sha256", "ssh-rsa", "aes128-gcm@openssh.com"),
                "host key",
            ),
            (
                offer("curve25519-sha256", "ssh-ed25519", "aes128-cbc"),
                "cipher",
            ),
            (
                offer("curve25519-sha256", "ssh-ed25519", "aes128-gcm"),
                "cipher",
            ),
        ] {
            assert_eq!(negotiate(&client, &server).unwrap_err().category, category);
        }
    }

    #[test]
    fn names_are_found_letter_for_letter() {
        for cipher in CipherName::ALL {
            assert_eq!(CipherName::from_name(cipher.name()), Some(*cipher));
        }
        assert_eq!(CipherName::from_name("AES128-GCM@openssh.com"), None);
    }
}
