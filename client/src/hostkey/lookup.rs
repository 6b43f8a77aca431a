//! What a set of `known_hosts` files says about a host and the key it showed. No I/O.

use std::path::Path;

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

/// The name under which a host stands in the files: in lower case, with the port unless it is 22.
pub(super) fn entry_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == DEFAULT_PORT {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

/// A file that was read: its path, for messages, and its bytes.
pub(super) type Content<'a> = (&'a Path, &'a [u8]);

/// Looks for `key` under the host's name in all `files`.
///
/// A host on another port than 22 that is not in the files under its port is looked up without it,
/// as OpenSSH does: there only a line with this very key counts, and a different key says nothing
/// about the other port. A revocation without port counts for every port.
pub(super) fn look_up(files: &[Content<'_>], host: &str, port: u16, key: &[u8]) -> Lookup {
    let under_port = look_up_name(files, &entry_name(host, port), key);
    if port == DEFAULT_PORT || matches!(under_port, Lookup::Revoked(_)) {
        return under_port;
    }
    match (
        look_up_name(files, &entry_name(host, DEFAULT_PORT), key),
        &under_port,
    ) {
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
