//! A line of an ssh_config file, taken apart into keyword and words as OpenSSH takes it apart.
//!
//! Two rules are at work (ssh_config(5) tells of neither in full): the keyword, and what stands
//! behind `Match`, end at a blank, a quoted part or one `=`; all other arguments are words as a
//! shell has them, with both kinds of quotes, a few escapes, and comments. No I/O.

/// What separates words; a line may end in a carriage return.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// A line that says something: its keyword, and the rest as it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Statement<'a> {
    /// In lower case: keywords are compared without regard to it.
    pub(super) keyword: String,
    /// What follows, without blanks around it. Empty if nothing does.
    pub(super) rest: &'a str,
}

impl<'a> Statement<'a> {
    /// Takes a line apart; `None` for blank lines and comments.
    pub(super) fn of(line: &'a str) -> Option<Self> {
        // Strings of OpenSSH's end at a zero byte.
        let line = line.split('\0').next().unwrap_or_default();
        let line = line.trim_end_matches([' ', '\t', '\r', '\n', '\u{c}']);
        let mut words = Delimited::new(line);
        let mut keyword = words.next()?;
        if keyword.is_empty() {
            keyword = words.next()?; // the line begins with a blank
        }
        if keyword.is_empty() || keyword.starts_with('#') {
            return None;
        }
        Some(Self {
            keyword: keyword.to_ascii_lowercase(),
            rest: words.rest.unwrap_or_default().trim_start_matches(BLANKS),
        })
    }

    /// The arguments as words.
    pub(super) fn words(&self) -> Result<Vec<String>, OpenQuote> {
        words(self.rest)
    }

    /// The rest as one value, as commands and jump hosts stand: one `=` may be in front.
    pub(super) fn tail(&self) -> &'a str {
        self.rest
            .trim_start_matches(|c| BLANKS.contains(&c) || c == '=')
    }
}

/// A quote that is not closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct OpenQuote;

/// Words that end at a blank, at one `=`, or with a part in double quotes.
#[derive(Clone, Debug)]
pub(super) struct Delimited<'a> {
    rest: Option<&'a str>,
}

impl<'a> Delimited<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { rest: Some(text) }
    }
}

impl Iterator for Delimited<'_> {
    type Item = String;

    /// The next word; `None` at the end, and where a quote is not closed.
    fn next(&mut self) -> Option<String> {
        let text = self.rest?;
        let stops = |c: char| BLANKS.contains(&c) || c == '"' || c == '=';
        let Some(at) = text.find(stops) else {
            self.rest = None;
            return Some(text.to_owned());
        };
        let (word, behind) = text.split_at(at);
        if let Some(quoted) = behind.strip_prefix('"') {
            let Some((inside, rest)) = quoted.split_once('"') else {
                self.rest = None;
                return None;
            };
            self.rest = Some(rest.trim_start_matches(BLANKS));
            return Some(format!("{word}{inside}"));
        }
        let at_equals = behind.starts_with('=');
        let mut rest = behind
            .get(1..)
            .unwrap_or_default()
            .trim_start_matches(BLANKS);
        if !at_equals && let Some(after) = rest.strip_prefix('=') {
            rest = after.trim_start_matches(BLANKS);
        }
        self.rest = Some(rest);
        Some(word.to_owned())
    }
}

/// Words as a shell has them: `"…"` and `'…'`, a backslash in front of a quote, of a backslash,
/// and of a blank outside of quotes; a word that begins with `#` ends the line.
pub(super) fn words(text: &str) -> Result<Vec<String>, OpenQuote> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        match chars.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut chars)?),
        }
    }
}

fn word(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, OpenQuote> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => {
                let escaped = chars.next_if(|next| {
                    matches!(next, '\'' | '"' | '\\') || (quote.is_none() && *next == ' ')
                });
                word.push(escaped.unwrap_or('\\'));
            }
            (' ' | '\t', None) => return Ok(word),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, _) => word.push(c),
        }
    }
    match quote {
        Some(_) => Err(OpenQuote),
        None => Ok(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_keyword_ends_at_a_blank_an_equals_sign_or_a_quote() {
        for (line, expected) in [
            ("Host a b", Some(("host", "a b"))),
            ("  \tHost\ta ", Some(("host", "a"))),
            ("Port=22", Some(("port", "22"))),
            ("Port = 22\r", Some(("port", "22"))),
            ("Port == 22", Some(("port", "= 22"))),
            ("\"Port\" 22", Some(("port", "22"))),
            ("Port", Some(("port", ""))),
            ("# Port 22", None),
            ("   # Port 22", None),
            ("", None),
            ("  \t\r", None),
            ("\"Port 22", None),
            ("Po\"rt\" 22", Some(("port", "22"))),
            ("User a\0b", Some(("user", "a"))),
        ] {
            let found = Statement::of(line);
            let found = found.as_ref().map(|s| (s.keyword.as_str(), s.rest));
            assert_eq!(found, expected, "{line:?}");
        }
    }

    #[test]
    fn words_are_quoted_and_escaped() {
        for (text, expected) in [
            ("a b", Ok(vec!["a", "b"])),
            ("\"a b\" c", Ok(vec!["a b", "c"])),
            ("'a b'c", Ok(vec!["a bc"])),
            ("a\\ b", Ok(vec!["a b"])),
            ("\"a\\ b\"", Ok(vec!["a\\ b"])),
            ("a\\\"b", Ok(vec!["a\"b"])),
            ("a\\nb\\", Ok(vec!["a\\nb\\"])),
            ("\"\"", Ok(vec![""])),
            ("a # b", Ok(vec!["a"])),
            ("a#b", Ok(vec!["a#b"])),
            ("\"a", Err(OpenQuote)),
            ("a 'b", Err(OpenQuote)),
            ("", Ok(vec![])),
        ] {
            let expected = expected.map(|words| words.into_iter().map(String::from).collect());
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_has_words_or_an_open_quote(text in "\\PC*") {
            let _ = words(&text);
            let count = Delimited::new(&text).take(10_000).count();
            prop_assert!(count <= text.len() + 1);
        }

        #[test]
        fn a_quoted_word_is_what_was_quoted(word in "[^\"\\\\\0]{0,20}") {
            prop_assert_eq!(words(&format!("\"{word}\"")), Ok(vec![word]));
        }
    }
}
