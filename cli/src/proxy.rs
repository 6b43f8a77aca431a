//! `--proxy`: which proxy to go through, as a URL.

use ketch_client::destination::Host;
use ketch_client::route::{Endpoint, ProxyCredentials, Route};
use zeroize::Zeroizing;

/// A proxy that was named, or that there is to be none.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Proxy {
    /// `none`.
    None,
    At {
        scheme: Scheme,
        user: Option<String>,
        endpoint: Endpoint,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    Http,
    Socks4,
    Socks4a,
    Socks5,
}

impl Proxy {
    /// Reads `scheme://[user@]host:port`.
    pub(crate) fn parse(typed: &str) -> Result<Self, String> {
        if typed == "none" {
            return Ok(Self::None);
        }
        let (scheme, rest) = typed.split_once("://").ok_or(
            "a proxy is written as socks5://, socks4://, socks4a:// or http://[user@]host:port",
        )?;
        let (scheme, usual_port) = match scheme {
            "http" => (Scheme::Http, 8080),
            "socks4" => (Scheme::Socks4, 1080),
            "socks4a" => (Scheme::Socks4a, 1080),
            "socks5" | "socks5h" => (Scheme::Socks5, 1080),
            _ => return Err("a proxy is one of socks5, socks4, socks4a and http".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                return Err(
                    "a password on the command line can be read by others: put it into a \
                            file, and name that with --proxy-password-file"
                        .to_owned(),
                );
            }
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (
                    host,
                    port.ok_or("the port has to be a number from 1 to 65535")?,
                )
            }
            _ => (place, usual_port),
        };
        let host: Host = host.parse().map_err(|error| format!("{error}"))?;
        Ok(Self::At {
            scheme,
            user,
            endpoint: Endpoint::new(host, port),
        })
    }

    /// The way through it.
    pub(crate) fn route(&self, password: Option<Zeroizing<String>>) -> Route {
        let Self::At {
            scheme,
            user,
            endpoint: proxy,
        } = self.clone()
        else {
            return Route::Direct;
        };
        let credentials = match (user.clone(), password) {
            (None, None) => None,
            (user, password) => Some(ProxyCredentials::new(
                user.unwrap_or_default(),
                password.unwrap_or_default(),
            )),
        };
        match scheme {
            Scheme::Http => Route::HttpConnect { proxy, credentials },
            Scheme::Socks4 => Route::Socks4 { proxy, user },
            Scheme::Socks4a => Route::Socks4a { proxy, user },
            Scheme::Socks5 => Route::Socks5 { proxy, credentials },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_without_a_password() {
        let parsed = Proxy::parse("socks5://ann@[::1]:1081/").unwrap();
        let Route::Socks5 { proxy, credentials } = parsed.route(None) else {
            panic!()
        };
        assert_eq!(proxy.to_string(), "[::1]:1081");
        assert!(credentials.is_some());
        let Route::HttpConnect { proxy, credentials } =
            Proxy::parse("http://proxy.example").unwrap().route(None)
        else {
            panic!()
        };
        assert_eq!(proxy.to_string(), "proxy.example:8080");
        assert!(credentials.is_none());
        assert_eq!(Proxy::parse("none"), Ok(Proxy::None));
        for wrong in [
            "proxy:80",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://-a:80",
            "socks5://a:b",
        ] {
            assert!(Proxy::parse(wrong).is_err(), "{wrong}");
        }
        let with_password = Proxy::parse("http://ann:secret@proxy:80").unwrap_err();
        assert!(with_password.contains("--proxy-password-file"));
        assert!(!with_password.contains("secret"));
    }
}
