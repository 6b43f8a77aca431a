//! The rules one by one, and the laws that hold for any order of facts.
#![expect(clippy::disallowed_methods, reason = "an instant to count from")]

use std::collections::BTreeMap;

use ketch_client::FileType;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn facts(size: u64, mtime: u32) -> Facts {
    Facts {
        kind: FileType::Regular,
        size: Some(size),
        mtime: Some(mtime),
    }
}

fn path(text: &str) -> RemotePath {
    RemotePath::from(text)
}

fn done_file(rule: Rule) -> SettleConfig {
    SettleConfig {
        rule,
        done_file: Some(Marker::new("{name}.done").expect("a template")),
        ..SettleConfig::default()
    }
}

#[test]
fn a_file_is_ready_when_it_was_the_same_for_the_period_and_the_looks() {
    let (mut settle, start) = (Settle::new(SettleConfig::default()), Instant::now());
    let a = path("in/a");
    assert_eq!(settle.observe(start, &a, facts(1, 1)), Observed::Waiting);
    assert_eq!(settle.poll_timeout(), Some(start + PERIOD));
    assert_eq!(
        settle.observe(start + 3 * SECOND, &a, facts(1, 1)),
        Observed::Waiting
    );
    // It grows: all begins anew.
    assert_eq!(
        settle.observe(start + 4 * SECOND, &a, facts(2, 1)),
        Observed::Waiting
    );
    assert_eq!(
        settle.observe(start + 8 * SECOND, &a, facts(2, 1)),
        Observed::Waiting
    );
    assert_eq!(settle.poll_look(start + 8 * SECOND), None);
    assert_eq!(settle.poll_look(start + 9 * SECOND), Some(a.clone()));
    assert_eq!(settle.poll_look(start + 9 * SECOND), None);
    assert_eq!(
        settle.observe(start + 9 * SECOND, &a, facts(2, 1)),
        Observed::Ready
    );
    assert_eq!(settle.poll_ready(), Some((a, facts(2, 1))));
    assert_eq!(settle.poll_ready(), None);
    assert!(settle.is_empty());
    assert_eq!(settle.poll_timeout(), None);
}

#[test]
fn the_period_alone_is_not_enough_nor_are_the_looks() {
    let config = SettleConfig {
        polls: 3,
        ..SettleConfig::default()
    };
    let (mut settle, start) = (Settle::new(config), Instant::now());
    let a = path("a");
    settle.observe(start, &a, facts(1, 1));
    assert_eq!(
        settle.observe(start + 60 * SECOND, &a, facts(1, 1)),
        Observed::Waiting
    );
    // The look that is asked for next is soon, and at one moment counts once.
    assert_eq!(
        settle.observe(start + 60 * SECOND, &a, facts(1, 1)),
        Observed::Waiting
    );
    assert_eq!(
        settle.poll_timeout(),
        Some(start + 60 * SECOND + LOOK_GAP_MIN)
    );
    assert_eq!(
        settle.observe(start + 61 * SECOND, &a, facts(1, 1)),
        Observed::Ready
    );
}

#[test]
fn what_changes_before_it_is_taken_is_not_ready_any_more() {
    let (mut settle, start) = (Settle::new(SettleConfig::default()), Instant::now());
    let a = path("a");
    settle.observe(start, &a, facts(1, 1));
    assert_eq!(
        settle.observe(start + PERIOD, &a, facts(1, 1)),
        Observed::Ready
    );
    assert_eq!(
        settle.observe(start + PERIOD, &a, facts(2, 1)),
        Observed::Waiting
    );
    assert_eq!(settle.poll_ready(), None);
    settle.observe(start + 2 * PERIOD, &a, facts(2, 1));
    settle.written(start + 2 * PERIOD, &a);
    assert_eq!(settle.poll_ready(), None, "somebody writes");
    settle.vanished(&a);
    assert!(settle.is_empty() && settle.poll_timeout().is_none());
}

#[test]
fn a_closed_file_is_ready_at_the_next_look_and_an_open_one_when_it_is_stable() {
    let config = SettleConfig {
        rule: Rule::OnClose,
        ..SettleConfig::default()
    };
    let (mut settle, start) = (Settle::new(config), Instant::now());
    let (a, b) = (path("a"), path("b"));
    settle.observe(start, &a, facts(1, 1));
    settle.closed(start, &a);
    assert_eq!(
        settle.poll_ready(),
        None,
        "what was seen before it was closed is not trusted"
    );
    assert_eq!(settle.poll_look(start), Some(a.clone()));
    assert_eq!(settle.observe(start, &a, facts(5, 1)), Observed::Ready);
    assert_eq!(settle.poll_ready(), Some((a, facts(5, 1))));
    // A push may tell of a file before any listing does.
    settle.closed(start, &b);
    assert_eq!(settle.poll_look(start), Some(b.clone()));
    settle.written(start, &b);
    assert_eq!(settle.observe(start, &b, facts(1, 1)), Observed::Waiting);
    assert_eq!(
        settle.observe(start + PERIOD, &b, facts(1, 1)),
        Observed::Ready
    );
}

