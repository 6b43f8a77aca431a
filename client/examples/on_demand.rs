//! Describes a server, and connects to it only while something is asked of it.
//!
//! `cargo run --example on_demand -- ann@sftp.example.com:in ~/.ssh/id_ed25519`

use std::time::Duration;

use ketch_client::{Connect, Destination, OnDemand, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in ~/.ssh/id_ed25519";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let server = OnDemand::keep_for(connect, Duration::from_secs(10));
    server.check().await?;
    // These share one connection; ten seconds after the last it would end.
    let (first, second) = tokio::join!(server.open(), server.open());
    let (first, second) = (first?, second?);
    println!("{:?}", first.stat(&to.path).await?.file_type());
    println!("{}", second.canonicalize(&to.path).await?);
    first.session().disconnect().await;
    Ok(())
}
