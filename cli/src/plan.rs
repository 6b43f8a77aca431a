//! What the arguments mean: which host, files, keys and policies. Defaults are filled in here.
//!
//! Nothing is connected and no secret is read yet.

mod listen;
mod sync;

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ketch_client::config::{AddressFamily, AlgorithmSpec, JumpHost, SshConfig};
use ketch_client::{
    Destination, Durability, Filter, Links, Preserve, Profile, RateLimit, RemotePath, Resume,
    Sparse, Streams, Verify,
};

pub(crate) use self::listen::Listen;
pub(crate) use self::sync::Sync;
use crate::args::{
    BytesArgs, ConnectArgs, Durable, ExecArgs, GetArgs, LinksHow, LsArgs, PutArgs, ResumeCheck,
    SelectionArgs, SparseWhen, TransferArgs,
};
use crate::failed::Failed;
use crate::output::Bar;
use crate::proxy::Proxy;

/// Everything that is needed to reach a server and log in.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Server, port and user as they were typed; what was not is up to the configuration.
    pub(crate) destination: Destination,
    /// The configuration, with the options that come before it.
    pub(crate) config: SshConfig,
    /// Servers to go through, whatever the configuration says.
    pub(crate) jump: Option<Vec<JumpHost>>,
    /// A proxy to go through, whatever the configuration says.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) proxy_password_file: Option<PathBuf>,
    pub(crate) profile: Option<Profile>,
    pub(crate) algorithms: Algorithms,
    pub(crate) trust: Trust,
    /// Where host keys are kept, if not where the configuration says.
    pub(crate) known_hosts: Option<PathBuf>,
    /// Private key files; none for those of the configuration.
    pub(crate) identities: Vec<PathBuf>,
    /// Whether what servers chose last time is used and kept.
    pub(crate) has_memory: bool,
    /// The agent's socket, or `none`; the configuration decides if it was not typed.
    pub(crate) agent: Option<PathBuf>,
    pub(crate) password_file: Option<PathBuf>,
    /// Whether the user may be asked: for passwords and passphrases, and about hosts.
    pub(crate) may_ask: bool,
    /// Which addresses may be used, on the way too, whatever the configuration says.
    pub(crate) address_family: Option<AddressFamily>,
    pub(crate) bind_address: Option<IpAddr>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
}

/// Lists of algorithms that were typed; they come before the configuration's.
#[derive(Debug, Default)]
pub(crate) struct Algorithms {
    pub(crate) cipher: Option<AlgorithmSpec>,
    pub(crate) mac: Option<AlgorithmSpec>,
    pub(crate) kex: Option<AlgorithmSpec>,
    pub(crate) host_key: Option<AlgorithmSpec>,
    pub(crate) compression: bool,
}

/// What was typed about hosts that are not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trust {
    /// Nothing: the configuration decides, else the user is asked.
    Configured,
    AcceptNew,
    AnyHost,
}

/// `ketch get`, resolved.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) connection: Connection,
    pub(crate) remote: RemotePath,
    /// Where the file or directory will be: its name included.
    pub(crate) local: PathBuf,
    /// The directory that it goes into, if it is to go into one.
    pub(crate) into: Option<PathBuf>,
    pub(crate) recursive: bool,
    pub(crate) filter: Filter,
    pub(crate) links: Links,
    pub(crate) bytes: Bytes,
    pub(crate) streams: Streams,
    pub(crate) limit: Option<RateLimit>,
    pub(crate) bar: Bar,
}

impl Get {
    pub(crate) fn new(args: GetArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(&args.remote, args.connect)?;
        let (filter, links) = selection(&args.selection, args.recursive)?;
        let local = args.local.unwrap_or_else(|| PathBuf::from("."));
        let into = names_a_directory(&local).then(|| local.clone());
        let local = if into.is_some() {
            match remote.file_name() {
                Some(name) => local.join(local_name(name)?),
                // `host:` or `host:/`: there is no name, so its content goes right in.
                None if args.recursive => local,
                None => return Err(Failed::Usage(format!("{remote} is no file: use -r"))),
            }
        } else {
            local
        };
        Ok(Self {
            connection,
            remote,
            local,
            into,
            recursive: args.recursive,
            filter,
            links,
            bytes: Bytes::new(args.transfer.bytes),
            streams: streams(&args.transfer),
            limit: args.transfer.limit.map(RateLimit::new),
            bar: bar(&args.transfer),
        })
    }
}

