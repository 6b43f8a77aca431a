//! Authentication (RFC 4252, RFC 4256): who may come after whom is the same for both roles, what is
//! asked and answered is not, so each role has a machine of its own.
//!
//! Neither machine decides anything: the client's asks for a credential, for a signature and for
//! answers, the server's hands an attempt up, and both wait for the answer. While they wait no
//! further packet is taken; what came early stays in the receive arena, which is the bound.

pub(crate) mod client;
pub(crate) mod server;

use std::fmt;

use ketch_keys::{KeyType, Presence, PublicKey, SignatureAlgorithm};
use ketch_wire::Writer;
use zeroize::Zeroizing;

use crate::message::auth::encode_signed_data;

pub use crate::message::auth::{PASSWORD_LEN_MAX, PROMPTS_MAX, USER_LEN_MAX};

/// With what a client tries to log in.
#[derive(Clone)]
#[non_exhaustive]
pub enum Credential {
    /// Nothing: asks which methods there are (RFC 4252 §5.2).
    None,
    /// A password (RFC 4252 §8).
    Password(Zeroizing<String>),
    /// A password that expired, and the one to take its place (RFC 4252 §8).
    PasswordChange {
        /// The password that expired.
        old: Zeroizing<String>,
        /// The new one.
        new: Zeroizing<String>,
    },
    /// A key; a signature is asked for next (RFC 4252 §7).
    PublicKey {
        /// The key, or a certificate for it.
        key: PublicKey,
        /// With what it signs: one of [`PublicKey::algorithms`].
        algorithm: SignatureAlgorithm,
        /// Whether the server is asked first if the key would do, which costs a round trip. It is
        /// worth it only where a signature means a question to the user.
        probe: bool,
    },
    /// Whatever the server asks the user (RFC 4256).
    KeyboardInteractive,
}

impl Credential {
    /// A key or certificate with the preferred one of its algorithms, signed for straight away.
    #[must_use]
    pub fn public_key(key: PublicKey) -> Self {
        let algorithm = key.algorithms()[0]; // every type has one
        Self::PublicKey {
            key,
            algorithm,
            probe: false,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password(_) => f.write_str("Password(..)"),
            Self::PasswordChange { .. } => f.write_str("PasswordChange { .. }"),
            Self::PublicKey {
                key,
                algorithm,
                probe,
            } => f
                .debug_struct("PublicKey")
                .field("key", key)
                .field("algorithm", algorithm)
                .field("probe", probe)
                .finish(),
            Self::KeyboardInteractive => f.write_str("KeyboardInteractive"),
        }
    }
}

/// Questions that a server has for the user (RFC 4256 §3.2).
///
/// A client gets them as the server wrote them: texts of a peer, with invalid UTF-8 replaced, which
/// have to be escaped before they reach a terminal, and to be shown as the server's words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Questions {
    /// A heading; often empty.
    pub name: String,
    /// What goes before the questions; often empty.
    pub instruction: String,
    /// The questions, at most [`PROMPTS_MAX`]. There may be none: the answer is then empty, too.
    pub prompts: Vec<Prompt>,
}

/// One question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prompt {
    /// The question.
    pub text: String,
    /// Whether the answer may be shown while it is typed.
    pub echo: bool,
}

/// An attempt to log in that the server has to decide.
#[derive(Debug)]
pub struct AuthAttempt {
    /// Who wants in: at most [`USER_LEN_MAX`] bytes, any characters. Look it up as a whole, and make
    /// no path and no command of it.
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
    /// With this password, to be changed to a new one.
    PasswordChange {
        /// The password that expired.
        old: Zeroizing<String>,
        /// The new one.
        new: Zeroizing<String>,
    },
    /// Would this key do? Nothing is proved yet.
    PublicKeyQuery {
        /// The key or certificate.
        key: PublicKey,
        /// With what it would sign.
        algorithm: SignatureAlgorithm,
    },
    /// With this key, whose signature over this session was verified.
    ///
    /// Of a certificate nothing else was: who signed it, for whom and for how long is for
    /// [`Certificate::check`](ketch_keys::Certificate::check).
    PublicKey {
        /// The key or certificate.
        key: PublicKey,
        /// With what it signed.
        algorithm: SignatureAlgorithm,
        /// What a security key says of the person at it; `None` for all other keys. A signature
        /// without touch counts only where the key's entry says so.
        presence: Option<Presence>,
    },
    /// By answering questions, which are the server's to ask.
    KeyboardInteractive,
    /// With these answers, as many as there were questions.
    Answers(Vec<Zeroizing<String>>),
    /// With what can be nobody's: by a method that is not offered, with a key that is none or of
    /// another algorithm than is said, a signature that does not fit, the wrong number of answers.
    /// It is rejected whatever the verdict; it is told so that this takes no less time than
    /// anything else that is wrong.
    Unusable,
}

