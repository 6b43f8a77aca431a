//! When an uploaded file counts as arrived, and what may be done to it then.
//!
//! A machine of names: the session tells which file was closed, renamed or is about to be changed
//! (`session/arrived.rs`), and is told what has arrived and what is refused. `docs/arrivals.md` says
//! it for those who run a server.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{Call, Create, Target};
use crate::path::VPath;
use crate::policy::pattern::NamePattern;
use crate::policy::{BadPattern, TEMPORARY_NAMES_MAX};
use crate::refusal::Refusal;

/// Most files that are known to have arrived. The oldest are forgotten first, and may be changed
/// again.
pub const ARRIVALS_KEPT: usize = 65_536;
/// The same in bytes of their paths.
const PATHS_LEN_MAX: usize = 16 * 1024 * 1024;

/// How a file counts as arrived, and what may be done to it then.
///
/// Clones share what they know of arrivals: users of one directory are given clones of one. It is
/// kept in memory, [`ARRIVALS_KEPT`] files at most: after a restart of the program, files that
/// arrived before can be changed. [`Server::reload`](crate::Server::reload) keeps what is known of
/// local directories.
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
    temporary: Vec<Arc<NamePattern>>,
    trigger_suffix: Option<Arc<str>>,
    allows_changes: bool,
    known: Arc<Mutex<Known>>,
}

/// What has arrived: path, and its number in order.
#[derive(Debug, Default)]
struct Known {
    numbers: BTreeMap<VPath, u64>,
    /// From the oldest on; some may have been forgotten, or have come once more.
    order: VecDeque<(u64, VPath)>,
    count: u64,
    paths_len: usize,
    /// What is being written, whoever has it open: no more than handles are.
    writing: BTreeMap<VPath, Writing>,
}

/// A file that is being written.
#[derive(Debug, Default)]
struct Writing {
    handles: usize,
    /// Its trigger has come: it arrives with the last close.
    is_triggered: bool,
}

/// A handle that may write to a file: until it is dropped, the file is on its way for everybody who
/// shares the directory.
#[derive(Debug)]
pub(crate) struct Writer {
    known: Arc<Mutex<Known>>,
    path: VPath,
    has_ended: bool,
}

impl Writer {
    /// Its client closed it: whether nobody else writes to the file, and the trigger has come.
    pub(crate) fn end(mut self) -> bool {
        self.has_ended = true;
        self.let_go()
    }

