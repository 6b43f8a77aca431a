//! How every command that talks to a server gets its session.

use std::time::Duration;

use ketch_client::connect::ConnectError;
use ketch_client::hostkey::{HostKeyPolicy, HostKeys};
use ketch_client::identity::Identity;
use ketch_client::{Connect, Session, Timeouts};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::plan::Connection;
use crate::prompt;

/// The command's runtime has one thread and one connection, so it may block for so long.
const RECEIVE_PAUSE: Duration = Duration::from_micros(150);

/// How often the user may type the password.
const PASSWORD_TRIES_MAX: u32 = 3;

/// Connects and logs in: with the keys, then with the password from the file. If that does not
/// do, a user at a terminal is asked for a password.
///
/// The question comes between two connections, not in the middle of one: the server's patience is
/// not used up while somebody thinks. Nothing is asked before the host key was accepted once,
/// unless there is nothing else to log in with.
pub(crate) async fn session(connection: &Connection) -> Result<Session, Failed> {
    let keys = identities(connection)?;
    let file = match &connection.password_file {
        Some(path) => Some(prompt::password_from(path)?),
        None => None,
    };
    let mut failed = match connect(connection, &keys, file).connect().await {
        Ok(session) => return Ok(session),
        Err(error) => error,
    };
    for tries in 0..PASSWORD_TRIES_MAX {
        if !asks_for_password(&failed) {
            break;
        }
        let Some(password) = ask(connection, tries).await? else {
            break;
        };
        failed = match connect(connection, &[], Some(password)).connect().await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
    }
    Err(failed.into())
}

/// Whether a password could help.
fn asks_for_password(error: &ConnectError) -> bool {
    match error {
        ConnectError::NoCredentials { .. } => true,
        ConnectError::Auth { methods, .. } => methods.iter().any(|method| method == "password"),
        _ => false,
    }
}

async fn ask(connection: &Connection, tries: u32) -> Result<Option<Zeroizing<String>>, Failed> {
    if !connection.may_ask {
        return Ok(None);
    }
    let host = &connection.destination.host;
    let whose = match &connection.destination.user {
        Some(user) => format!("{user}@{host}"),
        None => host.to_string(),
    };
    let answer = spawn_blocking(move || prompt::password(&whose, tries)).await;
    answer.map_err(|_| Failed::Interrupted)
}

fn connect(
    connection: &Connection,
    keys: &[Identity],
    password: Option<Zeroizing<String>>,
) -> Connect {
    let host_keys = match &connection.known_hosts {
        Some(file) => HostKeys::files([file]),
        None => HostKeys::known_hosts(),
    };
    let policy = match connection.accept_new {
        true => HostKeyPolicy::AcceptNew,
        false => HostKeyPolicy::Strict,
    };
    let mut connect = Connect::to_destination(&connection.destination)
        .host_keys(host_keys.policy(policy))
        .receive_pause(RECEIVE_PAUSE)
        .timeouts(timeouts(connection));
    if !connection.ciphers.is_empty() {
        connect = connect.ciphers(connection.ciphers.clone());
    }
    for key in keys {
        connect = connect.identity(key.clone());
    }
    match password {
        Some(password) => connect.password(password),
        None => connect,
    }
}

fn timeouts(connection: &Connection) -> Timeouts {
    let mut timeouts = Timeouts::default();
    if let Some(time) = connection.connect_timeout {
        (timeouts.tcp, timeouts.handshake) = (time, time);
    }
    if let Some(time) = connection.timeout {
        timeouts.stall = time;
        // A connection with nothing under way is asked for signs of life as often.
        timeouts.keepalive = timeouts.keepalive.map(|usual| usual.min(time));
    }
    timeouts
}

fn identities(connection: &Connection) -> Result<Vec<Identity>, Failed> {
    let keys = match connection.identities.as_slice() {
        [] => Identity::from_default_files(),
        files => files
            .iter()
            .map(Identity::from_file)
            .collect::<Result<_, _>>()?,
    };
    let asking = |key: Identity| match connection.may_ask {
        true => key.passphrase(prompt::passphrase),
        false => key,
    };
    Ok(keys.into_iter().map(asking).collect())
}
