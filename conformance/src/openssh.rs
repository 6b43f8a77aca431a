//! The real OpenSSH: `sshd` and `sftp` from the system, on loopback, with keys and configuration
//! of their own. Nothing of the user's own configuration is read or written.

mod client;
mod key;
mod server;

pub use client::{OpenSshClient, SftpRun, batch_word};
pub use key::KeyPair;
pub use server::{OpenSshConfig, OpenSshServer, SftpProgram};
