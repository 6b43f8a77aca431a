//! One piece of work, to be measured: `VERB HOST PORT USER KEY SOURCE TARGET`, as in
//! `interop/README.md`. With as much in flight as russh and russh-sftp allow.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use russh::Preferred;
use russh::client;
use russh::keys::{PrivateKeyWithHashAlg, load_secret_key};
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error;
use russh_sftp::client::rawsession::Limits;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{Client, Failure};

/// Bytes of a READ or WRITE: what OpenSSH's `limits@openssh.com` says.
const PIECE_LEN: u64 = 261_120;
/// READs of one file in flight.
const READS: usize = 256;
/// WRITEs of one file in flight.
const WRITES: usize = 32;
/// Small files in flight.
const FILES: usize = 64;
/// READDIRs in flight.
const LISTINGS: usize = 64;

/// Does what the arguments say.
pub async fn run(arguments: &[String]) -> Result<(), Failure> {
    let [verb, host, port, user, key, source, target] = arguments else {
        return Err("VERB HOST PORT USER KEY SOURCE TARGET".into());
    };
    let config = client::Config {
        // Its defaults leave AES-128-GCM out.
        preferred: Preferred {
            cipher: crate::preferred(&serde_json::Value::Null).cipher,
            ..Preferred::DEFAULT
        },
        nodelay: true,
        window_size: 64 << 20,
        maximum_packet_size: 65_535,
        ..client::Config::default()
    };
    let handler = Client {
        exchanges: Arc::default(),
    };
    let mut session =
        client::connect(Arc::new(config), (host.as_str(), port.parse()?), handler).await?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(load_secret_key(key, None)?), None);
    if !session.authenticate_publickey(user, key).await?.success() {
        return Err("nobody is logged in".into());
    }
    let channel = session.channel_open_session().await?;
    channel.request_subsystem(true, "sftp").await?;
    let mut sftp = RawSftpSession::new(channel.into_stream());
    sftp.init().await?;
    sftp.set_timeout(600);
    sftp.set_limits(Limits {
        read_len: Some(PIECE_LEN),
        write_len: Some(PIECE_LEN),
        ..Limits::default()
    });
    let sftp = Arc::new(sftp);
    match verb.as_str() {
        "get" => get(&sftp, source, target).await?,
        "put" => put(&sftp, source, target).await?,
        "get-many" => get_many(&sftp, source, target).await?,
        "put-many" => put_many(&sftp, source, target).await?,
        "ls" => {
            for (name, attrs) in list(&sftp, source).await? {
                println!(
                    "{:o} {} {name}",
                    attrs.permissions.unwrap_or(0),
                    attrs.size.unwrap_or(0)
                );
            }
        }
        "stat" => println!("{:?}", sftp.stat(source).await?.attrs.size),
        other => return Err(format!("cannot do {other}").into()),
    }
    let bye = session.disconnect(russh::Disconnect::ByApplication, "", "");
    let _ = bye.await;
    Ok(())
}

async fn get(sftp: &Arc<RawSftpSession>, source: &str, target: &str) -> Result<(), Failure> {
    let open = sftp.open(source, OpenFlags::READ, FileAttributes::default());
    let handle = open.await?.handle;
    let size = sftp.fstat(&handle).await?.attrs.size.ok_or("no size")?;
    let local = Arc::new(File::create(target)?);
    let permits = Arc::new(Semaphore::new(READS));
    let mut reads = JoinSet::new();
    let mut at = 0;
    while at < size {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (sftp, handle, local) = (Arc::clone(sftp), handle.clone(), Arc::clone(&local));
        let end = size.min(at + PIECE_LEN);
        reads.spawn(async move {
            let mut at = at;
            while at < end {
                let data = sftp.read(&handle, at, (end - at) as u32).await?.data;
                local.write_all_at(&data, at)?;
                at += data.len() as u64;
            }
            drop(permit);
            Ok::<_, Failure>(())
        });
        at = end;
        while let Some(done) = reads.try_join_next() {
            done??;
        }
    }
    while let Some(done) = reads.join_next().await {
        done??;
    }
    sftp.close(handle).await?;
    Ok(())
}

