//! Serves a directory on a loopback port: `cargo run -p ketch-server --example serve DIRECTORY PORT`.
//!
//! The user is `demo`, the password `demo`; the host key is a new one each time.

#[cfg(unix)]
use ketch_server::{Server, User, generate_host_key};

#[cfg(unix)]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let root = arguments.next().unwrap_or_else(|| ".".into());
    let port = match arguments.next() {
        Some(port) => port.to_string_lossy().parse()?,
        None => 2222,
    };
    let server = Server::builder()
        .host_key(generate_host_key()?)
        .user(User::new("demo", root).password("demo"))
        .build()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("sftp -P {} demo@127.0.0.1", listener.local_addr()?.port());
    Ok(server.serve(listener).await?)
}

#[cfg(not(unix))]
fn main() {}
