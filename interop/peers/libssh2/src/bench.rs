//! One piece of work, to be measured: `VERB HOST PORT USER KEY SOURCE TARGET`, as in
//! `interop/README.md`. libssh2 reads ahead and writes behind within a large read or write; its
//! files come one after another.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use ssh2::{Session, Sftp};

use crate::Failure;

/// Bytes of one call: libssh2 makes many requests of it.
const PIECE_LEN: usize = 4 << 20;

/// Does what the arguments say.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let [verb, host, port, user, key, source, target] = arguments else {
        return Err("VERB HOST PORT USER KEY SOURCE TARGET".into());
    };
    let stream = TcpStream::connect((host.as_str(), port.parse()?))?;
    stream.set_nodelay(true)?;
    let mut session = Session::new()?;
    session.set_tcp_stream(stream);
    session.handshake()?;
    session.userauth_pubkey_file(user, None, Path::new(key), None)?;
    let sftp = session.sftp()?;
    let (source, target) = (Path::new(source), Path::new(target));
    match verb.as_str() {
        "get" => copy(&mut sftp.open(source)?, &mut File::create(target)?)?,
        "put" => copy(&mut File::open(source)?, &mut sftp.create(target)?)?,
        "get-many" => get_many(&sftp, source, target)?,
        "put-many" => put_many(&sftp, source, target)?,
        "ls" => {
            for (name, stat) in sftp.readdir(source)? {
                println!("{} {}", stat.size.unwrap_or(0), name.display());
            }
        }
        "stat" => println!("{:?}", sftp.stat(source)?.size),
        other => return Err(format!("cannot do {other}").into()),
    }
    drop(sftp);
    let _ = session.disconnect(None, "done", None);
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE_LEN];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..len])?;
    }
}

fn get_many(sftp: &Sftp, source: &Path, target: &Path) -> Result<(), Failure> {
    fs::create_dir(target)?;
    for (remote, _) in sftp.readdir(source)? {
        let local = target.join(remote.file_name().ok_or("no name")?);
        copy(&mut sftp.open(&remote)?, &mut File::create(local)?)?;
    }
    Ok(())
}

fn put_many(sftp: &Sftp, source: &Path, target: &Path) -> Result<(), Failure> {
    sftp.mkdir(target, 0o755)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let remote = target.join(entry.file_name());
        copy(&mut File::open(entry.path())?, &mut sftp.create(&remote)?)?;
    }
    Ok(())
}
