//! Patterns of names and of paths, as administrators write them.
//!
//! `globset` compares one component; which components a pattern's parts stand for is decided here,
//! by the set of places in the pattern that can be reached. That costs a step for each component
//! and reached place, whatever the pattern: nobody can make a comparison long by a clever path.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobMatcher};

use crate::path::VPath;

/// Longest pattern, in bytes.
pub const PATTERN_LEN_MAX: usize = 1024;
/// Most parts of a pattern between slashes: one bit of a `u64` each, and one for its end.
const PARTS_MAX: usize = 62;

/// A pattern for one name: `*`, `?`, `[a-z]`, `[!a-z]`, `{a,b}`, and `\` before what stands for
/// itself. `?` is one byte.
#[derive(Clone)]
pub(crate) struct NamePattern {
    text: String,
    matcher: GlobMatcher,
}

impl NamePattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, BadPattern> {
        if pattern.is_empty() || pattern.contains('\0') {
            return Err(BadPattern::NoName);
        }
        if pattern.len() > PATTERN_LEN_MAX {
            return Err(BadPattern::TooLong);
        }
        if pattern.contains('/') || pattern == "." || pattern == ".." {
            return Err(BadPattern::NoName);
        }
        let glob = GlobBuilder::new(pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build()?;
        Ok(Self {
            text: pattern.to_owned(),
            matcher: glob.compile_matcher(),
        })
    }

    /// Whether all of `name` is what the pattern says.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        self.matcher.is_match(OsStr::from_bytes(name))
    }
}

impl fmt::Debug for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// A pattern for paths, which covers what it matches and all beneath.
#[derive(Clone, Debug)]
pub(crate) struct PathPattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// Exactly this name.
    Name(Vec<u8>),
    Pattern(NamePattern),
    /// `**`: any number of components, or none.
    Any,
}

/// How a pattern stands to a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Compared {
    /// It matches the path, or a directory above it.
    pub(crate) covers: bool,
    /// It does not, and may match something beneath the path.
    pub(crate) may_cover_beneath: bool,
}

impl PathPattern {
    pub(crate) fn new(pattern: &str) -> Result<Self, BadPattern> {
        if pattern.len() > PATTERN_LEN_MAX {
            return Err(BadPattern::TooLong);
        }
        let (is_anchored, pattern) = match pattern.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
        let mut parts = Vec::new();
        if !is_anchored {
            parts.push(Part::Any);
        }
        if pattern.is_empty() && is_anchored {
            return Ok(Self { parts }); // the root, and all beneath
        }
        for part in pattern.split('/') {
            parts.push(match part {
                "**" => Part::Any,
                _ if part.contains(['*', '?', '[', ']', '{', '}', '\\']) => {
                    Part::Pattern(NamePattern::new(part)?)
                }
                _ => {
                    NamePattern::new(part)?; // the same is refused in both
                    Part::Name(part.as_bytes().to_vec())
                }
            });
        }
        if parts.len() > PARTS_MAX {
            return Err(BadPattern::TooLong);
        }
        // `a/**` is what lies beneath `a`, not `a` itself.
        if matches!(parts.as_slice(), [.., _, Part::Any]) || matches!(parts[..], [Part::Any]) {
            parts.push(Part::Pattern(NamePattern::new("*")?));
        }
        Ok(Self { parts })
    }

    pub(crate) fn compare(&self, path: &VPath) -> Compared {
        let mut reached = self.without_any(1);
        let end = 1_u64 << self.parts.len();
        let mut components = path.components();
        loop {
            if reached & end != 0 {
                return Compared {
                    covers: true,
                    may_cover_beneath: false,
                };
            }
            match components.next() {
                Some(component) if reached != 0 => reached = self.step(reached, component),
                _ => break,
            }
        }
        Compared {
            covers: false,
            may_cover_beneath: reached != 0,
        }
    }

