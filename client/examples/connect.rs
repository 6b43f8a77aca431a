//! Connects, and says how the connection is protected.
//!
//! `cargo run --example connect -- ann@sftp.example.com:. ~/.ssh/id_ed25519`

use ketch_client::{Connect, Destination, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:. ~/.ssh/id_ed25519";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let session = connect.connect().await?;
    println!("{}: {}", session.host(), session.peer_identification());
    if let Some(algorithms) = session.info().algorithms {
        println!("{algorithms:?}");
    }
    session.disconnect().await;
    Ok(())
}
