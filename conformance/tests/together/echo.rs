//! A byte stream on a channel of its own: what goes in comes back.

use ketch_client::Session;
use ketch_conformance::content::Sha256;
use ketch_server::{Application, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::random::Random;

/// The server's side of one channel.
pub(crate) fn start() -> Box<dyn Application> {
    let (channel, application) = stream();
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(channel);
        if tokio::io::copy(&mut from, &mut to).await.is_ok() {
            let _ = to.shutdown().await;
        }
    });
    application
}

/// Sends `len` bytes through the echo, pieces of any size, and checks that they come back.
pub(crate) async fn there_and_back(session: Session, mut random: Random, len: usize) {
    let channel = session.open_subsystem("echo").await.unwrap();
    let (mut from, mut to) = tokio::io::split(channel);
    let sent = random.bytes(len);
    let hash = Sha256::of(&sent);
    let writer = tokio::spawn(async move {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let piece = 1 + random.below(100_000);
            let (now, later) = rest.split_at(rest.len().min(usize::try_from(piece).unwrap()));
            to.write_all(now).await.unwrap();
            rest = later;
        }
        to.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert_eq!(received.len(), len, "bytes that came back");
    assert_eq!(Sha256::of(&received), hash);
}
