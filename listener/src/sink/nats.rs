//! Events to NATS JetStream: each one published under its own id, and done once the stream says that
//! it has stored it.
//!
//! `Nats-Msg-Id` is the event's id, so that a stream drops what comes again within its window for
//! doubles (`duplicate_window`, two minutes unless set otherwise). `Nats-Expected-Stream` makes a
//! subject that belongs to another stream an error instead of a loss. The connection comes back by
//! itself; while it is away, deliveries fail as transient and the flow tries again.
//! Source: NATS ADR-13 (publishing), ADR-4 (headers).

use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, ServerAddr};
use ketch_client::Kind;
use tokio::sync::OnceCell;

use super::event;
use super::{Answer, Parcel, Sink, SinkError, Takes};
use crate::flow::item::Item;
use crate::store::Placement;

pub mod subject;

pub use subject::{BadSubject, SubjectTemplate};

/// Acknowledgements that are waited for at a time.
const INFLIGHT_MAX: usize = 256;
/// Messages that wait for the connection. More wait in their flow.
const QUEUE_MAX: usize = 256;
/// Longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where events go, and as whom.
#[derive(Clone)]
pub struct NatsSettings {
    /// The sink's name in its flow.
    pub name: String,
    /// Servers of one cluster: `nats://host:4222`, `tls://host:4222`.
    pub servers: Vec<String>,
    /// The subject of an event.
    pub subject: SubjectTemplate,
    /// The stream that has to store it.
    pub stream: String,
    /// As whom. Default: nobody.
    pub login: NatsLogin,
    /// What is shown where the server asks for a certificate. Default: nothing.
    pub certificate: Option<OwnCertificate>,
    /// A file of PEM certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Whether the connection has to be encrypted. Default: if a server's URL begins with `tls`.
    pub tls: bool,
    /// Whether TLS begins before the server says anything, as its `handshake_first` asks for. Default: no.
    pub tls_first: bool,
    /// For a connection, and for the stream's answer. Default: 10 s.
    pub timeout: Duration,
    /// Which events it takes. Default: all that the flow has.
    pub takes: Takes,
}

impl NatsSettings {
    /// Events to `stream` by way of `server`, with the subject `ketch.{flow}.{kind}`.
    #[must_use]
    pub fn new(name: &str, server: &str, stream: &str) -> Self {
        Self {
            name: name.to_owned(),
            servers: vec![server.to_owned()],
            subject: SubjectTemplate::default(),
            stream: stream.to_owned(),
            login: NatsLogin::Nobody,
            certificate: None,
            ca: None,
            tls: server.starts_with("tls:"),
            tls_first: false,
            timeout: Duration::from_secs(10),
            takes: Takes::EVENTS,
        }
    }
}

impl std::fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Servers may have a password in their URL, and the login is one.
        f.debug_struct("NatsSettings")
            .field("name", &self.name)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// As whom a server is spoken to.
#[derive(Clone, Default)]
pub enum NatsLogin {
    /// As nobody, or as the server's URL says.
    #[default]
    Nobody,
    /// By name and password.
    Password {
        /// Who.
        user: String,
        /// The password.
        password: String,
    },
    /// By a token.
    Token(String),
}

/// A certificate of our own.
#[derive(Clone, Debug)]
pub struct OwnCertificate {
    /// PEM file with the certificate.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
}

impl std::fmt::Debug for NatsLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Password { .. } => "Password(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

/// Why a sink cannot be made from its settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// There is no server, or its URL is none.
    #[error("a NATS server is given as nats://host:4222 or tls://host:4222")]
    Server,
    /// The name of the stream cannot be one.
    #[error("{0:?} cannot be the name of a stream")]
    Stream(String),
}

/// A sink of events.
pub struct Nats {
    settings: NatsSettings,
    servers: Vec<ServerAddr>,
    source: String,
    /// Made by the first that needs it, and lives from then on.
    context: OnceCell<Context>,
}

impl std::fmt::Debug for Nats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(f)
    }
}

impl Nats {
    /// A sink whose events have `source`; [`event::default_source`] is what flows have unless told.
    ///
    /// # Errors
    /// [`NatsError`]. Nothing is connected to yet.
    pub fn new(settings: NatsSettings, source: String) -> Result<Self, NatsError> {
        let servers = settings.servers.iter().map(|server| server.parse());
        let servers: Result<Vec<ServerAddr>, _> = servers.collect();
        let servers = servers.map_err(|_| NatsError::Server)?;
        if servers.is_empty() {
            return Err(NatsError::Server);
        }
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && !".*>/\\".contains(c);
        if settings.stream.is_empty() || !settings.stream.chars().all(plain) {
            return Err(NatsError::Stream(settings.stream));
        }
        Ok(Self {
            settings,
            servers,
            source,
            context: OnceCell::new(),
        })
    }

