//! `ketch serve --config`: the server of a file, which SIGHUP has read again.
//!
//! Signals are no more than events of the runtime: nothing runs in a handler. While a file is read,
//! further SIGHUPs are one, which comes after it; SIGTERM and SIGINT are heard all the time.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ketch_server::{FileFaults, Server, ServerFile};
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use super::ending::{finish, told};
use super::records::Records;
use super::run::{cannot_start, cannot_tell, say, signals, warn_of_root};
use crate::args::RecordArgs;
use crate::cmd::keys;
use crate::failed::Failed;

/// Says all that is wrong with a file.
pub(super) fn check(path: &Path) -> Result<(), Failed> {
    let file = ServerFile::read(path).map_err(wrong)?;
    file.check().map_err(wrong)?;
    say(&[("right:", &counted(&file))])
}

/// Serves what a file says until a signal says to end; connections then have a moment to finish.
pub(super) async fn serve(path: PathBuf, records: &RecordArgs) -> Result<(), Failed> {
    let file = ServerFile::read(&path).map_err(wrong)?;
    let builder = file.builder().map_err(wrong)?;
    let records = Records::open(records, Some(&file)).await?;
    let server = records.observe(builder).build().map_err(cannot_start)?;
    // They are listened to before anybody is told that the server is there.
    let mut reload = signals(SignalKind::hangup())?;
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut listeners = Vec::new();
    for address in file.listen() {
        let cannot = |error| cannot_listen(*address, error);
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        listeners.push((listener.local_addr().map_err(cannot)?, listener));
    }
    tell(&file, &server, &listeners, records.address());
    warn_of_root();
    let audit = records.audit();
    let mut watching = std::pin::pin!(records.serve(server.clone()));

    let mut serving = JoinSet::new();
    for (address, listener) in listeners {
        let server = server.clone();
        serving.spawn(async move {
            let served = server.serve(listener).await;
            served.map_err(|error| cannot_listen(address, error))
        });
    }
    let mut is_watched = true;
    let mut reading: Option<JoinHandle<Vec<String>>> = None;
    let result = loop {
        tokio::select! {
            Some(ended) = serving.join_next() => break over(ended),
            result = &mut watching => {
                is_watched = false;
                break result.map_err(cannot_tell);
            }
            Some(_) = reload.recv(), if reading.is_none() => {
                audit.iter().for_each(|log| log.reopen());
                let (path, server) = (path.clone(), server.clone());
                let listen = file.listen().to_vec();
                reading = Some(spawn_blocking(move || read_again(&path, &server, &listen)));
            }
            said = has_read(&mut reading) => {
                reading = None;
                said.iter().for_each(|line| eprintln!("ketch: {line}"));
            }
            () = told(&mut terminate, &mut interrupt) => break Ok(()),
        }
    };
    server.shutdown();
    let mut results = vec![result];
    let all_over = async {
        while let Some(ended) = serving.join_next().await {
            results.push(over(ended));
        }
    };
    // Who is not waited for goes with this program.
    let again = told(&mut terminate, &mut interrupt);
    if is_watched {
        finish(all_over, watching, again).await;
    } else {
        finish(all_over, std::pin::pin!(std::future::pending()), again).await;
    }
    results.into_iter().collect()
}

/// What is to be said once a file was read again; waits for ever if none is.
async fn has_read(reading: &mut Option<JoinHandle<Vec<String>>>) -> Vec<String> {
    match reading {
        Some(reading) => {
            let said = reading.await;
            said.unwrap_or_else(|_| vec!["cannot reload: it failed half-way".to_owned()])
        }
        None => std::future::pending().await,
    }
}

/// Reads a file again. What is wrong changes nothing.
fn read_again(path: &Path, server: &Server, listen: &[SocketAddr]) -> Vec<String> {
    let read = || {
        let file = ServerFile::read(path)?;
        let builder = file.builder()?;
        Ok((file, builder))
    };
    let (file, builder) = match read() {
        Ok(read) => read,
        Err(faults) => {
            let mut said = lines(faults);
            said.push("nothing was reloaded".to_owned());
            return said;
        }
    };
    if let Err(error) = server.reload(builder) {
        return vec![format!("nothing was reloaded: {error}")];
    }
    let mut said = vec![format!("reloaded: {}", counted(&file))];
    if file.listen() != listen {
        said.push("`listen` was changed: that counts from the next start".to_owned());
    }
    said
}

/// Says where the server is, and what it serves. Whoever started it may not care to listen.
fn tell(
    file: &ServerFile,
    server: &Server,
    listeners: &[(SocketAddr, TcpListener)],
    metrics: Option<SocketAddr>,
) {
    let addresses = listeners.iter().map(|(address, _)| address.to_string());
    let mut lines: Vec<_> = addresses.map(|address| ("listening on", address)).collect();
    for key in server.host_keys() {
        let shown = format!("{} {}", key.key_type(), keys::fingerprint(&key));
        lines.push(("host key", shown));
    }
    lines.push(("serving", counted(file)));
    lines.extend(metrics.map(|address| ("metrics on", address.to_string())));
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let _ = say(&lines);
}

fn counted(file: &ServerFile) -> String {
    let (users, endpoints, organisations) = file.counts();
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    format!(
        "{}, {}, {}",
        many(users, "user"),
        many(endpoints, "endpoint"),
        many(organisations, "organisation")
    )
}

fn over(ended: Result<Result<(), Failed>, tokio::task::JoinError>) -> Result<(), Failed> {
    ended.unwrap_or_else(|error| Err(Failed::set_up("cannot serve", error)))
}

fn wrong(faults: FileFaults) -> Failed {
    Failed::Faults(lines(faults))
}

/// A line for each; they are safe to show.
fn lines(faults: FileFaults) -> Vec<String> {
    faults.to_string().lines().map(str::to_owned).collect()
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Failed {
    Failed::local(format!("cannot listen on {address}"), error)
}
