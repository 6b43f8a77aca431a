//! The command line as it was typed, in typed form: nothing is looked up or opened here.
//!
//! What the arguments mean (which host, which key files, where a file goes) is settled in
//! [`crate::plan`].

mod listen;
mod paths;
mod sync;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use ketch_client::config::{AlgorithmSpec, JumpHost};
use ketch_client::{CipherName, Kex, MacName, Profile, SignatureAlgorithm};

pub(crate) use self::listen::{FirstWhat, ListenArgs};
#[cfg(unix)]
pub(crate) use self::listen::{FlowsArg, ListenCommand, LostRows};
pub(crate) use self::paths::{
    ChmodArgs, FindArgs, KindArg, LnArgs, MkdirArgs, MvArgs, PathArgs, RmArgs, StatArgs,
};
pub(crate) use self::sync::{FilterArgs, SyncArgs};
use crate::exit;
use crate::proxy::Proxy;

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
    /// Make a directory hold what another holds, here or on a server
    Sync(SyncArgs),
    /// List a remote directory
    Ls(LsArgs),
    /// Show the content of a remote file
    Cat(PathArgs),
    /// List what is below a remote directory
    Find(FindArgs),
    /// Remove a remote file, or a directory with everything in it
    Rm(RmArgs),
    /// Create a remote directory
    Mkdir(MkdirArgs),
    /// Remove an empty remote directory
    Rmdir(PathArgs),
    /// Rename a remote file or directory
    Mv(MvArgs),
    /// Make a link on a server
    Ln(LnArgs),
    /// Change the permissions of a remote file
    Chmod(ChmodArgs),
    /// Tell what a server knows of a file
    Stat(StatArgs),
    /// Tell how full a remote file system is
    Df(PathArgs),
    /// Tell what changes in a remote directory, one JSON object a line; or run the flows of a file
    Listen(ListenArgs),
    /// Run a command on a server; ends with its exit code, or 128 and the signal that ended it
    Exec(ExecArgs),
    /// List the algorithms of each profile
    Algorithms(AlgorithmsArgs),
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
    pub(crate) selection: SelectionArgs,
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
    pub(crate) selection: SelectionArgs,
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
    /// Do not sort: show the names as the server sends them
    #[arg(short = 'f')]
    pub(crate) unsorted: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Show no progress
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Channels of a connection to use at most: more than one where that is faster
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) streams: u32,
    /// Connections to use at most: more than one where that is faster
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) connections: u32,
    /// Bytes of files a second at most, all connections together, such as 10M; K, M and G are 1024
    /// to the power of one, two and three
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) bytes: BytesArgs,
}

/// What is copied of a directory.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct SelectionArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Symbolic links in a directory: leave them out, copy what they lead to, or make them anew
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) links: LinksHow,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum LinksHow {
    #[default]
    Skip,
    Follow,
    Copy,
}

impl From<LinksHow> for ketch_client::Links {
    fn from(how: LinksHow) -> Self {
        match how {
            LinksHow::Skip => Self::Skip,
            LinksHow::Follow => Self::Follow,
            LinksHow::Copy => Self::Copy,
        }
    }
}

