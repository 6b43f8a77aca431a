//! Who runs the program.

/// The name of the user's account.
pub(crate) fn user_name() -> Option<String> {
    let named = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    named.or_else(from_password_file)
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
