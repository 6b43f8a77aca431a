//! The words of a proxy command, split as a POSIX shell does (XCU §2.2, §2.3), nothing expanded.

use super::CommandError;

/// Longest text that is taken, in bytes.
pub(super) const COMMAND_LEN_MAX: usize = 4096;

/// A redirection that says what happens anyway.
const STDERR_TO_NOTHING: &str = "2>/dev/null";

/// One word: pieces that are put together when the values are known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Word(pub(super) Vec<Piece>);

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Piece {
    Text(String),
    /// `~` in front of a slash.
    Home,
    /// `%h`
    Host,
    /// `%n`
    Named,
    /// `%p`
    Port,
    /// `%r`
    User,
}

impl Piece {
    /// Whether it stands for a value that comes with the connection.
    pub(super) const fn is_token(&self) -> bool {
        !matches!(self, Self::Text(_) | Self::Home)
    }
}

impl Word {
    fn push(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Piece::Text(text)) => text.push(c),
            _ => self.0.push(Piece::Text(c.into())),
        }
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Splits `text` into words, and finds the tokens in them.
pub(super) fn split(text: &str) -> Result<Vec<Word>, CommandError> {
    if text.len() > COMMAND_LEN_MAX {
        return Err(CommandError::TooLong);
    }
    // Not even quoted: no program takes a line break for part of an argument here.
    if let Some(what) = text.chars().find(|c| matches!(c, '\0' | '\n' | '\r')) {
        return Err(needs_shell(what));
    }
    let mut words: Vec<Word> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if rest.is_empty() {
            return Ok(words);
        }
        if let Some(after) = rest.strip_prefix(STDERR_TO_NOTHING)
            && (after.is_empty() || after.starts_with([' ', '\t']))
        {
            rest = after;
            continue;
        }
        let is_program = words.is_empty() || words == [Word(vec![Piece::Text("exec".into())])];
        let mut chars = rest.chars().peekable();
        words.push(word(&mut chars, is_program)?);
        let left: usize = chars.map(char::len_utf8).sum();
        rest = &rest[rest.len() - left..];
    }
}

fn word(chars: &mut Chars<'_>, is_program: bool) -> Result<Word, CommandError> {
    let mut word = Word::default();
    match chars.peek() {
        Some('#') => return Err(needs_shell('#')),
        Some('!') if is_program => return Err(needs_shell('!')),
        Some('~') => {
            chars.next();
            chars.next_if_eq(&'/').ok_or_else(|| needs_shell('~'))?;
            word.0.push(Piece::Home);
            word.push('/');
        }
        _ => {}
    }
    while let Some(c) = chars.next_if(|c| !matches!(c, ' ' | '\t')) {
        match c {
            '\'' => single_quoted(chars, &mut word)?,
            '"' => double_quoted(chars, &mut word)?,
            // OpenSSH fills tokens in before its shell sees a backslash.
            '\\' => match chars.next().ok_or(CommandError::Unclosed)? {
                '%' => token(chars, &mut word)?,
                c => word.push(c),
            },
            '%' => token(chars, &mut word)?,
            ';' | '&' | '|' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '?' | '{' | '}' => {
                return Err(needs_shell(c));
            }
            // A variable for the program, where no word was before it.
            '=' if is_program => return Err(needs_shell(c)),
            c => word.push(c),
        }
    }
    Ok(word)
}

fn single_quoted(chars: &mut Chars<'_>, word: &mut Word) -> Result<(), CommandError> {
    word.0.push(Piece::Text(String::new())); // there is a word, be it empty
    loop {
        match chars.next().ok_or(CommandError::Unclosed)? {
            '\'' => return Ok(()),
            '%' => token(chars, word)?,
            c => word.push(c),
        }
    }
}

fn double_quoted(chars: &mut Chars<'_>, word: &mut Word) -> Result<(), CommandError> {
    word.0.push(Piece::Text(String::new()));
    loop {
        match chars.next().ok_or(CommandError::Unclosed)? {
            '"' => return Ok(()),
            c @ ('$' | '`') => return Err(needs_shell(c)),
            '%' => token(chars, word)?,
            // Only these lose their backslash (XCU §2.2.3).
            '\\' => match chars.next_if(|c| matches!(c, '$' | '`' | '"' | '\\')) {
                Some(c) => word.push(c),
                None => word.push('\\'),
            },
            c => word.push(c),
        }
    }
}

fn token(chars: &mut Chars<'_>, word: &mut Word) -> Result<(), CommandError> {
    word.0.push(match chars.next() {
        Some('%') => {
            word.push('%');
            return Ok(());
        }
        Some('h') => Piece::Host,
        Some('n') => Piece::Named,
        Some('p') => Piece::Port,
        Some('r') => Piece::User,
        _ => return Err(CommandError::Token),
    });
    Ok(())
}

const fn needs_shell(what: char) -> CommandError {
    CommandError::NeedsShell { what }
}
