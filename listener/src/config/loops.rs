//! Flows that would feed themselves, directly or through others: what one delivers, another finds, and
//! so on to the first. A chain that ends is right, as files appear in it whole.

use std::path::{Component, Path, PathBuf};

use ketch_client::RemotePath;
use ketch_settings::below;

use super::build::{Build, picks};
use super::sinks::SinkTable;
use super::tables::FlowTable;
use super::{Origin, SourceSetup};
use crate::select::{Select, SelectSettings};

/// A place where files are found or put.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Spot {
    /// The server, or nothing for this machine.
    server: Option<String>,
    path: Vec<Vec<u8>>,
}

impl Spot {
    fn here(path: &Path) -> Self {
        // Links on the way lead elsewhere; what is not there yet is taken as it is written.
        let path: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let parts = path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_encoded_bytes().to_vec()),
            _ => None,
        });
        Self {
            server: None,
            path: parts.collect(),
        }
    }

    fn of(origin: &Origin) -> Self {
        match origin {
            Origin::Here(path) => Self::here(path),
            Origin::Server { remote, address } => {
                // A path that is not absolute begins in the user's directory, wherever that is.
                let path = remote.root().as_bytes();
                let home: &[u8] = if path.starts_with(b"/") { b"/" } else { b"." };
                let parts = path.split(|&byte| byte == b'/');
                let parts = parts.filter(|part| !part.is_empty() && *part != b".");
                let parts = [home].into_iter().chain(parts);
                Self {
                    server: Some(address.clone()),
                    path: parts.map(<[u8]>::to_vec).collect(),
                }
            }
        }
    }

    fn holds(&self, other: &Self) -> bool {
        self.server == other.server && other.path.starts_with(&self.path)
    }
}

/// What a flow watches.
struct Watched {
    spot: Spot,
    recursive: bool,
    /// What it leaves out.
    leaves: Select,
}

impl Watched {
    /// Whether it finds what is put there.
    fn finds(&self, put: &Spot) -> bool {
        if !self.recursive {
            return self.spot == *put;
        }
        let below = put.path.get(self.spot.path.len()..).unwrap_or_default();
        let below = RemotePath::from(below.join(&b'/'));
        self.spot.holds(put)
            && (below.as_bytes().is_empty() || self.leaves.reaches(&below.join("x")))
    }
}

/// Tells every sink that leads back to its own flow.
pub(super) fn check(
    build: &mut Build<'_>,
    flows: &[FlowTable],
    sources: &[SourceSetup],
    state: &Path,
) {
    let origin = |name: &str| {
        let source = sources.iter().find(|source| source.name == name)?;
        Some(&source.origin)
    };
    let watched: Vec<Option<Watched>> = flows
        .iter()
        .map(|flow| {
            let path = RemotePath::from(flow.path.as_deref().unwrap_or_default());
            let leaves = SelectSettings {
                exclude: picks(&flow.exclude, &flow.exclude_regex, &flow.exclude_ant),
                ..SelectSettings::default()
            };
            Some(Watched {
                spot: Spot::of(&origin(flow.source.0.as_str())?.at(&path)),
                recursive: flow.recursive,
                leaves: Select::new(leaves).ok()?,
            })
        })
        .collect();
    let puts: Vec<Vec<(usize, Spot)>> = flows
        .iter()
        .map(|flow| {
            let sinks = flow.sink.iter().enumerate();
            let spots = sinks.filter_map(|(n, sink)| match sink {
                SinkTable::Directory { path, .. } => {
                    Some((n, Spot::here(&build.places().resolve(path))))
                }
                SinkTable::Sftp { source, path, .. } => {
                    let path = RemotePath::from(path.as_deref().unwrap_or_default());
                    Some((n, Spot::of(&origin(source.0.as_str())?.at(&path))))
                }
                _ => None,
            });
            spots.collect()
        })
        .collect();
    let leads_to = |put: &Spot, to: usize| match watched.get(to) {
        Some(Some(watched)) => watched.finds(put),
        _ => false,
    };
    for (first, sinks) in puts.iter().enumerate() {
        for (n, put) in sinks {
            if !comes_back(first, put, &puts, &leads_to) {
                continue;
            }
            let key = below(&format!("flow[{first}].sink[{n}]"), "path");
            build.hint(
                &key,
                "what is put there would be found by this flow again, without end",
                "put it outside of what the flow watches",
            );
        }
    }
    let state = Spot::here(state);
    for (n, watched) in watched.iter().enumerate() {
        if watched
            .as_ref()
            .is_some_and(|watched| watched.finds(&state))
        {
            let key = format!("flow[{n}].source");
            build.fault(
                &key,
                "the listener's own `state` is in what this flow watches",
            );
        }
    }
}

/// Whether what the flow `first` puts at `put` comes to it again, over any number of flows.
fn comes_back(
    first: usize,
    put: &Spot,
    puts: &[Vec<(usize, Spot)>],
    leads_to: &dyn Fn(&Spot, usize) -> bool,
) -> bool {
    let mut seen = vec![false; puts.len()];
    let mut next = vec![put];
    while let Some(put) = next.pop() {
        if leads_to(put, first) {
            return true;
        }
        for (to, sinks) in puts.iter().enumerate() {
            let is_new = seen.get(to) == Some(&false);
            if is_new && leads_to(put, to) {
                if let Some(seen) = seen.get_mut(to) {
                    *seen = true;
                }
                next.extend(sinks.iter().map(|(_, spot)| spot));
            }
        }
    }
    false
}
