//! Whether a local file and one on the server hold the same bytes.
//!
//! Where the server computes checksums (`check-file-name`), one is asked for, and none is sent. Else
//! the file is downloaded by the engine, many pieces at a time; each piece is compared with the
//! local one where it lies. The first that differs ends it.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ketch_protocol::RemotePath;

use super::{crowd::on_thread, report::SyncFault};
use crate::{
    GetOptions, Sftp, Sink, platform,
    transfer::local::{SourceFile, hash_file},
};

/// The server is asked for the checksum of no larger file, in bytes: it says nothing until it has
/// read all of it.
const HASHED_MAX: u64 = 4 << 30;

/// What the pieces are compared with.
struct Compared {
    file: Arc<File>,
    differs: AtomicBool,
}

impl Sink for Compared {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut here = vec![0; bytes.len()];
        let read = platform::read_slots(
            &self.file,
            &mut [IoSliceMut::new(&mut here)],
            offset,
            None,
            false,
        )?;
        if read == bytes.len() && here == bytes {
            return Ok(());
        }
        self.differs.store(true, Ordering::Release);
        Err(io::Error::other("it differs"))
    }
}

/// Whether `remote` and the file `local`, both listed with `size` bytes, have the same content.
///
/// # Errors
/// One of them could not be read.
pub(super) async fn is_same(
    sftp: &Sftp,
    remote: &RemotePath,
    local: SourceFile,
    size: u64,
) -> Result<bool, SyncFault> {
    let file = Arc::new(on_thread(move || local.open_file()).await?);
    if size <= HASHED_MAX {
        match sftp.sha256(remote).await {
            Ok(there) => {
                let here = Arc::clone(&file);
                let hashed = on_thread(move || hash_file(&here)).await;
                if let Ok(here) = hashed {
                    return Ok(here == there);
                }
            }
            Err(error) => {
                let error = SyncFault::from(error);
                if error.ends_everything() {
                    return Err(error);
                }
            }
        }
    }
    let compared = Arc::new(Compared {
        file,
        differs: AtomicBool::new(false),
    });
    let sink = Arc::clone(&compared);
    let read = sftp.get_to(remote, sink, GetOptions::new()).await;
    if compared.differs.load(Ordering::Acquire) {
        return Ok(false);
    }
    Ok(read?.bytes == size)
}
