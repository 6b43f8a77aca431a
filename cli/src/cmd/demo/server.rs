//! The demo's own server: on a free loopback port, in a thread of its own as a stranger would be
//! in a process of its own, with keys that nobody has seen before.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread::JoinHandle;

use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, Session};
use ketch_server::{Server, User, generate_host_key};

use crate::cmd::keys;
use crate::cmd::serve::cannot_start;
use crate::failed::Failed;

/// Who logs in.
pub(super) const USER: &str = "demo";

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(super) struct DemoServer {
    server: Server,
    pub(super) address: SocketAddr,
    user_key: Identity,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

/// Starts a server whose one user sees `root` and has one key.
pub(super) fn start(root: &Path) -> Result<DemoServer, Failed> {
    let no_key = |error| Failed::set_up("cannot make a key", error);
    let user_key = keys::fresh()?;
    let user = User::new(USER, root).authorized_key(user_key.public_key().clone());
    let user_key = Identity::from_private_key(user_key);
    let server = Server::builder()
        .host_key(generate_host_key().map_err(no_key)?)
        .user(user)
        .build()
        .map_err(cannot_start)?;

    let cannot = |error| Failed::local("cannot listen on this machine", error);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    let running = server.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            running
                .serve(tokio::net::TcpListener::from_std(listener)?)
                .await
        })
    });
    Ok(DemoServer {
        server,
        address,
        user_key,
        thread: Some(thread),
    })
}

impl DemoServer {
    /// The host key's fingerprint, as OpenSSH shows it.
    pub(super) fn fingerprint(&self) -> String {
        keys::fingerprint(&self.server.host_key())
    }

    /// Logs in with the user's key, and accepts the server's own key only.
    pub(super) async fn connect(&self) -> Result<Session, Failed> {
        let session = Connect::to(&self.address.ip().to_string())
            .port(self.address.port())
            .user(USER)
            .host_keys(HostKeys::only([self.server.host_key()]))
            .identity(self.user_key.clone())
            .connect()
            .await?;
        Ok(session)
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.server.shutdown();
        if let Some(thread) = self.thread.take() {
            // What it says now is about the end of connections that are over.
            let _ = thread.join();
        }
    }
}
