//! What may stand in a listener's file, as types. The schema and its descriptions are made of them: the
//! comments here are what people read in their editors and in `docs/listen.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ketch_settings::{Address, Period, Secret, Size};
use schemars::JsonSchema;
use serde::Deserialize;

use super::sinks::SinkTable;
use super::words::{
    AntPattern, CronText, DoneFile, GlobPattern, HostKeyLine, Interval, Name, NameTemplate,
    ProxyUrl, RegexPattern, Server, SourceUrl,
};

/// A listener: where its ledger is, the sources that it watches, and the flows from them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "ketch listen")]
pub(super) struct FileTable {
    /// Directory for the ledger, what is remembered of sources, and files on their way. It is made if
    /// it is not there, for its owner alone. Not changed by a reload.
    pub(super) state: PathBuf,
    /// Time for files that are on their way when the listener is stopped. Default: 30 s.
    pub(super) shutdown: Option<Period>,
    /// A ledger that several listeners share. Default: one in `state`, for this listener alone. Not
    /// changed by a reload.
    pub(super) store: Option<StoreTable>,
    /// Requests, events, health and metrics over HTTP. Default: none. Not changed by a reload.
    pub(super) api: Option<ApiTable>,
    /// Where files come from.
    #[schemars(length(min = 1, max = 256))]
    pub(super) source: Vec<SourceTable>,
    /// What is done with the files of a source.
    #[schemars(length(min = 1, max = 256))]
    pub(super) flow: Vec<FlowTable>,
}

/// A ledger in PostgreSQL: listeners with the same one divide the work, and no directory is watched
/// twice.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreTable {
    /// The database, `host=… user=… dbname=…` or `postgresql://…`, as libpq has it.
    pub(super) postgres: Secret,
    /// How long a listener that died keeps what it had: the watch over a source, and files on their
    /// way. One that lives renews it every third of this. 2 s at least. Default: 30 s.
    pub(super) lease: Option<Period>,
}

/// Requests, events, health and metrics over HTTP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiTable {
    /// Address and port to listen on; port 0 takes a free one. Default: `127.0.0.1:8022`.
    pub(super) listen: Option<Address>,
    /// What a client has to show: `Authorization: Bearer …`, 16 to 512 printable characters. Without
    /// it `/healthz` and `/readyz` alone are answered, so `ketch listen status` and its like are not,
    /// and only the loopback device may be listened on. Default: none.
    pub(super) token: Option<Secret>,
}

/// A tree of files: on a server (`url`), or here (`local`).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceTable {
    /// Its name, for flows and sinks: letters, digits, `-`, `_` and `.`.
    pub(super) name: Name,
    /// The server and the directory on it, `sftp://user@host:22/path`. A path that does not begin
    /// with `/` cannot be written so: without any it is the directory in which the server puts the
    /// user.
    pub(super) url: Option<SourceUrl>,
    /// A directory here, instead of one on a server.
    pub(super) local: Option<PathBuf>,
    /// Files of private keys to log in with; nobody else may read them. A certificate that lies
    /// beside one as `…-cert.pub` is used, too.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) identity: Vec<PathBuf>,
    /// A private key itself, as it would stand in such a file. Default: none.
    pub(super) private_key: Option<Secret>,
    /// Passphrase of the private keys. Default: none.
    pub(super) passphrase: Option<Secret>,
    /// The password; it also answers a question for one (keyboard-interactive). Default: none.
    pub(super) password: Option<Secret>,
    /// Socket of an agent with keys to log in with, or `env` for that of `SSH_AUTH_SOCK`.
    /// Default: none.
    pub(super) agent: Option<PathBuf>,
    /// The server's keys, `ssh-ed25519 AAAA…`, as they stand in `.pub` files; also as in
    /// `known_hosts`, with the host in front. No others are accepted.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) host_key: Vec<HostKeyLine>,
    /// File of hosts and their keys, as OpenSSH has it. Default: the user's and the machine's.
    pub(super) known_hosts: Option<PathBuf>,
    /// Write the key of a server that is not in `known_hosts` into it, the first time it is met.
    /// Default: false: it is refused.
    #[serde(default)]
    pub(super) accept_new_host: bool,
    /// Accept whatever key is shown: anyone on the way can read and change everything. Default:
    /// false.
    #[serde(default)]
    pub(super) danger_accept_any_host: bool,
    /// Which algorithms are offered. Default: `compat`.
    #[serde(default)]
    pub(super) algorithms: Algorithms,
    /// A proxy to go through: `socks5://`, `socks4://`, `socks4a://` or `http://[user@]host:port`;
    /// `env` for that of `ALL_PROXY` or `HTTPS_PROXY`. Default: none.
    pub(super) proxy: Option<ProxyUrl>,
    /// Password for the proxy. Default: none.
    pub(super) proxy_password: Option<Secret>,
    /// Servers to go through, in order, `[user@]host[:port]`; with the same keys, password, and hosts
    /// that are known. Default: none.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub(super) jump: Vec<Server>,
    /// SFTP channels of the connection that a look at a large tree may use: a server that has a
    /// process for each, as OpenSSH's has, lists several directories at the same time. One that gives
    /// fewer is content with those. Default: 3.
    #[schemars(range(min = 1, max = 8))]
    pub(super) channels: Option<usize>,
    /// How long things may take.
    #[serde(default)]
    pub(super) timeouts: TimeoutsTable,
}

