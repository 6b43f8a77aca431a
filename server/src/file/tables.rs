//! What may stand in a server's file, as types. The schema and its descriptions are made of them: the
//! comments here are what people read in their editors and in `docs/serve.md`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ketch_settings::{Address, Moment, Period, Size};
use schemars::JsonSchema;
use serde::Deserialize;

use super::words::{Hash, KeyLine, NameGlob, Network, PathGlob};

/// A server: where it listens, its keys, and its users by organisation and endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "ketch serve")]
pub(super) struct FileTable {
    /// Addresses and ports to listen on; port 0 takes a free one.
    #[schemars(length(min = 1, max = 64))]
    pub(super) listen: Vec<Address>,
    /// The server's own keys, at most one of each type in use at a time.
    #[schemars(length(min = 1, max = 16))]
    pub(super) host_key: Vec<HostKeyTable>,
    /// Organisations by name; users of all of them log in at every address, by names of their own.
    pub(super) organisation: BTreeMap<String, OrganisationTable>,
    /// Text that is shown to clients before they log in. Default: none.
    pub(super) banner: Option<String>,
    /// Which algorithms are offered. Default: `modern`.
    #[serde(default)]
    pub(super) algorithms: Algorithms,
    /// Authorities whose certificates let users in by their names. Default: none.
    #[serde(default)]
    pub(super) user_authorities: Vec<KeyLine>,
    /// File of keys, certificates and authorities that let nobody in any more, as `ssh-keygen -k`
    /// makes it. Default: none.
    pub(super) revoked_keys_file: Option<PathBuf>,
    /// Say yes to every question whether a key would do, so that asking tells nothing. Default: false.
    #[serde(default)]
    pub(super) uniform_key_queries: bool,
    /// How long things may take.
    #[serde(default)]
    pub(super) timeouts: TimeoutsTable,
    /// What all clients together may take.
    #[serde(default)]
    pub(super) limits: LimitsTable,
    /// How long addresses are kept out that behave badly.
    #[serde(default)]
    pub(super) penalties: PenaltiesTable,
    /// A log of who did what. Default: none.
    pub(super) audit: Option<AuditTable>,
    /// Metrics and health over HTTP. Default: none.
    pub(super) metrics: Option<MetricsTable>,
}

/// A log of who did what, one line of JSON an event (`docs/audit.md`). Not changed by a reload, which
/// has its file opened anew.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditTable {
    /// File that is appended to; it is made for its owner alone.
    pub(super) file: PathBuf,
}

/// Metrics and health over HTTP (`docs/metrics.md`), without login or TLS. Not changed by a reload.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsTable {
    /// Address and port to listen on: on the loopback device, or a network of its own.
    pub(super) listen: Address,
}

/// One of the server's own keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HostKeyTable {
    /// File of the private key, which nobody else may read. If there is none, it is made.
    pub(super) file: PathBuf,
    /// What is made if there is no file. Default: `ed25519`.
    #[serde(default, rename = "type")]
    pub(super) key_type: HostKeyType,
    /// What it is for now. Default: `current`.
    #[serde(default, rename = "use")]
    pub(super) stage: Stage,
    /// File of a host certificate for it. Default: none.
    pub(super) certificate: Option<PathBuf>,
}

/// A type of key that can be made.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HostKeyType {
    /// Ed25519.
    #[default]
    Ed25519,
    /// ECDSA on NIST P-256.
    EcdsaP256,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// ECDSA on NIST P-521.
    EcdsaP521,
}

/// A host key's time of life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Stage {
    /// The server proves itself with it, and clients are told of it.
    #[default]
    Current,
    /// Clients are told of it, so that they know it before it is used.
    Next,
    /// The server proves itself with it to those who know no other; clients are not told of it, and
    /// forget it.
    Retired,
}

/// A list of algorithms.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Algorithms {
    /// What is secure and fast.
    #[default]
    Modern,
    /// The same, and the NIST curves and SHA-2 groups for older clients.
    Compat,
    /// Only what a quantum computer does not break.
    PqOnly,
}

