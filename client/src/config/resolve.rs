//! From options to what they mean for one host: tokens are expanded, names checked, paths made
//! whole.

use std::net::IpAddr;
use std::path::PathBuf;

use ring::digest;

use super::error::{ConfigError, ExpandError, ValueError, Warning};
use super::expand::{Tokens, tilde};
use super::local::Local;
use super::options::Options;
use super::{AgentChoice, HostConfig, JUMPS_MAX, JumpHost, ProxyChoice};
use crate::connect::DEFAULT_PORT;
use crate::destination::{Host, User};
use crate::route::{CommandError, ProxyCommand};

/// The name to connect to: an address as it stands, everything else in lower case.
pub(super) fn host_name(options: &Options, named: &str) -> Result<Host, ConfigError> {
    let unusable = |value: &str, source: ValueError| ConfigError::Value {
        host: named.to_owned(),
        keyword: "HostName",
        value: value.to_owned(),
        source: Box::new(source),
    };
    let written = options.host_name.as_deref().unwrap_or("%h");
    let tokens = Tokens {
        known: vec![('h', named)],
    };
    let name = tokens
        .percent(written)
        .map_err(|error| unusable(written, error.into()))?;
    let name = match name.parse::<IpAddr>() {
        Ok(_) => name,
        Err(_) => name.to_ascii_lowercase(),
    };
    name.parse()
        .map_err(|error| unusable(written, ValueError::Name(error)))
}

/// What stands for a connection in `%C`: SHA-1 of names, which proves nothing.
pub(super) fn connection_hash(
    local: &Local,
    host: &str,
    port: &str,
    user: &str,
    jump: &str,
) -> String {
    let text = [&local.host_name, host, port, user, jump].concat();
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Names that tokens stand for.
struct Names<'a> {
    alias: &'a str,
    host: &'a str,
    port: String,
    user: &'a str,
    key_alias: &'a str,
    jump: &'a str,
    home: String,
    hash: String,
    local: &'a Local,
}

impl Names<'_> {
    /// For files and sockets.
    fn for_paths(&self) -> Tokens<'_> {
        Tokens {
            known: vec![
                ('C', &self.hash),
                ('L', self.local.short_host_name()),
                ('d', &self.home),
                ('h', self.host),
                ('i', &self.local.user_id),
                ('j', self.jump),
                ('k', self.key_alias),
                ('l', &self.local.host_name),
                ('n', self.alias),
                ('p', &self.port),
                ('r', self.user),
                ('u', &self.local.user),
            ],
        }
    }

    /// For proxies.
    fn for_routes(&self) -> Tokens<'_> {
        Tokens {
            known: vec![
                ('h', self.host),
                ('n', self.alias),
                ('p', &self.port),
                ('r', self.user),
            ],
        }
    }

    fn path(&self, text: &str) -> Result<PathBuf, ExpandError> {
        let text = tilde(text, self.local)?;
        let path = self.for_paths().percent_and_dollar(&text, self.local)?;
        Ok(path.into())
    }

    /// `none` is no file.
    fn paths(&self, texts: &[String]) -> Result<Vec<PathBuf>, (String, ExpandError)> {
        let wanted = texts.iter().filter(|text| !is_none(text));
        wanted
            .map(|text| self.path(text).map_err(|error| (text.clone(), error)))
            .collect()
    }
}

