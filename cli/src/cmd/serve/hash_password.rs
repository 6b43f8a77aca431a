//! `ketch serve hash-password`: the line that a server's file holds instead of a password.
//!
//! The password is asked for on the terminal, or read from standard input; never taken from the
//! command line, which others can see.

use std::io::{IsTerminal as _, Read as _};

use ketch_server::{PASSWORD_LEN_MAX, PasswordHash};
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::output::Lines;
use crate::prompt;

pub(super) fn run() -> Result<(), Failed> {
    let password = match std::io::stdin().is_terminal() {
        true => prompt::new_password("Password: ")
            .ok_or_else(|| Failed::set_up("there is no password", "nothing was typed"))?,
        false => piped()?,
    };
    if !(1..=PASSWORD_LEN_MAX).contains(&password.len()) {
        let what = format!("a password has 1 to {PASSWORD_LEN_MAX} bytes");
        return Err(Failed::set_up("cannot make a hash", what));
    }
    let hash =
        PasswordHash::of(&password).map_err(|error| Failed::set_up("cannot make a hash", error))?;
    let mut out = Lines::new();
    out.line(&hash.to_string())?;
    out.flush()
}

/// The first line of standard input.
fn piped() -> Result<Zeroizing<String>, Failed> {
    let cannot = |error| Failed::local("cannot read the password", error);
    // What is not kept in one piece leaves copies behind when it grows.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSWORD_LEN_MAX + 3));
    let most = PASSWORD_LEN_MAX as u64 + 2;
    std::io::stdin()
        .lock()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    let line = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line);
    let text = text.map_err(|error| Failed::set_up("the password is not UTF-8", error))?;
    Ok(Zeroizing::new(text.to_owned()))
}