/// How long things may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TimeoutsTable {
    /// Identification and key exchange. Default: 30 s.
    pub(super) handshake: Option<Period>,
    /// Authentication. Default: 60 s.
    pub(super) authentication: Option<Period>,
    /// Connections that are there when the server is stopped have so long to end. Default: 5 s.
    pub(super) shutdown: Option<Period>,
}

/// What all clients together may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    /// Connections at a time. Default: 1000. Not changed by a reload.
    #[schemars(range(min = 1))]
    pub(super) connections: Option<usize>,
    /// Connections at a time on which nobody is logged in. From 100 on, new ones are refused at random,
    /// the more the more there are. Default: 500. Not changed by a reload.
    #[schemars(range(min = 1))]
    pub(super) half_open: Option<usize>,
    /// The same from one address. Default: 20. Not changed by a reload.
    #[schemars(range(min = 1))]
    pub(super) half_open_per_source: Option<usize>,
    /// Hashes of passwords that are computed at a time. Default: 2. Not changed by a reload.
    #[schemars(range(min = 1))]
    pub(super) password_hashes: Option<usize>,
    /// Open files and directories of all sessions. Default: 4096. Not changed by a reload.
    #[schemars(range(min = 1))]
    pub(super) handles: Option<usize>,
}

/// How long addresses are kept out that behave badly. Not changed by a reload.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PenaltiesTable {
    /// Whether any are kept out. Default: true; false behind a proxy, where all have one address.
    pub(super) enabled: Option<bool>,
    /// Addresses and networks that are never kept out. Default: none.
    #[serde(default)]
    pub(super) exempt: Vec<Network>,
}

/// An organisation: its endpoints by name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OrganisationTable {
    /// What it is, for people.
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    /// Endpoints by name: directories with users of their own.
    #[serde(default)]
    pub(super) endpoint: BTreeMap<String, EndpointTable>,
}

/// An endpoint: a directory, what holds for all its users, and the users by name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointTable {
    /// What it is, for people.
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    /// Directory that its users see as `/`; nothing outside of it can be reached.
    pub(super) root: PathBuf,
    /// Nobody may log in. Default: false.
    #[serde(default)]
    pub(super) disabled: bool,
    /// Addresses and networks from which its users may log in. Default: all.
    pub(super) sources: Option<Vec<Network>>,
    /// Uploads appear under their names when they are closed, whole or not at all; and what a `CLOSE`
    /// waits for. Default: what is written is seen at once.
    pub(super) atomic_uploads: Option<DurabilityName>,
    /// What its users may do at all. Default: `read-write`.
    #[serde(default)]
    pub(super) access: AccessName,
    /// What its users may do by path; of those that match the last one holds. With any rule no link
    /// is made or followed. Default: none, so `access` holds everywhere.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub(super) rules: Vec<RuleTable>,
    /// A session in which no command came for so long is closed. Default: 15 min.
    pub(super) idle_timeout: Option<Period>,
    /// When uploads count as arrived, which the audit log tells, and what may be done to them then.
    /// Default: they are not followed up.
    pub(super) arrivals: Option<ArrivalsTable>,
    /// A file that is being uploaded cannot be opened to be written once more. Default: false.
    #[serde(default)]
    pub(super) exclusive_uploads: bool,
    /// Users by name, which is case-sensitive and may stand in the file once.
    #[serde(default)]
    pub(super) user: BTreeMap<String, UserTable>,
}