    fn let_go(&self) -> bool {
        let mut known = lock(&self.known);
        let Some(writing) = known.writing.get_mut(&self.path) else {
            return false;
        };
        writing.handles = writing.handles.saturating_sub(1);
        if writing.handles > 0 {
            return false;
        }
        let is_triggered = writing.is_triggered;
        known.writing.remove(&self.path);
        is_triggered
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.has_ended {
            self.let_go();
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a file of a certain name is, once it is there as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Appeared {
    /// Nothing of note: it is on its way, or waits for its trigger.
    Unfinished,
    /// A file that has arrived.
    File,
    /// The trigger of this one.
    TriggerOf(VPath),
}

impl Arrivals {
    /// A file arrives when a handle that made or wrote it is closed, unless its name is a
    /// [temporary](Self::temporary_name) one; then when it is renamed to one that is not.
    #[must_use]
    pub fn on_close() -> Self {
        Self {
            temporary: Vec::new(),
            trigger_suffix: None,
            allows_changes: false,
            known: Arc::default(),
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

    /// Goes on with what others know of the same directory.
    pub(crate) fn go_on_from(&mut self, before: &Self) {
        self.known = Arc::clone(&before.known);
    }

    /// Whether the file of that name has arrived and is known.
    #[must_use]
    pub fn has_arrived(&self, path: &VPath) -> bool {
        self.known().numbers.contains_key(path)
    }

    /// The file of that name can be changed again; says whether it was known.
    pub fn forget(&self, path: &VPath) -> bool {
        self.known().forget(path)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// The file of that name is open to be written until what comes back is dropped.
    pub(crate) fn writes(&self, path: &VPath) -> Writer {
        let mut known = self.known();
        let writing = known.writing.entry(path.clone()).or_default();
        writing.handles = writing.handles.saturating_add(1);
        Writer {
            known: Arc::clone(&self.known),
            path: path.clone(),
            has_ended: false,
        }
    }

    /// Whether anybody writes to the file of that name, or to one beneath it.
    pub(crate) fn is_being_written(&self, path: &VPath) -> bool {
        let known = self.known();
        known.writing.contains_key(path) || has_beneath(&known.writing, path)
    }

    /// The trigger of a file has come: whether it is still being written, and so arrives with the
    /// last close.
    pub(crate) fn triggers_at_its_end(&self, path: &VPath) -> bool {
        match self.known().writing.get_mut(path) {
            Some(writing) => {
                writing.is_triggered = true;
                true
            }
            None => false,
        }
    }

    /// Whether files that have arrived may be changed.
    pub(crate) const fn allows_changes(&self) -> bool {
        self.allows_changes
    }

    fn is_temporary(&self, path: &VPath) -> bool {
        let name = path.split_beneath().map_or(&b""[..], |(_, name)| name);
        self.temporary.iter().any(|pattern| pattern.matches(name))
    }

    /// A file is there as a whole, closed or renamed to this.
    pub(crate) fn appears(&self, path: &VPath) -> Appeared {
        if self.is_temporary(path) {
            return Appeared::Unfinished;
        }
        let Some(suffix) = &self.trigger_suffix else {
            return Appeared::File;
        };
        let base = path.as_bytes().strip_suffix(suffix.as_bytes());
        match base.map(|base| (base, VPath::resolve(base))) {
            // The name of the suffix alone is nobody's trigger, nor is that of dots before it.
            Some((named, Ok(base))) if !base.is_root() && named == base.as_bytes() => {
                let has_name = path
                    .split_beneath()
                    .map(|(_, name)| name.len() > suffix.len());
                match has_name {
                    Some(true) => Appeared::TriggerOf(base),
                    _ => Appeared::Unfinished,
                }
            }
            _ => Appeared::Unfinished,
        }
    }

    /// As [`Arrivals::appears`] for a file that had another name before: one that is not on its way
    /// arrives by its close, and not again by being renamed.
    pub(crate) fn appears_from(&self, from: &VPath, to: &VPath) -> Appeared {
        match self.appears(to) {
            Appeared::File if !self.is_temporary(from) => Appeared::Unfinished,
            appeared => appeared,
        }
    }

    /// A file has arrived.
    pub(crate) fn arrived(&self, path: &VPath) {
        if !self.allows_changes {
            self.known().remember(path);
        }
    }

    /// A name was taken by something that is new.
    pub(crate) fn is_new(&self, path: &VPath) {
        self.known().forget(path);
    }

    /// Decides a call that is about to be made. What would replace a file that has arrived becomes a
    /// call that fails if the file is still there: those who fetch it may have taken it away.
    pub(crate) fn judge(&self, call: &mut Call) -> Result<(), Refusal> {
        if self.allows_changes {
            return Ok(());
        }
        let known = self.known();
        let is_known = |path: &VPath| known.numbers.contains_key(path);
        match call {
            Call::Open { path, how } if (how.write || how.truncate) && is_known(path) => {
                how.create = match how.create {
                    Create::Never => return Err(Refusal::ARRIVED),
                    Create::IfMissing { mode } | Create::New { mode } => Create::New { mode },
                };
            }
            Call::Change { path, .. } | Call::Remove { path } if is_known(path) => {
                return Err(Refusal::ARRIVED);
            }
            Call::Rename { from, .. } if is_known(from) || has_beneath(&known.numbers, from) => {
                return Err(Refusal::ARRIVED);
            }
            Call::Rename { to, target, .. } if is_known(to) => *target = Target::MustNotExist,
            // They would lead to the file by names that are not known.
            Call::Symlink { .. } | Call::HardLink { .. } => return Err(Refusal::LINKS_OFF),
            _ => {}
        }
        Ok(())
    }
}

impl Known {
    fn remember(&mut self, path: &VPath) {
        self.forget(path);
        self.count = self.count.saturating_add(1);
        self.paths_len = self.paths_len.saturating_add(path.as_bytes().len());
        self.numbers.insert(path.clone(), self.count);
        self.order.push_back((self.count, path.clone()));
        while self.numbers.len() > ARRIVALS_KEPT || self.paths_len > PATHS_LEN_MAX {
            let Some((number, oldest)) = self.order.pop_front() else {
                break;
            };
            if self.numbers.get(&oldest) == Some(&number) {
                self.forget(&oldest);
            }
        }
        if self.order.len() > self.numbers.len().saturating_mul(2).saturating_add(16) {
            let numbers = &self.numbers;
            self.order
                .retain(|(number, path)| numbers.get(path) == Some(number));
        }
    }

    fn forget(&mut self, path: &VPath) -> bool {
        let was_known = self.numbers.remove(path).is_some();
        if was_known {
            self.paths_len = self.paths_len.saturating_sub(path.as_bytes().len());
        }
        was_known
    }
}

/// Whether there is a path beneath this one.
fn has_beneath<T>(paths: &BTreeMap<VPath, T>, path: &VPath) -> bool {
    // The first name that something beneath it could have.
    let Ok(first) = path.walk(b"\x01") else {
        return false;
    };
    let above = first
        .as_bytes()
        .split_last()
        .map_or(&b""[..], |(_, rest)| rest);
    let mut from = paths.range(&first..);
    from.next()
        .is_some_and(|(path, _)| path.as_bytes().starts_with(above))
}

#[cfg(test)]
mod tests;
