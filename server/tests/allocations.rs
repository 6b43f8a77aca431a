//! Reading and writing allocate nothing per request once a session runs: counted over the whole
//! stack, both ends of the connection included.
//!
//! One test in a file of its own: the counts are those of the process.
#![cfg(unix)]

use std::sync::Arc;

use ketch_protocol::{
    Attrs, DATA_HEADER_LEN, Init, Open, OpenFlags, PROTOCOL_VERSION, Pairs, Read, Request, Write,
};
use ketch_server::{MemoryFileSystem, Server, User, generate_host_key};
use ketch_transport::auth::Credential;
use ketch_transport::config::ClientConfig;
use ketch_transport::driver::{ChannelStream, Login, LoginEvent, RefuseAll, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Bytes of file data in one request: two packets of usual length.
const LEN: u32 = 64 * 1024;
/// Requests that are in flight at a time.
const DEPTH: u64 = 8;
/// `STATUS` with the code OK and its text, without a language.
const STATUS_LEN: usize = 4 + 1 + 4 + 4 + 4 + "success".len() + 4;

async fn connected() -> ChannelStream {
    let files = Arc::new(MemoryFileSystem::new());
    let anna = User::with_file_system("anna", files).password("password");
    let host_key = generate_host_key().unwrap();
    let server = Server::builder()
        .host_key(host_key)
        .user(anna)
        .build()
        .unwrap();
    let (ours, theirs) = tokio::io::duplex(1 << 18);
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    tokio::spawn(async move { server.serve_stream(theirs, "test").await });
    let mut login = Login::client(ours, ClientConfig::new("anna")).unwrap();
    loop {
        match login.next().await.unwrap() {
            LoginEvent::HostKey(_) => login.accept_host_key().unwrap(),
            LoginEvent::AuthWanted { .. } => {
                let password = Zeroizing::new("password".to_owned());
                login.authenticate(&Credential::Password(password)).unwrap();
            }
            LoginEvent::Authenticated { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    let (handle, connection) = login.run(Box::new(RefuseAll));
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    tokio::spawn(connection);
    let (stream, application) = stream();
    handle
        .open_session("sftp", 2 << 20, application)
        .await
        .unwrap();
    // The connection lives as long as somebody holds a handle of it.
    std::mem::forget(handle);
    stream
}

/// Sends requests and passes over so many bytes of replies.
async fn exchange(stream: &mut ChannelStream, requests: &[u8], replies: usize, sink: &mut [u8]) {
    stream.write_all(requests).await.unwrap();
    let mut left = replies;
    while left > 0 {
        let most = left.min(sink.len());
        let got = stream.read(&mut sink[..most]).await.unwrap();
        assert!(got > 0);
        left -= got;
    }
}

#[tokio::test]
async fn reads_and_writes_allocate_nothing_per_request() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut stream = connected().await;
    let mut requests = Vec::new();
    Init {
        version: PROTOCOL_VERSION,
        extensions: Pairs::EMPTY,
    }
    .encode_packet(&mut requests);
    let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE;
    let open = Open {
        path: b"/file",
        flags,
        attrs: Attrs::NONE.into(),
    };
    Request::Open(open).encode_packet(1, &mut requests);
    stream.write_all(&requests).await.unwrap();
    let mut length = [0; 4];
    let mut packet = Vec::new();
    for _ in 0..2 {
        stream.read_exact(&mut length).await.unwrap();
        packet.resize(u32::from_be_bytes(length) as usize, 0);
        stream.read_exact(&mut packet).await.unwrap();
    }
    let handle = &packet[9..];
    assert_eq!(handle.len(), 16);

    let data = vec![7; LEN as usize];
    let mut sink = vec![0; 1 << 20];
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for n in 0..DEPTH {
        let offset = n * u64::from(LEN);
        let write = Write {
            handle,
            offset,
            data: &data,
        };
        Request::Write(write).encode_packet(2, &mut writes);
        Request::Read(Read {
            handle,
            offset,
            len: LEN,
        })
        .encode_packet(3, &mut reads);
    }
    let depth = usize::try_from(DEPTH).unwrap();
    let (write_replies, read_replies) =
        (STATUS_LEN * depth, (DATA_HEADER_LEN + LEN as usize) * depth);

    let mut blocks = [0; 2];
    // The first rounds let every buffer grow to its length.
    for (round, count) in blocks.iter_mut().enumerate() {
        let before = dhat::HeapStats::get().total_blocks;
        for _ in 0..100 {
            exchange(&mut stream, &writes, write_replies, &mut sink).await;
            exchange(&mut stream, &reads, read_replies, &mut sink).await;
        }
        *count = dhat::HeapStats::get().total_blocks - before;
        println!("round {round}: {count} blocks");
    }
    let requests = 100 * 2 * DEPTH;
    assert!(
        blocks[1] < requests / 10,
        "{} allocations for {requests} requests",
        blocks[1]
    );
}