/// What is to be true of a copy beside its content.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Copies")]
pub(crate) struct BytesArgs {
    /// Continue what an earlier run left, once its beginning and end were seen to fit; `full`: once
    /// all of it was. Leave what was transferred if this run fails
    #[arg(long, value_name = "CHECK", value_enum, require_equals = true)]
    #[arg(num_args = 0..=1, default_missing_value = "verified")]
    pub(crate) resume: Option<ResumeCheck>,
    /// Keep times and permissions
    #[arg(short = 'a', long)]
    pub(crate) preserve: bool,
    /// Keep owner and group, by number
    #[arg(long)]
    pub(crate) preserve_owner: bool,
    /// Compare checksums before a file gets its name: the server's own where it has them, else all
    /// is read once more
    #[arg(long)]
    pub(crate) verify: bool,
    /// Holes: keep those of local files, never, or make some of all zeros that come
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(crate) sparse: SparseWhen,
    /// What has to be on the disk in the end, should the power fail: nothing, the content of each
    /// file, or its name as well
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(crate) durability: Durable,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum ResumeCheck {
    Verified,
    Full,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum SparseWhen {
    #[default]
    Auto,
    Never,
    Always,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Durable {
    #[default]
    None,
    File,
    Directory,
}

/// How to reach and trust the server, and how to log in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// Port of the server [default: what REMOTE or the configuration says, else 22]
    #[arg(short = 'P', visible_short_alias = 'p', long)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Configuration as ssh has it, in place of ~/.ssh/config and /etc/ssh/ssh_config; `none` for
    /// none
    #[arg(short = 'F', long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Option of the configuration, such as ServerAliveInterval=15; may be repeated
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE")]
    pub(crate) option: Vec<String>,
    /// Let `Match exec` in the configuration run its commands
    #[arg(long)]
    pub(crate) allow_match_exec: bool,
    /// Servers to go through, in order: `[user@]host[:port]`, separated by commas
    #[arg(short = 'J', long, value_name = "HOSTS", value_parser = JumpHosts::parse)]
    #[arg(conflicts_with = "proxy")]
    pub(crate) jump: Option<JumpHosts>,
    /// Proxy to go through: socks5://, socks4://, socks4a:// or `http://[user@]host:port`; `none` for
    /// none, whatever the configuration says
    #[arg(long, value_name = "URL", value_parser = Proxy::parse)]
    pub(crate) proxy: Option<Proxy>,
    /// File whose first line is the password for the proxy
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "proxy")]
    pub(crate) proxy_password_file: Option<PathBuf>,
    /// Private key file, may be repeated [default: what the configuration says, else
    /// ~/.ssh/id_ed25519, id_ecdsa and id_rsa, those that exist]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) identity: Vec<PathBuf>,
    /// Socket of the agent whose keys are offered, too; `none` for none [default: what the
    /// configuration or SSH_AUTH_SOCK says]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) agent: Option<PathBuf>,
    /// Algorithms that are offered: modern, compat or pq-only, or legacy for old servers, which
    /// adds what is broken or weak; `ketch algorithms` lists them [default: compat]
    #[arg(long, value_name = "NAME", value_parser = profile)]
    pub(crate) profile: Option<Profile>,
    /// Ciphers to offer, the best first, separated by commas; +LIST adds to the profile's, -LIST
    /// takes away, ^LIST puts in front
    #[arg(short, long, value_name = "LIST", allow_hyphen_values = true)]
    #[arg(value_parser = |list: &str| algorithms(list, CipherName::ALL, CipherName::name, false))]
    pub(crate) cipher: Option<AlgorithmSpec>,
    /// MACs to offer, written as ciphers are
    #[arg(short, long, value_name = "LIST", allow_hyphen_values = true)]
    #[arg(value_parser = |list: &str| algorithms(list, MacName::ALL, MacName::name, false))]
    pub(crate) mac: Option<AlgorithmSpec>,
    /// Key exchanges to offer, written as ciphers are
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    #[arg(value_parser = |list: &str| algorithms(list, Kex::ALL, Kex::name, false))]
    pub(crate) kex: Option<AlgorithmSpec>,
    /// Host key algorithms to accept, written as ciphers are
    #[arg(long, value_name = "LIST", allow_hyphen_values = true, value_parser = key_algorithms)]
    pub(crate) host_key_algorithms: Option<AlgorithmSpec>,
    /// Compress what is sent, if the server can
    #[arg(long)]
    pub(crate) compression: bool,
    /// Remember the key of a host that is not known yet, without asking (a changed key is always
    /// refused)
    #[arg(long)]
    pub(crate) accept_new: bool,
    /// Accept whatever host key is shown: anyone on the way can read and change everything
    #[arg(long, conflicts_with_all = ["accept_new", "known_hosts"])]
    pub(crate) danger_accept_any_host: bool,
    /// Where the keys of hosts are kept [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) known_hosts: Option<PathBuf>,
    /// Neither use nor keep what servers chose last time, which saves round trips
    #[arg(long)]
    pub(crate) no_host_memory: bool,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,
    /// Ask nothing: fail where a password, a passphrase or about a host would be asked
    #[arg(long)]
    pub(crate) batch: bool,
    /// Use IPv4 addresses alone
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// Use IPv6 addresses alone
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// Address of this machine to connect from
    #[arg(long, value_name = "ADDR")]
    pub(crate) bind_address: Option<IpAddr>,
    /// Longest time to reach an address of the server, and for the handshake [default: 10s, 30s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) connect_timeout: Option<Duration>,
    /// Longest time without an answer while one is due [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// `[user@]host[:port]`
    #[arg(value_parser = one_server)]
    pub(crate) server: JumpHost,
    /// One word is handed to the server's shell as it stands; several are a program and its
    /// arguments, and are quoted
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// `ketch algorithms`.
#[derive(Debug, Args)]
pub(crate) struct AlgorithmsArgs {
    /// The profile to list: modern, compat, legacy or pq-only [default: all]
    #[arg(long, value_name = "NAME", value_parser = profile)]
    pub(crate) profile: Option<Profile>,
}

/// What stands behind `-J`.
#[derive(Clone, Debug)]
pub(crate) struct JumpHosts(pub(crate) Vec<JumpHost>);

impl JumpHosts {
    fn parse(typed: &str) -> Result<Self, String> {
        JumpHost::list(typed)
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// One user and one directory, or what a file says.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ServeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ServeCommand>,
    /// File of a server with its users (TOML), read again on SIGHUP; instead of the options below
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) records: RecordArgs,
    #[command(flatten)]
    pub(crate) one: ServeOneArgs,
}

/// What a server tells of itself.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Write who does what to this file, a line of JSON each; SIGHUP opens it anew
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) audit_log: Option<PathBuf>,
    /// Tell metrics and health over HTTP at this address, without login
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Log more to the standard error: -v what happens, -vv each step, -vvv all
    #[arg(short, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Form of that log
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What belongs to a server besides serving.
#[derive(Debug, Subcommand)]
pub(crate) enum ServeCommand {
    /// Say all that is wrong with a server's file; serve nothing and change nothing
    Check {
        /// The file
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: PathBuf,
    },
    /// Print the JSON schema of a server's file
    Schema,
    /// Make the hash of a password that a server's file holds: asks for it, or reads one line
    HashPassword,
}