/// How long things may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutsTable {
    /// To find the server and connect to each of its addresses. Default: 10 s.
    pub(super) connect: Option<Period>,
    /// For identification and key exchange. Default: 30 s.
    pub(super) handshake: Option<Period>,
    /// For authentication. Default: 60 s.
    pub(super) authentication: Option<Period>,
    /// Without a byte of an answer while one is due. Default: 60 s.
    pub(super) read: Option<Period>,
    /// Silence after which the server is asked whether it is there. Default: 30 s.
    pub(super) keepalive: Option<Period>,
    /// Longest pause between two attempts to connect. Default: 60 s.
    pub(super) reconnect_max: Option<Period>,
}

/// A list of algorithms.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Algorithms {
    /// What is secure and fast.
    Modern,
    /// The same, and the NIST curves and SHA-2 groups for older servers.
    #[default]
    Compat,
    /// What is broken or weak, too, for old servers.
    Legacy,
    /// Only what a quantum computer does not break.
    PqOnly,
}

/// From one source through rules to sinks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowTable {
    /// Its name, which is kept in the ledger: under another name a flow begins anew. Letters, digits,
    /// `-`, `_` and `.`, at most 64.
    pub(super) name: Name,
    /// Name of the source.
    pub(super) source: Name,
    /// Directory below the source's, without `..`. Default: the source's.
    pub(super) path: Option<String>,
    /// Time from one look at the source to the next, or `manual`: only when it is asked for.
    /// Default: 5 s.
    pub(super) interval: Option<Interval>,
    /// Times of day at which the source is looked at, instead of `interval`, as a cron expression: minute,
    /// hour, day of the month (`L` is the last), month, day of the week. Also `@hourly`, `@daily`,
    /// `@weekly`, `@monthly`, `@yearly`. Default: none.
    pub(super) schedule: Option<CronText>,
    /// The time zone of `schedule`: `Europe/Berlin`, or `system` for that of this machine. Default: UTC.
    pub(super) time_zone: Option<String>,
    /// Whether a time of `schedule` at which the listener did not run is made up for when it starts; a
    /// new flow looks at its source then, too. Default: true.
    pub(super) catch_up: Option<bool>,
    /// Whether directories are looked into. Default: false.
    #[serde(default)]
    pub(super) recursive: bool,
    /// How many levels deep, with `recursive`: 1 is the directory itself. Default: 64, which is the most.
    #[schemars(range(min = 1, max = 64))]
    pub(super) depth: Option<u16>,
    /// From which level on files count, with `recursive`: 2 for none of the directory itself. Default: 1.
    #[schemars(range(min = 1, max = 64))]
    pub(super) min_depth: Option<u16>,
    /// Patterns of files to take: `*.csv` at any depth, with a `/` in it from the source's directory.
    /// Default: all.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(super) include: Vec<GlobPattern>,
    /// Patterns of files and directories to leave out. Default: none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(super) exclude: Vec<GlobPattern>,
    /// The same as regular expressions, for the whole path below the source's directory.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(super) include_regex: Vec<RegexPattern>,
    /// Regular expressions of what to leave out.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(super) exclude_regex: Vec<RegexPattern>,
    /// The same as patterns of Ant: `**/*.csv`, `in/*/done/**`.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(super) include_ant: Vec<AntPattern>,
    /// Patterns of Ant of what to leave out.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(super) exclude_ant: Vec<AntPattern>,
    /// Smallest file to take. Default: 0.
    pub(super) min_size: Option<Size>,
    /// Largest file to take. Default: any.
    pub(super) max_size: Option<Size>,
    /// Only files that were changed last so long ago at least, by the server's clock. Default: any.
    pub(super) min_age: Option<Period>,
    /// Only files that were changed last so long ago at most, by the server's clock. Default: any.
    pub(super) max_age: Option<Period>,
    /// When a file is complete.
    #[serde(default)]
    pub(super) settle: SettleTable,
    /// What the first look of all finds: `baseline` for what is known already, `news` for what is to
    /// be delivered. Default: `news`.
    #[serde(default)]
    pub(super) first: FirstName,
    /// Which files of a directory come first, one at a time; `any` for several at a time as they come.
    /// Default: `any`.
    #[serde(default)]
    pub(super) order: OrderName,
    /// Whether a file that was renamed is a new file (`path`) or the same one still (`content`, told by
    /// size and time). Default: `path`.
    #[serde(default)]
    pub(super) identity: IdentityName,
    /// How versions of a file are told apart: by size and time (`fast`), or of files that changed within
    /// the last ten minutes also by their SHA-256, after each full look (`hash`). Default: `fast`.
    #[serde(default)]
    pub(super) versions: VersionsName,
    /// Whether the times of directories may save listing them, once they were seen to tell the truth.
    /// Default: `never`.
    #[serde(default)]
    pub(super) directory_times: DirectoryTimesName,
    /// Every how many looks all directories are listed nevertheless. Default: 20.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) sweep_every: Option<u32>,
    /// Complete looks in a row that must lack a file before it is gone. Default: 2.
    #[schemars(range(min = 1, max = 4))]
    pub(super) missing_polls: Option<u8>,
    /// Complete looks in a row that must find the source suddenly empty (of ten or more files that were
    /// known all are missing at once, as when it is not mounted) before these files are gone. 0 for
    /// no such guard. Default: 20.
    #[schemars(range(max = 1_000_000))]
    pub(super) removals_guard: Option<u32>,
    /// How many of a hundred known files count as all of them for that. Default: 100.
    #[schemars(range(min = 1, max = 100))]
    pub(super) removals_guard_percent: Option<u8>,
    /// Whether the source is asked to say at once what changes, where it can (`ketch serve`, and
    /// directories here). Looks go on as a net. Default: `auto`, and `never` with `schedule`.
    pub(super) push: Option<PushName>,
    /// Whether it is told that files are gone. Default: false.
    #[serde(default)]
    pub(super) removals: bool,
    /// Whether it is told of directories, too. Default: false.
    #[serde(default)]
    pub(super) directories: bool,
    /// Files that are worked on at a time. Default: 8.
    #[schemars(range(min = 1, max = 256))]
    pub(super) concurrency: Option<usize>,
    /// Bytes of files that are fetched at a time; a larger file comes alone. Default: 64 MiB.
    pub(super) in_flight: Option<Size>,
    /// Bytes a second that are fetched at most. Default: as fast as it goes.
    pub(super) rate: Option<Size>,
    /// Attempts before a file is given up, until somebody asks for it again. While a source or sink
    /// cannot be reached or is full none is counted. Default: 8.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) attempts: Option<u32>,
    /// Pauses between attempts.
    #[serde(default)]
    pub(super) retry: RetryTable,
    /// Where a file is renamed to before it is fetched, below the source's directory: of several
    /// readers only one succeeds. Default: it is not.
    pub(super) pre_move: Option<NameTemplate>,
    /// Directory for files on their way. Default: where a `directory` sink is the only one that reads
    /// files, a hidden place in its directory, so that no file is written twice; else in `state`.
    pub(super) spool: Option<PathBuf>,
    /// What becomes of a file that all sinks have.
    #[serde(default)]
    pub(super) after: AfterTable,
    /// Where files and events go, in this order.
    #[schemars(length(min = 1, max = 16))]
    pub(super) sink: Vec<SinkTable>,
}

