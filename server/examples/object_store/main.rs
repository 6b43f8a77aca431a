//! Serves an object store on a loopback port: `cargo run -p ketch-server --example object_store PORT`.
//!
//! The store is one in memory. Another one takes a line: whatever implements
//! [`object_store::ObjectStore`] is served, such as what `object_store::aws::AmazonS3Builder` builds
//! with that crate's feature `aws`. The user is `demo`, the password `demo`; the host key is a new
//! one each time.

#[cfg(unix)]
mod files;

/// Length in bytes of the parts in which uploads are sent.
#[cfg(unix)]
const PART_LEN: usize = 8 * 1024 * 1024;

#[cfg(unix)]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use ketch_server::{Server, User, generate_host_key};

    let port = match std::env::args().nth(1) {
        Some(port) => port.parse()?,
        None => 2222,
    };
    let store = std::sync::Arc::new(object_store::memory::InMemory::new());
    let files = files::ObjectFiles::new(store, PART_LEN);
    let demo = User::with_file_system("demo", std::sync::Arc::new(files)).password("demo");
    let server = Server::builder()
        .host_key(generate_host_key()?)
        .user(demo)
        .build()?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("sftp -P {} demo@127.0.0.1", listener.local_addr()?.port());
    Ok(server.serve(listener).await?)
}

#[cfg(not(unix))]
fn main() {}