#[test]
fn a_done_file_releases_what_is_looked_at_after_it() {
    let (mut settle, start) = (Settle::new(done_file(Rule::Immediately)), Instant::now());
    let (a, done) = (path("in/a"), path("in/a.done"));
    assert_eq!(
        settle.observe(start, &done, facts(0, 1)),
        Observed::NoCandidate
    );
    assert!(settle.is_marker(&done) && !settle.is_marker(&a));
    assert_eq!(settle.observe(start, &a, facts(1, 1)), Observed::Waiting);
    assert_eq!(
        settle.poll_timeout(),
        None,
        "nothing but the done file is missing"
    );
    settle.seen(start, &path("in/b.done"));
    settle.seen(start, &path("a.done"));
    assert_eq!(settle.poll_look(start), None);
    settle.seen(start, &done);
    assert_eq!(settle.poll_ready(), None, "it may have grown since");
    assert_eq!(settle.poll_look(start), Some(a.clone()));
    settle.looked(start, &a, Some(facts(2, 1)));
    assert_eq!(settle.poll_ready(), Some((a.clone(), facts(2, 1))));
    assert_eq!(settle.companions(&a).collect::<Vec<_>>(), [done]);
}

#[test]
fn a_done_file_and_a_period_both_count() {
    let (mut settle, start) = (Settle::new(done_file(Rule::Stable)), Instant::now());
    let a = path("a");
    settle.observe(start, &a, facts(1, 1));
    settle.seen(start, &path("a.done"));
    assert_eq!(
        settle.observe(start + SECOND, &a, facts(1, 1)),
        Observed::Waiting
    );
    assert_eq!(
        settle.observe(start + PERIOD, &a, facts(1, 1)),
        Observed::Ready
    );
}

#[test]
fn a_trigger_file_releases_its_directory_and_none_below() {
    let config = SettleConfig {
        rule: Rule::Immediately,
        trigger_file: Some(b"GO".to_vec()),
        ..SettleConfig::default()
    };
    let (mut settle, start) = (Settle::new(config), Instant::now());
    for name in ["in/a", "in/b", "in/sub/c", "inner/d", "e"] {
        settle.observe(start, &path(name), facts(1, 1));
    }
    assert_eq!(
        settle.observe(start, &path("in/GO"), facts(0, 1)),
        Observed::NoCandidate
    );
    settle.seen(start, &path("in/GO"));
    let looks: Vec<_> = std::iter::from_fn(|| settle.poll_look(start)).collect();
    assert_eq!(looks, [path("in/a"), path("in/b")]);
    settle.seen(start, &path("GO"));
    assert_eq!(settle.poll_look(start), Some(path("e")));
}

#[test]
fn names_that_are_temporary_are_never_candidates_and_age_is_waited_for() {
    let config = SettleConfig {
        rule: Rule::Immediately,
        min_age: 60 * SECOND,
        temporary: TEMPORARY_NAMES
            .iter()
            .map(|p| Pattern::new(p).expect("a pattern"))
            .collect(),
        ..SettleConfig::default()
    };
    let (mut settle, start) = (Settle::new(config), Instant::now());
    for name in ["in/a.part", "in/a.csv.filepart", "x.tmp"] {
        assert_eq!(
            settle.observe(start, &path(name), facts(1, 1)),
            Observed::NoCandidate
        );
        assert_eq!(settle.closed(start, &path(name)), Observed::NoCandidate);
    }
    // Its own time says that it is old; that is the server's word, and counts for nothing.
    assert_eq!(
        settle.observe(start, &path("a"), facts(1, 0)),
        Observed::Waiting
    );
    assert_eq!(settle.poll_timeout(), Some(start + 60 * SECOND));
    assert_eq!(
        settle.observe(start + 60 * SECOND, &path("a"), facts(1, 0)),
        Observed::Ready
    );
}

