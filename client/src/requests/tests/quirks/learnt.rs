//! Habits that no identification names: learnt from what the server answers, or does not answer,
//! and borne by the transfer that met them.

use std::{fs, path::Path, pin::pin};

use ketch_protocol::{PacketType, StatusCode};

use super::{
    super::{
        super::stall::STALL_TIMEOUT,
        server::Habits,
        sim::{Sim, poll},
    },
    content, sim_of,
};
use crate::{GetOptions, PutOptions, Remarkable, Resume, TransferError, quirks::Quirk};

const UNKNOWN: &str = "SSH-2.0-unheard-of";

fn has(sim: &Sim, quirk: Quirk) -> bool {
    sim.sftp.shared().server_now().quirks.has(quirk)
}

/// Five files of uneven lengths.
fn files(dir: &Path) {
    for n in 0..5 {
        fs::write(dir.join(n.to_string()), content(n * 100_000 + 7)).unwrap();
    }
}

fn assert_uploaded(sim: &mut Sim, dir: &Path) {
    let sftp = sim.sftp.clone();
    let report = sim.run(sftp.put(dir, "/up", PutOptions::new().recursive(true)));
    assert_eq!(report.unwrap().files, 5);
    for n in 0..5 {
        let there = sim.server.data(&format!("/up/{n}"));
        assert!(there == Some(&content(n * 100_000 + 7)[..]), "{n}");
    }
    sim.settle();
    assert_eq!((sim.server.handles(), sim.server.paths().len()), (0, 7));
}

fn assert_downloaded(sim: &mut Sim, to: &Path) {
    for n in 0..5 {
        sim.server.file(&format!("/d{n}"), content(n * 100_000 + 7));
    }
    let sftp = sim.sftp.clone();
    let paths = (0..5).map(|n| (format!("/d{n}").as_str().into(), to.join(n.to_string())));
    let report = sim.run(sftp.get_all(paths, GetOptions::new()));
    assert_eq!(report.unwrap().files, 5);
    for n in 0..5 {
        let here = fs::read(to.join(n.to_string())).unwrap();
        assert!(here == content(n * 100_000 + 7), "{n}");
    }
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
}

