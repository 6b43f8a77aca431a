//! The whole server through the whole transport: a client made of the transport's client half and
//! the SFTP codec, over `tokio::io::duplex` and over a socket.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ketch_keys::{SignatureAlgorithm, signature_blob};
use ketch_protocol::{
    Attrs, CheckFileName, Close, CopyData, Extension, Fsync, Init, Limits, Open, OpenFlags,
    PROTOCOL_VERSION, Pairs, PosixRename, Read, ReplyDecoder, ReplyEvent, Request, RequestId,
    Response, Stat, StatusCode, Write,
};
use ketch_server::{
    Answer, Block, Call, File, FileCall, FileSystem, MemoryFileSystem, PrivateKey, PublicKey,
    Server, ServerBuilder, Timeouts, User, VPath, Work, generate_host_key,
};
use ketch_transport::auth::Credential;
use ketch_transport::config::ClientConfig;
use ketch_transport::driver::{
    ChannelStream, CloseReason, ConnectionHandle, Login, LoginEvent, OpenError, RefuseAll, stream,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

#[path = "over_ssh/descriptors.rs"]
mod descriptors;
#[path = "over_ssh/lost.rs"]
mod lost;
#[path = "over_ssh/objects.rs"]
mod objects;
#[path = "over_ssh/reload.rs"]
mod reload;
#[path = "over_ssh/terms.rs"]
mod terms;

const PASSWORD: &str = "correct horse";

/// The client's window: smaller than what a few reads ask for.
const WINDOW: u32 = 2 * 1024 * 1024;

/// How somebody tries to log in.
enum Try {
    Password(&'static str),
    Key(Ed25519KeyPair),
    /// By answering questions, each with this.
    Questions(&'static str),
    /// With a password, and these new ones when it has to be changed.
    Change(&'static str, &'static [&'static str]),
}

async fn log_in<S>(stream: S, user: &str, tries: Vec<Try>) -> Result<ConnectionHandle, CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut login = Login::client(stream, ClientConfig::new(user))?;
    let mut tries = tries.into_iter();
    let (mut key, mut answer) = (None, "");
    let (mut old, mut new) = ("", [].iter());
    loop {
        match login.next().await? {
            LoginEvent::HostKey(_) => login.accept_host_key()?,
            LoginEvent::AuthWanted { .. } => match tries.next() {
                Some(Try::Password(password)) => {
                    let password = Zeroizing::new(password.to_owned());
                    login.authenticate(&Credential::Password(password))?;
                }
                Some(Try::Key(pair)) => {
                    let public = pair.public_key().as_ref().try_into().unwrap();
                    key = Some(pair);
                    login.authenticate(&Credential::public_key(PublicKey::ed25519(public)))?;
                }
                Some(Try::Change(password, wanted)) => {
                    (old, new) = (password, wanted.iter());
                    let password = Zeroizing::new(password.to_owned());
                    login.authenticate(&Credential::Password(password))?;
                }
                Some(Try::Questions(with)) => {
                    answer = with;
                    login.authenticate(&Credential::KeyboardInteractive)?;
                }
                None => return Err(CloseReason::Requested),
            },
            LoginEvent::Sign(data) => {
                let signature = key.as_ref().unwrap().sign(&data);
                login.signature(&signature_blob(
                    SignatureAlgorithm::Ed25519,
                    signature.as_ref(),
                ))?;
            }
            LoginEvent::PasswordExpired { .. } => {
                let Some(new) = new.next() else {
                    return Err(CloseReason::Requested);
                };
                let [old, new] = [old, new].map(|text: &str| Zeroizing::new(text.to_owned()));
                login.authenticate(&Credential::PasswordChange { old, new })?;
            }
            LoginEvent::Questions(questions) => {
                let answers = questions.prompts.iter();
                let answers: Vec<_> = answers.map(|_| Zeroizing::new(answer.to_owned())).collect();
                login.answers(&answers)?;
            }
            LoginEvent::Authenticated { .. } => break,
            _ => {}
        }
    }
    let (handle, connection) = login.run(Box::new(RefuseAll));
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    tokio::spawn(connection);
    Ok(handle)
}

/// What came for a request.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Got {
    Status(StatusCode),
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Size(u64),
    /// Of a directory, in the order they came.
    Names(Vec<Vec<u8>>),
    Extended,
}

/// SFTP over a channel's byte stream.
struct Client {
    stream: ChannelStream,
    decoder: ReplyDecoder,
    next_id: RequestId,
    outgoing: Vec<u8>,
    /// The part of a `DATA` that has come.
    body: Vec<u8>,
    replies: BTreeMap<RequestId, Got>,
    /// What was said beside the last status.
    said: String,
}

impl Client {
    async fn open(connection: &ConnectionHandle) -> Result<Self, OpenError> {
        let (stream, application) = stream();
        connection.open_session("sftp", WINDOW, application).await?;
        let mut outgoing = Vec::new();
        let init = Init {
            version: PROTOCOL_VERSION,
            extensions: Pairs::EMPTY,
        };
        init.encode_packet(&mut outgoing);
        let decoder = ReplyDecoder::new(Limits::default());
        Ok(Self {
            stream,
            decoder,
            next_id: 0,
            outgoing,
            body: Vec::new(),
            replies: BTreeMap::new(),
            said: String::new(),
        })
    }

    fn request<'a>(&mut self, request: impl Into<Request<'a>>) -> RequestId {
        self.next_id += 1;
        request
            .into()
            .encode_packet(self.next_id, &mut self.outgoing);
        self.next_id
    }

    /// Sends what was asked and waits for one reply.
    async fn reply(&mut self, id: RequestId) -> Got {
        // Both directions at once: a server that answers does not wait until all is sent.
        let outgoing = std::mem::take(&mut self.outgoing);
        let mut unsent = &outgoing[..];
        let mut buffer = vec![0; 64 * 1024];
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        while !unsent.is_empty() || !self.replies.contains_key(&id) {
            tokio::select! {
                written = writer.write(unsent), if !unsent.is_empty() => {
                    unsent = &unsent[written.unwrap()..];
                }
                got = reader.read(&mut buffer) => {
                    let got = got.unwrap();
                    assert!(got > 0, "the channel ended");
                    let (body, said) = (&mut self.body, &mut self.said);
                    take_replies(&mut self.decoder, &buffer[..got], body, said, &mut self.replies);
                }
            }
        }
        self.replies.remove(&id).unwrap()
    }

    async fn ask<'a>(&mut self, request: impl Into<Request<'a>>) -> Got {
        let id = self.request(request);
        self.reply(id).await
    }

    async fn open_file(&mut self, path: &str) -> Vec<u8> {
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE;
        let open = Open {
            path: path.as_bytes(),
            flags,
            attrs: Attrs::NONE.into(),
        };
        match self.ask(open).await {
            Got::Handle(handle) => handle,
            other => panic!("{other:?}"),
        }
    }
}

fn take_replies(
    decoder: &mut ReplyDecoder,
    mut input: &[u8],
    body: &mut Vec<u8>,
    said: &mut String,
    replies: &mut BTreeMap<RequestId, Got>,
) {
    loop {
        let step = decoder.next(input).unwrap();
        input = &input[step.consumed..];
        let (id, got) = match step.event {
            None => return,
            Some(ReplyEvent::DataPiece { bytes, .. }) => {
                body.extend_from_slice(bytes);
                continue;
            }
            Some(ReplyEvent::DataEnd { id }) => (id, Got::Data(std::mem::take(body))),
            Some(ReplyEvent::Reply { id, response }) => {
                let got = match response {
                    Response::Status(status) => {
                        *said = String::from_utf8(status.message.to_vec()).unwrap();
                        Got::Status(status.code)
                    }
                    Response::Handle(handle) => Got::Handle(handle.to_vec()),
                    Response::Attrs(attrs) => Got::Size(attrs.attrs.size.unwrap()),
                    Response::Name(names) => {
                        Got::Names(names.iter().map(|entry| entry.filename.to_vec()).collect())
                    }
                    Response::ExtendedReply(_) => Got::Extended,
                    other => panic!("{other:?}"),
                };
                (id, got)
            }
            Some(_) => continue,
        };
        assert_eq!(replies.insert(id, got), None, "{id} was answered twice");
    }
}

fn host_key() -> PrivateKey {
    generate_host_key().unwrap()
}

fn builder(files: &Arc<MemoryFileSystem>) -> ServerBuilder {
    let anna = User::with_file_system("anna", Arc::clone(files) as _).password(PASSWORD);
    Server::builder().host_key(host_key()).user(anna)
}

/// A client that is logged in at a server, over a pipe in memory.
async fn connected(server: &Server, pipe_len: usize) -> ConnectionHandle {
    let (ours, theirs) = tokio::io::duplex(pipe_len);
    let server = server.clone();
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    tokio::spawn(async move { server.serve_stream(theirs, "test").await });
    log_in(ours, "anna", vec![Try::Password(PASSWORD)])
        .await
        .unwrap()
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from((n * 31 + n / 251 + seed) % 256).unwrap())
        .collect()
}