/// `ketch put`, resolved as far as it can be without asking the server.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) connection: Connection,
    pub(crate) local: PathBuf,
    /// The name the file or directory gets if `remote` is a directory; `None` for `.` and `/`.
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) remote: RemotePath,
    pub(crate) recursive: bool,
    pub(crate) filter: Filter,
    pub(crate) links: Links,
    pub(crate) bytes: Bytes,
    pub(crate) streams: Streams,
    pub(crate) limit: Option<RateLimit>,
    pub(crate) bar: Bar,
}

impl Put {
    pub(crate) fn new(args: PutArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(&args.remote, args.connect)?;
        let (filter, links) = selection(&args.selection, args.recursive)?;
        let metadata = args
            .local
            .metadata()
            .map_err(|e| cannot("read", &args.local, e))?;
        if metadata.is_dir() && !args.recursive {
            let local = args.local.display();
            return Err(Failed::Usage(format!("{local} is a directory: use -r")));
        }
        let name = args
            .local
            .file_name()
            .map(|name| name.as_encoded_bytes().to_vec());
        Ok(Self {
            connection,
            local: args.local,
            name,
            remote,
            recursive: args.recursive,
            filter,
            links,
            bytes: Bytes::new(args.transfer.bytes),
            streams: streams(&args.transfer),
            limit: args.transfer.limit.map(RateLimit::new),
            bar: bar(&args.transfer),
        })
    }
}

/// What is taken of a directory; nothing of it means anything without one.
fn selection(args: &SelectionArgs, recursive: bool) -> Result<(Filter, Links), Failed> {
    let is_default = args.links == LinksHow::default() && args.filter.rules.is_empty();
    if !recursive && !is_default {
        let what = "--include, --exclude and --links are for what is in a directory: use -r";
        return Err(Failed::Usage(what.to_owned()));
    }
    Ok((sync::filter(&args.filter)?, args.links.into()))
}

/// What is to be true of a copy beside its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    pub(crate) resume: Resume,
    pub(crate) preserve: Preserve,
    pub(crate) verify: Verify,
    pub(crate) sparse: Sparse,
    pub(crate) durability: Durability,
}

impl Bytes {
    const fn new(args: BytesArgs) -> Self {
        Self {
            resume: match args.resume {
                None => Resume::No,
                Some(ResumeCheck::Verified) => Resume::Verified,
                Some(ResumeCheck::Full) => Resume::Full,
            },
            preserve: Preserve {
                times: args.preserve,
                permissions: args.preserve,
                owner: args.preserve_owner,
            },
            verify: if args.verify {
                Verify::Checksum
            } else {
                Verify::Size
            },
            sparse: match args.sparse {
                SparseWhen::Auto => Sparse::Auto,
                SparseWhen::Never => Sparse::Never,
                SparseWhen::Always => Sparse::Always,
            },
            durability: match args.durability {
                Durable::None => Durability::None,
                Durable::File => Durability::File,
                Durable::Directory => Durability::FileAndDirectory,
            },
        }
    }
}

/// `ketch ls`, resolved.
#[derive(Debug)]
pub(crate) struct Ls {
    pub(crate) connection: Connection,
    pub(crate) remote: RemotePath,
    pub(crate) long: bool,
    /// Whether all names are waited for, to be sorted.
    pub(crate) sorted: bool,
}

impl Ls {
    pub(crate) fn new(args: LsArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(&args.remote, args.connect)?;
        Ok(Self {
            connection,
            remote,
            long: args.long,
            sorted: !args.unsorted,
        })
    }
}

/// A path on a server, for the commands that need to know nothing else.
#[derive(Debug)]
pub(crate) struct At {
    pub(crate) connection: Connection,
    pub(crate) remote: RemotePath,
}

impl At {
    pub(crate) fn new(remote: &str, args: ConnectArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(remote, args)?;
        Ok(Self { connection, remote })
    }
}

/// `ketch exec`, resolved.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) connection: Connection,
    /// What the server's shell gets.
    pub(crate) command: Vec<u8>,
}

impl Exec {
    pub(crate) fn new(args: ExecArgs) -> Result<Self, Failed> {
        let JumpHost { user, host, port } = args.server;
        let destination = Destination {
            user,
            host,
            port: one_port(args.connect.port, port)?,
            path: RemotePath::from("."),
        };
        Ok(Self {
            connection: connection_to(destination, args.connect),
            command: command_line(&args.command),
        })
    }
}

