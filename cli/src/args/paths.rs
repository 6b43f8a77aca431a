//! The arguments of the commands that work on one path of a server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ConnectArgs, REMOTE_HELP};

/// `ketch cat`, `ketch df`, `ketch rmdir`.
#[derive(Debug, Args)]
pub(crate) struct PathArgs {
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Remove directories with everything in them; links are not followed
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// It is no error if nothing is there
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MkdirArgs {
    /// Create the directories above it, too; it is no error if it is there
    // Not -p: that is the port, as for ssh.
    #[arg(long)]
    pub(crate) parents: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MvArgs {
    /// Fail if the new name is taken, where the server can tell
    #[arg(short, long)]
    pub(crate) no_clobber: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    /// New path on the same server, or the directory to move it into
    pub(crate) to: PathBuf,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LnArgs {
    /// Make a symbolic link: TARGET is kept as it is written
    #[arg(short, long)]
    pub(crate) symbolic: bool,
    /// What the link is to lead to, on the same server
    pub(crate) target: PathBuf,
    /// The link: `[user@]host:path` or `sftp://[user@]host[:port]/path`
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    /// Tell of what a link leads to
    #[arg(short = 'L', long)]
    pub(crate) dereference: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChmodArgs {
    /// Permissions as an octal number, such as 640
    #[arg(value_parser = mode)]
    pub(crate) mode: u32,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// Only names that match this pattern of * ? and [a-z]
    #[arg(long, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Only what is of this kind
    #[arg(short = 't', long = "type", value_name = "KIND")]
    pub(crate) kind: Option<KindArg>,
    /// How many levels to go down
    #[arg(long, value_name = "LEVELS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_depth: Option<u32>,
    /// Go through links to directories
    #[arg(short = 'L', long)]
    pub(crate) follow: bool,
    #[arg(help = REMOTE_HELP)]
    pub(crate) remote: String,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Kinds of files, for `ketch find`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum KindArg {
    /// Plain files
    #[value(alias = "f")]
    File,
    /// Directories
    #[value(alias = "d")]
    Directory,
    /// Symbolic links
    #[value(alias = "l")]
    Link,
}

/// Permissions in octal.
fn mode(typed: &str) -> Result<u32, String> {
    match u32::from_str_radix(typed, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err("permissions are an octal number of at most 7777".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Command, Line};
    use super::*;

    fn parse(line: &str) -> Option<Command> {
        let line = Line::try_parse_from(line.split_whitespace());
        line.ok().map(|line| line.command)
    }

    #[test]
    fn modes_are_octal() {
        let Some(Command::Chmod(chmod)) = parse("ketch chmod 0640 host:a") else {
            panic!()
        };
        assert_eq!(chmod.mode, 0o640);
        for wrong in ["8", "10000", "u+w", "-1"] {
            assert!(
                parse(&format!("ketch chmod {wrong} host:a")).is_none(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn kinds_have_short_names() {
        for (typed, kind) in [("f", KindArg::File), ("directory", KindArg::Directory)] {
            let Some(Command::Find(find)) = parse(&format!("ketch find -t {typed} host:a")) else {
                panic!()
            };
            assert_eq!(find.kind, Some(kind));
        }
        assert!(parse("ketch find --max-depth 0 host:a").is_none());
    }
}
