//! More SFTP channels on the connection that there is, for scans.
//!
//! A server like OpenSSH's has a process for each channel, which lists one directory after the
//! other; so several of them list several directories at the same time. They are opened when a scan
//! has enough to do for them ([`wanted`]), shared by all flows of a source, and stay as long as the
//! connection. A server that refuses one (`MaxSessions` of sshd(8)), or loses one, is asked for no
//! more until there is another connection.
#![expect(clippy::disallowed_methods, reason = "drivers own tasks")]
#![cfg_attr(
    not(feature = "flows"),
    expect(dead_code, reason = "only flows list over several channels")
)]

use std::sync::Arc;

use ketch_client::Sftp;
use tokio::sync::Mutex;

/// Channels that a scan lists over unless somebody says otherwise.
pub const CHANNELS: usize = 3;

/// Channels that a scan may be told to list over. OpenSSH's server allows ten for everything.
pub const CHANNELS_MAX: usize = 8;

/// Requests that make one more channel worth its process: directories to list, or some times as many
/// paths to look at.
const WORK_MIN: usize = 32;

/// Channels for a scan that has begun to list `directories`, of at most `max`.
pub(crate) const fn wanted(directories: usize, max: usize) -> usize {
    let wanted = 1 + directories / WORK_MIN;
    if wanted < max { wanted } else { max }
}

/// Further channels of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Sftp>,
    /// The server gave no more, or lost one.
    is_refused: bool,
}

impl Channels {
    /// The channel that is the `number`th beside `first`, opened if it is not yet; `None` if the
    /// server gives none.
    pub(crate) async fn beside(&self, first: &Sftp, number: usize) -> Option<Sftp> {
        let first = first.clone();
        let state = Arc::clone(&self.state);
        // A task of its own: nobody would close a channel that is given up while it is opened.
        let opening = tokio::spawn(async move {
            let mut state = state.lock().await;
            let count = state.open.len();
            state.open.retain(|sftp| !sftp.has_ended());
            state.is_refused |= state.open.len() < count;
            if let Some(sftp) = state.open.get(number) {
                return Some(sftp.clone());
            }
            let session = first.session().filter(|_| !state.is_refused)?;
            match session.sftp_beside(&first).await {
                Ok(sftp) => {
                    state.open.push(sftp.clone());
                    Some(sftp)
                }
                // Those that there are do as well.
                Err(_) => {
                    state.is_refused = true;
                    None
                }
            }
        });
        opening.await.ok().flatten()
    }

    /// At most `max` of those that are open.
    pub(crate) fn open(&self, max: usize) -> Vec<Sftp> {
        // While one is being opened, they come one by one.
        let Ok(state) = self.state.try_lock() else {
            return Vec::new();
        };
        let living = state.open.iter().filter(|sftp| !sftp.has_ended());
        living.take(max).cloned().collect()
    }

    /// There is another connection.
    pub(crate) async fn forget(&self) {
        *self.state.lock().await = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_comes_when_there_is_work_for_it() {
        let wanted: Vec<_> = [0, 31, 32, 64, 1_000_000].map(|n| wanted(n, 3)).into();
        assert_eq!(wanted, [1, 1, 2, 3, 3]);
        assert_eq!(super::wanted(1_000, 1), 1);
    }
}
