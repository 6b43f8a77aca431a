//! Names of users and groups as the machine knows them (getpwnam(3)): from its files, or from a
//! directory service behind them.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User};

/// A user of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Account {
    /// Name to log in with.
    pub name: String,
    /// Home directory.
    pub home: PathBuf,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            name: user.name,
            home: user.dir,
        }
    }
}

/// The user that this process runs as.
pub(super) fn own() -> io::Result<Account> {
    let user = User::from_uid(Uid::current())?.ok_or(io::ErrorKind::NotFound)?;
    Ok(user.into())
}

/// The home directory of `user`; empty is the one that this process runs as.
pub(super) fn home(user: &[u8]) -> io::Result<Vec<u8>> {
    let account = if user.is_empty() {
        own()?
    } else {
        let name = std::str::from_utf8(user).map_err(|_| io::ErrorKind::NotFound)?;
        User::from_name(name)?
            .ok_or(io::ErrorKind::NotFound)?
            .into()
    };
    Ok(OsString::from(account.home).into_vec())
}

/// What a user is called, if anything.
pub(super) fn user_name(uid: u32) -> Option<String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
    Some(user.name)
}

/// What a group is called, if anything.
pub(super) fn group_name(gid: u32) -> Option<String> {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten()?;
    Some(group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_its_name_and_its_home() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(home(b"root").unwrap(), b"/root");
        assert_eq!(user_name(u32::MAX - 7), None);
        let nobody = home(b"no-such-user-here").unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
        assert!(home(b"\xff").is_err());
    }
}
