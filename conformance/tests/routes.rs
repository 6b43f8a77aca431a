//! Every way to a server, through real proxies and real servers: tinyproxy, microsocks, the SOCKS of
//! `ssh -D`, netcat, and sshd behind sshd.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ketch_client::hostkey::{HostKeyError, HostKeyPolicy, HostKeys};
use ketch_client::identity::Identity;
use ketch_client::route::{Endpoint, ProxyCommand, ProxyCredentials, Route};
use ketch_client::{Connect, ConnectError, Failure as _, Kind, PublicKey, Session};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_conformance::process::Process;
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// How long a proxy may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(60);

fn server() -> OpenSshServer {
    OpenSshServer::start(OpenSshConfig::default()).unwrap()
}

/// A connection to that server, which trusts it alone.
fn to(server: &OpenSshServer) -> Connect {
    Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .host_keys(HostKeys::files([server.known_hosts()]))
}

/// A port of which connections are refused as long as the socket is there: it is taken, and nobody
/// listens.
fn nobodys_port() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Does something with the session that needs all of the way.
async fn use_it(session: Session) {
    let sftp = session.sftp().await.unwrap();
    let attrs = sftp.stat("/").await.unwrap();
    assert!(attrs.permissions.is_some());
    drop(sftp);
    session.disconnect().await;
}

/// A proxy in a process of its own, gone with the test.
struct Proxy {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts what `command` makes of a free port and a directory, and waits until it listens.
    fn start(command: impl Fn(u16, &Path) -> Command) -> Self {
        for _ in 0..5 {
            let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = probe.local_addr().unwrap().port();
            drop(probe);
            let dir = tempfile::tempdir().unwrap();
            let mut command = command(port, dir.path());
            let program = command.get_program().to_owned();
            let child = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{program:?} (scripts/setup-peers): {error}"));
            let mut proxy = Self {
                child,
                port,
                _dir: dir,
            };
            let mut waited = Duration::ZERO;
            while waited < START_LIMIT && proxy.child.try_wait().unwrap().is_none() {
                // Another test's program may have taken the port in between.
                if Process::from_id(proxy.child.id()).listens_on(port) {
                    return proxy;
                }
                std::thread::sleep(Duration::from_millis(5));
                waited += Duration::from_millis(5);
            }
        }
        panic!("the proxy does not listen");
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("127.0.0.1".parse().unwrap(), self.port)
    }

    /// tinyproxy, which lets ports of `allowed` be connected to.
    fn tinyproxy(allowed: u16, login: Option<(&str, &str)>) -> Self {
        Self::start(|port, dir| {
            let login = login.map_or(String::new(), |(user, password)| {
                format!("BasicAuth {user} {password}\n")
            });
            let text = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nConnectPort \
                 {allowed}\n{login}LogFile \"{}/log\"\n",
                dir.display()
            );
            let file = dir.join("config");
            std::fs::write(&file, text).unwrap();
            let mut command = Command::new("tinyproxy");
            command.arg("-d").arg("-c").arg(file);
            command
        })
    }

    fn microsocks(login: Option<(&str, &str)>) -> Self {
        Self::start(|port, _| {
            let mut command = Command::new("microsocks");
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            if let Some((user, password)) = login {
                command.args(["-u", user, "-P", password]);
            }
            command
        })
    }

    /// OpenSSH's client, which speaks SOCKS 4, 4a and 5 and connects from `server`.
    fn ssh(server: &OpenSshServer) -> Self {
        Self::start(|port, _| {
            let mut command = Command::new("ssh");
            command
                .args(["-F", "none", "-N", "-D", &format!("127.0.0.1:{port}")])
                .args(["-o", "StrictHostKeyChecking=yes", "-o"])
                .arg(format!(
                    "UserKnownHostsFile={}",
                    server.known_hosts().display()
                ))
                .args(["-o", "IdentitiesOnly=yes", "-i"])
                .arg(server.identity().private())
                .args(["-p", &server.port().to_string()])
                .arg(format!("{}@127.0.0.1", server.user()));
            command
        })
    }
}

fn credentials(user: &str, password: &str) -> Option<ProxyCredentials> {
    Some(ProxyCredentials::new(user, password.to_owned()))
}

