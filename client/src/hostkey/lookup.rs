//! What a set of `known_hosts` files says about a host and the key it showed. No I/O.

use std::path::Path;

use ketch_keys::PublicKey;

use super::KnownAt;
use super::entry::{Entry, Marker};
use super::key;

/// Most lines that a verdict lists.
const PLACES_MAX: usize = 8;
/// The port that is left out of names (RFC 4253 §4).
const DEFAULT_PORT: u16 = 22;

/// The verdict, the worst that any file gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Lookup {
    /// A line binds this very key to the host.
    Known(KnownAt),
    /// No line speaks of the host.
    Unknown,
    /// Lines bind other keys of the same type to the host, and none binds this one.
    Changed(Vec<KnownAt>),
    /// Lines bind only keys of other types to the host.
    OtherTypes(Vec<KnownAt>),
    /// A line revokes this key.
    Revoked(KnownAt),
}

/// The names of a host in the files, in lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Names {
    /// Where its keys are: with the port unless that is 22, or the alias.
    pub(super) entry: String,
    /// Where a key may be, too, and nothing else is said: without the port.
    fallback: Option<String>,
    /// What a certificate has to be for: never with a port.
    pub(super) principal: String,
}

impl Names {
    /// The names of `host` on `port`; under an alias it has no other.
    pub(super) fn of(host: &str, port: u16, alias: Option<&str>) -> Self {
        let bare = alias.unwrap_or(host).to_ascii_lowercase();
        if port == DEFAULT_PORT || alias.is_some() {
            Self {
                entry: bare.clone(),
                fallback: None,
                principal: bare,
            }
        } else {
            Self {
                entry: format!("[{bare}]:{port}"),
                fallback: Some(bare.clone()),
                principal: bare,
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.entry.as_str()).chain(self.fallback.as_deref())
    }
}

/// A file that was read: its path, for messages, and its bytes.
pub(super) type Content<'a> = (&'a Path, &'a [u8]);

/// Looks for a plain key under the host's names in all `files`.
///
/// A host on another port than 22 that is not in the files under its port is looked up without it,
/// as OpenSSH does: there only a line with this very key counts, and a different key says nothing
/// about the other port. A revocation without port counts for every port.
pub(super) fn look_up(files: &[Content<'_>], names: &Names, key: &[u8]) -> Lookup {
    let under_port = look_up_name(files, &names.entry, key);
    let Some(fallback) = &names.fallback else {
        return under_port;
    };
    if matches!(under_port, Lookup::Revoked(_)) {
        return under_port;
    }
    match (look_up_name(files, fallback, key), &under_port) {
        (revoked @ Lookup::Revoked(_), _) => revoked,
        (known @ Lookup::Known(_), Lookup::Unknown) => known,
        _ => under_port,
    }
}

fn look_up_name(files: &[Content<'_>], name: &str, key: &[u8]) -> Lookup {
    let mut known = None;
    let mut same_type = Vec::new();
    let mut other_types = Vec::new();
    for (place, entry) in entries_about(files, name) {
        match entry.marker {
            Marker::Revoked if entry.key == key => return Lookup::Revoked(place),
            // An authority's key signs certificates: what key the host has, it does not say.
            Marker::Revoked | Marker::CertAuthority => {}
            Marker::Host if entry.key == key => {
                known.get_or_insert(place);
            }
            Marker::Host if key::algorithm(key) == entry.algorithm => same_type.push(place),
            Marker::Host => other_types.push(place),
        }
    }
    same_type.truncate(PLACES_MAX);
    other_types.truncate(PLACES_MAX);
    match (known, same_type.is_empty(), other_types.is_empty()) {
        (Some(place), ..) => Lookup::Known(place),
        (None, false, _) => Lookup::Changed(same_type),
        (None, true, false) => Lookup::OtherTypes(other_types),
        (None, true, true) => Lookup::Unknown,
    }
}

/// The line that revokes a key under one of the host's names.
pub(super) fn revocation(files: &[Content<'_>], names: &Names, key: &[u8]) -> Option<KnownAt> {
    let found = find(files, names, Marker::Revoked, key);
    found.map(|(place, _)| place)
}

/// The line that lets an authority sign certificates for the host.
pub(super) fn authority(
    files: &[Content<'_>],
    names: &Names,
    authority: &PublicKey,
) -> Option<KnownAt> {
    let found = find(files, names, Marker::CertAuthority, authority.as_blob());
    found.map(|(place, _)| place)
}

fn find<'a>(
    files: &[Content<'a>],
    names: &Names,
    marker: Marker,
    key: &[u8],
) -> Option<(KnownAt, Entry<'a>)> {
    names.all().find_map(|name| {
        entries_about(files, name).find(|(_, entry)| entry.marker == marker && entry.key == key)
    })
}

/// All lines that speak of `name`, with their places.
pub(super) fn entries_about<'a>(
    files: &[Content<'a>],
    name: &str,
) -> impl Iterator<Item = (KnownAt, Entry<'a>)> {
    files
        .iter()
        .flat_map(|(path, bytes)| entries(bytes).map(move |(line, entry)| (path, line, entry)))
        .filter(move |(_, _, entry)| entry.is_about(name))
        .map(|(path, line, entry)| {
            let place = KnownAt {
                file: path.to_path_buf(),
                line,
                algorithm: entry.algorithm.to_owned(),
                fingerprint: key::fingerprint(&entry.key),
            };
            (place, entry)
        })
}

/// All lines of a file that say something, with their numbers, counted from 1.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = (usize, Entry<'_>)> {
    let lines = bytes.split(|&b| b == b'\n').zip(1..);
    lines.filter_map(|(line, number)| Some((number, Entry::parse(line)?)))
}

/// What is known of the host: which types of keys, and whether authorities speak for it.
pub(super) fn known(files: &[Content<'_>], names: &Names) -> (Vec<&'static str>, bool) {
    let mut types = Vec::new();
    let mut has_authority = false;
    for name in names.all() {
        // Under its port a host has all its keys, if it has any there.
        let counts = types.is_empty();
        for (_, entry) in entries_about(files, name) {
            match entry.marker {
                Marker::Host if counts && !types.contains(&entry.algorithm) => {
                    types.push(entry.algorithm);
                }
                Marker::Host | Marker::Revoked => {}
                Marker::CertAuthority => has_authority = true,
            }
        }
    }
    (types, has_authority)
}
