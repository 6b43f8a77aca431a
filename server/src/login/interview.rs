//! Questions that the embedding program has for users (keyboard-interactive, RFC 4256).
//!
//! It is asked about names that do not exist as about others, and what it says of those counts for
//! nothing: what it asks may not tell the one from the other.

use std::fmt;
use std::sync::Arc;

use ketch_transport::auth::Questions;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

/// Most rounds of questions in one attempt.
pub const ROUNDS_MAX: usize = 8;

/// The answers of each round so far, each as many as there were questions.
pub type Answers = [Vec<Zeroizing<String>>];

/// What comes of the answers so far.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Interview {
    /// These are asked next.
    Ask(Questions),
    /// They are right.
    Accept,
    /// They are not.
    Reject,
}

/// Interviews that are conducted at a time: each has a thread, as long as its program takes, also
/// when the client has left.
const CONDUCTED_MAX: usize = 32;

type Conduct = dyn Fn(&str, &Answers) -> Interview + Send + Sync;

/// Who asks, if anybody does.
#[derive(Clone, Default)]
pub(crate) struct Interviewer(Option<(Arc<Conduct>, Arc<Semaphore>)>);

impl Interviewer {
    pub(crate) fn new(
        conduct: impl Fn(&str, &Answers) -> Interview + Send + Sync + 'static,
    ) -> Self {
        let turns = Semaphore::new(CONDUCTED_MAX);
        Self(Some((Arc::new(conduct), Arc::new(turns))))
    }

    pub(crate) const fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// What comes next, on a thread where blocking is allowed. A panic counts as no.
    pub(crate) async fn go_on(&self, user: &str, answers: &Answers) -> Interview {
        let Some((conduct, turns)) = self.0.as_ref().filter(|_| answers.len() <= ROUNDS_MAX) else {
            return Interview::Reject;
        };
        let (conduct, user, answers) = (Arc::clone(conduct), user.to_owned(), answers.to_vec());
        let Ok(turn) = Arc::clone(turns).acquire_owned().await else {
            return Interview::Reject; // it is never closed
        };
        let conducted = spawn_blocking(move || {
            let outcome = conduct(&user, &answers);
            drop(turn);
            outcome
        });
        conducted.await.unwrap_or(Interview::Reject)
    }
}

impl fmt::Debug for Interviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Interviewer")
            .field(&self.is_there())
            .finish()
    }
}
