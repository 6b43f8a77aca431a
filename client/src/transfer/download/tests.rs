//! A download against a simulated server: short answers, any order, growth, cuts.

use super::*;
use crate::transfer::ranges::Ranges;
use proptest::prelude::*;

/// A small generator of our own, so that a seed replays a run exactly.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// How the simulated server answers.
#[derive(Clone, Copy, Debug)]
struct Habits {
    /// Longest answer it gives.
    read_max: u32,
    /// One answer in so many is cut at random.
    short_one_in: u64,
    /// Whether it says the end with an empty DATA.
    empty_is_eof: bool,
    window: usize,
}

/// Reads a file of `content` bytes, of which the listing said `expected`, to its end.
fn run(
    content: &[u8],
    expected: Option<u64>,
    habits: Habits,
    seed: u64,
) -> Result<Vec<u8>, ReadFault> {
    let mut rng = Rng(seed | 1);
    let mut ranges = Ranges::new(expected);
    let mut download = Download::new(expected, Chunk::new(4096));
    let mut local = vec![0xee; content.len()];
    let mut seen = vec![0_u8; content.len()];
    let mut open: Vec<Ask> = Vec::new();
    for _ in 0..1_000_000 {
        while open.len() < habits.window {
            match download.poll()? {
                Step::Request(ask) => open.push(ask),
                Step::Starved => match ranges.deal() {
                    Some(range) => download.deal(range),
                    None => break,
                },
                Step::Wait => break,
                Step::Done { size } => {
                    assert_eq!(size, content.len() as u64, "seed {seed}");
                    assert!(
                        seen.iter().all(|&times| times == 1),
                        "every byte once, seed {seed}"
                    );
                    return Ok(local);
                }
            }
        }
        assert!(
            !open.is_empty(),
            "asleep with nothing in flight, seed {seed}"
        );
        let ask = open.swap_remove(usize::try_from(rng.below(open.len() as u64)).unwrap());
        let at = usize::try_from(ask.span.offset).unwrap().min(content.len());
        let mut len = (content.len() - at).min(ask.span.len.min(habits.read_max) as usize);
        if len > 1 && rng.below(habits.short_one_in) == 0 {
            len = 1 + usize::try_from(rng.below(len as u64 - 1)).unwrap();
        }
        if len == 0 && !habits.empty_is_eof {
            download.on_eof(ask)?;
        } else {
            local[at..at + len].copy_from_slice(&content[at..at + len]);
            seen[at..at + len].iter_mut().for_each(|times| *times += 1);
            download.on_data(ask, u32::try_from(len).unwrap())?;
        }
        if expected.is_some_and(|size| download.has_outgrown(size)) {
            ranges.outgrown();
        }
        if let Some(end) = download.end() {
            ranges.end_met(end);
        }
    }
    panic!("no end in sight, seed {seed}");
}

fn habits() -> impl Strategy<Value = Habits> {
    (200..6000_u32, 1..20_u64, any::<bool>(), 1..40_usize).prop_map(
        |(read_max, short_one_in, empty_is_eof, window)| Habits {
            read_max,
            short_one_in,
            empty_is_eof,
            window,
        },
    )
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_comes_once_whatever_the_order_and_length_of_the_answers(
        len in 0..60_000_usize, known in any::<bool>(), habits in habits(), seed in any::<u64>(),
    ) {
        let content = content(len);
        let expected = known.then_some(len as u64);
        prop_assert_eq!(run(&content, expected, habits, seed), Ok(content));
    }

    #[test]
    fn a_file_that_grew_is_read_to_its_end(
        len in 1..60_000_usize, said in 0..60_000_u64, habits in habits(), seed in any::<u64>(),
    ) {
        prop_assume!(said < len as u64);
        // Only where the byte behind the expected end is seen can growth be noticed.
        let habits = Habits { read_max: u32::MAX, short_one_in: u64::MAX, ..habits };
        let content = content(len);
        prop_assert_eq!(run(&content, Some(said), habits, seed), Ok(content));
    }

    #[test]
    fn a_file_shorter_than_announced_is_an_error(
        len in 0..20_000_usize, more in 1..20_000_u64, habits in habits(), seed in any::<u64>(),
    ) {
        let said = len as u64 + more;
        let result = run(&content(len), Some(said), habits, seed);
        let truncated = matches!(result, Err(ReadFault::Truncated { expected, .. }) if expected == said);
        prop_assert!(truncated, "{result:?}");
    }
}

