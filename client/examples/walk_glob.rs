//! Goes through everything below a directory, and finds what matches a pattern.
//!
//! `cargo run --example walk_glob -- ann@sftp.example.com:in ~/.ssh/id_ed25519 PATTERN`

use ketch_client::{Connect, Destination, WalkOptions, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in ~/.ssh/id_ed25519 PATTERN";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let pattern = args.next().ok_or(usage)?;
    let session = connect.for_sftp().connect().await?;
    let sftp = session.sftp().await?;
    let mut bytes = 0;
    let mut walk = sftp.walk(&to.path, WalkOptions::new());
    while let Some(entry) = walk.next().await {
        bytes += entry?.attrs().size.unwrap_or(0);
    }
    println!("{bytes} bytes below {}", to.path);
    // `*` and `?` within a name, `**` for any number of directories.
    let mut found = sftp.glob(to.path.join(pattern).as_bytes())?;
    while let Some(entry) = found.next().await {
        println!("{}", entry?.path());
    }
    session.disconnect().await;
    Ok(())
}
