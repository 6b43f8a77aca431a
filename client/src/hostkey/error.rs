//! Why a host must not be talked to.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ketch_keys::{CertificateError, RevocationError};

use super::KnownAt;
use crate::{Failure, Kind};

/// The key that a server showed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShownKey {
    /// The host as it would stand in `known_hosts`: `host`, or `[host]:port`.
    pub name: String,
    /// The type of the key.
    pub algorithm: String,
    /// The key's fingerprint, `SHA256:…`.
    pub fingerprint: String,
}

impl fmt::Display for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// Why a host must not be talked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// No line speaks of the host.
    #[error(
        "the host {} is not known: its key {shown} stands in none of {}; have the fingerprint \
         confirmed by who runs the server, then add the key there, or accept it once as new",
        shown.name, Paths(files)
    )]
    Unknown {
        /// What the server showed.
        shown: ShownKey,
        /// The files that were looked into, whether they exist or not.
        files: Vec<PathBuf>,
    },
    /// The host is known by another key of this type.
    #[error(
        "the key of host {} has changed: the server shows {shown}, but {} has {}; somebody may be \
         intercepting the connection: do not go on unless who runs the server confirms the new \
         key, then remove the old one with `{}`",
        shown.name, first(known).0, first(known).1, removal(shown, known)
    )]
    Changed {
        /// What the server showed.
        shown: ShownKey,
        /// The lines that say otherwise: at least one.
        known: Vec<KnownAt>,
    },
    /// The host is known, but only by keys of other types.
    #[error(
        "the host {} is known by another type of key: the server shows {shown}, but {} has {} \
         {}; have the new fingerprint confirmed by who runs the server, then add the key to that \
         file",
        shown.name, first(known).0, known.first().map_or("", |at| &at.algorithm), first(known).1
    )]
    OtherTypes {
        /// What the server showed.
        shown: ShownKey,
        /// The lines that say otherwise: at least one.
        known: Vec<KnownAt>,
    },
    /// The key was revoked.
    #[error(
        "the key of host {} is revoked: the server shows {shown}, which {at} marks as @revoked; \
         tell who runs the server, and do not connect until it shows another key",
        shown.name
    )]
    Revoked {
        /// What the server showed.
        shown: ShownKey,
        /// The line that revokes it.
        at: Box<KnownAt>,
    },
    /// The key, its certificate or its authority stands in a list of revoked keys.
    #[error(
        "the key of host {} is revoked: the server shows {shown}, which {} lists; tell who runs \
         the server, and do not connect until it shows another key",
        shown.name, file.display()
    )]
    Listed {
        /// What the server showed.
        shown: ShownKey,
        /// The list.
        file: PathBuf,
    },
    /// A list of revoked keys could not be read, and might have held the key.
    #[error("the list of revoked keys {} could not be understood", file.display())]
    List {
        /// The list.
        file: PathBuf,
        /// What is wrong with it.
        source: RevocationError,
    },
    /// The host is known by an authority, and its certificate does not hold.
    #[error(
        "the certificate of host {} is not accepted: the server shows {shown}, and {at} names its \
         authority; tell who runs the server",
        shown.name
    )]
    Certificate {
        /// What the server showed.
        shown: ShownKey,
        /// The line of the authority.
        at: Box<KnownAt>,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// The authority signed the certificate with an algorithm that is not allowed.
    #[error(
        "the certificate of host {} is not accepted: its authority signed it with {algorithm}, \
         which CASignatureAlgorithms leaves out",
        shown.name
    )]
    AuthorityAlgorithm {
        /// What the server showed.
        shown: ShownKey,
        /// What it was signed with.
        algorithm: String,
    },
    /// The user was asked about an unknown host and said no.
    #[error("the host {} is not known, and its key {shown} was not confirmed", shown.name)]
    NotConfirmed {
        /// What the server showed.
        shown: ShownKey,
    },
    /// Further keys of a host could not be written down.
    #[error("the keys of host {name} could not be brought up to date in {}", file.display())]
    NotUpdated {
        /// The host as it stands in the file.
        name: String,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key is not among those that the program named.
    #[error("the host {} shows {shown}, which is none of the keys that it may have", shown.name)]
    NotNamed {
        /// What the server showed.
        shown: ShownKey,
    },
    /// A file could not be read, and might have held the line that decides.
    #[error("the host keys in {} could not be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host is new and was to be accepted, but could not be written down.
    #[error(
        "the new host {} could not be added to {}: make the file writable, or add {shown} to it",
        shown.name, file.display()
    )]
    NotRecorded {
        /// What the server showed.
        shown: ShownKey,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Failure for HostKeyError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. }
            | Self::NotRecorded { source, .. }
            | Self::NotUpdated { source, .. } => Kind::of_local(source),
            _ => Kind::HostKey,
        }
    }
}

/// The place and the fingerprint of the first of the lines.
fn first(known: &[KnownAt]) -> (String, &str) {
    known
        .first()
        .map_or((String::new(), ""), |at| (at.to_string(), &at.fingerprint))
}

/// The command that removes the lines that say otherwise.
fn removal(shown: &ShownKey, known: &[KnownAt]) -> String {
    let file = known
        .first()
        .map(|at| at.file.display().to_string())
        .unwrap_or_default();
    format!("ssh-keygen -R '{}' -f '{file}'", shown.name)
}

struct Paths<'a>(&'a [PathBuf]);

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            write!(
                f,
                "{}{}",
                if index == 0 { "" } else { ", " },
                path.display()
            )?;
        }
        Ok(())
    }
}
