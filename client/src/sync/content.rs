//! Whether a local file and one on the server hold the same bytes.
//!
//! The file is downloaded by the engine, many pieces at a time; each piece is compared with the
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
use crate::{GetOptions, Sftp, Sink, platform, transfer::local::SourceFile};

/// What the pieces are compared with.
struct Compared {
    file: File,
    differs: AtomicBool,
}

impl Sink for Compared {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut here = vec![0; bytes.len()];
        let read =
            platform::read_slots(&self.file, &mut [IoSliceMut::new(&mut here)], offset, false)?;
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
    let opened = on_thread(move || local.open_file());
    let compared = Arc::new(Compared {
        file: opened.await?,
        differs: AtomicBool::new(false),
    });
    let sink = Arc::clone(&compared);
    let read = sftp.get_to(remote, sink, GetOptions::new()).await;
    if compared.differs.load(Ordering::Acquire) {
        return Ok(false);
    }
    Ok(read?.bytes == size)
}
