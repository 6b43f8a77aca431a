//! The laws that fuzzing checks, one function for each target.
//!
//! A target in `fuzz_targets` is three lines that hand libFuzzer's bytes to the function of its
//! name here. So the laws are ordinary code: they are compiled with the workspace, and their
//! tests run them on packets that are known to be good, which keeps a law that nothing reaches
//! from looking like one that holds.
//!
//! | module | what is held to it |
//! | --- | --- |
//! | [`wire`] | the data types of RFC 4251 §5 |
//! | [`sftp`] | every SFTP packet, as server and as client read it |
//! | [`sftp_client`] | the SFTP client, against a server that lies |
//! | [`sftp_resume`] | transfers that are continued, whatever became of the one before |
//! | [`sftp_server`] | the session of the server, against any client; the paths that clients name |
//! | [`sftp_stream`] | the streaming decoders, with their input cut anywhere |
//! | [`packet`] | identification lines, and the packet layer under every cipher |
//! | [`ssh`] | every SSH message, and what two offers agree on |
//! | [`ssh_channels`] | a connection in use, and scripts of messages about channels |
//! | [`ssh_session`] | two whole SSH machines, and a server that strangers talk to |
//! | [`agent`] | what an ssh-agent says |
//! | [`keys`] | keys, certificates, signatures, key files, revocation lists |
//! | [`ssh_script`] | a whole client or server with a peer that keeps no rule |
//! | [`known_hosts`] | files of host keys, and destinations |
//! | [`names`] | filters and globs of names, and names and links that a server lists |
//! | [`ssh_config`] | configurations of users |
//! | [`server_file`] | configurations of servers |
#![forbid(unsafe_code)]

pub mod agent;
pub mod keys;
pub mod known_hosts;
pub mod names;
pub mod packet;
mod script;
pub mod server_file;
pub mod sftp;
pub mod sftp_client;
pub mod sftp_resume;
pub mod sftp_server;

pub mod sftp_stream;
pub mod ssh;
pub mod ssh_channels;
pub mod ssh_config;
pub mod ssh_script;
pub mod ssh_session;
pub mod wire;
