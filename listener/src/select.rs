//! Which names a flow is about: by pattern, size, age, type and depth. Applied before anything is
//! kept.
//!
//! All patterns become one set of regular expressions over bytes, which is matched in time that grows
//! with the length of a path alone, whatever the patterns are. Names are bytes: a `?` stands for one
//! character of UTF-8, or for one byte that is none.
//!
//! | kind | `*` | `**` | without a slash, it speaks of |
//! | --- | --- | --- | --- |
//! | glob | within a name | over directories | the last name |
//! | Ant | within a name | over directories, as a name of its own | the whole path |
//! | regex | as usual; all of it must match | | the last name |
//!
//! A pattern of any kind with a slash in it speaks of the whole path below the root. In a glob,
//! `[a-z]`, `[!a]`, `{one,two}` and `\` before a special character mean what they do in a shell.
//! Sources: Ant's manual, "Patterns"; gitignore(5) for the rule of the slash.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ketch_client::{FileType, RemotePath};
use regex::bytes::{RegexSet, RegexSetBuilder};

use crate::settle::OURS;
use crate::snapshot::Facts;

/// Levels below the root that are looked at, at most.
pub const DEPTH_MAX: u32 = 64;

/// Patterns in one list.
pub const PATTERNS_MAX: usize = 1_000;

/// Bytes of one pattern.
pub const PATTERN_LEN_MAX: usize = 4 * 1024;

/// Memory of a compiled list of patterns, in bytes.
const COMPILED_MAX: usize = 16 << 20;

/// One pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// As in a shell: `*.csv`, `in/**/*.{csv,txt}`.
    Glob(String),
    /// As in Ant: `**/in/*.csv`.
    Ant(String),
    /// A regular expression that matches from the first to the last byte.
    Regex(String),
}

/// What to select; the defaults select every file at any depth.
#[derive(Clone, Debug)]
pub struct SelectSettings {
    /// Levels below the root: 1 for the root's own entries. Default: [`DEPTH_MAX`], which is also the
    /// most.
    pub depth_max: u32,
    /// Level from which on files count. Directories above it are looked into, and told of. Default: 1.
    pub depth_min: u32,
    /// A file must match one of these. Default: none, which means that all do.
    pub include: Vec<Rule>,
    /// What matches one of these is left out; a directory with everything below it. Default: none.
    pub exclude: Vec<Rule>,
    /// Least size of a file in bytes. Default: 0.
    pub size_min: u64,
    /// Greatest size of a file in bytes. Default: any.
    pub size_max: u64,
    /// How long ago a file must have changed, by its own time and this machine's clock. A time in
    /// the future counts as none at all: such a file is old enough. Default: none.
    pub age_min: Option<Duration>,
    /// How long ago a file may have changed. Default: any time.
    pub age_max: Option<Duration>,
    /// Types of things that are no directories. Default: files.
    pub types: Vec<FileType>,
}

impl Default for SelectSettings {
    fn default() -> Self {
        Self {
            depth_max: DEPTH_MAX,
            depth_min: 1,
            include: Vec::new(),
            exclude: Vec::new(),
            size_min: 0,
            size_max: u64::MAX,
            age_min: None,
            age_max: None,
            types: vec![FileType::Regular],
        }
    }
}

/// Whether something is selected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Selected {
    /// It is.
    Yes,
    /// It is not, as it is.
    No,
    /// It will be when it is older.
    Later,
}

/// The rules, compiled. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Select {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: SelectSettings,
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

/// Of a list: those that speak of the last name, and those of the whole path.
#[derive(Debug)]
struct Patterns {
    names: RegexSet,
    paths: RegexSet,
}

/// A pattern that is none.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// It cannot be understood.
    #[error("not a pattern: {pattern}")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// Why.
        source: Box<regex::Error>,
    },
    /// It is longer than [`PATTERN_LEN_MAX`] or there are more than [`PATTERNS_MAX`].
    #[error("too many patterns, or too long a one")]
    TooMany,
}

impl Default for Select {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                settings: SelectSettings::default(),
                include: None,
                exclude: None,
            }),
        }
    }
}

