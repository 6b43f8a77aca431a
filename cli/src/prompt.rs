//! Questions to the user, on the terminal and without echo.
//!
//! Answers are read from the terminal itself, not from standard input, which may carry something
//! else. Secrets are never taken from arguments or the environment, where others can read them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ketch_client::identity::PassphraseQuestion;
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::output::escaped;
use crate::plan::cannot;

/// Longest password, in bytes.
const PASSWORD_LEN_MAX: usize = 1024;

/// Asks for the password of `whose`, a user or a host. `None` if there is no terminal, or no answer.
pub(crate) fn password(whose: &str, failed: u32) -> Option<Zeroizing<String>> {
    let again = if failed > 0 {
        "The server did not accept it. "
    } else {
        ""
    };
    ask(&format!("{again}Password for {whose}: "))
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

fn ask(prompt: &str) -> Option<Zeroizing<String>> {
    let answer = Zeroizing::new(rpassword::prompt_password(prompt).ok()?);
    (!answer.is_empty()).then_some(answer)
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
    let wrong = |why| cannot(io::Error::new(io::ErrorKind::InvalidData, why));
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
