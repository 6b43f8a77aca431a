//! The command of a `Match exec`, where the program allows it.

use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a command may run.
const RUN_MAX: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs a program and says whether it ended well, within [`RUN_MAX`]. Blocks.
pub(super) fn succeeds(argv: &[String]) -> bool {
    let Some((program, arguments)) = argv.split_first() else {
        return false;
    };
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut child) = started else {
        tracing::warn!(program, "the command of a `Match exec` cannot be run");
        return false;
    };
    let mut waited = Duration::ZERO;
    while waited < RUN_MAX {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(_) => break,
        }
        waited += LOOK_EVERY;
    }
    tracing::warn!(program, "the command of a `Match exec` did not end in time");
    // It may have ended by now.
    let _ = child.kill();
    let _ = child.wait();
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_what_counts() {
        let argv = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert!(succeeds(&argv(&["true"])));
        assert!(!succeeds(&argv(&["false"])));
        assert!(!succeeds(&argv(&["no-such-program-here"])));
        assert!(!succeeds(&[]));
        assert!(succeeds(&argv(&["test", "a b", "=", "a b"])));
    }
}
