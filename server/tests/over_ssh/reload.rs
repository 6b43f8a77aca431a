//! What a reload changes, and for whom: users who are gone are out, all others keep what they have.

use std::net::SocketAddr;

use ketch_server::{BuildError, Quota};
use ketch_transport::config::AuthMethod;
use tokio::time::{Instant, timeout};

use super::*;

/// What a server takes at most to be rid of somebody.
const OUT_WITHIN: Duration = Duration::from_secs(1);
/// What a test waits for at most, on whatever machine.
const LONG: Duration = Duration::from_secs(60);

fn user(name: &str, files: &Arc<MemoryFileSystem>) -> User {
    User::with_file_system(name, Arc::clone(files) as _).password(PASSWORD)
}

fn with(users: impl IntoIterator<Item = User>) -> ServerBuilder {
    users
        .into_iter()
        .fold(Server::builder(), ServerBuilder::user)
}

fn files_with(name: &str) -> Arc<MemoryFileSystem> {
    let files = MemoryFileSystem::new();
    files
        .put(&VPath::resolve(name.as_bytes()).unwrap(), b"here".to_vec())
        .unwrap();
    Arc::new(files)
}

async fn comes_in(server: &Server, user: &str, tries: Vec<Try>) -> Option<ConnectionHandle> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let server = server.clone();
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    tokio::spawn(async move { server.serve_stream(theirs, "test").await });
    log_in(ours, user, tries).await.ok()
}

async fn by_password(server: &Server, user: &str) -> Option<ConnectionHandle> {
    comes_in(server, user, vec![Try::Password(PASSWORD)]).await
}

async fn is_there(connection: &ConnectionHandle, name: &str) -> bool {
    let mut client = Client::open(connection).await.unwrap();
    let path = name.as_bytes();
    matches!(client.ask(Stat { path }).await, Got::Size(_))
}

/// S13: whoever is disabled or removed while they transfer is out within a second, whether they take
/// what comes or not; nobody else notices.
#[tokio::test(start_paused = true)]
async fn who_is_gone_or_disabled_is_out_in_mid_transfer() {
    let files = Arc::new(MemoryFileSystem::new());
    let others = || [user("bob", &files)];
    let disabled = with(others()).user(user("anna", &files).disabled());
    let expired = with(others()).user(user("anna", &files).expires(1));
    for next in [with(others()), disabled, expired] {
        let server = with([user("anna", &files), user("bob", &files)]).host_key(host_key());
        let server = server.build().unwrap();
        let bob = by_password(&server, "bob").await.unwrap();
        let takes = by_password(&server, "anna").await.unwrap();
        let mut client = Client::open(&takes).await.unwrap();
        put_and_get(&mut client, "/file", &pattern(1 << 20, 1), 32_768).await;
        let handle = client.open_file("/file").await;

        // Another one asks for a mebibyte and takes nothing of it.
        let (ours, theirs) = tokio::io::duplex(1 << 12);
        let served = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        let stubborn = tokio::spawn(async move { served.serve_stream(theirs, "stubborn").await });
        let ours = Stopped::new(ours);
        let stop = ours.stop.clone();
        let tries = vec![Try::Password(PASSWORD)];
        let silent = log_in(ours, "anna", tries).await.unwrap();
        let mut silent = Client::open(&silent).await.unwrap();
        let greedy = silent.open_file("/file").await;
        for n in 0..32 {
            silent.request(Read {
                handle: &greedy,
                offset: n << 15,
                len: 1 << 15,
            });
        }
        silent.send().await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);

        let reads = async {
            loop {
                let read = Read {
                    handle: &handle,
                    offset: 0,
                    len: 32_768,
                };
                if client.ends(read).await {
                    break;
                }
            }
        };
        let begun = Instant::now();
        server.reload(next).unwrap();
        timeout(LONG, reads).await.expect("the transfer ends");
        timeout(LONG, takes.closed()).await.unwrap();
        timeout(LONG, stubborn).await.unwrap().unwrap().unwrap();
        assert!(begun.elapsed() < OUT_WITHIN, "{:?}", begun.elapsed());
        assert!(by_password(&server, "anna").await.is_none());
        assert!(is_there(&bob, "/file").await);
    }
}

