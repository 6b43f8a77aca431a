//! Downloads or uploads one file or directory.
//!
//! ```sh
//! cargo run --release -p ketch-client --example transfer -- get user@host:reports ./reports
//! cargo run --release -p ketch-client --example transfer -- put ./reports user@host:reports
//! ```

use std::path::Path;

use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, Destination, GetOptions, PutOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (direction, remote, local) = match &arguments[..] {
        [direction, remote, local] if direction == "get" => (direction, remote, local),
        [direction, local, remote] if direction == "put" => (direction, remote, local),
        _ => return Err("use: get REMOTE LOCAL | put LOCAL REMOTE".into()),
    };
    let destination: Destination = remote.parse()?;

    let mut connect = Connect::to_destination(&destination).host_keys(HostKeys::known_hosts());
    for identity in Identity::from_default_files() {
        connect = connect.identity(identity);
    }
    let session = connect.connect().await?;
    let sftp = session.sftp().await?;

    let local = Path::new(local);
    let report = if direction == "get" {
        sftp.get(&destination.path, local, GetOptions::new().recursive(true))
            .await?
    } else {
        sftp.put(local, &destination.path, PutOptions::new().recursive(true))
            .await?
    };
    println!("{} files, {} bytes", report.files, report.bytes);
    session.disconnect().await;
    Ok(())
}
