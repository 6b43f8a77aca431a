//! Random scripts, pipelined: the replies are those that requests done one after the other would
//! get.

use ketch_protocol::{
    Attrs, Close, Extension, Fsetstat, Fstat, Fsync, Mkdir, Read, Setstat, Stat, Write,
};
use proptest::prelude::*;

use super::{EOF, FAILURE, MOODS, OK, open, path};
use crate::engine::simulation::{Choices, Got, Simulation};
use crate::engine::{JOBS_LIMIT, LONG_JOBS_MAX};

/// What a script does; files are numbered.
#[derive(Clone, Debug)]
enum Step {
    Read { file: usize, offset: u16, len: u16 },
    Write { file: usize, offset: u16, len: u16 },
    Fstat { file: usize },
    Stat { file: usize },
    Truncate { file: usize, size: u16 },
    TruncatePath { file: usize, size: u16 },
    Sync { file: usize },
    Close { file: usize },
    Mkdir { name: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let file = 0..3_usize;
    let number = any::<u16>();
    let step = prop_oneof![
        6 => (file.clone(), number, number)
            .prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
        8 => (file.clone(), number, 0..5000_u16)
            .prop_map(|(file, offset, len)| Step::Write { file, offset, len }),
        3 => (file.clone(), 0..3_u16, 0..20_000_u16)
            .prop_map(|(file, offset, len)| Step::Write { file, offset: offset * 5000, len }),
        2 => file.clone().prop_map(|file| Step::Fstat { file }),
        2 => file.clone().prop_map(|file| Step::Stat { file }),
        1 => (file.clone(), number).prop_map(|(file, size)| Step::Truncate { file, size }),
        1 => (file.clone(), number).prop_map(|(file, size)| Step::TruncatePath { file, size }),
        1 => file.clone().prop_map(|file| Step::Sync { file }),
        1 => file.prop_map(|file| Step::Close { file }),
        1 => any::<u8>().prop_map(|name| Step::Mkdir { name }),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// However the stream is cut, whatever would block, in whatever order threads end and however
    /// slowly the client reads: every reply is the one that requests done one after the other
    /// would get.
    #[test]
    fn a_pipelined_script_gets_the_replies_of_a_sequential_one(
        steps in steps(), seed in any::<u64>(), mood in 0..3_usize, turn_max in 1..60_000_usize,
    ) {
        let mut simulation = Simulation::new(MOODS[mood], seed);
        let names = ["/f0", "/f1", "/f2"];
        let handles = names.map(|name| open(&mut simulation, name));
        let mut model: [Vec<u8>; 3] = Default::default();
        let mut is_open = [true; 3];
        let mut made = std::collections::BTreeSet::new();
        let filler = Choices::new(seed);
        let mut expected = Vec::new();
        for step in &steps {
            let or_closed = |file: usize, got| if is_open[file] { got } else { FAILURE };
            let (id, got) = match *step {
                Step::Read { file, offset, len } => {
                    let (start, end) = (usize::from(offset), usize::from(offset) + usize::from(len));
                    let got = match model[file].get(start..end.min(model[file].len())) {
                        Some(bytes) if !bytes.is_empty() => Got::Data(bytes.to_vec()),
                        _ => EOF,
                    };
                    let read = Read {
                        handle: &handles[file], offset: offset.into(), len: len.into(),
                    };
                    (simulation.request(read), or_closed(file, got))
                }
                Step::Write { file, offset, len } => {
                    let (start, end) = (usize::from(offset), usize::from(offset) + usize::from(len));
                    let data = vec![u8::try_from(filler.below(256)).unwrap(); usize::from(len)];
                    if is_open[file] && len > 0 {
                        if model[file].len() < end {
                            model[file].resize(end, 0);
                        }
                        model[file][start..end].copy_from_slice(&data);
                    }
                    let write = Write { handle: &handles[file], offset: offset.into(), data: &data };
                    (simulation.request(write), or_closed(file, OK))
                }
                Step::Fstat { file } => {
                    let got = Got::Size(model[file].len() as u64);
                    let id = simulation.request(Fstat { handle: &handles[file] });
                    (id, or_closed(file, got))
                }
                Step::Stat { file } => {
                    let id = simulation.request(Stat { path: names[file].as_bytes() });
                    (id, Got::Size(model[file].len() as u64))
                }
                Step::Truncate { file, size } => {
                    if is_open[file] {
                        model[file].resize(size.into(), 0);
                    }
                    let attrs = Attrs { size: Some(size.into()), ..Attrs::NONE };
                    let set = Fsetstat { handle: &handles[file], attrs: attrs.into() };
                    (simulation.request(set), or_closed(file, OK))
                }
                Step::TruncatePath { file, size } => {
                    model[file].resize(size.into(), 0);
                    let attrs = Attrs { size: Some(size.into()), ..Attrs::NONE };
                    let set = Setstat { path: names[file].as_bytes(), attrs: attrs.into() };
                    (simulation.request(set), OK)
                }
                Step::Sync { file } => {
                    let sync = Extension::Fsync(Fsync { handle: &handles[file] });
                    (simulation.request(sync), or_closed(file, OK))
                }
                Step::Close { file } => {
                    let id = simulation.request(Close { handle: &handles[file] });
                    let got = or_closed(file, OK);
                    is_open[file] = false;
                    (id, got)
                }
                Step::Mkdir { name } => {
                    let path = format!("/d{name}");
                    let mkdir = Mkdir { path: path.as_bytes(), attrs: Attrs::NONE.into() };
                    let id = simulation.request(mkdir);
                    (id, if made.insert(name) { OK } else { FAILURE })
                }
            };
            expected.push((id, got));
        }
        simulation.jumble(turn_max);
        for (step, (id, got)) in steps.iter().zip(expected) {
            let answer = simulation.take(id);
            prop_assert!(answer == got, "{id} {step:?}: {}, not {}", short(&answer), short(&got));
        }
        for (name, content) in names.iter().zip(&model) {
            prop_assert!(&simulation.files.get(&path(name)).unwrap() == content);
        }
        simulation.assert_idle();
        prop_assert!(simulation.host.most_tasks.get() <= JOBS_LIMIT + LONG_JOBS_MAX);
    }
}

/// For messages about data that is long.
fn short(got: &Got) -> String {
    match got {
        Got::Data(data) => format!("Data({} bytes from {:?})", data.len(), data.first()),
        other => format!("{other:?}"),
    }
}