    /// Where in the pattern one more component leads.
    fn step(&self, reached: u64, component: &[u8]) -> u64 {
        let mut next = 0;
        for (place, part) in self.parts.iter().enumerate() {
            let bit = 1_u64 << place;
            if reached & bit == 0 {
                continue;
            }
            next |= match part {
                Part::Any => bit,
                Part::Name(name) if name == component => bit << 1,
                Part::Pattern(pattern) if pattern.matches(component) => bit << 1,
                Part::Name(_) | Part::Pattern(_) => 0,
            };
        }
        self.without_any(next)
    }

    /// With the places that are reached because `**` may stand for nothing.
    fn without_any(&self, mut reached: u64) -> u64 {
        for (place, part) in self.parts.iter().enumerate() {
            if matches!(part, Part::Any) && reached & 1 << place != 0 {
                reached |= 2 << place;
            }
        }
        reached
    }
}

/// Why something is no pattern.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadPattern {
    /// A part of it is empty, `.`, `..`, holds a NUL, or a name holds a slash.
    #[error("a part of it can be no name")]
    NoName,
    /// It has more than [`PATTERN_LEN_MAX`] bytes, or too many parts.
    #[error("it is too long")]
    TooLong,
    /// `*`, `[` or `{` are not used as they are to be.
    #[error("its syntax is wrong")]
    Syntax(#[from] globset::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(pattern: &str, named: &[u8]) -> (bool, bool) {
        let pattern = PathPattern::new(pattern).unwrap();
        let compared = pattern.compare(&VPath::resolve(named).unwrap());
        (compared.covers, compared.may_cover_beneath)
    }

    #[test]
    fn patterns_are_compared_by_components() {
        const YES: (bool, bool) = (true, false);
        const NO: (bool, bool) = (false, false);
        const BENEATH: (bool, bool) = (false, true);
        let table: [(&str, &[u8], (bool, bool)); 24] = [
            ("/", b"/", YES),
            ("/", b"/a/b", YES),
            ("/data", b"/data", YES),
            ("/data", b"/data/x", YES),
            ("/data", b"/database", NO),
            ("/data", b"/", BENEATH),
            ("/data/", b"/data", YES),
            ("/a/*/c", b"/a/b/c/d", YES),
            ("/a/*/c", b"/a/b", BENEATH),
            ("/a/*/c", b"/a/b/b/c", NO),
            ("/a/[!b]*", b"/a/b", NO),
            ("/a[!b]c", b"/a/c", NO),
            ("/a?c", b"/a/c", NO),
            ("/a*c", b"/a/c", NO),
            ("/a/**/c", b"/a/c", YES),
            ("/a/**/c", b"/a/b/b/c", YES),
            ("/a/**/c", b"/a/b", BENEATH),
            ("/a/**", b"/a", BENEATH),
            ("/a/**", b"/a/b", YES),
            ("**", b"/", BENEATH),
            ("*.csv", b"/x/y.csv", YES),
            ("*.csv", b"/x/y.txt", BENEATH),
            ("/\\*", b"/*", YES),
            ("/\u{e4}?", b"/\xc3\xa4\xff", YES),
        ];
        for (pattern, named, expected) in table {
            assert_eq!(
                compare(pattern, named),
                expected,
                "{pattern} {}",
                named.escape_ascii()
            );
        }
    }

    #[test]
    fn what_no_path_can_be_is_no_pattern() {
        for bad in [
            "", "///", "/a//b", "/a/../b", "./a", "/[a", "/{a", "/{a/b,c}", "a\0",
        ] {
            assert!(PathPattern::new(bad).is_err(), "{bad:?}");
        }
        assert!(PathPattern::new(&"a/".repeat(100)).is_err());
        assert!(PathPattern::new(&"a".repeat(1025)).is_err());
        assert!(PathPattern::new(&format!("/{}", ["**"; 60].join("/"))).is_ok());
    }

    /// Counted in steps, not in time: each component visits each part once.
    #[test]
    fn a_clever_path_does_not_make_a_comparison_long() {
        let pattern = format!("/{}/b", ["**/a*a*a"; 30].join("/"));
        let path = ["aaaaaaaaaaaaaaa"; 255].join("/");
        assert_eq!(compare(&pattern, path.as_bytes()), (false, true));
    }
}
