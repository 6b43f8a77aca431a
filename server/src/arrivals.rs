//! When an uploaded file counts as arrived.

use std::sync::Arc;

use crate::policy::pattern::NamePattern;
use crate::policy::{BadPattern, TEMPORARY_NAMES_MAX};

/// How a file counts as arrived, and what may be done to it then.
///
/// Clones share what they know of arrivals: users of one directory are given clones of one.
///
/// ```
/// use ketch_server::Arrivals;
///
/// let arrivals = Arrivals::on_close()
///     .temporary_name("*.part")?
///     .temporary_name(".~*")?;
/// # Ok::<(), ketch_server::BadPattern>(())
/// ```
#[derive(Clone, Debug)]
pub struct Arrivals {
    pub(crate) temporary: Vec<Arc<NamePattern>>,
    pub(crate) trigger_suffix: Option<Arc<str>>,
    pub(crate) allows_changes: bool,
}

impl Arrivals {
    /// A file arrives when a handle that made or wrote it is closed, unless its name is a
    /// [temporary](Self::temporary_name) one; then when it is renamed to one that is not.
    #[must_use]
    pub const fn on_close() -> Self {
        Self {
            temporary: Vec::new(),
            trigger_suffix: None,
            allows_changes: false,
        }
    }

    /// A file arrives when another one of its name and `suffix` does, as `NAME.done` for `NAME`.
    ///
    /// # Errors
    /// [`BadPattern::NoName`] for a suffix that is empty or holds a slash.
    pub fn on_trigger(suffix: &str) -> Result<Self, BadPattern> {
        if suffix.is_empty() || suffix.contains(['/', '\\', '\0']) {
            return Err(BadPattern::NoName);
        }
        Ok(Self {
            trigger_suffix: Some(Arc::from(suffix)),
            ..Self::on_close()
        })
    }

    /// Files with such a name (the last component of a path) are on their way: `*.part`, `*.tmp`,
    /// `.~*`. May be called for several.
    ///
    /// # Errors
    /// [`BadPattern`], also for more than [`TEMPORARY_NAMES_MAX`] of them.
    pub fn temporary_name(mut self, pattern: &str) -> Result<Self, BadPattern> {
        if self.temporary.len() >= TEMPORARY_NAMES_MAX {
            return Err(BadPattern::TooLong);
        }
        self.temporary.push(Arc::new(NamePattern::new(pattern)?));
        Ok(self)
    }

    /// Lets files be changed, renamed, replaced and removed after their arrival; each further upload
    /// is one more arrival. Default: refused.
    #[must_use]
    pub const fn allow_changes(mut self) -> Self {
        self.allows_changes = true;
        self
    }
}
