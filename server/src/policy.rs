//! What a user may do, decided in one place by the effect of a request.
//!
//! A policy is fixed when a session begins. Every request that has an effect asks here, whatever
//! it is called: creating a file is creating a file, by `OPEN`, `posix-rename` or `copy-data`.
//!
//! | effect | right |
//! | --- | --- |
//! | asking for attributes, reading a link, how much room there is | `list` or `read` |
//! | listing a directory; a name in a listing | `list` |
//! | content that leaves | `read` |
//! | a file that is made, also by a rename, a link | `write` |
//! | a file that exists and changes: by bytes, by its length, by a rename over it | `overwrite` |
//! | a name that goes | `delete`, or `rename` if it becomes another |
//! | a directory that is made | `mkdir` |
//! | permission bits and times | `attributes` |
//!
//! What was decided when a file was opened holds for its handle: reads and writes ask nobody.
//! Nothing is looked at before it is decided, so nothing can be swapped in between: where a file
//! may be made and none be replaced, the file system is told to make a new one or to fail.

pub(crate) mod arrivals;
pub(crate) mod bandwidth;
pub(crate) mod pattern;
pub(crate) mod quota;
mod rules;
pub(crate) mod standing;
pub(crate) mod terms;

use std::sync::Arc;

use crate::fs::{Change, Create, OpenHow, Target};
use crate::path::VPath;
use crate::policy::arrivals::Arrivals;
use crate::policy::standing::Standing;
use crate::refusal::Refusal;

pub use pattern::{BadPattern, PATTERN_LEN_MAX};
pub use rules::{BadRule, RULES_MAX, Right, Rights, Rules};

/// Most patterns of temporary names.
pub const TEMPORARY_NAMES_MAX: usize = 32;

/// What a session may do.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Name that the user logged in with.
    pub(crate) user: String,
    pub(crate) access: Access,
    /// Rights by path; all of them if there are no rules.
    pub(crate) rules: Option<Arc<Rules>>,
    /// Whether symbolic links may be made (relative ones without `..`).
    pub(crate) symbolic_links: bool,
    /// Whether files may get a second name.
    pub(crate) hard_links: bool,
    /// Whether a file that is open to be written cannot be opened so once more.
    pub(crate) exclusive_uploads: bool,
    /// What becomes of uploads.
    pub(crate) arrivals: Option<Arrivals>,
    /// What paths mean, and what of a file may be set.
    pub(crate) standing: Standing,
}

/// How far a user's rights go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Access {
    /// Everything that the server's own rights on the files allow. The default.
    #[default]
    ReadWrite,
    /// Reading files, listing directories, asking for attributes.
    ReadOnly,
}

/// What a request does at one path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// Asks whether it is there, and what it is.
    Ask,
    /// Lists the names in it.
    List,
    /// Reads content.
    Read,
    /// Makes a file, or gives one this name.
    Create,
    /// Changes or replaces content that is there.
    Overwrite,
    /// Removes a name.
    Remove,
    /// Takes a name away, and gives another.
    RenameFrom,
    /// Makes a directory.
    MakeDirectory,
    /// Changes mode or times.
    Attributes,
}

impl Effect {
    /// The right that allows it.
    const fn right(self) -> Right {
        match self {
            Self::Ask | Self::List => Right::List,
            Self::Read => Right::Read,
            Self::Create => Right::Write,
            Self::Overwrite => Right::Overwrite,
            Self::Remove => Right::Delete,
            Self::RenameFrom => Right::Rename,
            Self::MakeDirectory => Right::Mkdir,
            Self::Attributes => Right::Attributes,
        }
    }

    /// Whether it acts on something that is there: where that may not be seen, it is not.
    const fn needs_something(self) -> bool {
        !matches!(self, Self::Create | Self::MakeDirectory)
    }
}

/// How a rename is to be carried out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Renaming {
    pub(crate) target: Target,
    /// A directory is to stay where it is: rights differ beneath it, and would not go with it.
    pub(crate) no_directory: bool,
}

impl Policy {
    /// Whether files that have arrived stay as they are.
    pub(crate) fn keeps_arrivals(&self) -> bool {
        let keeps = |arrivals: &Arrivals| !arrivals.allows_changes();
        self.arrivals.as_ref().is_some_and(keeps)
    }

    /// Whether the file of that name has arrived and stays as it is.
    pub(crate) fn keeps(&self, path: &VPath) -> bool {
        let keeps = |arrivals: &Arrivals| !arrivals.allows_changes() && arrivals.has_arrived(path);
        self.arrivals.as_ref().is_some_and(keeps)
    }

    /// Whether `effect` at `path` is allowed.
    pub(crate) fn allow(&self, effect: Effect, path: &VPath) -> Result<(), Refusal> {
        let rights = self.rights(path);
        match effect {
            // Everybody sees the root: clients ask for it before anything else.
            Effect::Ask if path.is_root() || is_visible(rights) => Ok(()),
            Effect::Ask => Err(Refusal::NO_SUCH_FILE),
            _ if rights.has(effect.right()) => Ok(()),
            _ => Err(self.refusal(effect, rights)),
        }
    }

    fn rights(&self, path: &VPath) -> Rights {
        let rights = self
            .rules
            .as_ref()
            .map_or(Rights::ALL, |rules| rules.rights(path));
        match self.access {
            Access::ReadWrite => rights,
            Access::ReadOnly => rights.both(Rights::read_only()),
        }
    }

