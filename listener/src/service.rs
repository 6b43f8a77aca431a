//! A listener as a service: a file, a [`Daemon`], and the signals that systemd and people send.
//!
//! | signal | what it does |
//! | --- | --- |
//! | SIGHUP | the file is read again; flows that changed are started anew; a file with a mistake changes nothing |
//! | SIGTERM, SIGINT | nothing new is begun, and what is under way ends; a second one does not wait for that |
//!
//! Signals are no more than events of the runtime: nothing runs in a handler. Whoever started the
//! service is told by a datagram to `$NOTIFY_SOCKET` that it is there (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use ketch_settings::Faults;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::config::{ListenerFile, Setup};
use crate::daemon::{Daemon, DaemonError, Reloaded};

/// How long flows that stop are waited for beyond the time that the file gives them.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why a service did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] Faults),
    /// The world is: the ledger is in use, an address is taken.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// Signals cannot be waited for, or a thread failed.
    #[error("cannot run as a service")]
    System(#[source] io::Error),
}

/// Runs what the file at `path` says until a signal says to end. `say` gets what is to be told to
/// whoever runs it, a line at a time; file names in it are escaped.
///
/// # Errors
/// [`ServiceError`] if it cannot start; later there are events and the log.
pub async fn run(path: &Path, say: impl Fn(&str)) -> Result<(), ServiceError> {
    // Before anybody is told that the service is there.
    let mut reload = signals(SignalKind::hangup())?;
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let setup = read(path).await.map_err(ServiceError::System)??;
    let drain = setup.drain;
    let mut counted = counted(&setup);
    let unchanged = Unchanged::of(&setup);
    let daemon = Daemon::start(setup).await?;
    say(&counted);
    tell_down(&daemon.down(), &say);
    if let Some(address) = daemon.api_address() {
        say(&format!("API on {address}"));
    }
    notify("READY=1");
    let mut reading: Option<Reading> = None;
    // A reload may wait for a ledger that is away; whoever wants an end does not wait with it.
    let mut reloading: Option<Reloading<'_>> = None;
    loop {
        tokio::select! {
            Some(()) = reload.recv(), if reading.is_none() && reloading.is_none() => {
                reading = Some(begin(path));
            }
            read = finished(&mut reading) => {
                reading = None;
                match read {
                    Err(error) => say(&format!("nothing was reloaded: {error}")),
                    Ok(Err(faults)) => {
                        faults.to_string().lines().for_each(&say);
                        say("nothing was reloaded");
                    }
                    Ok(Ok(setup)) => {
                        counted = self::counted(&setup);
                        if unchanged != Unchanged::of(&setup) {
                            say("`state`, `store` and `api` were changed: that counts from the next start");
                        }
                        reloading = Some(Box::pin(daemon.reload(setup)));
                    }
                }
            }
            done = reloaded(&mut reloading) => {
                reloading = None;
                let (started, stopped) = (done.started.len(), done.stopped.len());
                say(&format!("reloaded: {counted}; {started} started, {stopped} stopped"));
                tell_down(&done.down, &say);
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notify("STOPPING=1");
    say("stopping");
    let stopped = async {
        if let Some(reloading) = reloading {
            reloading.await;
        }
        daemon.stop().await;
    };
    tokio::select! {
        ended = timeout(drain + STOP_GRACE, stopped) => {
            if ended.is_err() {
                say("stopped in the middle of what was under way: it goes on with the next start");
            }
        }
        _ = terminate.recv() => say("stopped at once"),
        _ = interrupt.recv() => say("stopped at once"),
    }
    Ok(())
}

/// What a file says, or what is wrong with it, once a thread has read it.
type Reading = JoinHandle<Result<Setup, Faults>>;

/// Reads a file where it may block: keys with passphrases take their time.
fn begin(path: &Path) -> Reading {
    let path: PathBuf = path.to_owned();
    spawn_blocking(move || ListenerFile::read(path)?.setup())
}

async fn read(path: &Path) -> io::Result<Result<Setup, Faults>> {
    Ok(begin(path).await?)
}

/// Waits for ever if nothing is read.
async fn finished(reading: &mut Option<Reading>) -> io::Result<Result<Setup, Faults>> {
    match reading {
        Some(reading) => Ok(reading.await?),
        None => std::future::pending().await,
    }
}

/// Flows that are being brought in line with a file.
type Reloading<'a> = Pin<Box<dyn Future<Output = Reloaded> + Send + 'a>>;

/// Waits for ever if nothing is reloaded.
async fn reloaded(reloading: &mut Option<Reloading<'_>>) -> Reloaded {
    match reloading {
        Some(reloading) => reloading.await,
        None => std::future::pending().await,
    }
}

/// What a reload does not change.
#[derive(Debug, Eq, PartialEq)]
struct Unchanged {
    state: PathBuf,
    ledger: Option<String>,
    api: Option<(std::net::SocketAddr, Option<String>)>,
}

impl Unchanged {
    fn of(setup: &Setup) -> Self {
        use crate::config::Ledger;

        Self {
            state: setup.state.clone(),
            ledger: match &setup.ledger {
                Ledger::Sqlite(_) => None,
                Ledger::Postgres { connect } => Some(connect.to_string()),
            },
            api: setup.api.as_ref().map(|api| {
                let token = api.token.as_ref().map(|token| token.to_string());
                (api.listen, token)
            }),
        }
    }
}

fn counted(setup: &Setup) -> String {
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let (sources, flows) = (setup.sources.len(), setup.flows.len());
    format!("{} from {}", many(flows, "flow"), many(sources, "source"))
}

fn signals(kind: SignalKind) -> Result<Signal, ServiceError> {
    signal(kind).map_err(ServiceError::System)
}

/// Tells the service manager, if there is one; it may not care.
fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let from = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let [b'@', name @ ..] = socket.as_encoded_bytes() {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return from.send_to_addr(state.as_bytes(), &address).map(drop);
    }
    from.send_to(state.as_bytes(), Path::new(socket)).map(drop)
}

/// Tells which flows do not run.
fn tell_down(down: &[(String, String)], say: &impl Fn(&str)) {
    for (flow, reason) in down {
        say(&format!(
            "flow {flow} does not run: {reason}; it is tried again by itself"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_gets_a_datagram() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        send(path.as_os_str(), "READY=1").expect("it is sent");
        let mut got = [0; 32];
        let len = manager.recv(&mut got).expect("it comes");
        assert_eq!(got.get(..len), Some(&b"READY=1"[..]));
        assert!(send(dir.path().join("none").as_os_str(), "READY=1").is_err());
    }
}
