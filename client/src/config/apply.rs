//! What a configuration means for a connection: each value finds its place in [`Connect`].

use std::time::Duration;

use ketch_transport::algorithm::{CipherName, Compression, Kex, MacName, SignatureAlgorithm};
use ketch_transport::profile::{Preferences, Profile};

use super::error::{ConfigError, ValueError, Warning};
use super::pattern;
use super::{
    AlgorithmSpec, HostConfig, HostKeyChecking, JUMPS_MAX, JumpHost, ProxyChoice, SshConfig,
    UpdateHostKeys,
};
use crate::connect::{Connect, DEFAULT_PORT, Timeouts};
use crate::destination::{Host, User};
use crate::hostkey::{HostKeyPolicy, HostKeys};
use crate::route::Route;

impl SshConfig {
    /// The configurations of all servers on the way to `host`, in the order in which they are
    /// passed, that of `host` last. Each is looked up by its own name, without the options given to
    /// [`SshConfig::option`], as `ssh -J` does it; the first may have jump hosts of its own, which
    /// come before it.
    ///
    /// # Errors
    /// [`ConfigError`]; [`ValueError::Jump`] also if the way is longer than [`JUMPS_MAX`].
    pub fn hops(
        &self,
        host: &Host,
        user: Option<&User>,
        port: Option<u16>,
    ) -> Result<Vec<HostConfig>, ConfigError> {
        let last = self.resolve(host, user, port)?;
        self.hops_to(last)
    }

    /// As [`SshConfig::hops`], through these servers, whatever the configuration says of `host`.
    ///
    /// # Errors
    /// As [`SshConfig::hops`].
    pub fn hops_through(
        &self,
        jumps: Vec<JumpHost>,
        host: &Host,
        user: Option<&User>,
        port: Option<u16>,
    ) -> Result<Vec<HostConfig>, ConfigError> {
        let mut last = self.resolve(host, user, port)?;
        last.proxy = Some(ProxyChoice::Jump(jumps));
        self.hops_to(last)
    }

    fn hops_to(&self, last: HostConfig) -> Result<Vec<HostConfig>, ConfigError> {
        let of_hops = Self {
            options: Vec::new(),
            ..self.clone()
        };
        let mut way = vec![last];
        loop {
            let Some(ProxyChoice::Jump(jumps)) = way.first().and_then(|first| first.proxy.as_ref())
            else {
                return Ok(way);
            };
            if way.len() + jumps.len() > JUMPS_MAX + 1 {
                // Two hosts, each on the way to the other, would go on for ever.
                return Err(ConfigError::Value {
                    host: way
                        .last()
                        .map(|last| last.named.to_string())
                        .unwrap_or_default(),
                    keyword: "ProxyJump",
                    value: jumps
                        .iter()
                        .map(|jump| jump.host.as_str())
                        .collect::<Vec<_>>()
                        .join(","),
                    source: Box::new(ValueError::Jump(JUMPS_MAX)),
                });
            }
            let mut before = Vec::new();
            for (at, jump) in jumps.iter().enumerate() {
                let mut config = of_hops.resolve(&jump.host, jump.user.as_ref(), jump.port)?;
                if at > 0 {
                    config.proxy = None; // the one before it is its way
                }
                before.push(config);
            }
            if before.is_empty() {
                return Ok(way);
            }
            before.append(&mut way);
            way = before;
        }
    }
}