async fn put(sftp: &Arc<RawSftpSession>, source: &str, target: &str) -> Result<(), Failure> {
    let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let handle = sftp
        .open(target, flags, FileAttributes::default())
        .await?
        .handle;
    let local = File::open(source)?;
    let size = local.metadata()?.len();
    let permits = Arc::new(Semaphore::new(WRITES));
    let mut writes = JoinSet::new();
    let mut at = 0;
    while at < size {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let mut data = vec![0; size.min(at + PIECE_LEN) as usize - at as usize];
        local.read_exact_at(&mut data, at)?;
        let (sftp, handle, offset) = (Arc::clone(sftp), handle.clone(), at);
        at += data.len() as u64;
        writes.spawn(async move {
            let done = sftp.write(handle, offset, data).await;
            drop(permit);
            done
        });
        while let Some(done) = writes.try_join_next() {
            done??;
        }
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    sftp.close(handle).await?;
    Ok(())
}

async fn get_many(sftp: &Arc<RawSftpSession>, source: &str, target: &str) -> Result<(), Failure> {
    fs::create_dir(target)?;
    let permits = Arc::new(Semaphore::new(FILES));
    let mut files = JoinSet::new();
    for (name, attrs) in list(sftp, source).await? {
        if name == "." || name == ".." {
            continue;
        }
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (sftp, local) = (Arc::clone(sftp), Path::new(target).join(&name));
        let (remote, size) = (format!("{source}/{name}"), attrs.size.unwrap_or(0));
        files.spawn(async move {
            let open = sftp.open(remote, OpenFlags::READ, FileAttributes::default());
            let handle = open.await?.handle;
            let mut content = Vec::new();
            while (content.len() as u64) < size {
                let at = content.len() as u64;
                let len = PIECE_LEN.min(size - at) as u32;
                content.extend(sftp.read(&handle, at, len).await?.data);
            }
            fs::write(local, content)?;
            sftp.close(handle).await?;
            drop(permit);
            Ok::<_, Failure>(())
        });
        while let Some(done) = files.try_join_next() {
            done??;
        }
    }
    while let Some(done) = files.join_next().await {
        done??;
    }
    Ok(())
}

async fn put_many(sftp: &Arc<RawSftpSession>, source: &str, target: &str) -> Result<(), Failure> {
    sftp.mkdir(target, FileAttributes::default()).await?;
    let permits = Arc::new(Semaphore::new(FILES));
    let mut files = JoinSet::new();
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let remote = format!("{target}/{}", entry.file_name().to_string_lossy());
        let sftp = Arc::clone(sftp);
        files.spawn(async move {
            let content = fs::read(entry.path())?;
            let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
            let handle = sftp
                .open(remote, flags, FileAttributes::default())
                .await?
                .handle;
            for (at, piece) in content.chunks(PIECE_LEN as usize).enumerate() {
                let at = at as u64 * PIECE_LEN;
                sftp.write(&handle, at, piece.to_vec()).await?;
            }
            sftp.close(handle).await?;
            drop(permit);
            Ok::<_, Failure>(())
        });
        while let Some(done) = files.try_join_next() {
            done??;
        }
    }
    while let Some(done) = files.join_next().await {
        done??;
    }
    Ok(())
}

/// All entries, with several READDIRs in flight; surplus ones are answered with the end.
async fn list(
    sftp: &Arc<RawSftpSession>,
    path: &str,
) -> Result<Vec<(String, FileAttributes)>, Failure> {
    let handle = sftp.opendir(path).await?.handle;
    let mut all = Vec::new();
    let mut listings = JoinSet::new();
    let mut ended = false;
    while !ended || !listings.is_empty() {
        while !ended && listings.len() < LISTINGS {
            let (sftp, handle) = (Arc::clone(sftp), handle.clone());
            listings.spawn(async move { sftp.readdir(handle).await });
        }
        match listings.join_next().await.ok_or("no listing")?? {
            Ok(name) => all.extend(
                name.files
                    .into_iter()
                    .map(|file| (file.filename, file.attrs)),
            ),
            Err(Error::Status(status)) if status.status_code == StatusCode::Eof => ended = true,
            Err(error) => return Err(error.into()),
        }
    }
    sftp.close(handle).await?;
    Ok(all)
}
