//! How every command that talks to a server gets its session.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ketch_client::agent::AgentPath;
use ketch_client::config::{AgentChoice, AlgorithmSpec, HostConfig};
use ketch_client::connect::ConnectError;
use ketch_client::hostkey::{HostKeyPolicy, HostKeys};
use ketch_client::identity::{Identity, IdentityError};
use ketch_client::memory::FileMemory;
use ketch_client::{
    Connect, Failure as _, Kind, Profile, PublicKey, Reconnect, Session, Sftp, Timeouts,
};
use tokio::task::spawn_blocking;

use crate::failed::Failed;
use crate::output::escaped;
use crate::plan::{Connection, Trust, cannot};
use crate::prompt;

/// The command's runtime has one thread and one connection, so it may block for so long.
const RECEIVE_PAUSE: Duration = Duration::from_micros(150);
/// Attempts to connect anew when the connection of a transfer was lost, and the longest pause
/// between them.
const ATTEMPTS_MAX: u32 = 6;
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Longest certificate file that is read, in bytes.
const CERTIFICATE_FILE_LEN_MAX: u64 = 64 * 1024;

/// Connects and logs in for SFTP: with keys and the agent, then with what a user at a terminal answers or
/// the password from the file.
pub(crate) async fn session(connection: &Connection) -> Result<Session, Failed> {
    let (session, _) =
        connected(connection, |connect| connect.for_sftp().reconnect(again())).await?;
    Ok(session)
}

/// As [`session`], with SFTP on it and what `first` asks of it: that leaves along with the login
/// where the server is known to bear it.
pub(crate) async fn sftp_with<A, F, T>(
    connection: &Connection,
    first: A,
) -> Result<(Session, Sftp, T), Failed>
where
    A: Fn(Sftp) -> F + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
    T: 'static,
{
    let way = way(connection).await?;
    let connect = connect(connection, &way)?.reconnect(again());
    let (sftp, answer) = connect
        .sftp_with(first)
        .await
        .map_err(|error| advised(error, connection))?;
    let session = sftp.session().cloned().ok_or_else(nowhere)?;
    tell_if_weak(&session);
    Ok((session, sftp, answer))
}

/// As [`session`], for commands that want something else than SFTP and have more to ask of the
/// server's settings.
pub(crate) async fn session_and_settings(
    connection: &Connection,
) -> Result<(Session, HostConfig), Failed> {
    connected(connection, |connect| connect).await
}

/// `purpose` says what the connection is for.
async fn connected(
    connection: &Connection,
    purpose: impl FnOnce(Connect) -> Connect,
) -> Result<(Session, HostConfig), Failed> {
    let mut way = way(connection).await?;
    let connecting = purpose(connect(connection, &way)?).connect();
    let session = connecting
        .await
        .map_err(|error| advised(error, connection))?;
    tell_if_weak(&session);
    Ok((session, way.pop().ok_or_else(nowhere)?))
}

fn tell_if_weak(session: &Session) {
    let weak = session.algorithms_beyond(Profile::Compat);
    if !weak.is_empty() {
        let (host, weak) = (session.host(), weak.join(", "));
        eprintln!("ketch: the connection to {host} is weak, whoever runs it should know: {weak}");
    }
}

/// How a transfer goes on whose connection was lost: somebody waits for it.
fn again() -> Reconnect {
    let mut policy = Reconnect::default();
    policy.spread = Duration::ZERO;
    policy.attempts = Some(ATTEMPTS_MAX);
    policy.max = PAUSE_MAX;
    policy
}

fn nowhere() -> Failed {
    Failed::Usage("there is no server to connect to".to_owned())
}

/// What the user of this program can do about it.
fn advised(error: ConnectError, connection: &Connection) -> Failed {
    let advice = match (error.kind(), connection.profile) {
        (Kind::Algorithm, Some(Profile::Modern | Profile::PqOnly)) => {
            "`--profile compat` offers more algorithms, `ketch algorithms` lists them"
        }
        (Kind::Algorithm, None | Some(Profile::Compat)) => {
            "an old server may need `--profile legacy`, which offers weak algorithms, too: \
             `ketch algorithms` lists them"
        }
        _ => return error.into(),
    };
    Failed::Advised {
        error: Box::new(error),
        advice,
    }
}

