//! Channels that are held while it is tried out whether they pay, and losses meanwhile: whoever is
//! left works, and every transfer ends.

use super::*;

/// What happens to those who work.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The first who is there is lost.
    LoseFirst,
    /// Anybody is lost.
    Lose(usize),
    /// Another one comes.
    Grow,
    /// All but the first are held for so many turns; then they go on, or leave.
    Try { turns: usize, pays: bool },
}

fn arb_events() -> impl Strategy<Value = Vec<(usize, Event)>> {
    let event = prop_oneof![
        Just(Event::LoseFirst),
        (0..4_usize).prop_map(Event::Lose),
        Just(Event::Grow),
        (1..15_usize, any::<bool>()).prop_map(|(turns, pays)| Event::Try { turns, pays }),
    ];
    proptest::collection::vec((0..60_usize, event), 0..8)
}

/// Has events happen in their turns. As with a real crew, nobody is held for ever, nobody comes when
/// it is known not to pay, and somebody comes when nobody is left.
fn happen<W: Work>(events: Vec<(usize, Event)>) -> impl FnMut(&mut Team, &Outcome<W>, usize) {
    let (mut held, mut is_known) = (None, false);
    move |team, outcome, turn| {
        for &(_, event) in events.iter().filter(|(when, _)| *when == turn) {
            match event {
                Event::LoseFirst => team.lose(0),
                Event::Lose(which) => team.lose(which),
                Event::Grow if is_known || team.sims.len() > 4 => {}
                Event::Grow => team.grow(outcome),
                Event::Try { turns, pays } if held.is_none() && !is_known => {
                    held = Some((turn + turns, pays));
                    outcome.plan().order_further(Order::Hold);
                }
                Event::Try { .. } => {}
            }
            if team.sims.is_empty() {
                team.grow(outcome);
            }
        }
        if outcome.plan().facts().workers == 0 && !outcome.plan().is_over() {
            team.grow(outcome);
        }
        let is_alone = outcome.plan().facts().workers < 2;
        if let Some((until, pays)) = held
            && (is_alone || turn >= until)
        {
            held = None;
            is_known = !is_alone;
            let order = if pays || is_alone {
                Order::Work
            } else {
                Order::Leave
            };
            outcome.plan().order_further(order);
        }
    }
}

/// A server that takes little at a time, so that a transfer has many turns.
fn slow(shuffle: bool) -> Habits {
    let mut habits = Habits {
        shuffle,
        ..Habits::default()
    };
    habits.limits.read_len = 32 * 1024;
    habits.limits.write_len = 32 * 1024;
    habits
}

const SMALL: usize = 20;

