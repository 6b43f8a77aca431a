//! Habits of servers: each row of the table that changes what is sent, against a server that has it.

use std::{fs, pin::pin};

use ketch_protocol::{PacketType, StatusCode};

use super::{
    super::Settings,
    server::Habits,
    sim::{Sim, poll},
};
use crate::{GetOptions, PutOptions, Resume, quirks::Quirks};

mod learnt;

fn content(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn sim_of(identification: &str, habits: Habits) -> Sim {
    let settings = Settings {
        quirks: Quirks::of(identification),
        ..Settings::default()
    };
    let mut sim = Sim::of(habits, 1, settings);
    sim.settle();
    sim
}

#[test]
fn a_server_that_bears_one_request_at_a_time_gets_one() {
    for identification in ["SSH-2.0-CrushFTPSSHD", "SSH-2.0-WS_FTP-SSH_8.7"] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim_of(identification, Habits::default());
        for n in 0..5 {
            sim.server.file(&format!("/f{n}"), content(n * 100_000));
        }
        sim.server.answers_peak = 0;
        let sftp = sim.sftp.clone();
        let paths = (0..5).map(|n| {
            (
                format!("/f{n}").as_str().into(),
                dir.path().join(n.to_string()),
            )
        });
        let report = sim.run(sftp.get_all(paths, GetOptions::new())).unwrap();
        assert_eq!(report.files, 5);
        for n in 0..5 {
            assert!(fs::read(dir.path().join(n.to_string())).unwrap() == content(n * 100_000));
        }
        let put = sftp.put(dir.path(), "/up", PutOptions::new().recursive(true));
        assert_eq!(sim.run(put).unwrap().files, 5);
        assert!(sim.server.data("/up/4") == Some(&content(400_000)[..]));
        sim.settle();
        assert_eq!((sim.server.answers_peak, sim.server.open_peak), (1, 1));
        assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn requests_are_no_longer_than_the_server_bears() {
    for (identification, read_max, write_max) in [
        ("SSH-2.0-Go", 32 * 1024, u32::MAX),
        ("SSH-2.0-OpenSSH_for_Windows_7.7", u32::MAX, 32 * 1024),
        ("SSH-2.0-WeOnlyDo 2.1.3", u32::MAX, 1024),
        ("SSH-2.0-OpenSSH_9.2", u32::MAX, u32::MAX),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim_of(identification, Habits::default());
        sim.server.file("/a", content(300_000));
        let sftp = sim.sftp.clone();
        let local = dir.path().join("a");
        sim.run(sftp.get("/a", &local, GetOptions::new())).unwrap();
        sim.run(sftp.put(&local, "/b", PutOptions::new())).unwrap();
        assert!(sim.server.data("/b") == Some(&content(300_000)[..]));
        assert!(sim.server.read_peak <= read_max, "{identification}");
        assert!(sim.server.write_peak <= write_max, "{identification}");
        if identification.ends_with("9.2") {
            assert!(sim.server.read_peak > 60_000 && sim.server.write_peak > 60_000);
        }
    }
}

#[test]
fn limits_that_nobody_can_mean_are_not_believed() {
    let habits = Habits {
        limits: ketch_protocol::ServerLimits {
            packet_len: u64::MAX,
            read_len: u64::MAX,
            write_len: u64::MAX,
            open_handles: u64::MAX,
        },
        ..Habits::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let mut sim = sim_of("SSH-2.0-mod_sftp/0.9.9", habits);
    sim.server.file("/a", content(3_000_000));
    let sftp = sim.sftp.clone();
    let local = dir.path().join("a");
    sim.run(sftp.get("/a", &local, GetOptions::new())).unwrap();
    sim.run(sftp.put(&local, "/b", PutOptions::new())).unwrap();
    assert!(sim.server.read_peak <= 256 * 1024 && sim.server.write_peak <= 256 * 1024);
}

#[test]
fn links_go_out_in_the_order_that_the_server_knows() {
    for (identification, first) in [
        ("SSH-2.0-OpenSSH_9.2", "target"),
        ("SSH-2.0-unheard-of", "target"),
        ("SSH-2.0-6.4.12.353 SSH Tectia Server", "link"),
        ("SSH-2.0-VShell_4_0_0", "link"),
    ] {
        let mut sim = sim_of(identification, Habits::default());
        let sftp = sim.sftp.clone();
        let mut call = pin!(sftp.symlink("target", "link"));
        assert!(poll(call.as_mut()).is_none());
        sim.requests.drive(&mut sim.link);
        let sent = String::from_utf8_lossy(&sim.link.out).into_owned();
        let other = if first == "target" { "link" } else { "target" };
        let (first, other) = (sent.find(first).unwrap(), sent.find(other).unwrap());
        assert!(first < other, "{identification}");
    }
}

#[test]
fn a_server_that_moves_a_file_on_as_soon_as_it_is_closed_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(70_000)).unwrap();
    let mut sim = sim_of("SSH-2.0-MOVEit Transfer SFTP", Habits::default());
    let sftp = sim.sftp.clone();
    let report = sim.run(sftp.put(dir.path().join("a"), "/a", PutOptions::new()));
    assert_eq!(report.unwrap().bytes, 70_000);
    assert_eq!(sim.server.asked(PacketType::FSTAT), 0);
    // One that nobody knows is asked, and believed if it does not tell.
    let habits = Habits {
        fails: Some((PacketType::FSTAT, 1, StatusCode::NO_SUCH_FILE)),
        ..Habits::default()
    };
    let mut sim = sim_of("SSH-2.0-unheard-of", habits);
    let sftp = sim.sftp.clone();
    let report = sim.run(sftp.put(dir.path().join("a"), "/a", PutOptions::new()));
    assert_eq!(report.unwrap().bytes, 70_000);
    assert_eq!(sim.server.asked(PacketType::FSTAT), 1);
}

#[test]
fn a_server_whose_writes_are_sure_is_not_asked_about_small_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(4096)).unwrap();
    fs::write(dir.path().join("b"), content(300_000)).unwrap();
    for (identification, small, large) in [
        ("SSH-2.0-OpenSSH_9.2", 0, 1),
        ("SSH-2.0-ketch_0.1", 0, 1),
        ("SSH-2.0-mod_sftp", 1, 1),
        ("SSH-2.0-unheard-of", 1, 1),
    ] {
        for (name, asked) in [("a", small), ("b", large)] {
            let mut sim = sim_of(identification, Habits::default());
            let sftp = sim.sftp.clone();
            let path = format!("/{name}");
            let put = sftp.put(dir.path().join(name), path.as_str(), PutOptions::new());
            sim.run(put).unwrap();
            assert_eq!(
                sim.server.asked(PacketType::FSTAT),
                asked,
                "{identification}"
            );
            let whole = fs::read(dir.path().join(name)).unwrap();
            assert!(sim.server.data(&path) == Some(&whole[..]));
        }
    }
}

