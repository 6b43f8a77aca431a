//! What tests of sinks have in common: items, contents, the engine's way with a sink, evil names.

use std::future::Future;
use std::path::Path;

use ketch_client::{FileType, RemotePath};
use ring::digest;

use super::fence::Fence;
use super::{Content, Parcel, Sink, SinkError};
use crate::flow::item::{FlowName, Item, ItemKind};
use crate::snapshot::Facts;
use crate::store::Placement;

/// Choices that an item gets when one after the other is taken.
const CHOICES_MAX: usize = 100;

pub(crate) fn item(sequence: u64, path: &[u8]) -> Item {
    Item {
        flow: FlowName::new("orders").expect("a name"),
        sequence,
        kind: ItemKind::Created,
        path: RemotePath::from(path),
        facts: Facts {
            kind: FileType::Regular,
            size: Some(12),
            mtime: Some(1_795_282_542),
        },
        sha256: Some([0xab; 32]),
        recorded: 1_795_282_550_123,
    }
}

/// A fetched file.
pub(crate) fn trial_content(spool: &Path, bytes: &[u8]) -> Content {
    let file = tempfile::Builder::new().prefix("spool").tempfile_in(spool);
    let (_, path) = file.expect("a file").keep().expect("kept");
    std::fs::write(&path, bytes).expect("written");
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    Content {
        path,
        len: u64::try_from(bytes.len()).expect("small"),
        sha256,
    }
}

/// One attempt with a placement.
pub(crate) async fn put(
    sink: &dyn Sink,
    item: &Item,
    placement: &Placement,
    content: &Content,
    again: bool,
) -> Result<(), SinkError> {
    put_fenced(sink, item, placement, content, again, &Fence::open()).await
}

/// The same, with a fence.
pub(crate) async fn put_fenced(
    sink: &dyn Sink,
    item: &Item,
    placement: &Placement,
    content: &Content,
    again: bool,
    fence: &Fence,
) -> Result<(), SinkError> {
    let parcel = Parcel {
        item,
        placement,
        content: Some(content),
        again,
        earlier: &[],
        fence,
    };
    sink.deliver(parcel).await
}

/// What the engine does with a new item.
pub(crate) async fn deliver(
    sink: &dyn Sink,
    item: &Item,
    content: Option<&Content>,
) -> Result<Placement, SinkError> {
    let placement = sink.place(item, None).await?;
    attempts(sink, item, placement, content, false).await
}

/// What the engine does with an item after a crash.
pub(crate) async fn deliver_again(
    sink: &dyn Sink,
    item: &Item,
    placement: Placement,
    content: &Content,
) -> Result<Placement, SinkError> {
    attempts(sink, item, placement, Some(content), true).await
}

async fn attempts(
    sink: &dyn Sink,
    item: &Item,
    mut placement: Placement,
    content: Option<&Content>,
    mut again: bool,
) -> Result<Placement, SinkError> {
    for _ in 0..CHOICES_MAX {
        let parcel = Parcel {
            item,
            placement: &placement,
            content,
            again,
            earlier: &[],
            fence: &Fence::open(),
        };
        match sink.deliver(parcel).await {
            Ok(()) => return Ok(placement),
            Err(SinkError::Taken { .. }) => {
                placement = sink.place(item, Some(&placement)).await?;
                again = false;
            }
            Err(error) => return Err(error),
        }
    }
    panic!("{CHOICES_MAX} choices were taken");
}

/// Waits for all of them at the same time.
pub(crate) async fn all<E>(
    futures: impl IntoIterator<Item = impl Future<Output = Result<(), E>>>,
) -> Result<(), E> {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        let mut failed = None;
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(Err(error)) => {
                failed = Some(error);
                false
            }
            std::task::Poll::Ready(Ok(())) => false,
            std::task::Poll::Pending => true,
        });
        match failed {
            Some(error) => std::task::Poll::Ready(Err(error)),
            None if waiting.is_empty() => std::task::Poll::Ready(Ok(())),
            None => std::task::Poll::Pending,
        }
    })
    .await
}

/// Names that a hostile server lists.
pub(crate) fn evil_names() -> Vec<Vec<u8>> {
    let bare: [&[u8]; 25] = [
        b"..",
        b".",
        b"",
        b"/",
        b"//",
        b"\0",
        b"a\0b",
        b"..\0",
        b"../",
        b"/..",
        b"./..",
        b"...",
        b"..\\",
        b"C:",
        b"C:\\x",
        b"\\\\host\\share",
        b"CON",
        b"NUL.txt",
        b"~",
        b"-rf",
        b"$HOME",
        b"a\nb",
        b"\xff\xfe",
        b".ketch-0123456789abcdef.part",
        b".ketch-append-x",
    ];
    let fronts: [&[u8]; 7] = [
        b"",
        b"../",
        b"/etc/",
        b"in/../../",
        b"link/",
        b"./",
        b"/proc/self/cwd/",
    ];
    let ends: [&[u8]; 2] = [b"", b"/out/canary"];
    let mut names: Vec<Vec<u8>> = Vec::new();
    for front in fronts {
        for middle in bare {
            for end in ends {
                names.push([front, middle, end].concat());
            }
        }
    }
    for name in [
        "link",
        "link/fresh",
        "file",
        "dangling",
        "file/x",
        "a/../../out/canary",
    ] {
        names.push(name.into());
    }
    names.push(b"../".repeat(600));
    names.push(b"a/".repeat(100));
    names.push(vec![b'x'; 300]);
    names.push(vec![b'x'; 5000]);
    names
}