/// Writes a file in pieces, closes it, reads it back with everything in flight at once.
async fn put_and_get(client: &mut Client, name: &str, content: &[u8], piece: usize) {
    let len = u32::try_from(piece).unwrap();
    let handle = client.open_file(name).await;
    let mut ids = Vec::new();
    for (n, data) in content.chunks(piece).enumerate() {
        let offset = (n * piece) as u64;
        ids.push(client.request(Write {
            handle: &handle,
            offset,
            data,
        }));
    }
    ids.push(client.request(Close { handle: &handle }));
    let stat = client.request(Stat {
        path: name.as_bytes(),
    });
    for id in ids {
        assert_eq!(client.reply(id).await, Got::Status(StatusCode::OK));
    }
    assert_eq!(client.reply(stat).await, Got::Size(content.len() as u64));

    let handle = client.open_file(name).await;
    let mut reads = Vec::new();
    for (n, data) in content.chunks(piece).enumerate() {
        let read = Read {
            handle: &handle,
            offset: (n * piece) as u64,
            len,
        };
        reads.push((client.request(read), data));
    }
    let offset = content.len() as u64;
    let end = client.request(Read {
        handle: &handle,
        offset,
        len,
    });
    let close = client.request(Close { handle: &handle });
    for (id, data) in reads {
        assert!(client.reply(id).await == Got::Data(data.to_vec()));
    }
    assert_eq!(client.reply(end).await, Got::Status(StatusCode::EOF));
    assert_eq!(client.reply(close).await, Got::Status(StatusCode::OK));
}

