//! Passwords that have to be changed before they let in (RFC 4252 §8), and who keeps the new ones.

use std::fmt;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::login::password_hash::Hashing;
use crate::login::users::{Known, PASSWORD_LEN_MAX};

type Keep = dyn Fn(&str, &str) -> Result<(), String> + Send + Sync;

/// Who keeps new passwords, if anybody does.
#[derive(Clone, Default)]
pub(crate) struct PasswordKeeper(Option<Arc<Keep>>);

/// What became of a new password.
#[derive(Debug)]
pub(crate) enum Kept {
    /// It counts from now on.
    As(Known),
    /// Another is wanted, for this reason.
    Not(String),
}

impl PasswordKeeper {
    pub(crate) fn new(
        keep: impl Fn(&str, &str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(keep)))
    }

    pub(crate) const fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Has a new password kept, on a thread where blocking is allowed: as a hash, made in its turn of
    /// `hashing`, or without that as what `digest` makes of it.
    pub(crate) async fn keep(
        &self,
        user: &str,
        new: Zeroizing<String>,
        hashing: Option<&Hashing>,
        digest: impl FnOnce(&str) -> Known + Send,
    ) -> Kept {
        let Some(keep) = self.0.as_ref().map(Arc::clone) else {
            return Kept::Not(String::new());
        };
        if !(1..=PASSWORD_LEN_MAX).contains(&new.len()) {
            return Kept::Not(format!("It has 1 to {PASSWORD_LEN_MAX} bytes."));
        }
        // What cannot be kept here is not to be kept there.
        let known = match hashing {
            None => digest(&new),
            Some(hashing) => match hashing.of(new.clone()).await {
                Some(Ok(hash)) => Known::Hash(Arc::new(hash)),
                Some(Err(error)) => return Kept::Not(error.to_string()),
                None => return Kept::Not(String::new()),
            },
        };
        let user = user.to_owned();
        let kept = spawn_blocking(move || match keep(&user, &new) {
            Ok(()) => Kept::As(known),
            Err(why) => Kept::Not(why),
        });
        kept.await.unwrap_or_else(|_| Kept::Not(String::new()))
    }
}

impl fmt::Debug for PasswordKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PasswordKeeper")
            .field(&self.is_there())
            .finish()
    }
}
