//! Files that cannot be had any more by the time it is their turn: each fails alone (row R7 of
//! `docs/threats.md`).

use std::{fs, pin::pin};

use ketch_protocol::{Request, Response, Status, StatusCode};

use super::{
    server::Habits,
    sim::{Sim, poll},
};
use crate::{Failure, GetOptions, Kind, PutOptions, TransferError};

/// More than are begun at once.
const FILES: usize = 400;

fn report_of(error: TransferError) -> crate::Report {
    match error {
        TransferError::Incomplete { report } => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn remote_files_that_vanish_after_they_were_listed_fail_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.packets_max = 8;
    sim.server.dir("/t");
    for n in 0..FILES {
        sim.server.file(&format!("/t/{n:03}"), vec![7; 1000]);
    }
    let sftp = sim.sftp.clone();
    let options = GetOptions::new().recursive(true);
    let mut get = pin!(sftp.get("/t", dir.path(), options));
    let mut result = None;
    let mut removed = false;
    for _ in 0..10_000 {
        result = poll(get.as_mut());
        if result.is_some() {
            break;
        }
        sim.turn();
        // All have been listed by then, and a few have come.
        if !removed && fs::read_dir(dir.path()).unwrap().count() > 20 {
            removed = true;
            for n in [390, 395, 399] {
                sim.server.nodes.remove(format!("/t/{n}").as_bytes());
            }
        }
    }
    let error = result.expect("an end").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let report = report_of(error);
    assert_eq!((report.files, report.failed_count), (397, 3));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 397);
}

#[test]
fn local_files_that_vanish_after_they_were_listed_fail_alone() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..FILES {
        fs::write(dir.path().join(format!("{n:03}")), vec![7; 1000]).unwrap();
    }
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.packets_max = 8;
    let sftp = sim.sftp.clone();
    let options = PutOptions::new().recursive(true);
    let mut put = pin!(sftp.put(dir.path(), "/t", options));
    let mut result = None;
    let mut removed = 0_u64;
    for _ in 0..10_000 {
        result = poll(put.as_mut());
        if result.is_some() {
            break;
        }
        sim.turn();
        if removed == 0 && sim.server.paths().len() > 20 {
            // In whatever order they were listed: some of these were not opened yet.
            for n in 0..FILES {
                let name = dir.path().join(format!("{n:03}"));
                let is_begun = sim.server.paths().iter().any(|path| {
                    path.contains(&format!("/{n:03}")) || path.contains(&format!("/.{n:03}."))
                });
                if !is_begun && n % 50 == 0 {
                    fs::remove_file(name).unwrap();
                    removed += 1;
                }
            }
        }
    }
    let result = result.expect("an end");
    let (files, failed) = match result {
        Ok(report) => (report.files, 0),
        Err(error) => {
            assert_eq!(error.kind(), Kind::NotFound);
            let report = report_of(error);
            (report.files, report.failed_count)
        }
    };
    // Some of those that were removed had been opened, and are read all the same.
    assert!(removed > 0 && failed <= removed, "{failed} of {removed}");
    assert_eq!(files + failed, FILES as u64);
    let there = sim.server.paths();
    assert_eq!(there.len() as u64, files + 2, "the root, the directory");
    assert!(!there.iter().any(|path| path.contains(".ketch-")));
}

#[test]
fn a_quota_and_a_permission_stop_their_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..FILES {
        fs::write(dir.path().join(format!("{n:03}")), vec![7; 1000]).unwrap();
    }
    for (status, kind) in [
        (StatusCode::QUOTA_EXCEEDED, Kind::NoSpace),
        (StatusCode::PERMISSION_DENIED, Kind::Permission),
    ] {
        let mut sim = Sim::new(Habits::default(), 1);
        sim.settle();
        sim.server.lies = Some(Box::new(move |id, request| match request {
            Request::Open(open) if open.path.starts_with(b"/t/.1") => {
                let mut bytes = Vec::new();
                Response::Status(Status::new(status)).encode_packet(id, &mut bytes);
                Some(bytes)
            }
            _ => None,
        }));
        let sftp = sim.sftp.clone();
        let options = PutOptions::new().recursive(true);
        let error = sim.run(sftp.put(dir.path(), "/t", options)).unwrap_err();
        assert_eq!(error.kind(), kind);
        let report = report_of(error);
        assert_eq!((report.files, report.failed_count), (300, 100));
        assert!(
            report
                .failed
                .iter()
                .all(|failed| failed.error.kind() == kind)
        );
        sim.settle();
        assert_eq!(sim.server.paths().len(), 302);
        assert_eq!(sim.server.handles(), 0);
    }
}