/// When a file is complete. All that is said here must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettleTable {
    /// What shows it. Default: `stable`, and `immediately` with `done_file` or `trigger_file`.
    pub(super) rule: Option<SettleRule>,
    /// For how long its size and time must stay the same, by our own clock. Default: 5 s.
    pub(super) period: Option<Period>,
    /// How many looks must find them so. Default: 2.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) polls: Option<u32>,
    /// Time since it was first seen as it is, by our own clock. Default: none.
    pub(super) min_age: Option<Period>,
    /// Name of a file that must be there beside it: `{name}.done`, or `{stem}.ok` without what follows
    /// the last dot. Default: none.
    pub(super) done_file: Option<DoneFile>,
    /// Name of a file that must be there in its directory. Default: none.
    pub(super) trigger_file: Option<String>,
    /// Patterns of names that are not final, such as `*.part`. Default: none.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(super) temporary: Vec<GlobPattern>,
    /// Files that may wait for it at a time, some 300 bytes of memory each. Default: 100 000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(super) candidates: Option<usize>,
}

/// What shows that a file is complete.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SettleRule {
    /// Size and time stayed the same for `period` and at so many looks as `polls` says.
    Stable,
    /// Its writer closed it, as the source said; where none says that, as `stable`.
    OnClose,
    /// It is there: for writers that rename into place.
    Immediately,
}

