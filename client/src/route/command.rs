//! A program that leads to the server: OpenSSH's `ProxyCommand`, without a shell.
//!
//! OpenSSH puts host and user into a text and hands the text to the user's shell, which is how a
//! host name became a command more than once (CVE-2023-51385, CVE-2025-61984). Here **no shell
//! runs**. A list of words is started as it stands. A text from an `ssh_config` is split into words
//! as a POSIX shell would do it, with `'…'`, `"…"` and `\`, and only then are the tokens filled in,
//! each within its word:
//!
//! | token | what it stands for |
//! | --- | --- |
//! | `%h` | the host that is connected to |
//! | `%n` | the host as the user named it |
//! | `%p` | the port |
//! | `%r` | the user to log in as |
//! | `%%` | a `%` |
//!
//! The values are a [`Host`], a [`User`] and a number: letters, digits and `._:%@+-`, and no `-` in
//! front, so they cannot pass for an option either. The program itself holds no token.
//!
//! What needs a shell is refused and named: `$`, backquotes, pipes, redirections, patterns,
//! several commands, variables. Two things that configurations have are understood: `exec` in
//! front, which says what happens here anyway, and `2>/dev/null`, because what the program writes
//! there is shown to nobody but in an error. `~/` in front of a word is the home directory. Who
//! needs a shell puts the line into a script, or writes `sh -c '…' sh %h %p`, where host and port
//! are arguments and no code.

mod words;

#[cfg(feature = "proxy-command")]
mod process;
#[cfg(not(feature = "proxy-command"))]
#[path = "command/no_process.rs"]
mod process;

use std::ffi::OsString;
use std::io;
use std::str::FromStr;

use super::{Endpoint, RouteStream};
use crate::destination::{Host, User};
use crate::platform::user_files;
use crate::{Failure, Kind};
pub(crate) use process::{Child, ChildStream};
use words::{Piece, Word};

/// A program that leads to the server.
///
/// ```
/// use ketch_client::route::ProxyCommand;
///
/// let listed = ProxyCommand::new("nc", ["-X", "5", "sftp.example.com", "22"]);
/// let from_ssh_config: ProxyCommand = "nc -x 'proxy:1080' %h %p".parse()?;
/// assert!("nc %h %p; id".parse::<ProxyCommand>().is_err());
/// # Ok::<(), ketch_client::route::CommandError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyCommand {
    form: Form,
    named: Option<Host>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Form {
    /// Program and arguments, as they are.
    List(OsString, Vec<OsString>),
    /// Words with tokens in them.
    Words(Word, Vec<Word>),
}

impl ProxyCommand {
    /// Starts `program` with these arguments, as they stand: nothing in them is a token.
    #[must_use]
    pub fn new<A>(program: impl Into<OsString>, arguments: A) -> Self
    where
        A: IntoIterator<Item: Into<OsString>>,
    {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self {
            form: Form::List(program.into(), arguments),
            named: None,
        }
    }

    /// What `%n` stands for, where a configuration has put another name in the place of the one
    /// that the user typed. Default: the host that is connected to.
    #[must_use]
    pub fn named(mut self, host: Host) -> Self {
        self.named = Some(host);
        self
    }

    /// Program and arguments with the tokens filled in.
    fn words(
        &self,
        target: &Endpoint,
        user: &User,
    ) -> Result<(OsString, Vec<OsString>), CommandError> {
        let (program, arguments) = match &self.form {
            Form::List(program, arguments) => return Ok((program.clone(), arguments.clone())),
            Form::Words(program, arguments) => (program, arguments),
        };
        let fill = |word: &Word| {
            let mut filled = OsString::new();
            for piece in &word.0 {
                match piece {
                    Piece::Text(text) => filled.push(text),
                    Piece::Home => filled.push(user_files::home_dir().ok_or(CommandError::Home)?),
                    Piece::Host => filled.push(target.host.as_str()),
                    Piece::Named => {
                        filled.push(self.named.as_ref().unwrap_or(&target.host).as_str());
                    }
                    Piece::Port => filled.push(target.port.to_string()),
                    Piece::User => filled.push(user.as_str()),
                }
            }
            Ok(filled)
        };
        let arguments: Result<_, _> = arguments.iter().map(fill).collect();
        Ok((fill(program)?, arguments?))
    }

    /// Starts the program.
    pub(super) fn start(
        &self,
        target: &Endpoint,
        user: &User,
    ) -> Result<RouteStream, CommandError> {
        let (program, arguments) = self.words(target, user)?;
        // Its arguments may hold a password.
        tracing::debug!(?program, "starting the proxy command");
        process::start(&program, &arguments)
    }
}

impl FromStr for ProxyCommand {
    type Err = CommandError;

