//! A PostgreSQL server with an empty cluster, on a Unix socket, or by TCP with TLS alone.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{find, tied, wait_for};

/// A server that may be killed and started again on the same files.
#[derive(Debug)]
pub(crate) struct Postgres {
    dir: TempDir,
    server: Option<Child>,
    /// Where it listens for TLS.
    port: Option<u16>,
}

impl Postgres {
    /// A new cluster, running. Its databases are `postgres` and what tests create.
    pub(crate) fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("pg")
            .tempdir()
            .expect("a directory");
        if let Some((uid, gid)) = server_user() {
            chown(dir.path(), Some(uid), Some(gid)).expect("the server's own directory");
        }
        let made = program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=ketch",
                "--encoding=UTF8",
            ])
            .args(["--locale=C", "-D"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::null())
            .status()
            .expect("initdb starts");
        assert!(made.success(), "initdb: {made}");
        let mut postgres = Self {
            dir,
            server: None,
            port: None,
        };
        postgres.restart();
        postgres
    }

    /// From now on it listens on 127.0.0.1 too, where it wants TLS, with a certificate for `localhost`
    /// by an authority of its own. Answers the port and the authority's certificate.
    pub(crate) fn encrypt(&mut self) -> (u16, PathBuf) {
        let data = self.dir.path().join("data");
        let at = |name: &str| self.dir.path().join(name);
        fs::write(at("openssl.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n").expect("written");
        let openssl = |name: &str, key: &Path, certificate: &Path, more: &[&str]| {
            let made = Command::new(find("openssl", &[]))
                .current_dir(self.dir.path())
                .args([
                    "req",
                    "-x509",
                    "-config",
                    "openssl.cnf",
                    "-nodes",
                    "-days",
                    "2",
                ])
                .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
                .args(["-subj", &format!("/CN={name}"), "-keyout"])
                .arg(key)
                .arg("-out")
                .arg(certificate)
                .args(more)
                .output()
                .expect("openssl starts");
            assert!(made.status.success(), "{made:?}");
        };
        let ca = ["-addext", "basicConstraints=critical,CA:TRUE"];
        openssl("authority", &at("ca.key"), &at("ca.crt"), &ca);
        let (key, certificate) = (data.join("server.key"), data.join("server.crt"));
        let by = ["-CA", "ca.crt", "-CAkey", "ca.key"];
        let of = [
            "-addext",
            "basicConstraints=CA:FALSE",
            "-addext",
            "subjectAltName=DNS:localhost",
        ];
        openssl("localhost", &key, &certificate, &[by, of].concat());
        let only = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
        fs::write(data.join("pg_hba.conf"), only).expect("written");
        if let Some((uid, gid)) = server_user() {
            for file in [&key, &certificate] {
                chown(file, Some(uid), Some(gid)).expect("the server's own file");
            }
        }
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("a port").port();
        drop(free);
        let authority = at("ca.crt");
        self.port = Some(port);
        self.restart();
        (port, authority)
    }

    /// How to connect, for `tokio_postgres::Config`.
    pub(crate) fn connect(&self) -> String {
        format!(
            "host={} port={} user=ketch dbname=postgres",
            self.dir.path().display(),
            self.port.unwrap_or(5432)
        )
    }

    /// Kills it where it stands, with all its processes; its files stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The server's processes see that their parent is gone, and end.
            server.kill().expect("it is ours");
            server.wait().expect("it is ours");
            let data = self.dir.path().join("data");
            wait_for("the end of the server's processes", || {
                (!has_processes(&data)).then_some(())
            });
        }
    }

    /// Starts it again after [`Postgres::kill`].
    pub(crate) fn restart(&mut self) {
        self.kill();
        let log = fs::File::create(self.dir.path().join("log")).expect("a log");
        let listen = match self.port {
            Some(port) => format!("listen_addresses=127.0.0.1 port={port} ssl=on"),
            None => "listen_addresses= port=5432 ssl=off".to_owned(),
        };
        let server = program("postgres")
            .args(listen.split(' ').flat_map(|setting| ["-c", setting]))
            .arg("-D")
            .arg(self.dir.path().join("data"))
            .arg("-k")
            .arg(self.dir.path())
            .args(["-c", "fsync=off", "-c", "max_connections=60"])
            .args([
                "-c",
                "shared_buffers=16MB",
                "-c",
                "dynamic_shared_memory_type=mmap",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        self.server = Some(server);
        let port = self.port.unwrap_or(5432);
        wait_for("PostgreSQL", || {
            let ready = program("pg_isready")
                .arg("-q")
                .arg("-h")
                .arg(self.dir.path())
                .args(["-U", "ketch", "-d", "postgres", "-p"])
                .arg(port.to_string())
                .status();
            ready.is_ok_and(|status| status.success()).then_some(())
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed, it would leave its piece of System V's shared memory.
        let data = self.dir.path().join("data");
        let stop = program("pg_ctl")
            .args(["stop", "-s", "-m", "immediate", "-D"])
            .arg(data)
            .status();
        if !stop.is_ok_and(|status| status.success()) {
            self.kill();
        }
        if let Some(mut server) = self.server.take() {
            drop(server.wait());
        }
    }
}

/// Whom the server runs as, if tests run as root, which it refuses to: the package's user.
fn server_user() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    root.then(|| {
        let users = fs::read_to_string("/etc/passwd").expect("users");
        let line = users.lines().find(|line| line.starts_with("postgres:"));
        let mut fields = line.expect("the package's user").split(':').skip(2);
        let mut number = || {
            fields
                .next()
                .and_then(|n| n.parse().ok())
                .expect("a number")
        };
        (number(), number())
    })
}

fn program(name: &str) -> Command {
    // Debian has the server's programs by version; the newest comes last.
    let mut places: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|version| version.expect("a version").path().join("bin"))
        .collect();
    places.sort();
    places.reverse();
    tied(&find(name, &places), server_user().map(|_| "postgres"))
}

/// Whether any process works in `data`.
fn has_processes(data: &Path) -> bool {
    let processes = fs::read_dir("/proc").expect("processes");
    processes.flatten().any(|process| {
        fs::read_link(process.path().join("cwd")).is_ok_and(|directory| directory == data)
    })
}
