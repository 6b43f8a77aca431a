//! Downloads a file, or a directory with everything in it.
//!
//! `cargo run --example get -- ann@sftp.example.com:in ~/.ssh/id_ed25519 LOCAL`

use ketch_client::{Connect, Destination, GetOptions, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in ~/.ssh/id_ed25519 LOCAL";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let local = args.next().ok_or(usage)?;
    let session = connect.for_sftp().connect().await?;
    let sftp = session.sftp().await?;
    let options = GetOptions::new().recursive(true);
    let report = sftp.get(&to.path, local, options).await?;
    println!("{} files, {} bytes", report.files, report.bytes);
    session.disconnect().await;
    Ok(())
}
