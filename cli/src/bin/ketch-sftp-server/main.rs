//! `ketch-sftp-server`: takes the place of OpenSSH's sftp-server(8) behind sshd.
//!
//! ```text
//! Subsystem sftp /usr/lib/ketch/ketch-sftp-server
//! ```
//!
//! It talks SFTP on its standard input and output, as the user that sshd made it, and takes the
//! options of sftp-server(8). The session itself is `ketch_server::HostSession`.
#![forbid(unsafe_code)]

#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod tokens;

use std::process::ExitCode;
#[cfg(target_os = "linux")]
use std::sync::Arc;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser;

    let args = args::Line::parse();
    if args.query.is_some() {
        return args::print_requests();
    }
    let log = Arc::new(log::Log::open(args.stderr, args.facility, args.level));
    match run(&args, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            log.write(log::Level::Error, &why);
            ExitCode::from(255) // as sftp-server(8) ends after an error
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("ketch-sftp-server: there is a version for Linux only");
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn run(args: &args::Line, log: &Arc<log::Log>) -> Result<(), String> {
    use std::path::PathBuf;

    use ketch_server::HostSession;
    use rustix::fs::Mode;

    ketch_server::protect_process()
        .map_err(|error| format!("this process cannot be protected: {error}"))?;
    let account =
        ketch_server::own_account().map_err(|error| format!("no user has this number: {error}"))?;
    if let Some(mask) = args.umask {
        rustix::process::umask(Mode::from_raw_mode(mask));
    }
    allow_open_files();
    let wanted = match &args.directory {
        Some(template) => Some(PathBuf::from(tokens::expand(template, &account)?)),
        None => None,
    };
    let files = ketch_server::start_directory(wanted.as_deref())
        .map_err(|error| format!("the start directory cannot be opened: {error}"))?;
    let mut session = HostSession::new(&account.name, files);
    if args.read_only {
        session = session.read_only();
    }
    if !args.allowed.is_empty() {
        session = session.allow_only(&args.allowed);
    }
    session = session.deny(&args.denied);
    if args.level >= log::Level::Info {
        session = session.observer(Arc::<log::Log>::clone(log));
    }
    let from = client_address();
    let user = &account.name;
    log.write(
        log::Level::Info,
        &format!("session opened for local user {user} from [{from}]"),
    );
    let result = session.serve(std::io::stdin(), std::io::stdout());
    log.write(
        log::Level::Info,
        &format!("session closed for local user {user} from [{from}]"),
    );
    result.map_err(|error| error.to_string())
}

/// Where the client is, as sshd says it.
#[cfg(target_os = "linux")]
fn client_address() -> String {
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    match connection.split_whitespace().next() {
        Some(address) => address.to_owned(),
        None => "UNKNOWN".to_owned(),
    }
}

/// Lets as many files be open as the system allows: each is a handle of the client.
#[cfg(target_os = "linux")]
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    // Without it there are fewer at a time.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
}
