//! What may stand in a `[[flow.sink]]`: a table for each kind. As `tables`, for people to read.
#![cfg_attr(
    not(all(feature = "webhook", feature = "nats", feature = "postgres")),
    allow(
        dead_code,
        reason = "kinds that are not built in are checked all the same"
    )
)]

use std::path::PathBuf;

use ketch_settings::{Period, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

use super::tables::Named;
use super::words::{Name, NameTemplate};

/// A place where files or events go; `kind` says what it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum SinkTable {
    /// Files into a directory here: each whole, under its name at once, and once.
    Directory {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
        /// The directory. It must be there: one that is missing may be a share that is not mounted.
        path: PathBuf,
        /// Names below it: as at the source (`mirror`), or without directories (`flat`).
        /// Default: `mirror`.
        layout: Option<Layout>,
        /// Names below it, from a template, instead of `layout`.
        template: Option<NameTemplate>,
        /// What is done if a name is taken. Default: `error`.
        exists: Option<ExistsName>,
        /// Whether files get the time of last change that they have at the source. Default: true.
        times: Option<bool>,
    },
    /// Files onto a server: each whole, under its name at once, and once.
    Sftp {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
        /// Name of a source that is that server; its `url` and how to log in are used.
        source: Name,
        /// Directory on it: absolute, or below the source's. Default: the source's.
        path: Option<String>,
        /// Names below it: as at the source (`mirror`), or without directories (`flat`).
        /// Default: `mirror`.
        layout: Option<Layout>,
        /// Names below it, from a template, instead of `layout`.
        template: Option<NameTemplate>,
        /// What is done if a name is taken. Default: `error`.
        exists: Option<ExistsName>,
        /// Whether files get the time of last change that they have at the source. Default: true.
        times: Option<bool>,
    },
    /// Files into an object store: S3, Google Cloud Storage, Azure.
    Object {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
        /// The bucket and what keys begin with: `s3://bucket/prefix`, `gs://…`, `az://…`.
        url: String,
        /// Options of the store by the names that `object_store` has for them, such as
        /// `aws_access_key_id`. Default: what the environment says.
        #[serde(default)]
        options: Named,
        /// Keys: as at the source (`mirror`), or without directories (`flat`). Default: `mirror`.
        layout: Option<Layout>,
        /// Keys, from a template, instead of `layout`.
        template: Option<NameTemplate>,
        /// What is done if a key is taken; `append` is not possible. Default: `error`.
        exists: Option<ExistsName>,
    },
    /// Events to the standard output, one line of JSON each.
    Stdout {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
    },
    /// A program that is run for each file or event.
    Command {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
        /// The program and its arguments; no shell is asked. In the arguments stand what names may be
        /// made of, `{path}` and so on, and `{file}` for the file here. The event is its standard
        /// input.
        #[schemars(length(min = 1, max = 256))]
        command: Vec<String>,
        /// Name of a `directory` sink before this one, in which `{file}` is then. Default: the file
        /// that was fetched, which is removed afterwards.
        file_from: Option<Name>,
        /// Variables of its environment, beside `PATH` and the like.
        #[serde(default)]
        env: Named,
        /// How long it may run; then it and what it started are killed. Default: 60 s.
        timeout: Option<Period>,
    },
    /// Events to a URL: CloudEvents over HTTP, signed.
    Webhook {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
        /// Where to: `https`, or `http` to this machine.
        url: String,
        /// Whether the body is the whole event (`structured`), or its data with the attributes in headers
        /// `ce-id`, `ce-type` and so on (`binary`). Default: `structured`.
        mode: Option<ModeName>,
        /// What events are signed with, as Standard Webhooks has it: 24 bytes at least. Default: they
        /// are not signed.
        secret: Option<Secret>,
        /// A second one, for the time in which it is changed. Default: none.
        previous_secret: Option<Secret>,
        /// Further headers.
        #[serde(default)]
        headers: Named,
        /// File of certificates (PEM) that are trusted besides the system's. Default: none.
        ca: Option<PathBuf>,
        /// For a whole request. Default: 30 s.
        timeout: Option<Period>,
        /// For a connection. Default: 10 s.
        connect_timeout: Option<Period>,
        /// Allow `http` to other machines: everybody on the way can read and change events.
        /// Default: false.
        #[serde(default)]
        danger_plain_http: bool,
    },
    /// Events to NATS JetStream.
    Nats {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
        /// Servers of a cluster, `nats://host:4222` or `tls://host:4222`.
        #[schemars(length(min = 1, max = 16))]
        servers: Vec<String>,
        /// The stream that has to store events.
        stream: String,
        /// The subject, with `{flow}`, `{kind}`, `{name}`, `{dir}`, `{path}`. Default:
        /// `ketch.{flow}.{kind}`.
        subject: Option<String>,
        /// User, with `password`. Default: none.
        user: Option<String>,
        /// Password of the user.
        password: Option<Secret>,
        /// A token instead. Default: none.
        token: Option<Secret>,
        /// File of a certificate of our own (PEM), with `key`; also beside another login. Default: none.
        certificate: Option<PathBuf>,
        /// File of its key (PEM).
        key: Option<PathBuf>,
        /// File of certificates (PEM) that are trusted besides the system's. Default: none.
        ca: Option<PathBuf>,
        /// Whether the connection has to be encrypted. Default: if a server's URL begins with `tls`.
        tls: Option<bool>,
        /// Whether TLS begins before the server says anything (`handshake_first` there). Default: false.
        #[serde(default)]
        tls_first: bool,
        /// For a connection and for an answer. Default: 10 s.
        timeout: Option<Period>,
    },
    /// Events into a table of PostgreSQL.
    Postgres {
        /// Its name, which is kept in the ledger. It may stand in a flow once.
        name: Name,
        /// The database, `host=… user=… dbname=…` or `postgresql://…`, as libpq has it.
        connect: Secret,
        /// The table, with its schema if need be.
        table: String,
        /// Whether it is created if it is not there. Default: false.
        #[serde(default)]
        create: bool,
        /// A channel to be notified of each event, for `LISTEN`. Default: none.
        notify: Option<String>,
        /// For a connection and for an insert. Default: 10 s.
        timeout: Option<Period>,
        /// Allow a connection to another machine that is not encrypted. Default: false.
        #[serde(default)]
        danger_plain: bool,
    },
}

/// What is in the body of a webhook's request.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ModeName {
    /// All of an event.
    Structured,
    /// Its data.
    Binary,
}

/// How files are called at their destination.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Layout {
    /// With their directories.
    Mirror,
    /// All in one directory.
    Flat,
}

/// What is done if a name is taken.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ExistsName {
    /// The file is not delivered.
    Error,
    /// It takes the place of the old one.
    Overwrite,
    /// It gets a number.
    Unique,
    /// Its content is added to the old one's.
    Append,
    /// The old one stays, and it counts as delivered.
    Skip,
}

impl SinkTable {
    /// The name that every kind has.
    pub(super) const fn name(&self) -> &Name {
        match self {
            Self::Directory { name, .. }
            | Self::Sftp { name, .. }
            | Self::Object { name, .. }
            | Self::Stdout { name, .. }
            | Self::Command { name, .. }
            | Self::Webhook { name, .. }
            | Self::Nats { name, .. }
            | Self::Postgres { name, .. } => name,
        }
    }
}
