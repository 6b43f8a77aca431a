//! The crate `openssh-sftp-client` over `ssh -s sftp`, to be measured: one piece of work,
//! `VERB HOST PORT USER KEY SOURCE TARGET`, as in `interop/README.md`. With as much in flight as the
//! crate allows; who knows the host is in `$HOME/.ssh/known_hosts`.

use std::fs::{self, File};
use std::io::SeekFrom;
use std::num::NonZeroU16;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use openssh_sftp_client::fs::DirEntry;
use openssh_sftp_client::{Sftp, SftpOptions};
use tokio::io::AsyncSeekExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a READ or WRITE: what OpenSSH's `limits@openssh.com` says.
const PIECE_LEN: u64 = 261_120;
/// READs of one file in flight.
const READS: usize = 256;
/// WRITEs of one file in flight.
const WRITES: usize = 32;
/// Small files in flight.
const FILES: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, host, port, user, key, source, target] = arguments.as_slice() else {
        return Err("VERB HOST PORT USER KEY SOURCE TARGET".into());
    };
    let home = std::env::var("HOME")?;
    let mut ssh = Command::new("ssh")
        .args(["-a", "-x", "-F", "none", "-o", "BatchMode=yes"])
        .args(["-o", "IdentitiesOnly=yes", "-o"])
        .arg(format!("UserKnownHostsFile={home}/.ssh/known_hosts"))
        .args(["-i", key, "-p", port, "-l", user, "-s", host, "sftp"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = ssh.stdin.take().ok_or("no pipe")?;
    let stdout = ssh.stdout.take().ok_or("no pipe")?;
    let options = SftpOptions::new()
        .flush_interval(Duration::ZERO)
        .max_pending_requests(NonZeroU16::MAX);
    let sftp = Arc::new(Sftp::new(stdin, stdout, options).await?);
    let (from, to) = (Path::new(source), Path::new(target));
    match verb.as_str() {
        "get" => get(&sftp, from, to).await?,
        "put" => put(&sftp, from, to).await?,
        "get-many" => get_many(&sftp, from, to).await?,
        "put-many" => put_many(&sftp, from, to).await?,
        "ls" => {
            for entry in list(&sftp, from).await? {
                println!("{}", entry.long_display());
            }
        }
        "stat" => println!("{:?}", sftp.fs().metadata(from).await?.len()),
        other => return Err(format!("cannot do {other}").into()),
    }
    if let Some(sftp) = Arc::into_inner(sftp) {
        sftp.close().await?;
    }
    ssh.wait().await?;
    Ok(())
}

async fn get(sftp: &Sftp, source: &Path, target: &Path) -> Result<(), Failure> {
    let mut remote = sftp.open(source).await?;
    let size = remote.metadata().await?.len().ok_or("no size")?;
    let local = Arc::new(File::create(target)?);
    let permits = Arc::new(Semaphore::new(READS));
    let mut reads = JoinSet::new();
    let mut at = 0;
    while at < size {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (mut remote, local) = (remote.clone(), Arc::clone(&local));
        let end = size.min(at + PIECE_LEN);
        reads.spawn(async move {
            let mut at = at;
            while at < end {
                remote.seek(SeekFrom::Start(at)).await?;
                let len = (end - at) as u32;
                let data = remote.read(len, BytesMut::new()).await?;
                let data = data.ok_or("it is shorter than it was")?;
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
    remote.close().await?;
    Ok(())
}

async fn put(sftp: &Sftp, source: &Path, target: &Path) -> Result<(), Failure> {
    let remote = sftp.create(target).await?;
    let local = File::open(source)?;
    let size = local.metadata()?.len();
    let permits = Arc::new(Semaphore::new(WRITES));
    let mut writes = JoinSet::new();
    let mut at = 0;
    while at < size {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let mut data = vec![0; size.min(at + PIECE_LEN) as usize - at as usize];
        local.read_exact_at(&mut data, at)?;
        let (mut remote, offset) = (remote.clone(), at);
        at += data.len() as u64;
        writes.spawn(async move {
            remote.seek(SeekFrom::Start(offset)).await?;
            remote.write_all(&data).await?;
            drop(permit);
            Ok::<_, Failure>(())
        });
        while let Some(done) = writes.try_join_next() {
            done??;
        }
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    remote.close().await?;
    Ok(())
}

async fn get_many(sftp: &Arc<Sftp>, source: &Path, target: &Path) -> Result<(), Failure> {
    fs::create_dir(target)?;
    let permits = Arc::new(Semaphore::new(FILES));
    let mut files = JoinSet::new();
    for entry in list(sftp, source).await? {
        let name = entry.filename().to_owned();
        if name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (sftp, local) = (Arc::clone(sftp), target.join(&name));
        let (remote, size) = (source.join(&name), entry.metadata().len().unwrap_or(0));
        files.spawn(async move {
            let mut file = sftp.open(remote).await?;
            let content = file.read_all(size as usize, BytesMut::new()).await?;
            fs::write(local, content)?;
            file.close().await?;
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

async fn put_many(sftp: &Arc<Sftp>, source: &Path, target: &Path) -> Result<(), Failure> {
    sftp.fs().create_dir(target).await?;
    let permits = Arc::new(Semaphore::new(FILES));
    let mut files = JoinSet::new();
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (sftp, remote): (_, PathBuf) = (Arc::clone(sftp), target.join(entry.file_name()));
        files.spawn(async move {
            let content = fs::read(entry.path())?;
            let mut file = sftp.create(remote).await?;
            file.write_all(&content).await?;
            file.close().await?;
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

/// All entries: the crate has one READDIR in flight.
async fn list(sftp: &Sftp, path: &Path) -> Result<Vec<DirEntry>, Failure> {
    let dir = sftp.fs().open_dir(path).await?;
    let mut entries = Box::pin(dir.read_dir());
    let mut all = Vec::new();
    while let Some(entry) = entries.next().await {
        all.push(entry?);
    }
    Ok(all)
}
