//! Has the server connect to a host and port that only it reaches, and reads what that says first.
//!
//! `cargo run --example forward -- ann@sftp.example.com:. ~/.ssh/id_ed25519 HOST PORT`

use ketch_client::{Connect, Destination, identity::Identity};
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:. ~/.ssh/id_ed25519 HOST PORT";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let host = args.next().ok_or(usage)?;
    let port = args.next().ok_or(usage)?.parse()?;
    let session = connect.connect().await?;
    let mut stream = session.direct_tcpip(&host, port).await?;
    let mut greeting = [0; 64];
    let len = stream.read(&mut greeting).await?;
    println!("{}", greeting[..len].escape_ascii());
    session.disconnect().await;
    Ok(())
}
