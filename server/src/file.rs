//! A server's file: TOML in, a [`ServerBuilder`] out, and every mistake in it at once.
//!
//! ```text
//!   text ── ketch-settings, along the schema of the tables ──> tables ── build ──> ServerBuilder
//! ```
//!
//! The types of `tables` are what may stand in a file: the JSON schema is made of them, and
//! `ketch_settings` walks the file along that schema, so unknown keys, wrong types and bad values are all
//! told, each with its line, its key and what is likely meant. `build` says what the types cannot: that files
//! are there, that roots can be opened, that a user can log in. Feature `file`.

mod build;
mod host_keys;
mod tables;
mod words;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use ketch_settings::{Fault as FileFault, Faults as FileFaults};
use ketch_settings::{Places, Schema, strict};

pub use host_keys::{HostKeyFileError, host_key_file};

use crate::config::ServerBuilder;
use tables::FileTable;

/// Longest file of a server, in bytes.
pub const SERVER_FILE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// A server's file that was read: who may log in, where to, and how the server listens.
///
/// ```no_run
/// use ketch_server::ServerFile;
/// use tokio::net::TcpListener;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let file = ServerFile::read("/etc/ketch/server.toml")?;
/// let server = file.builder()?.build()?;
/// let listener = TcpListener::bind(file.listen()[0]).await?;
/// // When the file was changed:
/// server.reload(ServerFile::read("/etc/ketch/server.toml")?.builder()?)?;
/// server.serve(listener).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ServerFile {
    tables: FileTable,
    places: Places,
    listen: Vec<SocketAddr>,
}

impl ServerFile {
    /// Reads the file at `path`. Relative paths in it start from the directory that it is in.
    ///
    /// # Errors
    /// [`FileFaults`]: it cannot be read, others may write to it, or something in it is wrong.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, FileFaults> {
        let path = path.as_ref();
        let text = strict::text(path, SERVER_FILE_LEN_MAX)
            .map_err(|why| FileFaults::new(path, vec![FileFault::of_file(why.to_string())]))?;
        Self::parse(&text, path)
    }

    /// Takes `text` for what stands in the file at `path`, which need not be there: nothing is read.
    ///
    /// # Errors
    /// [`FileFaults`]: all that is wrong with the text alone.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, FileFaults> {
        let path = path.as_ref();
        let (tables, places) = schema().read::<FileTable>(text, path)?;
        Ok(Self {
            listen: tables.listen.iter().map(|word| word.0).collect(),
            tables,
            places,
        })
    }

    /// Where to listen, at least one address; port 0 is a free one.
    #[must_use]
    pub fn listen(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// The file of an [`AuditLog`](crate::AuditLog), if there is to be one.
    #[must_use]
    pub fn audit_log(&self) -> Option<PathBuf> {
        let table = self.tables.audit.as_ref()?;
        Some(self.places.resolve(&table.file))
    }

    /// Where to tell metrics and health, if anywhere.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        Some(self.tables.metrics.as_ref()?.listen.0)
    }

    /// How many users, endpoints and organisations there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let endpoints = self.tables.organisation.values();
        let endpoints: Vec<_> = endpoints.flat_map(|each| each.endpoint.values()).collect();
        let users = endpoints.iter().map(|each| each.user.len()).sum();
        (users, endpoints.len(), self.tables.organisation.len())
    }

    /// Reads the keys that the file names, makes host keys that are not there yet, opens the users'
    /// roots, and puts the server together.
    ///
    /// # Errors
    /// [`FileFaults`]: all that is wrong, of all users.
    pub fn builder(&self) -> Result<ServerBuilder, FileFaults> {
        build::builder(self, build::HostKeys::Make)
    }

    /// As [`ServerFile::builder`] without building anything: reads the keys that are there, makes
    /// none, and opens the users' roots.
    ///
    /// # Errors
    /// [`FileFaults`]: all that is wrong, of all users.
    pub fn check(&self) -> Result<(), FileFaults> {
        build::builder(self, build::HostKeys::Check).map(drop)
    }

    /// The JSON schema (draft 2020-12) of such a file, for editors and other programs.
    #[must_use]
    pub fn schema() -> String {
        format!("{:#}\n", schema().json())
    }
}

/// What may stand in a server's file.
fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| Schema::of::<FileTable>(words::WORDS))
}

#[cfg(test)]
mod tests;