/// One word as it stands; several quoted for a POSIX shell, so that each arrives as it is here.
fn command_line(words: &[OsString]) -> Vec<u8> {
    if let [line] = words {
        return line.as_encoded_bytes().to_vec();
    }
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(b);
    let quoted = words.iter().map(|word| {
        let word = word.as_encoded_bytes();
        if !word.is_empty() && word.iter().all(is_plain) {
            return word.to_vec();
        }
        // Within single quotes only they themselves mean something.
        let parts: Vec<_> = word.split(|&b| b == b'\'').collect();
        [b"'", parts.join(&b"'\\''"[..]).as_slice(), b"'"].concat()
    });
    quoted.collect::<Vec<_>>().join(&b' ')
}

/// The port from the option or the remote; both may be there if they agree.
fn one_port(flag: Option<u16>, remote: Option<u16>) -> Result<Option<u16>, Failed> {
    match (flag, remote) {
        (Some(flag), Some(remote)) if flag != remote => Err(Failed::Usage(format!(
            "-P {flag} contradicts port {remote} in the URL"
        ))),
        (flag, remote) => Ok(flag.or(remote)),
    }
}

const fn bar(args: &TransferArgs) -> Bar {
    if args.quiet { Bar::None } else { Bar::Stays }
}

fn streams(args: &TransferArgs) -> Streams {
    Streams::default()
        .channels(args.streams)
        .connections(args.connections)
}

/// An error of a local file, with what was to be done to it.
pub(crate) fn cannot(verb: &str, path: &Path, source: io::Error) -> Failed {
    Failed::local(format!("cannot {verb} {}", path.display()), source)
}

fn connection(remote: &str, args: ConnectArgs) -> Result<(Connection, RemotePath), Failed> {
    let mut destination: Destination = remote
        .parse()
        .map_err(|error| Failed::Usage(format!("cannot understand {remote:?}: {error}")))?;
    destination.port = one_port(args.port, destination.port)?;
    let path = destination.path.clone();
    Ok((connection_to(destination, args), path))
}

fn connection_to(destination: Destination, args: ConnectArgs) -> Connection {
    let mut config = match args.config {
        None => SshConfig::of_user(),
        Some(path) if path.as_os_str() == "none" => SshConfig::none(),
        Some(path) => SshConfig::file(path),
    };
    for option in args.option {
        config = config.option(option);
    }
    if args.allow_match_exec {
        config = config.allow_match_exec();
    }
    let trust = match (args.danger_accept_any_host, args.accept_new) {
        (true, _) => Trust::AnyHost,
        (false, true) => Trust::AcceptNew,
        (false, false) => Trust::Configured,
    };
    Connection {
        destination,
        config,
        jump: args.jump.map(|jump| jump.0),
        proxy: args.proxy,
        proxy_password_file: args.proxy_password_file,
        profile: args.profile,
        algorithms: Algorithms {
            cipher: args.cipher,
            mac: args.mac,
            kex: args.kex,
            host_key: args.host_key_algorithms,
            compression: args.compression,
        },
        trust,
        known_hosts: args.known_hosts,
        identities: args.identity,
        agent: args.agent,
        has_memory: !args.no_host_memory,
        password_file: args.password_file,
        may_ask: !args.batch,
        address_family: match (args.ipv4, args.ipv6) {
            (true, _) => Some(AddressFamily::Inet),
            (false, true) => Some(AddressFamily::Inet6),
            (false, false) => None,
        },
        bind_address: args.bind_address,
        connect_timeout: args.connect_timeout,
        timeout: args.timeout,
    }
}

/// Whether a file goes *into* `path`: it is a directory, or is written like one.
fn names_a_directory(path: &Path) -> bool {
    let written = path.as_os_str().as_encoded_bytes();
    path.is_dir()
        || written
            .last()
            .is_some_and(|last| std::path::is_separator(char::from(*last)))
}

/// The local file name for the last part of a remote path.
#[cfg(unix)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "other systems cannot name every file"
)]
pub(crate) fn local_name(name: &[u8]) -> Result<PathBuf, Failed> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    Ok(PathBuf::from(OsStr::from_bytes(name)))
}

