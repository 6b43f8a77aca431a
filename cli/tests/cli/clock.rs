//! The clock of the day jumps by a day while a server is at work (row O7 of `docs/threats.md`): what
//! is under way goes on, and no time-out is met. libfaketime stands for whoever sets the clock; the
//! monotonic one it leaves alone, as setting the clock does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::scene::listening;
use crate::serve_file::{Place, Running, eventually};

/// Of each file.
const LEN: usize = 3 << 20;

/// The library that programs are started with to see another time.
fn libfaketime() -> PathBuf {
    let under = fs::read_dir("/usr/lib").unwrap();
    let names = under.map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let mut there = names.filter(|name| name.exists());
    there.next().expect("scripts/setup-peers installs faketime")
}

/// Sets the server's clock so far from the right time.
fn set_clock(place: &Place, offset: &str) {
    fs::write(place.path("clock.new"), format!("{offset}\n")).unwrap();
    fs::rename(place.path("clock.new"), place.path("clock")).unwrap();
}

/// The days on which the audit log has an upload of the whole file.
fn uploads(place: &Place) -> Vec<String> {
    let audit = fs::read_to_string(place.path("audit.jsonl")).unwrap();
    let lines = audit.lines();
    lines
        .filter(|line| line.contains(&format!("\"written\":{LEN},\"result\":\"ok\"")))
        .map(|line| {
            let time = line.split("\"time\":\"").nth(1).unwrap();
            time.get(..10).unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_clock_of_the_day_that_jumps_disturbs_nobody() {
    let place = Place::new();
    let key = place.key("id");
    place.write_whole(&format!(
        "listen = [\"127.0.0.1:0\"]\n\
         timeouts.handshake = \"12h\"\n\
         timeouts.authentication = \"12h\"\n\
         audit.file = \"audit.jsonl\"\n\
         [[host_key]]\n\
         file = \"keys/host_ed25519\"\n\
         [organisation.acme.endpoint.orders]\n\
         root = \"root\"\n\
         idle_timeout = \"12h\"\n\
         [organisation.acme.endpoint.orders.user.anna]\n\
         authorized_keys = [\"{key}\"]\n"
    ));
    set_clock(&place, "+0");
    let log = fs::File::create(place.path("log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["serve", "--config"])
        .arg(place.path("server.toml"))
        .env("LD_PRELOAD", libfaketime())
        .env("FAKETIME_TIMESTAMP_FILE", place.path("clock"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let port = listening(&mut child).port();
    let mut server = Running { child, port };

    // Somebody who has not logged in yet, and somebody who transfers.
    let mut stranger = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let identity = format!("IdentityFile={}", place.path("id").display());
    let mut sftp = place
        .sftp(&server, "anna", &["-o", &identity, "-o", "BatchMode=yes"])
        .spawn()
        .unwrap();
    let mut commands = sftp.stdin.take().unwrap();
    let content = vec![7; LEN];
    fs::write(place.path("local/file"), &content).unwrap();
    for (n, offset) in ["+0", "+1d", "-1d", "+0"].into_iter().enumerate() {
        set_clock(&place, offset);
        writeln!(commands, "put file {n}").unwrap();
        eventually(|| {
            let there = fs::read(place.path("root").join(n.to_string()));
            there.is_ok_and(|bytes| bytes == content).then_some(())
        });
        // Its record has the time of its close.
        eventually(|| (uploads(&place).len() > n).then_some(()));
    }
    drop(commands);
    let output = sftp.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // The stranger's time is not over: there is an answer to what it says first.
    stranger.write_all(b"SSH-2.0-stranger\r\n").unwrap();
    let mut said = [0; 512];
    let greeting = "SSH-2.0-";
    stranger.read_exact(&mut said).unwrap();
    assert!(said.starts_with(greeting.as_bytes()));
    drop(stranger);

    server.signal(Signal::TERM);
    assert!(server.child.wait().unwrap().success());
    // That the server saw the jumps stands in its records.
    let days: BTreeSet<_> = uploads(&place).into_iter().collect();
    assert!(days.len() >= 3, "{days:?}");
}
