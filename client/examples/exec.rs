//! Runs a command on the server, with its output and its exit code.
//!
//! `cargo run --example exec -- ann@sftp.example.com:. ~/.ssh/id_ed25519 COMMAND`

use ketch_client::{Connect, Destination, identity::Identity};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:. ~/.ssh/id_ed25519 COMMAND";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let connect = Connect::to_destination(&to).identity(key);

    let command = args.next().ok_or(usage)?;
    let session = connect.connect().await?;
    // At most a mebibyte of output is kept.
    let output = session.exec(command).await?.output(1 << 20).await?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{:?}", output.exit);
    session.disconnect().await;
    Ok(())
}
