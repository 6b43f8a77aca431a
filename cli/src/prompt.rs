//! Questions to the user, on the terminal; secrets without echo.
//!
//! Answers are read from the terminal itself, not from standard input, which may carry something
//! else. Secrets are never taken from arguments or the environment, where others can read them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::Path;

use ketch_client::connect::{PasswordQuestion, ServerPrompt, ServerQuestions, WhichPassword};
use ketch_client::destination::Host;
use ketch_client::hostkey::ShownKey;
use ketch_client::identity::PassphraseQuestion;
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::output::escaped;
use crate::plan::cannot;

/// Longest password, in bytes.
const PASSWORD_LEN_MAX: usize = 1024;
/// How often a new password may be typed in two ways.
const NEW_PASSWORD_TRIES_MAX: u32 = 3;
/// Longest answer to a question that is no secret, in bytes.
const ANSWER_LEN_MAX: u64 = 4096;

/// Asks for a password, or for a new one. `None` if there is no terminal, or no answer.
pub(crate) fn password(question: &PasswordQuestion<'_>) -> Option<Zeroizing<String>> {
    let whose = format!("{}@{}", question.user, question.host);
    match question.which {
        WhichPassword::New { server_says } => {
            say(&format!(
                "The password of {whose} has expired. {server_says}"
            ));
            new_password(&format!("New password for {whose}: "))
        }
        _ => {
            let again = match question.failed {
                0 => "",
                _ => "The server did not accept it. ",
            };
            ask(&format!("{again}Password for {whose}: "))
        }
    }
}

/// Asks for a password that is new, twice. `None` if there is no terminal, or no answer.
pub(crate) fn new_password(prompt: &str) -> Option<Zeroizing<String>> {
    for _ in 0..NEW_PASSWORD_TRIES_MAX {
        let new = ask(prompt)?;
        if ask("The same again: ").as_ref() == Some(&new) {
            return Some(new);
        }
        say("The two differ.");
    }
    None
}

/// Has a server's questions answered; it is said whose they are (CVE-2021-36367).
pub(crate) fn answers(questions: &ServerQuestions<'_>) -> Option<Vec<Zeroizing<String>>> {
    let whose = format!("{}@{}", questions.user, questions.host);
    if !questions.prompts.is_empty() {
        let heading: Vec<_> = [questions.name, questions.instruction]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        say(&format!("The server asks {whose}: {}", heading.join(" ")));
    }
    let answer = |prompt: &ServerPrompt| match prompt.echo {
        true => line(&format!("  {}", prompt.text))
            .map(|answer| Zeroizing::new(answer.trim_end_matches(['\r', '\n']).to_owned())),
        false => secret(&format!("  {}", prompt.text)),
    };
    questions.prompts.iter().map(answer).collect()
}

/// Shows what a server says before a login; its words are escaped already.
pub(crate) fn show_banner(host: &Host, text: &str) {
    say(&format!("{host} says: {text}"));
}

/// Tells something beside the output.
fn say(text: &str) {
    // Nobody may listen there, and nothing depends on it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks for the passphrase of a private key.
pub(crate) fn passphrase(question: &PassphraseQuestion<'_>) -> Option<Zeroizing<String>> {
    let again = if question.failed > 0 {
        "That is not it. "
    } else {
        ""
    };
    let origin = question.origin.to_string();
    ask(&format!(
        "{again}Passphrase of key {}: ",
        escaped(origin.as_bytes())
    ))
}

/// Whether there is somebody to ask.
pub(crate) fn has_terminal() -> bool {
    terminal().is_ok()
}

/// Asks whether an unknown host is the one that was meant: yes, or its fingerprint.
pub(crate) fn confirm_host(shown: &ShownKey) -> bool {
    let name = escaped(shown.name.as_bytes());
    let question = format!(
        "The host {name} is not known. It shows the key\n  {shown}\n\
         Have the fingerprint confirmed by who runs the server. \
         Go on, and remember the key? (yes, no, or the fingerprint) "
    );
    loop {
        let Some(answer) = line(&question) else {
            return false;
        };
        match answer.trim() {
            "yes" => return true,
            "no" => return false,
            other if other.starts_with("SHA256:") => return other == shown.fingerprint,
            _ => {}
        }
    }
}

/// Asks for a line that may be seen. `None` if there is no terminal, or no answer.
fn line(question: &str) -> Option<String> {
    let mut terminal = terminal().ok()?;
    write!(terminal, "{question}").ok()?;
    terminal.flush().ok()?;
    let mut answer = String::new();
    let mut reader = BufReader::new(terminal).take(ANSWER_LEN_MAX);
    match reader.read_line(&mut answer) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(answer),
    }
}

/// The terminal itself, whatever standard input and output are.
#[cfg(unix)]
fn terminal() -> io::Result<File> {
    File::options().read(true).write(true).open("/dev/tty")
}

/// The terminal itself, whatever standard input and output are.
#[cfg(not(unix))]
fn terminal() -> io::Result<File> {
    File::options().read(true).write(true).open("CON")
}

fn ask(prompt: &str) -> Option<Zeroizing<String>> {
    secret(prompt).filter(|answer| !answer.is_empty())
}

/// Asks without echo; the answer may be empty.
fn secret(prompt: &str) -> Option<Zeroizing<String>> {
    rpassword::prompt_password(prompt).ok().map(Zeroizing::new)
}

/// The first line of a password file, without its line break.
pub(crate) fn password_from(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let cannot = |error| cannot("read the password in", path, error);
    // The line and its end, and a byte that shows whether it is longer. No reader with a buffer of
    // its own, which would keep a copy.
    let len_max = PASSWORD_LEN_MAX + "\r\n".len();
    let mut text = Zeroizing::new(Vec::with_capacity(len_max + 1));
    let file = File::open(path).map_err(cannot)?;
    file.take(len_max as u64)
        .read_to_end(&mut text)
        .map_err(cannot)?;
    first_line(&text).map_err(cannot)
}

/// The first line of a text, without its line break, as a password.
pub(crate) fn first_line(text: &[u8]) -> io::Result<Zeroizing<String>> {
    let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err(wrong("the first line is empty")),
        Ok(_) if line.len() > PASSWORD_LEN_MAX => Err(wrong("it is too long")),
        Ok(password) => Ok(Zeroizing::new(password.to_owned())),
        Err(_) => Err(wrong("it is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_without_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            password_from(&path)
                .map(|password| password.to_string())
                .ok()
        };
        assert_eq!(read(b" two words \nnot this"), Some(" two words ".into()));
        assert_eq!(read(b"windows\r\n"), Some("windows".into()));
        assert_eq!(read(b"no line break"), Some("no line break".into()));
        assert_eq!(read(&[b'a'; 1024]), Some("a".repeat(1024)));
        assert_eq!(read(&[b'a'; 1025]), None);
        assert_eq!(read(&[b'a'; 5000]), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(b"\nsecond"), None);
        assert_eq!(read(b"\xff\n"), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            password_from(&path).unwrap_err().kind(),
            ketch_client::Kind::NotFound
        );
    }
}
