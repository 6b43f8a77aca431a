//! From a source's table to a connection: keys, passwords, whom to trust, and the way to it.

use std::path::Path;
use std::sync::Arc;

use ketch_client::agent::AgentPath;
use ketch_client::hostkey::{HostKeyPolicy, HostKeys};
use ketch_client::identity::Identity;
use ketch_client::memory::ProcessMemory;
use ketch_client::route::{self, Route};
use ketch_client::{Connect, Profile, Reconnect, Timeouts};
use ketch_settings::below;
use zeroize::Zeroizing;

use super::Origin;
use super::build::Build;
use super::tables::{Algorithms, SourceTable, TimeoutsTable};
use super::words::ProxyUrl;
use crate::remote::{CHANNELS, Remote};

/// What logs in, to the server and to those on the way.
struct Login {
    identities: Vec<Identity>,
    password: Option<Zeroizing<String>>,
    agent: Option<AgentPath>,
}

impl Build<'_> {
    /// Where a source is; what is wrong with it is told.
    pub(super) fn origin(&mut self, key: &str, table: &SourceTable) -> Option<Origin> {
        match (&table.url, &table.local) {
            (Some(_), None) => self.server(key, table),
            (None, Some(path)) => {
                self.only_for_servers(key, table);
                Some(Origin::Here(self.places().resolve(path)))
            }
            (Some(_), Some(_)) => {
                self.fault(
                    &below(key, "local"),
                    "a source has `url` or `local`, not both",
                );
                None
            }
            (None, None) => {
                self.hint(
                    key,
                    "there is neither `url` nor `local`",
                    "url = \"sftp://user@host/path\"",
                );
                None
            }
        }
    }

    fn only_for_servers(&mut self, key: &str, table: &SourceTable) {
        let said = [
            ("identity", !table.identity.is_empty()),
            ("private_key", table.private_key.is_some()),
            ("passphrase", table.passphrase.is_some()),
            ("password", table.password.is_some()),
            ("agent", table.agent.is_some()),
            ("host_key", !table.host_key.is_empty()),
            ("known_hosts", table.known_hosts.is_some()),
            ("accept_new_host", table.accept_new_host),
            ("danger_accept_any_host", table.danger_accept_any_host),
            ("proxy", table.proxy.is_some()),
            ("proxy_password", table.proxy_password.is_some()),
            ("jump", !table.jump.is_empty()),
            ("channels", table.channels.is_some()),
        ];
        for (name, _) in said.iter().filter(|(_, is_said)| *is_said) {
            self.fault(&below(key, name), "this is for a source with `url`");
        }
    }

    fn server(&mut self, key: &str, table: &SourceTable) -> Option<Origin> {
        let destination = &table.url.as_ref()?.0;
        if destination.user.is_none() {
            self.hint(
                &below(key, "url"),
                "it does not say who logs in",
                "sftp://user@host/path",
            );
        }
        let before = self.faults_len();
        self.times(&below(key, "timeouts"), &table.timeouts);
        let login = self.login(key, table);
        let host_keys = self.host_keys(key, table);
        let route = self.route(key, table, &login);
        if self.faults_len() > before || destination.user.is_none() {
            return None;
        }
        let profile = profile(table.algorithms);
        let timeouts = timeouts(&table.timeouts);
        let connect = Connect::to_destination(destination)
            .profile(profile)
            .timeouts(timeouts)
            .host_keys(host_keys)
            // Coming back takes fewer round trips than the first time.
            .host_memory(Arc::new(ProcessMemory::new()))
            .route(route);
        let mut reconnect = Reconnect::default();
        reconnect.attempts = Some(1); // whoever asks again waits: the pause is kept between calls
        reconnect.max = table
            .timeouts
            .reconnect_max
            .map_or(reconnect.max, |max| max.0);
        let user = destination.user.as_ref().map_or("", |user| user.as_str());
        let port = destination.port.unwrap_or(22);
        let connect = logged_in(connect, &login);
        Some(Origin::Server {
            address: format!("{user}@{}:{port}", destination.host.as_str()),
            remote: Remote::with(connect, destination.path.clone(), reconnect)
                .channels(table.channels.unwrap_or(CHANNELS)),
        })
    }

    /// With no time at all nothing would ever come about.
    fn times(&mut self, key: &str, table: &TimeoutsTable) {
        let said = [
            ("connect", table.connect),
            ("handshake", table.handshake),
            ("authentication", table.authentication),
            ("read", table.read),
            ("keepalive", table.keepalive),
            ("reconnect_max", table.reconnect_max),
        ];
        for (name, period) in said {
            if period.is_some_and(|period| period.0.is_zero()) {
                self.fault(&below(key, name), "it must be more than zero");
            }
        }
    }

    fn login(&mut self, key: &str, table: &SourceTable) -> Login {
        let passphrase = self.secret(&below(key, "passphrase"), table.passphrase.as_ref());
        let mut identities = Vec::new();
        for (n, path) in table.identity.iter().enumerate() {
            let key = format!("{}[{n}]", below(key, "identity"));
            let path = self.places().resolve(path);
            let read = Identity::from_file(&path);
            let of = Some(path.as_path());
            match read {
                Ok(identity) => {
                    self.made_of(identity.fingerprint());
                    identities.extend(self.unlocked(&key, of, identity, &passphrase));
                }
                Err(error) => self.fault(&key, chain(&error)), // it names the file
            }
        }
        let private = below(key, "private_key");
        if let Some(text) = self.secret(&private, table.private_key.as_ref()) {
            match Identity::from_memory(text.as_bytes()) {
                Ok(identity) => {
                    identities.extend(self.unlocked(&private, None, identity, &passphrase))
                }
                Err(error) => self.fault(&private, chain(&error)),
            }
        }
        let login = Login {
            identities,
            password: self.secret(&below(key, "password"), table.password.as_ref()),
            agent: table
                .agent
                .as_ref()
                .map(|path| match path.as_os_str() == "env" {
                    true => AgentPath::Environment,
                    false => AgentPath::Socket(self.places().resolve(path)),
                }),
        };
        let says = !table.identity.is_empty()
            || table.private_key.is_some()
            || table.password.is_some()
            || table.agent.is_some();
        if !says {
            self.hint(
                key,
                "there is nothing to log in with",
                "one of `identity`, `private_key`, `password` and `agent`",
            );
        }
        login
    }

    /// A key that is open, so that a wrong passphrase is told now.
    fn unlocked(
        &mut self,
        key: &str,
        path: Option<&Path>,
        identity: Identity,
        passphrase: &Option<Zeroizing<String>>,
    ) -> Option<Identity> {
        let shown = path.map_or(String::new(), |path| format!("{}: ", path.display()));
        if !identity.is_locked() {
            return Some(identity);
        }
        let Some(passphrase) = passphrase.clone() else {
            self.hint(
                key,
                format!("{shown}the key has a passphrase"),
                "`passphrase` says it",
            );
            return None;
        };
        let identity = identity.passphrase(move |_| Some(passphrase.clone()));
        match identity.unlock() {
            Ok(()) => Some(identity),
            Err(error) => {
                self.fault(key, format!("{shown}{}", chain(&error)));
                None
            }
        }
    }

    fn host_keys(&mut self, key: &str, table: &SourceTable) -> HostKeys {
        let named = [
            ("host_key", !table.host_key.is_empty()),
            (
                "known_hosts",
                table.known_hosts.is_some() && table.jump.is_empty(),
            ),
            ("danger_accept_any_host", table.danger_accept_any_host),
        ];
        let said: Vec<_> = named
            .iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| *name)
            .collect();
        if let [first, second, ..] = said[..] {
            self.fault(
                &below(key, second),
                format!("`{first}` says whom to trust already"),
            );
        }
        if table.accept_new_host && table.known_hosts.is_none() {
            self.hint(
                &below(key, "accept_new_host"),
                "there is no file to write the key into",
                "`known_hosts` names one",
            );
        }
        if table.danger_accept_any_host {
            return HostKeys::danger_accept_any_host();
        }
        if table.host_key.is_empty() {
            return self.known_hosts(table);
        }
        HostKeys::only(table.host_key.iter().map(|line| line.0.clone()))
    }

    /// What files say of hosts: of the server's, or of those on the way to it.
    fn known_hosts(&self, table: &SourceTable) -> HostKeys {
        match &table.known_hosts {
            None => HostKeys::known_hosts(),
            Some(path) => {
                let keys = HostKeys::files([self.places().resolve(path)]);
                match table.accept_new_host {
                    true => keys.policy(HostKeyPolicy::AcceptNew),
                    false => keys,
                }
            }
        }
    }

    fn route(&mut self, key: &str, table: &SourceTable, login: &Login) -> Route {
        let proxy_key = below(key, "proxy");
        let password = self.secret(&below(key, "proxy_password"), table.proxy_password.as_ref());
        let first = match &table.proxy {
            None => {
                if table.proxy_password.is_some() {
                    self.fault(&below(key, "proxy_password"), "there is no `proxy`");
                }
                Route::Direct
            }
            Some(ProxyUrl::At(proxy)) => proxy.route(password),
            Some(ProxyUrl::Environment) => match environment_proxy() {
                Ok(proxy) => proxy.route(password),
                Err(what) => {
                    self.fault(&proxy_key, what);
                    Route::Direct
                }
            },
        };
        if table.jump.is_empty() {
            return first;
        }
        let mut first = Some(first);
        let hops = table.jump.iter().map(|server| {
            let mut connect = Connect::to(server.0.host.as_str())
                .profile(profile(table.algorithms))
                .timeouts(timeouts(&table.timeouts))
                .host_keys(match table.danger_accept_any_host {
                    true => HostKeys::danger_accept_any_host(),
                    false => self.known_hosts(table),
                })
                .route(first.take().unwrap_or_default());
            if let Some(port) = server.0.port {
                connect = connect.port(port);
            }
            let user = server.0.user.as_ref();
            let user = user.or(table.url.as_ref().and_then(|url| url.0.user.as_ref()));
            if let Some(user) = user {
                connect = connect.user(user.as_str());
            }
            logged_in(connect, login)
        });
        Route::Jump(hops.collect())
    }
}