/// One user, one directory.
#[derive(Debug, Args)]
pub(crate) struct ServeOneArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2222")]
    #[arg(conflicts_with = "config")]
    pub(crate) listen: SocketAddr,
    /// Directory to serve; nothing outside of it can be reached
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    pub(crate) root: Option<PathBuf>,
    /// Name of the user who may log in
    #[arg(long, value_name = "NAME")]
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    pub(crate) user: Option<String>,
    /// File whose first line is the user's password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(required_unless_present_any = ["authorized_keys", "config"], conflicts_with = "config")]
    pub(crate) password_file: Option<PathBuf>,
    /// File with the user's public keys, one a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "config")]
    pub(crate) authorized_keys: Option<PathBuf>,
    /// The server's private key, made on the first start [default: ketch/host_ed25519 in the
    /// user's state directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "config")]
    pub(crate) host_key: Option<PathBuf>,
    /// Let the user change nothing
    #[arg(long, conflicts_with = "config")]
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

fn one_server(typed: &str) -> Result<JumpHost, String> {
    let wrong = "a server is written as [user@]host[:port]";
    match JumpHost::list(typed).as_deref() {
        Ok([server]) => Ok(server.clone()),
        Ok(_) => Err(wrong.to_owned()),
        Err(error) => Err(format!("{wrong}: {error}")),
    }
}

fn profile(typed: &str) -> Result<Profile, String> {
    Profile::from_name(typed).ok_or_else(|| {
        let names: Vec<_> = Profile::ALL.iter().map(|profile| profile.name()).collect();
        format!("the profiles are {}", names.join(", "))
    })
}

fn key_algorithms(typed: &str) -> Result<AlgorithmSpec, String> {
    algorithms(
        typed,
        SignatureAlgorithm::ALL,
        SignatureAlgorithm::name,
        true,
    )
}

