//! Kills with -9, at moments spread over everything that a daemon does (row R19).

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ketch_conformance::random::Random;

use super::daemon::Daemon;
use super::scene::{SETTLE, Scene, Writing};

const LOOK: Duration = Duration::from_millis(1);
/// Longest wait for the moment to come.
const MOMENT_MAX: Duration = Duration::from_secs(4);

/// What was going on when a daemon was killed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interrupted {
    pub(crate) kills: u64,
    /// Something stood in the tree that had not arrived.
    pub(crate) with_a_backlog: u64,
    /// Something was being fetched.
    pub(crate) while_fetching: u64,
    /// The sink held a temporary file.
    pub(crate) while_delivering: u64,
    /// Something had arrived since the start.
    pub(crate) after_an_arrival: u64,
}

impl Interrupted {
    /// Looks at the remains.
    pub(crate) fn note(&mut self, scene: &mut Scene, arrived_before: usize) {
        self.kills += 1;
        self.with_a_backlog += u64::from(scene.backlog() > 0);
        self.while_fetching += u64::from(spooled(scene) > 0);
        self.while_delivering += u64::from(scene.unfinished() > 0);
        self.after_an_arrival += u64::from(scene.arrived() > arrived_before);
    }

    /// Asserts that the kills came in the middle of something.
    pub(crate) fn assert_in_the_middle(&self) {
        println!("{self:?}");
        let at_work = self.while_fetching + self.while_delivering + self.after_an_arrival;
        assert!(
            self.with_a_backlog * 3 >= self.kills && at_work > 0,
            "{self:?}"
        );
    }
}

/// Files that are being fetched, wherever the daemon keeps them.
fn spooled(scene: &Scene) -> usize {
    let spools = [scene.path("state/spool"), scene.path("sink/.ketch-spool")];
    let count = |dir| fs::read_dir(dir).map_or(0, |entries| entries.flatten().count());
    spools.iter().map(count).sum()
}

/// Waits for a moment in the life of a daemon: right after its start, when it fetches, when something
/// has just arrived, or any.
pub(crate) fn moment(random: &mut Random, scene: &mut Scene, daemon: &Daemon) {
    let before = scene.arrived();
    let until = |mut come: Box<dyn FnMut() -> bool + '_>| {
        while !come() && daemon.began.elapsed() < MOMENT_MAX {
            sleep(LOOK);
        }
    };
    match random.below(10) {
        0..=2 => {}
        3..=4 => until(Box::new(|| spooled(scene) > 0)),
        5..=6 => until(Box::new(|| scene.arrived() > before)),
        _ => {
            let longest = SETTLE.as_millis() + 1500;
            let pause = random.below(u64::try_from(longest).unwrap());
            sleep(Duration::from_millis(pause));
        }
    }
    let more = match random.chance(50) {
        true => random.below(300_000),
        false => random.below(20_000),
    };
    sleep(Duration::from_micros(more));
}

/// Starts and kills `kills` times, and at least until all is written.
pub(crate) fn kill_again_and_again(scene: &mut Scene, seed: u64, kills: u64, writing: &Writing) {
    let mut random = Random::new(seed);
    let mut interrupted = Interrupted::default();
    let began = Instant::now();
    while interrupted.kills < kills {
        let arrived = scene.arrived();
        let daemon = scene.daemon();
        moment(&mut random, scene, &daemon);
        daemon.kill();
        interrupted.note(scene, arrived);
    }
    println!(
        "{kills} kills in {:?}; all was written: {}",
        began.elapsed(),
        writing.is_done()
    );
    interrupted.assert_in_the_middle();
}