#[tokio::test]
async fn tinyproxy_leads_to_sshd() {
    let server = server();
    let plain = Proxy::tinyproxy(server.port(), None);
    let route = |proxy: &Proxy, credentials| Route::HttpConnect {
        proxy: proxy.endpoint(),
        credentials,
    };
    let connect = to(&server).route(route(&plain, None));
    use_it(connect.connect().await.unwrap()).await;

    let guarded = Proxy::tinyproxy(server.port(), Some(("ann", "secret")));
    let connect = to(&server).route(route(&guarded, credentials("ann", "secret")));
    use_it(connect.connect().await.unwrap()).await;
    for wrong in [None, credentials("ann", "wrong")] {
        let connect = to(&server).route(route(&guarded, wrong));
        let error = connect.connect().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Auth, "{error:?}");
        assert!(matches!(error, ConnectError::Proxy(_)), "{error:?}");
    }

    let elsewhere = Proxy::tinyproxy(1, None);
    let connect = to(&server).route(route(&elsewhere, None));
    let error = connect.connect().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error:?}");
    assert!(error.to_string().contains("403"), "{error}");
}

#[tokio::test]
async fn microsocks_leads_to_sshd() {
    let server = server();
    let plain = Proxy::microsocks(None);
    let route = |proxy: &Proxy, credentials| Route::Socks5 {
        proxy: proxy.endpoint(),
        credentials,
    };
    let connect = to(&server).route(route(&plain, None));
    use_it(connect.connect().await.unwrap()).await;

    let guarded = Proxy::microsocks(Some(("ann", "secret")));
    let connect = to(&server).route(route(&guarded, credentials("ann", "secret")));
    use_it(connect.connect().await.unwrap()).await;
    for wrong in [None, credentials("ann", "wrong")] {
        let connect = to(&server).route(route(&guarded, wrong));
        let error = connect.connect().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Auth, "{error:?}");
    }
}

#[tokio::test]
async fn every_version_of_socks_leads_through_openssh() {
    let (gate, server) = (server(), server());
    let proxy = Proxy::ssh(&gate);
    for route in [
        Route::Socks4 {
            proxy: proxy.endpoint(),
            user: Some("ann".to_owned()),
        },
        Route::Socks4a {
            proxy: proxy.endpoint(),
            user: None,
        },
        Route::Socks5 {
            proxy: proxy.endpoint(),
            credentials: None,
        },
    ] {
        use_it(to(&server).route(route.clone()).connect().await.unwrap()).await;
        // By name, too, which the proxy looks up, or for SOCKS4 this side.
        let keys = HostKeys::only([PublicKey::from_line(server.host_key().public_line()).unwrap()]);
        let named = Connect::to("localhost")
            .port(server.port())
            .user(server.user())
            .identity(Identity::from_file(server.identity().private()).unwrap())
            .host_keys(keys);
        use_it(named.route(route.clone()).connect().await.unwrap()).await;
        let (nobody, port) = nobodys_port();
        let error = to(&server)
            .port(port)
            .route(route)
            .connect()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Network, "{error:?}");
        drop(nobody);
    }
}

#[tokio::test]
async fn programs_lead_to_sshd() {
    let (gate, server) = (server(), server());
    let proxy = Proxy::microsocks(None);
    let ssh = format!(
        "ssh -F none -o StrictHostKeyChecking=yes -o 'UserKnownHostsFile={}' -o IdentitiesOnly=yes \
         -i \"{}\" -p {} -W [%h]:%p {}@127.0.0.1",
        gate.known_hosts().display(),
        gate.identity().private().display(),
        gate.port(),
        gate.user(),
    );
    for command in [
        "nc %h %p".to_owned(),
        "exec nc '%h' \"%p\" 2>/dev/null".to_owned(),
        format!("nc -X 5 -x 127.0.0.1:{} %h %p", proxy.port),
        ssh,
    ] {
        let command: ProxyCommand = command.parse().unwrap();
        let connect = to(&server).route(Route::Command(command));
        use_it(connect.connect().await.unwrap()).await;
    }
    let listed = ProxyCommand::new("nc", ["127.0.0.1", &server.port().to_string()]);
    let connect = to(&server).route(Route::Command(listed));
    use_it(connect.connect().await.unwrap()).await;

    for (command, part) in [
        ("nc -w 1 127.0.0.1 1", "exit status: 1"),
        (
            "sh -c 'echo no way to \"$1\" >&2; exit 7' sh %h",
            "no way to 127.0.0.1",
        ),
        ("no-such-program %h", "no-such-program"),
    ] {
        let command: ProxyCommand = command.parse().unwrap();
        let connect = to(&server).route(Route::Command(command));
        let error = connect.connect().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(part), "{cause:?} lacks {part:?}");
    }
}

