//! What a user may be asked while logging in: passwords, and whatever a server wants to know.
//!
//! Whoever builds a connection says how to ask. The questions come with the names of server and
//! user, so that they can be shown as what they are: a server's words are marked as such in their
//! types, and are escaped, so that they move no cursor.

use std::fmt;
use std::sync::Arc;

use ketch_transport::auth::Questions as Asked;
use zeroize::Zeroizing;

use crate::destination::{Host, User};

/// Asks for a password.
#[derive(Debug)]
#[non_exhaustive]
pub struct PasswordQuestion<'a> {
    /// Who logs in.
    pub user: &'a User,
    /// Where.
    pub host: &'a Host,
    /// How often it was asked before on this connection, each time answered wrongly.
    pub failed: u32,
    /// Which password.
    pub which: WhichPassword<'a>,
}

/// Which password is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WhichPassword<'a> {
    /// The user's.
    Current,
    /// A new one: the user's has expired.
    New {
        /// The server's words about it, escaped.
        server_says: &'a str,
    },
}

/// Has a user answer what a server asks (RFC 4256).
#[derive(Debug)]
#[non_exhaustive]
pub struct ServerQuestions<'a> {
    /// Who logs in.
    pub user: &'a User,
    /// Where.
    pub host: &'a Host,
    /// The server's heading, escaped; often empty.
    pub name: &'a str,
    /// What the server has go before the questions, escaped; often empty.
    pub instruction: &'a str,
    /// The questions, at most 8; there may be none.
    pub prompts: &'a [ServerPrompt],
}

/// One question of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerPrompt {
    /// The server's words, escaped.
    pub text: String,
    /// Whether the answer may be shown while it is typed.
    pub echo: bool,
}

/// Asks for a password; `None` gives up.
pub(super) type AskPassword =
    dyn Fn(&PasswordQuestion<'_>) -> Option<Zeroizing<String>> + Send + Sync;
/// Has questions answered, one answer for each; `None` gives up.
pub(super) type AskQuestions =
    dyn Fn(&ServerQuestions<'_>) -> Option<Vec<Zeroizing<String>>> + Send + Sync;

/// Is told what a server says before a login, escaped.
pub(super) type OnBanner = dyn Fn(&Host, &str) + Send + Sync;

/// Whom to ask, and whom to tell.
#[derive(Clone, Default)]
pub(super) struct Asker {
    pub(super) banner: Option<Arc<OnBanner>>,
    pub(super) password: Option<Arc<AskPassword>>,
    pub(super) questions: Option<Arc<AskQuestions>>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker")
            .field("password", &self.password.is_some())
            .field("questions", &self.questions.is_some())
            .finish()
    }
}

/// Who is asked, and about which server: what every question comes with.
#[derive(Clone, Debug)]
pub(super) struct Whose {
    pub(super) user: User,
    pub(super) host: Host,
}

impl Asker {
    /// Asks for a password. Blocks.
    pub(super) fn ask_password(
        &self,
        whose: &Whose,
        failed: u32,
        which: WhichPassword<'_>,
    ) -> Option<Zeroizing<String>> {
        let ask = self.password.as_ref()?;
        ask(&PasswordQuestion {
            user: &whose.user,
            host: &whose.host,
            failed,
            which,
        })
    }

    /// Has a server's questions answered. Blocks.
    ///
    /// Where nobody is there for questions, the one for a password, which is how many servers ask
    /// for it, is answered with `password`, or with one that is asked for.
    pub(super) fn answer(
        &self,
        whose: &Whose,
        failed: u32,
        asked: &Asked,
        password: Option<&Zeroizing<String>>,
    ) -> Option<Vec<Zeroizing<String>>> {
        if let Some(answer) = &self.questions {
            let prompt = |prompt: &ketch_transport::auth::Prompt| ServerPrompt {
                text: escaped(&prompt.text),
                echo: prompt.echo,
            };
            let prompts: Vec<_> = asked.prompts.iter().map(prompt).collect();
            let answers = answer(&ServerQuestions {
                user: &whose.user,
                host: &whose.host,
                name: &escaped(&asked.name),
                instruction: &escaped(&asked.instruction),
                prompts: &prompts,
            })?;
            return (answers.len() == prompts.len()).then_some(answers);
        }
        match &asked.prompts[..] {
            [] => Some(Vec::new()),
            [one] if !one.echo => {
                let password = password.cloned();
                let ask = || self.ask_password(whose, failed, WhichPassword::Current);
                Some(vec![password.or_else(ask)?])
            }
            _ => None,
        }
    }
}

/// A server's words, with nothing in them that a terminal would obey. Line ends stay.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for c in text.replace("\r\n", "\n").chars() {
        // Beyond ASCII there are characters that turn the order of a line around.
        if c == '\n' || c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric() {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_move_no_cursor() {
        assert_eq!(
            escaped("Code\r\nf\u{fc}r ann:\x1b[2J\u{202e}\t\r"),
            "Code\nf\u{fc}r ann:\\u{1b}[2J\\u{202e}\\t\\r"
        );
    }
}
