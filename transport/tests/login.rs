//! Logins over an in-memory stream: who gets in, who does not, and when it takes too long.

#![expect(clippy::disallowed_methods, reason = "the tests of a driver own tasks")]

mod ends;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ends::{host_key, log_in_client, log_in_server, user_public_key, user_signature};
use ketch_transport::auth::{Credential, Method};
use ketch_transport::config::{AuthMethod, ClientConfig, ServerConfig};
use ketch_transport::driver::{CloseReason, Login, LoginEvent, RefuseAll};
use ketch_transport::error::{ConnectionError, Deadline};
use ketch_transport::message::transport::DisconnectReason;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use zeroize::Zeroizing;

fn both(pipe: usize) -> (Login<DuplexStream>, Login<DuplexStream>) {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let client = Login::client(ours, ClientConfig::new("ann")).unwrap();
    (
        client,
        Login::server(theirs, ServerConfig::new([host_key()])).unwrap(),
    )
}

fn error(why: &CloseReason) -> &ConnectionError {
    match why {
        CloseReason::Connection(error) => error,
        other => panic!("{other:?}"),
    }
}

fn goodbye(why: &CloseReason) -> DisconnectReason {
    match error(why) {
        ConnectionError::Disconnected { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

/// The next event, which is the one expected.
macro_rules! expect {
    ($login:expr, $pattern:pat => $value:expr) => {
        match $login.next().await {
            Ok($pattern) => $value,
            other => panic!("{other:?}"),
        }
    };
}

#[tokio::test]
async fn a_key_logs_in() {
    for pipe in [1, 17, 100_000] {
        let (mut client, server) = both(pipe);
        let server = tokio::task::spawn(async {
            let server = log_in_server(server).await.unwrap();
            server.run(Box::new(RefuseAll)).1.await;
        });
        expect!(client, LoginEvent::HostKey(_) => client.accept_host_key().unwrap());
        expect!(client, LoginEvent::AuthWanted { methods: None, .. } => {
            client.authenticate(&Credential::public_key(user_public_key())).unwrap();
        });
        let signature = expect!(client, LoginEvent::Sign(data) => user_signature(&data));
        client.signature(&signature).unwrap();
        expect!(client, LoginEvent::Authenticated { user } => assert_eq!(user, "ann"));
        assert!(
            client
                .peer_identification()
                .unwrap()
                .starts_with("SSH-2.0-ketch")
        );
        drop(client);
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_fails_six_times_and_both_learn_why() {
    let (client, server) = both(100_000);
    let client = tokio::task::spawn(log_in_client(client, "guess"));
    let why = log_in_server(server).await.unwrap_err();
    assert_eq!(error(&why), &ConnectionError::TooManyAttempts);
    let why = client.await.unwrap().unwrap_err();
    assert_eq!(
        goodbye(&why),
        DisconnectReason::NO_MORE_AUTH_METHODS_AVAILABLE
    );
}

#[tokio::test]
async fn the_methods_are_those_of_the_configuration() {
    let (ours, theirs) = tokio::io::duplex(100_000);
    let mut config = ServerConfig::new([host_key()]);
    config.methods = vec![AuthMethod::PublicKey];
    let server = Login::server(theirs, config).unwrap();
    let server = tokio::task::spawn(log_in_server(server));
    let mut client = Login::client(ours, ClientConfig::new("ann")).unwrap();
    expect!(client, LoginEvent::HostKey(_) => client.accept_host_key().unwrap());
    expect!(client, LoginEvent::AuthWanted { .. } => client.authenticate(&Credential::None).unwrap());
    let methods = expect!(client, LoginEvent::AuthWanted { methods, .. } => methods);
    assert_eq!(methods.unwrap(), ["publickey"]);
    client
        .give_up(DisconnectReason::AUTH_CANCELLED_BY_USER, "no key")
        .await;
    let why = server.await.unwrap().unwrap_err();
    assert_eq!(goodbye(&why), DisconnectReason::AUTH_CANCELLED_BY_USER);
}

#[tokio::test]
async fn a_host_key_that_is_not_trusted_gets_no_credential() {
    let (mut client, mut server) = both(100_000);
    let server = tokio::task::spawn(async move { server.next().await });
    expect!(client, LoginEvent::HostKey(_) => ());
    client
        .give_up(DisconnectReason::HOST_KEY_NOT_VERIFIABLE, "unknown host")
        .await;
    let why = server.await.unwrap().unwrap_err();
    assert_eq!(goodbye(&why), DisconnectReason::HOST_KEY_NOT_VERIFIABLE);
}

#[tokio::test]
async fn events_are_waited_for_again_after_a_future_was_dropped() {
    let (client, mut server) = both(1);
    let client = tokio::task::spawn(log_in_client(client, "secret"));
    let mut attempts = 0;
    loop {
        // Most of these are dropped half-way.
        let Ok(event) = tokio::time::timeout(Duration::ZERO, server.next()).await else {
            continue;
        };
        match event.unwrap() {
            LoginEvent::Attempt(attempt) => {
                attempts += 1;
                match attempt.method {
                    Method::Password(_) => server.accept_auth().unwrap(),
                    _ => server.reject_auth().unwrap(),
                }
            }
            LoginEvent::Authenticated { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(attempts, 2);
    let (_handle, task) = server.run(Box::new(RefuseAll));
    tokio::task::spawn(task);
    client.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_given_thirty_seconds() {
    let began = tokio::time::Instant::now();
    let (ours, theirs) = tokio::io::duplex(100_000);
    let mut client = Login::client(ours, ClientConfig::new("ann")).unwrap();
    let why = client.next().await.unwrap_err();
    assert_eq!(error(&why), &ConnectionError::TimedOut(Deadline::Handshake));
    assert_eq!(began.elapsed().as_secs(), 30);
    drop(theirs);

    let began = tokio::time::Instant::now();
    let (mut client, server) = both(100_000);
    let server = tokio::task::spawn(log_in_server(server));
    expect!(client, LoginEvent::HostKey(_) => client.accept_host_key().unwrap());
    expect!(client, LoginEvent::AuthWanted { .. } => ());
    // The user thinks for longer than the server waits.
    let why = server.await.unwrap().unwrap_err();
    assert_eq!(
        error(&why),
        &ConnectionError::TimedOut(Deadline::Authentication)
    );
    assert_eq!(began.elapsed().as_secs(), 60);
    client
        .authenticate(&Credential::Password(Zeroizing::new("secret".to_owned())))
        .unwrap();
    let why = client.next().await.unwrap_err();
    assert_eq!(
        goodbye(&why),
        DisconnectReason::CONNECTION_LOST,
        "the server said so before it left"
    );
}

#[tokio::test(start_paused = true)]
async fn the_users_time_is_not_the_servers() {
    let mut config = ServerConfig::new([host_key()]);
    config.common.timers.authentication = Duration::from_secs(100_000);
    let (ours, theirs) = tokio::io::duplex(100_000);
    let server = Login::server(theirs, config).unwrap();
    let server = tokio::task::spawn(log_in_server(server));
    let mut client = Login::client(ours, ClientConfig::new("ann")).unwrap();
    expect!(client, LoginEvent::HostKey(_) => ());
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.accept_host_key().unwrap();
    expect!(client, LoginEvent::AuthWanted { .. } => ());
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    client
        .authenticate(&Credential::Password(Zeroizing::new("secret".to_owned())))
        .unwrap();
    expect!(client, LoginEvent::Authenticated { .. } => ());
    server.await.unwrap().unwrap();
}

/// A peer that sends packets without end, as fast as they are read.
struct Endless {
    line: &'static [u8],
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // An IGNORE in clear: length 12, padding 6, number 2, an empty string.
        const IGNORE: &[u8] = &[0, 0, 0, 12, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let piece = if self.line.is_empty() {
            IGNORE
        } else {
            self.line
        };
        buffer.put_slice(&piece[..piece.len().min(buffer.remaining())]);
        self.line = &[];
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_peer_that_always_has_more_to_say_runs_out_of_time_all_the_same() {
    let mut config = ServerConfig::new([host_key()]);
    config.common.timers.handshake = Duration::from_millis(50);
    let mut login = Login::server(
        Endless {
            line: b"SSH-2.0-endless\r\n",
        },
        config,
    )
    .unwrap();
    let why = login.next().await.unwrap_err();
    assert_eq!(error(&why), &ConnectionError::TimedOut(Deadline::Handshake));
}
