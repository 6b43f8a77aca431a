//! `%`-tokens of `-d`.

use std::os::unix::ffi::OsStrExt;

use ketch_server::Account;

/// Puts the user's name and home directory where `template` asks for them.
pub(crate) fn expand(template: &str, account: &Account) -> Result<std::ffi::OsString, String> {
    let mut out = Vec::new();
    let mut chars = template.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('%') => out.push(b'%'),
            Some('h' | 'd') => out.extend_from_slice(account.home.as_os_str().as_bytes()),
            Some('u') => out.extend_from_slice(account.name.as_bytes()),
            _ => {
                return Err(format!(
                    "-d {template}: only %h, %d, %u and %% stand for something"
                ));
            }
        }
    }
    Ok(std::os::unix::ffi::OsStringExt::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_become_the_users_own() {
        let account = ketch_server::own_account().unwrap();
        let home = account.home.to_str().unwrap();
        let is = |template: &str| expand(template, &account).unwrap().into_string().unwrap();
        assert_eq!(is("%h/in"), format!("{home}/in"));
        assert_eq!(is("%d"), home);
        assert_eq!(
            is("/srv/%u/100%%/é"),
            format!("/srv/{}/100%/é", account.name)
        );
        assert!(expand("%x", &account).is_err());
        assert!(expand("a%", &account).is_err());
    }
}
