//! One directory of either side, read whole and sorted.
//!
//! A listing that could not be read to its end is an error, never a shorter listing: what is
//! missing in it would count as removed. What a server says is checked as transfers do
//! (`transfer/names.rs`): a name that is no name is refused, and so is one that comes twice.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ketch_protocol::{Attrs, FileType, RemotePath};

use super::{
    compare::Entry,
    crowd::{Crowd, on_thread},
    report::SyncFault,
};
use crate::{
    error::{Failure, Kind},
    platform::{self, LocalEntry, LocalLink},
    sftp::Sftp,
    transfer::{
        Links, NameFault, REPORTED_MAX, TransferError, local::Tree, names, plan::ENTRIES_MAX,
    },
};

/// Entries of one directory that are asked about one by one, at a time.
const LOOKS_MAX: usize = 32;
/// Entries of one directory: what is held of them at a time, on either side.
pub(super) const DIRECTORY_MAX: usize = if cfg!(test) { 20_000 } else { 2_000_000 };
/// Bytes of their names.
const NAMES_MAX: usize = if cfg!(test) { 2 << 20 } else { 256 << 20 };

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Sorted by name, no name twice.
    pub entries: Vec<Entry>,
    /// Names that are not believed.
    pub refused: Refused,
}

/// Names that are not believed: there may be as many as entries, each as long as a packet.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// The first [`REPORTED_MAX`], and why.
    pub first: Vec<(Box<[u8]>, SyncFault)>,
    /// How many came after them.
    pub further: u64,
}

impl Refused {
    /// Adds the name, or what of it is to be shown.
    fn add(&mut self, name: &[u8], why: impl FnOnce(&[u8]) -> SyncFault) {
        if self.first.len() < REPORTED_MAX {
            let name = names::clipped(name);
            self.first.push((name.into(), why(name)));
        } else {
            self.further += 1;
        }
    }

    /// Adds a name for which this `path` has none.
    fn add_name(&mut self, path: &RemotePath, name: &[u8], fault: NameFault) {
        self.add(name, |name| {
            let path = path.join(name);
            TransferError::Name { path, fault }.into()
        });
    }
}

impl Listing {
    fn new(mut entries: Vec<Entry>, refused: Refused) -> Self {
        // Stable: of two entries of one name the first is kept.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut listing = Self { entries, refused };
        let refused = &mut listing.refused;
        listing.entries.dedup_by(|second, first| {
            let twice = second.name == first.name;
            if twice {
                refused.add(&second.name, |_| SyncFault::ListedTwice);
            }
            twice
        });
        listing
    }
}

/// Counts entries of all directories: some servers have no end of them.
#[derive(Debug, Default)]
pub(super) struct Entries(AtomicU64);

/// What one directory brought so far.
#[derive(Debug, Default)]
struct Held {
    entries: usize,
    name_bytes: usize,
}

impl Entries {
    fn count(&self, path: &RemotePath, held: &mut Held) -> Result<(), SyncFault> {
        held.entries += 1;
        let limit = if self.0.fetch_add(1, Ordering::Relaxed) >= ENTRIES_MAX {
            "ten million entries"
        } else if held.entries > DIRECTORY_MAX {
            "two million entries in one directory"
        } else if held.name_bytes > NAMES_MAX {
            "256 MiB of names in one directory"
        } else {
            return Ok(());
        };
        let path = path.clone();
        Err(TransferError::TooMuch { path, limit }.into())
    }
}

