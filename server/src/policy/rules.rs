//! Rights by path: which patterns give which rights.
//!
//! A pattern is compared with a canonical [`VPath`] component by component, so `/data` has nothing
//! to do with `/database`, and covers all that lies beneath what it matches. What `*`, `?`,
//! `[a-z]` and `{a,b}` stand for lies within one component; the component `**` stands for any
//! number of them.

use std::fmt;

use crate::path::VPath;
use crate::policy::pattern::{BadPattern, PathPattern};

/// Most rules of one user.
pub const RULES_MAX: usize = 256;

/// One thing that may be done at a path.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Right {
    /// The name is shown: in the listing of its directory, and to who asks for its attributes. A
    /// directory can be listed.
    List,
    /// The content of a file can be read, and its attributes be asked for.
    Read,
    /// A file can be made, and be written by the handle that made it.
    Write,
    /// A file that exists can be changed: written to, appended to, made shorter or longer, replaced
    /// by one that is renamed.
    Overwrite,
    /// A file or an empty directory can be removed.
    Delete,
    /// A file or directory can be given another name, where the new one may be made.
    Rename,
    /// A directory can be made.
    Mkdir,
    /// Permission bits and times can be set.
    Attributes,
}

impl Right {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::List,
        Self::Read,
        Self::Write,
        Self::Overwrite,
        Self::Delete,
        Self::Rename,
        Self::Mkdir,
        Self::Attributes,
    ];

    /// Its name in a configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Write => "write",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
            Self::Rename => "rename",
            Self::Mkdir => "mkdir",
            Self::Attributes => "attributes",
        }
    }

    /// The right of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == name)
    }
}

/// A set of rights.
///
/// ```
/// use ketch_server::{Right, Rights};
///
/// let rights = Rights::from([Right::List, Right::Read]);
/// assert!(rights.has(Right::Read) && !rights.has(Right::Delete));
/// ```
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Rights(u8);

impl Rights {
    /// None at all: what is there is not seen.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self(u8::MAX);

    /// Looking: to list and to read.
    #[must_use]
    pub fn read_only() -> Self {
        Self::from([Right::List, Right::Read])
    }

    /// Bringing: files and directories can be made, seen in listings, given another name that is
    /// free and have their times and permission bits set; nothing can be read, changed, replaced or
    /// removed.
    #[must_use]
    pub fn upload_only() -> Self {
        Self::from([
            Right::List,
            Right::Write,
            Right::Rename,
            Right::Mkdir,
            Right::Attributes,
        ])
    }

    /// Whether `right` is among them.
    #[must_use]
    pub const fn has(self, right: Right) -> bool {
        self.0 & Self::bit(right) != 0
    }

    /// With one more.
    #[must_use]
    pub const fn and(self, right: Right) -> Self {
        Self(self.0 | Self::bit(right))
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, right: Right) -> Self {
        Self(self.0 & !Self::bit(right))
    }

    /// Those that both have.
    pub(crate) const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in it, in order.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |right| self.has(*right))
    }

    const fn bit(right: Right) -> u8 {
        1 << right as u8 // eight of them
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::NONE, Self::and)
    }
}

impl<const N: usize> From<[Right; N]> for Rights {
    fn from(rights: [Right; N]) -> Self {
        rights.into_iter().collect()
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The rights of a user, by path. Of the rules that match a path **the last one** holds, as in a
/// `.gitignore`: general ones come first, exceptions behind them. Where none matches, the rights
/// that the rules began with hold.
///
/// A pattern that starts with `/` is compared from the root, one without at any depth. It covers
/// what it matches and everything beneath. Bytes are compared: no case is folded.
///
/// Where rights differ by path, links would lead around them: with any rule, no link is made,
/// and a local directory follows none.
///
/// ```
/// use ketch_server::{Rights, Right, Rules};
///
/// // Everything may be looked at, `/in` be brought to, and nobody sees `/in/done`.
/// let rules = Rules::new(Rights::read_only())
///     .rule("/in", Rights::upload_only())?
///     .rule("/in/done", Rights::NONE)?
///     .rule("*.exe", Rights::from([Right::List]))?;
/// # Ok::<(), ketch_server::BadRule>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rules {
    base: Rights,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: PathPattern,
    rights: Rights,
}

impl Rules {
    /// These rights everywhere.
    #[must_use]
    pub const fn new(rights: Rights) -> Self {
        Self {
            base: rights,
            rules: Vec::new(),
        }
    }

    /// [`Rights::read_only`] everywhere.
    #[must_use]
    pub fn read_only() -> Self {
        Self::new(Rights::read_only())
    }

    /// [`Rights::upload_only`] everywhere. For a box in which names are hidden too, begin with
    /// `Rights::upload_only().without(Right::List)`.
    #[must_use]
    pub fn upload_only() -> Self {
        Self::new(Rights::upload_only())
    }

    /// Gives these rights where `pattern` matches, and beneath, instead of those that the rules
    /// before it give.
    ///
    /// # Errors
    /// [`BadRule`] for what is no pattern, and for more than [`RULES_MAX`] rules.
    pub fn rule(mut self, pattern: &str, rights: impl Into<Rights>) -> Result<Self, BadRule> {
        if self.rules.len() >= RULES_MAX {
            return Err(BadRule::TooMany);
        }
        let pattern = PathPattern::new(pattern).map_err(|source| BadRule::Pattern {
            pattern: pattern.to_owned(),
            source,
        })?;
        let rights = rights.into();
        self.rules.push(Rule { pattern, rights });
        Ok(self)
    }