#[test]
fn beyond_the_bound_the_oldest_stay() {
    let config = SettleConfig {
        candidates_max: 2,
        ..SettleConfig::default()
    };
    let (mut settle, start) = (Settle::new(config), Instant::now());
    for name in ["a", "b"] {
        assert_eq!(
            settle.observe(start, &path(name), facts(1, 1)),
            Observed::Waiting
        );
    }
    assert_eq!(
        settle.observe(start, &path("c"), facts(1, 1)),
        Observed::Full
    );
    assert_eq!(settle.closed(start, &path("d")), Observed::Full);
    assert_eq!(
        settle.observe(start + PERIOD, &path("a"), facts(1, 1)),
        Observed::Ready
    );
    assert!(settle.poll_ready().is_some());
    assert_eq!(
        settle.observe(start + PERIOD, &path("c"), facts(1, 1)),
        Observed::Waiting
    );
}

/// A fact of the outside.
#[derive(Clone, Debug)]
enum Fact {
    Pass(u64),
    Observe(u8, u8, u8),
    Closed(u8),
    Written(u8),
    Vanished(u8),
    Done(u8),
    Trigger,
    Look,
    Take,
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        3 => (0_u64..4000).prop_map(Fact::Pass),
        6 => (0_u8..4, 0_u8..2, 0_u8..2).prop_map(|(who, size, time)| Fact::Observe(who, size, time)),
        1 => (0_u8..4).prop_map(Fact::Closed),
        1 => (0_u8..4).prop_map(Fact::Written),
        1 => (0_u8..4).prop_map(Fact::Vanished),
        1 => (0_u8..4).prop_map(Fact::Done),
        1 => Just(Fact::Trigger),
        2 => Just(Fact::Look),
        2 => Just(Fact::Take),
    ]
}

fn config() -> impl Strategy<Value = SettleConfig> {
    let rule = prop_oneof![
        Just(Rule::Stable),
        Just(Rule::OnClose),
        Just(Rule::Immediately)
    ];
    (
        rule,
        0_u64..8,
        0_u32..4,
        0_u64..8,
        any::<bool>(),
        any::<bool>(),
        1_usize..5,
    )
        .prop_map(
            |(rule, period, polls, min_age, done, trigger, candidates_max)| SettleConfig {
                rule,
                period: Duration::from_secs(period),
                polls,
                min_age: Duration::from_secs(min_age),
                done_file: done.then(|| Marker::new("{name}.done").expect("a template")),
                trigger_file: trigger.then(|| b"GO".to_vec()),
                temporary: Vec::new(),
                candidates_max,
            },
        )
}

/// What an observer with unbounded memory knows of one path.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Looks since it is as it is.
    looks: Vec<Instant>,
    facts: Option<Facts>,
    closed: bool,
    written: Option<Instant>,
    done: bool,
    triggered: bool,
}

