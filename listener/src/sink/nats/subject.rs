//! The subject of an event, from a template: `ketch.{flow}.{kind}` unless said otherwise.
//!
//! What is put in stands for one token, so that nothing in a file's name can choose another stream's
//! subject: bytes that mean something in a subject, that end one, or that are no printable ASCII
//! become `%` and two hexadecimal digits.

use std::fmt::Write as _;

use crate::flow::item::Item;

/// Longest subject. NATS takes a protocol line of 4096 bytes, with the reply's subject in it.
pub const SUBJECT_LEN_MAX: usize = 2048;

/// A subject with places for what differs from event to event.
///
/// ```
/// use ketch_listener::sink::nats::SubjectTemplate;
///
/// assert!(SubjectTemplate::new("files.{flow}.{kind}.{dir}").is_ok());
/// assert!(SubjectTemplate::new("files.>").is_err());
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubjectTemplate(Vec<Piece>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Text(String),
    /// The flow's name.
    Flow,
    /// `created`, `modified`, `removed` or `renamed`.
    Kind,
    /// The last part of the path.
    Name,
    /// The path without its last part; `-` for the source's root.
    Dir,
    /// The whole path.
    Path,
}

/// Why something is no template for subjects.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{template:?} is no subject: {why}")]
pub struct BadSubject {
    /// What was given.
    pub template: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl SubjectTemplate {
    /// Takes a template: tokens between dots, with `{flow}`, `{kind}`, `{name}`, `{dir}` and `{path}`.
    ///
    /// # Errors
    /// [`BadSubject`].
    pub fn new(template: &str) -> Result<Self, BadSubject> {
        let bad = |why| BadSubject {
            template: template.to_owned(),
            why,
        };
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((text, behind)) = rest.split_once('{') {
            let (word, behind) = behind
                .split_once('}')
                .ok_or_else(|| bad("a { is not closed"))?;
            pieces.push(Piece::Text(text.to_owned()));
            pieces.push(match word {
                "flow" => Piece::Flow,
                "kind" => Piece::Kind,
                "name" => Piece::Name,
                "dir" => Piece::Dir,
                "path" => Piece::Path,
                _ => return Err(bad("there are {flow}, {kind}, {name}, {dir} and {path}")),
            });
            rest = behind;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let template = Self(pieces);
        // Whatever is put in is not empty and has no dot, so one letter stands for all of it.
        let shape = template.fill(|_| "x".to_owned());
        if shape.split('.').any(str::is_empty) {
            return Err(bad("there is an empty token in it"));
        }
        if !shape.bytes().all(|byte| byte.is_ascii_graphic()) || shape.contains(['*', '>', '}']) {
            return Err(bad("it is printable ASCII without blanks, '*' and '>'"));
        }
        if shape.starts_with('$') || shape.starts_with("_INBOX") {
            return Err(bad("such subjects are the server's own"));
        }
        if shape.len() > SUBJECT_LEN_MAX / 2 {
            return Err(bad("it is too long"));
        }
        Ok(template)
    }

    /// The subject of the event about `item`, at most [`SUBJECT_LEN_MAX`] bytes: longer ones are cut,
    /// as nothing is told apart by its subject alone.
    #[must_use]
    pub fn of(&self, item: &Item) -> String {
        let path = item.path.as_bytes();
        let (dir, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => path.split_at(slash),
            None => (&b""[..], path),
        };
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let mut subject = self.fill(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Flow => token(item.flow.as_str().as_bytes()),
            Piece::Kind => item.kind.word().to_owned(),
            Piece::Name => token(name),
            Piece::Dir => token(dir),
            Piece::Path => token(path),
        });
        // All of it is ASCII. A token that ends in the middle is one still, but a dot is no end.
        subject.truncate(SUBJECT_LEN_MAX);
        subject.truncate(subject.trim_end_matches('.').len());
        subject
    }

    fn fill(&self, token: impl Fn(&Piece) -> String) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                other => token(other),
            })
            .collect()
    }
}

impl Default for SubjectTemplate {
    fn default() -> Self {
        Self(vec![
            Piece::Text("ketch.".to_owned()),
            Piece::Flow,
            Piece::Text(".".to_owned()),
            Piece::Kind,
        ])
    }
}

/// `bytes` as one token.
fn token(bytes: &[u8]) -> String {
    let mut token = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && !b".*>%".contains(&byte) {
            token.push(char::from(byte));
        } else {
            let _never_fails = write!(token, "%{byte:02x}");
        }
    }
    if token.is_empty() {
        token.push('-');
    }
    token
}

#[cfg(test)]
mod tests {
    use ketch_client::{FileType, RemotePath};
    use proptest::prelude::*;

    use super::*;
    use crate::flow::item::{FlowName, ItemKind};
    use crate::snapshot::Facts;

    fn item(path: &[u8]) -> Item {
        Item {
            flow: FlowName::new("orders.eu").expect("a name"),
            sequence: 7,
            kind: ItemKind::Created,
            path: RemotePath::from(path),
            facts: Facts {
                kind: FileType::Regular,
                size: Some(1),
                mtime: None,
            },
            sha256: None,
            recorded: 0,
        }
    }

    #[test]
    fn a_name_is_one_token() {
        let of = |template: &str, path: &str| {
            SubjectTemplate::new(template)
                .expect("a template")
                .of(&item(path.as_bytes()))
        };
        assert_eq!(of("ketch.{flow}.{kind}", "a"), "ketch.orders%2eeu.created");
        assert_eq!(of("f.{dir}.{name}", "in/a.b c"), "f.in.a%2eb%20c");
        assert_eq!(of("f.{dir}.{name}", ">"), "f.-.%3e");
        assert_eq!(of("f-{path}", "in/x"), "f-in/x");
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for bad in [
            "", "a..b", ".a", "a.", "a.*", "a.>", "a b", "{", "{what}", "a}", "ä", "$JS.x",
            "_INBOX.x",
        ] {
            assert!(SubjectTemplate::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_its_token(path in proptest::collection::vec(any::<u8>(), 1..3000)) {
            let template = SubjectTemplate::new("k.{path}.{kind}").expect("a template");
            let subject = template.of(&item(&path));
            prop_assert!(subject.len() <= SUBJECT_LEN_MAX);
            prop_assert!(subject.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(!subject.contains(['*', '>']));
            prop_assert!(subject.split('.').count() <= 3 && subject.split('.').all(|t| !t.is_empty()));
        }
    }
}
