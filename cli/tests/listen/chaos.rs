//! Kills with -9, at moments spread over everything that a daemon does (row R19).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ketch_conformance::random::Random;

use super::daemon::Daemon;
use super::scene::{Load, SETTLE, Scene, Writing};

const LOOK: Duration = Duration::from_millis(2);
/// So many kills meet something, wherever they fall.
const MANY: u64 = 5;
/// Longest wait for the moment to come, with few files.
const MOMENT_MAX: Duration = Duration::from_secs(4);
/// How long a life takes on average, with few files.
pub(crate) const LIFE: Duration = Duration::from_millis(600);

/// What was going on when a daemon was killed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interrupted {
    pub(crate) kills: u64,
    /// The writer had not written all.
    pub(crate) while_writing: u64,
    /// Something stood in the tree that had not arrived.
    pub(crate) with_a_backlog: u64,
    /// Something was being fetched.
    pub(crate) while_fetching: u64,
    /// The sink held a temporary file.
    pub(crate) while_delivering: u64,
    /// Something had arrived since the start.
    pub(crate) after_an_arrival: u64,
}

/// What there was when a daemon started.
#[derive(Debug)]
struct Before {
    arrived: usize,
    spooled: BTreeSet<PathBuf>,
}

impl Before {
    /// What is fetched now, and was not then.
    fn fetching(&self, scene: &Scene) -> bool {
        scene.spooled().difference(&self.spooled).next().is_some()
    }
}

impl Interrupted {
    /// Looks at the remains; answers how much had arrived.
    fn note(&mut self, scene: &mut Scene, before: &Before, writing: &Writing) -> usize {
        let remains = scene.look();
        self.kills += 1;
        self.while_writing += u64::from(!writing.is_done());
        self.with_a_backlog += u64::from(remains.backlog > 0);
        self.while_fetching += u64::from(before.fetching(scene));
        self.while_delivering += u64::from(remains.unfinished > 0);
        self.after_an_arrival += u64::from(remains.arrived > before.arrived);
        remains.arrived
    }

    /// Asserts that the kills came in the middle of something. Of a few of them that cannot be asked.
    pub(crate) fn assert_in_the_middle(&self) {
        println!("{self:?}");
        if self.kills < MANY {
            return;
        }
        let at_work = self.while_fetching + self.while_delivering + self.after_an_arrival;
        assert!(
            self.with_a_backlog * 3 >= self.kills && at_work > 0,
            "{self:?}"
        );
    }
}

/// Waits for a moment in the life of a daemon: right after its start, when it fetches, when something
/// has just arrived, or any.
fn moment(random: &mut Random, scene: &Scene, daemon: &Daemon, before: &Before, load: Load) {
    let until = |come: &dyn Fn() -> bool| {
        while !come() && daemon.began.elapsed() < load.stretched(MOMENT_MAX) {
            sleep(LOOK);
        }
    };
    match random.below(10) {
        0..=2 => {}
        3..=4 => until(&|| before.fetching(scene)),
        5..=6 => until(&|| scene.is_touched()),
        _ => {
            let longest = load.stretched(SETTLE + Duration::from_millis(1500));
            let pause = random.below(u64::try_from(longest.as_millis()).unwrap());
            sleep(Duration::from_millis(pause));
        }
    }
    let more = match random.chance(50) {
        true => random.below(300_000),
        false => random.below(20_000),
    };
    sleep(Duration::from_micros(more));
}

/// Starts and kills, while the writer writes one part after the other.
pub(crate) fn kill_again_and_again(scene: &mut Scene, seed: u64, load: Load, writing: &Writing) {
    let mut random = Random::new(seed);
    let mut interrupted = Interrupted::default();
    let began = Instant::now();
    let mut arrived = scene.look().arrived;
    for n in 0..load.kills {
        writing.allow(load.share(n));
        let before = Before {
            arrived,
            spooled: scene.spooled(),
        };
        let daemon = scene.daemon();
        moment(&mut random, scene, &daemon, &before, load);
        daemon.kill();
        arrived = interrupted.note(scene, &before, writing);
    }
    println!(
        "{} kills in {:?}; {arrived} had arrived",
        load.kills,
        began.elapsed(),
    );
    interrupted.assert_in_the_middle();
}