fn who(index: u8) -> RemotePath {
    path(&format!("in/{}", char::from(b'a' + index)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_is_ready_before_its_rules_hold_and_memory_is_bounded(
        config in config(), story in proptest::collection::vec(fact(), 0..80),
    ) {
        let mut settle = Settle::new(config.clone());
        let mut now = Instant::now();
        let mut known: BTreeMap<RemotePath, Seen> = BTreeMap::new();
        for fact in story {
            match fact {
                Fact::Pass(millis) => now += Duration::from_millis(millis),
                Fact::Observe(index, size, time) => {
                    let (path, facts) = (who(index), facts(size.into(), time.into()));
                    if settle.observe(now, &path, facts) == Observed::Full {
                        prop_assert_eq!(settle.len(), config.candidates_max);
                        continue;
                    }
                    let seen = known.entry(path).or_default();
                    if seen.facts != Some(facts) {
                        seen.looks.clear();
                    }
                    seen.facts = Some(facts);
                    if seen.looks.last() != Some(&now) {
                        seen.looks.push(now);
                    }
                }
                Fact::Closed(index) => {
                    if settle.closed(now, &who(index)) != Observed::Full {
                        known.entry(who(index)).or_default().closed = true;
                    }
                }
                Fact::Written(index) => {
                    settle.written(now, &who(index));
                    if let Some(seen) = known.get_mut(&who(index)) {
                        seen.closed = false;
                        seen.looks.clear();
                        seen.written = Some(now);
                    }
                }
                Fact::Vanished(index) => {
                    settle.vanished(&who(index));
                    known.remove(&who(index));
                }
                Fact::Done(index) => {
                    settle.seen(now, &path(&format!("{}.done", who(index).to_str().expect("text"))));
                    if let Some(seen) = known.get_mut(&who(index)) {
                        seen.done = true;
                    }
                }
                Fact::Trigger => {
                    settle.seen(now, &path("in/GO"));
                    known.values_mut().for_each(|seen| seen.triggered = true);
                }
                Fact::Look => {
                    settle.poll_look(now);
                }
                Fact::Take => {
                    while let Some((path, facts)) = settle.poll_ready() {
                        let seen = known.remove(&path).expect("a candidate");
                        prop_assert_eq!(seen.facts, Some(facts));
                        prop_assert!(config.done_file.is_none() || seen.done);
                        prop_assert!(config.trigger_file.is_none() || seen.triggered);
                        let quick = match config.rule {
                            Rule::Immediately => true,
                            Rule::OnClose => seen.closed,
                            Rule::Stable => false,
                        };
                        let first = seen.written.or_else(|| seen.looks.first().copied());
                        let span = seen.looks.last().zip(first).map(|(l, f)| l.saturating_duration_since(f));
                        prop_assert!(span >= Some(config.min_age), "{seen:?}");
                        if !quick {
                            prop_assert!(span >= Some(config.period), "{seen:?}");
                            let polls = usize::try_from(config.polls).expect("few");
                            prop_assert!(seen.looks.len() >= polls, "{seen:?}");
                        }
                    }
                }
            }
            prop_assert!(settle.len() <= config.candidates_max);
            prop_assert!(settle.due.len() + settle.ready.len() <= settle.len());
        }
    }

    #[test]
    fn what_stays_as_it_is_does_not_wait_for_ever(
        config in config(), story in proptest::collection::vec(fact(), 0..60),
    ) {
        let mut settle = Settle::new(config.clone());
        let mut now = Instant::now();
        for fact in story {
            tell(&mut settle, &mut now, &fact, u32::from);
        }
        // From here on nothing changes, and every look that is asked for is made.
        let mut waiting: Vec<_> = settle.candidates.keys().cloned().collect();
        let still = facts(7, 7);
        for path in &waiting {
            settle.observe(now, path, still);
        }
        for path in &waiting {
            for marker in settle.companions(path) {
                settle.seen(now, &marker);
            }
        }
        let end = now + config.period.max(config.min_age) + 10 * LOOK_AGAIN;
        while let Some(at) = settle.poll_timeout() {
            now = now.max(at);
            prop_assert!(now <= end, "{settle:?}");
            while let Some(path) = settle.poll_look(now) {
                settle.observe(now, &path, still);
            }
            while let Some((path, facts)) = settle.poll_ready() {
                prop_assert_eq!(facts, still);
                waiting.retain(|other| *other != path);
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?}");
    }

    #[test]
    fn the_servers_clock_changes_no_decision(
        config in config(), story in proptest::collection::vec(fact(), 0..60),
        first in any::<u32>(), apart in 1..u32::MAX,
    ) {
        let start = Instant::now();
        let told = |clock: &dyn Fn(u8) -> u32| {
            let (mut settle, mut now) = (Settle::new(config.clone()), start);
            let mut told = Vec::new();
            for fact in &story {
                let step = tell(&mut settle, &mut now, fact, clock);
                let step: Vec<_> = step.into_iter().map(|(path, facts)| (path, facts.size)).collect();
                told.push((step, settle.poll_timeout()));
            }
            told
        };
        let plain = told(&u32::from);
        // Any two different times: far apart, backwards, at the end of the range.
        let jumping = told(&|time| first.wrapping_add(apart.wrapping_mul(time.into())));
        prop_assert_eq!(plain, jumping);
    }
}

/// Tells one fact, with times as `clock` shows them; what is ready by it.
fn tell(
    settle: &mut Settle,
    now: &mut Instant,
    fact: &Fact,
    clock: impl Fn(u8) -> u32,
) -> Vec<(RemotePath, Facts)> {
    match fact {
        Fact::Pass(millis) => *now += Duration::from_millis(*millis),
        Fact::Observe(index, size, time) => {
            settle.observe(*now, &who(*index), facts((*size).into(), clock(*time)));
        }
        Fact::Closed(index) => {
            settle.closed(*now, &who(*index));
        }
        Fact::Written(index) => settle.written(*now, &who(*index)),
        Fact::Vanished(index) => settle.vanished(&who(*index)),
        Fact::Done(index) => {
            let done = [who(*index).as_bytes(), b".done"].concat();
            settle.seen(*now, &RemotePath::from(done));
        }
        Fact::Trigger => settle.seen(*now, &path("in/GO")),
        Fact::Look => {
            settle.poll_look(*now);
        }
        Fact::Take => return std::iter::from_fn(|| settle.poll_ready()).collect(),
    }
    Vec::new()
}
