//! Uploads.

use std::{fs, path::Path};

use std::pin::pin;

use ketch_protocol::ExtensionName;

use super::{
    LEN, content,
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{
    Preserve, PutOptions, Remarkable, Report, Resume, TransferError, Verify,
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

/// Ends an upload when the part has `len` bytes, and says how many remained.
fn interrupt(sim: &mut Sim, dir: &Path, options: PutOptions, len: usize) -> usize {
    let part_len = |sim: &Sim| {
        let part = sim
            .server
            .paths()
            .into_iter()
            .find(|path| path.contains(".ketch-"));
        part.and_then(|part| sim.server.data(&part).map(<[u8]>::len))
    };
    let sftp = sim.sftp.clone();
    {
        let mut put = pin!(sftp.put(dir.join("a"), "/a", options));
        while part_len(sim).unwrap_or(0) < len {
            assert!(poll(put.as_mut()).is_none(), "it is over");
            sim.turn();
        }
    }
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
    part_len(sim).unwrap_or(0)
}

#[test]
fn an_upload_that_was_ended_is_continued_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(LEN)).unwrap();
    for (seed, resume, shuffle) in [
        (1, Resume::Verified, false),
        (2, Resume::Verified, true),
        (3, Resume::Full, false),
    ] {
        let habits = Habits {
            shuffle,
            ..Habits::default()
        };
        let mut sim = sim(habits, seed);
        let options = PutOptions::new().resume(resume);
        let part = interrupt(&mut sim, dir.path(), options.clone(), 9 << 20);
        assert!(part >= 9 << 20);
        // Twice: it has the other name now.
        let part = interrupt(&mut sim, dir.path(), options.clone(), part + (1 << 20));
        sim.server.bytes_written = 0;
        let report = put(&mut sim, dir.path(), options).unwrap();
        assert_eq!(report.bytes, LEN as u64);
        assert!(report.remarks.is_empty());
        assert!(sim.server.data("/a") == Some(&content(LEN)[..]));
        assert_eq!(sim.server.paths(), ["/", "/a"]);
        assert_eq!(
            sim.server.bytes_written,
            LEN - (part - (8 << 20)),
            "seed {seed}"
        );
    }
}

#[test]
fn a_part_on_the_server_that_is_not_the_source_s_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("a");
    for seed in 1..5 {
        let mut sim = sim(Habits::default(), seed);
        fs::write(&local, content(LEN)).unwrap();
        let options = PutOptions::new().resume(Resume::Full);
        let part = interrupt(&mut sim, dir.path(), options.clone(), 10 << 20);
        // Anywhere in what is believed, one byte is not what it was.
        let at = sim.server.random(part - (8 << 20));
        let path = sim.server.paths().pop().unwrap();
        let path = if path.contains(".ketch-") {
            path
        } else {
            sim.server.paths()[1].clone()
        };
        let Some(Node::File { data, .. }) = sim.server.nodes.get_mut(path.as_bytes()) else {
            panic!()
        };
        data[at] ^= 1;
        let report = put(&mut sim, dir.path(), options).unwrap();
        assert!(
            sim.server.data("/a") == Some(&content(LEN)[..]),
            "seed {seed}, byte {at}"
        );
        assert_eq!(report.remarks[0].what, Remarkable::PartDiffered);
        assert_eq!(sim.server.paths(), ["/", "/a"]);
    }
}

#[test]
fn an_upload_without_resume_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(LEN)).unwrap();
    let mut sim = sim(Habits::default(), 1);
    assert_eq!(
        interrupt(&mut sim, dir.path(), PutOptions::new(), 9 << 20),
        0
    );
    let short = PutOptions::new().resume(Resume::Full);
    assert_eq!(interrupt(&mut sim, dir.path(), short, 1 << 20), 0);
    assert_eq!(sim.server.paths(), ["/"]);
}

#[test]
fn what_is_not_the_same_on_the_server_gets_no_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(700_000)).unwrap();
    for offers in [true, false] {
        for spoils in [true, false] {
            let mut habits = Habits {
                spoils_at: spoils.then_some(300_000),
                ..Habits::default()
            };
            if offers {
                habits.extensions.push(ExtensionName::CheckFileName);
            }
            let mut sim = sim(habits, 1);
            let options = PutOptions::new().verify(Verify::Checksum);
            let result = put(&mut sim, dir.path(), options);
            assert_eq!(sim.server.bytes_read > 0, !offers);
            if spoils {
                let error = result.unwrap_err();
                assert!(matches!(error, TransferError::Differs { .. }), "{error}");
                assert_eq!(sim.server.paths(), ["/"]);
            } else {
                assert_eq!(result.unwrap().bytes, 700_000);
                assert!(sim.server.data("/a") == Some(&content(700_000)[..]));
            }
        }
    }
}
