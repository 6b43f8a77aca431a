//! Logins between us and the real OpenSSH: keys of every type, from files and through a real
//! ssh-agent, certificates, several keys together; and `sftp` at our own server.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "tests own their tasks")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ketch_client::agent::AgentPath;
use ketch_client::connect::{ConnectError, Tried};
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, PublicKey, Session};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_server::{AuthMethod, MemoryFileSystem, Server, User, generate_host_key};
use tokio::net::TcpListener;

/// Types and lengths of keys that `ssh-keygen` makes.
const TYPES: [(&str, &str); 5] = [
    ("ed25519", "256"),
    ("ecdsa", "256"),
    ("ecdsa", "384"),
    ("ecdsa", "521"),
    ("rsa", "2048"),
];

fn run(program: &str, arguments: &[&str], environment: &[(&str, &Path)]) {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; scripts/test installs it"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

/// Makes a key pair, and returns the file with the private half.
fn keygen(dir: &Path, name: &str, (key_type, bits): (&str, &str), passphrase: &str) -> PathBuf {
    let path = dir.join(name);
    let file = path.to_str().unwrap();
    let arguments = [
        "-q", "-t", key_type, "-b", bits, "-N", passphrase, "-f", file,
    ];
    run("ssh-keygen", &arguments, &[]);
    path
}

/// A file beside another, with its name and more.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn public_line(path: &Path) -> String {
    fs::read_to_string(beside(path, ".pub")).unwrap()
}

/// Signs a key for a user.
fn certify(authority: &Path, key: &Path, user: &str) {
    let public = beside(key, ".pub");
    let (authority, public) = (authority.to_str().unwrap(), public.to_str().unwrap());
    let arguments = ["-q", "-I", "test", "-n", user, "-s", authority, public];
    run("ssh-keygen", &arguments, &[]);
}

/// An `sshd` that takes these keys, with more lines in its configuration.
fn sshd(dir: &Path, keys: &[&Path], lines: &[String]) -> OpenSshServer {
    let authorized = dir.join("authorized");
    let all: String = keys.iter().map(|key| public_line(key)).collect();
    fs::write(&authorized, all).unwrap();
    let mut config = OpenSshConfig {
        log_level: "DEBUG1".to_owned(),
        lines: lines.to_vec(),
        ..OpenSshConfig::default()
    };
    let own = format!("AuthorizedKeysFile {}", authorized.display());
    config.lines.push(own);
    OpenSshServer::start(config).unwrap()
}

fn client(server: &OpenSshServer) -> Connect {
    Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .host_keys(HostKeys::files([server.known_hosts()]))
}

/// What did it, after a session was seen to work.
async fn works(session: Session) -> Tried {
    let sftp = session.sftp().await.unwrap();
    sftp.stat(".").await.unwrap();
    let by = session.logged_in_with().unwrap().clone();
    session.disconnect().await;
    by
}

/// A real agent, gone with the test.
struct SshAgent {
    child: Child,
    socket: PathBuf,
}

