//! Downloads.

use std::{fs, path::Path, pin::pin, sync::Arc};

use ketch_protocol::{ExtensionName, PacketType, Request, StatusCode};

use super::{
    LEN, content,
    server::{Habits, Node},
    sim::{Sim, poll},
};
use crate::{
    GetOptions, Preserve, Progress, ReadFault, Remarkable, Report, Resume, Sparse, TransferError,
    Verify,
};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn sim(habits: Habits, seed: u64) -> Sim {
    let mut sim = Sim::new(habits, seed);
    sim.settle();
    sim
}

/// Ends a download when the part has `len` bytes, and says how many remained.
fn interrupt(sim: &mut Sim, dir: &Path, options: GetOptions, len: u64) -> u64 {
    let sftp = sim.sftp.clone();
    {
        let mut get = pin!(sftp.get("/a", dir.join("a"), options));
        let part_len = || {
            let entry = fs::read_dir(dir).unwrap().next();
            entry.map_or(0, |entry| entry.unwrap().metadata().unwrap().len())
        };
        while part_len() < len {
            assert!(poll(get.as_mut()).is_none(), "it is over");
            sim.turn();
        }
    }
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
    let part = fs::read_dir(dir).unwrap().next();
    part.map_or(0, |part| part.unwrap().metadata().unwrap().len())
}

fn get(sim: &mut Sim, dir: &Path, options: GetOptions) -> Result<Report, TransferError> {
    let sftp = sim.sftp.clone();
    let result = sim.run(sftp.get("/a", dir.join("a"), options));
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
    result
}

#[test]
fn a_download_that_was_ended_is_continued_by_the_next() {
    for (seed, resume, shuffle) in [
        (1, Resume::Verified, false),
        (2, Resume::Verified, true),
        (3, Resume::Full, true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(
            Habits {
                shuffle,
                short: shuffle,
                ..Habits::default()
            },
            seed,
        );
        sim.server.file("/a", content(LEN));
        let options = GetOptions::new().resume(resume);
        let part = interrupt(&mut sim, dir.path(), options.clone(), 10 << 20);
        assert!(part >= 10 << 20);
        sim.server.bytes_read = 0;
        let report = get(&mut sim, dir.path(), options).unwrap();
        assert_eq!((report.files, report.bytes), (1, LEN as u64));
        assert!(report.remarks.is_empty());
        assert!(fs::read(dir.path().join("a")).unwrap() == content(LEN));
        assert_eq!(names(dir.path()), ["a"]);
        if resume == Resume::Verified {
            let saved = part - (8 << 20) - (1 << 20) - (64 << 10);
            let read = sim.server.bytes_read as u64;
            assert!(read <= LEN as u64 - saved, "seed {seed}");
        }
    }
}

#[test]
fn without_resume_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = sim(Habits::default(), 1);
    sim.server.file("/a", content(LEN));
    interrupt(&mut sim, dir.path(), GetOptions::new(), 10 << 20);
    assert!(names(dir.path()).is_empty());
    // Nor does what is too short to be worth it.
    let options = GetOptions::new().resume(Resume::Full);
    interrupt(&mut sim, dir.path(), options, 1 << 20);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn two_versions_are_never_spliced() {
    for seed in 1..5 {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(Habits::default(), seed);
        sim.server.file("/a", content(LEN));
        let full = GetOptions::new().resume(Resume::Full);
        interrupt(&mut sim, dir.path(), full.clone(), 10 << 20);
        // Same size, same time: one byte differs, anywhere in what is there.
        let at = sim.server.random(2 << 20);
        let mut other = content(LEN);
        other[at] ^= 1;
        sim.server.file("/a", other.clone());
        let progress = Arc::new(Progress::new());
        let full = full.progress(Arc::clone(&progress));
        let report = get(&mut sim, dir.path(), full).unwrap();
        assert!(
            fs::read(dir.path().join("a")).unwrap() == other,
            "seed {seed}, byte {at}"
        );
        assert_eq!(progress.bytes_done(), LEN as u64, "nothing counts twice");
        assert_eq!(report.remarks[0].what, Remarkable::PartDiffered);
        assert_eq!(names(dir.path()), ["a"]);
    }
}

#[test]
fn a_source_that_was_changed_finds_no_part() {
    for change in ["time", "size", "head", "end of what is believed"] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(Habits::default(), 7);
        sim.server.file("/a", content(LEN));
        let options = GetOptions::new().resume(Resume::Verified);
        let part = interrupt(&mut sim, dir.path(), options.clone(), 10 << 20);
        let mut other = content(LEN);
        let middle = 1 << 20;
        match change {
            "size" => other.truncate(LEN - 1),
            "head" => other[1000] ^= 1,
            "time" => other[middle] ^= 1,
            _ => other[usize::try_from(part).unwrap() - (8 << 20) - 1000] ^= 1,
        }
        sim.server.file("/a", other.clone());
        if change == "time"
            && let Some(Node::File {
                times: Some(times), ..
            }) = sim.server.nodes.get_mut(&b"/a"[..])
        {
            times.mtime += 1;
        }
        let report = get(&mut sim, dir.path(), options).unwrap();
        assert!(fs::read(dir.path().join("a")).unwrap() == other, "{change}");
        let differed = matches!(change, "head" | "end of what is believed");
        assert_eq!(report.remarks.len(), usize::from(differed), "{change}");
    }
}