fn small(n: usize) -> Vec<u8> {
    content(n * 900, n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_download_ends_whoever_is_lost_while_others_are_held(
        channels in 1..4_usize, shuffle in any::<bool>(), seed in any::<u64>(),
        large in 500_000..4_000_000_usize, events in arb_events(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut team = Team::new(slow(shuffle), seed);
        let server = &mut team.sims[0].server;
        server.dir("/t");
        server.file("/t/large", content(large, 1));
        for n in 0..SMALL {
            server.file(&format!("/t/{n}"), small(n));
        }
        team.nodes = server.nodes.clone();
        let shared = team.sims[0].sftp.shared().clone();
        let local = dir.path().join("t");
        let options = GetOptions::new().recursive(true);
        let mut outcome = get::start_to_path(&shared, "/t".into(), local.clone(), options);
        for _ in 1..channels {
            team.grow(&outcome);
        }
        let report = team.run(&mut outcome, happen(events)).unwrap();
        prop_assert_eq!(report.files, 1 + SMALL as u64);
        prop_assert!(fs::read(local.join("large")).unwrap() == content(large, 1));
        for n in 0..SMALL {
            prop_assert!(fs::read(local.join(n.to_string())).unwrap() == small(n));
        }
        prop_assert_eq!(fs::read_dir(&local).unwrap().count(), 1 + SMALL);
        team.settle();
        prop_assert_eq!(team.handles(), 0);
    }

    #[test]
    fn an_upload_ends_whoever_is_lost_while_others_are_held(
        channels in 1..4_usize, shuffle in any::<bool>(), seed in any::<u64>(), posix in any::<bool>(),
        large in 500_000..4_000_000_usize, events in arb_events(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("large"), content(large, 1)).unwrap();
        for n in 0..SMALL {
            fs::write(dir.path().join(n.to_string()), small(n)).unwrap();
        }
        let mut habits = slow(shuffle);
        habits.extensions.retain(|&name| posix || name != ExtensionName::PosixRename);
        let mut team = Team::new(habits, seed);
        let shared = team.sims[0].sftp.shared().clone();
        let options = PutOptions::new().recursive(true);
        let from = dir.path().to_owned();
        let mut outcome = put::start_from_path(&shared, from, "/t".into(), options);
        for _ in 1..channels {
            team.grow(&outcome);
        }
        let report = team.run(&mut outcome, happen(events)).unwrap();
        prop_assert_eq!(report.files, 1 + SMALL as u64);
        team.settle();
        let data = |path: &str| match team.nodes.get(path.as_bytes()) {
            Some(Node::File { data, .. }) => Some(data.clone()),
            _ => None,
        };
        prop_assert!(data("/t/large") == Some(content(large, 1)));
        for n in 0..SMALL {
            let found = data(&format!("/t/{n}"));
            prop_assert!(found == Some(small(n)));
        }
        // The root, the directory, the files: nothing else.
        prop_assert_eq!(team.nodes.len(), 3 + SMALL);
        prop_assert_eq!(team.handles(), 0);
    }
}

#[test]
fn who_is_left_by_the_first_goes_on_though_it_was_told_to_hold() {
    for channels in 2..4 {
        for is_upload in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let whole = content(6_000_000, 3);
            let from = dir.path().join("from");
            fs::write(&from, &whole).unwrap();
            let mut team = Team::new(slow(false), 1);
            team.sims[0].server.file("/a", whole.clone());
            team.nodes = team.sims[0].server.nodes.clone();
            let shared = team.sims[0].sftp.shared().clone();
            let local = dir.path().join("to");
            if is_upload {
                let up = put::start_from_path(&shared, from, "/b".into(), PutOptions::new());
                lose_the_first(team, up, channels, |team| {
                    let there = team.nodes.get(&b"/b"[..]);
                    assert!(matches!(there, Some(Node::File { data, .. }) if *data == whole));
                });
            } else {
                let options = GetOptions::new();
                let down = get::start_to_path(&shared, "/a".into(), local.clone(), options);
                lose_the_first(team, down, channels, |_| {
                    assert!(fs::read(&local).unwrap() == whole);
                });
            }
        }
    }
}

fn lose_the_first<W: Work>(
    mut team: Team,
    mut outcome: Outcome<W>,
    channels: usize,
    check: impl Fn(&Team),
) {
    outcome.plan().set_second_chance(true);
    for _ in 1..channels {
        team.grow(&outcome);
    }
    for _ in 0..16 {
        assert!(poll(Pin::new(&mut outcome)).is_none(), "it is over");
        team.turn();
    }
    outcome.plan().order_further(Order::Hold);
    // What was under way for those who are held comes in; then the first is lost.
    for _ in 0..3 {
        team.turn();
    }
    assert!(poll(Pin::new(&mut outcome)).is_none(), "it is over");
    team.lose(0);
    let report = team.run(&mut outcome, |_, outcome, turn| {
        if turn == 12 {
            outcome.plan().order_further(Order::Work);
        }
    });
    assert_eq!(report.unwrap().files, 1);
    check(&team);
    team.settle();
    assert_eq!(team.handles(), 0);
}
