//! Certificates: an authority's word on whom a key belongs to, and for how long (PROTOCOL.certkeys).
//!
//! Decoding says nothing about trust. [`Certificate::check`] verifies the authority's signature,
//! kind, principal, time and options; whether the authority itself is trusted, and not revoked, is
//! for the caller to say. An authority is always a plain key, so certificates cannot be nested.

use std::net::IpAddr;

use ketch_wire::{DecodeError, Reader};

use crate::algorithm::{KeyType, SignatureAlgorithm};
use crate::public::{KEY_BLOB_LEN_MAX, Material, PublicKey};
use crate::signature::SIGNATURE_LEN_MAX;
pub use address::AddressRange;

mod address;
#[cfg(test)]
mod tests;

/// Longest blob of a certificate that is read, in bytes.
pub const CERTIFICATE_LEN_MAX: usize = 16 * 1024;
/// Most principals in a certificate.
pub const PRINCIPALS_MAX: usize = 256;
/// Most critical options, and most extensions, in a certificate.
const OPTIONS_MAX: usize = 64;
/// Longest single text in a certificate, in bytes.
const TEXT_LEN_MAX: usize = CERTIFICATE_LEN_MAX;

/// Critical option: the only command that may be run.
pub const FORCE_COMMAND: &str = "force-command";
/// Critical option: the addresses from which the certificate may be used.
pub const SOURCE_ADDRESS: &str = "source-address";
/// Critical option: a security key has to have verified who is at it.
pub const VERIFY_REQUIRED: &str = "verify-required";

/// What an authority says of a key. It comes as part of a [`PublicKey`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    key: PublicKey,
    serial: u64,
    kind: CertificateKind,
    key_id: String,
    principals: Vec<String>,
    valid_after: u64,
    valid_before: u64,
    critical_options: Vec<CertificateOption>,
    extensions: Vec<CertificateOption>,
    authority: PublicKey,
    /// Everything that is signed: the blob up to the signature.
    signed: Box<[u8]>,
    signature: Box<[u8]>,
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CertificateKind {
    /// A user.
    User,
    /// A host.
    Host,
}

/// A critical option or an extension.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateOption {
    /// Its name, with `@` and a domain if it is somebody's own.
    pub name: String,
    /// Its value, without the length that stands in front; empty for those that only are there.
    pub value: Vec<u8>,
}

impl Certificate {
    /// Reads what follows the name of the type; `blob` is the whole.
    pub(crate) fn decode(
        key_type: KeyType,
        blob: &[u8],
        mut r: Reader<'_>,
    ) -> Result<Self, DecodeError> {
        let bad = |field| DecodeError::BadValue { field };
        let _nonce = r.string(TEXT_LEN_MAX)?;
        let key = PublicKey::plain_of(Material::decode(key_type, &mut r)?);
        let serial = r.u64()?;
        let kind = match r.u32()? {
            1 => CertificateKind::User,
            2 => CertificateKind::Host,
            _ => return Err(bad("type")),
        };
        let key_id = r.text(TEXT_LEN_MAX)?.to_owned();
        let principals = principals(r.string(TEXT_LEN_MAX)?)?;
        let valid_after = r.u64()?;
        let valid_before = r.u64()?;
        let critical_options = options(r.string(TEXT_LEN_MAX)?)?;
        let extensions = options(r.string(TEXT_LEN_MAX)?)?;
        // "reserved" is empty today; OpenSSH passes over what is in it, and so does this.
        let _reserved = r.string(TEXT_LEN_MAX)?;
        let authority = PublicKey::from_plain_blob(r.string(KEY_BLOB_LEN_MAX)?)
            .map_err(|_| bad("signature key"))?;
        let signed = blob
            .len()
            .checked_sub(r.remaining())
            .and_then(|len| blob.get(..len));
        let signature = r.string(SIGNATURE_LEN_MAX)?.into();
        r.finish()?;
        Ok(Self {
            key,
            serial,
            kind,
            key_id,
            principals,
            valid_after,
            valid_before,
            critical_options,
            extensions,
            authority,
            signed: signed.unwrap_or_default().into(),
            signature,
        })
    }

