//! The end of a server: who is there may finish meanwhile, health and metrics are still told, and who
//! says it a second time does not wait.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::signal::unix::Signal;

/// Waits until one of the signals comes that say to end.
pub(super) async fn told(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What `serving` gives in the end, with `watching` going on meanwhile; nothing if `again` comes first.
pub(super) async fn finish<T>(
    serving: impl Future<Output = T>,
    mut watching: Pin<&mut impl Future<Output = io::Result<()>>>,
    again: impl Future<Output = ()>,
) -> Option<T> {
    let mut is_watched = true;
    // That nobody is told any more ends nothing now.
    let watched = poll_fn(|context| {
        if is_watched && watching.as_mut().poll(context).is_ready() {
            is_watched = false;
        }
        Poll::<()>::Pending
    });
    tokio::select! {
        output = serving => Some(output),
        () = again => None,
        () = watched => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn health_is_told_while_the_last_connections_end() {
        let (ask, asked) = tokio::sync::oneshot::channel();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let watching = pin!(async {
            asked.await.map_err(io::Error::other)?;
            answer.send("stopping").map_err(io::Error::other)
        });
        let serving = async {
            ask.send(()).unwrap();
            answered.await.unwrap()
        };
        assert_eq!(finish(serving, watching, pending()).await, Some("stopping"));
    }

    #[tokio::test]
    async fn who_says_it_twice_does_not_wait() {
        let watching = pin!(ready(Err(io::ErrorKind::Other.into())));
        assert_eq!(finish(pending::<()>(), watching, ready(())).await, None);
    }
}
