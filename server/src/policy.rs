//! What a user may do, decided in one place by the effect of a request.
//!
//! A policy is fixed when a session begins. Every request that has an effect asks here, whatever
//! it is called: creating a file is creating a file, by `OPEN`, `posix-rename` or `copy-data`.

pub(crate) mod pattern;
mod rules;

use crate::refusal::Refusal;
use crate::standing::Standing;

pub use pattern::{BadPattern, PATTERN_LEN_MAX};
pub use rules::{BadRule, RULES_MAX, Right, Rights, Rules};

/// Most patterns of temporary names.
pub const TEMPORARY_NAMES_MAX: usize = 32;

/// What a session may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Policy {
    /// Name that the user logged in with.
    pub(crate) user: String,
    pub(crate) access: Access,
    /// Whether symbolic links may be made (relative ones that stay beneath the root).
    pub(crate) symbolic_links: bool,
    /// Whether files may get a second name.
    pub(crate) hard_links: bool,
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

/// What a request does to the tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effect {
    /// Reads content, lists names, or asks for attributes.
    Look,
    /// Makes a file.
    Create,
    /// Throws content away.
    Truncate,
    /// Changes content.
    Write,
    /// Removes a name.
    Remove,
    /// Gives a name, and takes another away.
    Rename,
    /// Makes a directory.
    MakeDirectory,
    /// Changes length, mode or times.
    Change,
    /// Makes a symbolic link.
    SymbolicLink,
    /// Gives a file one more name.
    HardLink,
}

impl Effect {
    #[cfg(test)]
    const ALL: [Self; 10] = [
        Self::Look,
        Self::Create,
        Self::Truncate,
        Self::Write,
        Self::Remove,
        Self::Rename,
        Self::MakeDirectory,
        Self::Change,
        Self::SymbolicLink,
        Self::HardLink,
    ];
}

impl Policy {
    /// Whether `effect` is allowed.
    pub(crate) fn allow(&self, effect: Effect) -> Result<(), Refusal> {
        match (effect, self.access) {
            (Effect::Look, _) => Ok(()),
            (_, Access::ReadOnly) => Err(Refusal::READ_ONLY),
            (Effect::SymbolicLink, _) if !self.symbolic_links => Err(Refusal::LINKS_OFF),
            (Effect::HardLink, _) if !self.hard_links => Err(Refusal::LINKS_OFF),
            (_, Access::ReadWrite) => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(access: Access, links: bool) -> Policy {
        Policy {
            user: "test".into(),
            access,
            symbolic_links: links,
            hard_links: links,
            standing: Standing::default(),
        }
    }

    #[test]
    fn who_may_only_read_has_no_effect_on_the_tree() {
        for links in [false, true] {
            let policy = policy(Access::ReadOnly, links);
            for effect in Effect::ALL {
                assert_eq!(
                    policy.allow(effect).is_ok(),
                    effect == Effect::Look,
                    "{effect:?}"
                );
            }
        }
    }

    #[test]
    fn links_are_made_only_where_they_are_asked_for() {
        for links in [false, true] {
            let policy = policy(Access::ReadWrite, links);
            for effect in Effect::ALL {
                let is_link = matches!(effect, Effect::SymbolicLink | Effect::HardLink);
                assert_eq!(
                    policy.allow(effect).is_ok(),
                    links || !is_link,
                    "{effect:?}"
                );
            }
        }
    }

    #[test]
    fn no_file_reaches_beyond_what_can_be_counted() {
        let policy = policy(Access::ReadWrite, false);
        let last = i64::MAX as u64;
        assert!(policy.check_range(last - 5, 5).is_ok());
        for (offset, len) in [
            (last - 5, 6),
            (u64::MAX, 1),
            (u64::MAX, u64::MAX),
            (last + 1, 0),
        ] {
            assert_eq!(policy.check_range(offset, len), Err(Refusal::TOO_LARGE));
        }
    }
}