impl Select {
    /// Compiles the rules.
    ///
    /// ```
    /// use ketch_listener::select::{Rule, Select, SelectSettings};
    ///
    /// let select = Select::new(SelectSettings {
    ///     include: vec![Rule::Ant("**/in/*.csv".into())],
    ///     ..SelectSettings::default()
    /// })?;
    /// assert!(select.names(&"shop/in/a.csv".into()));
    /// assert!(!select.names(&"shop/out/a.csv".into()));
    /// # Ok::<_, ketch_listener::select::SelectError>(())
    /// ```
    ///
    /// # Errors
    /// [`SelectError`] names the pattern.
    pub fn new(mut settings: SelectSettings) -> Result<Self, SelectError> {
        settings.depth_max = settings.depth_max.clamp(1, DEPTH_MAX);
        let inner = Inner {
            include: patterns(&settings.include)?,
            exclude: patterns(&settings.exclude)?,
            settings,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Levels below the root that are looked at.
    #[must_use]
    pub fn depth_max(&self) -> u32 {
        self.inner.settings.depth_max
    }

    /// Whether the directory `path` is looked into. Directories of ours are not: what is in them is
    /// not whole yet.
    #[must_use]
    pub fn enters(&self, path: &RemotePath) -> bool {
        let is_ours = path.file_name().is_some_and(|name| name.starts_with(OURS));
        !is_ours && !matches(self.inner.exclude.as_ref(), path)
    }

    /// Whether the directories above `path`, and its depth, let it be seen at all.
    #[must_use]
    pub fn reaches(&self, path: &RemotePath) -> bool {
        let bytes = path.as_bytes();
        let slashes = bytes.iter().enumerate().filter(|(_, b)| **b == b'/');
        let mut depth = 1;
        for (at, _) in slashes {
            depth += 1;
            let above = RemotePath::from(bytes.get(..at).unwrap_or_default());
            if !self.enters(&above) {
                return false;
            }
        }
        depth <= self.inner.settings.depth_max
    }

    /// Whether the name of a file is selected, whatever it is like.
    #[must_use]
    pub fn names(&self, path: &RemotePath) -> bool {
        let include = self.inner.include.as_ref();
        let is_deep = || {
            let least = usize::try_from(self.inner.settings.depth_min).unwrap_or(usize::MAX);
            let mut slashes = path.as_bytes().iter().filter(|byte| **byte == b'/');
            least <= 1 || slashes.nth(least - 2).is_some()
        };
        (include.is_none() || matches(include, path)) && is_deep() && self.enters(path)
    }

    /// Whether something that is no directory is selected. `wall` is this machine's time, in seconds
    /// since 1970.
    #[must_use]
    pub fn selects(&self, path: &RemotePath, facts: &Facts, wall: u64) -> Selected {
        let settings = &self.inner.settings;
        // What a server does not tell the type of is a file until it turns out otherwise.
        let kind = match facts.kind {
            FileType::Unknown => FileType::Regular,
            kind => kind,
        };
        let sizes = settings.size_min..=settings.size_max;
        let fits = settings.types.contains(&kind)
            && facts.size.is_none_or(|size| sizes.contains(&size))
            && self.names(path);
        if !fits {
            return Selected::No;
        }
        let Some(mtime) = facts.mtime else {
            return Selected::Yes;
        };
        let Some(age) = wall.checked_sub(u64::from(mtime)) else {
            return Selected::Yes;
        };
        if settings.age_max.is_some_and(|max| age > max.as_secs()) {
            Selected::No
        } else if settings.age_min.is_some_and(|min| age < min.as_secs()) {
            Selected::Later
        } else {
            Selected::Yes
        }
    }
}

fn matches(patterns: Option<&Patterns>, path: &RemotePath) -> bool {
    let Some(patterns) = patterns else {
        return false;
    };
    let bytes = path.as_bytes();
    let name = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(bytes);
    patterns.names.is_match(name) || patterns.paths.is_match(bytes)
}

fn patterns(rules: &[Rule]) -> Result<Option<Patterns>, SelectError> {
    if rules.is_empty() {
        return Ok(None);
    }
    if rules.len() > PATTERNS_MAX {
        return Err(SelectError::TooMany);
    }
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for rule in rules {
        let (text, of_path, regex) = match rule {
            Rule::Glob(text) => (text, text.contains('/'), from_glob(text)),
            Rule::Ant(text) => (text, true, from_ant(text)),
            Rule::Regex(text) => (text, text.contains('/'), text.clone()),
        };
        if text.len() > PATTERN_LEN_MAX {
            return Err(SelectError::TooMany);
        }
        let regex = format!(r"\A(?:{regex})\z");
        // Each alone first: the error of a set does not say which.
        set([&regex]).map_err(|source| SelectError::Pattern {
            pattern: text.clone(),
            source: Box::new(source),
        })?;
        if of_path { &mut paths } else { &mut names }.push(regex);
    }
    let all = |list: Vec<String>| set(list).map_err(|_| SelectError::TooMany);
    Ok(Some(Patterns {
        names: all(names)?,
        paths: all(paths)?,
    }))
}

fn set(patterns: impl IntoIterator<Item = impl AsRef<str>>) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_MAX)
        .build()
}

