//! A NATS server with JetStream, on a port of its own choice.

use std::fs;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::{find, tied, wait_for};

/// A server that may be killed and started again on the same files and the same port.
#[derive(Debug)]
pub(crate) struct Nats {
    dir: TempDir,
    /// What else its configuration says.
    more: String,
    port: u16,
    server: Option<Child>,
}

impl Nats {
    /// A new one, running.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// A new one, running, whose configuration says `more`.
    pub(crate) fn with(more: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("nats")
            .tempdir()
            .expect("a directory");
        let mut nats = Self {
            dir,
            more: more.to_owned(),
            port: 0,
            server: None,
        };
        nats.restart();
        nats
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it where it stands; what it has stored stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("it is ours");
            server.wait().expect("it is ours");
        }
    }

    /// Starts it again after [`Nats::kill`].
    pub(crate) fn restart(&mut self) {
        self.kill();
        let ports = self.dir.path().join("ports");
        drop(fs::remove_dir_all(&ports));
        fs::create_dir(&ports).expect("a directory");
        let config = self.dir.path().join("nats.conf");
        // What is acknowledged has to survive kill -9; the system's own crash is not part of it.
        let text = format!(
            "host: 127.0.0.1\nport: {}\njetstream {{ store_dir: {:?} }}\nports_file_dir: {:?}\n{}\n",
            if self.port == 0 {
                "-1".to_owned()
            } else {
                self.port.to_string()
            },
            self.dir.path().join("store"),
            ports,
            self.more,
        );
        fs::write(&config, text).expect("a configuration");
        let log = fs::File::create(self.dir.path().join("log")).expect("a log");
        let server = tied(&find("nats-server", &[]), None)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        self.server = Some(server);
        self.port = wait_for("the server's file of ports", || {
            let file = fs::read_dir(&ports).ok()?.flatten().next()?;
            let text = fs::read_to_string(file.path()).ok()?;
            // {"nats":["nats://127.0.0.1:39173"]}
            // It may be half written.
            let port = text.split("://127.0.0.1:").nth(1)?;
            let (port, _) = port.split_once(|c: char| !c.is_ascii_digit())?;
            port.parse().ok()
        });
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
