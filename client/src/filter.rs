//! Which entries of a tree are taken: rules with globs, in order.
//!
//! One language for recursive transfers, for [sync](crate::Sftp::sync_down), and for the command
//! line. How a single pattern is matched is in `pattern.rs`.

use crate::pattern::{PathPattern, PatternError};

/// Rules of one filter at most.
pub const RULES_MAX: usize = 1000;

/// Which entries of a tree are taken, by name.
///
/// A filter is a list of rules, each an include or an exclude with a pattern. **The first rule whose
/// pattern matches decides; what no rule matches is taken.** Names are compared with
/// [the topmost directory](crate::Sftp::get) of the transfer left out: in `docs/a/b.txt`, got as
/// `docs`, the path is `a/b.txt`.
///
/// A directory that is excluded is not entered, so nothing below it can be included again: to take
/// nothing but `/a/b/*.csv`, include `/a/`, `/a/b/` and `/a/b/*.csv`, and then exclude `*`; to take
/// all CSV files wherever they are, include `*/` and `*.csv`, and then exclude `*`.
///
/// # Patterns
///
/// | written | matches |
/// | --- | --- |
/// | `*` | any bytes but `/`, none included |
/// | `**` | any bytes, `/` included |
/// | `**/` at the start, `/**/` between names | any number of directories, none included |
/// | `?` | one character but `/` |
/// | `[abc]`, `[a-z]`, `[!a-z]` or `[^a-z]` | one character of these, or one of no such, never `/`; those named are ASCII |
/// | `\` and a character | that character |
///
/// - A pattern that begins with `/` is matched with the whole path.
/// - Any other is matched with the end of the path, beginning at a name: `b.txt` and `a/b.txt`
///   match `x/a/b.txt`, and `.txt` does not.
/// - A pattern that ends with `/` matches directories only.
/// - A name that begins with a dot is a name like any other.
///
/// These are rsync's rules, with two differences: `/**/` also matches a single slash, and `***`,
/// which rsync has for a directory with all below it, is an error.
///
/// Case matters unless the filter was made by [`ignoring_case`](Self::ignoring_case). The time for
/// a match is linear in the length of the path, whatever the pattern.
///
/// # Example
///
/// ```
/// use ketch_client::Filter;
///
/// let filter = Filter::new().exclude("/cache/")?.include("*.csv")?.include("*/")?.exclude("*")?;
/// assert!(filter.admits(b"in/a.csv", false));
/// assert!(!filter.admits(b"in/a.tmp", false));
/// assert!(!filter.admits(b"cache", true));
/// # Ok::<(), ketch_client::PatternError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Filter {
    rules: Vec<Rule>,
    ignores_case: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: PathPattern,
    includes: bool,
}

impl Filter {
    /// Takes everything, until there are rules.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rules: Vec::new(),
            ignores_case: false,
        }
    }

    /// The same for patterns that match letters of either case; those of ASCII, no others.
    #[must_use]
    pub const fn ignoring_case() -> Self {
        Self {
            rules: Vec::new(),
            ignores_case: true,
        }
    }

    /// Adds a rule: what matches, and was matched by no rule before, is taken.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn include(self, pattern: impl AsRef<[u8]>) -> Result<Self, PatternError> {
        self.rule(pattern.as_ref(), true)
    }

    /// Adds a rule: what matches, and was matched by no rule before, is left out.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn exclude(self, pattern: impl AsRef<[u8]>) -> Result<Self, PatternError> {
        self.rule(pattern.as_ref(), false)
    }

    fn rule(mut self, pattern: &[u8], includes: bool) -> Result<Self, PatternError> {
        if self.rules.len() >= RULES_MAX {
            return Err(PatternError::TooMany);
        }
        let pattern = PathPattern::new(pattern, self.ignores_case)?;
        self.rules.push(Rule { pattern, includes });
        Ok(self)
    }

    /// Whether the filter takes `path`, given without a slash in front and counted from the topmost
    /// directory.
    ///
    /// Only the path itself is looked at: whoever walks a tree does not enter what was left out.
    #[must_use]
    pub fn admits(&self, path: &[u8], is_directory: bool) -> bool {
        self.rules
            .iter()
            .find(|rule| rule.pattern.matches(path, is_directory))
            .is_none_or(|rule| rule.includes)
    }

    /// Whether it takes everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let filter = Filter::new()
            .include("keep.tmp")
            .and_then(|filter| filter.exclude("*.tmp"))
            .and_then(|filter| filter.include("*"))
            .and_then(|filter| filter.exclude("never-reached"))
            .unwrap();
        for (path, taken) in [
            ("keep.tmp", true),
            ("a/keep.tmp", true),
            ("a.tmp", false),
            ("never-reached", true),
            ("b", true),
        ] {
            assert_eq!(filter.admits(path.as_bytes(), false), taken, "{path}");
        }
        assert!(Filter::new().admits(b"anything", true));
    }

    #[test]
    fn only_what_is_named_is_taken_with_its_directories() {
        let filter = ["/a/", "/a/b/", "/a/b/*.csv"]
            .into_iter()
            .try_fold(Filter::new(), Filter::include)
            .and_then(|filter| filter.exclude("*"))
            .unwrap();
        assert!(filter.admits(b"a", true) && filter.admits(b"a/b", true));
        assert!(filter.admits(b"a/b/x.csv", false));
        for (path, is_directory) in [
            (&b"a"[..], false),
            (b"c", true),
            (b"a/b/x.txt", false),
            (b"x/a", true),
        ] {
            assert!(!filter.admits(path, is_directory), "{path:?}");
        }
    }

    #[test]
    fn rules_are_counted() {
        let full = (0..RULES_MAX).try_fold(Filter::new(), |filter, _| filter.exclude("x"));
        assert_eq!(
            full.unwrap().exclude("x").err(),
            Some(PatternError::TooMany)
        );
    }

    #[test]
    fn case_is_ignored_on_request() {
        let with = Filter::ignoring_case().exclude("*.[t-u]Mp").unwrap();
        let others = Filter::ignoring_case().exclude("[!a]").unwrap();
        assert!(others.admits(b"A", false) && !others.admits(b"B", false));
        let without = Filter::new().exclude("*.TMP").unwrap();
        assert!(!with.admits(b"a.TMP", false) && !with.admits(b"a.ump", false));
        assert!(without.admits(b"a.tmp", false) && !without.admits(b"a.TMP", false));
    }
}