/// One character that is no slash, or one byte that is no character.
const ONE: &str = r"(?:[^/]|(?-u:[\x80-\xff]))";
/// Any bytes without a slash.
const WITHIN: &str = r"(?-u:[^/])*";
/// Any number of directories.
const OVER: &str = r"(?:(?-u:[^/])+/)*";

fn literal(out: &mut String, character: char) {
    out.push_str(&regex::escape(character.encode_utf8(&mut [0; 4])));
}

/// A path without its first slash: paths start below the root.
fn relative(pattern: &str) -> &str {
    pattern.strip_prefix('/').unwrap_or(pattern)
}

fn from_ant(pattern: &str) -> String {
    let pattern = match relative(pattern) {
        // Ant: "if a pattern ends with / or \, then ** is appended".
        short if short.ends_with('/') => format!("{short}**"),
        whole => whole.to_owned(),
    };
    let mut out = String::new();
    let mut segments = pattern.split('/').peekable();
    let mut needs_slash = false;
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if segment == "**" {
            match (needs_slash, is_last) {
                (true, true) => out.push_str("(?:/(?s-u:.)*)?"),
                (false, true) => out.push_str("(?s-u:.)*"),
                (true, false) => {
                    let _ = write!(out, "/{OVER}");
                    needs_slash = false;
                }
                (false, false) => out.push_str(OVER),
            }
            continue;
        }
        if needs_slash {
            out.push('/');
        }
        for character in segment.chars() {
            match character {
                '*' => out.push_str(WITHIN),
                '?' => out.push_str(ONE),
                character => literal(&mut out, character),
            }
        }
        needs_slash = true;
    }
    out
}

fn from_glob(pattern: &str) -> String {
    let mut out = String::new();
    let mut braces = 0_u32;
    let mut rest = relative(pattern);
    while let Some(character) = rest.chars().next() {
        let at_start = out.is_empty() || out.ends_with('/') || out.ends_with(OVER);
        if at_start && let Some(after) = rest.strip_prefix("**/") {
            out.push_str(OVER);
            rest = after;
            continue;
        }
        if rest == "/**" {
            out.push_str("(?:/(?s-u:.)*)?");
            break;
        }
        if let Some(after) = rest.strip_prefix("**") {
            out.push_str("(?s-u:.)*");
            rest = after;
            continue;
        }
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
        match character {
            '*' => out.push_str(WITHIN),
            '?' => out.push_str(ONE),
            '{' => {
                braces += 1;
                out.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                out.push(')');
            }
            ',' if braces > 0 => out.push('|'),
            '[' => match class(rest) {
                Some((set, after)) => {
                    out.push_str(&set);
                    rest = after;
                }
                None => literal(&mut out, '['),
            },
            '\\' => {
                let next = rest.chars().next().unwrap_or('\\');
                rest = rest.get(next.len_utf8()..).unwrap_or_default();
                literal(&mut out, next);
            }
            character => literal(&mut out, character),
        }
    }
    out
}