    /// Whether the certificate speaks for `principal` (a user's or host's name) at `now_unix`
    /// (seconds since 1970).
    ///
    /// `enforced` names the critical options that the caller enforces: with any other option the
    /// certificate is refused, for it would promise more than the authority meant. Principals are
    /// compared letter for letter; a certificate without principals is refused, although older
    /// OpenSSH takes it for everybody's. An authority that signs with SHA-1 is refused.
    ///
    /// # Errors
    /// [`CertificateError`] says what does not hold.
    pub fn check(
        &self,
        kind: CertificateKind,
        principal: &str,
        now_unix: u64,
        enforced: &[&str],
    ) -> Result<(), CertificateError> {
        self.verify_signature()?;
        if self.kind != kind {
            return Err(CertificateError::OtherKind { kind: self.kind });
        }
        if now_unix < self.valid_after {
            return Err(CertificateError::NotYetValid {
                valid_after: self.valid_after,
            });
        }
        if now_unix >= self.valid_before {
            return Err(CertificateError::Expired {
                valid_before: self.valid_before,
            });
        }
        for option in &self.critical_options {
            if !enforced.contains(&option.name.as_str()) {
                return Err(CertificateError::UnknownOption {
                    name: option.name.clone(),
                });
            }
            if !option.is_well_formed() {
                return Err(CertificateError::MalformedOption {
                    name: option.name.clone(),
                });
            }
        }
        if self.principals.is_empty() {
            return Err(CertificateError::NoPrincipals);
        }
        if principal.is_empty() || !self.principals.iter().any(|each| each == principal) {
            return Err(CertificateError::OtherPrincipal);
        }
        Ok(())
    }

    fn verify_signature(&self) -> Result<(), CertificateError> {
        // The authority's algorithm is named in its signature alone; it has to be one of its type.
        let named = self
            .signature_algorithm()
            .ok_or(CertificateError::BadSignature)?;
        if named == SignatureAlgorithm::RsaSha1 {
            return Err(CertificateError::WeakSignature);
        }
        let verified = self.authority.verify(named, &self.signed, &self.signature);
        verified
            .map(|_| ())
            .map_err(|_| CertificateError::BadSignature)
    }

    /// The key that is certified.
    pub(crate) const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The number that the authority gave it; 0 if it gave none.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// Whom it is for.
    #[must_use]
    pub const fn kind(&self) -> CertificateKind {
        self.kind
    }

    /// Free text by which the authority knows it. It comes from the peer: escape it in logs.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The users or hosts that it speaks for.
    #[must_use]
    pub fn principals(&self) -> &[String] {
        &self.principals
    }

    /// The second from which it is valid, since 1970.
    #[must_use]
    pub const fn valid_after(&self) -> u64 {
        self.valid_after
    }

    /// The second from which it is no longer valid, since 1970; `u64::MAX` for never.
    #[must_use]
    pub const fn valid_before(&self) -> u64 {
        self.valid_before
    }

    /// The options that have to be enforced by whoever accepts it.
    #[must_use]
    pub fn critical_options(&self) -> &[CertificateOption] {
        &self.critical_options
    }

    /// What it allows or says besides; unknown ones are passed over.
    #[must_use]
    pub fn extensions(&self) -> &[CertificateOption] {
        &self.extensions
    }

    /// Who signed it.
    #[must_use]
    pub const fn authority(&self) -> &PublicKey {
        &self.authority
    }

    /// What the authority signed it with, as the signature says; `None` if that is nothing known.
    #[must_use]
    pub fn signature_algorithm(&self) -> Option<SignatureAlgorithm> {
        let named = Reader::new(&self.signature).text(ketch_wire::NAME_LEN_MAX);
        SignatureAlgorithm::from_name(named.ok()?)
    }

    /// The command that is run whatever is asked for, if there is such an option.
    #[must_use]
    pub fn force_command(&self) -> Option<&str> {
        std::str::from_utf8(self.option(FORCE_COMMAND)?).ok()
    }