#[tokio::test]
async fn who_expires_is_out_without_a_reload() {
    let files = Arc::new(MemoryFileSystem::new());
    // Until then both have to be in, which a busy machine may take its time for.
    for seconds in [2, 10, 60] {
        #[expect(
            clippy::disallowed_methods,
            reason = "expiry is by the clock of the day"
        )]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let expires = now.unwrap().as_secs() + seconds;
        let users = [user("anna", &files).expires(expires), user("bob", &files)];
        let server = with(users).host_key(host_key()).build().unwrap();
        let bob = by_password(&server, "bob").await.unwrap();
        let Some(anna) = by_password(&server, "anna").await else {
            continue;
        };
        timeout(LONG, anna.closed()).await.unwrap();
        assert!(by_password(&server, "anna").await.is_none());
        assert!(!is_there(&bob, "/file").await, "he is in, without a file");
        return;
    }
    panic!("nobody came in within a minute");
}

#[tokio::test(start_paused = true)]
async fn who_stays_keeps_what_there_was_and_who_comes_sees_what_is_new() {
    let (old, new) = (files_with("/old"), files_with("/new"));
    let server = with([user("anna", &old)])
        .host_key(host_key())
        .build()
        .unwrap();
    let (key, before) = (
        server.host_key(),
        by_password(&server, "anna").await.unwrap(),
    );
    server.reload(with([user("anna", &new)])).unwrap();
    let after = by_password(&server, "anna").await.unwrap();
    assert!(is_there(&before, "/old").await && !is_there(&before, "/new").await);
    assert!(is_there(&after, "/new").await && !is_there(&after, "/old").await);
    assert_eq!(server.host_key(), key, "none was given");

    let other = host_key();
    let public = other.public_key().clone();
    server
        .reload(with([user("anna", &new)]).host_key(other))
        .unwrap();
    assert_eq!(server.host_key(), public);
    assert!(by_password(&server, "anna").await.is_some());
    assert!(is_there(&before, "/old").await);

    // What is wrong changes nothing.
    let nobody = server.reload(Server::builder());
    assert!(matches!(nobody, Err(BuildError::NoUsers)));
    let bad = server.reload(with([user("", &new)]));
    assert!(matches!(bad, Err(BuildError::BadUserName { .. })));
    assert!(by_password(&server, "anna").await.is_some());
    assert!(is_there(&before, "/old").await);
}