/// Reads a directory of the server.
///
/// Entries whose type it hides are looked at one by one; with `follow` links are, too.
pub(super) async fn remote(
    sftp: &Sftp,
    path: &RemotePath,
    follow: bool,
    counted: &Entries,
) -> Result<Listing, SyncFault> {
    let (mut entries, mut unclear) = (Vec::new(), Vec::new());
    let (mut refused, mut held) = (Refused::default(), Held::default());
    let mut directory = sftp.read_dir(path);
    while let Some(listed) = directory.next().await {
        let listed = listed?;
        counted.count(path, &mut held)?;
        let name = listed.name();
        let known =
            names::check(name).and_then(|()| platform::local_name(name).ok_or(NameFault::NotHere));
        if let Err(fault) = known {
            refused.add_name(path, name, fault);
            continue;
        }
        held.name_bytes += name.len();
        let file_type = listed.file_type();
        let hides = file_type == FileType::Unknown || listed.attrs().size.is_none();
        if (hides && !matches!(file_type, FileType::Directory | FileType::Symlink))
            || (follow && file_type == FileType::Symlink)
        {
            unclear.push(entries.len());
        }
        entries.push(Entry {
            name: name.into(),
            file_type,
            attrs: listed.attrs(),
            followed: false,
        });
    }
    let mut looks = Crowd::new();
    let mut unclear = unclear.into_iter();
    loop {
        while looks.len() < LOOKS_MAX
            && let Some(index) = unclear.next()
            && let Some(entry) = entries.get(index)
        {
            let (sftp, path) = (sftp.clone(), path.join(&entry.name));
            let follows = entry.file_type == FileType::Symlink;
            looks.add(async move {
                let looked = if follows {
                    sftp.stat(path).await
                } else {
                    sftp.lstat(path).await
                };
                (index, looked)
            });
        }
        let Some((index, looked)) = looks.next().await else {
            break;
        };
        let Some(entry) = entries.get_mut(index) else {
            continue;
        };
        match looked {
            Ok(attrs) => resolve(entry, attrs, attrs.file_type()),
            // It leads nowhere: it stays a link.
            Err(error)
                if entry.file_type == FileType::Symlink && error.kind() == Kind::NotFound => {}
            Err(error) => {
                let error = SyncFault::from(error);
                if error.ends_everything() {
                    return Err(error);
                }
                refused.add(&entry.name, |_| error);
            }
        }
    }
    Ok(Listing::new(entries, refused))
}

/// A closer look at an entry: a link to a plain file or a directory becomes one.
fn resolve(entry: &mut Entry, attrs: Attrs, file_type: FileType) {
    if entry.file_type != FileType::Symlink {
        (entry.attrs, entry.file_type) = (attrs, file_type);
    } else if matches!(file_type, FileType::Regular | FileType::Directory) {
        (entry.attrs, entry.file_type, entry.followed) = (attrs, file_type, true);
    }
}

/// Reads a directory of this machine; with `follow` links to plain files and directories are such,
/// but for those to directories that they are in.
pub(super) async fn local(
    tree: &Arc<Tree>,
    path: &RemotePath,
    follow: bool,
    counted: &Arc<Entries>,
) -> Result<Listing, SyncFault> {
    let (tree, path, counted) = (Arc::clone(tree), path.clone(), Arc::clone(counted));
    on_thread(move || {
        let mut entries = Vec::new();
        let (mut refused, mut held) = (Refused::default(), Held::default());
        let links = if follow { Links::Follow } else { Links::Skip };
        for LocalEntry {
            name,
            metadata,
            link,
        } in tree.list(links)?
        {
            counted.count(&path, &mut held)?;
            let Some(wire) = platform::remote_name(&name) else {
                refused.add_name(&path, name.as_encoded_bytes(), NameFault::NotHere);
                continue;
            };
            held.name_bytes += wire.len();
            let mut entry = Entry {
                name: wire.into(),
                file_type: platform::file_type(&metadata),
                attrs: platform::attrs_of(&metadata),
                followed: false,
            };
            match link {
                Some(LocalLink::Leads(Ok(metadata))) => {
                    let file_type = platform::file_type(&metadata);
                    resolve(&mut entry, platform::attrs_of(&metadata), file_type);
                }
                // It leads nowhere: it stays a link.
                Some(LocalLink::Leads(Err(error))) if platform::leads_nowhere(&error) => {}
                Some(LocalLink::Leads(Err(source))) => {
                    let action = crate::LocalAction::Open;
                    let path = tree.path().join(&name);
                    let fault = TransferError::Local {
                        action,
                        path,
                        source,
                    };
                    refused.add(&entry.name, |_| fault.into());
                }
                Some(LocalLink::LeadsBack | LocalLink::To(_)) | None => {}
            }
            entries.push(entry);
        }
        Ok(Listing::new(entries, refused))
    })
    .await
}
