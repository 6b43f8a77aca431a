//! What `ketch serve` does: which of its ways it is, and the one without a file: reads the keys,
//! listens, and ends in good order.

use std::path::PathBuf;

use ketch_server::{BuildError, KeyType, Server, ServerFile, User, host_key_file};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ending::{finish, told};
use super::records::Records;
use super::{authorized_keys, file, hash_password, strict};
use crate::args::{RecordArgs, ServeArgs, ServeCommand, ServeOneArgs};
use crate::cmd::keys;
use crate::failed::Failed;
use crate::output::{Lines, escaped};

/// Serves until a signal says to end; connections then have a moment to finish, unless it comes again.
pub(crate) async fn run(args: ServeArgs) -> Result<(), Failed> {
    match (args.command, args.config) {
        (Some(ServeCommand::Check { config }), _) => file::check(&config),
        (Some(ServeCommand::Schema), _) => {
            let mut out = Lines::new();
            for line in ServerFile::schema().lines() {
                out.line(line)?;
            }
            out.flush()
        }
        (Some(ServeCommand::HashPassword), _) => hash_password::run(),
        (None, Some(config)) => file::serve(config, &args.records).await,
        (None, None) => serve_one(args.one, &args.records).await,
    }
}

async fn serve_one(args: ServeOneArgs, records: &RecordArgs) -> Result<(), Failed> {
    let missing = |what: &str| Failed::Usage(format!("--{what} is missing"));
    let root: PathBuf = args.root.ok_or_else(|| missing("root"))?;
    let name = args.user.ok_or_else(|| missing("user"))?;
    let path = args.host_key.or_else(keys::default_path).ok_or_else(|| {
        Failed::Usage("there is no home directory to keep a host key in: use --host-key".into())
    })?;
    let mut user = User::new(&name, &root);
    if let Some(file) = &args.password_file {
        user = user.password(strict::password(file)?.as_str());
    }
    if let Some(file) = &args.authorized_keys {
        for key in authorized_keys::read(file)? {
            user = user.authorized_key(key);
        }
    }
    if args.read_only {
        user = user.read_only();
    }
    let host_key = host_key_file(&path, KeyType::Ed25519).map_err(|error| {
        Failed::set_up(format!("cannot use the host key {}", path.display()), error)
    })?;
    let records = Records::open(records, None).await?;
    let builder = Server::builder().host_key(host_key).user(user);
    let server = records.observe(builder).build().map_err(cannot_start)?;
    let cannot_listen = |e| Failed::local(format!("cannot listen on {}", args.listen), e);
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut hangup = signals(SignalKind::hangup())?;

    let fingerprint = keys::fingerprint(&server.host_key());
    let what = format!("{} to {name}", escaped(root.as_os_str().as_encoded_bytes()));
    // Whoever started the server may not care to listen: it serves all the same.
    let address = address.to_string();
    let metrics = records.address().map(|address| address.to_string());
    let mut lines = vec![
        ("listening on", address.as_str()),
        ("host key", &fingerprint),
        ("serving", &what),
    ];
    lines.extend(metrics.as_deref().map(|address| ("metrics on", address)));
    let _ = say(&lines);
    warn_of_root();

    let audit = records.audit();
    let mut watching = std::pin::pin!(records.serve(server.clone()));
    let mut serving = std::pin::pin!(server.serve(listener));
    loop {
        tokio::select! {
            result = &mut serving => return result.map_err(cannot_listen),
            result = &mut watching => return result.map_err(cannot_tell),
            _ = hangup.recv() => audit.iter().for_each(|log| log.reopen()),
            () = told(&mut terminate, &mut interrupt) => break,
        }
    }
    server.shutdown();
    let again = told(&mut terminate, &mut interrupt);
    match finish(serving, watching, again).await {
        Some(result) => result.map_err(cannot_listen),
        None => Ok(()),
    }
}

/// Says it if the server has rights that it does not need. It is not refused: who serves the files of
/// many users of a machine may want it.
pub(super) fn warn_of_root() {
    #[cfg(target_os = "linux")]
    if rustix::process::geteuid().is_root() {
        eprintln!(
            "ketch: running as root: a user of its own would do, see dist/ketch-server.service"
        );
    }
}

/// Metrics cannot be told any more.
pub(super) fn cannot_tell(error: std::io::Error) -> Failed {
    Failed::local("cannot tell metrics", error)
}

/// An error in putting the server together; its cause, where it has one, is a file's.
pub(crate) fn cannot_start(error: BuildError) -> Failed {
    match error {
        BuildError::Root { user, path, source } => {
            Failed::local(format!("cannot serve {} to {user}", path.display()), source)
        }
        error => Failed::set_up("cannot start the server", error),
    }
}

pub(super) fn say(lines: &[(&str, &str)]) -> Result<(), Failed> {
    let mut out = Lines::new();
    for (name, value) in lines {
        out.line(&format!("{name} {value}"))?;
    }
    out.flush()
}

pub(super) fn signals(kind: SignalKind) -> Result<Signal, Failed> {
    signal(kind).map_err(|error| Failed::local("cannot wait for signals", error))
}
