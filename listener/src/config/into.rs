//! From a sink's table to the sink.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ketch_settings::{Period, below};
use zeroize::Zeroizing;

use super::build::Build;
use super::connect::chain;
use super::sinks::{ExistsName, Layout, SinkTable};
use super::tables::{FlowTable, Named, SourceTable};
use super::words::NameTemplate;
use super::{Origin, SourceSetup};
use crate::sink::Sink;
use crate::sink::command::{CommandSettings, CommandSink};
use crate::sink::directory::{DirectorySettings, DirectorySink};
use crate::sink::name::Exists;
use crate::sink::sftp::{SftpSink, SftpSinkSettings};
use crate::sink::stdout::{StdoutSettings, StdoutSink};
use crate::sink::template::Template;

/// What flows and sinks are put together from.
pub(super) struct Ends<'a> {
    pub(super) state: &'a Path,
    /// The sources that are right.
    pub(super) sources: &'a [SourceSetup],
    /// All that are in the file.
    pub(super) names: &'a [SourceTable],
}

/// A sink, or that something is wrong with it, which is told.
type Made = Option<Arc<dyn Sink>>;

impl Build<'_> {
    /// All sinks of a flow, if all are right.
    pub(super) fn sinks(
        &mut self,
        key: &str,
        flow: &FlowTable,
        of: &Ends<'_>,
    ) -> Option<Vec<Arc<dyn Sink>>> {
        let mut sinks = Vec::with_capacity(flow.sink.len());
        for (n, table) in flow.sink.iter().enumerate() {
            let key = format!("{}[{n}]", below(key, "sink"));
            sinks.push(self.sink(&key, flow, n, table, of));
        }
        sinks.into_iter().collect()
    }

    fn sink(
        &mut self,
        key: &str,
        flow: &FlowTable,
        n: usize,
        table: &SinkTable,
        of: &Ends<'_>,
    ) -> Made {
        let name = table.name().0.to_string();
        match table {
            SinkTable::Directory {
                path,
                layout,
                template,
                exists,
                times,
                ..
            } => {
                let template = self.template(key, *layout, template.as_ref());
                let mut settings = DirectorySettings::new(name, self.places().resolve(path));
                settings.template = template?;
                settings.exists = exists.map_or(settings.exists, Into::into);
                settings.times = times.unwrap_or(settings.times);
                // Nobody else reads the fetched file: it may become the delivered one.
                settings.share = only_reader(&flow.sink).is_some();
                Some(Arc::new(DirectorySink::new(settings)))
            }
            SinkTable::Sftp {
                source,
                path,
                layout,
                template,
                exists,
                times,
                ..
            } => {
                let template = self.template(key, *layout, template.as_ref());
                let source = self.named(&below(key, "source"), source.0.as_str(), of);
                let origin = self.beside(&below(key, "path"), source?, path.as_deref());
                self.sftp(
                    &below(key, "source"),
                    name,
                    origin?,
                    template?,
                    *exists,
                    *times,
                )
            }
            SinkTable::Object {
                url,
                options,
                layout,
                template,
                exists,
                ..
            } => {
                let template = self.template(key, *layout, template.as_ref());
                if *exists == Some(ExistsName::Append) {
                    self.hint(
                        &below(key, "exists"),
                        "nothing can be appended to in an object store",
                        "overwrite, unique, skip or error",
                    );
                }
                let options = self.named_values(&below(key, "options"), options);
                self.object(key, name, url, options?, template?, *exists)
            }
            SinkTable::Stdout { .. } => Some(Arc::new(StdoutSink::new(StdoutSettings::new(name)))),
            SinkTable::Command {
                command,
                file_from,
                env,
                timeout,
                ..
            } => {
                let env = self.named_values(&below(key, "env"), env);
                let mut settings = CommandSettings::new(name, command.clone());
                settings.timeout = time(*timeout, settings.timeout);
                if let Some(from) = file_from {
                    settings.file_from = Some(self.file_from(key, flow, n, from.0.as_str())?);
                }
                let env = env?.into_iter();
                settings.env = env.map(|(name, value)| (name, value.to_string())).collect();
                let made = CommandSink::new(settings);
                let told = made.map_err(|error| self.fault(&below(key, "command"), chain(&error)));
                Some(Arc::new(told.ok()?))
            }
            SinkTable::Webhook { .. } => self.webhook(key, name, flow, table),
            SinkTable::Nats { .. } => self.nats(key, name, flow, table),
            SinkTable::Postgres { .. } => self.postgres(key, name, flow, table),
        }
    }

    /// How files are called at their destination.
    fn template(
        &mut self,
        key: &str,
        layout: Option<Layout>,
        template: Option<&NameTemplate>,
    ) -> Option<Template> {
        match (layout, template) {
            (None | Some(Layout::Mirror), None) => Some(Template::mirror()),
            (Some(Layout::Flat), None) => Some(Template::flat()),
            (None, Some(template)) => Some(template.0.clone()),
            (Some(_), Some(_)) => {
                self.fault(&below(key, "layout"), "`template` says it already");
                None
            }
        }
    }

    /// A directory of a sink on a source's server.
    fn beside(&mut self, key: &str, source: &SourceSetup, path: Option<&str>) -> Option<Origin> {
        let path = match path {
            Some(path) if path.starts_with('/') => {
                let below = self.path(key, Some(path.trim_start_matches('/')))?;
                ketch_client::RemotePath::from("/").join(below)
            }
            path => self.path(key, path)?,
        };
        self.made_of(source.revision);
        Some(source.origin.at(&path))
    }

    fn file_from(
        &mut self,
        key: &str,
        flow: &FlowTable,
        n: usize,
        from: &str,
    ) -> Option<(String, std::path::PathBuf)> {
        let before = flow.sink.iter().take(n);
        let found = before.into_iter().find_map(|sink| match sink {
            SinkTable::Directory { name, path, .. } if name.0.as_str() == from => Some(path),
            _ => None,
        });
        match found {
            Some(path) => Some((from.to_owned(), self.places().resolve(path))),
            None => {
                let what = format!("there is no sink {from:?} before this one that is a directory");
                self.fault(&below(key, "file_from"), what);
                None
            }
        }
    }

    /// Values by name, of which some are secrets.
    fn named_values(
        &mut self,
        key: &str,
        table: &Named,
    ) -> Option<Vec<(String, Zeroizing<String>)>> {
        let mut values = Vec::with_capacity(table.len());
        for (name, secret) in table {
            let value = self.secret(&below(key, name), Some(secret));
            values.push(value.map(|value| (name.clone(), value)));
        }
        values.into_iter().collect()
    }

    fn sftp(
        &mut self,
        key: &str,
        name: String,
        origin: Origin,
        template: Template,
        exists: Option<ExistsName>,
        times: Option<bool>,
    ) -> Made {
        let Origin::Server { remote, .. } = origin else {
            self.hint(key, "this source is no server", "kind = \"directory\"");
            return None;
        };
        let mut settings = SftpSinkSettings::new(name);
        settings.template = template;
        settings.exists = exists.map_or(settings.exists, Into::into);
        settings.times = times.unwrap_or(settings.times);
        Some(Arc::new(SftpSink::new(settings, remote)))
    }

    #[cfg(feature = "object-store")]
    fn object(
        &mut self,
        key: &str,
        name: String,
        url: &str,
        options: Vec<(String, Zeroizing<String>)>,
        template: Template,
        exists: Option<ExistsName>,
    ) -> Made {
        use crate::sink::object::{ObjectSettings, ObjectSink};
        let mut settings = ObjectSettings::new(name, url);
        let options = options.into_iter();
        settings.options = options
            .map(|(key, value)| (key, value.to_string()))
            .collect();
        settings.template = template;
        settings.exists = exists.map_or(settings.exists, Into::into);
        let made = ObjectSink::new(settings);
        let told = made.map_err(|error| self.fault(&below(key, "url"), chain(&error)));
        Some(Arc::new(told.ok()?))
    }

    #[cfg(not(feature = "object-store"))]
    fn object(
        &mut self,
        key: &str,
        _: String,
        _: &str,
        _: Vec<(String, Zeroizing<String>)>,
        _: Template,
        _: Option<ExistsName>,
    ) -> Made {
        let what = "this program was built without object stores";
        self.fault(&below(key, "kind"), what);
        None
    }

    #[cfg(feature = "webhook")]
    fn webhook(&mut self, key: &str, name: String, flow: &FlowTable, table: &SinkTable) -> Made {
        use super::sinks::ModeName;
        use crate::sink::event::default_source;
        use crate::sink::webhook::{Mode, Webhook, WebhookSecret, WebhookSettings};

        let SinkTable::Webhook {
            url,
            mode,
            secret,
            previous_secret,
            headers,
            ca,
            timeout,
            connect_timeout,
            danger_plain_http,
            ..
        } = table
        else {
            return None;
        };
        let mut settings = WebhookSettings::new(&name, url);
        settings.mode = match mode {
            None | Some(ModeName::Structured) => Mode::Structured,
            Some(ModeName::Binary) => Mode::Binary,
        };
        for (key, secret) in [
            (below(key, "secret"), secret),
            (below(key, "previous_secret"), previous_secret),
        ] {
            let Some(text) = self.secret(&key, secret.as_ref()) else {
                continue;
            };
            match WebhookSecret::new(&text) {
                Ok(secret) => settings.secrets.push(secret),
                Err(error) => self.fault(&key, error.to_string()),
            }
        }
        let headers = self
            .named_values(&below(key, "headers"), headers)?
            .into_iter();
        settings.headers = headers
            .map(|(name, value)| (name, value.to_string()))
            .collect();
        settings.ca = ca.as_ref().map(|path| self.places().resolve(path));
        settings.timeout = time(*timeout, settings.timeout);
        settings.connect_timeout = time(*connect_timeout, settings.connect_timeout);
        settings.danger_plain_http = *danger_plain_http;
        let made = Webhook::new(settings, default_source(flow.name.0.as_str()));
        let told = made.map_err(|error| self.fault(key, chain(&error)));
        Some(Arc::new(told.ok()?))
    }

    #[cfg(not(feature = "webhook"))]
    fn webhook(&mut self, key: &str, _: String, _: &FlowTable, _: &SinkTable) -> Made {
        self.fault(
            &below(key, "kind"),
            "this program was built without webhooks",
        );
        None
    }

    #[cfg(feature = "nats")]
    fn nats(&mut self, key: &str, name: String, flow: &FlowTable, table: &SinkTable) -> Made {
        use crate::sink::event::default_source;
        use crate::sink::nats::{Nats, NatsLogin, NatsSettings, OwnCertificate, SubjectTemplate};

        let SinkTable::Nats {
            servers,
            stream,
            subject,
            user,
            password,
            token,
            certificate,
            key: own_key,
            ca,
            tls,
            tls_first,
            timeout,
            ..
        } = table
        else {
            return None;
        };
        let first = servers.first().map_or("", String::as_str);
        let mut settings = NatsSettings::new(&name, first, stream);
        settings.servers.clone_from(servers);
        if let Some(subject) = subject {
            match SubjectTemplate::new(subject) {
                Ok(subject) => settings.subject = subject,
                Err(error) => self.fault(&below(key, "subject"), error.to_string()),
            }
        }
        let password = self.secret(&below(key, "password"), password.as_ref());
        let token = self.secret(&below(key, "token"), token.as_ref());
        let path = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| self.places().resolve(path))
        };
        settings.ca = path(ca);
        settings.certificate = match (path(certificate), path(own_key)) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(OwnCertificate { certificate, key }),
            _ => {
                self.fault(key, "`certificate` and `key` belong together");
                return None;
            }
        };
        settings.login = match (user, password, token) {
            (None, None, None) => NatsLogin::Nobody,
            (Some(user), Some(password), None) => NatsLogin::Password {
                user: user.clone(),
                password: password.to_string(),
            },
            (None, None, Some(token)) => NatsLogin::Token(token.to_string()),
            _ => {
                self.hint(
                    key,
                    "it is not clear how to log in",
                    "`user` and `password`, or `token`",
                );
                return None;
            }
        };
        settings.tls = tls.unwrap_or(settings.tls);
        settings.tls_first = *tls_first;
        settings.timeout = time(*timeout, settings.timeout);
        let made = Nats::new(settings, default_source(flow.name.0.as_str()));
        let told = made.map_err(|error| self.fault(key, chain(&error)));
        Some(Arc::new(told.ok()?))
    }

    #[cfg(not(feature = "nats"))]
    fn nats(&mut self, key: &str, _: String, _: &FlowTable, _: &SinkTable) -> Made {
        self.fault(&below(key, "kind"), "this program was built without NATS");
        None
    }

    #[cfg(feature = "postgres")]
    fn postgres(&mut self, key: &str, name: String, flow: &FlowTable, table: &SinkTable) -> Made {
        use crate::sink::event::default_source;
        use crate::sink::postgres::{Postgres, PostgresSettings};

        let SinkTable::Postgres {
            connect,
            table,
            create,
            notify,
            timeout,
            danger_plain,
            ..
        } = table
        else {
            return None;
        };
        let connect = self.secret(&below(key, "connect"), Some(connect))?;
        let mut settings = PostgresSettings::new(&name, &connect, table);
        settings.create = *create;
        settings.notify.clone_from(notify);
        settings.timeout = time(*timeout, settings.timeout);
        settings.danger_plain = *danger_plain;
        let made = Postgres::new(settings, default_source(flow.name.0.as_str()));
        let told = made.map_err(|error| self.fault(key, chain(&error)));
        Some(Arc::new(told.ok()?))
    }

    #[cfg(not(feature = "postgres"))]
    fn postgres(&mut self, key: &str, _: String, _: &FlowTable, _: &SinkTable) -> Made {
        self.fault(
            &below(key, "kind"),
            "this program was built without PostgreSQL",
        );
        None
    }
}

impl SinkTable {
    /// Whether it reads the fetched file.
    const fn reads(&self) -> bool {
        matches!(
            self,
            Self::Directory { .. } | Self::Sftp { .. } | Self::Object { .. } | Self::Command { .. }
        )
    }
}

/// The directory of a sink that alone reads what is fetched.
pub(super) fn only_reader(sinks: &[SinkTable]) -> Option<&Path> {
    let mut readers = sinks.iter().filter(|sink| sink.reads());
    match (readers.next(), readers.next()) {
        (Some(SinkTable::Directory { path, .. }), None) => Some(path),
        _ => None,
    }
}

impl From<ExistsName> for Exists {
    fn from(name: ExistsName) -> Self {
        match name {
            ExistsName::Error => Self::Error,
            ExistsName::Overwrite => Self::Overwrite,
            ExistsName::Unique => Self::Unique,
            ExistsName::Append => Self::Append,
            ExistsName::Skip => Self::Skip,
        }
    }
}

fn time(said: Option<Period>, default: Duration) -> Duration {
    said.map_or(default, |period| period.0)
}
