//! Who runs the program.

/// The name of the user's account.
pub(crate) fn user_name() -> Option<String> {
    let named = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    named.or_else(from_password_file)
}

/// The number of the user's account, as text; empty where accounts have none.
pub(crate) fn user_id() -> String {
    #[cfg(unix)]
    return rustix::process::getuid().as_raw().to_string();
    #[cfg(not(unix))]
    return String::new();
}

/// The name of this machine; empty if it has none.
pub(crate) fn host_name() -> String {
    #[cfg(unix)]
    return rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    return std::env::var("COMPUTERNAME").unwrap_or_default();
}

/// The home directory of the account of that name.
#[cfg(unix)]
pub(crate) fn home_of(user: &str) -> Option<std::path::PathBuf> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(4).map(Into::into))?
    })
}

/// The home directory of the account of that name.
#[cfg(not(unix))]
pub(crate) fn home_of(_user: &str) -> Option<std::path::PathBuf> {
    None
}

/// Daemons and containers often have no environment to speak of.
#[cfg(unix)]
fn from_password_file() -> Option<String> {
    let uid = rustix::process::getuid().as_raw();
    find_uid(&std::fs::read_to_string("/etc/passwd").ok()?, uid)
}

#[cfg(not(unix))]
fn from_password_file() -> Option<String> {
    None
}

/// The first account of that number: the lines are `name:password:uid:…` (passwd(5)).
#[cfg(unix)]
fn find_uid(accounts: &str, uid: u32) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_number() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(find_uid(accounts, 0).as_deref(), Some("root"));
        assert_eq!(find_uid(accounts, 1000).as_deref(), Some("ann"));
        assert_eq!(find_uid(accounts, 1), None);
    }
}
