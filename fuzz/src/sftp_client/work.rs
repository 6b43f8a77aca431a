//! What the client has under way: downloads, an upload, listings, calls.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use ketch_client::{GetOptions, OpenOptions, PutOptions, Sftp, Sink, Source};

use super::{Running, SOURCE_LEN, Truth, byte_at};

pub(super) fn download(sftp: &Sftp, truth: &Arc<Mutex<Truth>>) -> Running {
    let (sftp, truth) = (sftp.clone(), Arc::clone(truth));
    Box::pin(async move {
        let sink = Arc::new(Memory(Arc::clone(&truth)));
        let result = sftp.get_to("/file", sink, GetOptions::new()).await;
        truth.lock().expect("nobody panicked").downloaded = Some(result);
    })
}

pub(super) fn upload(sftp: &Sftp, truth: &Arc<Mutex<Truth>>) -> Running {
    let (sftp, truth) = (sftp.clone(), Arc::clone(truth));
    Box::pin(async move {
        let source = Arc::new(Constant);
        let result = sftp.put_from(source, "/up", PutOptions::new()).await;
        truth.lock().expect("nobody panicked").uploaded = Some(result);
    })
}

pub(super) fn tree(sftp: &Sftp, outside: &Path) -> Running {
    let (sftp, to) = (sftp.clone(), outside.join("a/b"));
    std::fs::create_dir_all(&to).expect("a directory for a test");
    Box::pin(async move {
        let options = GetOptions::new().recursive(true);
        drop(sftp.get("/dir", to, options).await);
    })
}

pub(super) fn calls(sftp: &Sftp, running: &mut Vec<Running>) {
    let one = sftp.clone();
    running.push(Box::pin(async move {
        drop(one.stat("/file").await);
        drop(one.canonicalize("x").await);
        drop(one.read_link("x").await);
        drop(one.statvfs("/").await);
        drop(one.limits().await);
        drop(one.users_groups(&[1, 2], &[3]).await);
        drop(one.rename("/a", "/b").await);
    }));
    let two = sftp.clone();
    running.push(Box::pin(async move {
        if let Ok(file) = two.open("/file", OpenOptions::reading()).await {
            if let Ok(bytes) = file.read_at(5, 100_000).await {
                assert!(bytes.len() <= 100_000);
            }
            drop(file.close().await);
        }
        if let Ok(file) = two.open("/new", OpenOptions::writing()).await {
            drop(file.write_at(0, &[7; 70_000]).await);
            drop(file.sync_all().await);
        }
    }));
}

pub(super) fn listing(sftp: &Sftp) -> Running {
    let sftp = sftp.clone();
    Box::pin(async move {
        let mut dir = sftp.read_dir("/dir");
        while let Some(Ok(_)) = dir.next().await {}
    })
}

/// Keeps what it is given, if that is not far out.
struct Memory(Arc<Mutex<Truth>>);

const SUNK_MAX: u64 = 4 << 20;

impl Sink for Memory {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut truth = self.0.lock().expect("nobody panicked");
        assert!(truth.finished.is_none() && !truth.aborted, "after the end");
        if offset > SUNK_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let at = usize::try_from(offset).expect("small");
        let end = at + bytes.len();
        if truth.sunk.len() < end {
            truth.sunk.resize(end, None);
        }
        for (place, byte) in truth.sunk[at..end].iter_mut().zip(bytes) {
            *place = Some(*byte);
        }
        Ok(())
    }

    fn finish(&self, size: u64) -> io::Result<()> {
        let mut truth = self.0.lock().expect("nobody panicked");
        assert_eq!(truth.finished.replace(size), None, "finished once");
        Ok(())
    }

    fn abort(&self) {
        self.0.lock().expect("nobody panicked").aborted = true;
    }
}

/// The file to be sent.
struct Constant;

impl Source for Constant {
    fn size(&self) -> Option<u64> {
        Some(SOURCE_LEN as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = (SOURCE_LEN as u64).saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or_default().min(buf.len());
        for (byte, at) in buf.iter_mut().zip(offset..).take(len) {
            *byte = byte_at(at);
        }
        Ok(len)
    }
}