impl SshAgent {
    fn start(dir: &Path) -> Self {
        let socket = dir.join("agent");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ssh-agent runs: install openssh-client (scripts/test does it)");
        for _ in 0..24_000 {
            // It is there before somebody listens.
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        run(
            "ssh-add",
            &["-q", key.to_str().unwrap()],
            &[("SSH_AUTH_SOCK", &self.socket)],
        );
    }

    fn path(&self) -> AgentPath {
        AgentPath::Socket(self.socket.clone())
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn keys_of_every_type_log_in_by_file_and_through_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let agent = SshAgent::start(dir.path());
    let keys: Vec<_> = TYPES
        .iter()
        .map(|&key_type| {
            keygen(
                dir.path(),
                &format!("{}{}", key_type.0, key_type.1),
                key_type,
                "",
            )
        })
        .collect();
    let all: Vec<_> = keys.iter().map(PathBuf::as_path).collect();
    let server = sshd(dir.path(), &all, &[]);
    for key in &keys {
        let by_file = client(&server).identity(Identity::from_file(key).unwrap());
        works(by_file.connect().await.unwrap()).await;
        agent.add(key);
        // The private half is not looked at: the file with the public one says which key is meant.
        let named = Identity::from_file(beside(key, ".pub")).unwrap();
        let fingerprint = named.fingerprint().unwrap();
        let by_agent = client(&server)
            .identity(named)
            .agent(agent.path())
            .identities_only(true);
        let Tried::Key {
            fingerprint: by,
            origin,
            ..
        } = works(by_agent.connect().await.unwrap()).await
        else {
            panic!("a key did it")
        };
        assert_eq!(by, fingerprint);
        assert!(origin.to_string().contains("in the agent"), "{origin}");
    }
    // Whichever it lists first.
    let any = client(&server).agent(agent.path());
    works(any.connect().await.unwrap()).await;
    let log = server.log();
    // sshd 8.9 and later say that they take signatures that cover the host key: ours do.
    assert!(log.contains("publickey-hostbound-v00@openssh.com"), "{log}");
}

#[tokio::test]
async fn a_key_that_the_agent_has_needs_no_passphrase() {
    let dir = tempfile::tempdir().unwrap();
    let agent = SshAgent::start(dir.path());
    let key = keygen(dir.path(), "key", TYPES[0], "");
    agent.add(&key);
    let file = key.to_str().unwrap();
    run(
        "ssh-keygen",
        &["-q", "-p", "-P", "", "-N", "sesame", "-f", file],
        &[],
    );
    let server = sshd(dir.path(), &[&key], &[]);
    let locked = Identity::from_file(&key)
        .unwrap()
        .passphrase(|_| panic!("nobody has to be asked"));
    let connect = client(&server).identity(locked.clone()).agent(agent.path());
    works(connect.connect().await.unwrap()).await;
    // Nor is anybody for a key that the server does not take.
    let other = sshd(dir.path(), &[], &[]);
    let error = client(&other).identity(locked).connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Auth { .. }), "{error:?}");
}

#[tokio::test]
async fn two_keys_together_log_in_and_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = keygen(dir.path(), "first", TYPES[0], "");
    let second = keygen(dir.path(), "second", TYPES[1], "");
    let methods = "AuthenticationMethods publickey,publickey".to_owned();
    let server = sshd(dir.path(), &[&first, &second], &[methods]);
    let one = || client(&server).identity(Identity::from_file(&first).unwrap());
    let both = one().identity(Identity::from_file(&second).unwrap());
    works(both.connect().await.unwrap()).await;
    let error = one().connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Auth { .. }), "{error:?}");
}

#[tokio::test]
async fn certificates_log_in_by_file_and_through_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let authority = keygen(dir.path(), "ca", TYPES[0], "");
    let trusted = format!("TrustedUserCAKeys {}.pub", authority.display());
    let server = sshd(dir.path(), &[], &[trusted]);
    for key_type in TYPES {
        let name = format!("{}{}", key_type.0, key_type.1);
        let key = keygen(dir.path(), &name, key_type, "");
        let plain = client(&server).identity(Identity::from_file(&key).unwrap());
        assert!(plain.connect().await.is_err(), "{name}: not yet certified");
        certify(&authority, &key, server.user());
        let connect = client(&server).identity(Identity::from_file(&key).unwrap());
        works(connect.connect().await.unwrap()).await;
        // ssh-add takes the certificate from beside the key.
        let agent = SshAgent::start(&{
            let own = dir.path().join(format!("agent-{name}"));
            fs::create_dir(&own).unwrap();
            own
        });
        agent.add(&key);
        let connect = client(&server).agent(agent.path());
        works(connect.connect().await.unwrap()).await;
    }
}

/// Our own server on a free port, with one user.
async fn ours(user: User, authority: Option<PublicKey>) -> (Server, u16) {
    let mut builder = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(user)
        .without_penalties()
        .banner("welcome");
    if let Some(authority) = authority {
        builder = builder.user_authority(authority);
    }
    let server = builder.build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let running = server.clone();
    tokio::spawn(async move { running.serve(listener).await });
    (server, port)
}

