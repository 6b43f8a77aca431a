//! Writes a file as a stream, jumps in it, reads it, and reads and writes at places of it.
//!
//! `cargo run --example file_io -- ann@sftp.example.com:in/file ~/.ssh/id_ed25519`

use std::io::SeekFrom;

use ketch_client::{Connect, Destination, OpenOptions, identity::Identity};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in/file ~/.ssh/id_ed25519";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let session = connect.for_sftp().connect().await?;
    let sftp = session.sftp().await?;
    let options = OpenOptions::writing().read();
    let mut file = sftp.open(&to.path, options).await?;
    file.write_all(b"Hello, world").await?;
    file.seek(SeekFrom::Start(7)).await?;
    let mut text = String::new();
    file.read_to_string(&mut text).await?;
    println!("{text}");
    // Without the position; several of these may be under way at the same time.
    file.write_at(7, b"there").await?;
    println!("{:?}", file.read_at(0, 12).await?);
    // Writes what is left, and tells what went wrong.
    file.shutdown().await?;
    session.disconnect().await;
    Ok(())
}