/// What the first look of all finds.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FirstName {
    /// Every file is delivered.
    #[default]
    News,
    /// What is there is known already, and never delivered.
    Baseline,
}

/// Which files come first.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OrderName {
    /// As they come, several of a directory at a time.
    #[default]
    Any,
    /// Of each directory one at a time, by name.
    Name,
    /// Of each directory one at a time, by time of last change, then by name.
    Time,
    /// As `name`, from the last one to the first.
    NameDescending,
    /// As `time`, the newest first.
    TimeDescending,
}

/// What a renamed file is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum IdentityName {
    /// A new file.
    #[default]
    Path,
    /// The same file.
    Content,
}

/// How versions of a file are told apart.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum VersionsName {
    /// By size and time: what is written again with the same size within the second of its last change
    /// is not noticed.
    #[default]
    Fast,
    /// By their SHA-256, too, as far as they changed lately; the server computes it where it can.
    Hash,
}

/// Whether the times of directories may save listing them.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DirectoryTimesName {
    /// Every look lists everything.
    #[default]
    Never,
    /// Once they were seen to tell the truth, and until they are caught.
    Learn,
}

/// Whether the source is asked to say at once what changes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PushName {
    /// Where it can.
    Auto,
    /// It is only looked at.
    Never,
}

/// Pauses between attempts: they double, with a part at random.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryTable {
    /// Longest pause after a first failure. Default: 1 s.
    pub(super) first: Option<Period>,
    /// Longest pause of all. Default: 5 min.
    pub(super) max: Option<Period>,
}

/// What becomes of a file that all sinks have, at its source.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AfterTable {
    /// What is done. Default: `keep`.
    #[serde(default)]
    pub(super) action: ActionName,
    /// The new name below the source's directory, with `move` and `rename`.
    pub(super) to: Option<NameTemplate>,
    /// The new name of a file that was given up. Default: it stays.
    pub(super) failed: Option<NameTemplate>,
}

/// What is done with a file that all sinks have.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ActionName {
    /// It stays.
    #[default]
    Keep,
    /// It is removed.
    Delete,
    /// It is renamed to `to`; a name that is taken gets a number.
    Move,
    /// It is renamed to `to`, and replaces what has that name.
    Rename,
}

/// Values by name, each of which may be a secret.
pub(super) type Named = BTreeMap<String, Secret>;
