//! A server that is there, answers keepalives and no request: the operations end at the stall
//! deadline, and the second stall ends the channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ketch_client::{Failure, GetOptions, Kind, Outcome, PutOptions, Session, SftpError, Timeouts};
use ketch_server::{Application, PublicKey, generate_host_key};
use ketch_transport::auth::Method;
use ketch_transport::config::ServerConfig;
use ketch_transport::driver::{Acceptor, ChannelIo, CloseReason, Lent, Login, LoginEvent};

use crate::echo;
use crate::random::Random;
use crate::scene::{PASSWORD, connect, names, turn, until};
use crate::wire::{Counts, Over, Stream};

/// Time without a byte of a reply that is borne.
const STALL: Duration = Duration::from_secs(3);
/// How often the client asks whether the server is there, and how many answers may be missing: a
/// minute's, because a busy machine may be silent for long.
const KEEPALIVE: Duration = Duration::from_millis(200);
const KEEPALIVES_MAX: u32 = 300;
/// Answers that are counted before it is sure that the server gives them.
const ANSWERS: u64 = 10;

/// `SSH_FXP_VERSION` 3 without extensions (draft-ietf-secsh-filexfer-02 §4).
const GREETING: &[u8] = &[0, 0, 0, 5, 2, 0, 0, 0, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_ends_operations_at_the_stall_deadline_over_duplex() {
    silent_after_the_greeting(Over::Duplex).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_ends_operations_at_the_stall_deadline_over_a_socket() {
    silent_after_the_greeting(Over::Socket).await;
}

async fn silent_after_the_greeting(over: Over) {
    let _turn = turn().await;
    let (session, counts, channels) = connect_to_silence(over, GREETING).await;
    // The last byte that ever comes is the greeting's.
    let began = Instant::now();
    let sftp = session.sftp().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, "never sent").unwrap();
    let (seen, _) = counts.events();
    let (stat, mkdir, get, put) = tokio::join!(
        sftp.stat("file"),
        sftp.create_dir("directory"),
        sftp.get("file", dir.path().join("file"), GetOptions::new()),
        sftp.put(&source, "file", PutOptions::new()),
    );
    assert!(began.elapsed() >= STALL, "after {:?}", began.elapsed());
    let (stat, mkdir) = (stat.unwrap_err(), mkdir.unwrap_err());
    let (get, put) = (get.unwrap_err(), put.unwrap_err());
    let errors: [&dyn Failure; 4] = [&stat, &mkdir, &get, &put];
    for error in errors {
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert!(error.is_transient(), "{error}");
    }
    assert_eq!(stat.outcome(), Outcome::NotDone);
    assert_eq!(
        mkdir.outcome(),
        Outcome::Unknown,
        "it was asked for, and nobody knows"
    );
    assert_eq!(get.outcome(), Outcome::NotDone);
    assert_eq!(names(dir.path()), [source], "no part of a file is left");

    // The server was there all the time, and is: nothing but answers comes from it.
    until("keepalives are answered", || {
        counts.events().0 > seen + ANSWERS
    })
    .await;
    assert!(!session.is_closed());
    assert_eq!(channels.closed(), 0, "one stall alone ends no channel");
    echo::there_and_back(session.clone(), Random::new(3), 100_000).await;

    let again = Instant::now();
    let error = sftp.stat("file").await.unwrap_err();
    assert!(again.elapsed() >= STALL, "after {:?}", again.elapsed());
    assert_eq!(error.kind(), Kind::Timeout, "{error}");
    until("the second stall closes the channel", || {
        channels.closed() == 1
    })
    .await;
    let late = sftp.create_dir("directory").await.unwrap_err();
    assert_eq!(
        (late.kind(), late.outcome()),
        (Kind::Timeout, Outcome::NotDone),
        "{late}"
    );

    // Another channel on the same connection is another try.
    assert!(!session.is_closed());
    let sftp = session.sftp().await.unwrap();
    assert_eq!(sftp.stat("file").await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(channels.closed(), 1);
    session.disconnect().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_even_greet_ends_in_a_timeout() {
    let _turn = turn().await;
    let (session, _, _) = connect_to_silence(Over::Duplex, &[]).await;
    let begin = async {
        let sftp = session.sftp().await?;
        sftp.stat("file").await?;
        Ok::<_, SftpError>(())
    };
    let error = begin.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (Kind::Timeout, Outcome::NotDone),
        "{error}"
    );
    assert!(!session.is_closed());
    session.disconnect().await;
}

/// A connection to a server whose SFTP says `greeting` and nothing else.
async fn connect_to_silence(
    over: Over,
    greeting: &'static [u8],
) -> (Session, Arc<Counts>, Arc<Channels>) {
    let channels = Arc::new(Channels::default());
    let (ours, theirs) = over.pair().await;
    let mut config = ServerConfig::new([Arc::new(generate_host_key().unwrap().into())]);
    config.common.timers.keepalive = None;
    let host_key: PublicKey = config.host_keys[0].public_key().clone();
    let silence = Silence {
        greeting,
        channels: Arc::clone(&channels),
    };
    tokio::spawn(serve(theirs, config, silence));
    let mut timeouts = Timeouts::default();
    timeouts.stall = STALL;
    timeouts.keepalive = Some(KEEPALIVE);
    timeouts.keepalives_max = KEEPALIVES_MAX;
    let (session, counts) = connect(ours, host_key, timeouts).await;
    (session, counts, channels)
}

async fn serve(stream: impl Stream + 'static, config: ServerConfig, silence: Silence) {
    let mut login = Login::server(stream, config).unwrap();
    loop {
        match login.next().await.unwrap() {
            LoginEvent::Attempt(attempt) => match attempt.method {
                Method::Password(password) if *password == PASSWORD => login.accept_auth().unwrap(),
                _ => login.reject_auth().unwrap(),
            },
            LoginEvent::Authenticated { .. } => {
                let (_handle, connection) = login.run(Box::new(silence));
                return connection.await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What the server's SFTP channels have in common.
#[derive(Debug, Default)]
struct Channels {
    closed: AtomicUsize,
}

impl Channels {
    fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }
}

/// Starts an SFTP that takes everything and answers nothing; and an echo.
#[derive(Clone, Debug)]
struct Silence {
    greeting: &'static [u8],
    channels: Arc<Channels>,
}

impl Acceptor for Silence {
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        match name {
            "sftp" => Some(Box::new(self.clone())),
            "echo" => Some(echo::start()),
            _ => None,
        }
    }
}

impl Application for Silence {
    fn on_open(&mut self, io: &mut ChannelIo<'_>) {
        io.send(self.greeting).unwrap();
    }

    fn on_data(&mut self, data: Lent<'_>, io: &mut ChannelIo<'_>) {
        io.give_credit(data.bytes.len());
    }

    fn on_closed(&mut self, _: &Arc<CloseReason>) {
        self.channels.closed.fetch_add(1, Ordering::SeqCst);
    }
}
