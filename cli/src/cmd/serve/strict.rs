//! Files that say who may log in: read only if nobody else could have written them, and, where they
//! hold a password, if nobody else may read it.

use std::path::Path;

use ketch_server::strict::{self, Unread};
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::plan::cannot;
use crate::prompt;

/// Longest file that is read, in bytes.
const LEN_MAX: u64 = 1 << 20;

/// What stands in a file that others may read but not write.
pub(super) fn text(path: &Path) -> Result<String, Failed> {
    strict::text(path, LEN_MAX).map_err(|error| unread(path, error))
}

/// The first line of a file that nobody else may read.
pub(super) fn password(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let text = strict::secret(path, LEN_MAX).map_err(|error| unread(path, error))?;
    prompt::first_line(&text).map_err(|error| cannot("read the password in", path, error))
}

fn unread(path: &Path, error: Unread) -> Failed {
    match error {
        Unread::Io(error) => cannot("read", path, error),
        error => Failed::set_up(format!("cannot use {}", path.display()), error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_others_could_have_written_or_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "open sesame\nnot this").unwrap();
        for (mode, is_text, is_secret) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o644, true, false),
            (0o620, false, false),
            (0o602, false, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(text(&path).is_ok(), is_text, "{mode:o}");
            let secret = password(&path);
            assert_eq!(secret.is_ok(), is_secret, "{mode:o}");
            match secret {
                Ok(secret) => assert_eq!(*secret, "open sesame"),
                Err(why) => assert!(crate::exit::sentence(&why).contains("mode")),
            }
        }
    }
}
