//! Names made of items: where a sink puts one, where an after-action moves one.
//!
//! A template is read once; what it makes is checked by [`name::check`] before
//! anybody uses it. Bytes of names stay what they are.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use ketch_client::RemotePath;
use ring::digest;

use super::SinkError;
use super::event::hex;
use super::name::{self, NameFault, Names, split, split_extension};
use crate::flow::item::Item;

/// Longest template, in bytes.
pub const TEMPLATE_LEN_MAX: usize = 1024;
/// The format of `{date}` and `{mtime}` where none is given.
const DATE: &str = "%Y-%m-%d";

/// The keys that a template may have.
pub const KEYS: [&str; 11] = [
    "path", "dir", "name", "base", "ext", "date", "mtime", "flow", "sequence", "uuid", "sha256",
];

/// A name with gaps that an item fills.
///
/// | written | stands for |
/// | --- | --- |
/// | `{path}` | the path below the source |
/// | `{dir}` | its directory; with the slash behind it nothing at all if it has none |
/// | `{name}` | its last component |
/// | `{base}` | that without its extension |
/// | `{ext}` | the extension without its dot; with the dot before it nothing at all if it has none |
/// | `{date:%Y/%m}` | when the ledger took it, in UTC, as strftime(3) has it; `{date}`: `%Y-%m-%d` |
/// | `{mtime:%Y/%m}` | when it was changed last, by the server's clock |
/// | `{flow}` | the flow's name |
/// | `{sequence}` | the ledger's number, in 16 hexadecimal digits, so that names sort |
/// | `{uuid}` | a UUID (version 8) made of the item: the same after every restart |
/// | `{sha256}` | SHA-256 of the content, in hexadecimal digits |
/// | `{{`, `}}` | braces |
///
/// ```
/// use ketch_listener::sink::template::Template;
///
/// let mirror = Template::parse("{path}")?;
/// let by_day = Template::parse("{date:%Y/%m/%d}/{base}-{sequence}.{ext}")?;
/// assert!(Template::parse("{nam}").is_err());
/// # Ok::<(), ketch_listener::sink::template::TemplateError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(String),
    Path,
    Dir,
    Name,
    Base,
    Ext,
    Date(String),
    Mtime(String),
    Flow,
    Sequence,
    Uuid,
    Sha256,
    /// Something that only the caller knows, by its place in the list of its keys.
    Other(usize),
}

/// Why a template is none. `at` counts its bytes from 0.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A key that there is not.
    #[error("at {at}: there is no {{{key}}}")]
    Unknown {
        /// Where its brace is.
        at: usize,
        /// The key.
        key: String,
    },
    /// A `{` without its `}`, or the other way round.
    #[error("at {at}: a brace without its other; a plain one is written twice")]
    Brace {
        /// Where it is.
        at: usize,
    },
    /// A format that strftime has not, or a format behind a key that takes none.
    #[error("at {at}: {{{key}}} cannot have this format")]
    Format {
        /// Where its brace is.
        at: usize,
        /// The key with its format.
        key: String,
    },
    /// It is empty.
    #[error("a template is not to be empty")]
    Empty,
    /// It is longer than [`TEMPLATE_LEN_MAX`].
    #[error("a template has at most {TEMPLATE_LEN_MAX} bytes")]
    TooLong,
    /// It can only make names that lead out: it begins or ends with `/`, or has `..` in it.
    #[error("what it makes is no name below the destination: {0}")]
    NoName(NameFault),
}

impl TemplateError {
    /// Where in the template it is, counted in bytes from 0, if it is at one place.
    #[must_use]
    pub const fn at(&self) -> Option<usize> {
        match self {
            Self::Unknown { at, .. } | Self::Brace { at } | Self::Format { at, .. } => Some(*at),
            _ => None,
        }
    }
}

