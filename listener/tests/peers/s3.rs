//! S3 in a process: moto's server, which keeps everything in its memory.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{tied, wait_for};

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Where the log says the address.
const SAID: &str = "Running on http://127.0.0.1:";

/// A server with the one bucket `bucket`, in which nothing is; gone when dropped.
#[derive(Debug)]
pub(crate) struct Moto {
    _dir: TempDir,
    port: u16,
    server: Child,
}

/// An object, as a listing has it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Object {
    pub(crate) key: String,
    /// What tells one content of a key from another.
    pub(crate) tag: String,
}

impl Moto {
    /// A new one, on a port of its own choice.
    pub(crate) fn start() -> Self {
        Self::start_at(0)
    }

    /// A new one on the port that another had before; 0 for any.
    pub(crate) fn start_at(port: u16) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("a workspace");
        let program: PathBuf = root.join("target/peers/moto/bin/moto_server");
        assert!(
            program.is_file(),
            "{} is missing: run scripts/setup-peers",
            program.display()
        );
        let dir = tempfile::Builder::new()
            .prefix("s3")
            .tempdir()
            .expect("a directory");
        let log = dir.path().join("log");
        let server = tied(&program, None)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("moto_server starts");
        let port = wait_for("moto_server", || {
            let said = fs::read_to_string(&log).ok()?;
            let port = said.split(SAID).nth(1)?.lines().next()?;
            // It may be written while it is read.
            said.ends_with('\n').then(|| port.trim().parse().ok())?
        });
        let moto = Self {
            _dir: dir,
            port,
            server,
        };
        wait_for("a bucket", || moto.ask("PUT /bucket").ok());
        moto
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// What `object_store` has to know.
    pub(crate) fn options(&self) -> [(String, String); 4] {
        let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        [
            option("endpoint", &format!("http://127.0.0.1:{}", self.port)),
            option("region", "us-east-1"),
            option("access_key_id", "ann"),
            option("secret_access_key", "secret"),
        ]
    }

    /// The body of the answer to `what`, a method and a path.
    fn ask(&self, what: &str) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        // Nobody looks at the signature, but without a name it would be a stranger.
        write!(
            stream,
            "{what} HTTP/1.0\r\nHost: x\r\nAuthorization: AWS ann:x\r\nContent-Length: 0\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.map_or(answer.len(), |end| end + 4));
        match head.windows(5).any(|five| five == b" 200 ") {
            true => Ok(body.to_vec()),
            false => Err(io::Error::other(String::from_utf8_lossy(head).into_owned())),
        }
    }

    /// All objects of the bucket.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = Vec::new();
        loop {
            let after = match objects.last() {
                Some(last) => format!("&start-after={}", last.key),
                None => String::new(),
            };
            let page = self.ask(&format!("GET /bucket?list-type=2{after}"));
            let page = String::from_utf8(page.expect("a listing")).expect("text");
            let between = |text: &str, name: &str| {
                let rest = text.split(&format!("<{name}>")).nth(1)?;
                Some(rest.split(&format!("</{name}>")).next()?.to_owned())
            };
            for entry in page.split("<Contents>").skip(1) {
                objects.push(Object {
                    key: between(entry, "Key").expect("a key"),
                    tag: between(entry, "ETag").expect("a tag"),
                });
            }
            if between(&page, "IsTruncated").as_deref() != Some("true") {
                return objects;
            }
        }
    }

    /// The content of an object whose key is plain ASCII.
    pub(crate) fn content(&self, key: &str) -> Vec<u8> {
        let content = self.ask(&format!("GET /bucket/{key}"));
        content.expect("an object that was listed")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
