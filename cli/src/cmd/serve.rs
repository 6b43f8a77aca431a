//! `ketch serve`: one user and one directory, or what a file says, over SFTP.

#[cfg(unix)]
mod authorized_keys;
#[cfg(unix)]
mod ending;
#[cfg(unix)]
mod file;
#[cfg(unix)]
mod hash_password;
#[cfg(unix)]
mod records;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod strict;

#[cfg(unix)]
pub(crate) use run::{cannot_start, run};

#[cfg(not(unix))]
use crate::{args::ServeArgs, failed::Failed};

/// The embedded server confines its users by means that only Unix has.
#[cfg(not(unix))]
pub(crate) async fn run(_: ServeArgs) -> Result<(), Failed> {
    Err(Failed::UnixOnly("serve"))
}
