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
    transfer::{Links, NameFault, TransferError, local::Tree, names, plan::ENTRIES_MAX},
};

/// Entries of one directory that are asked about one by one, at a time.
const LOOKS_MAX: usize = 32;
/// Entries of one directory: what is held of them at a time, on either side.
pub(super) const DIRECTORY_MAX: usize = if cfg!(test) { 20_000 } else { 2_000_000 };

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Sorted by name, no name twice.
    pub entries: Vec<Entry>,
    /// Names that are not believed, and why.
    pub refused: Vec<(Box<[u8]>, SyncFault)>,
}

impl Listing {
    fn new(mut entries: Vec<Entry>, refused: Vec<(Box<[u8]>, SyncFault)>) -> Self {
        // Stable: of two entries of one name the first is kept.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut listing = Self { entries, refused };
        let refused = &mut listing.refused;
        listing.entries.dedup_by(|second, first| {
            let twice = second.name == first.name;
            if twice {
                refused.push((second.name.clone(), SyncFault::ListedTwice));
            }
            twice
        });
        listing
    }
}

/// Counts entries of all directories: some servers have no end of them.
#[derive(Debug, Default)]
pub(super) struct Entries(AtomicU64);

impl Entries {
    fn count(&self, path: &RemotePath, in_directory: usize) -> Result<(), SyncFault> {
        let all = self.0.fetch_add(1, Ordering::Relaxed);
        let limit = match (all < ENTRIES_MAX, in_directory < DIRECTORY_MAX) {
            (true, true) => return Ok(()),
            (false, _) => "ten million entries",
            (true, false) => "two million entries in one directory",
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
    let (mut entries, mut refused, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
    let mut directory = sftp.read_dir(path);
    while let Some(listed) = directory.next().await {
        let listed = listed?;
        counted.count(path, entries.len() + refused.len())?;
        let name: Box<[u8]> = listed.name().into();
        let known = names::check(&name)
            .and_then(|()| platform::local_name(&name).ok_or(NameFault::NotHere));
        if let Err(fault) = known {
            let path = path.join(&name);
            refused.push((name, TransferError::Name { path, fault }.into()));
            continue;
        }
        let file_type = listed.file_type();
        let hides = file_type == FileType::Unknown || listed.attrs().size.is_none();
        if (hides && !matches!(file_type, FileType::Directory | FileType::Symlink))
            || (follow && file_type == FileType::Symlink)
        {
            unclear.push(entries.len());
        }
        entries.push(Entry {
            name,
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
                refused.push((entry.name.clone(), error));
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
        let (mut entries, mut refused) = (Vec::new(), Vec::new());
        let links = if follow { Links::Follow } else { Links::Skip };
        for LocalEntry {
            name,
            metadata,
            link,
        } in tree.list(links)?
        {
            counted.count(&path, entries.len() + refused.len())?;
            let Some(wire) = platform::remote_name(&name) else {
                let fault = NameFault::NotHere;
                let shown: Box<[u8]> = name.as_encoded_bytes().into();
                let path = path.join(&shown);
                refused.push((shown, TransferError::Name { path, fault }.into()));
                continue;
            };
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
                    refused.push((entry.name.clone(), fault.into()));
                }
                Some(LocalLink::LeadsBack | LocalLink::To(_)) | None => {}
            }
            entries.push(entry);
        }
        Ok(Listing::new(entries, refused))
    })
    .await
}
