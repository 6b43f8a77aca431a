//! What connections cost a server: one after another, and many that are open and idle.
//!
//! ketch's server and sshd in turn, each logged in to with the same key by the same client, which
//! offers the same algorithms to both. Counted is the server's processor time, that of sshd's
//! sessions included, and its resident memory.
//!
//! ```text
//! cargo run --release -p ketch-benches --bin connections
//! ```
#![expect(clippy::disallowed_methods, reason = "a program owns its tasks")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use clap::Parser;
use ketch_benches::server_time::ServerTime;
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_conformance::process::Process;
use ketch_keys::{KeyType, PrivateKey};
use ketch_server::{MemoryFileSystem, Server, ServerLimits, User, generate_host_key};
use ketch_transport::algorithm::{Kex, SignatureAlgorithm};
use ketch_transport::auth::Credential;
use ketch_transport::config::ClientConfig;
use ketch_transport::driver::{ConnectionHandle, Login, LoginEvent, RefuseAll};
use tokio::net::{TcpListener, TcpStream};

/// First argument of the process that serves.
const SERVE: &str = "--serve-until-killed";
/// How often the memory of the server is read on the way.
const READINGS: u32 = 5;

/// Measures what connections cost a server.
#[derive(Debug, Parser)]
struct Line {
    /// Connections one after another
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Connections open at a time
    #[arg(long, default_value_t = 1000)]
    idle: u32,
    /// Key exchange, by its name on the wire
    #[arg(long, default_value = "sntrup761x25519-sha512@openssh.com")]
    kex: String,
}

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let outcome = if std::env::args().nth(1).as_deref() == Some(SERVE) {
        serve()
    } else {
        measure(&Line::parse())
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("connections: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// The measured server: one user, in memory. Prints its port, and runs until it is killed.
fn serve() -> Result<(), Failed> {
    let key = std::env::args().nth(2).ok_or("a public key is missing")?;
    let mut limits = ServerLimits::default();
    limits.connections_max = 10_000;
    limits.half_open_max = 1_000;
    limits.half_open_per_source_max = 1_000;
    let files = Arc::new(MemoryFileSystem::new());
    let user =
        User::with_file_system("ann", files).authorized_key(ketch_server::read_public_key(&key)?);
    let server = Server::builder()
        .host_key(generate_host_key()?)
        .user(user)
        .limits(limits)
        .build()?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        server.serve(listener).await?;
        Ok(())
    })
}

/// The serving process, killed when it is let go.
struct Serving(Child, SocketAddr);

impl Serving {
    fn start(key: &PrivateKey) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(key.public_key().to_line())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut port = String::new();
        BufReader::new(stdout).read_line(&mut port)?;
        Ok(Self(
            child,
            (Ipv4Addr::LOCALHOST, port.trim().parse()?).into(),
        ))
    }

    fn process(&self) -> Process {
        Process::from_id(self.0.id())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection on which the user is logged in.
async fn connect(
    address: SocketAddr,
    user: &str,
    key: &PrivateKey,
    kex: Kex,
) -> Result<ConnectionHandle, Failed> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let mut config = ClientConfig::new(user);
    config.common.preferences.kex = vec![kex];
    config.common.preferences.host_key = vec![SignatureAlgorithm::Ed25519];
    let mut login = Login::client(socket, config)?;
    loop {
        match login.next().await? {
            LoginEvent::HostKey(_) => login.accept_host_key()?,
            LoginEvent::AuthWanted { methods: None, .. } => {
                login.authenticate(&Credential::public_key(key.public_key().clone()))?;
            }
            LoginEvent::Sign(data) => {
                login.signature(&key.sign(SignatureAlgorithm::Ed25519, &data)?)?;
            }
            LoginEvent::Authenticated { .. } => break,
            LoginEvent::Banner(_) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    let (handle, task) = login.run(Box::new(RefuseAll));
    tokio::task::spawn(task);
    Ok(handle)
}

async fn one_after_another(
    address: SocketAddr,
    user: &str,
    key: &PrivateKey,
    kex: Kex,
    count: u32,
    mut reading: impl FnMut(),
) -> Result<(), Failed> {
    for done in 0..count {
        let handle = connect(address, user, key, kex).await?;
        handle.disconnect();
        handle.closed().await;
        if done % (count / READINGS).max(1) == 0 {
            reading();
        }
    }
    Ok(())
}

fn measure(line: &Line) -> Result<(), Failed> {
    let kex = Kex::from_name(&line.kex).ok_or("there is no key exchange of that name")?;
    let key = PrivateKey::generate(KeyType::Ed25519)?;
    let runtime = runtime()?;

    let mut time = ServerTime::new()?;
    let authorized = tempfile::NamedTempFile::new()?;
    std::fs::write(authorized.path(), key.public_key().to_line() + "\n")?;
    let sshd = OpenSshServer::start(OpenSshConfig {
        lines: vec![
            format!("AuthorizedKeysFile {}", authorized.path().display()),
            "StrictModes no".to_owned(),
        ],
        ..OpenSshConfig::default()
    })?;
    let before = time.settled(&sshd);
    runtime.block_on(one_after_another(
        sshd.addr(),
        sshd.user(),
        &key,
        kex,
        line.count,
        || {},
    ))?;
    let openssh = time.settled(&sshd) - before;
    drop(sshd);

    let ours = Serving::start(&key)?;
    let process = ours.process();
    let memory = || process.resident().unwrap_or_default();
    let before = process.cpu_time().unwrap_or_default();
    let mut readings = Vec::new();
    runtime.block_on(one_after_another(
        ours.1,
        "ann",
        &key,
        kex,
        line.count,
        || {
            readings.push(memory() / 1024);
        },
    ))?;
    readings.push(memory() / 1024);
    let ketch = (process.cpu_time().unwrap_or_default() - before).as_secs_f64();

    println!("{} connections one after another, {kex}:", line.count);
    println!("  sshd   {openssh:.2} s of processor time");
    println!("  ketch  {ketch:.2} s, {:.3} of sshd's", ketch / openssh);
    println!("  ketch's memory on the way, in KiB: {readings:?}");

    let idle = Serving::start(&key)?;
    let process = idle.process();
    runtime.block_on(async {
        // The first makes what the process needs once.
        drop(connect(idle.1, "ann", &key, kex).await?);
        let before = process.resident().unwrap_or_default();
        let mut open = Vec::new();
        for _ in 0..line.idle {
            open.push(connect(idle.1, "ann", &key, kex).await?);
        }
        let after = process.resident().unwrap_or_default();
        let more = after.saturating_sub(before);
        println!("{} connections open and idle:", line.idle);
        println!(
            "  {:.1} MiB more, {:.1} KiB each",
            f64::from(u32::try_from(more / 1024)?) / 1024.0,
            f64::from(u32::try_from(more)?) / 1024.0 / f64::from(line.idle)
        );
        Ok(())
    })
}