impl Connect {
    /// A connection as a configuration has it, `before` being the connections to the servers that
    /// are passed on the way ([`SshConfig::hops`]).
    ///
    /// Nothing to log in with is set: keys may need a passphrase, and whom to ask is for the
    /// program to say. Algorithms come from the default profile, changed as the configuration has
    /// it; [`HostConfig::preferences`] and [`Connect::preferences`] take another.
    ///
    /// # Errors
    /// [`ConfigError::Value`] where no algorithm is left of a list.
    pub fn from_config(config: &HostConfig, before: Vec<Self>) -> Result<Self, ConfigError> {
        let preferences = config.preferences(Profile::default().for_client())?;
        let mut connect = Self::to(config.host.as_str())
            .port(config.port.unwrap_or(DEFAULT_PORT))
            .host_keys(config.host_keys()?)
            .timeouts(config.timeouts(Timeouts::default()))
            .preferences(preferences)
            .keep_host_key_order(
                config
                    .host_key_algorithms
                    .as_ref()
                    .is_some_and(AlgorithmSpec::sets_order),
            );
        if let Some(user) = &config.user {
            connect = connect.user(user.as_str());
        }
        if let Some(bytes) = config.rekey_bytes {
            connect = connect.rekey_bytes(bytes);
        }
        if let Some(interval) = config.rekey_interval {
            connect = connect.rekey_interval(interval);
        }
        if let Some(family) = config.address_family {
            connect = connect.address_family(family);
        }
        if let Some(address) = config.bind_address {
            connect = connect.bind_address(address);
        }
        if let Some(attempts) = config.connection_attempts {
            connect = connect.connection_attempts(attempts);
        }
        Ok(match &config.proxy {
            Some(ProxyChoice::Command(command)) if before.is_empty() => {
                connect.route(Route::Command(command.clone()))
            }
            // Without hops it is refused when it is to be gone: never a way that nobody asked for.
            Some(ProxyChoice::Jump(_)) => connect.route(Route::Jump(before)),
            _ if !before.is_empty() => connect.route(Route::Jump(before)),
            _ => connect,
        })
    }
}

impl HostConfig {
    /// The algorithms of `base`, changed as the configuration has it.
    ///
    /// Names that ketch does not have are left out; [`HostConfig::warnings`] tells of them.
    ///
    /// # Errors
    /// [`ConfigError::Value`] where nothing is left of a list.
    pub fn preferences(&self, base: Preferences) -> Result<Preferences, ConfigError> {
        let mut preferences = base;
        let Preferences {
            kex,
            host_key,
            user_key,
            cipher,
            mac,
            compression,
            rsa_bits_min,
            ..
        } = &mut preferences;
        self.choose(
            "KexAlgorithms",
            &self.kex_algorithms,
            kex,
            Kex::ALL,
            Kex::name,
        )?;
        self.choose(
            "Ciphers",
            &self.ciphers,
            cipher,
            CipherName::ALL,
            CipherName::name,
        )?;
        self.choose("MACs", &self.macs, mac, MacName::ALL, MacName::name)?;
        let (all, name) = (SignatureAlgorithm::ALL, SignatureAlgorithm::name);
        self.choose(
            "HostKeyAlgorithms",
            &self.host_key_algorithms,
            host_key,
            all,
            name,
        )?;
        let accepted = &self.pubkey_accepted_algorithms;
        self.choose("PubkeyAcceptedAlgorithms", accepted, user_key, all, name)?;
        match self.compression {
            Some(true) => *compression = vec![Compression::ZlibOpenSsh, Compression::None],
            Some(false) => *compression = vec![Compression::None],
            None => {}
        }
        if let Some(bits) = self.required_rsa_size {
            // It may ask for more than the profile does, never for less.
            *rsa_bits_min = bits.max(*rsa_bits_min);
        }
        Ok(preferences)
    }

    /// The names in lists of algorithms that stand for nothing here.
    pub(super) fn skipped_algorithms(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut note = |keyword, skipped: Option<Vec<String>>| {
            if let Some(names) = skipped.filter(|names| !names.is_empty()) {
                warnings.push(Warning::Algorithms { keyword, names });
            }
        };
        let skipped = |spec: &AlgorithmSpec| spec.choose(Kex::ALL, Kex::ALL, Kex::name).skipped;
        note("KexAlgorithms", self.kex_algorithms.as_ref().map(skipped));
        let all = CipherName::ALL;
        let skipped = |spec: &AlgorithmSpec| spec.choose(all, all, CipherName::name).skipped;
        note("Ciphers", self.ciphers.as_ref().map(skipped));
        let all = MacName::ALL;
        let skipped = |spec: &AlgorithmSpec| spec.choose(all, all, MacName::name).skipped;
        note("MACs", self.macs.as_ref().map(skipped));
        let all = SignatureAlgorithm::ALL;
        let skipped =
            |spec: &AlgorithmSpec| spec.choose(all, all, SignatureAlgorithm::name).skipped;
        for (keyword, spec) in [
            ("HostKeyAlgorithms", &self.host_key_algorithms),
            ("PubkeyAcceptedAlgorithms", &self.pubkey_accepted_algorithms),
            ("CASignatureAlgorithms", &self.ca_signature_algorithms),
        ] {
            note(keyword, spec.as_ref().map(skipped));
        }
        warnings
    }