impl Method {
    /// The method's name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Password(_) | Self::PasswordChange { .. } => "password",
            Self::PublicKeyQuery { .. } | Self::PublicKey { .. } => "publickey",
            Self::KeyboardInteractive | Self::Answers(_) => "keyboard-interactive",
            Self::Unusable => "unusable",
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password(_) => f.write_str("Password(..)"),
            Self::PasswordChange { .. } => f.write_str("PasswordChange { .. }"),
            Self::PublicKeyQuery { key, algorithm } => f
                .debug_tuple("PublicKeyQuery")
                .field(key)
                .field(algorithm)
                .finish(),
            Self::PublicKey {
                key,
                algorithm,
                presence,
            } => f
                .debug_tuple("PublicKey")
                .field(key)
                .field(algorithm)
                .field(presence)
                .finish(),
            Self::KeyboardInteractive => f.write_str("KeyboardInteractive"),
            Self::Answers(answers) => write!(f, "Answers({})", answers.len()),
            Self::Unusable => f.write_str("Unusable"),
        }
    }
}

/// With what a client should sign for a server that verifies `theirs`, where `ours` are allowed,
/// preferred first; more than one where only trying can tell.
///
/// A key type that has one algorithm uses it, whatever the server lists: lists are not complete with
/// every server. An RSA key uses what both sides have; where the server says nothing, SHA-512 comes
/// first, since a server without RFC 8308 may well have RFC 8332, and SHA-1 last, if it is allowed.
#[must_use]
pub fn signature_algorithms(
    key: &PublicKey,
    theirs: Option<&[SignatureAlgorithm]>,
    ours: &[SignatureAlgorithm],
) -> Vec<SignatureAlgorithm> {
    let allowed = || {
        let algorithms = key.algorithms().iter().copied();
        algorithms.filter(|algorithm| ours.contains(algorithm))
    };
    if key.key_type() != KeyType::Rsa {
        return allowed().take(1).collect();
    }
    match theirs {
        Some(theirs) => {
            // Servers list plain algorithms, and mean certificates as well.
            let is_listed = |algorithm: &SignatureAlgorithm| {
                theirs.contains(algorithm) || theirs.contains(&algorithm.plain())
            };
            let mut shared = allowed().filter(is_listed);
            shared
                .next()
                .or_else(|| allowed().next())
                .into_iter()
                .collect()
        }
        None => {
            let sha_1 =
                |algorithm: &SignatureAlgorithm| algorithm.plain() == SignatureAlgorithm::RsaSha1;
            let mut tried: Vec<_> = allowed().filter(|a| !sha_1(a)).take(1).collect();
            tried.extend(allowed().filter(sha_1));
            tried
        }
    }
}

/// Whether a key is one that preferences allow: its algorithm, and an RSA key's length.
fn is_allowed(
    key: &PublicKey,
    algorithm: SignatureAlgorithm,
    ours: &[SignatureAlgorithm],
    rsa_bits_min: u32,
) -> bool {
    key.algorithms().contains(&algorithm)
        && ours.contains(&algorithm)
        && key.rsa_bits().is_none_or(|bits| bits >= rsa_bits_min)
}

/// What a user's signature covers beside the request itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    /// The session identifier.
    pub(crate) id: &'a [u8],
    /// The host key of the first exchange, as a blob.
    pub(crate) host_key: Option<&'a [u8]>,
}

