//! How PostgreSQL is reached: what libpq's words mean here, and TLS by rustls.
//!
//! Both the ledger and the sink of events go through here. `sslmode` and `sslrootcert` are taken out
//! of the text, as the driver does not know all that libpq has of them; the rest is the driver's.
//!
//! | where | without `sslmode` | `disable` | `allow`, `prefer` | `require`, `verify-ca`, `verify-full` |
//! | --- | --- | --- | --- | --- |
//! | a Unix socket | plain | plain | plain | plain |
//! | this machine, by TCP | plain | plain | plain | TLS |
//! | another machine | TLS | plain where that is allowed | refused | TLS |
//!
//! TLS means that the server's certificate leads to a root that is trusted and names the host: whoever
//! does not check that talks to anybody. So `require` is stricter than libpq's. Roots are the system's,
//! or those of the file `sslrootcert`.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Config, NoTls};
use tokio_rustls::TlsConnector;

/// What PostgreSQL's protocol is called in TLS.
const PROTOCOL: &[u8] = b"postgresql";

/// Why a database cannot be reached as its settings have it. Nothing was connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// How to connect is not understood.
    #[error("this is no way to connect to PostgreSQL")]
    Text(#[source] tokio_postgres::Error),
    /// No such mode of encryption.
    #[error("sslmode {0:?} is none of disable, allow, prefer, require, verify-ca, verify-full")]
    Mode(String),
    /// The server is on another machine, and nothing would be encrypted, or not surely.
    #[error(
        "PostgreSQL on another machine is spoken to without encryption only if that is allowed; \
         sslmode=require encrypts, and checks the server's certificate"
    )]
    Plain,
    /// The roots that are to be trusted cannot be read.
    #[error("cannot read certificates from {}", .path.display())]
    Roots {
        /// Their file.
        path: PathBuf,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Nothing is there that a server's certificate could lead to.
    #[error("the system has no root certificates; name a file of them with sslrootcert")]
    NoRoots,
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// A way to a database.
pub(crate) struct Way {
    /// For more settings.
    pub(crate) config: Config,
    tls: Option<Rustls>,
}

impl Way {
    /// Reads `text`, as libpq has it, and the files that it names. `plain` says whether another
    /// machine may be spoken to without encryption; otherwise `sslmode=disable` is refused for one.
    pub(crate) fn parse(text: &str, plain: bool) -> Result<Self, DatabaseError> {
        let Taken { rest, mode, roots } = take(text);
        let mut config: Config = rest.parse().map_err(DatabaseError::Text)?;
        let is_tcp = |host: &Host| matches!(host, Host::Tcp(_));
        let by_tcp = config.get_hosts().iter().any(is_tcp) || !config.get_hostaddrs().is_empty();
        let here = config.get_hosts().iter().all(is_here)
            && config
                .get_hostaddrs()
                .iter()
                .all(std::net::IpAddr::is_loopback);
        let encrypt = match mode.as_deref() {
            None => !here && !plain,
            Some("disable") if here || plain => false,
            Some("allow" | "prefer") if here => false,
            Some("disable" | "allow" | "prefer") => return Err(DatabaseError::Plain),
            Some("require" | "verify-ca" | "verify-full") => by_tcp,
            Some(other) => return Err(DatabaseError::Mode(other.to_owned())),
        };
        let tls = encrypt.then(|| Rustls::new(roots)).transpose()?;
        config.ssl_mode(if encrypt {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        Ok(Self { config, tls })
    }

    /// What makes connections for a pool. One that has ended is seen without a question to the server.
    pub(crate) fn manager(self) -> Manager {
        let settings = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        match self.tls {
            Some(tls) => Manager::from_config(self.config, tls, settings),
            None => Manager::from_config(self.config, NoTls, settings),
        }
    }
}

/// Whether what is sent to `host` stays on this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// The text without what is ours, and that.
#[derive(Debug, Default, Eq, PartialEq)]
struct Taken {
    rest: String,
    mode: Option<String>,
    roots: Option<PathBuf>,
}

impl Taken {
    /// Whether the setting `key` is ours; it is kept then.
    fn keep(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.mode = Some(value),
            // The system's are what is used without it.
            "sslrootcert" if value == "system" => self.roots = None,
            "sslrootcert" => self.roots = Some(PathBuf::from(value)),
            _ => return false,
        }
        true
    }
}

fn take(text: &str) -> Taken {
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if is_url { of_url(text) } else { of_pairs(text) }
}

fn of_url(text: &str) -> Taken {
    let mut taken = Taken::default();
    let Some((before, query)) = text.split_once('?') else {
        taken.rest = text.to_owned();
        return taken;
    };
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !taken.keep(key, percent_decoded(value)) {
            rest.push(pair);
        }
    }
    taken.rest = before.to_owned();
    if !rest.is_empty() {
        taken.rest.push('?');
        taken.rest.push_str(&rest.join("&"));
    }
    taken
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let [first, rest @ ..] = left {
        let escaped = match (first, rest) {
            (b'%', [high, low, ..]) => std::str::from_utf8(&[*high, *low])
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 16).ok()),
            _ => None,
        };
        let step = if escaped.is_some() { 3 } else { 1 };
        bytes.push(escaped.unwrap_or(*first));
        left = left.get(step..).unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `key = value` and `key='a value'`, with backslashes before what is meant as it stands. What is no
/// such list is left to the driver, which says why.
fn of_pairs(text: &str) -> Taken {
    let mut taken = Taken::default();
    let mut left = text.trim_start();
    while !left.is_empty() {
        let Some((key, after)) = left.split_once('=') else {
            taken.rest.push_str(left);
            break;
        };
        let (value, behind) = value(after.trim_start());
        let pair = left.get(..left.len().saturating_sub(behind.len()));
        if !taken.keep(key.trim(), value) {
            taken.rest.push_str(pair.unwrap_or_default().trim_end());
            taken.rest.push(' ');
        }
        left = behind.trim_start();
    }
    taken
}

/// The value at the front, and what is behind it.
fn value(text: &str) -> (String, &str) {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' if quoted => return (value, text.get(at.saturating_add(1)..).unwrap_or_default()),
            letter if letter.is_whitespace() && !quoted => {
                return (value, text.get(at..).unwrap_or_default());
            }
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    (value, "")
}

/// TLS for the driver.
#[derive(Clone)]
struct Rustls(Arc<ClientConfig>);

impl Rustls {
    fn new(roots: Option<PathBuf>) -> Result<Self, DatabaseError> {
        let mut store = RootCertStore::empty();
        if let Some(path) = roots {
            let failed = |source: Box<dyn StdError + Send + Sync>| DatabaseError::Roots {
                path: path.clone(),
                source,
            };
            let found =
                CertificateDer::pem_file_iter(&path).map_err(|error| failed(error.into()))?;
            for certificate in found {
                let certificate = certificate.map_err(|error| failed(error.into()))?;
                store
                    .add(certificate)
                    .map_err(|error| failed(error.into()))?;
            }
            if store.is_empty() {
                return Err(failed("there is none in it".into()));
            }
        } else {
            // Some of the system's may be of no use; that is no reason to refuse the others.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(DatabaseError::NoRoots);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(DatabaseError::Tls)?
            .with_root_certificates(store)
            .with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

impl<S> MakeTlsConnect<S> for Rustls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = To;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<To, InvalidDnsNameError> {
        Ok(To {
            connector: TlsConnector::from(Arc::clone(&self.0)),
            name: ServerName::try_from(domain)?.to_owned(),
        })
    }
}

/// A connection to come, to one host.
struct To {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl<S> TlsConnect<S> for To
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted<S>, std::io::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let stream = self.connector.connect(self.name, stream).await?;
            Ok(Encrypted(Box::new(stream)))
        })
    }
}

