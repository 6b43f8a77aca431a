//! A proxy as people write it: `socks5://ann@proxy.example:1080`.

use zeroize::Zeroizing;

use super::{Endpoint, ProxyCredentials, Route};
use crate::destination::Host;

/// A proxy, `scheme://[user@]host[:port]`: `socks5` (or `socks5h`), `socks4`, `socks4a`, `http`.
///
/// ```
/// use ketch_client::route::{ProxyUrl, Route};
///
/// let proxy: ProxyUrl = "http://proxy.example".parse()?;
/// assert!(matches!(proxy.route(None), Route::HttpConnect { proxy, .. } if proxy.port == 8080));
/// # Ok::<(), ketch_client::route::ProxyUrlError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyUrl {
    scheme: Scheme,
    user: Option<String>,
    endpoint: Endpoint,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scheme {
    Http,
    Socks4,
    Socks4a,
    Socks5,
}

/// What is wrong with the URL of a proxy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// It is no URL.
    #[error("a proxy is written as socks5://, socks4://, socks4a:// or http://[user@]host:port")]
    NoUrl,
    /// It is one of something else.
    #[error("a proxy is one of socks5, socks4, socks4a and http")]
    Scheme,
    /// It holds a password, which is given apart.
    #[error("a password does not belong into a URL")]
    Password,
    /// The port is none.
    #[error("the port has to be a number from 1 to 65535")]
    Port,
    /// The host is none.
    #[error("{0}")]
    Host(String),
}

impl std::str::FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(ProxyUrlError::NoUrl)?;
        let (scheme, usual_port) = match scheme {
            "http" => (Scheme::Http, 8080),
            "socks4" => (Scheme::Socks4, 1080),
            "socks4a" => (Scheme::Socks4a, 1080),
            "socks5" | "socks5h" => (Scheme::Socks5, 1080),
            _ => return Err(ProxyUrlError::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(ProxyUrlError::Password),
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or(ProxyUrlError::Port)?)
            }
            _ => (place, usual_port),
        };
        let host: Host = host
            .parse()
            .map_err(|error| ProxyUrlError::Host(format!("{error}")))?;
        Ok(Self {
            scheme,
            user,
            endpoint: Endpoint::new(host, port),
        })
    }
}

impl ProxyUrl {
    /// The way through it, with a password where the proxy wants one.
    #[must_use]
    pub fn route(&self, password: Option<Zeroizing<String>>) -> Route {
        let Self {
            scheme,
            user,
            endpoint: proxy,
        } = self.clone();
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
        let parsed = |text: &str| text.parse::<ProxyUrl>();
        let socks = parsed("socks5://ann@[::1]:1081/").unwrap();
        let Route::Socks5 { proxy, credentials } = socks.route(None) else {
            panic!()
        };
        assert_eq!(proxy.to_string(), "[::1]:1081");
        assert!(credentials.is_some());
        let Route::HttpConnect { proxy, credentials } =
            parsed("http://proxy.example").unwrap().route(None)
        else {
            panic!()
        };
        assert_eq!(proxy.to_string(), "proxy.example:8080");
        assert!(credentials.is_none());
        for wrong in [
            "proxy:80",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://-a:80",
            "socks5://a:b",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        let with_password = parsed("http://ann:secret@proxy:80").unwrap_err();
        assert_eq!(with_password, ProxyUrlError::Password);
    }
}