fn first(download: &mut Download) -> Ask {
    match download.poll() {
        Ok(Step::Request(ask)) => ask,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_exact_file_takes_one_request_and_no_probe() {
    let mut download = Download::new(Some(4096), Chunk::new(4096));
    download.deal(Ranges::new(Some(4096)).deal().unwrap());
    let ask = first(&mut download);
    assert_eq!(
        ask.span,
        Span {
            offset: 0,
            len: 4097
        }
    );
    assert_eq!(download.on_data(ask, 4096), Ok(()));
    assert_eq!(download.poll(), Ok(Step::Done { size: 4096 }));
}

#[test]
fn an_overlong_answer_is_refused() {
    let mut download = Download::new(Some(10), Chunk::new(4096));
    download.deal(Span { offset: 0, len: 11 });
    let ask = first(&mut download);
    assert_eq!(
        download.on_data(ask, 12),
        Err(ReadFault::Overlong { asked: 11, got: 12 })
    );
}

#[test]
fn a_server_that_gives_crumbs_is_given_up() {
    let mut download = Download::new(Some(1 << 20), Chunk::new(32_768));
    download.deal(Span {
        offset: 0,
        len: 1 << 20,
    });
    let fault = (0..100_000).find_map(|_| {
        let ask = first(&mut download);
        download.on_data(ask, 1).err()
    });
    assert!(matches!(fault, Some(ReadFault::Crumbs { .. })));
}

#[test]
fn bytes_behind_a_later_end_mean_that_the_file_was_cut() {
    let mut download = Download::new(None, Chunk::new(1024));
    download.deal(Span {
        offset: 0,
        len: 8192,
    });
    let a = first(&mut download);
    download.on_data(a, 1024).unwrap();
    let b = first(&mut download);
    let c = first(&mut download);
    download.on_data(c, 1024).unwrap();
    download.on_eof(b).unwrap();
    while let Ok(Step::Request(ask)) = download.poll() {
        download.on_eof(ask).unwrap();
    }
    assert_eq!(download.poll(), Err(ReadFault::Shrank { end: 1024 }));
}

#[test]
fn a_file_of_unknown_size_is_not_asked_for_far_ahead_of_the_first_answer() {
    let mut download = Download::new(None, Chunk::new(1024));
    download.deal(Span {
        offset: 0,
        len: 1 << 20,
    });
    let ask = first(&mut download);
    assert_eq!(download.poll(), Ok(Step::Wait));
    download.on_data(ask, 1024).unwrap();
    first(&mut download);
    first(&mut download);
    assert_eq!(download.poll(), Ok(Step::Wait));
}

#[test]
fn the_answer_to_the_probe_does_not_hide_that_a_file_is_short() {
    let mut download = Download::new(Some(2064), Chunk::new(1032));
    download.deal(Span {
        offset: 0,
        len: 2065,
    });
    let mut asks = Vec::new();
    while let Ok(Step::Request(ask)) = download.poll() {
        asks.push(ask);
    }
    let [first, second] = asks[..] else {
        panic!("{asks:?}")
    };
    download.on_data(first, 1032).unwrap();
    let (mut probe, mut rest) = (second, second);
    rest.span = probe.span.split_to(1032);
    download.on_eof(probe).unwrap();
    assert!(matches!(
        download.on_eof(rest),
        Err(ReadFault::Truncated { got: 1032, .. })
    ));
}

/// Another connection left off anywhere: the end may be met before what lies in front of it was dealt,
/// and while that is being asked for.
#[test]
fn what_was_given_back_is_read_in_any_order_of_its_ranges() {
    const SIZE: u64 = 12_000;
    let span = |offset: u64, end: u64| Span {
        offset,
        len: u32::try_from(end - offset).unwrap(),
    };
    let cuts: [&[u64]; 3] = [
        &[0, 5_000, SIZE + 1],
        &[0, 4_100, 9_000, SIZE + 1],
        &[0, 5_000, SIZE, SIZE + 1],
    ];
    for (cut, seed) in cuts
        .iter()
        .flat_map(|cut| (1..200).map(move |seed| (cut, seed)))
    {
        let mut rng = Rng(seed);
        let mut ranges: Vec<_> = cut.windows(2).map(|pair| span(pair[0], pair[1])).collect();
        let mut download = Download::new(Some(SIZE), Chunk::new(1024));
        let mut seen = vec![0_u8; 12_000];
        let mut open: Vec<Ask> = Vec::new();
        loop {
            let wanted = 1 + usize::try_from(rng.below(4)).unwrap();
            while open.len() < wanted {
                match download.poll().unwrap() {
                    Step::Request(ask) => open.push(ask),
                    Step::Starved | Step::Done { .. } if !ranges.is_empty() => {
                        let next = usize::try_from(rng.below(ranges.len() as u64)).unwrap();
                        download.deal(ranges.swap_remove(next));
                    }
                    Step::Starved | Step::Wait | Step::Done { .. } => break,
                }
            }
            if open.is_empty() {
                break;
            }
            let ask = open.swap_remove(usize::try_from(rng.below(open.len() as u64)).unwrap());
            let at = usize::try_from(ask.span.offset).unwrap();
            let len = (seen.len() - at).min(ask.span.len as usize);
            seen[at..at + len].iter_mut().for_each(|times| *times += 1);
            if len == 0 {
                download.on_eof(ask).unwrap();
            } else {
                download.on_data(ask, u32::try_from(len).unwrap()).unwrap();
            }
        }
        assert!(
            ranges.is_empty() && download.is_quiet(),
            "{cut:?}, seed {seed}"
        );
        assert_eq!(download.finished(), Some(Ok(SIZE)), "{cut:?}, seed {seed}");
        assert!(seen.iter().all(|&times| times == 1), "{cut:?}, seed {seed}");
    }
}