    async fn context(&self) -> Result<&Context, SinkError> {
        self.context.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Context, SinkError> {
        // Another provider that the program installed before is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let settings = &self.settings;
        let mut options = ConnectOptions::new()
            .name(format!("ketch-listener {}", settings.name))
            .connection_timeout(settings.timeout)
            .client_capacity(QUEUE_MAX)
            .max_reconnects(None)
            .reconnect_delay_callback(pause)
            .require_tls(settings.tls);
        options = match &settings.login {
            NatsLogin::Nobody => options,
            NatsLogin::Password { user, password } => {
                options.user_and_password(user.clone(), password.clone())
            }
            NatsLogin::Token(token) => options.token(token.clone()),
        };
        if let Some(OwnCertificate { certificate, key }) = &settings.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        if settings.tls_first {
            options = options.tls_first();
        }
        if let Some(ca) = &settings.ca {
            options = options.add_root_certificates(ca.clone());
        }
        let client = options.connect(self.servers.as_slice()).await;
        let client = client.map_err(|error| {
            let kind = match error.kind() {
                async_nats::ConnectErrorKind::Authentication
                | async_nats::ConnectErrorKind::AuthorizationViolation => Kind::Auth,
                async_nats::ConnectErrorKind::TimedOut => Kind::Timeout,
                async_nats::ConnectErrorKind::Tls => Kind::HostKey,
                async_nats::ConnectErrorKind::ServerParse => Kind::Local,
                _ => Kind::Network,
            };
            self.unreachable(kind, Box::new(error))
        })?;
        Ok(context(client, settings.timeout))
    }

    fn unreachable(
        &self,
        kind: Kind,
        source: Box<dyn std::error::Error + Send + Sync>,
    ) -> SinkError {
        let stream = &self.settings.stream;
        SinkError::Failed {
            what: format!("cannot connect to NATS for the stream {stream}"),
            kind,
            source,
        }
    }

    async fn publish(&self, parcel: Parcel<'_>) -> Result<(), SinkError> {
        let item = parcel.item;
        let context = self.context().await?;
        let message = PublishMessage::build()
            .payload(event::encode(&self.source, &parcel).into())
            .header("Content-Type", event::CONTENT_TYPE)
            .message_id(item.id())
            .expected_stream(&self.settings.stream);
        let subject = self.settings.subject.of(item);
        let refused = |error| self.refused(&item.id(), error);
        // While there is no connection, messages are queued until the queue is full: neither that nor
        // the answer is waited for without an end.
        let acknowledged = async {
            let answer = context.send_publish(subject, message).await?;
            answer.await
        };
        match tokio::time::timeout(self.settings.timeout, acknowledged).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => Err(refused(PublishError::new(PublishErrorKind::TimedOut))),
        }
    }

    fn refused(&self, id: &str, error: PublishError) -> SinkError {
        SinkError::Failed {
            what: format!(
                "the stream {} did not take event {id}",
                self.settings.stream
            ),
            kind: kind(&error),
            source: Box::new(error),
        }
    }
}

/// What sort of failure it is when an event was not stored.
///
/// What a stream lacks (space, a leader, being there at all) may come by itself or by its operator
/// while we wait, so it is transient; what is wrong with this message is not.
fn kind(error: &PublishError) -> Kind {
    match error.kind() {
        PublishErrorKind::TimedOut => Kind::Timeout,
        PublishErrorKind::MaxPayloadExceeded
        | PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence => Kind::Peer,
        _ => {
            let source = std::error::Error::source(error);
            match source.and_then(|source| source.downcast_ref::<jetstream::Error>()) {
                // 10060: the subject belongs to another stream. 10054: larger than it takes.
                Some(answer) if matches!(answer.error_code().0, 10_060 | 10_054) => Kind::Peer,
                _ => Kind::Network,
            }
        }
    }
}

fn context(client: Client, timeout: Duration) -> Context {
    jetstream::ContextBuilder::new()
        .timeout(timeout)
        .ack_timeout(timeout)
        .max_ack_inflight(INFLIGHT_MAX)
        .build(client)
}

/// How long to wait before the `attempt`-th connection.
fn pause(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt).unwrap_or(u32::MAX).min(16);
    (Duration::from_millis(50) * 2u32.pow(doublings)).min(PAUSE_MAX)
}

impl Sink for Nats {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn takes(&self) -> Takes {
        self.settings.takes
    }

    fn place<'a>(&'a self, _: &'a Item, _: Option<&'a Placement>) -> Answer<'a, Placement> {
        Box::pin(async { Ok(Placement::default()) })
    }

    fn deliver<'a>(&'a self, parcel: Parcel<'a>) -> Answer<'a, ()> {
        Box::pin(self.publish(parcel))
    }

    /// Connects and asks for the stream.
    fn check(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let stream = &self.settings.stream;
            let failed =
                |kind, source: Box<dyn std::error::Error + Send + Sync>| SinkError::Failed {
                    what: format!("cannot find the stream {stream}"),
                    kind,
                    source,
                };
            let asked = async {
                let context = self.context().await?;
                let found = context.get_stream(stream).await;
                found
                    .map(drop)
                    .map_err(|error| failed(Kind::NotFound, error.into()))
            };
            match tokio::time::timeout(self.settings.timeout * 2, asked).await {
                Ok(found) => found,
                Err(late) => Err(failed(Kind::Timeout, late.into())),
            }
        })
    }
}
