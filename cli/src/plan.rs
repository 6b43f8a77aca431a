//! What the arguments mean: which host, files, keys and policies. Defaults are filled in here.
//!
//! Nothing is connected and no secret is read yet.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ketch_client::{CipherName, Destination, RemotePath};

use crate::args::{ConnectArgs, GetArgs, ListenArgs, LsArgs, PutArgs, TransferArgs};
use crate::failed::Failed;
use crate::output::Bar;

/// Everything that is needed to reach a server and log in.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Server, port and user; who is not named is the local user.
    pub(crate) destination: Destination,
    /// Where host keys are kept; `None` for the files that OpenSSH uses.
    pub(crate) known_hosts: Option<PathBuf>,
    pub(crate) accept_new: bool,
    /// Private key files; none for the one that OpenSSH uses.
    pub(crate) identities: Vec<PathBuf>,
    /// In order of preference; none for the client's own order.
    pub(crate) ciphers: Vec<CipherName>,
    pub(crate) password_file: Option<PathBuf>,
    /// Whether the user may be asked for passwords and passphrases.
    pub(crate) may_ask: bool,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
}

/// `ketch get`, resolved.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) connection: Connection,
    pub(crate) remote: RemotePath,
    /// Where the file or directory will be: its name included.
    pub(crate) local: PathBuf,
    pub(crate) recursive: bool,
    pub(crate) bar: Bar,
}

impl Get {
    pub(crate) fn new(args: GetArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(&args.remote, args.connect)?;
        let local = args.local.unwrap_or_else(|| PathBuf::from("."));
        let local = if names_a_directory(&local) {
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
            recursive: args.recursive,
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
    pub(crate) bar: Bar,
}

impl Put {
    pub(crate) fn new(args: PutArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(&args.remote, args.connect)?;
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
            bar: bar(&args.transfer),
        })
    }
}

/// `ketch ls`, resolved.
#[derive(Debug)]
pub(crate) struct Ls {
    pub(crate) connection: Connection,
    pub(crate) remote: RemotePath,
    pub(crate) long: bool,
}

impl Ls {
    pub(crate) fn new(args: LsArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(&args.remote, args.connect)?;
        Ok(Self {
            connection,
            remote,
            long: args.long,
        })
    }
}

/// `ketch listen`, resolved.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) connection: Connection,
    pub(crate) remote: RemotePath,
    pub(crate) interval: Duration,
    pub(crate) existing: bool,
}

impl Listen {
    pub(crate) fn new(args: ListenArgs) -> Result<Self, Failed> {
        let (connection, remote) = connection(&args.remote, args.connect)?;
        Ok(Self {
            connection,
            remote,
            interval: args.interval,
            existing: args.existing,
        })
    }
}

const fn bar(args: &TransferArgs) -> Bar {
    if args.quiet { Bar::None } else { Bar::Stays }
}

/// An error of a local file, with what was to be done to it.
pub(crate) fn cannot(verb: &str, path: &Path, source: io::Error) -> Failed {
    Failed::local(format!("cannot {verb} {}", path.display()), source)
}

fn connection(remote: &str, args: ConnectArgs) -> Result<(Connection, RemotePath), Failed> {
    let mut destination: Destination = remote
        .parse()
        .map_err(|error| Failed::Usage(format!("cannot understand {remote:?}: {error}")))?;
    match (args.port, destination.port) {
        (Some(flag), Some(url)) if flag != url => {
            return Err(Failed::Usage(format!(
                "-P {flag} contradicts port {url} in the URL"
            )));
        }
        (flag, url) => destination.port = flag.or(url),
    }
    let path = destination.path.clone();
    let connection = Connection {
        destination,
        known_hosts: args.known_hosts,
        accept_new: args.accept_new,
        identities: args.identity,
        ciphers: args.cipher,
        password_file: args.password_file,
        may_ask: !args.batch,
        connect_timeout: args.connect_timeout,
        timeout: args.timeout,
    };
    Ok((connection, path))
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
fn local_name(name: &[u8]) -> Result<PathBuf, Failed> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    Ok(PathBuf::from(OsStr::from_bytes(name)))
}

/// The local file name for the last part of a remote path, where this system can have one.
#[cfg(not(unix))]
fn local_name(name: &[u8]) -> Result<PathBuf, Failed> {
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
