//! SSH keys: what identifies hosts and users, with the files they live in.
//!
//! [`PublicKey`] is a key or a certificate as it stands on the wire, and verifies signatures.
//! [`PrivateKey`] signs; it is made, or read from a [`KeyFile`] of any format that users have.
//! [`Certificate`] is what an authority says of a key, and [`RevocationList`] what nobody trusts
//! any more. Everything here works on bytes: no file is opened, no clock read.
//!
//! | module | what it is | specification |
//! | --- | --- | --- |
//! | `algorithm`, `curve` | names | RFC 4253 §6.6, RFC 5656, RFC 8332, RFC 8709, PROTOCOL.u2f |
//! | `public`, `signature` | key blobs, signature blobs and their verification | the same |
//! | `certificate` | certificates | PROTOCOL.certkeys |
//! | `private`, `rsa` | signing | RFC 8032, RFC 6979, RFC 8017 |
//! | `file` | private key files | PROTOCOL.key, RFC 5958, RFC 8017, RFC 5915, PuTTY's `.ppk` |
//! | `revocation` | revoked keys | PROTOCOL.krl |
//!
//! ```
//! use ketch_keys::{KeyType, PrivateKey, SignatureAlgorithm};
//!
//! let key = PrivateKey::generate(KeyType::Ed25519)?;
//! let signature = key.sign(SignatureAlgorithm::Ed25519, b"data")?;
//! assert!(key.public_key().verify(SignatureAlgorithm::Ed25519, b"data", &signature).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod algorithm;
mod certificate;
mod curve;
mod file;
mod private;
mod public;
mod revocation;
mod rsa;
mod signature;

pub use algorithm::{KeyType, SignatureAlgorithm};
pub use certificate::{
    AddressRange, CERTIFICATE_LEN_MAX, Certificate, CertificateError, CertificateKind,
    CertificateOption, FORCE_COMMAND, PRINCIPALS_MAX, SOURCE_ADDRESS, VERIFY_REQUIRED,
};
pub use file::{KEY_FILE_LEN_MAX, KeyFile, KeyFileError};
pub use private::{GenerateError, PrivateKey, SignError};
pub use public::{KEY_BLOB_LEN_MAX, LineError, PublicKey, RSA_BITS_MAX, RSA_BITS_MIN};
pub use revocation::{REVOCATION_LIST_LEN_MAX, RevocationError, RevocationList};
pub use signature::{BadSignature, Presence, SIGNATURE_LEN_MAX, Verified, signature_blob};