/// A list of algorithms, every one of which has to exist.
fn algorithms<T: Copy + PartialEq>(
    typed: &str,
    all: &[T],
    name: fn(T) -> &'static str,
    are_of_keys: bool,
) -> Result<AlgorithmSpec, String> {
    let spec = match are_of_keys {
        true => AlgorithmSpec::of_keys(typed),
        false => AlgorithmSpec::new(typed),
    };
    let chosen = spec.choose(all, all, name);
    let listed = typed.trim_start_matches(['+', '^']);
    if chosen.skipped.is_empty() && !listed.is_empty() && !chosen.algorithms.is_empty() {
        return Ok(spec);
    }
    let names: Vec<_> = all.iter().map(|each| name(*each)).collect();
    Err(format!("there are {}", names.join(", ")))
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

/// Bytes a second: a number, and K, M or G for kibibytes, mebibytes and gibibytes, as rclone has it.
fn rate(typed: &str) -> Result<u64, String> {
    let digits = typed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match typed.get(digits.len()..).unwrap_or_default() {
        "" | "b" | "B" => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        _ => {
            return Err("a rate is a number with or without K, M or G, such as 500K or 10M".into());
        }
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a rate is a whole number with or without K, M or G, such as 500K or 10M")?;
    match number.checked_mul(1024_u64.pow(power)) {
        Some(0) => Err("it must be more than zero".into()),
        Some(bytes) => Ok(bytes),
        None => Err("that is more than can be counted".into()),
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
    fn a_rate_has_a_number_and_perhaps_a_unit() {
        for (typed, bytes) in [
            ("1", 1),
            ("100B", 100),
            ("500k", 500 << 10),
            ("10M", 10 << 20),
            ("2G", 2 << 30),
        ] {
            assert_eq!(rate(typed), Ok(bytes), "{typed}");
        }
        for typed in [
            "",
            "M",
            "0",
            "0M",
            "-1",
            "1.5M",
            "10MB",
            "10 M",
            "99999999999G",
        ] {
            assert!(rate(typed).is_err(), "{typed}");
        }
        let Ok(Command::Get(get)) = parse("ketch get --limit 1M host:a") else {
            panic!()
        };
        assert_eq!(get.transfer.limit, Some(1 << 20));
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
    fn lists_of_algorithms_must_be_known() {
        let parsed = |line: &str| match parse(&format!("ketch ls r {line}")) {
            Ok(Command::Ls(ls)) => Ok(ls.connect),
            Ok(_) => panic!(),
            Err(error) => Err(error),
        };
        let list = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com";
        let found = parsed(&format!(
            "-c {list} --mac -hmac-sha1* --kex ^curve25519-sha256"
        ))
        .unwrap();
        assert_eq!(found.cipher.unwrap().as_str(), list);
        assert_eq!(found.mac.unwrap().as_str(), "-hmac-sha1*");
        assert!(parsed("--host-key-algorithms +ssh-rsa,rsa-sha2-*").is_ok());
        for wrong in [
            "-c rot13",
            "-c +rot13",
            "-c aes*",
            "--kex x,y",
            "--profile fast",
        ] {
            assert_eq!(
                parsed(wrong).err(),
                Some(ErrorKind::ValueValidation),
                "{wrong}"
            );
        }
        assert_eq!(
            parsed("--profile legacy").unwrap().profile,
            Some(Profile::Legacy)
        );
    }

    #[test]
    fn exec_takes_a_server_and_a_command_behind_two_dashes() {
        let Ok(Command::Exec(exec)) = parse("ketch exec me@host:2222 --batch -- ls -l") else {
            panic!()
        };
        assert_eq!(
            (exec.server.host.as_str(), exec.server.port),
            ("host", Some(2222))
        );
        assert_eq!(exec.command, ["ls", "-l"]);
        assert!(exec.connect.batch);
        for wrong in [
            "ketch exec host",
            "ketch exec host ls",
            "ketch exec a,b -- ls",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_way_to_a_server_is_checked() {
        for (line, expected) in [
            (
                "-J a,ann@b:23 -F none -o Compression=yes -o User=x -p 22",
                true,
            ),
            ("--proxy socks5://ann@proxy:1080", true),
            ("--proxy none", true),
            ("-J a;b", false),
            ("-J a --proxy http://b:80", false),
            ("--proxy ftp://a:1", false),
            ("--proxy-password-file f", false),
        ] {
            let parsed = parse(&format!("ketch ls r {line}"));
            assert_eq!(parsed.is_ok(), expected, "{line}: {parsed:?}");
        }
    }

    #[test]
    fn times_have_a_unit_and_a_length() {
        let interval = |text: &str| match parse(&format!("ketch listen r --interval {text}")) {
            Ok(Command::Listen(listen)) => Some(listen.watch.interval),
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
        assert_eq!(listen.watch.interval, Duration::from_secs(5));
    }

    #[test]
    fn listen_takes_a_remote_or_a_file_and_what_belongs_to_one() {
        for right in [
            "ketch listen host:/in",
            "ketch listen host:/in --config none --existing",
            "ketch listen host:/in -r --depth 3 --include *.csv --include *.txt --exclude *.tmp",
            "ketch listen host:/in --settle 5s --push --json --first news",
            "ketch listen host:/in --first baseline --plain",
            "ketch listen --config f -vv --log-format json",
            "ketch listen check --config f --offline",
            "ketch listen schema",
            "ketch listen status --config f --json",
            "ketch listen pause --config f orders statements",
            "ketch listen replay --config f orders --path a/b",
            "ketch listen compact --config f",
        ] {
            let Ok(Command::Listen(listen)) = parse(right) else {
                panic!("{right}")
            };
            assert_eq!(listen.is_of_file(), !right.contains("host:"), "{right}");
        }
        for wrong in [
            "ketch listen",
            "ketch listen check",
            "ketch listen host:/in --depth 2",
            "ketch listen host:/in -r --depth 0",
            "ketch listen host:/in --json --plain",
            "ketch listen host:/in --existing --first baseline",
            "ketch listen --config f --recursive",
            "ketch listen --config f --interval 5s",
            "ketch listen --config f --include *.csv",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
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

    #[test]
    fn serve_takes_a_file_instead_of_options_and_what_belongs_to_one() {
        for right in [
            "ketch serve --config f",
            "ketch serve check --config f",
            "ketch serve schema",
            "ketch serve hash-password",
        ] {
            assert!(parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "ketch serve",
            "ketch serve check",
            "ketch serve --config f --root /srv",
            "ketch serve --config f --listen 0.0.0.0:22",
            "ketch serve --config f schema",
            "ketch serve hash-password secret",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