    /// Takes the value of `ProxyCommand` as it stands in an `ssh_config`.
    fn from_str(text: &str) -> Result<Self, CommandError> {
        let mut words = words::split(text)?.into_iter().peekable();
        let is_exec = |word: &Word| word.0 == [Piece::Text("exec".to_owned())];
        words.next_if(is_exec);
        let program = words.next().ok_or(CommandError::Empty)?;
        if program.0.iter().any(Piece::is_token) {
            return Err(CommandError::ProgramToken);
        }
        Ok(Self {
            form: Form::Words(program, words.collect()),
            named: None,
        })
    }
}

/// Why a proxy command cannot be used, or what became of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no program in it.
    #[error("the proxy command names no program")]
    Empty,
    /// It is longer than any that is of use.
    #[error("the proxy command is longer than {} bytes", words::COMMAND_LEN_MAX)]
    TooLong,
    /// A quotation mark is not closed, or nothing follows a backslash.
    #[error("a quotation in the proxy command is not closed")]
    Unclosed,
    /// Something in it asks for a shell.
    #[error(
        "the proxy command has {what:?} in it, which only a shell understands, and none is run: \
         quote it, or put the line into a script"
    )]
    NeedsShell {
        /// What asks for it.
        what: char,
    },
    /// A token that does not exist here.
    #[error("the proxy command has an unknown token: %h, %n, %p, %r and %% are known")]
    Token,
    /// The name of the program depends on the host or the user.
    #[error("the program of a proxy command cannot be made from the host or the user")]
    ProgramToken,
    /// There is no home directory for `~/`.
    #[error("the proxy command names the home directory, and there is none")]
    Home,
    /// The program could not be started.
    #[error("the proxy command {program:?} could not be started: check whether it exists")]
    Start {
        /// The program.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// The program ended, or closed its output, before there was a connection.
    #[error("the proxy command {program:?} led nowhere: {status}{}", said_clause(.said))]
    Ended {
        /// The program.
        program: OsString,
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error, made safe to print.
        said: String,
    },
    /// This program was built without the feature `proxy-command`.
    #[error("proxy commands are not part of this program")]
    Unsupported,
}

fn said_clause(said: &str) -> String {
    match said {
        "" => String::new(),
        said => format!("; it said: {said}"),
    }
}