    /// Whether a security key has to have verified who is at it.
    #[must_use]
    pub fn verify_required(&self) -> bool {
        self.option(VERIFY_REQUIRED).is_some()
    }

    /// Whether it may be used from `address`: true without the option, false if the option is
    /// malformed.
    #[must_use]
    pub fn allows_source(&self, address: IpAddr) -> bool {
        self.option(SOURCE_ADDRESS).is_none_or(|list| {
            AddressRange::parse_list(list)
                .is_some_and(|ranges| ranges.iter().any(|range| range.contains(address)))
        })
    }

    fn option(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .critical_options
            .iter()
            .find(|option| option.name == name);
        found.map(|option| option.value.as_slice())
    }
}

impl CertificateOption {
    /// Whether an option that is known has a value that it can have.
    fn is_well_formed(&self) -> bool {
        match self.name.as_str() {
            FORCE_COMMAND => std::str::from_utf8(&self.value).is_ok(),
            SOURCE_ADDRESS => AddressRange::parse_list(&self.value).is_some(),
            VERIFY_REQUIRED => self.value.is_empty(),
            _ => true,
        }
    }
}

fn principals(packed: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut r = Reader::new(packed);
    let mut principals = Vec::new();
    while !r.is_empty() {
        if principals.len() == PRINCIPALS_MAX {
            return Err(DecodeError::BadValue {
                field: "valid principals",
            });
        }
        principals.push(r.text(TEXT_LEN_MAX)?.to_owned());
    }
    Ok(principals)
}

/// Names and values. Their order is not looked at, as with OpenSSH, but each may stand only once.
fn options(packed: &[u8]) -> Result<Vec<CertificateOption>, DecodeError> {
    let bad = DecodeError::BadValue { field: "options" };
    let mut r = Reader::new(packed);
    let mut options: Vec<CertificateOption> = Vec::new();
    while !r.is_empty() {
        let name = r.text(TEXT_LEN_MAX)?;
        let data = r.string(TEXT_LEN_MAX)?;
        if options.len() == OPTIONS_MAX || options.iter().any(|option| option.name == name) {
            return Err(bad);
        }
        let mut value = Reader::new(data);
        let value = if data.is_empty() {
            &[]
        } else {
            let content = value.string(TEXT_LEN_MAX)?;
            value.finish()?;
            content
        };
        options.push(CertificateOption {
            name: name.to_owned(),
            value: value.to_vec(),
        });
    }
    Ok(options)
}

/// Why a certificate does not speak for somebody.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The authority did not sign it.
    #[error("the certificate's signature is not its authority's")]
    BadSignature,
    /// The authority signed it with SHA-1, which anybody with means can forge.
    #[error(
        "the certificate is signed with SHA-1: have it signed anew with `ssh-keygen -t rsa-sha2-512`"
    )]
    WeakSignature,
    /// A user's where a host's is needed, or the other way round.
    #[error("the certificate is for a {}", match kind {
        CertificateKind::User => "user, not for a host",
        CertificateKind::Host => "host, not for a user",
    })]
    OtherKind {
        /// What it is.
        kind: CertificateKind,
    },
    /// It is not valid yet.
    #[error("the certificate is not valid yet: check the clock")]
    NotYetValid {
        /// From when it is, in seconds since 1970.
        valid_after: u64,
    },
    /// It is no longer valid.
    #[error("the certificate has expired: have a new one issued")]
    Expired {
        /// Since when, in seconds since 1970.
        valid_before: u64,
    },
    /// It names nobody, which older programs read as everybody.
    #[error("the certificate names no principals: have it issued with `ssh-keygen -n`")]
    NoPrincipals,
    /// It names others.
    #[error("the certificate is for other principals")]
    OtherPrincipal,
    /// It has a critical option that is not enforced here.
    #[error("the certificate has the critical option `{}`, which is not known here", name.escape_default())]
    UnknownOption {
        /// The option.
        name: String,
    },
    /// A critical option has a value that it cannot have.
    #[error("the certificate's option `{name}` is malformed")]
    MalformedOption {
        /// The option.
        name: String,
    },
}