#[test]
fn a_server_that_hangs_on_several_requests_gets_one_at_a_time_from_the_running_transfer_on() {
    let dir = tempfile::tempdir().unwrap();
    // It answers nothing as soon as a second request is there.
    let habits = Habits {
        hangs_at: Some(2),
        ..Habits::default()
    };
    let mut sim = sim_of(UNKNOWN, habits.clone());
    sim.server.file("/a", content(300_000));
    let sftp = sim.sftp.clone();
    {
        let mut get = pin!(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
        assert!(poll(get.as_mut()).is_none());
        sim.settle();
        sim.pass_time(STALL_TIMEOUT);
        assert_eq!(sim.run(get).unwrap().bytes, 300_000);
    }
    assert!(fs::read(dir.path().join("a")).unwrap() == content(300_000));
    assert!(has(&sim, Quirk::OneRequest));
    sim.settle();
    assert!(sim.server.handles() <= 1, "one was never told");

    // The same in the other direction: what hangs is a WRITE with others behind it.
    let mut sim = sim_of(UNKNOWN, habits);
    let sftp = sim.sftp.clone();
    {
        let mut put = pin!(sftp.put(dir.path().join("a"), "/b", PutOptions::new()));
        assert!(poll(put.as_mut()).is_none());
        for _ in 0..3 {
            sim.settle();
            sim.run_threads();
        }
        sim.pass_time(STALL_TIMEOUT);
        assert_eq!(sim.run(put).unwrap().bytes, 300_000);
    }
    assert!(sim.server.data("/b") == Some(&content(300_000)[..]));
    sim.settle();
    assert!(sim.server.handles() <= 1, "one was never told");
    let paths = sim.server.paths();
    assert_eq!(paths, ["/", "/b"], "nothing is left of the first try");
}

#[test]
fn a_server_that_was_only_slow_is_not_taken_for_one_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = sim_of(UNKNOWN, Habits::default());
    sim.server.file("/a", content(300_000));
    let sftp = sim.sftp.clone();
    let mut get = pin!(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
    assert!(poll(get.as_mut()).is_none());
    // Its answers are made, and do not come.
    sim.packets_max = 0;
    for _ in 0..10 {
        sim.turn();
    }
    sim.pass_time(STALL_TIMEOUT);
    sim.turn();
    assert!(has(&sim, Quirk::OneRequest));
    sim.packets_max = 16;
    assert_eq!(sim.run(get).unwrap().bytes, 300_000);
    assert!(!has(&sim, Quirk::OneRequest), "it answered all of them");
    assert!(fs::read(dir.path().join("a")).unwrap() == content(300_000));
}

#[test]
fn a_server_that_bears_one_open_file_gets_one() {
    for (max, status, text) in [
        (1, StatusCode::PERMISSION_DENIED, ""),
        (1, StatusCode::FAILURE, ""),
        (
            3,
            StatusCode::FAILURE,
            "Maximum concurrent transfers exceeded",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        files(dir.path());
        let habits = Habits {
            files_max: Some((max, status, text)),
            ..Habits::default()
        };
        let mut sim = sim_of(UNKNOWN, habits.clone());
        assert_uploaded(&mut sim, dir.path());
        assert!(has(&sim, Quirk::OneFile));
        let refused = sim.server.asked(PacketType::OPEN);
        let mut sim = sim_of(UNKNOWN, habits);
        let to = tempfile::tempdir().unwrap();
        assert_downloaded(&mut sim, to.path());
        assert!(has(&sim, Quirk::OneFile));
        assert!(sim.server.files_peak <= max);
        assert!(refused <= 10, "each is refused once at most");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_no_habit_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = sim_of(UNKNOWN, Habits::default());
    for n in 0..4 {
        sim.server.file(&format!("/f{n}"), content(50_000));
    }
    // The second of four, whatever else is open.
    sim.server.lies = Some(Box::new(|id, request| match request {
        ketch_protocol::Request::Open(open) if open.path == b"/f1" => {
            let status = ketch_protocol::Status::new(StatusCode::PERMISSION_DENIED);
            let mut out = Vec::new();
            ketch_protocol::Response::Status(status).encode_packet(id, &mut out);
            Some(out)
        }
        _ => None,
    }));
    let sftp = sim.sftp.clone();
    let paths = (0..4).map(|n| {
        let local = dir.path().join(n.to_string());
        (format!("/f{n}").as_str().into(), local)
    });
    let error = sim.run(sftp.get_all(paths, GetOptions::new())).unwrap_err();
    let TransferError::Incomplete { report } = error else {
        panic!("{error}");
    };
    assert_eq!((report.files, report.failed_count), (3, 1));
    assert!(!has(&sim, Quirk::OneFile));
    assert!(sim.server.files_peak > 1);
}

#[test]
fn a_server_that_refuses_long_writes_gets_short_ones() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let habits = Habits {
        write_max: 32 * 1024,
        ..Habits::default()
    };
    let mut sim = sim_of(UNKNOWN, habits);
    assert_uploaded(&mut sim, dir.path());
    assert!(has(&sim, Quirk::ShortWrites));
    let before = sim.server.asked(PacketType::WRITE);
    fs::write(dir.path().join("0"), content(320_000)).unwrap();
    let sftp = sim.sftp.clone();
    let put = sftp.put(dir.path().join("0"), "/again", PutOptions::new());
    sim.run(put).unwrap();
    let short = sim.server.asked(PacketType::WRITE) - before;
    assert_eq!(short, 10, "nothing is refused any more");
}

#[test]
fn a_full_disk_is_no_habit() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(3_000_000)).unwrap();
    // The first WRITEs are taken, long ones among them; then the disk is full.
    for nth in [1, 30] {
        let mut sim = sim_of(UNKNOWN, Habits::default());
        let mut count = 0;
        sim.server.refuses_writes = Some(Box::new(move || {
            count += 1;
            count >= nth
        }));
        let sftp = sim.sftp.clone();
        let put = sim.run(sftp.put(dir.path().join("a"), "/a", PutOptions::new()));
        let error = put.unwrap_err();
        assert!(matches!(error, TransferError::Refused { .. }), "{error}");
        assert!(!has(&sim, Quirk::ShortWrites) && !has(&sim, Quirk::InOrder));
        // Tried anew at most once, and only where no long WRITE had been taken.
        let opens = sim.server.asked(PacketType::OPEN);
        assert_eq!(opens, if nth == 1 { 2 } else { 1 });
        sim.settle();
        assert_eq!(sim.server.paths(), ["/"]);
    }
}

#[test]
fn a_store_that_takes_bytes_in_order_only_gets_the_file_from_its_first_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let file = fs::File::create(&path).unwrap();
    // Data, a hole, data.
    fs::write(&path, content(100_000)).unwrap();
    file.set_len(9 << 20).unwrap();
    let mut expected = fs::read(&path).unwrap();
    std::io::Write::write_all(
        &mut fs::OpenOptions::new().append(true).open(&path).unwrap(),
        b"the end",
    )
    .unwrap();
    expected.extend_from_slice(b"the end");
    for text in ["", "Illegal seek"] {
        let habits = Habits {
            in_order: Some(text),
            ..Habits::default()
        };
        let mut sim = sim_of(UNKNOWN, habits);
        let sftp = sim.sftp.clone();
        let report = sim.run(sftp.put(&path, "/a", PutOptions::new())).unwrap();
        assert_eq!(report.bytes, expected.len() as u64);
        assert!(sim.server.data("/a") == Some(&expected[..]));
        assert!(has(&sim, Quirk::InOrder));
        sim.settle();
        assert_eq!(sim.server.paths(), ["/", "/a"]);
        // From now on it is known before the first hole.
        let opens = sim.server.asked(PacketType::OPEN);
        sim.run(sftp.put(&path, "/b", PutOptions::new())).unwrap();
        assert_eq!(sim.server.asked(PacketType::OPEN), opens + 1);
    }
}

