//! Every method of key exchange with the real OpenSSH, in both roles: keys are in use both ways when
//! each side has understood the other's answer to `none`.
//!
//! OpenSSH says itself what it has (`ssh -Q kex`); what it has not is tested with other peers.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "the tests of a driver own tasks")]

mod ends;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use ends::host_key;
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use ketch_transport::algorithm::Kex;
use ketch_transport::auth::{Credential, Method};
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::driver::{Login, LoginEvent};
use tokio::net::{TcpListener, TcpStream};

/// The methods that `ssh` and `sshd` have too.
fn common() -> Vec<Kex> {
    let output = Command::new("ssh").args(["-Q", "kex"]).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    let common: Vec<Kex> = names.lines().filter_map(Kex::from_name).collect();
    assert!(common.len() > 6, "{names}");
    common
}

/// A server that names the group has no half of ours.
fn is_group_exchange(kex: Kex) -> bool {
    kex.name().contains("group-exchange")
}

async fn asks_sshd(server: &OpenSshServer, kex: Kex) {
    let mut config = ClientConfig::new(server.user());
    config.common.preferences.kex = vec![kex];
    let socket = TcpStream::connect(server.addr()).await.unwrap();
    let mut login = Login::client(socket, config).unwrap();
    loop {
        match login.next().await.unwrap() {
            LoginEvent::HostKey(_) => login.accept_host_key().unwrap(),
            LoginEvent::AuthWanted { methods: None, .. } => {
                login.authenticate(&Credential::None).unwrap();
            }
            LoginEvent::AuthWanted { methods, .. } => {
                assert!(methods.unwrap().contains(&"publickey".to_owned()));
                return;
            }
            other => panic!("{kex}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn our_client_agrees_with_sshd_by_every_method() {
    let common = common();
    let names: Vec<_> = common.iter().map(|kex| kex.name()).collect();
    let server = OpenSshServer::start(OpenSshConfig {
        lines: vec![format!("KexAlgorithms {}", names.join(","))],
        ..OpenSshConfig::default()
    })
    .unwrap();
    for kex in common {
        asks_sshd(&server, kex).await;
    }
}

#[tokio::test]
async fn ssh_agrees_with_our_server_by_every_method() {
    for kex in common().into_iter().filter(|&kex| !is_group_exchange(kex)) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::task::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut config = ServerConfig::new([host_key()]);
            config.common.preferences.kex = vec![kex];
            let mut login = Login::server(socket, config).unwrap();
            // It asks for the list of methods, is told, and goes away.
            while let Ok(event) = login.next().await {
                match event {
                    LoginEvent::Attempt(attempt) => {
                        assert!(matches!(attempt.method, Method::None), "{attempt:?}");
                        login.reject_auth().unwrap();
                    }
                    other => panic!("{kex}: {other:?}"),
                }
            }
        });
        let ssh = tokio::task::spawn_blocking(move || {
            Command::new("ssh")
                .args(["-F", "none", "-v", "-p", &port.to_string()])
                .args(["-o", &format!("KexAlgorithms={kex}")])
                .args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
                .args(["-o", "UserKnownHostsFile=/dev/null"])
                .args(["-o", "PreferredAuthentications=none"])
                .args(["ann@127.0.0.1", "true"])
                .stdin(Stdio::null())
                .output()
                .unwrap()
        });
        let said = String::from_utf8(ssh.await.unwrap().stderr).unwrap();
        server.await.unwrap();
        let chosen = format!("kex: algorithm: {kex}\r\n");
        assert!(said.contains(&chosen), "{kex}: {said}");
        assert!(
            said.contains("Authentications that can continue"),
            "{kex}: {said}"
        );
    }
}
