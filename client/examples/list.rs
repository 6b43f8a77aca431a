//! Lists a directory, answer by answer, as its entries come.
//!
//! `cargo run --example list -- ann@sftp.example.com:in ~/.ssh/id_ed25519`

use ketch_client::{Connect, Destination, RemotePath, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in ~/.ssh/id_ed25519";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let session = connect.for_sftp().connect().await?;
    let sftp = session.sftp().await?;
    let mut directory = sftp.read_dir(&to.path);
    while let Some(entries) = directory.next_entries().await {
        for entry in entries?.iter() {
            // A name may hold anything; as a path it is shown safely.
            let name = RemotePath::from(entry.name());
            println!("{:>12} {name}", entry.attrs().size.unwrap_or(0));
        }
    }
    session.disconnect().await;
    Ok(())
}