impl Template {
    /// Reads a template for names.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let template = Self::parse_text(text, &[])?;
        template.check_text().map_err(TemplateError::NoName)?;
        Ok(template)
    }

    /// The tree as it is at the source: `{path}`.
    #[must_use]
    pub fn mirror() -> Self {
        Self {
            text: "{path}".to_owned(),
            parts: vec![Part::Path],
        }
    }

    /// All in one directory: `{name}`.
    #[must_use]
    pub fn flat() -> Self {
        Self {
            text: "{name}".to_owned(),
            parts: vec![Part::Name],
        }
    }

    /// Reads any text with gaps; `others` are keys that [`Template::fill_text`] is told of.
    pub(crate) fn parse_text(text: &str, others: &[&str]) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_LEN_MAX {
            return Err(TemplateError::TooLong);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let at = text.len() - rest.len() + brace;
            let (before, from) = rest.split_at(brace);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or(from.strip_prefix("}}")) {
                plain.push_str(from.get(..1).unwrap_or_default());
                rest = after;
                continue;
            }
            let Some((key, after)) = from.strip_prefix('{').and_then(|gap| gap.split_once('}'))
            else {
                return Err(TemplateError::Brace { at });
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::read(key, at, others)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it wants the SHA-256 of the content, which is known when that was fetched.
    #[must_use]
    pub fn wants_sha256(&self) -> bool {
        self.parts.contains(&Part::Sha256)
    }

    /// Whether it has a key that only its reader knows.
    pub(crate) fn has_others(&self) -> bool {
        let is_other = |part: &Part| matches!(part, Part::Other(_));
        self.parts.iter().any(is_other)
    }

    /// Whether what it makes begins with what was written, and not with what an item says.
    pub(crate) fn begins_with_text(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Text(_)))
    }

    /// The name for `item`: components with `/` between them, each one safe where `names` hold.
    ///
    /// # Errors
    /// [`NameFault`]: what is wrong with what it would be.
    pub fn name(&self, item: &Item, names: Names) -> Result<RemotePath, NameFault> {
        let made = self.fill_text(item, &[]).ok_or(NameFault::Unknown)?;
        name::check(&made, names)?;
        Ok(RemotePath::from(made))
    }

    /// The same as a sink's error.
    pub(crate) fn place(&self, item: &Item, names: Names) -> Result<Vec<u8>, SinkError> {
        match self.name(item, names) {
            Ok(name) => Ok(name.into_bytes()),
            Err(fault) => Err(fault.of(item.path.as_bytes())),
        }
    }

    /// The text for `item`, unchecked; `others` are the values of the keys that
    /// [`Template::parse_text`] was told of. `None` if it wants what is not known.
    pub(crate) fn fill_text(&self, item: &Item, others: &[&[u8]]) -> Option<Vec<u8>> {
        let path = item.path.as_bytes();
        let (dir, last) = split(path);
        let (base, extension) = split_extension(last);
        let mut made = Vec::new();
        let mut swallow = false;
        for part in &self.parts {
            let swallowed = std::mem::take(&mut swallow);
            match part {
                Part::Text(text) => {
                    let text = match text.strip_prefix('/') {
                        Some(rest) if swallowed => rest,
                        _ => text,
                    };
                    made.extend_from_slice(text.as_bytes());
                }
                Part::Path => made.extend_from_slice(path),
                Part::Dir => {
                    made.extend_from_slice(dir);
                    swallow = dir.is_empty();
                }
                Part::Name => made.extend_from_slice(last),
                Part::Base => made.extend_from_slice(base),
                Part::Ext if extension.is_empty() => {
                    if made.last() == Some(&b'.') {
                        made.pop();
                    }
                }
                Part::Ext => made.extend_from_slice(extension),
                Part::Date(format) => {
                    let seconds = i64::try_from(item.recorded / 1000).ok()?;
                    made.extend_from_slice(date(format, seconds)?.as_bytes());
                }
                Part::Mtime(format) => {
                    let seconds = i64::from(item.facts.mtime?);
                    made.extend_from_slice(date(format, seconds)?.as_bytes());
                }
                Part::Flow => made.extend_from_slice(item.flow.as_str().as_bytes()),
                Part::Sequence => {
                    made.extend_from_slice(format!("{:016x}", item.sequence).as_bytes());
                }
                Part::Uuid => made.extend_from_slice(uuid(item).as_bytes()),
                Part::Sha256 => made.extend_from_slice(hex(item.sha256.as_ref()?).as_bytes()),
                Part::Other(which) => made.extend_from_slice(others.get(*which)?),
            }
        }
        Some(made)
    }

    /// What can be told of the names before there is an item: its own text leads nowhere else.
    fn check_text(&self) -> Result<(), NameFault> {
        let mut sample = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => sample.push_str(text),
                // In years of four digits, as in all that will come.
                Part::Date(format) | Part::Mtime(format) => {
                    sample.push_str(&date(format, 0).unwrap_or_default());
                }
                _ => sample.push('x'),
            }
        }
        name::check(sample.as_bytes(), Names::Unix)
    }
}

impl Part {
    fn read(key: &str, at: usize, others: &[&str]) -> Result<Self, TemplateError> {
        let (name, format) = match key.split_once(':') {
            Some((name, format)) => (name, Some(format)),
            None => (key, None),
        };
        let bad_format = || TemplateError::Format {
            at,
            key: key.to_owned(),
        };
        let dated = || {
            let format = format.unwrap_or(DATE);
            let good = !format.is_empty() && date(format, 0).is_some();
            good.then(|| format.to_owned()).ok_or_else(bad_format)
        };
        let part = match name {
            "date" => return dated().map(Self::Date),
            "mtime" => return dated().map(Self::Mtime),
            "path" => Self::Path,
            "dir" => Self::Dir,
            "name" => Self::Name,
            "base" => Self::Base,
            "ext" => Self::Ext,
            "flow" => Self::Flow,
            "sequence" => Self::Sequence,
            "uuid" => Self::Uuid,
            "sha256" => Self::Sha256,
            other => match others.iter().position(|&known| known == other) {
                Some(which) => Self::Other(which),
                None => {
                    return Err(TemplateError::Unknown {
                        at,
                        key: key.to_owned(),
                    });
                }
            },
        };
        match format {
            None => Ok(part),
            Some(_) => Err(bad_format()),
        }
    }
}