/// Steps that were taken under other rules do not count: who is between two of them begins anew.
#[tokio::test(start_paused = true)]
async fn a_login_is_made_under_one_set_of_rules() {
    use AuthMethod::{Password, PublicKey as Key};
    let pair = || Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let public = PublicKey::ed25519(pair().public_key().as_ref().try_into().unwrap());
    let files = Arc::new(MemoryFileSystem::new());
    let anna = || {
        let anna = user("anna", &files).authorized_key(public.clone());
        anna.require([Key, Password])
    };
    let server = with([anna()]).host_key(host_key()).build().unwrap();
    let tries = || vec![Try::Key(pair()), Try::Password(PASSWORD)];
    assert!(comes_in(&server, "anna", tries()).await.is_some());
    for is_reloaded in [false, true] {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let served = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { served.serve_stream(theirs, "test").await });
        let mut login = Login::client(ours, ClientConfig::new("anna")).unwrap();
        let mut steps = 0;
        let is_in = loop {
            match login.next().await {
                Ok(LoginEvent::HostKey(_)) => login.accept_host_key().unwrap(),
                Ok(LoginEvent::AuthWanted { .. }) => {
                    steps += 1;
                    let credential = match steps {
                        1 => Credential::public_key(public.clone()),
                        2 => {
                            if is_reloaded {
                                server.reload(with([anna()])).unwrap();
                            }
                            Credential::Password(Zeroizing::new(PASSWORD.to_owned()))
                        }
                        _ => break false,
                    };
                    login.authenticate(&credential).unwrap();
                }
                Ok(LoginEvent::Sign(data)) => {
                    let signature = pair().sign(&data);
                    let blob = signature_blob(SignatureAlgorithm::Ed25519, signature.as_ref());
                    login.signature(&blob).unwrap();
                }
                Ok(LoginEvent::Authenticated { .. }) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        assert_eq!(is_in, !is_reloaded);
    }
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_user_are_counted_over_reloads() {
    let files = Arc::new(MemoryFileSystem::new());
    let anna = || user("anna", &files).connections_max(2);
    let server = with([anna(), user("bob", &files)]).host_key(host_key());
    let server = server.build().unwrap();
    let first = by_password(&server, "anna").await.unwrap();
    server.reload(with([anna(), user("bob", &files)])).unwrap();
    let _second = by_password(&server, "anna").await.unwrap();
    assert!(by_password(&server, "anna").await.is_none());
    assert!(by_password(&server, "bob").await.is_some());
    first.disconnect();
    first.closed().await;
    // The other end learns of it when it has read what is under way.
    let again = async {
        while by_password(&server, "anna").await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, again).await.expect("there is room again");
}

#[tokio::test]
async fn a_quota_is_one_over_reloads() {
    let root = tempfile::tempdir().unwrap();
    let anna = |bytes| {
        let anna = User::new("anna", root.path()).password(PASSWORD);
        anna.quota(Quota::of_bytes(bytes))
    };
    let server = with([anna(1000)]).host_key(host_key()).build().unwrap();
    // All of them stay, each with a connection from before a reload.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let connection = by_password(&server, "anna").await.unwrap();
        clients.push((Client::open(&connection).await.unwrap(), connection));
        server.reload(with([anna(1000)])).unwrap();
    }
    let mut written = Vec::new();
    for (n, (client, _)) in clients.iter_mut().enumerate() {
        let handle = client.open_file(&format!("/{n}")).await;
        let write = Write {
            handle: &handle,
            offset: 0,
            data: &[0; 600],
        };
        written.push(client.ask(write).await == Got::Status(StatusCode::OK));
    }
    assert_eq!(written, [true, false, false]);
}

#[tokio::test]
async fn users_come_from_their_networks_alone() {
    let files = Arc::new(MemoryFileSystem::new());
    let at = |network: &str| [network.parse().unwrap()];
    let anna = user("anna", &files).sources(at("127.0.0.2"));
    let bob = user("bob", &files)
        .sources(at("127.0.0.0/8"))
        .sources(at("127.0.0.3"));
    let server = with([anna, bob]).host_key(host_key()).without_penalties();
    let server = server.build().unwrap();
    let (address, serving): (SocketAddr, _) = listening(&server).await;
    for (name, source, lets_in) in [
        ("anna", "127.0.0.2", true),
        ("anna", "127.0.0.3", false),
        ("bob", "127.0.0.2", false),
        ("bob", "127.0.0.3", true),
    ] {
        let socket = from(source, address).await;
        let came = log_in(socket, name, vec![Try::Password(PASSWORD)]).await;
        assert_eq!(came.is_ok(), lets_in, "{name} from {source}");
    }
    assert!(by_password(&server, "anna").await.is_none(), "from nowhere");
    server.shutdown();
    timeout(LONG, serving).await.unwrap().unwrap().unwrap();
}

/// Reloads without end while people come, transfer and leave: everybody gets what they came for.
#[tokio::test]
async fn a_storm_of_reloads_disturbs_nobody() {
    let files = files_with("/file");
    let users = || with([user("anna", &files), user("bob", &files)]);
    let server = users().host_key(host_key()).build().unwrap();
    let storm = {
        let server = server.clone();
        let users: Vec<_> = (0..2_000).map(|_| users()).collect();
        async move {
            for users in users {
                server.reload(users).unwrap();
                tokio::task::yield_now().await;
            }
        }
    };
    let work = async {
        let stays = by_password(&server, "bob").await.unwrap();
        for n in 0..5 {
            let anna = by_password(&server, "anna").await.unwrap();
            let mut client = Client::open(&anna).await.unwrap();
            put_and_get(&mut client, "/up", &pattern(200_000, n), 32_768).await;
            assert!(is_there(&stays, "/file").await);
        }
    };
    timeout(LONG, async { tokio::join!(storm, work) })
        .await
        .unwrap();
}

impl Client {
    /// Sends what was asked, and reads nothing.
    async fn send(&mut self) {
        let outgoing = std::mem::take(&mut self.outgoing);
        self.stream.write_all(&outgoing).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Asks and waits for the reply: whether the channel ends instead.
    async fn ends<'a>(&mut self, request: impl Into<Request<'a>>) -> bool {
        let id = self.request(request);
        let outgoing = std::mem::take(&mut self.outgoing);
        if self.stream.write_all(&outgoing).await.is_err() {
            return true;
        }
        let mut buffer = vec![0; 64 * 1024];
        while self.replies.remove(&id).is_none() {
            match self.stream.read(&mut buffer).await {
                Ok(got) if got > 0 => {
                    take_replies(
                        &mut self.decoder,
                        &buffer[..got],
                        &mut self.body,
                        &mut self.said,
                        &mut self.replies,
                    );
                }
                _ => return true,
            }
        }
        false
    }
}

/// A stream of which nothing is read any more from a moment on.
struct Stopped {
    stream: tokio::io::DuplexStream,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Stopped {
    fn new(stream: tokio::io::DuplexStream) -> Self {
        Self {
            stream,
            stop: Arc::default(),
        }
    }
}

impl AsyncRead for Stopped {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.stop.load(std::sync::atomic::Ordering::SeqCst) {
            return std::task::Poll::Pending;
        }
        std::pin::Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Stopped {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
