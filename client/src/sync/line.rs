//! The server's side of a sync: SFTP on a connection that lives, which may be another one than it
//! began with.
//!
//! Copies go on over a new connection by themselves (`transfer/outcome.rs`). What is only asked, for
//! listings and for comparing, is asked once more; removals are not, as they may have been done.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::sftp::Sftp;

/// How often something is asked that was lost with its connection.
pub(super) const ASKED_MAX: u32 = 4;

/// SFTP, and how to come by another one.
#[derive(Debug)]
pub(super) struct Line(Mutex<Sftp>);

impl Line {
    pub(super) fn new(sftp: Sftp) -> Self {
        Self(Mutex::new(sftp))
    }

    /// SFTP that lives; the lost one, if its session cannot be made again.
    pub(super) async fn sftp(&self) -> Sftp {
        let mut held = self.0.lock().await;
        if held.has_ended()
            && let Some(new) = anew(&held).await
        {
            *held = new;
        }
        held.clone()
    }
}

async fn anew(lost: &Sftp) -> Option<Sftp> {
    let origin = lost.session()?.origin()?;
    let session = origin.again()?.session().await.ok()?;
    // Who loses that one as well goes to the same place for the next.
    session.with_origin(Arc::clone(origin)).sftp().await.ok()
}
