//! Transfers that are paused, resumed, cancelled, ranked and limited while they run.

use std::{
    fs,
    future::Future,
    path::Path,
    pin::{Pin, pin},
    time::{Duration, Instant},
};

use ketch_protocol::PacketType;

use super::{
    server::Habits,
    sim::{Sim, poll},
};
use crate::{
    Control, Failure, GetOptions, Kind, Priority, Progress, PutOptions, RateLimit, Report, Resume,
    SyncError, SyncOptions, TransferError,
};

const KIB: usize = 1024;

type Running<'a> = Pin<Box<dyn Future<Output = Result<Report, TransferError>> + 'a>>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Down,
    Up,
}

fn content(len: usize, salt: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i / 1000 + i + salt) % 251).unwrap();
    (0..len).map(byte).collect()
}

/// A tree of one large file and some small ones, on the side that it comes from.
fn plant(sim: &mut Sim, way: Way, dir: &Path) {
    match way {
        Way::Down => {
            sim.server.dir("/t");
            sim.server.file("/t/large", content(3_000_000, 7));
            for n in 0..40 {
                sim.server.file(&format!("/t/{n}"), content(n * 500, n));
            }
        }
        Way::Up => {
            fs::create_dir(dir.join("t")).unwrap();
            fs::write(dir.join("t/large"), content(3_000_000, 7)).unwrap();
            for n in 0..40 {
                fs::write(dir.join(format!("t/{n}")), content(n * 500, n)).unwrap();
            }
        }
    }
}

fn begin<'a>(sim: &Sim, way: Way, dir: &Path, control: &Control, resume: Resume) -> Running<'a> {
    let (sftp, local) = (sim.sftp.clone(), dir.to_owned());
    let control = control.clone();
    Box::pin(async move {
        match way {
            Way::Down => {
                let options = GetOptions::new().recursive(true).control(control);
                sftp.get("/t", local.join("copy"), options.resume(resume))
                    .await
            }
            Way::Up => {
                let options = PutOptions::new().recursive(true).control(control);
                sftp.put(local.join("t"), "/copy", options.resume(resume))
                    .await
            }
        }
    })
}

fn check_copy(sim: &Sim, way: Way, dir: &Path) {
    let read = |name: &str| match way {
        Way::Down => fs::read(dir.join("copy").join(name)).unwrap(),
        Way::Up => sim.server.data(&format!("/copy/{name}")).unwrap().to_vec(),
    };
    assert!(read("large") == content(3_000_000, 7));
    for n in 0..40 {
        assert!(read(&n.to_string()) == content(n * 500, n), "{n}");
    }
}

/// Names of temporary files, on both sides.
fn temporaries(sim: &Sim, dir: &Path) -> Vec<String> {
    let here = fs::read_dir(dir.join("copy")).into_iter().flatten();
    let here = here.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let all = here.chain(sim.server.paths());
    all.filter(|name| name.contains(".ketch")).collect()
}

fn bytes_moved(sim: &Sim) -> usize {
    sim.server.bytes_read + sim.server.bytes_written
}

/// Turns until about so many bytes have moved.
fn turn_until(sim: &mut Sim, running: &mut Running<'_>, bytes: usize) {
    while bytes_moved(sim) < bytes {
        assert!(poll(running.as_mut()).is_none(), "it ended too early");
        sim.turn();
    }
}

