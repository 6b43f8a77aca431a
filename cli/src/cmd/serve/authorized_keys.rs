//! The public keys that may log in: a file of lines as `ssh-keygen` writes them (sshd(8),
//! "AUTHORIZED_KEYS FILE FORMAT").

use std::path::Path;

use ketch_server::{PublicKey, read_public_key};

use super::strict;
use crate::failed::Failed;

/// Reads all keys of the file. A line that cannot be kept to the letter is an error, never left
/// out: options narrow what a key may do, and none of them is known here.
pub(super) fn read(path: &Path) -> Result<Vec<PublicKey>, Failed> {
    let text = strict::text(path)?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let keys = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            read_public_key(line).map_err(|error| {
                let what = format!("cannot use line {number} of {}", path.display());
                Failed::set_up(what, error)
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(Failed::set_up(
            format!("nobody could log in by {}", path.display()),
            "it has no key",
        ));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    fn parse(text: &str) -> Result<usize, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("authorized_keys");
        fs::write(&path, text).unwrap();
        read(&path)
            .map(|keys| keys.len())
            .map_err(|failed| crate::exit::sentence(&failed))
    }

    #[test]
    fn each_line_is_a_key() {
        assert_eq!(parse(&format!("# mine\n{KEY} ann@home\n\n{KEY}\n")), Ok(2));
    }

    #[test]
    fn what_cannot_be_kept_to_is_refused() {
        for (text, why) in [
            (format!("command=\"true\" {KEY}\n"), "line 1 "),
            (format!("{KEY}\n\nnonsense\n"), "line 3 "),
            ("# nothing\n".into(), "it has no key"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
