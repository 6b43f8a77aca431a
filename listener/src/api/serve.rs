//! The API's sockets: who may connect, and for how long without saying anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

/// Connections at a time; one more is closed at once.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// Bytes of a request's head, and of what is read ahead.
const BUFFER_MAX: usize = 16 * 1024;
/// Fields of a request's head.
const HEAD_FIELDS_MAX: usize = 64;
/// For a request's head to come, and for the next request on a connection.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long nobody is accepted when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers until it is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        connection(stream, router).await;
                        drop(place);
                    });
                }
                Err(_) => debug!(%peer, "too many ask the API"),
            },
            // Of a listener that works, errors are about a connection that is gone already or about
            // descriptors that are used up; both pass.
            Err(error) => {
                warn!(%error, "the API accepts nobody for a moment");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(BUFFER_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        debug!(%error, "a connection to the API ended");
    }
}
