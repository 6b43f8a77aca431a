//! A server and a client for the tests of the driver: over any stream, with subsystems that echo,
//! flood, collect or sleep.

#![allow(dead_code, reason = "each file of tests uses its part")]

use std::sync::Arc;

use ketch_keys::{PrivateKey, PublicKey};
use ketch_transport::algorithm::SignatureAlgorithm;
use ketch_transport::auth::{Credential, Method};
use ketch_transport::config::{ClientConfig, HostKey, ServerConfig};
use ketch_transport::driver::{
    Acceptor, Application, ChannelIo, ChannelStream, CloseReason, ConnectionHandle, Lent, Login,
    LoginEvent, RefuseAll, Setup, stream,
};
use ketch_transport::event::Exit;
use ketch_transport::session::{Pty, Tcpip, WindowSize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

/// First window of the client's channels, in bytes.
pub(crate) const WINDOW: u32 = 256 * 1024;

/// Bytes that one direction of "flood" carries.
pub(crate) const FLOOD: usize = 2_000_000;

/// The server's subsystems.
pub(crate) struct Programs {
    /// What "collect" received until its channel ended.
    pub(crate) collected: mpsc::UnboundedSender<Vec<u8>>,
}

impl Acceptor for Programs {
    fn exec(&mut self, command: &[u8], setup: Setup) -> Option<Box<dyn Application>> {
        let command = String::from_utf8(command.to_vec()).ok()?;
        (command != "none").then(|| {
            Box::new(Told {
                command,
                setup,
                input: Vec::new(),
            }) as _
        })
    }

    fn shell(&mut self, setup: Setup) -> Option<Box<dyn Application>> {
        self.exec(b"shell", setup)
    }

    fn env(&mut self, name: &str, _value: &str) -> bool {
        name.starts_with("OK_")
    }

    fn pty(&mut self, pty: &Pty) -> bool {
        pty.term != "none"
    }

    fn direct_tcpip(&mut self, to: &Tcpip) -> Option<Box<dyn Application>> {
        if to.host != "echo" {
            return None;
        }
        let (channel, application) = stream();
        drop(tokio::task::spawn(echo(channel)));
        Some(application)
    }

    fn forward(&mut self, address: &str, port: u16) -> Option<u16> {
        (address == "localhost").then_some(if port == 0 { 4_000 } else { port })
    }

    fn cancel_forward(&mut self, address: &str, _port: u16) -> bool {
        address == "localhost"
    }

    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        if name == "parting" {
            return Some(Box::new(Parting));
        }
        let (channel, application) = stream();
        match name {
            "echo" => drop(tokio::task::spawn(echo(channel))),
            "flood" => drop(tokio::task::spawn(flood(channel))),
            "asleep" => drop(tokio::task::spawn(async {
                let _channel = channel;
                std::future::pending::<()>().await;
            })),
            "collect" => drop(tokio::task::spawn(collect(channel, self.collected.clone()))),
            _ => return None,
        }
        Some(application)
    }
}

/// Bytes that "parting" sends before it closes, all in one turn.
pub(crate) const PARTING: usize = 50_000;

/// Sends [`PARTING`] bytes and closes at once.
struct Parting;

impl Application for Parting {
    fn on_open(&mut self, io: &mut ChannelIo<'_>) {
        io.send(&[5; PARTING]).unwrap();
        io.close();
    }

    fn on_data(&mut self, _data: Lent<'_>, _io: &mut ChannelIo<'_>) {}
}

/// Says what it was started with and what it was given, and beside that what it was told.
struct Told {
    command: String,
    setup: Setup,
    input: Vec<u8>,
}

impl Application for Told {
    fn on_data(&mut self, data: Lent<'_>, io: &mut ChannelIo<'_>) {
        self.input.extend_from_slice(data.bytes);
        io.give_credit(data.bytes.len());
    }

    fn on_window_change(&mut self, size: WindowSize, io: &mut ChannelIo<'_>) {
        io.send_stderr(format!("{}x{};", size.columns, size.rows).as_bytes())
            .unwrap();
    }

    fn on_signal(&mut self, name: &str, io: &mut ChannelIo<'_>) {
        io.send_stderr(format!("{name};").as_bytes()).unwrap();
    }

    fn on_eof(&mut self, io: &mut ChannelIo<'_>) {
        let Self {
            command,
            setup,
            input,
        } = self;
        let term = setup.pty.as_ref().map(|pty| pty.term.clone());
        let said = format!("{command} {:?} {term:?} {}", setup.env, input.len());
        io.send(said.as_bytes()).unwrap();
        if command == "signal" {
            io.send_exit(&Exit::Signal {
                name: "TERM".to_owned(),
                core_dumped: true,
                message: "so it is".to_owned(),
            });
        } else {
            io.send_exit_status(5);
        }
        io.close();
    }
}

