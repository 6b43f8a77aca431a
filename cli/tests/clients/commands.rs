//! Every command of sftp(1), by the client itself talking to `ketch-sftp-server` through a pipe
//! (`sftp -D`), and the options of sftp-server(8).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a batch against the server with these arguments; relative paths on it start in `remote`.
fn sftp(dir: &Path, server: &str, batch: &str) -> Output {
    let file = dir.join("batch");
    fs::write(&file, batch).unwrap();
    let program = env!("CARGO_BIN_EXE_ketch-sftp-server");
    let start = dir.join("remote");
    Command::new("timeout")
        .args(["60", "sftp", "-b"])
        .arg(file)
        .arg("-D")
        .arg(format!("{program} -e -d {} {server}", start.display()))
        .current_dir(dir.join("local"))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn place() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["remote", "local/tree/inner"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for (name, len) in [
        ("small", 100),
        ("large", 1_000_000),
        ("tree/inner/f", 70_000),
    ] {
        let bytes: Vec<u8> = (0..=250_u8).cycle().take(len).collect();
        fs::write(dir.path().join("local").join(name), bytes).unwrap();
    }
    dir
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn sftp_does_every_command_of_its_manual() {
    let dir = place();
    let own = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    let batch = format!(
        "help
?
version
progress
progress
pwd
lpwd
mkdir d
cd d
lcd tree
lpwd
lcd ..
lmkdir made
lls
lumask 022
!true
put small
put -p small kept
put -f large
put -R tree
reput large small
get large back
get -P large kept
get -f large synced
get -R tree fetched
reget large back
ls
ls -1
ls -la
ls -ln
ls -lh
ls -S
ls -tr
ls -f
chown {own} large
chgrp {group} large
chmod 4750 large
chown -h {own} small
copy large copied
cp copied again
ln large second
ln -s large link
symlink large other
ls -l link
chmod -h 644 copied
rename again renamed
rm other
rm link
mkdir gone
rmdir gone
df
df -h
df -i
cd ..
pwd
cd /
pwd
ls {remote}/d
bye
",
        remote = dir.path().join("remote").display()
    );
    let output = sftp(dir.path(), "", &batch);
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(!said.contains("Invalid command"), "{said}");

    let remote = |name: &str| dir.path().join("remote/d").join(name);
    let local = |name: &str| fs::read(dir.path().join("local").join(name)).unwrap();
    let large = local("large");
    for name in ["large", "copied", "renamed", "second"] {
        assert!(fs::read(remote(name)).unwrap() == large, "{name}");
    }
    for name in ["back", "kept", "synced"] {
        assert!(local(name) == large, "{name}");
    }
    assert_eq!(local("fetched/inner/f"), local("tree/inner/f"));
    assert_eq!(
        fs::read(remote("tree/inner/f")).unwrap(),
        local("tree/inner/f")
    );
    let of = fs::metadata(remote("large")).unwrap();
    assert_eq!(
        of.permissions().mode() & 0o7777,
        0o4750,
        "setuid is the user's to set"
    );
    assert_eq!((of.nlink(), of.uid(), of.gid()), (2, own, group));
    assert!(!remote("gone").exists() && !remote("link").exists() && !remote("other").exists());
    // What the server tells of owners: by name, as OpenSSH's does.
    let name = ketch_server::own_account().unwrap().name;
    let long: Vec<&str> = said
        .lines()
        .filter(|line| line.ends_with(" large"))
        .collect();
    assert!(
        long.iter().any(|line| line.contains(&format!(" {name} "))),
        "{long:?}"
    );
}

#[test]
fn the_options_of_sftp_server_hold() {
    let dir = place();
    let refused = |server: &str, batch: &str| {
        let output = sftp(dir.path(), server, batch);
        assert!(!output.status.success(), "{server}: {batch}");
        text(&output.stderr)
    };
    let done = |server: &str, batch: &str| {
        let output = sftp(dir.path(), server, batch);
        assert!(
            output.status.success(),
            "{server}: {}",
            text(&output.stderr)
        );
        text(&output.stderr)
    };
    let there = dir.path().join("remote/f");

    // -u: the mask of what is made; -l INFO with -e: who and what.
    let log = done("-u 077 -l INFO", "put small f");
    assert_eq!(
        fs::metadata(&there).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(log.contains("session opened for local user"), "{log}");
    assert!(
        log.contains("open-write \"f\"") || log.contains("/f\""),
        "{log}"
    );
    assert!(log.contains("bytes read 0 written 100"), "{log}");
    assert!(log.contains("session closed for local user"), "{log}");
    assert_eq!(done("", "get f copy"), "", "errors alone are logged");

    // -R: nothing is changed.
    for batch in [
        "put small g",
        "rm f",
        "mkdir g",
        "rename f g",
        "chmod 600 f",
        "ln f g",
        "ln -s f g",
    ] {
        let said = refused("-R", batch);
        assert!(
            said.contains("ermission denied") || said.contains("not support"),
            "{batch}: {said}"
        );
    }
    done("-R", "get f copy\nls\ndf");
    assert_eq!(fs::read_dir(dir.path().join("remote")).unwrap().count(), 1);

    // -P and -p: some requests are not taken, or no others.
    assert!(refused("-P remove,rmdir", "rm f").contains("ermission denied"));
    done("-P remove,rmdir", "put small g\nrename g h");
    refused("-p open,read,close,realpath,stat,lstat,fstat", "mkdir g");
    refused(
        "-p open,read,close,realpath,stat,lstat,fstat",
        "put small g",
    );
    done("-p open,read,close,realpath,stat,lstat,fstat", "get f copy");

    // -Q: what there is.
    let program = env!("CARGO_BIN_EXE_ketch-sftp-server");
    let query = Command::new(program)
        .args(["-Q", "requests"])
        .output()
        .unwrap();
    let ours = text(&query.stdout);
    let theirs = Command::new("/usr/lib/openssh/sftp-server")
        .args(["-Q", "requests"])
        .output();
    for name in text(&theirs.unwrap().stdout).lines() {
        assert!(
            ours.lines().any(|line| line == name),
            "{name} is missing in {ours}"
        );
    }
    assert!(
        Command::new(program)
            .arg("-h")
            .output()
            .unwrap()
            .status
            .success()
    );
    assert!(
        !Command::new(program)
            .arg("-Z")
            .output()
            .unwrap()
            .status
            .success()
    );

    // -d: tokens of the user's own, and a directory that is not there is passed over.
    let start = |template: &str| {
        let batch = dir.path().join("pwd");
        fs::write(&batch, "pwd").unwrap();
        let mut sftp = Command::new("sftp");
        sftp.arg("-b")
            .arg(batch)
            .arg("-D")
            .arg(format!("{program} -d {template}"));
        text(&sftp.stdin(Stdio::null()).output().unwrap().stdout)
    };
    let home = ketch_server::own_account().unwrap().home;
    let home = home.canonicalize().unwrap();
    let said = start("%h");
    assert!(
        said.contains(&format!("directory: {}\n", home.display())),
        "{said}"
    );
    assert!(start("/no/such/place").contains("directory: /"));
}

#[test]
fn special_files_are_answered_at_once() {
    let dir = place();
    let fifo = dir.path().join("remote/fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let socket = dir.path().join("remote/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // `timeout` ends a server that waits for the other side of a FIFO; that is status 124.
    for batch in [
        "get fifo x",
        "put small fifo",
        "get socket x",
        "put small socket",
        "get /dev/tty x",
    ] {
        let output = sftp(dir.path(), "", batch);
        let status = output.status.code();
        assert!(
            status.is_some_and(|code| code != 124),
            "{batch}: {status:?}"
        );
        assert_ne!(status, Some(0), "{batch}");
    }
    assert!(
        sftp(dir.path(), "", "ls -l\nchmod 600 fifo\nrm fifo\nrm socket")
            .status
            .success()
    );
}