    /// What may be done at `path`.
    #[must_use]
    pub fn rights(&self, path: &VPath) -> Rights {
        let covers = |rule: &&Rule| rule.pattern.compare(path).covers;
        self.rules
            .iter()
            .rfind(covers)
            .map_or(self.base, |rule| rule.rights)
    }

    /// Whether the rights are the same at every path.
    pub(crate) fn are_uniform(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether something beneath `path` may have other rights than `path` itself.
    pub(crate) fn differ_beneath(&self, path: &VPath) -> bool {
        let rights = self.rights(path);
        for rule in self.rules.iter().rev() {
            let compared = rule.pattern.compare(path);
            if compared.covers {
                return false; // all before it is overruled
            }
            if compared.may_cover_beneath && rule.rights != rights {
                return true;
            }
        }
        false
    }
}

impl Default for Rules {
    /// Every right everywhere.
    fn default() -> Self {
        Self::new(Rights::ALL)
    }
}

/// Why something is no rule.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadRule {
    /// There are more than [`RULES_MAX`].
    #[error("a user has at most {RULES_MAX} rules")]
    TooMany,
    /// The pattern cannot be read.
    #[error("{pattern:?} is no pattern for paths")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it.
        source: BadPattern,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(named: &str) -> VPath {
        VPath::resolve(named.as_bytes()).unwrap()
    }

    fn rules(all: &[(&str, Rights)]) -> Rules {
        let add = |rules: Rules, (pattern, rights): &(&str, Rights)| {
            rules.rule(pattern, *rights).unwrap()
        };
        all.iter().fold(Rules::new(Rights::NONE), add)
    }

    #[test]
    fn the_last_rule_that_matches_holds() {
        let (look, bring) = (Rights::read_only(), Rights::upload_only());
        let rules = rules(&[
            ("/", look),
            ("/in", bring),
            ("/in/done", Rights::NONE),
            ("*.exe", Rights::from([Right::List])),
            ("/in/done/safe/**", look),
        ]);
        for (named, expected) in [
            ("/", look),
            ("/a/b", look),
            ("/in", bring),
            ("/in/x/y", bring),
            ("/inside", look),
            ("/in/done", Rights::NONE),
            ("/in/done/x", Rights::NONE),
            ("/in/x/a.exe", Rights::from([Right::List])),
            ("/a.exe/below", Rights::from([Right::List])),
            ("/in/done/safe", Rights::NONE),
            ("/in/done/safe/x/y.exe", look),
        ] {
            assert_eq!(rules.rights(&path(named)), expected, "{named}");
        }
    }

    #[test]
    fn what_lies_beneath_may_have_other_rights() {
        let (look, bring) = (Rights::read_only(), Rights::upload_only());
        let fixed = rules(&[
            ("/", look),
            ("/a/b", bring),
            ("/c/*/d", bring),
            ("/e", look),
        ]);
        for (named, expected) in [
            ("/", true),
            ("/a", true),
            ("/a/b", false),
            ("/a/b/c", false),
            ("/b", false),
            ("/c", true),
            ("/c/x", true),
            ("/c/x/d", false),
            ("/e", false),
        ] {
            assert_eq!(fixed.differ_beneath(&path(named)), expected, "{named}");
        }
        let anywhere = rules(&[("/", look), ("*.exe", bring), ("/safe", look)]);
        assert!(anywhere.differ_beneath(&path("/x/y")));
        assert!(!anywhere.differ_beneath(&path("/x/y.exe")));
        assert!(!anywhere.differ_beneath(&path("/safe/x")));
    }

    #[test]
    fn there_are_not_more_rules_than_allowed() {
        let mut all = Rules::default();
        for _ in 0..RULES_MAX {
            all = all.rule("/x", Rights::NONE).unwrap();
        }
        assert!(matches!(
            all.rule("/x", Rights::NONE),
            Err(BadRule::TooMany)
        ));
    }

    fn pattern() -> impl Strategy<Value = String> {
        let part = prop_oneof![Just("a"), Just("b"), Just("*"), Just("**"), Just("a*")];
        (any::<bool>(), proptest::collection::vec(part, 1..4)).prop_map(|(anchored, parts)| {
            let parts = parts.join("/");
            if anchored { format!("/{parts}") } else { parts }
        })
    }

    fn named() -> impl Strategy<Value = String> {
        let name = prop_oneof![Just("a"), Just("b"), Just("ab")];
        proptest::collection::vec(name, 0..4).prop_map(|names| format!("/{}", names.join("/")))
    }

    proptest! {
        /// Where nothing is said to differ beneath a path, nothing does.
        #[test]
        fn rights_that_do_not_differ_beneath_are_the_same_there(
            all in proptest::collection::vec((pattern(), any::<u8>()), 0..6),
            base in any::<u8>(), directory in named(), below in named(),
        ) {
            let mut rules = Rules::new(Rights(base));
            for (pattern, rights) in all {
                rules = rules.rule(&pattern, Rights(rights)).unwrap();
            }
            let directory = path(&directory);
            let below = path(&format!("{directory}{below}"));
            if !rules.differ_beneath(&directory) {
                prop_assert_eq!(rules.rights(&directory), rules.rights(&below));
            }
        }
    }
}