/// A set of characters and what is behind it, if it ends.
fn class(text: &str) -> Option<(String, &str)> {
    let (not, body) = match text.strip_prefix(['!', '^']) {
        Some(body) => ("^/", body),
        None => ("", text),
    };
    // A bracket in the first place is one of the characters.
    let end = body.char_indices().skip(1).find(|(_, c)| *c == ']')?.0;
    let mut set = format!("[{not}");
    for (index, character) in body.get(..end)?.char_indices() {
        let is_range = character == '-' && index > 0 && index + 1 < end;
        if is_range {
            set.push('-');
        } else if character.is_alphanumeric() {
            set.push(character);
        } else {
            let _ = write!(set, r"\x{{{:x}}}", u32::from(character));
        }
    }
    set.push(']');
    Some((set, body.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn select(include: &[Rule], exclude: &[Rule]) -> Select {
        Select::new(SelectSettings {
            include: include.to_vec(),
            exclude: exclude.to_vec(),
            ..SelectSettings::default()
        })
        .unwrap()
    }

    fn check(rule: Rule, yes: &[&[u8]], no: &[&[u8]]) {
        let select = select(std::slice::from_ref(&rule), &[]);
        for path in yes {
            assert!(select.names(&RemotePath::from(*path)), "{rule:?} {path:?}");
        }
        for path in no {
            assert!(!select.names(&RemotePath::from(*path)), "{rule:?} {path:?}");
        }
    }

    #[test]
    fn globs_are_those_of_a_shell() {
        let glob = |text: &str| Rule::Glob(text.into());
        check(
            glob("*.csv"),
            &[b"a.csv", b"in/b/a.csv", b".csv", b"\xff.csv"],
            &[b"a.csv.tmp", b"csv", b"a.csv/b"],
        );
        check(
            glob("in/*.csv"),
            &[b"in/a.csv"],
            &[b"a.csv", b"in/b/a.csv", b"x/in/a.csv"],
        );
        check(glob("/a"), &[b"a"], &[b"b/a"]);
        check(glob("in/**/x"), &[b"in/x", b"in/a/b/x"], &[b"x", b"in/xx"]);
        check(
            glob("in/**"),
            &[b"in", b"in/x", b"in/a/x"],
            &[b"inn", b"a/in"],
        );
        check(
            glob("a?[!0-9].{txt,csv}"),
            &[b"abc.txt", "aäb.csv".as_bytes(), b"a\xffb.csv"],
            &[b"ab1.txt"],
        );
        check(glob("[]a]"), &[b"]", b"a"], &[b"b"]);
        check(glob("[a"), &[b"[a"], &[b"a"]);
        check(glob(r"\*.(+"), &[b"*.(+"], &[b"a.(+"]);
    }

    #[test]
    fn ant_patterns_are_those_of_its_manual() {
        let ant = |text: &str| Rule::Ant(text.into());
        check(
            ant("**/in/*.csv"),
            &[b"in/a.csv", b"x/y/in/a.csv"],
            &[b"in/x/a.csv", b"a.csv"],
        );
        // The examples of "Patterns", "Directory based tasks".
        check(
            ant("**/CVS/*"),
            &[
                b"CVS/Repository",
                b"org/apache/CVS/Entries",
                b"org/apache/jakarta/tools/ant/CVS/Entries",
            ],
            &[b"org/apache/CVS/foo/bar/Entries"],
        );
        check(
            ant("org/apache/**/CVS/*"),
            &[
                b"org/apache/CVS/Entries",
                b"org/apache/jakarta/tools/ant/CVS/Entries",
            ],
            &[b"org/apache/CVS/foo/bar/Entries"],
        );
        check(
            ant("**/test/**"),
            &[b"test", b"a/test", b"a/test/b/c", b"test/x"],
            &[b"tests/a", b"a/testing"],
        );
        check(ant("org/apache/"), &[b"org/apache/a/b"], &[b"org/apach"]);
        check(ant("*.csv"), &[b"a.csv"], &[b"in/a.csv"]);
        check(ant("t?st"), &[b"test"], &[b"tst", b"t/st"]);
    }

    #[test]
    fn regular_expressions_match_all_of_a_name() {
        let regex = |text: &str| Rule::Regex(text.into());
        check(
            regex(r"\d+\.csv"),
            &[b"1.csv", b"in/22.csv"],
            &[b"1.csv.tmp", b"a1.csv"],
        );
        check(regex(r"in/.*|x"), &[b"in/a/b", b"x"], &[b"b/x"]);
        assert!(matches!(
            Select::new(SelectSettings {
                include: vec![regex("(")],
                ..SelectSettings::default()
            }),
            Err(SelectError::Pattern { .. })
        ));
    }

    #[test]
    fn what_is_left_out_is_not_entered() {
        let select = select(
            &[],
            &[Rule::Ant("**/old/**".into()), Rule::Glob("*.tmp".into())],
        );
        assert!(!select.enters(&"a/old".into()));
        assert!(!select.reaches(&"a/old/b/c".into()));
        assert!(select.reaches(&"a/new/b/c".into()));
        assert!(!select.reaches(&"a/.ketch-spool/.ketch-1/c".into()), "ours");
        assert!(!select.names(&"a/b.tmp".into()));
    }

    #[test]
    fn files_above_the_least_depth_do_not_count_and_directories_are_entered() {
        let select = Select::new(SelectSettings {
            depth_min: 2,
            depth_max: 3,
            ..SelectSettings::default()
        })
        .unwrap();
        let counts = ["a", "in/a", "in/b/a"].map(|path| select.names(&path.into()));
        assert_eq!(counts, [false, true, true]);
        assert!(select.enters(&"in".into()) && select.reaches(&"in/b/a".into()));
        assert!(!select.reaches(&"in/b/c/a".into()));
    }

    #[test]
    fn sizes_types_and_ages_count() {
        let select = Select::new(SelectSettings {
            size_min: 1,
            size_max: 10,
            age_min: Some(Duration::from_secs(60)),
            age_max: Some(Duration::from_secs(600)),
            ..SelectSettings::default()
        })
        .unwrap();
        let is = |kind, size, mtime| {
            let facts = Facts { kind, size, mtime };
            select.selects(&"a".into(), &facts, 10_000)
        };
        let file = FileType::Regular;
        assert_eq!(is(file, Some(1), Some(9_900)), Selected::Yes);
        assert_eq!(is(file, None, None), Selected::Yes);
        assert_eq!(is(FileType::Unknown, Some(10), Some(20_000)), Selected::Yes);
        assert_eq!(is(file, Some(0), None), Selected::No);
        assert_eq!(is(file, Some(11), None), Selected::No);
        assert_eq!(is(file, Some(5), Some(9_990)), Selected::Later);
        assert_eq!(is(file, Some(5), Some(9_000)), Selected::No);
        assert_eq!(is(FileType::Symlink, Some(5), None), Selected::No);
    }

    #[test]
    fn a_long_pattern_is_matched_at_once() {
        let select = select(
            &[Rule::Glob("*a".repeat(200)), Rule::Ant("**/a/".repeat(100))],
            &[],
        );
        assert!(!select.names(&RemotePath::new("a".repeat(60_000) + "b")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_pattern_and_no_name_is_too_odd(pattern in ".{0,20}", name in any::<Vec<u8>>()) {
            for rule in [Rule::Glob(pattern.clone()), Rule::Ant(pattern.clone()), Rule::Regex(pattern)] {
                let settings = SelectSettings { include: vec![rule], ..SelectSettings::default() };
                if let Ok(select) = Select::new(settings) {
                    let _ = select.names(&RemotePath::from(name.as_slice()));
                }
            }
        }

        #[test]
        fn a_name_without_wildcards_matches_itself(name in "[a-zA-Z0-9_. ()+^$|-]{1,20}") {
            for rule in [Rule::Glob(name.clone()), Rule::Ant(name.clone())] {
                prop_assert!(select(&[rule], &[]).names(&RemotePath::from(name.as_str())));
            }
        }
    }
}