    fn choose<T: Copy + PartialEq>(
        &self,
        keyword: &'static str,
        spec: &Option<AlgorithmSpec>,
        list: &mut Vec<T>,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Result<(), ConfigError> {
        let Some(spec) = spec else {
            return Ok(());
        };
        let chosen = spec.choose(list, all, name);
        if chosen.algorithms.is_empty() {
            return Err(ConfigError::Value {
                host: self.named.to_string(),
                keyword,
                value: spec.as_str().to_owned(),
                source: Box::new(ValueError::NoAlgorithm),
            });
        }
        *list = chosen.algorithms;
        Ok(())
    }

    /// Who the host has to be. Whom to ask about unknown ones is for the program to say
    /// ([`HostKeys::ask`]).
    ///
    /// `StrictHostKeyChecking no` is taken for `accept-new`: a changed key is refused all the same.
    /// What no line speaks of is asked about, and hosts' keys are kept up with in the usual file, as
    /// with OpenSSH; `UpdateHostKeys ask` does nothing.
    ///
    /// # Errors
    /// [`ConfigError::Value`] where no algorithm is left for authorities.
    pub fn host_keys(&self) -> Result<HostKeys, ConfigError> {
        let policy = match self.strict_host_key_checking {
            Some(HostKeyChecking::Yes) => HostKeyPolicy::Strict,
            Some(HostKeyChecking::AcceptNew | HostKeyChecking::Off) => HostKeyPolicy::AcceptNew,
            Some(HostKeyChecking::Ask) | None => HostKeyPolicy::Ask,
        };
        let mut keys = HostKeys::known_hosts()
            .policy(policy)
            .hash_names(self.hash_known_hosts.unwrap_or(false))
            .keep_up(match self.update_host_keys {
                Some(wanted) => wanted == UpdateHostKeys::Yes,
                // As with OpenSSH: files of somebody's own are changed by those who say so.
                None => self.user_known_hosts.is_none(),
            });
        if let Some(files) = &self.user_known_hosts {
            keys = keys.user_files(files);
        }
        if let Some(files) = &self.global_known_hosts {
            keys = keys.machine_files(files);
        }
        if let Some(alias) = &self.host_key_alias {
            keys = keys.alias(alias);
        }
        if let Some(list) = &self.revoked_host_keys {
            keys = keys.revoked(list);
        }
        if self.ca_signature_algorithms.is_some() {
            let sound = |each: &SignatureAlgorithm| {
                !each.is_certificate() && *each != SignatureAlgorithm::RsaSha1
            };
            let all = SignatureAlgorithm::ALL.iter().copied().filter(sound);
            let all: Vec<_> = all.collect();
            let mut chosen = all.clone();
            self.choose(
                "CASignatureAlgorithms",
                &self.ca_signature_algorithms,
                &mut chosen,
                &all,
                SignatureAlgorithm::name,
            )?;
            keys = keys.authority_algorithms(chosen);
        }
        Ok(keys)
    }

    /// Whether `SendEnv` names a variable of the environment.
    #[must_use]
    pub fn sends_variable(&self, name: &str) -> bool {
        self.send_env
            .iter()
            .any(|pattern| pattern::matches(pattern, name))
    }

    /// The deadlines of `base`, changed as the configuration has it.
    #[must_use]
    pub fn timeouts(&self, base: Timeouts) -> Timeouts {
        let mut timeouts = base;
        if let Some(time) = self.connect_timeout {
            (timeouts.tcp, timeouts.proxy, timeouts.handshake) = (time, time, time);
        }
        if let Some(interval) = self.server_alive_interval {
            timeouts.keepalive = (interval > Duration::ZERO).then_some(interval);
        }
        if let Some(count) = self.server_alive_count_max {
            timeouts.keepalives_max = count;
        }
        timeouts
    }
}