impl Failure for CommandError {
    fn kind(&self) -> Kind {
        match self {
            Self::Ended { .. } => Kind::Network,
            Self::Unsupported => Kind::Unsupported,
            _ => Kind::Local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target() -> Endpoint {
        Endpoint::new("sftp.example.com".parse().unwrap(), 2222)
    }

    fn fill(text: &str) -> Result<Vec<String>, CommandError> {
        let command: ProxyCommand = text.parse()?;
        let (program, arguments) = command.words(&target(), &"ann".parse().unwrap())?;
        let words = std::iter::once(program).chain(arguments);
        Ok(words.map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn words_are_split_as_a_shell_would_and_tokens_filled_in_within_them() {
        for (text, expected) in [
            ("nc %h %p", &["nc", "sftp.example.com", "2222"][..]),
            ("exec  nc\t%h %p ", &["nc", "sftp.example.com", "2222"]),
            ("nc '%h' \"%p\"", &["nc", "sftp.example.com", "2222"]),
            (
                "ssh -W [%h]:%p %r@jump",
                &["ssh", "-W", "[sftp.example.com]:2222", "ann@jump"],
            ),
            ("a 'b c'd\"e f\" \\ g", &["a", "b cde f", " g"]),
            (r#"a "\$x \"y\" \\ \z""#, &["a", r#"$x "y" \ \z"#]),
            (
                r"a '$(id) `id` ; | & \' \; \$",
                &["a", r"$(id) `id` ; | & \", ";", "$"],
            ),
            ("a '' \"\"", &["a", "", ""]),
            ("a 100%% %%h", &["a", "100%", "%h"]),
            (
                "a x=%h --to=%n",
                &["a", "x=sftp.example.com", "--to=sftp.example.com"],
            ),
            ("nc %h %p 2>/dev/null", &["nc", "sftp.example.com", "2222"]),
            ("a b#c", &["a", "b#c"]),
        ] {
            assert_eq!(fill(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_a_shell_alone_understands_is_refused_and_named() {
        for (text, expected) in [
            ("nc %h %p; id", ';'),
            ("nc %h %p | tee x", '|'),
            ("nc %h %p & id", '&'),
            ("nc $(id)", '$'),
            ("nc \"$(id)\"", '$'),
            ("nc \"`id`\"", '`'),
            ("nc `id`", '`'),
            ("nc $HOME", '$'),
            ("nc %h %p > x", '>'),
            ("nc %h %p 2>&1", '>'),
            ("nc 2>/dev/nullx", '>'),
            ("nc < x", '<'),
            ("(nc)", '('),
            ("nc *", '*'),
            ("nc a?", '?'),
            ("nc {a,b}", '{'),
            ("nc # comment", '#'),
            ("nc %h\nid", '\n'),
            ("nc %h\rid", '\r'),
            ("nc '%h\nid'", '\n'),
            ("nc a\\\nb", '\n'),
            ("A=b nc", '='),
            ("exec A=b nc", '='),
            ("! nc", '!'),
            ("~ann/nc", '~'),
            ("nc ~", '~'),
            ("nc \0", '\0'),
        ] {
            match text.parse::<ProxyCommand>() {
                Err(CommandError::NeedsShell { what }) => assert_eq!(what, expected, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_mistakes_are_named_too() {
        use CommandError as E;
        let parse = |text: &str| text.parse::<ProxyCommand>().unwrap_err();
        assert!(matches!(parse(""), E::Empty));
        assert!(matches!(parse(" \t"), E::Empty));
        assert!(matches!(parse("exec"), E::Empty));
        assert!(matches!(parse("a 'b"), E::Unclosed));
        assert!(matches!(parse("a \"b"), E::Unclosed));
        assert!(matches!(parse("a \\"), E::Unclosed));
        assert!(matches!(parse("a %x"), E::Token));
        assert!(matches!(parse("a %"), E::Token));
        assert!(matches!(parse("%h"), E::ProgramToken));
        assert!(matches!(parse("/opt/%r/nc"), E::ProgramToken));
        assert!(matches!(parse(&"a ".repeat(4000)), E::TooLong));
    }

    #[test]
    fn a_home_directory_stands_for_its_tilde() {
        let words = fill("~/bin/nc ~/x a~/b").unwrap();
        let home = user_files::home_dir().unwrap();
        let home = home.to_str().unwrap();
        let expected = [
            format!("{home}/bin/nc"),
            format!("{home}/x"),
            "a~/b".to_owned(),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_list_is_taken_as_it_stands() {
        let command = ProxyCommand::new("nc", ["%h", "$(id); rm -rf ~ &"]);
        let (program, arguments) = command.words(&target(), &"ann".parse().unwrap()).unwrap();
        assert_eq!(program, "nc");
        assert_eq!(arguments, ["%h", "$(id); rm -rf ~ &"]);
    }

    #[test]
    fn the_name_that_was_typed_is_a_token_of_its_own() {
        let command: ProxyCommand = "nc %n %h".parse().unwrap();
        let command = command.named("partner".parse().unwrap());
        let (_, arguments) = command.words(&target(), &"ann".parse().unwrap()).unwrap();
        assert_eq!(arguments, ["partner", "sftp.example.com"]);
    }

    /// The values that injections were made with: none becomes a host or a user.
    #[test]
    fn names_with_a_shells_characters_never_become_values() {
        for payload in [
            "a;id",
            "a|id",
            "a&id",
            "$(id)",
            "`id`",
            "a$(id)",
            "${IFS}",
            "a b",
            "a\tb",
            "a\nid",
            "a\rid",
            "'",
            "\"",
            "a'b",
            "a\"b",
            "-oProxyCommand=id",
            "-h",
            "--help",
            "a\\b",
            "a>b",
            "a<b",
            "a*",
            "a?",
            "a#b",
            "!a",
            "(a)",
            "{a}",
            "a~b",
            "a\0b",
            "",
            "ä",
            "a=b",
            "a,b",
            "a/b",
            "../a",
        ] {
            assert!(payload.parse::<Host>().is_err(), "{payload:?}");
            assert!(payload.parse::<User>().is_err(), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn a_value_stays_in_its_word_and_is_never_an_option(
            host in "[A-Za-z0-9._-]{1,40}", user in "[A-Za-z0-9._:%@+-]{1,40}", port in 1_u16..,
        ) {
            let (Ok(host), Ok(user)) = (host.parse::<Host>(), user.parse::<User>()) else {
                return Ok(());
            };
            let command: ProxyCommand = "p %h %p %r %r@%h".parse().unwrap();
            let target = Endpoint::new(host.clone(), port);
            let (program, arguments) = command.words(&target, &user).unwrap();
            prop_assert_eq!(program, "p");
            prop_assert_eq!(
                &arguments[..],
                [
                    host.to_string(), port.to_string(), user.to_string(), format!("{user}@{host}"),
                ].map(OsString::from)
            );
            let options = arguments.iter().filter(|a| a.as_encoded_bytes().starts_with(b"-"));
            prop_assert_eq!(options.count(), 0);
        }

        #[test]
        fn any_text_is_split_or_refused(text in "\\PC{0,60}|[ '\"\\\\%hpa;$~]{0,30}") {
            let _ = text.parse::<ProxyCommand>();
        }

        #[test]
        fn what_is_quoted_comes_out_as_it_was(words in prop::collection::vec("[ -&(-~]{0,10}", 1..5)) {
            // Single quotes keep everything; `%` is written twice.
            let quoted: Vec<_> =
                words.iter().map(|word| format!("'{}'", word.replace('%', "%%"))).collect();
            let filled = fill(&format!("p {}", quoted.join(" "))).unwrap();
            prop_assert_eq!(&filled[1..], &words[..]);
        }
    }
}