#[test]
fn checksums_are_compared_before_a_file_gets_its_name() {
    for offers in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut habits = Habits::default();
        if offers {
            habits.extensions.push(ExtensionName::CheckFileHandle);
        }
        let mut sim = sim(habits, 1);
        sim.server.file("/a", content(700_000));
        let options = GetOptions::new().verify(Verify::Checksum);
        let report = get(&mut sim, dir.path(), options).unwrap();
        assert_eq!(report.bytes, 700_000);
        assert!(fs::read(dir.path().join("a")).unwrap() == content(700_000));
        let once_or_twice = if offers { 700_000 } else { 1_400_000 };
        assert_eq!(sim.server.bytes_read, once_or_twice);
    }
}

#[test]
fn a_file_that_is_not_the_same_in_the_end_gets_no_name() {
    for offers in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut habits = Habits::default();
        if offers {
            habits.extensions.push(ExtensionName::CheckFileHandle);
        }
        let mut sim = sim(habits, 1);
        sim.server.file("/a", content(700_000));
        let sftp = sim.sftp.clone();
        let options = GetOptions::new()
            .verify(Verify::Checksum)
            .resume(Resume::Verified);
        let mut get = pin!(sftp.get("/a", dir.path().join("a"), options));
        // Something changes it here while it comes.
        let error = loop {
            if let Some(result) = poll(get.as_mut()) {
                break result.unwrap_err();
            }
            sim.turn();
            if let Some(entry) = fs::read_dir(dir.path()).unwrap().next() {
                let part = fs::File::options().write(true).open(entry.unwrap().path());
                crate::platform::write_run(
                    &part.unwrap(),
                    &mut [std::io::IoSlice::new(b"changed")],
                    300_000,
                )
                .unwrap();
            }
        };
        assert!(matches!(error, TransferError::Differs { .. }), "{error}");
        sim.settle();
        assert!(names(dir.path()).is_empty());
    }
}

#[test]
fn a_file_that_ends_before_its_size_is_whole_if_it_does_so_twice() {
    let dir = tempfile::tempdir().unwrap();
    let habits = Habits {
        boasts: 4000,
        ..Habits::default()
    };
    let mut sim = sim(habits, 1);
    for len in [0, 5, 100_000] {
        sim.server.file("/a", content(len));
        let progress = Arc::new(Progress::new());
        let options = GetOptions::new().progress(Arc::clone(&progress));
        let report = get(&mut sim, dir.path(), options).unwrap();
        assert_eq!(
            (report.bytes, progress.bytes_done()),
            (len as u64, len as u64)
        );
        assert!(fs::read(dir.path().join("a")).unwrap() == content(len));
    }
}

#[test]
fn a_file_of_overstated_size_is_whole_though_much_was_asked_for_behind_its_end() {
    for seed in 1..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut habits = Habits {
            boasts: 100_000,
            shuffle: seed > 1,
            ..Habits::default()
        };
        habits.limits.read_len = 32 * 1024;
        let mut sim = sim(habits, seed);
        for len in [0, 40_000, 32 * 1024, 130_000] {
            sim.server.file("/a", content(len));
            let report = get(&mut sim, dir.path(), GetOptions::new()).unwrap();
            assert_eq!(report.bytes, len as u64, "seed {seed}");
            assert!(fs::read(dir.path().join("a")).unwrap() == content(len));
        }
    }
}