#[test]
fn a_paused_transfer_asks_for_nothing_and_goes_on_where_it_stood() {
    for (way, seed) in [(Way::Down, 1), (Way::Up, 2), (Way::Down, 3), (Way::Up, 4)] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), seed);
        sim.packets_max = 3;
        sim.slow_threads = false;
        plant(&mut sim, way, dir.path());
        let control = Control::new();
        let mut running = begin(&sim, way, dir.path(), &control, Resume::No);
        for bytes in [1, 400_000, 1_500_000] {
            turn_until(&mut sim, &mut running, bytes);
            control.pause();
            assert!(poll(running.as_mut()).is_none());
            let asked = sim.server.log.len();
            // What is on its way arrives at the server in this turn.
            sim.turn();
            let on_the_way = sim.server.log.len() - asked;
            sim.settle();
            assert!(poll(running.as_mut()).is_none());
            assert_eq!(sim.server.log.len(), asked + on_the_way, "{way:?}");
            // Silence is what was asked for: it is no stall.
            assert_eq!(sim.requests.deadline(), None, "{way:?}");
            sim.pass_time(Duration::from_secs(1000));
            sim.settle();
            // The channel is there for others.
            let sftp = sim.sftp.clone();
            assert!(sim.run(sftp.stat("/")).is_ok());
            control.resume();
        }
        let report = sim.run(running).unwrap();
        assert_eq!((report.files, report.directories), (41, 1), "{way:?}");
        check_copy(&sim, way, dir.path());
        // Nothing was moved twice: a byte behind each file shows that it ends there.
        let total = 3_000_000 + (0..40).map(|n| n * 500).sum::<usize>();
        assert_eq!(bytes_moved(&sim), total, "{way:?}");
        assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn a_transfer_may_begin_paused_and_progress_tells() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.file("/a", content(5000, 1));
    sim.settle();
    let (control, progress) = (Control::new(), std::sync::Arc::new(Progress::new()));
    control.pause();
    let options = GetOptions::new()
        .control(control.clone())
        .progress(std::sync::Arc::clone(&progress));
    let sftp = sim.sftp.clone();
    let mut get = pin!(sftp.get("/a", dir.path().join("a"), options.clone()));
    let asked = sim.server.log.len();
    assert!(poll(get.as_mut()).is_none());
    sim.settle();
    assert!(progress.is_paused());
    assert_eq!(sim.server.log.len(), asked);
    control.resume();
    assert!(!progress.is_paused());
    sim.run(get).unwrap();
    // A paused transfer that is given up is none.
    control.pause();
    let mut get = Box::pin(sftp.get("/a", dir.path().join("b"), options));
    assert!(poll(get.as_mut()).is_none());
    sim.settle();
    assert!(progress.is_paused());
    drop(get);
    sim.settle();
    assert!(!progress.is_paused());
}

#[test]
fn a_cancelled_transfer_leaves_nothing_and_the_session_is_used_on() {
    for (way, shuffle, seed) in [(Way::Down, false, 1), (Way::Up, true, 2)] {
        for bytes in [0, 1, 300_000, 2_000_000] {
            for pauses in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let habits = Habits {
                    shuffle,
                    ..Habits::default()
                };
                let mut sim = Sim::new(habits, seed);
                sim.packets_max = 3;
                plant(&mut sim, way, dir.path());
                let control = Control::new();
                let mut running = begin(&sim, way, dir.path(), &control, Resume::No);
                turn_until(&mut sim, &mut running, bytes);
                if pauses {
                    control.pause();
                    sim.turn();
                }
                control.cancel();
                let error = sim.run(running).unwrap_err();
                assert_eq!(error.kind(), Kind::Cancelled, "{error}");
                assert!(!error.is_transient());
                sim.settle();
                assert_eq!(temporaries(&sim, dir.path()), [""; 0], "{way:?} {bytes}");
                assert_eq!(sim.server.handles(), 0, "{way:?} {bytes}");
                // What is begun with the handle ends at once, without a word to the server.
                let asked = sim.server.log.len();
                let again = begin(&sim, way, dir.path(), &control, Resume::No);
                assert_eq!(sim.run(again).unwrap_err().kind(), Kind::Cancelled);
                assert_eq!(sim.server.log.len(), asked);
                // And what is begun with another goes its way.
                let anew = begin(&sim, way, dir.path(), &Control::new(), Resume::No);
                assert_eq!(sim.run(anew).unwrap().files, 41);
                check_copy(&sim, way, dir.path());
            }
        }
    }
}

#[test]
fn what_can_be_continued_is_left_by_a_cancelled_transfer() {
    for way in [Way::Down, Way::Up] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), 1);
        sim.packets_max = 3;
        // Of a part the last 8 MiB are not believed.
        let whole = content(24_000_000, 7);
        match way {
            Way::Down => {
                sim.server.dir("/t");
                sim.server.file("/t/large", whole.clone());
            }
            Way::Up => {
                fs::create_dir(dir.path().join("t")).unwrap();
                fs::write(dir.path().join("t/large"), &whole).unwrap();
            }
        }
        let control = Control::new();
        let mut running = begin(&sim, way, dir.path(), &control, Resume::Verified);
        turn_until(&mut sim, &mut running, 20_000_000);
        control.cancel();
        assert_eq!(sim.run(running).unwrap_err().kind(), Kind::Cancelled);
        sim.settle();
        assert!(!temporaries(&sim, dir.path()).is_empty(), "{way:?}");
        assert_eq!(sim.server.handles(), 0);
        let anew = begin(&sim, way, dir.path(), &Control::new(), Resume::Verified);
        sim.run(anew).unwrap();
        let copy = match way {
            Way::Down => fs::read(dir.path().join("copy/large")).unwrap(),
            Way::Up => sim.server.data("/copy/large").unwrap().to_vec(),
        };
        assert!(copy == whole);
        assert_eq!(temporaries(&sim, dir.path()), [""; 0], "{way:?}");
    }
}