#[tokio::test]
async fn files_go_up_and_down_over_a_pipe() {
    let files = Arc::new(MemoryFileSystem::new());
    let server = builder(&files).build().unwrap();
    for (pipe_len, piece) in [(1 << 16, 32_768), (1 << 20, 261_120), (2_000, 5_000)] {
        let connection = connected(&server, pipe_len).await;
        let mut client = Client::open(&connection).await.unwrap();
        let content = pattern(7_000_001.min(piece * 200), pipe_len);
        let name = format!("/file{piece}");
        put_and_get(&mut client, &name, &content, piece).await;
        assert!(
            files
                .get(&VPath::resolve(name.as_bytes()).unwrap())
                .unwrap()
                == content
        );
        connection.disconnect();
    }
}

#[tokio::test]
async fn two_channels_share_a_connection_over_a_socket() {
    let dir = tempfile::tempdir().unwrap();
    let user = User::new("anna", dir.path()).password(PASSWORD);
    let server = Server::builder()
        .host_key(host_key())
        .user(user)
        .build()
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = {
        let server = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { server.serve(listener).await })
    };
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let connection = log_in(socket, "anna", vec![Try::Password(PASSWORD)])
        .await
        .unwrap();
    let mut one = Client::open(&connection).await.unwrap();
    let mut two = Client::open(&connection).await.unwrap();
    let (a, b) = (pattern(3_000_000, 1), pattern(2_000_000, 2));
    tokio::join!(
        put_and_get(&mut one, "/one", &a, 65_536),
        put_and_get(&mut two, "/two", &b, 32_768)
    );
    assert!(std::fs::read(dir.path().join("one")).unwrap() == a);
    assert!(std::fs::read(dir.path().join("two")).unwrap() == b);

    // A graceful end: nobody new comes in, who is there may finish, and then the loop returns.
    server.shutdown();
    put_and_get(&mut one, "/three", &a, 65_536).await;
    connection.disconnect();
    serving.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn shutdown_ends_connections_that_stay() {
    let files = Arc::new(MemoryFileSystem::new());
    let mut timeouts = Timeouts::default();
    timeouts.shutdown = Duration::from_millis(10);
    let server = builder(&files).timeouts(timeouts).build().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = {
        let server = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { server.serve(listener).await })
    };
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let connection = log_in(socket, "anna", vec![Try::Password(PASSWORD)])
        .await
        .unwrap();
    server.shutdown();
    connection.closed().await;
    serving.await.unwrap().unwrap();
}

/// A program that brings its own streams, and never listens.
#[tokio::test]
async fn shutdown_ends_streams_that_stay() {
    let files = Arc::new(MemoryFileSystem::new());
    let mut timeouts = Timeouts::default();
    timeouts.shutdown = Duration::from_millis(10);
    let server = builder(&files).timeouts(timeouts).build().unwrap();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let serving = {
        let server = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { server.serve_stream(theirs, "test").await })
    };
    let connection = log_in(ours, "anna", vec![Try::Password(PASSWORD)])
        .await
        .unwrap();
    server.shutdown();
    connection.closed().await;
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_the_right_proof_lets_in() {
    let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = PublicKey::ed25519(pair(1).public_key().as_ref().try_into().unwrap());
    let files: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
    let anna = User::with_file_system("anna", Arc::clone(&files)).password(PASSWORD);
    let bob = User::with_file_system("bob", files).authorized_key(public);
    let server = Server::builder()
        .host_key(host_key())
        .user(anna)
        .user(bob)
        .build()
        .unwrap();
    let attempt = |user: &'static str, tries| {
        let server = server.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
            tokio::spawn(async move { server.serve_stream(theirs, "test").await });
            log_in(ours, user, tries).await.is_ok()
        }
    };
    let right = || Try::Password(PASSWORD);
    let wrong = || Try::Password("wrong");
    assert!(attempt("anna", vec![right()]).await);
    assert!(attempt("anna", vec![wrong(), wrong(), right()]).await);
    assert!(!attempt("anna", (0..6).map(|_| wrong()).chain([right()]).collect()).await);
    assert!(!attempt("bob", vec![right()]).await);
    assert!(!attempt("eve", vec![right()]).await);
    assert!(attempt("bob", vec![Try::Key(pair(1))]).await);
    assert!(attempt("bob", vec![Try::Key(pair(2)), Try::Key(pair(1))]).await);
    assert!(!attempt("anna", vec![Try::Key(pair(1))]).await);
}

