//! `%h`, `${NAME}` and `~` in values (ssh_config(5), "TOKENS" and "ENVIRONMENT VARIABLES").
//!
//! What was expanded is not looked at again, so that nothing in a name can be a token.

use std::path::PathBuf;

use super::error::ExpandError;
use super::local::Local;

/// Longest value once it is expanded, in bytes.
const EXPANDED_LEN_MAX: usize = 64 * 1024;

/// What tokens stand for, by their letters.
pub(super) struct Tokens<'a> {
    /// Letter and meaning; `%%` is always known.
    pub(super) known: Vec<(char, &'a str)>,
}

impl Tokens<'_> {
    /// Expands tokens alone.
    pub(super) fn percent(&self, text: &str) -> Result<String, ExpandError> {
        self.expand(text, None)
    }

    /// Expands tokens, and environment variables as `local` has them.
    pub(super) fn percent_and_dollar(
        &self,
        text: &str,
        local: &Local,
    ) -> Result<String, ExpandError> {
        self.expand(text, Some(local))
    }

    fn expand(&self, text: &str, environment: Option<&Local>) -> Result<String, ExpandError> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['%', '$']) {
            let (before, found) = rest.split_at(at);
            expanded.push_str(before);
            if let (Some(local), Some(behind)) = (environment, found.strip_prefix("${")) {
                let (name, after) = behind.split_once('}').ok_or(ExpandError::Brace)?;
                if name.is_empty() {
                    return Err(ExpandError::Brace);
                }
                let value = local.variable(name);
                expanded.push_str(&value.ok_or_else(|| ExpandError::Unset(name.to_owned()))?);
                rest = after;
            } else if let Some(behind) = found.strip_prefix('%') {
                let letter = behind.chars().next().ok_or(ExpandError::Percent)?;
                let meaning = match letter {
                    '%' => "%",
                    _ => self.meaning(letter).ok_or(ExpandError::Token(letter))?,
                };
                expanded.push_str(meaning);
                rest = behind.get(letter.len_utf8()..).unwrap_or_default();
            } else {
                expanded.push('$');
                rest = found.get(1..).unwrap_or_default();
            }
            if expanded.len() > EXPANDED_LEN_MAX {
                return Err(ExpandError::TooLong);
            }
        }
        expanded.push_str(rest);
        match expanded.len() {
            0..=EXPANDED_LEN_MAX => Ok(expanded),
            _ => Err(ExpandError::TooLong),
        }
    }

    fn meaning(&self, letter: char) -> Option<&str> {
        let found = self.known.iter().find(|(known, _)| *known == letter);
        found.map(|(_, meaning)| *meaning)
    }
}

/// Replaces `~` and `~name` at the front by home directories.
pub(super) fn tilde(text: &str, local: &Local) -> Result<String, ExpandError> {
    let Some(behind) = text.strip_prefix('~') else {
        return Ok(text.to_owned());
    };
    let (name, path) = match behind.split_once('/') {
        Some((name, path)) => (name, Some(path)),
        None => (behind, None),
    };
    let home = match name {
        "" => local.home.clone(),
        name => local.home_of(name),
    };
    let home = home.ok_or_else(|| ExpandError::Home(format!("~{name}")))?;
    let expanded = match path {
        Some(path) => home.join(path.trim_start_matches('/')),
        None => home,
    };
    path_text(expanded).ok_or_else(|| ExpandError::Home(format!("~{name}")))
}

fn path_text(path: PathBuf) -> Option<String> {
    path.into_os_string().into_string().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> Tokens<'static> {
        Tokens {
            known: vec![('h', "host%u"), ('u', "ann")],
        }
    }

    fn local() -> Local {
        let mut local = Local::for_tests("/home/ann");
        local.set_variable("DIR", "/v/%h");
        local
    }

    #[test]
    fn tokens_and_variables_are_expanded_once() {
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("%h", Ok("host%u")),
            ("a%%h%u", Ok("a%hann")),
            ("${DIR}/%u", Ok("/v/%h/ann")),
            ("$DIR", Ok("$DIR")),
            ("%x", Err(ExpandError::Token('x'))),
            ("%", Err(ExpandError::Percent)),
            ("${NOT_SET}", Err(ExpandError::Unset("NOT_SET".into()))),
            ("${", Err(ExpandError::Brace)),
            ("${}", Err(ExpandError::Brace)),
        ] {
            let expanded = tokens().percent_and_dollar(text, &local());
            assert_eq!(expanded, expected.map(str::to_owned), "{text:?}");
        }
        assert_eq!(tokens().percent("${DIR}"), Ok("${DIR}".into()));
    }

    #[test]
    fn a_tilde_is_a_home() {
        for (text, expected) in [
            ("~/.ssh/key", "/home/ann/.ssh/key"),
            ("~", "/home/ann"),
            ("a~", "a~"),
            ("/~/a", "/~/a"),
            ("~//a", "/home/ann/a"),
        ] {
            assert_eq!(tilde(text, &local()).as_deref(), Ok(expected), "{text}");
        }
        assert!(tilde("~no-such-user-here/a", &local()).is_err());
    }

    proptest! {
        #[test]
        fn every_text_is_expanded_or_refused(text in "([%$~{}hu]|\\PC){0,40}") {
            let _ = tokens().percent_and_dollar(&text, &local());
            let _ = tilde(&text, &local());
        }
    }
}