/// What the options mean for the host that was named.
pub(super) fn resolve(
    options: Options,
    named: &Host,
    local: &Local,
    warnings: Vec<Warning>,
) -> Result<HostConfig, ConfigError> {
    let host = host_name(&options, named.as_str())?;
    let unusable = |keyword, value: &str, source: ValueError| ConfigError::Value {
        host: named.to_string(),
        keyword,
        value: value.to_owned(),
        source: Box::new(source),
    };
    let user: Option<User> = match &options.user {
        Some(user) => Some(
            user.parse()
                .map_err(|error| unusable("User", user, ValueError::Name(error)))?,
        ),
        None => None,
    };
    let jump = options.proxy_jump.as_deref().filter(|jump| !is_none(jump));
    let port = options.port.unwrap_or(DEFAULT_PORT).to_string();
    let user_name = user.as_ref().map_or(local.user.as_str(), User::as_str);
    // What ssh takes for a name in known_hosts is in small letters, in `%k` as well.
    let key_alias = options
        .host_key_alias
        .as_deref()
        .map(str::to_ascii_lowercase);
    let names = Names {
        alias: named.as_str(),
        host: host.as_str(),
        user: user_name,
        key_alias: key_alias.as_deref().unwrap_or(named.as_str()),
        jump: jump.unwrap_or_default(),
        home: local
            .home
            .as_ref()
            .map(|home| home.to_string_lossy().into_owned())
            .unwrap_or_default(),
        hash: connection_hash(
            local,
            host.as_str(),
            &port,
            user_name,
            jump.unwrap_or_default(),
        ),
        port,
        local,
    };
    let files = |keyword, texts: &[String]| {
        let paths = names.paths(texts);
        paths.map_err(|(text, error)| unusable(keyword, &text, error.into()))
    };
    let proxy = proxy(&options, named, &names)
        .map_err(|(keyword, text, source)| unusable(keyword, &text, source))?;
    let global_known_hosts = match &options.global_known_hosts {
        Some(texts) => {
            let mut paths = Vec::new();
            for text in texts.iter().filter(|text| !is_none(text)) {
                let path = tilde(text, local)
                    .map_err(|error| unusable("GlobalKnownHostsFile", text, error.into()))?;
                paths.push(path.into());
            }
            Some(paths)
        }
        None => None,
    };
    let user_known_hosts = match &options.user_known_hosts {
        Some(texts) => Some(files("UserKnownHostsFile", texts)?),
        None => None,
    };
    let identity_files = match options.identity_files.is_empty() {
        true => None,
        false => Some(files("IdentityFile", &options.identity_files)?),
    };
    let revoked_host_keys = match options
        .revoked_host_keys
        .as_ref()
        .filter(|text| !is_none(text))
    {
        Some(text) => Some(
            names
                .path(text)
                .map_err(|error| unusable("RevokedHostKeys", text, error.into()))?,
        ),
        None => None,
    };
    let identity_agent = match &options.identity_agent {
        Some(text) => Some(
            agent(text, &names).map_err(|error| unusable("IdentityAgent", text, error.into()))?,
        ),
        None => None,
    };
    let bind_address = match &options.bind_address {
        Some(text) => Some(
            text.parse()
                .map_err(|_| unusable("BindAddress", text, ValueError::Address))?,
        ),
        None => None,
    };
    let certificate_files = files("CertificateFile", &options.certificate_files)?;
    Ok(HostConfig {
        named: named.clone(),
        address_family: options.address_family,
        batch_mode: options.batch_mode,
        bind_address,
        ca_signature_algorithms: options.ca_signature_algorithms,
        certificate_files,
        ciphers: options.ciphers,
        compression: options.compression,
        connect_timeout: options.connect_timeout.filter(|time| !time.is_zero()),
        connection_attempts: options.connection_attempts.filter(|count| *count > 0),
        global_known_hosts,
        hash_known_hosts: options.hash_known_hosts,
        host_key_algorithms: options.host_key_algorithms,
        host_key_alias: key_alias,
        identities_only: options.identities_only,
        identity_agent,
        identity_files,
        kbd_interactive_authentication: options.kbd_interactive_authentication,
        kex_algorithms: options.kex_algorithms,
        macs: options.macs,
        password_authentication: options.password_authentication,
        password_prompts: options.password_prompts,
        port: options.port,
        preferred_authentications: options.preferred_authentications.map(|list| {
            list.split(',')
                .map(|method| method.trim().to_owned())
                .collect()
        }),
        proxy,
        pubkey_accepted_algorithms: options.pubkey_accepted_algorithms,
        pubkey_authentication: options.pubkey_authentication,
        rekey_bytes: options.rekey_bytes.filter(|bytes| *bytes > 0),
        rekey_interval: options.rekey_interval.filter(|time| !time.is_zero()),
        required_rsa_size: options.required_rsa_size,
        revoked_host_keys,
        send_env: options.send_env,
        server_alive_count_max: options.server_alive_count_max,
        server_alive_interval: options.server_alive_interval,
        set_env: options.set_env,
        strict_host_key_checking: options.strict_host_key_checking,
        update_host_keys: options.update_host_keys,
        user,
        user_known_hosts,
        warnings,
        host,
    })
}