/// CVE-2024-5806 and its like: what a path, a shell or a template would read something into.
#[tokio::test]
async fn names_that_mean_something_elsewhere_are_nobody_here() {
    let server = builder(&Arc::new(MemoryFileSystem::new())).build().unwrap();
    let attempt = |user: String| {
        let server = server.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
            tokio::spawn(async move { server.serve_stream(theirs, "test").await });
            log_in(ours, &user, vec![Try::Password(PASSWORD)])
                .await
                .is_ok()
        }
    };
    assert!(attempt("anna".to_owned()).await);
    for name in [
        "",
        " anna",
        "anna ",
        "Anna",
        "anna\0",
        "anna\n",
        "../anna",
        "./anna",
        "anna/",
        "x/../anna",
        "$(id)",
        "`id`",
        "%u",
        "%h/anna",
        "~anna",
        "*",
        "anna,anna",
        "\u{202e}anna",
        "\u{430}nna", // begins with a Cyrillic letter
        "a\u{301}nna",
    ] {
        assert!(!attempt(name.to_owned()).await, "{name:?}");
    }
    for len in [255, 256, 10_000] {
        assert!(!attempt("a".repeat(len)).await, "{len}");
    }
}

/// Who says nothing, or a byte now and then, keeps a place for the time of a login and no longer;
/// meanwhile others come in.
#[tokio::test(start_paused = true)]
async fn many_that_drip_keep_nobody_out() {
    // Fewer than the places that there are for those who are not logged in.
    const DRIPPING: usize = 90;
    let server = builder(&Arc::new(MemoryFileSystem::new())).build().unwrap();
    let begun = tokio::time::Instant::now();
    let mut served = tokio::task::JoinSet::new();
    for n in 0..DRIPPING {
        let (mut ours, theirs) = tokio::io::duplex(1 << 14);
        let server = server.clone();
        served.spawn(async move {
            let _ = server.serve_stream(theirs, n).await;
            begun.elapsed()
        });
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move {
            // A line that is never finished, or the start of one packet after it.
            let line: &[u8] = b"SSH-2.0-drip\r\n\0\0\x10\0";
            let bytes = line.iter().chain(std::iter::repeat(&b'x'));
            if n % 3 == 0 {
                return std::future::pending().await;
            }
            for &byte in bytes {
                let byte = if n % 3 == 1 { b'x' } else { byte };
                if ours.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    }
    for _ in 0..10 {
        connected(&server, 1 << 16).await.disconnect();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut left = 0;
    while let Some(time) = served.join_next().await {
        let time = time.unwrap();
        assert!(time <= Duration::from_secs(31), "{time:?}");
        left += 1;
    }
    assert_eq!(left, DRIPPING);
}

#[tokio::test]
async fn nothing_but_the_subsystem_sftp_is_there() {
    let server = builder(&Arc::new(MemoryFileSystem::new())).build().unwrap();
    let connection = connected(&server, 1 << 16).await;
    for name in ["shell", "scp", "", "sftp ", "SFTP", "../sftp"] {
        let (_stream, application) = stream();
        let opened = connection.open_session(name, WINDOW, application).await;
        assert!(matches!(opened, Err(OpenError::Refused(_))), "{name:?}");
    }
    let mut client = Client::open(&connection).await.unwrap();
    assert_eq!(
        client.ask(Stat { path: b"/none" }).await,
        Got::Status(StatusCode::NO_SUCH_FILE)
    );
}

#[tokio::test]
async fn a_second_greeting_closes_the_channel_and_not_the_connection() {
    let server = builder(&Arc::new(MemoryFileSystem::new())).build().unwrap();
    let connection = connected(&server, 1 << 16).await;
    let mut client = Client::open(&connection).await.unwrap();
    let init = Init {
        version: PROTOCOL_VERSION,
        extensions: Pairs::EMPTY,
    };
    init.encode_packet(&mut client.outgoing);
    client.stream.write_all(&client.outgoing).await.unwrap();
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.unwrap();
    let mut other = Client::open(&connection).await.unwrap();
    assert_eq!(
        other.ask(Stat { path: b"/none" }).await,
        Got::Status(StatusCode::NO_SUCH_FILE)
    );
}

/// Writes nothing before it is told to: a disk that hangs.
#[derive(Debug)]
struct HangingFiles {
    files: Arc<MemoryFileSystem>,
    gate: Arc<tokio::sync::Semaphore>,
}

#[derive(Debug)]
struct HangingFile {
    file: Arc<dyn File>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl FileSystem for HangingFiles {
    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Box::pin(async move {
            Ok(match self.files.try_call(&call)? {
                Answer::File(file) => Answer::File(Arc::new(HangingFile {
                    file,
                    gate: Arc::clone(&self.gate),
                })),
                answer => answer,
            })
        })
    }
}

impl File for HangingFile {
    fn read_at(self: Arc<Self>, offset: u64, block: Block) -> Work<Block> {
        Arc::clone(&self.file).read_at(offset, block)
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        Box::pin(async move {
            let _open = self.gate.acquire().await.unwrap();
            Arc::clone(&self.file).write_at(offset, bytes).await
        })
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Arc::clone(&self.file).call(call)
    }
}

#[tokio::test]
async fn a_disk_that_hangs_stops_its_channel_and_no_other() {
    let memory = Arc::new(MemoryFileSystem::new());
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let files = HangingFiles {
        files: Arc::clone(&memory),
        gate: Arc::clone(&gate),
    };
    let anna = User::with_file_system("anna", Arc::new(files)).password(PASSWORD);
    let server = Server::builder()
        .host_key(host_key())
        .user(anna)
        .build()
        .unwrap();
    let connection = connected(&server, 1 << 20).await;
    let mut stuck = Client::open(&connection).await.unwrap();
    let mut other = Client::open(&connection).await.unwrap();
    let handle = stuck.open_file("/stuck").await;
    let content = pattern(3_000_000, 3);
    let ids: Vec<_> = content
        .chunks(32_768)
        .enumerate()
        .map(|(n, data)| {
            stuck.request(Write {
                handle: &handle,
                offset: n as u64 * 32_768,
                data,
            })
        })
        .collect();
    {
        let waiting = stuck.reply(ids[0]);
        let mut waiting = std::pin::pin!(waiting);
        for round in 0..50 {
            tokio::select! {
                biased;
                got = &mut waiting => panic!("{got:?}"),
                got = other.ask(Stat { path: b"/stuck" }) => {
                    assert_eq!(got, Got::Size(0), "round {round}");
                }
            }
        }
        gate.add_permits(1);
        assert_eq!(waiting.await, Got::Status(StatusCode::OK));
    }
    for id in &ids[1..] {
        assert_eq!(stuck.reply(*id).await, Got::Status(StatusCode::OK));
    }
    assert!(memory.get(&VPath::resolve(b"/stuck").unwrap()).unwrap() == content);
}

/// A file system in memory whose files wait: an `fsync`, and all reads of what is called `/slow…`,
/// until the gate lets them through.
#[derive(Debug)]
struct GatedFiles {
    files: Arc<MemoryFileSystem>,
    gate: Arc<tokio::sync::Semaphore>,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn File>,
    gate: Option<Arc<tokio::sync::Semaphore>>,
}

impl GatedFiles {
    fn wrap(&self, call: &Call) -> std::io::Result<Answer> {
        let is_slow =
            matches!(call, Call::Open { path, .. } if path.as_bytes().starts_with(b"/slow"));
        Ok(match self.files.try_call(call)? {
            Answer::File(file) => Answer::File(Arc::new(GatedFile {
                file,
                gate: is_slow.then(|| Arc::clone(&self.gate)),
            })),
            answer => answer,
        })
    }
}

impl FileSystem for GatedFiles {
    fn try_call(&self, call: &Call) -> std::io::Result<Answer> {
        self.wrap(call)
    }

    fn call(self: Arc<Self>, call: Call) -> Work<Answer> {
        Box::pin(async move { self.wrap(&call) })
    }
}

impl GatedFile {
    async fn pass(&self) {
        if let Some(gate) = &self.gate {
            drop(gate.acquire().await.unwrap());
        }
    }
}

impl File for GatedFile {
    fn read_at(self: Arc<Self>, offset: u64, block: Block) -> Work<Block> {
        Box::pin(async move {
            self.pass().await;
            Arc::clone(&self.file).read_at(offset, block).await
        })
    }

    fn write_at(self: Arc<Self>, offset: u64, bytes: Vec<u8>) -> Work<()> {
        Arc::clone(&self.file).write_at(offset, bytes)
    }

    fn call(self: Arc<Self>, call: FileCall) -> Work<Answer> {
        Box::pin(async move {
            if call == FileCall::Sync {
                self.pass().await;
            }
            Arc::clone(&self.file).call(call).await
        })
    }
}

/// Reads that hang, checksums, copies and fsyncs: more than a session may have on threads.
async fn hang(client: &mut Client, files: usize) -> Vec<RequestId> {
    let mut ids = Vec::new();
    let target = client.open_file("/target").await;
    for n in 0..files {
        let handle = client.open_file(&format!("/slow{n}")).await;
        ids.push(client.request(Extension::Fsync(Fsync { handle: &handle })));
        for offset in 0..4 {
            let handle = &handle;
            ids.push(client.request(Read {
                handle,
                offset,
                len: 10,
            }));
        }
        if n == 0 {
            ids.push(client.request(Extension::CopyData(CopyData {
                from: &handle,
                from_offset: 0,
                len: 0,
                to: &target,
                to_offset: 0,
            })));
        }
    }
    for _ in 0..10 {
        ids.push(client.request(Extension::CheckFileName(CheckFileName {
            // Work on the path of a file waits for the work before it on its handles.
            path: b"/slow9",
            algorithms: b"sha256",
            offset: 0,
            len: 0,
            block_len: 0,
        })));
    }
    ids
}

/// Everything that is not slow is answered.
async fn goes_on(client: &mut Client) {
    assert_eq!(client.ask(Stat { path: b"/fast" }).await, Got::Size(1000));
    let handle = client.open_file("/fast").await;
    let read = Read {
        handle: &handle,
        offset: 0,
        len: 3,
    };
    assert_eq!(client.ask(read).await, Got::Data(vec![1; 3]));
    let ok = Got::Status(StatusCode::OK);
    assert_eq!(client.ask(Close { handle: &handle }).await, ok);
}

fn gated() -> (Server, Arc<tokio::sync::Semaphore>) {
    let memory = Arc::new(MemoryFileSystem::new());
    for n in 0..12 {
        let path = VPath::resolve(format!("/slow{n}").as_bytes()).unwrap();
        memory.put(&path, vec![2; 50_000]).unwrap();
    }
    memory
        .put(&VPath::resolve(b"/fast").unwrap(), vec![1; 1000])
        .unwrap();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let files: Arc<dyn FileSystem> = Arc::new(GatedFiles {
        files: memory,
        gate: Arc::clone(&gate),
    });
    let user = |name| User::with_file_system(name, Arc::clone(&files)).password(PASSWORD);
    let builder = Server::builder().host_key(host_key());
    let server = builder.user(user("anna")).user(user("bob")).build();
    (server.unwrap(), gate)
}

#[tokio::test]
async fn what_hangs_in_a_session_holds_up_nothing_else_there_or_elsewhere() {
    let (server, gate) = gated();
    let connection = connected(&server, 1 << 20).await;
    let another = connected(&server, 1 << 20).await;
    let mut stuck = Client::open(&connection).await.unwrap();
    let mut beside = Client::open(&connection).await.unwrap();
    let mut apart = Client::open(&another).await.unwrap();
    let ids = hang(&mut stuck, 4).await;
    let waiting = stuck.reply(ids[0]);
    {
        let mut waiting = std::pin::pin!(waiting);
        for client in [&mut beside, &mut apart] {
            tokio::select! {
                biased;
                got = &mut waiting => panic!("{got:?}"),
                () = goes_on(client) => {}
            }
        }
    }
    goes_on(&mut stuck).await;
    assert_eq!(gate.available_permits(), 0);
    gate.add_permits(1);
    for id in ids {
        stuck.reply(id).await;
    }
}

#[tokio::test]
async fn a_user_with_hundreds_of_jobs_that_hang_does_not_keep_another_waiting() {
    let (server, gate) = gated();
    let (mut all, mut connections) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let connection = connected(&server, 1 << 20).await;
        for _ in 0..2 {
            let mut client = Client::open(&connection).await.unwrap();
            let ids = hang(&mut client, 4).await;
            all.push((client, ids));
        }
        connections.push(connection);
    }
    // Each of them has asked for what hangs, and anna's share of the threads is used up.
    for (client, _) in &mut all {
        assert_eq!(client.ask(Stat { path: b"/fast" }).await, Got::Size(1000));
    }
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let serving = server.clone();
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    tokio::spawn(async move { serving.serve_stream(theirs, "test").await });
    let connection = log_in(ours, "bob", vec![Try::Password(PASSWORD)])
        .await
        .unwrap();
    let mut bob = Client::open(&connection).await.unwrap();
    goes_on(&mut bob).await;
    let handle = bob.open_file("/fast").await;
    let sync = Extension::Fsync(Fsync { handle: &handle });
    assert_eq!(bob.ask(sync).await, Got::Status(StatusCode::OK));
    gate.add_permits(1);
    for (client, ids) in &mut all {
        for id in ids.iter() {
            client.reply(*id).await;
        }
    }
}

/// What the transport decides by itself is answered no sooner than what the server decides: how long
/// it took says nothing of what was wrong.
#[tokio::test(start_paused = true)]
async fn whatever_is_wrong_is_answered_at_the_floor() {
    let pair = |seed: u8| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = PublicKey::ed25519(pair(1).public_key().as_ref().try_into().unwrap());
    let anna = User::with_file_system("anna", Arc::new(MemoryFileSystem::new()))
        .password(PASSWORD)
        .authorized_key(public);
    let server = Server::builder().host_key(host_key()).user(anna).build();
    let server = server.unwrap();
    let mut times = Vec::new();
    for user in ["anna", "nobody"] {
        let wrong = [
            vec![],
            vec![Try::Password("wrong")],
            vec![Try::Key(pair(2))],
            vec![Try::Questions("")],
        ];
        for tries in wrong {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let served = server.clone();
            #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
            tokio::spawn(async move { served.serve_stream(theirs, "test").await });
            let begun = tokio::time::Instant::now();
            assert!(log_in(ours, user, tries).await.is_err());
            times.push(begun.elapsed());
        }
    }
    for of_user in times.chunks(4) {
        let floor = of_user[1].saturating_sub(of_user[0]);
        assert!((100..151).contains(&floor.as_millis()), "{times:?}");
        for wrong in &of_user[1..] {
            let more = wrong.saturating_sub(of_user[1]).as_millis();
            let less = of_user[1].saturating_sub(*wrong).as_millis();
            assert!(more <= 2 && less <= 2, "{times:?}");
        }
    }
}

/// A connection from an address of this machine.
async fn from(source: &str, to: std::net::SocketAddr) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket
        .bind(std::net::SocketAddr::new(source.parse().unwrap(), 0))
        .unwrap();
    socket.connect(to).await.unwrap()
}

/// Has keys exchanged and leaves; whether the server did.
async fn only_keys(source: &str, to: std::net::SocketAddr) -> bool {
    let Ok(mut login) = Login::client(from(source, to).await, ClientConfig::new("anna")) else {
        return false;
    };
    loop {
        match login.next().await {
            Ok(LoginEvent::HostKey(_)) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

async fn listening(
    server: &Server,
) -> (
    std::net::SocketAddr,
    tokio::task::JoinHandle<std::io::Result<()>>,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = server.clone();
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    let serving = tokio::spawn(async move { server.serve(listener).await });
    (address, serving)
}

/// CVE-2002-20001: whoever asks for key exchanges and for nothing else gets few of them, and others
/// come in meanwhile.
#[tokio::test]
async fn a_flood_of_key_exchanges_is_computed_to_a_bound() {
    const FLOOD: usize = 100;
    const BEARABLE: usize = 6;
    const HALF_OPEN: usize = 4;
    let mut limits = ketch_server::ServerLimits::default();
    limits.half_open_per_source_max = HALF_OPEN;
    let mut penalties = ketch_server::Penalties::default();
    // So long that the time of this test pays for nothing.
    (penalties.no_auth, penalties.min) = (Duration::from_secs(60), Duration::from_secs(330));
    for keeps_out in [true, false] {
        let builder = builder(&Arc::new(MemoryFileSystem::new())).limits(limits);
        let server = match keeps_out {
            true => builder.penalties(penalties.clone()),
            false => builder.without_penalties(),
        };
        let server = server.build().unwrap();
        let (address, _serving) = listening(&server).await;
        let mut computed = 0;
        for n in 0..FLOOD {
            computed += usize::from(only_keys("127.0.0.2", address).await);
            if n % 30 == 0 {
                let stream = from("127.0.0.3", address).await;
                let connection = log_in(stream, "anna", vec![Try::Password(PASSWORD)]).await;
                connection.unwrap().disconnect();
            }
        }
        // Those that were half-open at a time are not noted yet when the next one comes.
        let most = BEARABLE + HALF_OPEN;
        assert_eq!(computed <= most, keeps_out, "{computed} of {FLOOD}");
        server.shutdown();
    }
}

#[tokio::test]
async fn who_guesses_passwords_is_kept_out_and_nobody_else() {
    let mut penalties = ketch_server::Penalties::default();
    (penalties.auth_fail, penalties.min) = (Duration::from_secs(60), Duration::from_secs(110));
    let builder = builder(&Arc::new(MemoryFileSystem::new()));
    let server = builder.penalties(penalties).build().unwrap();
    let (address, serving) = listening(&server).await;
    let attempt = async |source: &str, password| {
        let stream = from(source, address).await;
        log_in(stream, "anna", vec![Try::Password(password)]).await
    };
    attempt("127.0.0.2", PASSWORD).await.unwrap().disconnect();
    for _ in 0..2 {
        assert!(attempt("127.0.0.2", "wrong").await.is_err());
    }
    // The server may not have heard yet that the last one left.
    let mut is_kept_out = false;
    for _ in 0..50 {
        is_kept_out = attempt("127.0.0.2", PASSWORD).await.is_err();
        if is_kept_out {
            break;
        }
    }
    assert!(is_kept_out);
    attempt("127.0.0.3", PASSWORD).await.unwrap().disconnect();
    server.shutdown();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_password_is_compared_with_its_hash() {
    let hash = ketch_server::PasswordHash::of(PASSWORD).unwrap();
    let files: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
    let anna = User::with_file_system("anna", files).password_hash(hash);
    let server = Server::builder().host_key(host_key()).user(anna).build();
    let server = server.unwrap();
    for (user, password, lets_in) in [
        ("anna", PASSWORD, true),
        ("anna", "wrong", false),
        ("nobody", PASSWORD, false),
    ] {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let served = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { served.serve_stream(theirs, "test").await });
        let outcome = log_in(ours, user, vec![Try::Password(password)]).await;
        assert_eq!(outcome.is_ok(), lets_in, "{user} {password}");
    }
}

#[tokio::test]
async fn questions_are_asked_where_the_program_has_some() {
    use ketch_server::{Interview, Prompt, Questions};
    let files: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
    let server = Server::builder()
        .host_key(host_key())
        .user(User::with_file_system("anna", Arc::clone(&files)).questions())
        .user(User::with_file_system("bob", files).password(PASSWORD))
        .ask_questions(|_user, answers| {
            let question = |count: usize| {
                let mut questions = Questions::default();
                let text = "Again: ".to_owned();
                questions.prompts = vec![Prompt { text, echo: false }; count];
                Interview::Ask(questions)
            };
            match answers {
                [] => question(1),
                [first] if first[0].as_str() == "endless" => question(1),
                [first] if first[0].as_str() == "panic" => panic!("on purpose"),
                [first] if first[0].as_str() == "yes" => question(2),
                [_, second] if second.iter().all(|answer| answer.as_str() == "yes") => {
                    Interview::Accept
                }
                [_, ..] if answers[0][0].as_str() == "endless" => question(0),
                _ => Interview::Reject,
            }
        })
        .build()
        .unwrap();
    for (user, answer, lets_in) in [
        ("anna", "yes", true),
        ("anna", "no", false),
        ("anna", "endless", false),
        ("anna", "panic", false),
        ("bob", "yes", false),
        ("nobody", "yes", false),
    ] {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let served = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { served.serve_stream(theirs, "test").await });
        let outcome = log_in(ours, user, vec![Try::Questions(answer)]).await;
        assert_eq!(outcome.is_ok(), lets_in, "{user} {answer}");
    }
}

#[tokio::test]
async fn a_password_that_expired_is_changed_before_it_lets_in() {
    let hash = ketch_server::PasswordHash::of(PASSWORD).unwrap();
    let files = || -> Arc<dyn FileSystem> { Arc::new(MemoryFileSystem::new()) };
    let expired = |user: User| user.password_expired("It is time for another.");
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keeps = Arc::clone(&kept);
    let server = Server::builder()
        .host_key(host_key())
        .user(expired(
            User::with_file_system("anna", files()).password(PASSWORD),
        ))
        .user(expired(
            User::with_file_system("bob", files()).password_hash(hash),
        ))
        .user(User::with_file_system("carl", files()).password(PASSWORD))
        .change_passwords(move |user, new| {
            if new.len() < 6 {
                return Err("It is too short.".to_owned());
            }
            keeps
                .lock()
                .unwrap()
                .push((user.to_owned(), new.to_owned()));
            Ok(())
        })
        .build()
        .unwrap();
    let attempt = async |user, with| {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let served = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { served.serve_stream(theirs, "test").await });
        log_in(ours, user, vec![with]).await.is_ok()
    };
    for user in ["anna", "bob"] {
        assert!(!attempt(user, Try::Password(PASSWORD)).await, "it expired");
        assert!(!attempt(user, Try::Change("wrong", &["new password"])).await);
        assert!(!attempt(user, Try::Change(PASSWORD, &["", "short"])).await);
        assert!(attempt(user, Try::Change(PASSWORD, &["short", "new password"])).await);
        assert!(attempt(user, Try::Password("new password")).await);
        assert!(!attempt(user, Try::Password(PASSWORD)).await, "the old one");
    }
    assert!(attempt("carl", Try::Password(PASSWORD)).await);
    let new = |user: &str| (user.to_owned(), "new password".to_owned());
    assert_eq!(*kept.lock().unwrap(), [new("anna"), new("bob")]);
}