#[test]
fn a_server_without_lstat_is_asked_by_stat() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let habits = Habits {
        no_lstat: true,
        ..Habits::default()
    };
    let mut sim = sim_of(UNKNOWN, habits);
    // What is there already is looked at.
    sim.server.dir("/up");
    assert_uploaded(&mut sim, dir.path());
    assert!(has(&sim, Quirk::NoLstat));
    let asked = sim.server.asked(PacketType::LSTAT);
    let sftp = sim.sftp.clone();
    assert_eq!(sim.run(sftp.lstat("/up/1")).unwrap().size, Some(100_007));
    // What is looked for before and after: parts, names that are taken.
    let options = PutOptions::new().overwrite(crate::Overwrite::Never);
    let error = sim.run(sftp.put(dir.path().join("1"), "/up/1", options));
    assert!(matches!(error, Err(TransferError::Exists { .. })));
    assert_eq!(sim.server.asked(PacketType::LSTAT), asked, "asked no more");
    let to = tempfile::tempdir().unwrap();
    let get = sftp.get(
        "/up",
        to.path().join("d"),
        GetOptions::new().recursive(true),
    );
    assert_eq!(sim.run(get).unwrap().files, 5);
}

#[test]
fn what_can_be_read_once_and_not_looked_at_is_read_once() {
    // JSCAPE, and mailboxes: answers of odd lengths, and the file is gone after it was read.
    for seed in 1..20 {
        let habits = Habits {
            read_once: true,
            short: true,
            read_max: 16_381 + seed,
            ..Habits::default()
        };
        let mut sim = sim_of("SSH-2.0-JSCAPE", habits);
        let to = tempfile::tempdir().unwrap();
        assert_downloaded(&mut sim, to.path());
        assert_eq!(sim.server.asked(PacketType::OPEN), 5);
        assert_eq!(sim.server.paths(), ["/"]);
    }
}

#[test]
fn stores_in_the_cloud_get_what_they_take() {
    // AWS Transfer Family and Azure Blob Storage: no EXCL, no attributes, bytes in order, and Azure
    // renames to free names only.
    for (identification, never_replaces) in [
        ("SSH-2.0-AWS_SFTP_1.1", false),
        ("SSH-2.0-AzureSSH_1.0.0", true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        files(dir.path());
        let habits = Habits {
            in_order: Some("not supported"),
            refuses_exclusive: true,
            no_setstat: true,
            never_replaces,
            extensions: Vec::new(),
            ..Habits::default()
        };
        let mut sim = sim_of(identification, habits);
        assert_uploaded(&mut sim, dir.path());
        assert_eq!(sim.server.asked(PacketType::FSETSTAT), 0);
        // Times that are asked for cannot be had, and that is said; the old file is replaced.
        let sftp = sim.sftp.clone();
        let options = PutOptions::new()
            .preserve_times(true)
            .resume(Resume::Verified);
        fs::write(dir.path().join("1"), content(10 << 20)).unwrap();
        let report = sim.run(sftp.put(dir.path().join("1"), "/up/1", options));
        let report = report.unwrap();
        let remarks: Vec<_> = report.remarks.iter().map(|remark| remark.what).collect();
        assert!(
            remarks.contains(&Remarkable::AttributesNotSet),
            "{remarks:?}"
        );
        assert!(sim.server.data("/up/1") == Some(&content(10 << 20)[..]));
        sim.settle();
        assert_eq!(sim.server.paths().len(), 7);
    }
}

#[test]
fn a_server_that_mixes_up_concurrent_writes_gets_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let habits = Habits {
        mixes_up: true,
        ..Habits::default()
    };
    let mut sim = sim_of("SSH-2.0-ExaVault", habits);
    assert_uploaded(&mut sim, dir.path());
}

#[test]
fn what_is_moved_on_when_it_is_closed_is_written_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("a");
    fs::write(&local, content(70_000)).unwrap();
    let habits = Habits {
        moves_on: true,
        ..Habits::default()
    };
    let mut sim = sim_of("SSH-2.0-MOVEit Transfer SFTP", habits.clone());
    let sftp = sim.sftp.clone();
    let report = sim.run(sftp.put(&local, "/a", PutOptions::new())).unwrap();
    assert_eq!((report.files, report.bytes), (1, 70_000));
    assert_eq!(report.remarks[0].what, Remarkable::WrittenInPlace);
    assert_eq!(sim.server.moved_on, [(b"/a".to_vec(), content(70_000))]);
    // What fails is gone before it is closed.
    let mut sim = sim_of("SSH-2.0-MOVEit Transfer SFTP", habits);
    sim.server.refuses_writes = Some(Box::new(|| true));
    let sftp = sim.sftp.clone();
    let report = sim.run(sftp.put(&local, "/a", PutOptions::new()));
    assert!(matches!(report, Err(TransferError::Refused { .. })));
    sim.settle();
    assert!(sim.server.moved_on.is_empty());
    assert_eq!((sim.server.handles(), sim.server.paths().len()), (0, 1));
}