async fn echo(channel: ChannelStream) {
    let (mut read, mut write) = tokio::io::split(channel);
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

/// Sends and receives [`FLOOD`] bytes at the same time, waiting for neither.
pub(crate) async fn flood(channel: ChannelStream) {
    let (read, mut write) = tokio::io::split(channel);
    let writer = tokio::task::spawn(async move {
        let _ = write.write_all(&vec![1; FLOOD]).await;
        let _ = write.shutdown().await;
    });
    let received = tokio::io::copy(&mut read.take(u64::MAX), &mut tokio::io::sink()).await;
    assert_eq!(received.ok(), u64::try_from(FLOOD).ok());
    writer.await.unwrap();
}

async fn collect(mut channel: ChannelStream, collected: mpsc::UnboundedSender<Vec<u8>>) {
    let mut bytes = Vec::new();
    let _ = channel.read_to_end(&mut bytes).await;
    let _ = collected.send(bytes);
}

pub(crate) fn host_key() -> Arc<HostKey> {
    Arc::new(PrivateKey::from_ed25519_seed(Zeroizing::new([7; 32])).into())
}

/// The key with which the user may log in.
pub(crate) fn user_key() -> PrivateKey {
    PrivateKey::from_ed25519_seed(Zeroizing::new([8; 32]))
}

pub(crate) fn user_public_key() -> PublicKey {
    user_key().public_key().clone()
}

pub(crate) fn user_signature(data: &[u8]) -> Vec<u8> {
    user_key().sign(SignatureAlgorithm::Ed25519, data).unwrap()
}

/// Lets the user in with the password "secret" or with [`user_key`].
pub(crate) async fn log_in_server<S>(mut login: Login<S>) -> Result<Login<S>, CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        match login.next().await? {
            LoginEvent::Attempt(attempt) => match attempt.method {
                Method::Password(password) if *password == "secret" => login.accept_auth()?,
                Method::PublicKey { key, .. } | Method::PublicKeyQuery { key, .. }
                    if key == user_public_key() =>
                {
                    login.accept_auth()?;
                }
                _ => login.reject_auth()?,
            },
            LoginEvent::Authenticated { .. } => return Ok(login),
            other => panic!("{other:?}"),
        }
    }
}

/// Asks which methods there are, then gives the password.
pub(crate) async fn log_in_client<S>(
    mut login: Login<S>,
    password: &str,
) -> Result<Login<S>, CloseReason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    loop {
        match login.next().await? {
            LoginEvent::HostKey(key) => {
                assert_eq!(&key, host_key().public_key());
                login.accept_host_key()?;
            }
            LoginEvent::AuthWanted { methods: None, .. } => {
                login.authenticate(&Credential::None)?
            }
            LoginEvent::AuthWanted {
                methods: Some(methods),
                ..
            } => {
                assert_eq!(methods, ["publickey", "password"]);
                let password = Zeroizing::new(password.to_owned());
                login.authenticate(&Credential::Password(password))?;
            }
            LoginEvent::Authenticated { .. } => return Ok(login),
            other => panic!("{other:?}"),
        }
    }
}

/// Both ends of a connection in use.
pub(crate) struct Ends {
    pub(crate) client: ConnectionHandle,
    pub(crate) client_task: JoinHandle<()>,
    pub(crate) server: ConnectionHandle,
    pub(crate) server_task: JoinHandle<()>,
    /// What "collect" received.
    pub(crate) collected: mpsc::UnboundedReceiver<Vec<u8>>,
}

/// Joins a client and a server by a pipe that holds `pipe` bytes.
pub(crate) async fn join(pipe: usize) -> Ends {
    join_with(
        pipe,
        ClientConfig::new("ann"),
        ServerConfig::new([host_key()]),
    )
    .await
}

pub(crate) async fn join_with(pipe: usize, client: ClientConfig, server: ServerConfig) -> Ends {
    let (ours, theirs) = tokio::io::duplex(pipe);
    let server = Login::server(theirs, server).unwrap();
    let (sender, collected) = mpsc::unbounded_channel();
    let server = tokio::task::spawn(async {
        let server = log_in_server(server).await.unwrap();
        let (server, task) = server.run(Box::new(Programs { collected: sender }));
        (server, tokio::task::spawn(task))
    });
    let client = log_in_client(Login::client(ours, client).unwrap(), "secret")
        .await
        .unwrap();
    let (client, client_task) = client.run(Box::new(RefuseAll));
    let client_task = tokio::task::spawn(client_task);
    let (server, server_task) = server.await.unwrap();
    Ends {
        client,
        client_task,
        server,
        server_task,
        collected,
    }
}

impl Ends {
    /// Opens a channel and starts a subsystem on it.
    pub(crate) async fn open(&self, subsystem: &str) -> ChannelStream {
        let (channel, application) = stream();
        self.client
            .open_session(subsystem, WINDOW, application)
            .await
            .unwrap();
        channel
    }

    /// Sends `len` bytes through an echo and takes them back.
    pub(crate) async fn echoes(channel: &mut ChannelStream, len: usize) {
        let sent: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (mut read, mut write) = tokio::io::split(channel);
        let mut received = vec![0; len];
        let (wrote, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut received));
        wrote.unwrap();
        got.unwrap();
        assert!(received == sent);
    }
}
