//! What a side offers, and the named and dated lists of it.
//!
//! A [`Profile`] is the one place where algorithms are chosen for client, server, command line and
//! tests alike; whoever wants something else starts from its [`Preferences`] and changes them.
//! [`negotiate`](crate::negotiation::negotiate) makes a choice of two sides' preferences.

use std::fmt;
use std::ops::RangeInclusive;

use crate::algorithm::{CipherName, Compression, Kex, MacName, SignatureAlgorithm};

/// What a side offers, each list in order of preference.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Preferences {
    /// Key exchange methods.
    pub kex: Vec<Kex>,
    /// Host key algorithms: those a client accepts; a server offers those of them that its keys can.
    pub host_key: Vec<SignatureAlgorithm>,
    /// Signatures of users: those a server verifies; a client makes no others.
    pub user_key: Vec<SignatureAlgorithm>,
    /// Ciphers, the same in both directions.
    pub cipher: Vec<CipherName>,
    /// MACs for ciphers that bring no tag of their own, the same in both directions.
    pub mac: Vec<MacName>,
    /// Compression, the same in both directions.
    pub compression: Vec<Compression>,
    /// Refuses a peer without strict key exchange (CVE-2023-48795). Without it, such a peer gets no
    /// cipher that is unsafe there.
    pub require_strict: bool,
    /// Fewest bits of an RSA key, a host's or a user's.
    pub rsa_bits_min: u32,
    /// Bits of a group that a server may choose in a group exchange (RFC 4419). No more than 4096 are
    /// asked for unless the least is more, and then the group has to be a published one: a longer
    /// number that is not known takes too long to test.
    pub group_bits: RangeInclusive<u32>,
}

/// A named list of algorithms.
///
/// The name carries the date of the list: a later list is another profile, and what a program asked
/// for by name does not change under it.
///
/// ```
/// use ketch_transport::profile::Profile;
///
/// let preferences = Profile::Compat.for_client();
/// assert_eq!(preferences.kex[0].name(), "mlkem768x25519-sha256");
/// assert_eq!(Profile::from_name("modern"), Some(Profile::Modern));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Profile {
    /// What is secure and fast, and nothing else. The server's default.
    Modern,
    /// [`Profile::Modern`], and after it the NIST curves and the groups with SHA-2, which are sound
    /// but slower or less liked. The client's default; that one of them was chosen is logged.
    #[default]
    Compat,
    /// [`Profile::Compat`], and after it what old partners may still need: SHA-1, small groups, CBC.
    /// For clients alone, by name alone.
    Legacy,
    /// Key exchanges that a quantum computer does not break, and nothing that an audit warns of.
    PqOnly,
}

impl Profile {
    /// All of them, the strictest last.
    pub const ALL: &[Self] = &[Self::Modern, Self::Compat, Self::Legacy, Self::PqOnly];

