//! Uploads.

use std::{fs, path::Path};

use super::{
    content,
    server::{Habits, Node},
    sim::Sim,
};
use crate::{
    Preserve, PutOptions, Remarkable, Report, TransferError,
    quirks::{Quirk, Quirks},
    requests::Settings,
};

fn sim(habits: Habits, seed: u64) -> Sim {
    let mut sim = Sim::new(habits, seed);
    sim.settle();
    sim
}

fn put(sim: &mut Sim, dir: &Path, options: PutOptions) -> Result<Report, TransferError> {
    let sftp = sim.sftp.clone();
    let result = sim.run(sftp.put(dir.join("a"), "/a", options));
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
    result
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_the_original_if_that_is_wanted() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("a");
    for mode in [0o444, 0o751, 0o666] {
        let mut sim = sim(Habits::default(), 1);
        fs::write(&local, content(1000)).unwrap();
        fs::set_permissions(&local, fs::Permissions::from_mode(mode)).unwrap();
        let options = PutOptions::new().preserve(Preserve::TIMES_AND_PERMISSIONS);
        let report = put(&mut sim, dir.path(), options).unwrap();
        assert!(report.remarks.is_empty());
        let Node::File { mode: its, .. } = &sim.server.nodes[&b"/a"[..]] else {
            panic!()
        };
        assert_eq!(its & 0o7777, mode);
        fs::remove_file(&local).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn an_owner_that_the_server_does_not_set_is_remarked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let mut sim = sim(Habits::default(), 1);
    let report = put(
        &mut sim,
        dir.path(),
        PutOptions::new().preserve(Preserve::ALL),
    )
    .unwrap();
    assert_eq!(report.remarks[0].what, Remarkable::AttributesNotSet);
    let Node::File { times, .. } = &sim.server.nodes[&b"/a"[..]] else {
        panic!()
    };
    assert!(times.is_some(), "the rest is set all the same");
}

#[test]
fn attributes_are_not_asked_for_where_they_cannot_be_set() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let settings = Settings {
        quirks: Quirks::of("SSH-2.0-AWS_SFTP_1.1"),
        ..Settings::default()
    };
    let mut sim = Sim::with_settings(Habits::default(), 1, settings);
    sim.settle();
    let report = put(&mut sim, dir.path(), PutOptions::new().preserve_times(true)).unwrap();
    assert_eq!(report.remarks[0].what, Remarkable::AttributesNotSet);
    assert_eq!(sim.server.asked(ketch_protocol::PacketType::FSETSTAT), 0);
    assert!(sim.server.data("/a") == Some(&content(1000)[..]));
}

#[test]
fn a_server_without_exclusive_creation_gets_names_by_chance() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(1000)).unwrap();
    let habits = Habits {
        refuses_exclusive: true,
        ..Habits::default()
    };
    let mut sim = sim(habits, 1);
    for _ in 0..2 {
        put(&mut sim, dir.path(), PutOptions::new()).unwrap();
        assert!(sim.server.data("/a") == Some(&content(1000)[..]));
    }
    assert!(
        sim.sftp
            .shared()
            .server_now()
            .quirks
            .has(Quirk::NoExclusive)
    );
    assert_eq!(sim.server.asked(ketch_protocol::PacketType::OPEN), 3);
    assert_eq!(sim.server.paths(), ["/", "/a"]);
}

#[cfg(target_os = "linux")]
#[test]
fn holes_are_not_sent() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("a");
    for (sparse, len) in [
        (crate::Sparse::Auto, 20_000_000),
        (crate::Sparse::Never, 20_000_000),
        (crate::Sparse::Auto, 20_000_001),
    ] {
        let file = fs::File::create(&local).unwrap();
        file.write_all_at(b"here", 100).unwrap();
        file.write_all_at(&content(70_000), 9_000_000).unwrap();
        file.set_len(len).unwrap();
        let has_holes = file.metadata().unwrap().blocks() * 512 < len;
        let mut sim = sim(Habits::default(), 1);
        let report = put(&mut sim, dir.path(), PutOptions::new().sparse(sparse)).unwrap();
        assert_eq!(report.bytes, len);
        assert!(sim.server.data("/a") == Some(&fs::read(&local).unwrap()[..]));
        let written = sim.server.bytes_written as u64;
        if has_holes && sparse == crate::Sparse::Auto {
            assert!(written < 1_000_000, "{written}");
        } else {
            assert_eq!(written, len);
        }
    }
}