/// Turns until one is done, and says which.
fn first_done(sim: &mut Sim, running: &mut [Running<'_>]) -> usize {
    loop {
        for (which, one) in running.iter_mut().enumerate() {
            if let Some(result) = poll(one.as_mut()) {
                result.unwrap();
                return which;
            }
        }
        sim.turn();
    }
}

#[test]
fn the_higher_transfer_is_done_first_and_the_lower_goes_on_meanwhile() {
    const LEN: usize = 16_000_000;
    for way in [Way::Down, Way::Up] {
        for (first, second) in [
            (Priority::Low, Priority::High),
            (Priority::Normal, Priority::High),
            (Priority::Normal, Priority::Normal),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut sim = Sim::new(Habits::default(), 1);
            sim.packets_max = 4;
            sim.settle();
            for name in ["/a", "/b"] {
                match way {
                    Way::Down => sim.server.file(name, vec![7; LEN]),
                    Way::Up => fs::write(dir.path().join(&name[1..]), vec![7; LEN]).unwrap(),
                }
            }
            let progress = [(); 2].map(|()| std::sync::Arc::new(Progress::new()));
            let mut running: Vec<Running<'_>> = Vec::new();
            for (nth, priority) in [first, second].into_iter().enumerate() {
                let name = ["a", "b"][nth];
                let control = Control::new();
                control.set_priority(priority);
                let (sftp, local) = (sim.sftp.clone(), dir.path().to_owned());
                let progress = std::sync::Arc::clone(&progress[nth]);
                running.push(Box::pin(async move {
                    match way {
                        Way::Down => {
                            let options = GetOptions::new().control(control).progress(progress);
                            sftp.get(
                                format!("/{name}"),
                                local.join(format!("copy-{name}")),
                                options,
                            )
                            .await
                        }
                        Way::Up => {
                            let options = PutOptions::new().control(control).progress(progress);
                            sftp.put(local.join(name), format!("/copy-{name}"), options)
                                .await
                        }
                    }
                }));
            }
            let done = first_done(&mut sim, &mut running);
            let other = progress[1 - done].bytes_done();
            let share = other * 100 / LEN as u64;
            // In hundredths of the file; what is in flight or dealt is beyond the shares.
            let (least, most) = match (first, second) {
                (Priority::Low, _) => (1, 20),
                (Priority::Normal, Priority::High) => (12, 45),
                _ => (70, 100),
            };
            if first != second {
                assert_eq!(done, 1, "{way:?}: the higher one");
            }
            assert!(
                (least..=most).contains(&share),
                "{way:?}, {first:?} beside {second:?}: {share} %"
            );
            drop(running.swap_remove(done));
            for one in running {
                sim.run(one).unwrap();
            }
        }
    }
}

/// Runs on to the end, time passing as it is waited for, and checks the rate at every step. Says
/// how long it took.
fn run_limited(
    sim: &mut Sim,
    mut running: Vec<Running<'_>>,
    mut allowed: impl FnMut(Duration) -> usize,
) -> Duration {
    let began = sim.now();
    let passed = |sim: &Sim, began: Instant| sim.now() - began;
    let mut idle = 0;
    while !running.is_empty() {
        running.retain_mut(|one| match poll(one.as_mut()) {
            Some(result) => {
                result.unwrap();
                false
            }
            None => true,
        });
        idle = if sim.turn() { 0 } else { idle + 1 };
        let most = allowed(passed(sim, began));
        assert!(bytes_moved(sim) <= most, "{} > {most}", bytes_moved(sim));
        if idle > 2
            && let Some(deadline) = sim.requests.deadline()
        {
            let now = sim.now();
            sim.pass_time(deadline.saturating_duration_since(now));
        }
        assert!(idle < 20, "nothing happens any more");
    }
    passed(sim, began)
}

#[test]
fn a_limit_is_kept_in_both_directions_and_by_several_together() {
    const RATE: usize = 1000 * KIB;
    for (ways, seed) in [
        (vec![Way::Down], 1),
        (vec![Way::Up], 2),
        (vec![Way::Down, Way::Up], 3),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut sim = Sim::new(Habits::default(), seed);
        sim.settle();
        let limit = RateLimit::new(RATE as u64);
        let mut running: Vec<Running<'_>> = Vec::new();
        for &way in &ways {
            plant(&mut sim, way, dir.path());
            let (sftp, local, limit) = (sim.sftp.clone(), dir.path().to_owned(), limit.clone());
            running.push(Box::pin(async move {
                match way {
                    Way::Down => {
                        let options = GetOptions::new().recursive(true).limit(limit);
                        sftp.get("/t", local.join("copy"), options).await
                    }
                    Way::Up => {
                        let options = PutOptions::new().recursive(true).limit(limit);
                        sftp.put(local.join("t"), "/copy", options).await
                    }
                }
            }));
        }
        let burst = 2 * 64 * KIB;
        let took = run_limited(&mut sim, running, |passed| {
            let millis = usize::try_from(passed.as_millis()).unwrap() + 20;
            RATE * millis / 1000 + burst
        });
        for &way in &ways {
            check_copy(&sim, way, dir.path());
        }
        // And it is used: no long pauses between.
        let total = 3_390_000 * ways.len();
        let wanted = Duration::from_secs_f64(f64::from(u32::try_from(total).unwrap()) / 1_024_000.);
        assert!(took < wanted * 5 / 4, "{took:?} for {wanted:?}");
    }
}

#[test]
fn a_limit_that_is_lifted_or_raised_holds_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    plant(&mut sim, Way::Down, dir.path());
    let limit = RateLimit::new(1);
    let options = GetOptions::new().recursive(true).limit(limit.clone());
    let sftp = sim.sftp.clone();
    let mut get: Running<'_> =
        Box::pin(async { sftp.get("/t", dir.path().join("copy"), options).await });
    assert!(poll(get.as_mut()).is_none());
    sim.settle();
    assert!(bytes_moved(&sim) < 200_000, "{}", bytes_moved(&sim));
    // A minute without a byte is no stall if nothing was asked for.
    sim.pass_time(Duration::from_secs(100));
    sim.settle();
    limit.set(1 << 40);
    turn_until(&mut sim, &mut get, 300_000);
    limit.set(1);
    sim.settle();
    limit.lift();
    assert_eq!(sim.run(get).unwrap().files, 41);
    check_copy(&sim, Way::Down, dir.path());
}

