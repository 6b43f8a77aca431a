//! Downloads files that are named one by one, all in one transfer, and shows how far it is.
//!
//! `cargo run --example many_files -- ann@sftp.example.com:in ~/.ssh/id_ed25519 LOCAL_DIR NAME...`

use std::path::PathBuf;
use std::sync::Arc;

use ketch_client::{Connect, Destination, GetOptions, Progress, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in ~/.ssh/id_ed25519 LOCAL_DIR NAME...";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let local = PathBuf::from(args.next().ok_or(usage)?);
    let items: Vec<_> = args
        .map(|name| (to.path.join(&name), local.join(&name)))
        .collect();
    let session = connect.for_sftp().connect().await?;
    let sftp = session.sftp().await?;
    let progress = Arc::new(Progress::new());
    let options = GetOptions::new().progress(Arc::clone(&progress));
    let report = sftp.get_all(items, options).await?;
    println!("{} files, {} bytes", report.files, progress.bytes_done());
    session.disconnect().await;
    Ok(())
}
