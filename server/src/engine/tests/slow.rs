//! What is slow, and what it must not hold up. The simulated threads run when they are told to: one
//! that is not told hangs.

use ketch_protocol::{CheckFileName, CopyData, Extension, Fstat, Fsync, Read, Stat};

use super::{MOODS, OK, open, path};
use crate::engine::simulation::{Got, Mood, Simulation};
use crate::engine::{JOBS_LIMIT, LONG_JOBS_MAX};

#[test]
fn a_session_full_of_fsyncs_copies_and_checksums_answers_everything_else() {
    let mut simulation = Simulation::new(Mood::Ready, 1);
    simulation.files.put(&path("/f"), vec![7; 5000]).unwrap();
    let handles: Vec<_> = (0..24)
        .map(|n| open(&mut simulation, &format!("/s{n}")))
        .collect();
    let reader = open(&mut simulation, "/f");
    let mut slow: Vec<_> = handles
        .iter()
        .map(|handle| simulation.request(Extension::Fsync(Fsync { handle })))
        .collect();
    for _ in 0..20 {
        slow.push(simulation.request(Extension::CheckFileName(CheckFileName {
            path: b"/f",
            algorithms: b"sha512",
            offset: 0,
            len: 0,
            block_len: 0,
        })));
    }
    let target = open_more(&mut simulation, "/copy");
    slow.push(simulation.request(Extension::CopyData(CopyData {
        from: &reader,
        from_offset: 0,
        len: 0,
        to: &target,
        to_offset: 0,
    })));
    let stat = simulation.request(Stat { path: b"/f" });
    let read = simulation.request(Read {
        handle: &reader,
        offset: 0,
        len: 3,
    });
    simulation.hang();
    assert_eq!(simulation.take(stat), Got::Size(5000));
    assert_eq!(simulation.take(read), Got::Data(vec![7; 3]));
    assert!(slow.iter().all(|&id| !simulation.has(id)));
    assert_eq!(simulation.host.tasks(), LONG_JOBS_MAX);
    simulation.settle();
    for id in slow {
        assert!(simulation.has(id));
    }
    simulation.assert_idle();
}

/// Opens while threads hang.
fn open_more(simulation: &mut Simulation, name: &str) -> Vec<u8> {
    use ketch_protocol::OpenFlags;
    let flags = super::flags(&[OpenFlags::READ, OpenFlags::WRITE, OpenFlags::CREATE]);
    let id = simulation.request(super::open_request(name, flags));
    simulation.hang();
    match simulation.take(id) {
        Got::Handle(handle) => handle,
        other => panic!("{other:?}"),
    }
}

#[test]
fn on_a_disk_that_hangs_one_handle_does_not_hold_up_another() {
    let mut simulation = Simulation::new(Mood::Blocking, 1);
    for file in ["/slow", "/other", "/third"] {
        simulation.files.put(&path(file), vec![9; 50_000]).unwrap();
    }
    let slow = open(&mut simulation, "/slow");
    let other = open(&mut simulation, "/other");
    let third = open(&mut simulation, "/third");
    let read = |handle: &[u8], offset: u64| (handle.to_vec(), offset);
    let mut stuck = Vec::new();
    for n in 0..100 {
        let (handle, offset) = read(&slow, n);
        stuck.push(simulation.request(Read {
            handle: &handle,
            offset,
            len: 100,
        }));
        // The paths hang as well.
        stuck.push(simulation.request(Stat { path: b"/slow" }));
    }
    simulation.hang();
    for handle in [&other, &third] {
        let read = simulation.request(Read {
            handle,
            offset: 0,
            len: 3,
        });
        simulation.hang();
        simulation.host.run_last();
        simulation.hang();
        assert_eq!(simulation.take(read), Got::Data(vec![9; 3]));
        let asked = simulation.request(Fstat { handle });
        simulation.hang();
        simulation.host.run_last();
        simulation.hang();
        assert_eq!(simulation.take(asked), Got::Size(50_000));
    }
    assert!(stuck.iter().all(|&id| !simulation.has(id)));
    simulation.settle();
    for id in stuck {
        assert!(simulation.has(id));
    }
    simulation.assert_idle();
}

#[test]
fn whatever_hangs_there_are_not_more_jobs_than_the_bounds_say() {
    for mood in MOODS {
        let mut simulation = Simulation::new(mood, 3);
        let handles: Vec<_> = (0..100)
            .map(|n| open(&mut simulation, &format!("/f{n}")))
            .collect();
        let mut ids = Vec::new();
        for handle in &handles {
            ids.push(simulation.request(Fstat { handle }));
            ids.push(simulation.request(Extension::Fsync(Fsync { handle })));
            ids.push(simulation.request(Stat { path: b"/f1" }));
        }
        simulation.hang();
        assert!(
            simulation.host.tasks() <= JOBS_LIMIT + LONG_JOBS_MAX,
            "{mood:?}"
        );
        simulation.settle();
        for id in ids {
            let got = simulation.take(id);
            assert!(got == OK || got == Got::Size(0), "{got:?}");
        }
        simulation.assert_idle();
    }
}
