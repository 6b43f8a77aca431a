//! `--proxy`: which proxy to go through, as a URL.

use ketch_client::route::{ProxyUrl, ProxyUrlError, Route};
use zeroize::Zeroizing;

/// A proxy that was named, or that there is to be none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Proxy {
    /// `none`.
    None,
    At(ProxyUrl),
}

impl Proxy {
    /// Reads `scheme://[user@]host:port`.
    pub(crate) fn parse(typed: &str) -> Result<Self, String> {
        if typed == "none" {
            return Ok(Self::None);
        }
        typed.parse().map(Self::At).map_err(|error| match error {
            ProxyUrlError::Password => "a password on the command line can be read by others: put \
                it into a file, and name that with --proxy-password-file"
                .to_owned(),
            error => error.to_string(),
        })
    }

    /// The way through it.
    pub(crate) fn route(&self, password: Option<Zeroizing<String>>) -> Route {
        match self {
            Self::None => Route::Direct,
            Self::At(proxy) => proxy.route(password),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_no_password_on_the_command_line() {
        assert_eq!(Proxy::parse("none"), Ok(Proxy::None));
        assert!(Proxy::parse("socks5://ann@[::1]:1081").is_ok());
        let with_password = Proxy::parse("http://ann:secret@proxy:80").unwrap_err();
        assert!(with_password.contains("--proxy-password-file"));
        assert!(!with_password.contains("secret"));
    }
}
