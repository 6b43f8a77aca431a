//! Other people's servers that the listener's tests start on their own: each in a directory of its
//! own, on a socket or port of its own, gone when the value goes.

#![allow(dead_code, reason = "each file of tests uses some of it")]

pub(crate) mod nats;
pub(crate) mod postgres;
pub(crate) mod s3;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Longest wait for a server to answer.
pub(crate) const START_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether a server answers.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Finds `program` in the path or in `places`. A peer that is missing is a failure:
/// `scripts/setup-peers` installs it.
pub(crate) fn find(program: &str, places: &[PathBuf]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .chain(places.iter().cloned())
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is missing: run scripts/setup-peers"))
}

/// Runs `program` so that it dies with the thread that starts it, as somebody who is not root if
/// `user` is given.
pub(crate) fn tied(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new(find("setpriv", &[]));
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Asks again until `look` has something.
///
/// # Panics
/// After [`START_MAX`].
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(waited < START_MAX, "{what} did not come");
        std::thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
}
