//! What holds for a user once in: rights by path, how much, how fast, and what becomes of uploads.

use std::sync::Arc;
use std::time::Duration;

use crate::fs::staging::Durability;
use crate::login::users::User;
use crate::policy::Rules;
use crate::policy::arrivals::Arrivals;
use crate::policy::bandwidth::Bandwidth;
use crate::policy::quota::Quota;

/// A user's terms, as they are put together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) rules: Option<Rules>,
    pub(crate) quota: Option<Quota>,
    pub(crate) bandwidth: Option<Bandwidth>,
    pub(crate) arrivals: Option<Arrivals>,
    pub(crate) exclusive_uploads: bool,
    pub(crate) atomic_uploads: Option<Durability>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) belonging: Option<Arc<Belonging>>,
}

/// Where a user belongs, for records.
#[derive(Debug)]
pub(crate) struct Belonging {
    pub(crate) organisation: String,
    pub(crate) endpoint: String,
}

impl Terms {
    /// Whether it matters by which name a file is called: no link may lead around that.
    pub(crate) fn depend_on_names(&self) -> bool {
        let is_bound = |arrivals: &Arrivals| !arrivals.allows_changes();
        self.rules
            .as_ref()
            .is_some_and(|rules| !rules.are_uniform())
            || self.arrivals.as_ref().is_some_and(is_bound)
    }
}

impl User {
    /// The organisation and the endpoint that the user belongs to, for
    /// [observers](crate::Observer) to be told. Default: none.
    #[must_use]
    pub fn belongs_to(mut self, organisation: &str, endpoint: &str) -> Self {
        self.terms.belonging = Some(Arc::new(Belonging {
            organisation: organisation.to_owned(),
            endpoint: endpoint.to_owned(),
        }));
        self
    }

    /// What the user may do, by path. Default: everything that [`User::read_only`] and the like do
    /// not take away.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.terms.rules = Some(rules);
        self
    }

    /// How much the user may keep. Default: as much as there is room for.
    ///
    /// What is there is counted when the user's first session begins, and again from time to time,
    /// as others may bring and take files. Until it is known, only what the sessions bring counts.
    #[must_use]
    pub const fn quota(mut self, quota: Quota) -> Self {
        self.terms.quota = Some(quota);
        self
    }

    /// How fast the user may be, in all sessions together. Default: as fast as it goes.
    #[must_use]
    pub const fn bandwidth(mut self, bandwidth: Bandwidth) -> Self {
        self.terms.bandwidth = Some(bandwidth);
        self
    }

    /// When the user's uploads count as arrived, which the server's observers are told. They are
    /// [exclusive](User::exclusive_uploads) then, and unless files may be changed after their arrival
    /// no links are made, and none followed in a local directory. Default: no upload is followed up.
    #[must_use]
    pub fn arrivals(mut self, arrivals: Arrivals) -> Self {
        self.terms.arrivals = Some(arrivals);
        self
    }

    /// A file that is open to be written cannot be opened to be written once more, by whomever.
    /// Default: several may write to one file.
    #[must_use]
    pub const fn exclusive_uploads(mut self) -> Self {
        self.terms.exclusive_uploads = true;
        self
    }

    /// A file that is uploaded appears under its name when it is closed, whole or not at all; until
    /// then who reads the name sees what was there before. `durability` says what the `CLOSE` waits
    /// for. Default: what is written is seen at once.
    ///
    /// This holds for files that are opened to be written from their start on. One that has a name
    /// already keeps its permissions; other names that it has (hard links) keep what was there. What is
    /// on the way takes room beside what it will replace, also of a [quota](User::quota). Such users
    /// cannot watch directories. A file system on Linux's own disks is looked through for what a killed
    /// server left when the server starts.
    ///
    /// ```
    /// use ketch_server::{Durability, User};
    ///
    /// let user = User::new("acme", "/srv/acme").atomic_uploads(Durability::File);
    /// ```
    #[must_use]
    pub const fn atomic_uploads(mut self, durability: Durability) -> Self {
        self.terms.atomic_uploads = Some(durability);
        self
    }

    /// A session in which no command came for so long is closed. Default:
    /// [`Timeouts::idle`](crate::Timeouts::idle).
    #[must_use]
    pub const fn idle_timeout(mut self, after: Duration) -> Self {
        self.terms.idle_timeout = Some(after);
        self
    }
}
