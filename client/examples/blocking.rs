//! The same without `async`: lists a directory, and writes and reads a file.
//!
//! `cargo run --example blocking -- ann@sftp.example.com:in ~/.ssh/id_ed25519`

use std::io::{Read, Write};

use ketch_client::blocking::Session;
use ketch_client::{Connect, Destination, OpenOptions, identity::Identity};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: ann@sftp.example.com:in ~/.ssh/id_ed25519";
    let to: Destination = args.next().ok_or(usage)?.parse()?;
    let key = Identity::from_file(args.next().ok_or(usage)?)?;
    // Hosts that are not in known_hosts are refused.
    let session = Session::connect(Connect::to_destination(&to).identity(key))?;
    let sftp = session.sftp()?;

    let path = to.path.join("note.txt");
    let mut file = sftp.open(&path, OpenOptions::writing())?;
    writeln!(file, "seen")?;
    file.close()?;

    let mut text = String::new();
    sftp.open(&path, OpenOptions::reading())?
        .read_to_string(&mut text)?;
    print!("{text}");
    for entry in sftp.read_dir(&to.path)? {
        println!("{}", entry?.display_name());
    }
    session.disconnect()?;
    Ok(())
}
