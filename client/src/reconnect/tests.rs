//! Connections that fail, are lost and come back, on tokio's paused clock.

#![expect(
    clippy::disallowed_methods,
    reason = "the server of a test is a task of its own"
)]

use std::sync::Mutex as StdMutex;

use ketch_transport::config::ServerConfig;
use ketch_transport::driver::{Login, LoginEvent, RefuseAll};
use tokio::io::duplex;
use tokio::task::JoinHandle;

use super::*;
use crate::connect::tests_support::{host_key, server_config};
use crate::hostkey::HostKeys;

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// A server that lets us in.
    Good,
    /// One that lets nobody in.
    Refuses,
    /// One that has another host key.
    Impostor,
    /// Nobody is there.
    Gone,
    /// One that says nothing, ever.
    Silent,
}

/// A server whose fate is looked up for each connection, and which notes when it was asked.
#[derive(Clone)]
struct Server {
    fates: Arc<StdMutex<Vec<Fate>>>,
    asked: Arc<StdMutex<Vec<Instant>>>,
    running: Arc<StdMutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    /// The last fate is that of all later connections, too.
    fn new(fates: &[Fate]) -> Self {
        Self {
            fates: Arc::new(StdMutex::new(fates.iter().rev().copied().collect())),
            asked: Arc::default(),
            running: Arc::default(),
        }
    }

    fn client(&self, policy: Reconnect) -> Reconnecting {
        let server = self.clone();
        Reconnecting::by(move || server.clone().connect(), policy)
    }

    async fn connect(self) -> Result<Session, ConnectError> {
        self.asked.lock().unwrap().push(Instant::now());
        let fate = {
            let mut fates = self.fates.lock().unwrap();
            if fates.len() > 1 {
                fates.pop()
            } else {
                fates.last().copied()
            }
        };
        let (ours, theirs) = duplex(64 * 1024);
        let seed = if matches!(fate, Some(Fate::Impostor)) {
            2
        } else {
            1
        };
        match fate.unwrap() {
            Fate::Gone => drop(theirs),
            Fate::Silent => {
                let hold = tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(theirs);
                });
                self.running.lock().unwrap().push(hold);
            }
            fate => {
                let serving = tokio::spawn(serve(theirs, server_config(seed), fate));
                self.running.lock().unwrap().push(serving);
            }
        }
        Connect::to("server.example.com")
            .user("ann")
            .allow_none()
            .host_keys(HostKeys::only([host_key(1)]))
            .connect_over(ours)
            .await
    }

    /// Ends all connections as a restart would.
    async fn restart(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap());
        for serving in running {
            serving.abort();
            let _ = serving.await;
        }
    }

    fn asked(&self) -> Vec<Instant> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(stream: tokio::io::DuplexStream, config: ServerConfig, fate: Fate) {
    let mut login = Login::server(stream, config).unwrap();
    loop {
        match login.next().await {
            Ok(LoginEvent::Attempt(_)) if matches!(fate, Fate::Good) => {
                login.accept_auth().unwrap()
            }
            Ok(LoginEvent::Attempt(_)) => login.reject_auth().unwrap(),
            Ok(LoginEvent::Authenticated { .. }) => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    let (_handle, run) = login.run(Box::new(RefuseAll));
    run.await;
}

fn policy() -> Reconnect {
    Reconnect {
        seed: Some(7),
        ..Reconnect::default()
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_share_one_connection() {
    let server = Server::new(&[Fate::Gone, Fate::Good]);
    let client = server.client(policy());
    assert!(client.current().is_none());
    let asking: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { client.session().await }
            })
        })
        .collect();
    for asked in asking {
        assert!(!asked.await.unwrap().unwrap().is_closed());
    }
    assert_eq!(server.asked().len(), 2);
    assert!(client.current().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_comes_back_within_the_spread_of_its_loss() {
    let server = Server::new(&[Fate::Good]);
    let client = server.client(policy());
    let first = client.session().await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    server.restart().await;
    first.closed().await;
    let lost = Instant::now();
    let second = client.session().await.unwrap();
    let waited = lost.elapsed();
    assert!(
        waited > Duration::ZERO && waited <= Duration::from_secs(30),
        "{waited:?}"
    );

    // Who asks later than that does not wait.
    tokio::time::sleep(Duration::from_secs(100)).await;
    server.restart().await;
    second.closed().await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let asked = Instant::now();
    let third = client.session().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);

    // Nor who ended it.
    tokio::time::sleep(Duration::from_secs(100)).await;
    client.disconnect().await;
    assert!(third.is_closed());
    let asked = Instant::now();
    client.session().await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_alone_client_may_come_back_at_once() {
    let server = Server::new(&[Fate::Good]);
    let client = server.client(Reconnect {
        spread: Duration::ZERO,
        ..policy()
    });
    let first = client.session().await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    server.restart().await;
    first.closed().await;
    let lost = Instant::now();
    client.session().await.unwrap();
    assert!(
        lost.elapsed() <= Duration::from_secs(1),
        "{:?}",
        lost.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_tried_as_often_as_allowed() {
    let server = Server::new(&[Fate::Gone]);
    let client = server.client(Reconnect {
        attempts: Some(4),
        ..policy()
    });
    let other = tokio::spawn({
        let client = client.clone();
        async move { client.session().await }
    });
    let error = client.session().await.unwrap_err();
    assert!(
        matches!(error, ReconnectError::GaveUp { attempts: 4, .. }),
        "{error:?}"
    );
    assert_eq!((error.kind(), error.is_transient()), (Kind::Network, true));
    // Who waited beside it does not begin anew.
    other.await.unwrap().unwrap_err();
    let asked = server.asked();
    assert_eq!(asked.len(), 4);
    for (pair, most) in asked.windows(2).zip([1, 2, 4]) {
        assert!(pair[1] - pair[0] <= Duration::from_secs(most), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_logins_and_strange_host_keys_are_not_tried_again() {
    for (fate, kind) in [(Fate::Refuses, Kind::Auth), (Fate::Impostor, Kind::HostKey)] {
        let server = Server::new(&[fate]);
        let client = server.client(policy());
        // Somebody asks every ten seconds, for an hour.
        for _ in 0..360 {
            let error = client.session().await.unwrap_err();
            assert!(matches!(error, ReconnectError::Permanent(_)), "{error:?}");
            assert_eq!((error.kind(), error.is_transient()), (kind, false));
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        let asked = server.asked();
        assert!(asked.len() <= 12, "{} attempts in an hour", asked.len());
    }
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_the_pause_to_the_next() {
    let server = Server::new(&[Fate::Silent]);
    let client = server.client(policy());
    // Impatient callers do not hammer the server: the attempts they dropped count.
    for _ in 0..1000 {
        let waiting = tokio::time::timeout(Duration::from_millis(10), client.session());
        assert!(waiting.await.is_err());
    }
    let asked = server.asked().len();
    assert!((2..=20).contains(&asked), "{asked} attempts in ten seconds");

    let server = Server::new(&[Fate::Silent, Fate::Good]);
    let client = server.client(policy());
    let waiting = tokio::time::timeout(Duration::from_millis(10), client.session());
    assert!(waiting.await.is_err());
    client.session().await.unwrap();
}