/// The connection. Channel binding is left out: the certificate was checked.
struct Encrypted<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_taken_out_of_the_text() {
        let taken = |text: &str| {
            let Taken { rest, mode, roots } = take(text);
            let roots = roots.map(|path| path.display().to_string());
            (rest.trim_end().to_owned(), mode, roots)
        };
        let some = |text: &str| Some(text.to_owned());
        for (text, wanted) in [
            ("host=a user=b", ("host=a user=b".to_owned(), None, None)),
            (
                " host = a sslmode=verify-full user='x y' sslrootcert='/a b\\'c'",
                (
                    "host = a user='x y'".to_owned(),
                    some("verify-full"),
                    some("/a b'c"),
                ),
            ),
            (
                "password='sslmode=disable' host=a sslrootcert=system",
                ("password='sslmode=disable' host=a".to_owned(), None, None),
            ),
            (
                "postgresql://a:b@c/d?sslmode=require&application_name=x&sslrootcert=%2Fa%20b",
                (
                    "postgresql://a:b@c/d?application_name=x".to_owned(),
                    some("require"),
                    some("/a b"),
                ),
            ),
            (
                "postgres://c?sslmode=disable",
                ("postgres://c".to_owned(), some("disable"), None),
            ),
            ("nonsense", ("nonsense".to_owned(), None, None)),
        ] {
            assert_eq!(taken(text), wanted, "{text}");
        }
    }

    #[test]
    fn what_leaves_this_machine_is_encrypted_and_checked() {
        let roots = tempfile::NamedTempFile::new().expect("a file");
        let said = |text: &str, plain: bool| match Way::parse(text, plain) {
            Ok(way) => Ok(way.tls.is_some()),
            // Without roots it would be encrypted all the same.
            Err(DatabaseError::NoRoots) => Ok(true),
            Err(error) => Err(error),
        };
        for (text, encrypted) in [
            ("host=/run/postgresql", false),
            ("host=/run/postgresql sslmode=require", false),
            ("host=127.0.0.1", false),
            ("host=localhost sslmode=prefer", false),
            ("host=localhost sslmode=require", true),
            ("postgresql://[::1]/d?sslmode=verify-full", true),
            ("host=db.example", true),
            ("hostaddr=192.0.2.1 host=db.example", true),
            ("host=localhost,db.example", true),
        ] {
            assert_eq!(said(text, false).expect(text), encrypted, "{text}");
        }
        assert!(!said("host=db.example", true).expect("allowed"));
        assert!(!said("host=db.example sslmode=disable", true).expect("allowed"));
        assert!(said("host=db.example sslmode=require", true).expect("asked for"));
        for text in ["sslmode=disable", "sslmode=prefer", "sslmode=allow"] {
            let refused = said(&format!("host=db.example {text}"), false);
            assert!(matches!(refused, Err(DatabaseError::Plain)), "{text}");
        }
        let wrong = said("host=a sslmode=maybe", false);
        assert!(matches!(wrong, Err(DatabaseError::Mode(_))));
        assert!(matches!(
            said("what=ever", false),
            Err(DatabaseError::Text(_))
        ));
        let empty = format!("host=a sslrootcert={}", roots.path().display());
        assert!(matches!(
            said(&empty, false),
            Err(DatabaseError::Roots { .. })
        ));
        let missing = said("host=a sslrootcert=/nowhere/at-all", false);
        assert!(matches!(missing, Err(DatabaseError::Roots { .. })));
    }
}