    /// Whether anything may be changed through a handle: what it was opened for says the rest.
    pub(crate) const fn allow_changes(&self) -> Result<(), Refusal> {
        match self.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Refusal::READ_ONLY),
        }
    }

    fn refusal(&self, effect: Effect, rights: Rights) -> Refusal {
        if effect.needs_something() && !is_visible(rights) {
            Refusal::NO_SUCH_FILE
        } else if self.access == Access::ReadOnly {
            Refusal::READ_ONLY
        } else {
            Refusal::NOT_ALLOWED
        }
    }

    /// Whether a file may be opened, and how.
    ///
    /// Where one may be made and none be changed, it has to be new, and the file system sees to
    /// that. A handle that may not read and makes its file is opened to write alone: many clients
    /// ask for more than they need.
    pub(crate) fn open(&self, path: &VPath, mut how: OpenHow) -> Result<OpenHow, Refusal> {
        let rights = self.rights(path);
        let refuse = |effect| Err(self.refusal(effect, rights));
        let changes = how.write || how.append || how.truncate;
        let (may_make, may_change) = (rights.has(Right::Write), rights.has(Right::Overwrite));
        how.create = match how.create {
            Create::IfMissing { mode } if may_make && !may_change && changes => {
                Create::New { mode }
            }
            Create::IfMissing { .. } if !may_make && may_change && changes => Create::Never,
            create if create == Create::Never || may_make => create,
            _ => return refuse(Effect::Create),
        };
        let is_new = matches!(how.create, Create::New { .. });
        if changes && !is_new && !may_change {
            return refuse(Effect::Overwrite);
        }
        if how.read && !rights.has(Right::Read) {
            if !(is_new && how.write) {
                return refuse(Effect::Read);
            }
            how.read = false;
        }
        Ok(how)
    }

    /// Whether something may be renamed, and how. The right to read does not come by it.
    pub(crate) fn rename(
        &self,
        from: &VPath,
        to: &VPath,
        target: Target,
    ) -> Result<Renaming, Refusal> {
        self.allow(Effect::RenameFrom, from)?;
        self.allow(Effect::Create, to)?;
        let (old, new) = (self.rights(from), self.rights(to));
        if new.has(Right::Read) && !old.has(Right::Read) {
            return Err(Refusal::NOT_ALLOWED);
        }
        let differ = |rules: &Arc<Rules>| rules.differ_beneath(from) || rules.differ_beneath(to);
        Ok(Renaming {
            target: match new.has(Right::Overwrite) {
                true => target,
                false => Target::MustNotExist,
            },
            no_directory: self.rules.as_ref().is_some_and(differ),
        })
    }

    /// Whether a symbolic link may be made. Where rights differ by path it would lead around them.
    pub(crate) fn symbolic_link(&self, link: &VPath) -> Result<(), Refusal> {
        self.allow(Effect::Create, link)?;
        match self.symbolic_links && !self.differs_by_path() {
            true => Ok(()),
            false => Err(Refusal::LINKS_OFF),
        }
    }

    /// Whether a file may get one more name: no right to its content comes by it.
    pub(crate) fn hard_link(&self, from: &VPath, to: &VPath) -> Result<(), Refusal> {
        self.allow(Effect::Create, to)?;
        if !self.hard_links {
            return Err(Refusal::LINKS_OFF);
        }
        self.allow(Effect::Ask, from)?;
        let (old, new) = (self.rights(from), self.rights(to));
        let gains = |right| new.has(right) && !old.has(right);
        match [Right::Read, Right::Overwrite, Right::Attributes]
            .into_iter()
            .any(gains)
        {
            true => Err(Refusal::NOT_ALLOWED),
            false => Ok(()),
        }
    }

    /// Whether these attributes of what is at `path` may be changed.
    pub(crate) fn change(&self, path: &VPath, change: &Change) -> Result<(), Refusal> {
        if change.size.is_some() {
            self.allow(Effect::Overwrite, path)?;
        }
        let size_only = Change {
            size: change.size,
            ..Change::default()
        };
        if *change == size_only && change.size.is_some() {
            return Ok(());
        }
        self.allow(Effect::Attributes, path)
    }

    /// Whether names in the directory `path` may have to be left out of its listing.
    pub(crate) fn hides_names_in(&self, path: &VPath) -> bool {
        self.rules
            .as_ref()
            .is_some_and(|rules| rules.differ_beneath(path))
    }

    /// Whether `name` is shown in the listing of `directory`.
    pub(crate) fn shows(&self, directory: &VPath, name: &[u8]) -> bool {
        // A name that no path can have can be asked for by none.
        directory
            .walk(name)
            .is_ok_and(|path| self.allow(Effect::List, &path).is_ok())
    }

    /// Whether rights are other ones at other paths.
    pub(crate) fn differs_by_path(&self) -> bool {
        self.rules
            .as_ref()
            .is_some_and(|rules| !rules.are_uniform())
    }

    /// Whether a file may have bytes from `offset` up to `offset + len`.
    pub(crate) fn check_range(&self, offset: u64, len: u64) -> Result<(), Refusal> {
        // No file reaches beyond what `off_t` counts; the sum must not wrap on the way.
        match offset.checked_add(len) {
            Some(end) if i64::try_from(end).is_ok() => Ok(()),
            _ => Err(Refusal::TOO_LARGE),
        }
    }
}

/// Whether the name may be known.
const fn is_visible(rights: Rights) -> bool {
    rights.has(Right::List) || rights.has(Right::Read)
}

#[cfg(test)]
mod tests;