impl Session<'_> {
    /// What is signed for a request of `user` with `key`; a host-bound one if `host_key` is given.
    fn signed_data(
        self,
        user: &str,
        algorithm: SignatureAlgorithm,
        key: &PublicKey,
        host_key: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut data = Vec::new();
        encode_signed_data(
            &mut Writer::new(&mut data),
            self.id,
            user,
            algorithm.name().as_bytes(),
            key.as_blob(),
            host_key,
        );
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SignatureAlgorithm::{
        EcdsaP256, Ed25519, Ed25519Cert, RsaSha1, RsaSha256, RsaSha512, RsaSha512Cert,
    };

    /// An RSA key of which nothing but the length is looked at.
    fn rsa(bytes: usize) -> PublicKey {
        let mut blob = Vec::new();
        let mut w = Writer::new(&mut blob);
        w.string(b"ssh-rsa");
        w.mpint(&[1, 0, 1]);
        w.mpint(&[&[0x80][..], &vec![1; bytes - 1]].concat());
        PublicKey::from_blob(&blob).unwrap()
    }

    #[test]
    fn a_client_signs_with_what_both_sides_have() {
        let modern = [Ed25519, EcdsaP256, RsaSha512, RsaSha256];
        let legacy = [Ed25519, EcdsaP256, RsaSha512, RsaSha256, RsaSha1];
        let (rsa, ed25519) = (rsa(256), PublicKey::ed25519([1; 32]));
        for (key, theirs, ours, expected) in [
            // One algorithm: whatever the server lists.
            (&ed25519, None, &modern[..], &[Ed25519][..]),
            (&ed25519, Some(&[RsaSha256][..]), &modern, &[Ed25519]),
            (&ed25519, None, &[RsaSha512], &[]),
            // Three: what is listed, the best of it.
            (&rsa, Some(&[RsaSha256, RsaSha512]), &modern, &[RsaSha512]),
            (&rsa, Some(&[RsaSha256]), &modern, &[RsaSha256]),
            (&rsa, Some(&[RsaSha1]), &legacy, &[RsaSha1]),
            (&rsa, Some(&[RsaSha1]), &modern, &[RsaSha512]),
            // Nothing is said: SHA-512, and SHA-1 where old partners are meant.
            (&rsa, None, &modern, &[RsaSha512]),
            (&rsa, None, &legacy, &[RsaSha512, RsaSha1]),
        ] {
            let chosen = signature_algorithms(key, theirs, ours);
            assert_eq!(chosen, expected, "{key:?} {theirs:?} {ours:?}");
        }
    }

    #[test]
    fn a_server_takes_keys_that_its_preferences_allow() {
        let ours = [Ed25519, RsaSha512];
        let ed25519 = PublicKey::ed25519([1; 32]);
        assert!(is_allowed(&ed25519, Ed25519, &ours, 2048));
        assert!(!is_allowed(&ed25519, Ed25519Cert, &ours, 2048));
        assert!(!is_allowed(&ed25519, RsaSha512, &ours, 2048));
        assert!(is_allowed(&rsa(256), RsaSha512, &ours, 2048));
        assert!(!is_allowed(&rsa(256), RsaSha256, &ours, 2048));
        assert!(!is_allowed(&rsa(256), RsaSha512Cert, &ours, 2048));
        assert!(!is_allowed(&rsa(128), RsaSha512, &ours, 2048));
        assert!(is_allowed(&rsa(128), RsaSha512, &ours, 1024));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let secret = || Zeroizing::new("hunter2".to_owned());
        let (old, new) = (secret(), secret());
        let change = Credential::PasswordChange {
            old: old.clone(),
            new: new.clone(),
        };
        for shown in [
            format!("{:?}", Credential::Password(secret())),
            format!("{change:?}"),
            format!("{:?}", Method::Password(secret())),
            format!("{:?}", Method::PasswordChange { old, new }),
            format!("{:?}", Method::Answers(vec![secret()])),
        ] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