/// The local file name for the last part of a remote path, where this system can have one.
#[cfg(not(unix))]
pub(crate) fn local_name(name: &[u8]) -> Result<PathBuf, Failed> {
    use std::path::Component;
    let refused = || {
        let name = RemotePath::from(name);
        Failed::Usage(format!(
            "a local file cannot be named {name}: name another as LOCAL"
        ))
    };
    let path = PathBuf::from(std::str::from_utf8(name).map_err(|_| refused())?);
    let is_one_name = matches!(
        path.components().collect::<Vec<_>>().as_slice(),
        [Component::Normal(part)] if part.as_encoded_bytes() == name
    );
    // A colon would name a stream of a file.
    if is_one_name && !name.contains(&b':') {
        Ok(path)
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Command, Line};

    fn get(words: &[&str]) -> Result<Get, String> {
        let line = Line::try_parse_from([&["ketch", "get"], words].concat()).unwrap();
        let Command::Get(args) = line.command else {
            panic!()
        };
        Get::new(args).map_err(|failed| failed.to_string())
    }

    #[test]
    fn both_ways_to_write_a_remote_are_understood() {
        let short = get(&["me@host:in/a.csv", "-P", "2222"]).unwrap();
        let url = get(&["sftp://me@host:2222/in/a.csv"]).unwrap();
        for (plan, path) in [(short, "in/a.csv"), (url, "/in/a.csv")] {
            let server = plan.connection.destination;
            assert_eq!(server.host.as_str(), "host");
            assert_eq!(server.user.unwrap().as_str(), "me");
            assert_eq!(server.port, Some(2222));
            assert_eq!(plan.remote, RemotePath::from(path));
            assert_eq!(plan.local, Path::new("./a.csv"));
        }
        assert_eq!(
            get(&["me@host:a"]).unwrap().connection.destination.port,
            None
        );
    }

    #[test]
    fn two_ports_that_differ_are_an_error() {
        assert!(get(&["sftp://me@host:22/a", "-P", "22"]).is_ok());
        let error = get(&["sftp://me@host:22/a", "-P", "2222"]).unwrap_err();
        assert_eq!(error, "-P 2222 contradicts port 22 in the URL");
    }

    #[test]
    fn a_file_goes_into_a_directory_and_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let into = dir.path().to_str().unwrap();
        let local = |target: &str| get(&["me@host:in/a.csv", target]).unwrap().local;
        assert_eq!(local(into), dir.path().join("a.csv"));
        assert_eq!(
            local("no-such-directory/"),
            Path::new("no-such-directory/a.csv")
        );
        let new = dir.path().join("b.csv");
        assert_eq!(local(new.to_str().unwrap()), new);
    }

    #[test]
    fn a_remote_without_a_name_needs_r() {
        assert!(get(&["me@host:/"]).unwrap_err().contains("-r"));
        assert_eq!(
            get(&["-r", "me@host:/", "."]).unwrap().local,
            Path::new(".")
        );
    }

    #[test]
    fn words_of_a_command_arrive_as_they_are() {
        let line = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            String::from_utf8(command_line(&words)).unwrap()
        };
        assert_eq!(line(&["ls *.csv | wc -l"]), "ls *.csv | wc -l");
        assert_eq!(line(&["ls", "-l", "/tmp"]), "ls -l /tmp");
        assert_eq!(
            line(&["echo", "it's $HOME", ""]),
            r"echo 'it'\''s $HOME' ''"
        );
    }

    #[test]
    fn a_local_path_is_no_remote() {
        let error = get(&["a.csv"]).unwrap_err();
        assert!(
            error.starts_with("cannot understand \"a.csv\": "),
            "{error}"
        );
    }

    #[test]
    fn a_directory_is_not_put_without_r() {
        let dir = tempfile::tempdir().unwrap();
        let put = |words: &[&str]| {
            let mut line = vec!["ketch", "put", dir.path().to_str().unwrap(), "me@host:in"];
            line.extend(words);
            let Command::Put(args) = Line::try_parse_from(line).unwrap().command else {
                panic!()
            };
            Put::new(args)
        };
        assert!(
            put(&[])
                .unwrap_err()
                .to_string()
                .ends_with("is a directory: use -r")
        );
        let name = dir.path().file_name().unwrap().as_encoded_bytes();
        assert_eq!(put(&["-r"]).unwrap().name.as_deref(), Some(name));
    }
}
