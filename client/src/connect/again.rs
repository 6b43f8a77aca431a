//! More connections like one that was made: further ones for a transfer, and new ones for lost ones.

use std::fmt;

use super::{Connect, Tried};
use crate::reconnect::Reconnecting;

/// How a session was made.
pub(crate) struct Origin {
    /// As it was made, if that asks nobody anything.
    further: Option<Connect>,
    again: Option<Reconnecting>,
}

impl Origin {
    /// A session was made by `connect`, and `by` did it.
    pub(super) fn new(connect: Connect, by: Option<&Tried>) -> Self {
        let further = connect.clone().without_questions(by);
        let again = connect
            .reconnect
            .clone()
            .map(|policy| Reconnecting::new(connect, policy));
        Self { further, again }
    }

    /// How to make a further connection without anybody being asked.
    pub(crate) const fn further(&self) -> Option<&Connect> {
        self.further.as_ref()
    }

    /// Who makes a new connection when one was lost.
    pub(crate) const fn again(&self) -> Option<&Reconnecting> {
        self.again.as_ref()
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("further", &self.further.is_some())
            .field("again", &self.again.is_some())
            .finish()
    }
}

impl Connect {
    /// The same, with what did it alone; `None` if somebody would have to be asked for that.
    fn without_questions(mut self, by: Option<&Tried>) -> Option<Self> {
        match by {
            None | Some(Tried::None) => {}
            Some(Tried::Key {
                fingerprint,
                asks: false,
                ..
            }) if !self.credentials.agent_asks => {
                self.credentials.first = Some(fingerprint.clone());
            }
            Some(Tried::Password) if self.credentials.password.is_some() => {}
            Some(Tried::Key { .. } | Tried::Password | Tried::Answers) => return None,
        }
        self.credentials.asker = super::questions::Asker::default();
        self.host_keys = self.host_keys.without_questions();
        self.reconnect = None;
        Some(self.for_sftp())
    }
}
