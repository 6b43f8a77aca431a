//! The command line as it was typed, in typed form: nothing is looked up or opened here.
//!
//! What the arguments mean (which host, which key files, where a file goes) is settled in
//! [`crate::plan`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use ketch_client::CipherName;

use crate::exit;

/// SFTP: copy files, list and watch remote directories, serve a directory.
#[derive(Debug, Parser)]
#[command(name = "ketch", version, after_help = exit::TABLE, disable_help_subcommand = true)]
pub(crate) struct Line {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy a remote file or directory here
    Get(GetArgs),
    /// Copy a local file or directory to a server
    Put(PutArgs),
    /// List a remote directory
    Ls(LsArgs),
    /// Tell what changes in a remote directory: one JSON object a line
    Listen(ListenArgs),
    /// Serve a local directory over SFTP (Unix only)
    Serve(ServeArgs),
    /// Show what ketch does, with a server and files of its own
    Demo(DemoArgs),
}

const REMOTE_HELP: &str = "[user@]host:path or sftp://[user@]host[:port]/path";

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Copy directories with everything in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    /// File, or directory to put it into [default: the current directory]
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) local: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Copy directories with everything in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// File or directory to copy
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) local: PathBuf,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) transfer: TransferArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Show kind and permissions, owner, size and time of last change
    #[arg(short)]
    pub(crate) long: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    /// Time from one listing of the directory to the next
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) interval: Duration,
    /// Tell of what is there at the start, too
    #[arg(long)]
    pub(crate) existing: bool,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How to reach and trust the server, and how to log in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// Port of the server [default: what the REMOTE says, else 22]
    #[arg(short = 'P', long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Private key file, may be repeated [default: ~/.ssh/id_ed25519 if it exists]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Vec<PathBuf>,
    /// Ciphers to offer, the best first: aes256-gcm@openssh.com, aes128-gcm@openssh.com,
    /// chacha20-poly1305@openssh.com
    #[arg(short, long, value_name = "NAME", value_delimiter = ',', value_parser = cipher)]
    pub(crate) cipher: Vec<CipherName>,
    /// Remember the key of a host that is not known yet (a changed key is always refused)
    #[arg(long)]
    pub(crate) accept_new: bool,
    /// Where the keys of hosts are kept [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) known_hosts: Option<PathBuf>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// Ask nothing: fail where a password or passphrase would be asked for
    #[arg(long)]
    pub(crate) batch: bool,
    /// Longest time to reach an address of the server, and for the handshake [default: 10s, 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Longest time without an answer while one is due [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// One user, one directory.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2222")]
    pub(crate) listen: SocketAddr,
    /// Directory to serve; nothing outside of it can be reached
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) root: PathBuf,
    /// Name of the user who may log in
    #[arg(long, value_name = "NAME")]
    pub(crate) user: String,
    /// File whose first line is the user's password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(required_unless_present = "authorized_keys")]
    pub(crate) password_file: Option<PathBuf>,
    /// File with the user's public keys, one a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) authorized_keys: Option<PathBuf>,
    /// The server's private key, made on the first start [default: ketch/host_ed25519 in the
    /// user's state directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) host_key: Option<PathBuf>,
    /// Let the user change nothing
    #[arg(long)]
    pub(crate) read_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Size of the large file in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16_384))]
    pub(crate) size: u32,
    /// Number of small files
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) files: u32,
}

fn cipher(typed: &str) -> Result<CipherName, String> {
    CipherName::from_name(typed).ok_or_else(|| {
        let names: Vec<_> = CipherName::ALL.iter().map(|cipher| cipher.name()).collect();
        format!("the ciphers are {}", names.join(", "))
    })
}

/// A time with its unit: `5s`, `500ms`, `1m 30s`.
fn duration(typed: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = typed
        .parse()
        .map_err(|_| "a time is a number and a unit, such as 5s, 500ms or 2m")?;
    match Duration::try_from(signed) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("it must be more than zero".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<Command, ErrorKind> {
        match Line::try_parse_from(line.split_whitespace()) {
            Ok(line) => Ok(line.command),
            Err(error) => Err(error.kind()),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn get_takes_one_or_two_paths() {
        let Ok(Command::Get(get)) = parse("ketch get host:/in/a.csv") else {
            panic!()
        };
        assert_eq!(
            (get.remote.as_str(), get.local, get.recursive),
            ("host:/in/a.csv", None, false)
        );
        let Ok(Command::Get(get)) = parse("ketch get -r host:/in copy") else {
            panic!()
        };
        assert_eq!((get.local, get.recursive), (Some("copy".into()), true));
        assert_eq!(
            parse("ketch get").err(),
            Some(ErrorKind::MissingRequiredArgument)
        );
        assert_eq!(
            parse("ketch put file").err(),
            Some(ErrorKind::MissingRequiredArgument)
        );
    }

    #[test]
    fn connection_flags_are_the_same_for_all_that_connect() {
        let flags = "-P 2222 -i a -i b --accept-new --known-hosts k --password-file p --batch";
        for words in ["get r l", "put l r", "ls r", "listen r"] {
            let parsed = parse(&format!("ketch {words} {flags}"));
            let connect = match parsed {
                Ok(Command::Get(args)) => args.connect,
                Ok(Command::Put(args)) => args.connect,
                Ok(Command::Ls(args)) => args.connect,
                Ok(Command::Listen(args)) => args.connect,
                other => panic!("{words}: {other:?}"),
            };
            assert_eq!(connect.port, Some(2222));
            assert_eq!(connect.identity, [PathBuf::from("a"), PathBuf::from("b")]);
            assert!(connect.accept_new && connect.batch);
            assert_eq!(connect.known_hosts, Some("k".into()));
            assert_eq!(connect.password_file, Some("p".into()));
        }
    }

    #[test]
    fn ciphers_are_a_list_or_repeated_and_must_be_known() {
        let count = |line: &str| match parse(line) {
            Ok(Command::Ls(ls)) => Ok(ls.connect.cipher.len()),
            Ok(_) => panic!(),
            Err(error) => Err(error),
        };
        let list = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com";
        assert_eq!(
            count(&format!("ketch ls r -c {list} -c aes256-gcm@openssh.com")),
            Ok(3)
        );
        assert_eq!(
            count("ketch ls r -c rot13"),
            Err(ErrorKind::ValueValidation)
        );
    }

    #[test]
    fn times_have_a_unit_and_a_length() {
        let interval = |text: &str| match parse(&format!("ketch listen r --interval {text}")) {
            Ok(Command::Listen(listen)) => Some(listen.interval),
            _ => None,
        };
        assert_eq!(interval("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(interval("2m"), Some(Duration::from_secs(120)));
        for wrong in ["5", "0s", "-5s", "soon"] {
            assert_eq!(interval(wrong), None, "{wrong}");
        }
        let Ok(Command::Listen(listen)) = parse("ketch listen r") else {
            panic!()
        };
        assert_eq!(listen.interval, Duration::from_secs(5));
    }

    #[test]
    fn ports_fit() {
        for wrong in ["0", "65536", "ssh"] {
            assert!(parse(&format!("ketch ls r -P {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn serve_wants_a_way_to_log_in() {
        let serve = "ketch serve --root /srv --user me";
        assert_eq!(parse(serve).err(), Some(ErrorKind::MissingRequiredArgument));
        assert!(parse(&format!("{serve} --password-file p")).is_ok());
        assert!(parse(&format!("{serve} --authorized-keys k")).is_ok());
    }
}
