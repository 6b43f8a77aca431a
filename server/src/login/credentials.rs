//! What lets a user in by key: authorized keys and authorities, each with its restrictions.
//!
//! Restrictions only ever add up: [`Restrictions::and`] is the one place where those of several
//! steps of a login meet, and what comes out is what holds for the session.

use std::net::IpAddr;

use ketch_keys::{
    AddressRange, Certificate, CertificateKind, FORCE_COMMAND, Presence, PublicKey, RevocationList,
    SOURCE_ADDRESS, VERIFY_REQUIRED,
};

/// The command that a certificate may force: it is what this server does in any case.
const SFTP_COMMAND: &str = "internal-sftp";
/// Extension of a certificate: its security key signs without being touched.
const NO_TOUCH: &str = "no-touch-required";
/// How long an authority's RSA key has to be, in bits.
const AUTHORITY_RSA_BITS_MIN: u32 = 2048;

/// A key that lets a user in, and under which conditions.
///
/// ```
/// use ketch_server::{AuthorizedKey, PublicKey};
///
/// let key = AuthorizedKey::new(PublicKey::ed25519([7; 32]))
///     .from_addresses(["192.0.2.0/24".parse().unwrap()])
///     .read_only();
/// ```
#[derive(Clone, Debug)]
pub struct AuthorizedKey {
    key: PublicKey,
    sources: Option<Vec<Source>>,
    expires: Option<u64>,
    read_only: bool,
    touch: Touch,
}

/// An address or a network, as `192.0.2.7` or `2001:db8::/32`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Source(AddressRange);

impl Source {
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }
}

impl std::str::FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        AddressRange::parse(text).map(Self).ok_or(BadSource)
    }
}

/// A text is neither an address nor a network.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is neither an address nor a network, such as 192.0.2.0/24")]
pub struct BadSource;

/// Whether a security key has to be touched for each signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Touch {
    Required,
    NotRequired,
}

impl AuthorizedKey {
    /// The key without conditions. A security key has to be touched for each login.
    #[must_use]
    pub const fn new(key: PublicKey) -> Self {
        Self {
            key,
            sources: None,
            expires: None,
            read_only: false,
            touch: Touch::Required,
        }
    }

    /// Counts only for connections from these addresses. Default: from anywhere.
    #[must_use]
    pub fn from_addresses(mut self, sources: impl IntoIterator<Item = Source>) -> Self {
        self.sources = Some(sources.into_iter().collect());
        self
    }

    /// Does not count from that second on (since 1970). Default: never expires.
    #[must_use]
    pub const fn expires_at(mut self, unix: u64) -> Self {
        self.expires = Some(unix);
        self
    }

    /// Lets the user look only, whatever the user may do otherwise. Default: as the user.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Takes signatures of a security key that nobody touched. Default: they do not count.
    #[must_use]
    pub const fn without_touch(mut self) -> Self {
        self.touch = Touch::NotRequired;
        self
    }

    /// The key.
    pub(crate) const fn key(&self) -> &PublicKey {
        &self.key
    }
}

impl From<PublicKey> for AuthorizedKey {
    fn from(key: PublicKey) -> Self {
        Self::new(key)
    }
}

/// An authority whose certificates let a user in.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    pub(crate) key: PublicKey,
    /// Of these a certificate has to name one.
    pub(crate) principals: Vec<String>,
}

/// What the session of a login may not do, beside what its user may not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Restrictions {
    pub(crate) read_only: bool,
    /// Only the subsystem `sftp`.
    pub(crate) sftp_only: bool,
    /// The second from which the login does not count, since 1970.
    pub(crate) expires: Option<u64>,
}

impl Restrictions {
    /// What holds if both hold.
    pub(crate) fn and(self, other: Self) -> Self {
        let Self {
            read_only,
            sftp_only,
            expires,
        } = other;
        Self {
            read_only: self.read_only || read_only,
            sftp_only: self.sftp_only || sftp_only,
            expires: match (self.expires, expires) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        }
    }
}

/// The moment of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Where it comes from, if that is known.
    pub(crate) source: Option<IpAddr>,
    /// When, in seconds since 1970.
    pub(crate) now: u64,
}