/// What an attacker writes where a host or a user stands reaches neither a shell nor a program.
#[tokio::test]
async fn nothing_in_a_name_is_ever_run() {
    let dir = tempfile::tempdir().unwrap();
    let trap = dir.path().join("trap");
    let command: ProxyCommand = "sh -c 'echo \"$@\" >>/dev/null' sh %h %r".parse().unwrap();
    let touch = format!("touch {}", trap.display());
    for payload in [
        format!("a;{touch}"),
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("a|{touch}"),
        format!("a\n{touch}"),
        format!("'; {touch}; '"),
        format!("\"; {touch}; \""),
        format!("-oProxyCommand={touch}"),
        "-D".to_owned(),
    ] {
        for connect in [
            Connect::to(&payload).user("ann"),
            Connect::to("localhost").user(&payload),
        ] {
            let connect = connect.allow_none().route(Route::Command(command.clone()));
            let error = connect.connect().await.unwrap_err();
            assert!(
                matches!(error, ConnectError::Destination(_)),
                "{payload:?}: {error:?}"
            );
        }
    }
    assert!(!trap.exists());
}

#[tokio::test]
async fn one_and_two_servers_lead_to_a_third() {
    let (first, second, last) = (server(), server(), server());
    let one = to(&last).route(Route::Jump(vec![to(&first)]));
    use_it(one.connect().await.unwrap()).await;
    let two = to(&last).route(Route::Jump(vec![to(&first), to(&second)]));
    use_it(two.clone().connect().await.unwrap()).await;
    // The first hop may have a way of its own: here another server, and there a proxy.
    let through = to(&second).route(Route::Jump(vec![to(&first)]));
    use_it(
        to(&last)
            .route(Route::Jump(vec![through]))
            .connect()
            .await
            .unwrap(),
    )
    .await;
    let proxy = Proxy::microsocks(None);
    let by_proxy = to(&first).route(Route::Socks5 {
        proxy: proxy.endpoint(),
        credentials: None,
    });
    let mixed = to(&last).route(Route::Jump(vec![by_proxy, to(&second)]));
    use_it(mixed.connect().await.unwrap()).await;

    // The hops' connections end with the one through them.
    let session = two.connect().await.unwrap();
    // Those of before may still be about to end.
    connections_are(1, &[&first, &second]).await;
    session.disconnect().await;
    drop(session);
    connections_are(0, &[&first, &second]).await;
}

/// Waits until each of the servers has so many connections.
async fn connections_are(count: usize, servers: &[&OpenSshServer]) {
    let are = async {
        while servers
            .iter()
            .any(|server| server.process().children().len() != count)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(START_LIMIT, are).await;
    in_time.unwrap_or_else(|_| panic!("there are never {count} connections"));
}

#[tokio::test]
async fn every_hops_host_key_is_checked() {
    let (first, second, last) = (server(), server(), server());
    let dir = tempfile::tempdir().unwrap();
    let nobody = || HostKeys::files([dir.path().join("none")]).policy(HostKeyPolicy::Strict);
    let jump = |hops: Vec<Connect>, last: Connect| last.route(Route::Jump(hops)).connect();
    let is_unknown =
        |error: &ConnectError| matches!(error, ConnectError::HostKey(HostKeyError::Unknown { .. }));

    let strange = jump(vec![to(&first).host_keys(nobody()), to(&second)], to(&last));
    let error = strange.await.unwrap_err();
    let ConnectError::Jump { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(is_unknown(source), "{error:?}");
    assert_eq!((error.kind(), error.is_transient()), (Kind::HostKey, false));
    assert!(
        !second.log().contains("Connection from"),
        "the second was not even reached"
    );

    let strange = jump(vec![to(&first), to(&second).host_keys(nobody())], to(&last));
    let error = strange.await.unwrap_err();
    let ConnectError::Jump { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(is_unknown(source), "{error:?}");

    let strange = jump(vec![to(&first), to(&second)], to(&last).host_keys(nobody()));
    let error = strange.await.unwrap_err();
    assert!(is_unknown(&error), "{error:?}");
}

#[tokio::test]
async fn a_hop_that_does_not_lead_on_is_named() {
    let closed = OpenSshServer::start(OpenSshConfig {
        lines: vec!["AllowTcpForwarding no".to_owned()],
        ..OpenSshConfig::default()
    })
    .unwrap();
    let last = server();
    let forbidden = to(&last).route(Route::Jump(vec![to(&closed)]));
    let error = forbidden.connect().await.unwrap_err();
    assert!(
        matches!(error, ConnectError::JumpRefused { .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains(&last.port().to_string()),
        "{error}"
    );

    let first = server();
    let (_nobody, port) = nobodys_port();
    let gone = to(&last).port(port).route(Route::Jump(vec![to(&first)]));
    let error = gone.connect().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_transient()),
        (Kind::Network, true),
        "{error:?}"
    );

    // Ways that cannot be gone are found before anything is.
    let far = Route::Jump(vec![to(&first); 9]);
    let odd = Route::Jump(vec![
        to(&first),
        to(&first).route(Route::Jump(vec![to(&first)])),
    ]);
    for route in [far, odd, Route::Jump(Vec::new())] {
        let error = to(&last).route(route).connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Hops(_)), "{error:?}");
    }
}