fn is_none(text: &str) -> bool {
    text.eq_ignore_ascii_case("none")
}

type Wrong = (&'static str, String, ValueError);

fn proxy(options: &Options, named: &Host, names: &Names<'_>) -> Result<Option<ProxyChoice>, Wrong> {
    if let Some(text) = &options.proxy_jump {
        if is_none(text) {
            return Ok(Some(ProxyChoice::None));
        }
        let wrong = |source| ("ProxyJump", text.clone(), source);
        let expanded = names
            .for_routes()
            .percent(text)
            .map_err(|error| wrong(error.into()))?;
        let jumps = JumpHost::list(&expanded).map_err(wrong)?;
        return Ok(Some(ProxyChoice::Jump(jumps)));
    }
    let Some(text) = &options.proxy_command else {
        return Ok(None);
    };
    if is_none(text) {
        return Ok(Some(ProxyChoice::None));
    }
    let command: ProxyCommand = text
        .parse()
        .map_err(|error: CommandError| ("ProxyCommand", text.clone(), error.into()))?;
    Ok(Some(ProxyChoice::Command(command.named(named.clone()))))
}

fn agent(text: &str, names: &Names<'_>) -> Result<AgentChoice, ExpandError> {
    if is_none(text) {
        return Ok(AgentChoice::None);
    }
    let variable = match text.strip_prefix('$') {
        Some(name) if !name.starts_with('{') => name,
        None if text == "SSH_AUTH_SOCK" => text,
        _ => return Ok(AgentChoice::At(names.path(text)?)),
    };
    Ok(
        match names
            .local
            .variable(variable)
            .filter(|path| !path.is_empty())
        {
            Some(path) => AgentChoice::At(path.into()),
            None => AgentChoice::None,
        },
    )
}

impl JumpHost {
    /// Reads hosts as `ProxyJump` has them: `[user@]host[:port]` or `ssh://[user@]host[:port]`,
    /// separated by commas, the first to be reached first.
    ///
    /// # Errors
    /// [`ValueError::Jump`], [`ValueError::Name`].
    pub fn list(text: &str) -> Result<Vec<Self>, ValueError> {
        let hosts: Vec<_> = text.split(',').map(|host| Self::one(host.trim())).collect();
        if hosts.len() > JUMPS_MAX {
            return Err(ValueError::Jump(JUMPS_MAX));
        }
        hosts.into_iter().collect()
    }

    fn one(text: &str) -> Result<Self, ValueError> {
        let malformed = || ValueError::Jump(JUMPS_MAX);
        let text = text.strip_prefix("ssh://").unwrap_or(text);
        let text = text.strip_suffix('/').unwrap_or(text);
        let (user, host) = match text.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, text),
        };
        let (host, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(malformed)?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':').ok_or_else(malformed)?),
                };
                (host, port)
            }
            // More than one colon without brackets is an IPv6 address.
            None if host.matches(':').count() > 1 => (host, None),
            None => match host.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host, None),
            },
        };
        let port = match port {
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                Some(port.ok_or_else(malformed)?)
            }
            Some(_) => return Err(malformed()),
            None => None,
        };
        Ok(Self {
            user: user.map(str::parse).transpose()?,
            host: host.parse()?,
            port,
        })
    }
}