/// How far a key was shown to be the user's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown {
    /// Not at all: would it do?
    Asked,
    /// It signed.
    Signed(Option<Presence>),
}

impl Shown {
    /// Whether somebody was at the security key; all other keys have nobody to touch them.
    fn is_touched(self) -> bool {
        match self {
            Self::Asked | Self::Signed(None) => true,
            Self::Signed(Some(presence)) => presence.user_present(),
        }
    }

    /// Whether that somebody proved to be the right one.
    fn is_verified(self) -> bool {
        match self {
            Self::Asked => true,
            Self::Signed(presence) => presence.is_some_and(Presence::user_verified),
        }
    }
}

/// Under which restrictions a plain key lets in; `None` if it does not.
pub(crate) fn by_key(
    entries: &[AuthorizedKey],
    key: &PublicKey,
    shown: Shown,
    moment: Moment,
) -> Option<Restrictions> {
    // The same key may stand there twice, under different conditions: the first that holds counts.
    entries
        .iter()
        .filter(|entry| entry.key == *key)
        .find_map(|entry| {
            let AuthorizedKey {
                key: _,
                sources,
                expires,
                read_only,
                touch,
            } = entry;
            let is_from = |sources: &Vec<Source>| {
                let is_in = |source| sources.iter().any(|each| each.has(source));
                moment.source.is_some_and(is_in)
            };
            let holds = sources.as_ref().is_none_or(is_from)
                && expires.is_none_or(|at| moment.now < at)
                && (*touch == Touch::NotRequired || shown.is_touched());
            holds.then_some(Restrictions {
                read_only: *read_only,
                sftp_only: false,
                expires: *expires,
            })
        })
}

/// Under which restrictions a certificate lets in; `None` if it does not.
///
/// Its authority has to be one of `authorities`; it has to be a user's, valid now, and to name one
/// of that authority's principals. Whatever it restricts is enforced, or it is refused: any command
/// but the one that this server is made of, and any option that is not known.
pub(crate) fn by_certificate<'a>(
    authorities: impl Iterator<Item = (&'a PublicKey, &'a str)>,
    certificate: &Certificate,
    shown: Shown,
    moment: Moment,
) -> Option<Restrictions> {
    let enforced = [FORCE_COMMAND, SOURCE_ADDRESS, VERIFY_REQUIRED];
    let is_for = |principal: &str| {
        let kind = CertificateKind::User;
        let checked = certificate.check(kind, principal, moment.now, &enforced);
        checked.is_ok()
    };
    let authority = certificate.authority();
    let is_strong = authority
        .rsa_bits()
        .is_none_or(|bits| bits >= AUTHORITY_RSA_BITS_MIN);
    let mut principals = authorities.filter(|(key, _)| *key == authority);
    if !is_strong || !principals.any(|(_, principal)| is_for(principal)) {
        return None;
    }
    let options = certificate.critical_options();
    let has_source = options.iter().any(|option| option.name == SOURCE_ADDRESS);
    let may_come = match moment.source {
        Some(address) => certificate.allows_source(address),
        None => !has_source,
    };
    let has_command = options.iter().any(|option| option.name == FORCE_COMMAND);
    let may_do = !has_command || certificate.force_command() == Some(SFTP_COMMAND);
    let needs_no_touch = certificate
        .extensions()
        .iter()
        .any(|each| each.name == NO_TOUCH);
    let is_there = (needs_no_touch || shown.is_touched())
        && (!certificate.verify_required() || shown.is_verified());
    let expires = certificate.valid_before();
    (may_come && may_do && is_there).then_some(Restrictions {
        read_only: false,
        sftp_only: has_command,
        expires: (expires != u64::MAX).then_some(expires),
    })
}

/// Keys that let nobody in any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revoked(pub(crate) Option<Box<RevocationList>>);

impl Revoked {
    /// Whether it is among them; of a certificate, also the key inside and its authority.
    pub(crate) fn has(&self, key: &PublicKey) -> bool {
        self.0.as_ref().is_some_and(|list| list.is_revoked(key))
    }
}

#[cfg(test)]
mod tests;