/// A user: at least one way to log in, and what is allowed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserTable {
    /// Who it is, for people.
    #[serde(rename = "description")]
    pub(super) _description: Option<String>,
    /// Directory below the endpoint's root, or an absolute path, that the user sees as `/`.
    /// Default: the endpoint's root.
    pub(super) root: Option<PathBuf>,
    /// Public keys that let in, as they stand in `.pub` files.
    #[serde(default)]
    pub(super) authorized_keys: Vec<KeyLine>,
    /// File of such keys, one a line.
    pub(super) authorized_keys_file: Option<PathBuf>,
    /// Hash of the password that lets in, as `ketch serve hash-password` makes it.
    pub(super) password_hash: Option<Hash>,
    /// Authorities of which certificates let in that name one of the principals.
    #[serde(default)]
    pub(super) certificate_authorities: Vec<AuthorityTable>,
    /// Methods that are wanted together, in this order. Default: any one that the user has.
    #[serde(default)]
    #[schemars(length(max = 4))]
    pub(super) require: Vec<Factor>,
    /// What the user may do at all. Default: as the endpoint.
    pub(super) access: Option<AccessName>,
    /// What the user may do by path, behind the rules of the endpoint. Default: none.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub(super) rules: Vec<RuleTable>,
    /// How much the user may keep. Default: as much as there is room for.
    pub(super) quota: Option<QuotaTable>,
    /// How fast the user may be, in all sessions together. Default: as fast as it goes.
    pub(super) bandwidth: Option<BandwidthTable>,
    /// Addresses and networks from which the user may log in, beside what the endpoint says.
    /// Default: all.
    pub(super) sources: Option<Vec<Network>>,
    /// From when on the user may not log in; who is there then is disconnected. Default: never.
    pub(super) expires: Option<Moment>,
    /// Connections at a time. Default: as many as the server has.
    #[schemars(range(min = 1))]
    pub(super) connections: Option<usize>,
    /// The user may not log in. Default: false.
    #[serde(default)]
    pub(super) disabled: bool,
    /// The user may make symbolic links: relative ones without `..`. Default: false.
    #[serde(default)]
    pub(super) symbolic_links: bool,
    /// The user may give files a second name. Default: false.
    #[serde(default)]
    pub(super) hard_links: bool,
}

/// An authority of a user's certificates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuthorityTable {
    /// The authority's public key.
    pub(super) key: KeyLine,
    /// Names of which a certificate has to have one.
    #[schemars(length(min = 1))]
    pub(super) principals: Vec<String>,
}

/// A way to log in.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Factor {
    /// A key or a certificate.
    Publickey,
    /// The password.
    Password,
}

/// What an upload waits for before it is there.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DurabilityName {
    /// Nothing.
    None,
    /// That its bytes are on the disk, before it takes its name.
    File,
    /// That its bytes and its name are.
    Full,
}

/// What a user may do at all.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AccessName {
    /// Everything that the server's own rights on the files allow.
    #[default]
    ReadWrite,
    /// Reading files, listing directories, asking for attributes.
    ReadOnly,
    /// Bringing: files and directories can be made, listed and renamed to free names; nothing can be
    /// read, changed, replaced or removed.
    UploadOnly,
}

/// Rights where a pattern matches, and beneath.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTable {
    /// Pattern for paths: from the root if it starts with `/`, else at any depth.
    pub(super) path: PathGlob,
    /// All that may be done there; nothing, if the list is empty.
    pub(super) allow: Vec<RightName>,
}

/// One thing that may be done at a path.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RightName {
    /// The name is shown, and a directory can be listed.
    List,
    /// The content of a file can be read.
    Read,
    /// A file can be made.
    Write,
    /// A file that exists can be changed or replaced.
    Overwrite,
    /// A file or an empty directory can be removed.
    Delete,
    /// A file or directory can be given another name.
    Rename,
    /// A directory can be made.
    Mkdir,
    /// Permission bits and times can be set.
    Attributes,
}

/// How much a user may keep.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuotaTable {
    /// Most bytes of all files together. Default: as many as one likes.
    pub(super) bytes: Option<Size>,
    /// Most files, directories and links. Default: as many as one likes.
    pub(super) files: Option<u64>,
}

/// Bytes a second that a user may move.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BandwidthTable {
    /// To the server, in bytes a second. Default: as many as one likes.
    pub(super) upload: Option<Size>,
    /// From the server, in bytes a second. Default: as many as one likes.
    pub(super) download: Option<Size>,
}

/// When an upload counts as arrived.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ArrivalsTable {
    /// Patterns for names of files that are on their way, such as `*.part`: they arrive when they are
    /// renamed to another. Default: none, so files arrive when they are closed.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub(super) temporary_names: Vec<NameGlob>,
    /// Files arrive when another of their name and this suffix does, such as `.done`. Default: none.
    pub(super) trigger_suffix: Option<String>,
    /// What has arrived may be changed, renamed, replaced and removed. Default: false.
    #[serde(default)]
    pub(super) allow_changes: bool,
}
