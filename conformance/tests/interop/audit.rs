//! ssh-audit looks at our server and at our client: no failure under the profile `modern`, and neither
//! failure nor warning under `pq-only`. The reports stand in `docs/ssh-audit.md`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ketch_keys::KeyType;
use ketch_server::{MemoryFileSystem, Server, User};
use ketch_transport::config::{ClientConfig, CommonConfig, HostKey};
use ketch_transport::driver::{Login, LoginEvent};
use ketch_transport::profile::Profile;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::material::{Material, Owner, USER};
use crate::peers::scripted::root;
use crate::report;

/// How long an audit may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a start is tried again because somebody took the port in between.
const STARTS_MAX: u32 = 5;

/// ssh-audit's exit statuses: all good, and warnings but no failure.
const GOOD: i32 = 0;
const WARNINGS: i32 = 2;

fn ssh_audit() -> Command {
    let mut command = Command::new(root().join("target/peers/python/bin/ssh-audit"));
    command
        .args(["--no-colors", "--timeout", "20"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// A report, and ssh-audit's exit status.
struct Audit {
    text: String,
    status: i32,
}

async fn finish(child: tokio::process::Child) -> Audit {
    let output = timeout(LIMIT, child.wait_with_output())
        .await
        .expect("ssh-audit ends")
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status.code().unwrap_or(-1);
    assert!(
        [0, 2, 3].contains(&status),
        "ssh-audit: {status}: {text}{said}"
    );
    Audit { text, status }
}

async fn of_server(profile: Profile, material: &Material) -> Audit {
    let mut transport = CommonConfig::default();
    transport.preferences = profile.for_server().expect("a profile for servers");
    let files = Arc::new(MemoryFileSystem::new());
    let server = Server::builder()
        .host_key(HostKey::new(material.key(Owner::Host, KeyType::Ed25519)))
        .user(User::with_file_system(USER, files).password("open sesame"))
        .transport(transport)
        // It connects many times without logging in: that is how it looks at a server.
        .without_penalties()
        .build()
        .unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = server.clone();
    let served = tokio::spawn(async move { serving.serve(listener).await });
    let mut command = ssh_audit();
    command.args(["--skip-rate-test", "--port", &port.to_string(), "127.0.0.1"]);
    let audit = finish(command.spawn().expect("ssh-audit (scripts/setup-peers)")).await;
    server.shutdown();
    served.await.unwrap().unwrap();
    audit
}

async fn of_client(profile: Profile) -> Audit {
    for _ in 0..STARTS_MAX {
        // It cannot be told to take any port that is free.
        let free = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
        let port = free.unwrap().port();
        let mut command = ssh_audit();
        command.args(["--client-audit", "--port", &port.to_string()]);
        let mut child = command.spawn().expect("ssh-audit (scripts/setup-peers)");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = loop {
            if let Ok(stream) = TcpStream::connect(addr).await {
                break Some(stream);
            }
            if child.try_wait().unwrap().is_some() {
                break None;
            }
            sleep(Duration::from_millis(20)).await;
        };
        let Some(stream) = stream else { continue };
        let mut config = ClientConfig::new(USER);
        config.common.preferences = profile.for_client();
        let mut login = Login::client(stream, config).unwrap();
        // It hangs up once it has seen what we offer.
        let talk =
            async { while !matches!(login.next().await, Err(_) | Ok(LoginEvent::HostKey(_))) {} };
        let ((), audit) = tokio::join!(talk, finish(child));
        return audit;
    }
    panic!("ssh-audit found no free port");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_audit_finds_nothing_wrong() {
    let material = Material::make().await;
    let mut document = String::from(
        "# ssh-audit's reports

Written by `conformance/tests/interop/audit.rs`; do not edit. `KETCH_WRITE_DOCS=1 cargo test -p
ketch-conformance --test interop ssh_audit` writes it anew. Under `modern` nothing may fail, under `pq-only`
nothing may even be warned of; the test sees to both.
",
    );
    for (profile, allowed) in [
        (Profile::Modern, &[GOOD, WARNINGS][..]),
        (Profile::PqOnly, &[GOOD][..]),
    ] {
        for (role, audit) in [
            ("server", of_server(profile, &material).await),
            ("client", of_client(profile).await),
        ] {
            let Audit { text, status } = audit;
            assert!(
                allowed.contains(&status) && !text.contains("[fail]"),
                "{role} under {profile:?}: status {status}\n{text}"
            );
            let _ = write!(document, "\n## {} as {role}\n\n```text\n", profile.name());
            for line in text.lines() {
                // What is another at each run.
                let changes = ["127.0.0.1", "fin) ", "client IP"];
                if !changes.iter().any(|each| line.contains(each)) {
                    let _ = writeln!(document, "{}", line.trim_end());
                }
            }
            document.push_str("```\n");
        }
    }
    report::settle("docs/ssh-audit.md", &document).unwrap();
}