    /// The name with its date.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Modern => "modern-2026-11",
            Self::Compat => "compat-2026-11",
            Self::Legacy => "legacy-2026-11",
            Self::PqOnly => "pq-only-2026-11",
        }
    }

    /// The profile of that name; without its date, the newest.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let short = |profile: Self| profile.name().trim_end_matches("-2026-11");
        Self::ALL
            .iter()
            .copied()
            .find(|&profile| profile.name() == name || short(profile) == name)
    }

    /// What a client offers.
    #[must_use]
    pub fn for_client(self) -> Preferences {
        let mut preferences = self.of_both_roles();
        if matches!(self, Self::Compat | Self::Legacy) {
            // After the fixed groups: a group of the server's has to be checked first.
            preferences.kex.push(Kex::DhGroupExchangeSha256);
        }
        if self == Self::Legacy {
            add_legacy(&mut preferences);
        }
        preferences
    }

    /// What a server offers; `None` for [`Profile::Legacy`], which is for clients. Group 18 is left to
    /// clients, too: anybody could have a server compute tens of milliseconds with it.
    #[must_use]
    pub fn for_server(self) -> Option<Preferences> {
        let mut preferences = self.of_both_roles();
        preferences.kex.retain(|&kex| kex != Kex::DhGroup18Sha512);
        (self != Self::Legacy).then_some(preferences)
    }

    fn of_both_roles(self) -> Preferences {
        let mut preferences = modern();
        match self {
            Self::Modern => {}
            Self::Compat | Self::Legacy => add_compat(&mut preferences),
            Self::PqOnly => preferences.kex.retain(|kex| kex.is_post_quantum()),
        }
        preferences
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn modern() -> Preferences {
    use CipherName::{Aes128Ctr, Aes128Gcm, Aes256Ctr, Aes256Gcm, ChaCha20Poly1305};
    use SignatureAlgorithm as Sign;
    let cipher = if has_aes_instructions() {
        vec![Aes256Gcm, Aes128Gcm, ChaCha20Poly1305, Aes256Ctr, Aes128Ctr]
    } else {
        vec![ChaCha20Poly1305, Aes256Gcm, Aes128Gcm, Aes256Ctr, Aes128Ctr]
    };
    Preferences {
        kex: vec![
            Kex::MlKem768X25519,
            Kex::Sntrup761X25519,
            Kex::Sntrup761X25519OpenSsh,
            Kex::Curve25519Sha256,
            Kex::Curve25519Sha256Libssh,
        ],
        host_key: vec![
            Sign::Ed25519Cert,
            Sign::RsaSha512Cert,
            Sign::RsaSha256Cert,
            Sign::Ed25519,
            Sign::RsaSha512,
            Sign::RsaSha256,
        ],
        // What a user has is the user's affair: sound types all of them.
        user_key: vec![
            Sign::Ed25519Cert,
            Sign::SkEd25519Cert,
            Sign::EcdsaP256Cert,
            Sign::EcdsaP384Cert,
            Sign::EcdsaP521Cert,
            Sign::SkEcdsaP256Cert,
            Sign::RsaSha512Cert,
            Sign::RsaSha256Cert,
            Sign::Ed25519,
            Sign::SkEd25519,
            Sign::EcdsaP256,
            Sign::EcdsaP384,
            Sign::EcdsaP521,
            Sign::SkEcdsaP256,
            Sign::RsaSha512,
            Sign::RsaSha256,
        ],
        cipher,
        mac: vec![MacName::HmacSha256Etm, MacName::HmacSha512Etm],
        compression: vec![Compression::None],
        require_strict: false,
        rsa_bits_min: 2048,
        group_bits: 3072..=8192,
    }
}

fn add_compat(preferences: &mut Preferences) {
    use SignatureAlgorithm as Sign;
    preferences.kex.extend([
        Kex::EcdhNistP256,
        Kex::EcdhNistP384,
        Kex::EcdhNistP521,
        Kex::DhGroup16Sha512,
        Kex::DhGroup18Sha512,
        Kex::DhGroup14Sha256,
    ]);
    preferences.host_key.extend([
        Sign::EcdsaP256Cert,
        Sign::EcdsaP384Cert,
        Sign::EcdsaP521Cert,
        Sign::EcdsaP256,
        Sign::EcdsaP384,
        Sign::EcdsaP521,
        Sign::SkEd25519Cert,
        Sign::SkEcdsaP256Cert,
        Sign::SkEd25519,
        Sign::SkEcdsaP256,
    ]);
    preferences.cipher.push(CipherName::Aes192Ctr);
    preferences
        .mac
        .extend([MacName::HmacSha256, MacName::HmacSha512]);
}

fn add_legacy(preferences: &mut Preferences) {
    use SignatureAlgorithm as Sign;
    preferences.kex.extend([
        Kex::DhGroupExchangeSha1,
        Kex::DhGroup14Sha1,
        Kex::DhGroup1Sha1,
    ]);
    let sha1 = [Sign::RsaSha1Cert, Sign::RsaSha1];
    preferences.host_key.extend(sha1);
    preferences.user_key.extend(sha1);
    preferences.cipher.extend([
        CipherName::Aes256Cbc,
        CipherName::Aes192Cbc,
        CipherName::Aes128Cbc,
        CipherName::TripleDesCbc,
    ]);
    preferences
        .mac
        .extend([MacName::HmacSha1Etm, MacName::HmacSha1]);
    preferences.rsa_bits_min = 1024;
    preferences.group_bits = 2048..=8192;
}

fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}