/// Whether `sftp` gets in, with these options.
async fn sftp_logs_in(port: u16, options: Vec<String>) -> bool {
    let output = tokio::task::spawn_blocking(move || {
        let mut sftp = Command::new("sftp");
        sftp.args(["-F", "none", "-b", "/dev/null"]);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
        ] {
            sftp.args(["-o", option]);
        }
        for option in &options {
            sftp.args(["-o", option]);
        }
        sftp.args(["-P", &port.to_string(), "ann@127.0.0.1"])
            .stdin(Stdio::null())
            .output()
            .expect("sftp runs: install openssh-client (scripts/test does it)")
    });
    output.await.unwrap().status.success()
}

#[tokio::test]
async fn sftp_logs_in_at_our_server_with_every_type_of_key_and_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = keygen(dir.path(), "ca", TYPES[0], "");
    let authority_key = PublicKey::from_line(public_line(&authority).trim()).unwrap();
    for key_type in TYPES {
        let name = format!("{}{}", key_type.0, key_type.1);
        let key = keygen(dir.path(), &name, key_type, "");
        let public = PublicKey::from_line(public_line(&key).trim()).unwrap();
        let files = || std::sync::Arc::new(MemoryFileSystem::new());
        let with_key = format!("IdentityFile={}", key.display());

        let ann = User::with_file_system("ann", files()).authorized_key(public);
        let (_server, port) = ours(ann, None).await;
        assert!(sftp_logs_in(port, vec![with_key.clone()]).await, "{name}");

        let ann = User::with_file_system("ann", files()).password("unused");
        let (_server, port) = ours(ann, Some(authority_key.clone())).await;
        assert!(!sftp_logs_in(port, vec![with_key.clone()]).await, "{name}");
        for (user, does) in [("bob", false), ("ann", true)] {
            certify(&authority, &key, user);
            assert_eq!(
                sftp_logs_in(port, vec![with_key.clone()]).await,
                does,
                "{name} {user}"
            );
        }
    }
}

#[tokio::test]
async fn sftp_takes_two_steps_at_our_server() {
    let dir = tempfile::tempdir().unwrap();
    let keys = [
        keygen(dir.path(), "first", TYPES[0], ""),
        keygen(dir.path(), "second", TYPES[4], ""),
    ];
    let public = |path: &Path| PublicKey::from_line(public_line(path).trim()).unwrap();
    let files = std::sync::Arc::new(MemoryFileSystem::new());
    let ann = User::with_file_system("ann", files)
        .authorized_key(public(&keys[0]))
        .authorized_key(public(&keys[1]))
        .require([AuthMethod::PublicKey, AuthMethod::PublicKey]);
    let (_server, port) = ours(ann, None).await;
    let option = |path: &PathBuf| format!("IdentityFile={}", path.display());
    assert!(!sftp_logs_in(port, vec![option(&keys[0])]).await);
    assert!(sftp_logs_in(port, keys.iter().map(option).collect()).await);
}

/// `ssh-add -h`: the agent signs for the servers that it was told of, and for no others.
#[tokio::test]
async fn keys_that_the_agent_holds_for_one_server_log_in_there_alone() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(dir.path(), "key", TYPES[0], "");
    let server = sshd(dir.path(), &[&key], &[]);
    let known = dir.path().join("known");
    let host_key = server.host_key().public_key().to_owned();
    let other = fs::read_to_string(beside(&key, ".pub")).unwrap();
    fs::write(&known, format!("here {host_key}\nelsewhere {other}")).unwrap();
    for (named, lets_in) in [("here", true), ("elsewhere", false)] {
        let own = dir.path().join(format!("agent-{lets_in}"));
        fs::create_dir(&own).unwrap();
        let agent = SshAgent::start(&own);
        let args = [
            "-q",
            "-h",
            named,
            "-H",
            known.to_str().unwrap(),
            key.to_str().unwrap(),
        ];
        run("ssh-add", &args, &[("SSH_AUTH_SOCK", &agent.socket)]);
        let outcome = client(&server).agent(agent.path()).connect().await;
        assert_eq!(outcome.is_ok(), lets_in, "{named}: {outcome:?}");
    }
}
