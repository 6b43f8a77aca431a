//! Other people's clients do one script of operations on three servers: `ketch serve`, OpenSSH's sshd
//! with its own sftp-server, and the same sshd with `ketch-sftp-server`. What each step says, and the
//! files that are there in the end, are the same, but for the differences that stand, with their
//! reasons, in `differences.rs`; `docs/clients.md` is written from both.
//!
//! `scripts/setup-peers` installs the clients; one that is missing fails the test.
#![cfg(target_os = "linux")]

mod commands;
mod differences;
mod library;
mod mount;
mod programs;
mod report;
mod servers;
mod snapshot;

use std::path::Path;

use servers::{Kind, Server};

/// What a client did on one server: each step with what it came to, then the files.
pub(crate) type Outcome = Vec<(String, String)>;

/// A client of which the test knows how to run the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Server, &Path) -> Outcome,
}

const CLIENTS: [Client; 10] = [
    Client {
        name: "sftp",
        run: programs::sftp,
    },
    Client {
        name: "scp",
        run: programs::scp,
    },
    Client {
        name: "sshfs",
        run: mount::sshfs,
    },
    Client {
        name: "rclone",
        run: programs::rclone,
    },
    Client {
        name: "lftp",
        run: programs::lftp,
    },
    Client {
        name: "psftp",
        run: programs::psftp,
    },
    Client {
        name: "asyncssh",
        run: library::asyncssh,
    },
    Client {
        name: "paramiko",
        run: library::paramiko,
    },
    Client {
        name: "ssh2 (Node)",
        run: library::node,
    },
    Client {
        name: "libssh2",
        run: library::libssh2,
    },
];

/// Clients that run side by side.
const AT_A_TIME: usize = 4;

#[test]
fn every_client_does_the_same_on_all_servers() {
    let only = std::env::var("KETCH_CLIENTS_ONLY").ok();
    let wanted = |client: &&Client| only.as_deref().is_none_or(|only| client.name == only);
    let clients: Vec<_> = CLIENTS.iter().filter(wanted).collect();
    // Much of it is waiting: some clients at a time, each on all servers.
    let mut outcomes: Vec<[Outcome; 3]> = Vec::new();
    for some in clients.chunks(AT_A_TIME) {
        outcomes.extend(std::thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|client| Kind::ALL.map(|kind| scope.spawn(move || on(client, kind))))
                .collect();
            let joined = running.into_iter().zip(some).map(|(three, client)| {
                three.map(|one| one.join().unwrap_or_else(|_| panic!("{}", client.name)))
            });
            joined.collect::<Vec<_>>()
        }));
    }
    let mut found = Vec::new();
    let mut empty = Vec::new();
    for (client, [serve, openssh, drop_in]) in clients.iter().zip(&outcomes) {
        if openssh.len() < 8 || openssh.iter().all(|(_, said)| said.contains("refused")) {
            empty.push(client.name);
        }
        for (kind, ours) in [(Kind::Serve, serve), (Kind::DropIn, drop_in)] {
            found.extend(differences::between(client.name, kind, openssh, ours));
        }
    }
    assert!(empty.is_empty(), "these did nothing: {empty:?}");
    let document = report::document(&clients, &outcomes, &found);
    let unexplained = differences::unexplained(&found);
    assert!(unexplained.is_empty(), "{unexplained}");
    if only.is_none() {
        let stale = differences::stale(&found);
        assert!(stale.is_empty(), "these are not there any more: {stale:?}");
        report::settle("docs/clients.md", &document);
    } else {
        println!("{document}");
    }
}

fn on(client: &Client, kind: Kind) -> Outcome {
    let server = Server::start(kind);
    let local = tempfile::tempdir().unwrap();
    let mut outcome = (client.run)(&server, local.path());
    for (path, line) in snapshot::tree(&server.root()) {
        outcome.push((format!("file `{path}` on the server"), line));
    }
    for (path, line) in snapshot::tree(local.path()) {
        outcome.push((format!("file `{path}` here"), line));
    }
    outcome
}