fn logged_in(mut connect: Connect, login: &Login) -> Connect {
    for identity in &login.identities {
        connect = connect.identity(identity.clone());
    }
    if let Some(password) = &login.password {
        connect = connect.password(password.clone());
    }
    match &login.agent {
        Some(agent) => connect.agent(agent.clone()),
        None => connect,
    }
}

/// The proxy that the environment names, as curl(1) has it.
fn environment_proxy() -> Result<route::ProxyUrl, String> {
    const NAMES: [&str; 4] = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"];
    let found = NAMES.iter().find_map(|name| {
        Some((
            name,
            std::env::var(name).ok().filter(|text| !text.is_empty())?,
        ))
    });
    let Some((name, text)) = found else {
        return Err(format!("none of {} is set", NAMES.join(", ")));
    };
    // It may have a password in it: the text is not shown.
    text.parse().map_err(|error| format!("{name}: {error}"))
}

const fn profile(algorithms: Algorithms) -> Profile {
    match algorithms {
        Algorithms::Modern => Profile::Modern,
        Algorithms::Compat => Profile::Compat,
        Algorithms::Legacy => Profile::Legacy,
        Algorithms::PqOnly => Profile::PqOnly,
    }
}

fn timeouts(table: &TimeoutsTable) -> Timeouts {
    let mut timeouts = Timeouts::default();
    if let Some(time) = table.connect {
        timeouts.tcp = time.0;
    }
    if let Some(time) = table.handshake {
        timeouts.handshake = time.0;
    }
    if let Some(time) = table.authentication {
        timeouts.authentication = time.0;
    }
    if let Some(time) = table.read {
        timeouts.stall = time.0;
    }
    if let Some(time) = table.keepalive {
        timeouts.keepalive = Some(time.0);
    }
    timeouts
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
