//! Ctrl-C, and the signal that asks a program to end: everything that waits is given up, in order.

use crate::failed::Failed;

/// Waits for `work`, or until the user has enough: `work` is dropped then.
pub(crate) async fn or<T>(work: impl Future<Output = T>) -> Result<T, Failed> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = asked() => Err(Failed::Interrupted),
    }
}

/// Waits for SIGINT or SIGTERM. Where they cannot be waited for, they end the program themselves.
#[cfg(unix)]
async fn asked() {
    use tokio::signal::unix::{SignalKind, signal};
    let of = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = of(SignalKind::interrupt()) => {}
        _ = of(SignalKind::terminate()) => {}
    }
}

/// Waits for Ctrl-C. Where it cannot be waited for, it ends the program itself.
#[cfg(not(unix))]
async fn asked() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