/// The connection to the server, and those to the servers before it.
fn connect(connection: &Connection, way: &[HostConfig]) -> Result<Connect, Failed> {
    let (target, before) = way.split_last().ok_or_else(nowhere)?;
    let mut hops = Vec::with_capacity(before.len());
    for config in before {
        let hop = Connect::from_config(config, Vec::new())?;
        hops.push(common(hop, connection, config, &[])?);
    }
    let profile = connection.profile.unwrap_or_default();
    let mut connect = Connect::from_config(target, hops)?
        .preferences(target.preferences(profile.for_client())?)
        .receive_pause(RECEIVE_PAUSE);
    if let Some(proxy) = &connection.proxy {
        let password = match &connection.proxy_password_file {
            Some(path) => Some(prompt::password_from(path)?),
            None => None,
        };
        connect = connect.route(proxy.route(password));
    }
    if let Some(path) = &connection.password_file {
        connect = connect.password(prompt::password_from(path)?);
    }
    common(connect, connection, target, &connection.identities)
}

/// What holds for the server and for those on the way to it: whom to trust, how to log in, whom to
/// ask.
fn common(
    mut connect: Connect,
    connection: &Connection,
    config: &HostConfig,
    typed: &[PathBuf],
) -> Result<Connect, Failed> {
    connect = connect
        .host_keys(host_keys(connection, config)?)
        .timeouts(timeouts(connection, config))
        .on_banner(prompt::show_banner);
    if let Some(memory) = FileMemory::of_user().filter(|_| connection.has_memory) {
        connect = connect.host_memory(Arc::new(memory));
    }
    if takes(config, "publickey", config.pubkey_authentication) {
        for key in identities(connection, config, typed)? {
            connect = connect.identity(key);
        }
        if let Some(agent) = agent(connection, config) {
            connect = connect
                .agent(agent)
                .identities_only(config.identities_only == Some(true));
        }
    }
    if !may_ask(connection, config) {
        return Ok(connect);
    }
    if takes(
        config,
        "keyboard-interactive",
        config.kbd_interactive_authentication,
    ) {
        connect = connect.ask_questions(prompt::answers);
    }
    if takes(config, "password", config.password_authentication) {
        connect = connect.ask_password(prompt::password);
    }
    Ok(connect)
}

/// Whether the configuration lets a method be used.
fn takes(config: &HostConfig, method: &str, allowed: Option<bool>) -> bool {
    let preferred = config.preferred_authentications.as_ref();
    allowed != Some(false) && preferred.is_none_or(|list| list.iter().any(|each| each == method))
}

/// The configurations of the servers on the way, the target's last with what was typed in place
/// of what it said.
async fn way(connection: &Connection) -> Result<Vec<HostConfig>, Failed> {
    let destination = connection.destination.clone();
    let config = connection.config.clone();
    let (jump, has_proxy) = (connection.jump.clone(), connection.proxy.is_some());
    let resolved = spawn_blocking(move || {
        let user = destination.user.as_ref();
        let (host, port) = (&destination.host, destination.port);
        match jump {
            Some(jump) => config.hops_through(jump, host, user, port),
            None if has_proxy => config.resolve(host, user, port).map(|mut target| {
                target.proxy = None;
                vec![target]
            }),
            None => config.hops(host, user, port),
        }
    });
    let mut way = resolved.await.map_err(|_| Failed::Interrupted)??;
    for warning in way.iter().flat_map(|config| &config.warnings) {
        let text = escaped(warning.to_string().as_bytes());
        eprintln!("ketch: {text}");
    }
    for config in &mut way {
        // TCP leads to the first of them alone, whichever that is.
        config.address_family = connection.address_family.or(config.address_family);
        config.bind_address = connection.bind_address.or(config.bind_address);
    }
    if let Some(target) = way.last_mut() {
        let typed = &connection.algorithms;
        let replace = |list: &mut Option<AlgorithmSpec>, typed: &Option<AlgorithmSpec>| {
            if typed.is_some() {
                list.clone_from(typed);
            }
        };
        replace(&mut target.ciphers, &typed.cipher);
        replace(&mut target.macs, &typed.mac);
        replace(&mut target.kex_algorithms, &typed.kex);
        replace(&mut target.host_key_algorithms, &typed.host_key);
        if typed.compression {
            target.compression = Some(true);
        }
    }
    Ok(way)
}

