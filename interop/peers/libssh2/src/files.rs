//! The common script of operations on files, by libssh2; `interop/README.md` has the protocol.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use ssh2::{ErrorCode, FileStat, OpenFlags, OpenType, RenameFlags, Session, Sftp};

use crate::{Failure, pattern};

/// What a step comes to; the error is the server's answer or the library's.
type Outcome = Result<Value, ssh2::Error>;

fn attributes(of: &FileStat) -> Value {
    let mode = of.perm.unwrap_or(0);
    let size = match mode & 0o170_000 {
        0o100_000 => of.size.unwrap_or(0).to_string(),
        _ => "-".to_owned(),
    };
    json!(format!("{:o} {:o} {size}", mode & 0o170_000, mode & 0o7777))
}

fn nothing() -> FileStat {
    FileStat {
        size: None,
        uid: None,
        gid: None,
        perm: None,
        atime: None,
        mtime: None,
    }
}

fn write(sftp: &Sftp, path: &Path, len: usize, flags: OpenFlags) -> Outcome {
    let mut file = sftp.open_mode(path, flags | OpenFlags::WRITE, 0o644, OpenType::File)?;
    file.write_all(&pattern(len))
        .map_err(ssh2::Error::from_or_unknown)?;
    file.close()?;
    Ok(json!("done"))
}

/// Errors of reading and writing carry the library's inside.
trait FromIo {
    fn from_or_unknown(error: std::io::Error) -> ssh2::Error;
}

impl FromIo for ssh2::Error {
    fn from_or_unknown(error: std::io::Error) -> ssh2::Error {
        let inner = error
            .into_inner()
            .and_then(|it| it.downcast::<ssh2::Error>().ok());
        inner.map_or_else(ssh2::Error::eof, |error| *error)
    }
}

fn one(sftp: &Sftp, step: &Value) -> Option<Outcome> {
    let text = |at: usize| step[at].as_str().unwrap_or_default();
    // Only text: the crate takes a path for UTF-8.
    if step[1].is_object() || step[2].is_object() {
        return None;
    }
    let path = Path::new(text(1));
    let other = Path::new(text(2));
    let number = |at: usize| step[at].as_u64().unwrap_or(0);
    let len = usize::try_from(number(2)).unwrap_or(0);
    let done = |result: Result<(), ssh2::Error>| result.map(|()| json!("done"));
    let shown = |path: PathBuf| json!(path.to_string_lossy());
    Some(match text(0) {
        "mkdir" => done(sftp.mkdir(path, 0o755)),
        "rmdir" => done(sftp.rmdir(path)),
        "remove" => done(sftp.unlink(path)),
        "put" => write(sftp, path, len, OpenFlags::CREATE | OpenFlags::TRUNCATE),
        "append" => write(sftp, path, len, OpenFlags::APPEND),
        "get" => sftp.open(path).and_then(|mut file| {
            let mut data = Vec::new();
            file.read_to_end(&mut data)
                .map_err(ssh2::Error::from_or_unknown)?;
            Ok(match data == pattern(len) {
                true => json!("the same"),
                false => json!(format!("{} other bytes", data.len())),
            })
        }),
        "list" => sftp.readdir(path).map(|entries| {
            let names = entries
                .into_iter()
                .filter_map(|(path, _)| Some(path.file_name()?.to_string_lossy().into_owned()));
            let mut names: Vec<String> = names.collect();
            names.sort();
            json!(names)
        }),
        "stat" => sftp.stat(path).map(|of| attributes(&of)),
        "lstat" => sftp.lstat(path).map(|of| attributes(&of)),
        "times" => sftp.stat(path).map(|of| {
            json!(format!(
                "{} {}",
                of.atime.unwrap_or(0),
                of.mtime.unwrap_or(0)
            ))
        }),
        "chmod" => done(sftp.setstat(
            path,
            FileStat {
                perm: u32::try_from(number(2)).ok(),
                ..nothing()
            },
        )),
        "utime" => done(sftp.setstat(
            path,
            FileStat {
                atime: Some(number(2)),
                mtime: Some(number(3)),
                ..nothing()
            },
        )),
        "truncate" => done(sftp.setstat(
            path,
            FileStat {
                size: Some(number(2)),
                ..nothing()
            },
        )),
        "rename" => done(sftp.rename(path, other, Some(RenameFlags::empty()))),
        "symlink" => done(sftp.symlink(path, other)),
        "readlink" => sftp.readlink(path).map(shown),
        "realpath" => sftp.realpath(path).map(shown),
        _ => return None,
    })
}

/// Does all steps of a job on one connection.
pub(crate) fn run(job: &Value) -> Result<Value, Failure> {
    let port = u16::try_from(job["port"].as_u64().ok_or("no port")?)?;
    let mut session = Session::new()?;
    session.set_timeout(60_000);
    session.set_tcp_stream(TcpStream::connect(("127.0.0.1", port))?);
    session.handshake()?;
    let user = job["user"].as_str().ok_or("no user")?;
    let key = job["key"].as_str().ok_or("no key")?;
    session.userauth_pubkey_file(user, None, Path::new(key), None)?;
    let sftp = session.sftp()?;
    let steps = job["steps"].as_array().ok_or("no steps")?;
    let results = steps.iter().map(|step| match one(&sftp, step) {
        None => json!("not here"),
        Some(Ok(done)) => done,
        Some(Err(error)) => match error.code() {
            ErrorCode::SFTP(code) => json!(format!("refused: {code}")),
            ErrorCode::Session(code) => json!(format!("refused by the library: {code}")),
        },
    });
    Ok(json!({ "ok": true, "results": results.collect::<Vec<_>>() }))
}