/// A time in UTC, in seconds since 1970.
fn date(format: &str, seconds: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?;
    strtime::format(format, &time.to_zoned(TimeZone::UTC)).ok()
}

/// A UUID of version 8 (RFC 9562 §5.8): the start of a SHA-256 over what the item is.
pub(crate) fn uuid(item: &Item) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(item.id().as_bytes());
    hash.update(&item.recorded.to_be_bytes());
    hash.update(item.path.as_bytes());
    let sum = hash.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(sum.as_ref().get(..16).unwrap_or(&[0; 16]));
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xF << 76) | 8 << 76; // the version
    let number = number & !(0b11 << 62) | 0b10 << 62; // the variant
    let digits = format!("{number:032x}");
    let (a, rest) = digits.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{e}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::item::{FlowName, ItemKind};
    use crate::snapshot::Facts;
    use ketch_client::FileType;
    use proptest::prelude::*;

    fn item(path: &[u8]) -> Item {
        Item {
            flow: FlowName::new("orders").expect("a name"),
            sequence: 0x1f,
            kind: ItemKind::Created,
            path: RemotePath::from(path),
            facts: Facts {
                kind: FileType::Regular,
                size: Some(12),
                mtime: Some(1_709_164_800),
            },
            sha256: Some([0xab; 32]),
            recorded: 1_795_282_550_123,
        }
    }

    fn made(template: &str, path: &str) -> String {
        let template = Template::parse(template).expect("a template");
        let name = template.name(&item(path.as_bytes()), Names::Unix);
        name.map_or_else(|fault| format!("{fault:?}"), |name| name.to_string())
    }

    #[test]
    fn gaps_are_filled() {
        for (template, path, wanted) in [
            ("{path}", "in/a.csv", "in/a.csv"),
            ("{name}", "in/a.csv", "a.csv"),
            ("{dir}/x-{name}", "in/b/a.csv", "in/b/x-a.csv"),
            ("{dir}/x-{name}", "a.csv", "x-a.csv"),
            ("{base}.{ext}", "in/README", "README"),
            (
                "{base}-{sequence}.{ext}",
                "a.tar.gz",
                "a.tar-000000000000001f.gz",
            ),
            ("{date:%Y/%m/%d}/{name}", "a", "2026/11/21/a"),
            ("{date}/{mtime:%Y%m%d}", "a", "2026-11-21/20240229"),
            ("{flow}/{{{name}}}", "a", "orders/{a}"),
            ("{base}", ".hidden", ".hidden"),
        ] {
            assert_eq!(made(template, path), wanted, "{template}");
        }
        assert_eq!(made("{sha256}", "a"), "ab".repeat(32));
    }

    #[test]
    fn a_uuid_is_the_same_for_the_same_item_alone() {
        let uuid = made("{uuid}", "a");
        assert_eq!(uuid, made("{uuid}", "a"));
        assert_ne!(uuid, made("{uuid}", "b"));
        assert_eq!((uuid.len(), uuid.as_bytes().get(14)), (36, Some(&b'8')));
    }

    #[test]
    fn mistakes_are_said_with_their_place() {
        for (template, at) in [
            ("a/{nam}", 2),
            ("a{name", 1),
            ("ab}", 2),
            ("{date:%!}", 0),
            ("x{date:}", 1),
            ("{name:x}", 0),
            ("{}", 0),
            ("{{{x", 2),
        ] {
            let error = Template::parse(template).expect_err(template);
            assert_eq!(error.at(), Some(at), "{template}: {error}");
        }
        assert_eq!(Template::parse(""), Err(TemplateError::Empty));
        let long = "x".repeat(TEMPLATE_LEN_MAX + 1);
        assert_eq!(Template::parse(&long), Err(TemplateError::TooLong));
        for template in [
            "/abs/{name}",
            "../{name}",
            "{name}/",
            "a//{name}",
            "{dir}/../x",
            "\0",
        ] {
            let error = Template::parse(template).expect_err(template);
            assert!(matches!(error, TemplateError::NoName(_)), "{template}");
        }
    }

    #[test]
    fn what_is_not_known_makes_no_name() {
        let mut item = item(b"a");
        item.facts.mtime = None;
        item.sha256 = None;
        for template in ["{mtime}", "{sha256}"] {
            let template = Template::parse(template).expect("a template");
            assert_eq!(template.name(&item, Names::Unix), Err(NameFault::Unknown));
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out(path in proptest::collection::vec(any::<u8>(), 0..30)) {
            for template in ["{path}", "{name}", "{dir}/{base}.{ext}", "x{path}", "{dir}{name}"] {
                let template = Template::parse(template).expect("a template");
                if let Ok(name) = template.name(&item(&path), Names::Unix) {
                    prop_assert_eq!(name::check(name.as_bytes(), Names::Unix), Ok(()));
                }
            }
        }

        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = Template::parse(&text);
        }
    }
}