#[test]
fn a_server_without_lstat_is_asked_for_what_links_lead_to() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(70_000)).unwrap();
    let mut sim = sim_of("SSH-2.0-FTPshell", Habits::default());
    let sftp = sim.sftp.clone();
    let put = sftp.put(dir.path().join("a"), "/a", PutOptions::new());
    assert_eq!(sim.run(put).unwrap().bytes, 70_000);
    assert_eq!(sim.server.asked(PacketType::LSTAT), 0);
    assert_eq!(sim.server.asked(PacketType::STAT), 1);
}

#[test]
fn stores_that_take_bytes_in_order_get_neither_holes_nor_parts() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("a")).unwrap();
    file.set_len(20 << 20).unwrap();
    for identification in ["SSH-2.0-AzureSSH_1.0.0", "SSH-2.0-SFTPGo_2.6"] {
        let habits = Habits {
            in_order: Some(""),
            ..Habits::default()
        };
        let mut sim = sim_of(identification, habits);
        let sftp = sim.sftp.clone();
        let options = PutOptions::new().resume(Resume::Verified);
        let report = sim.run(sftp.put(dir.path().join("a"), "/a", options));
        assert_eq!(report.unwrap().bytes, 20 << 20);
        assert_eq!(sim.server.bytes_written, 20 << 20);
    }
}