#[test]
fn a_second_reading_leaves_no_holes_in_what_a_part_is_believed_for() {
    let dir = tempfile::tempdir().unwrap();
    let habits = Habits {
        boasts: 4000,
        ..Habits::default()
    };
    let mut sim = sim(habits, 1);
    sim.server.file("/a", content(LEN));
    // The second time, one READ is not answered: what lies far behind it is not to come.
    let mut times = 0;
    sim.server.lies = Some(Box::new(move |_, request| match request {
        Request::Read(read) if read.offset == 1 << 20 => {
            times += 1;
            (times == 2).then(Vec::new)
        }
        _ => None,
    }));
    let progress = Arc::new(Progress::new());
    let options = GetOptions::new().resume(Resume::Verified);
    let sftp = sim.sftp.clone();
    {
        let options = options.clone().progress(Arc::clone(&progress));
        let mut get = pin!(sftp.get("/a", dir.path().join("a"), options));
        let mut idle = 0;
        while idle < 5 {
            assert!(poll(get.as_mut()).is_none(), "it is over");
            idle = if sim.turn() { 0 } else { idle + 1 };
        }
    }
    // What came twice is not counted twice.
    assert!(progress.bytes_done() <= LEN as u64);
    sim.settle();
    sim.server.lies = None;
    get(&mut sim, dir.path(), options).unwrap();
    assert!(fs::read(dir.path().join("a")).unwrap() == content(LEN));
    assert_eq!(names(dir.path()), ["a"]);
}

#[test]
fn a_file_that_was_cut_while_it_was_read_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = sim(Habits::default(), 1);
    sim.server.file("/a", content(3_000_000));
    let sftp = sim.sftp.clone();
    let mut get = pin!(sftp.get("/a", dir.path().join("a"), GetOptions::new()));
    while fs::read_dir(dir.path()).unwrap().count() == 0 {
        assert!(poll(get.as_mut()).is_none());
        sim.turn();
    }
    sim.server.file("/a", content(1_000_000));
    let error = sim.run(get).unwrap_err();
    assert!(
        matches!(
            error,
            TransferError::Read {
                source: ReadFault::Truncated { .. } | ReadFault::Shrank { .. },
                ..
            }
        ),
        "{error:?}"
    );
    assert!(names(dir.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn permissions_are_those_of_the_original_if_that_is_wanted() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mut sim = sim(Habits::default(), 1);
    for mode in [0o444, 0o751, 0o666, 0o4755] {
        sim.server.file("/a", content(1000));
        if let Some(Node::File { mode: its, .. }) = sim.server.nodes.get_mut(&b"/a"[..]) {
            *its = mode;
        }
        let options = GetOptions::new().preserve(Preserve::TIMES_AND_PERMISSIONS);
        let report = get(&mut sim, dir.path(), options).unwrap();
        assert!(report.remarks.is_empty());
        let metadata = fs::metadata(dir.path().join("a")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, mode & 0o777);
        assert_eq!(
            crate::platform::seconds(metadata.modified().unwrap()),
            1_000_000_001
        );
    }
}

#[cfg(unix)]
#[test]
fn zeros_become_holes_only_where_that_is_wanted() {
    use std::os::unix::fs::MetadataExt;
    let mut data = content(200_000);
    data.extend(vec![0; 4 << 20]);
    data.extend(content(1000));
    data.extend(vec![0; 1 << 20]);
    for (sparse, verify) in [
        (Sparse::Auto, Verify::Size),
        (Sparse::Always, Verify::Size),
        (Sparse::Always, Verify::Checksum),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = sim(Habits::default(), 1);
        sim.server.file("/a", data.clone());
        let options = GetOptions::new().sparse(sparse).verify(verify);
        get(&mut sim, dir.path(), options).unwrap();
        let local = dir.path().join("a");
        assert!(fs::read(&local).unwrap() == data);
        let blocks = fs::metadata(&local).unwrap().blocks();
        // Not every file system has holes; none makes any where all was written.
        if sparse == Sparse::Auto {
            assert!(blocks * 512 >= data.len() as u64);
        }
    }
}

#[test]
fn a_part_stays_when_the_server_fails_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let habits = Habits {
        fails: Some((PacketType::READ, 172, StatusCode::FAILURE)),
        ..Habits::default()
    };
    let mut sim = sim(habits, 1);
    sim.server.file("/a", content(LEN));
    let options = GetOptions::new().resume(Resume::Verified);
    get(&mut sim, dir.path(), options.clone()).unwrap_err();
    assert_eq!(names(dir.path()).len(), 1);
    get(&mut sim, dir.path(), options).unwrap();
    assert!(fs::read(dir.path().join("a")).unwrap() == content(LEN));
    assert_eq!(names(dir.path()), ["a"]);
}