fn may_ask(connection: &Connection, config: &HostConfig) -> bool {
    connection.may_ask && config.batch_mode != Some(true)
}

fn host_keys(connection: &Connection, config: &HostConfig) -> Result<HostKeys, Failed> {
    let mut keys = config.host_keys()?;
    if let Some(file) = &connection.known_hosts {
        keys = keys.user_files([file]).machine_files([""; 0]);
    }
    match connection.trust {
        Trust::AnyHost => return Ok(HostKeys::danger_accept_any_host()),
        Trust::AcceptNew => keys = keys.policy(HostKeyPolicy::AcceptNew),
        Trust::Configured => {}
    }
    Ok(
        match may_ask(connection, config) && prompt::has_terminal() {
            true => keys.ask(prompt::confirm_host),
            false => keys,
        },
    )
}

fn timeouts(connection: &Connection, config: &HostConfig) -> Timeouts {
    let mut timeouts = config.timeouts(Timeouts::default());
    if let Some(time) = connection.connect_timeout {
        (timeouts.tcp, timeouts.proxy, timeouts.handshake) = (time, time, time);
    }
    if let Some(time) = connection.timeout {
        timeouts.stall = time;
        // A connection with nothing under way is asked for signs of life as often.
        timeouts.keepalive = timeouts.keepalive.map(|usual| usual.min(time));
    }
    timeouts
}

/// The agent that was named, or that the environment knows.
fn agent(connection: &Connection, config: &HostConfig) -> Option<AgentPath> {
    match &connection.agent {
        Some(path) if path.as_os_str() == "none" => None,
        Some(path) => Some(AgentPath::Socket(path.clone())),
        None => match &config.identity_agent {
            Some(AgentChoice::None) => None,
            Some(AgentChoice::At(path)) => Some(AgentPath::Socket(path.clone())),
            None => std::env::var_os("SSH_AUTH_SOCK").map(|_| AgentPath::Environment),
        },
    }
}

/// The keys to log in with: those that were typed, which have to be good, or else those of the
/// configuration, of which not all have to be there, or else the usual ones.
fn identities(
    connection: &Connection,
    config: &HostConfig,
    typed: &[PathBuf],
) -> Result<Vec<Identity>, Failed> {
    let mut keys = Vec::new();
    for file in typed {
        keys.push(Identity::from_file(file)?);
    }
    if typed.is_empty() {
        match &config.identity_files {
            Some(files) => {
                for file in files {
                    keys.extend(existing(Identity::from_file(file))?);
                }
            }
            None => keys = Identity::from_default_files(),
        }
    }
    for file in &config.certificate_files {
        certify(&mut keys, file)?;
    }
    let asking = |key: Identity| match may_ask(connection, config) {
        true => key.passphrase(prompt::passphrase),
        false => key,
    };
    Ok(keys.into_iter().map(asking).collect())
}

/// A key that may be missing.
fn existing(key: Result<Identity, IdentityError>) -> Result<Option<Identity>, Failed> {
    match key {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives a certificate to the key that it is for; one for none of them is for a key of the agent.
fn certify(keys: &mut Vec<Identity>, file: &Path) -> Result<(), Failed> {
    use std::io::Read as _;
    let read = || -> io::Result<String> {
        let mut line = String::new();
        let file = std::fs::File::open(file)?;
        file.take(CERTIFICATE_FILE_LEN_MAX)
            .read_to_string(&mut line)?;
        Ok(line)
    };
    let line = match read() {
        Ok(line) => line,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot("read the certificate", file, error)),
    };
    let certificate = PublicKey::from_line(line.trim())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        .map_err(|error| cannot("use the certificate", file, error))?;
    let mut is_taken = false;
    for key in keys.iter_mut() {
        if let Ok(certified) = key.clone().certificate(certificate.clone()) {
            *key = certified;
            is_taken = true;
        }
    }
    if !is_taken {
        keys.push(Identity::from_public_key(&certificate));
    }
    Ok(())
}