#[test]
fn a_sync_is_paused_and_cancelled_as_its_transfers_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.packets_max = 3;
    plant(&mut sim, Way::Down, dir.path());
    fs::create_dir(dir.path().join("copy")).unwrap();
    fs::write(dir.path().join("copy/extra"), "stays").unwrap();
    for bytes in [0, 500_000] {
        let control = Control::new();
        let (sftp, before) = (sim.sftp.clone(), bytes_moved(&sim));
        let options = SyncOptions::new().control(control.clone()).delete(true);
        let mut sync = Box::pin(sftp.sync_down("/t", dir.path().join("copy"), options));
        while bytes_moved(&sim) <= before + bytes {
            assert!(poll(sync.as_mut()).is_none(), "it ended too early");
            sim.turn();
        }
        control.pause();
        for _ in 0..50 {
            assert!(poll(sync.as_mut()).is_none());
            sim.settle();
        }
        let asked = sim.server.log.len();
        sim.settle();
        assert!(poll(sync.as_mut()).is_none());
        assert_eq!(sim.server.log.len(), asked);
        control.cancel();
        let error = sim.run(sync).unwrap_err();
        assert!(matches!(error, SyncError::Ended { .. }), "{error:?}");
        assert_eq!(error.kind(), Kind::Cancelled);
        sim.settle();
        assert_eq!(temporaries(&sim, dir.path()), [""; 0]);
        assert_eq!(sim.server.handles(), 0);
        assert!(dir.path().join("copy/extra").exists());
    }
    let listed = sim.server.asked(PacketType::READDIR);
    let (control, sftp) = (Control::new(), sim.sftp.clone());
    control.pause();
    let options = SyncOptions::new().control(control.clone()).delete(true);
    let mut sync = Box::pin(sftp.sync_down("/t", dir.path().join("copy"), options));
    for _ in 0..50 {
        assert!(poll(sync.as_mut()).is_none());
        sim.settle();
    }
    assert_eq!(sim.server.asked(PacketType::READDIR), listed);
    control.resume();
    let report = sim.run(sync).unwrap();
    assert_eq!((report.failed_count, report.removed), (0, 1));
    check_copy(&sim, Way::Down, dir.path());
}
