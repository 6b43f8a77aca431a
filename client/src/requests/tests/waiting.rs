//! Requests of a stream that wait for their turn among the calls, while other calls of the channel
//! hold all there is: what is given up or done meanwhile is not done in another's name.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, SeekFrom},
    pin::pin,
};

use ketch_protocol::{PacketType, Realpath, Request};
use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{
    super::{
        calls::{Asked, CALLS_KIB_MAX},
        table::Expect,
    },
    server::Habits,
    sim::{Sim, poll},
};
use crate::{File, OpenOptions};

/// Requests that take all that calls may hold, one after the other, until the server has answered
/// them. Each waits for its turn behind the requests before it.
#[derive(Default)]
struct Others(VecDeque<Asked>);

impl Others {
    fn hold_all(&mut self, sim: &Sim) {
        let request = Request::Realpath(Realpath { path: b"/" });
        let mut packet = Vec::new();
        request.encode_packet(0, &mut packet);
        let bytes = CALLS_KIB_MAX as usize * 1024;
        let asked = sim.sftp.shared().ask(packet, Expect::Name, bytes, None);
        self.0.push_back(asked);
        self.go_on();
    }

    fn go_on(&mut self) {
        self.0.retain_mut(|asked| poll(pin!(asked)).is_none());
    }

    /// Turns until the future is ready.
    fn run<F: Future>(&mut self, sim: &mut Sim, future: F) -> F::Output {
        let mut future = pin!(future);
        sim.run(poll_fn(|cx| {
            self.go_on();
            future.as_mut().poll(cx)
        }))
    }

    /// Polls with turns between; after `patience` of them without an end, the future is dropped.
    fn try_for<F: Future>(
        &mut self,
        sim: &mut Sim,
        patience: Option<usize>,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let Some(turns) = patience else {
            return Some(self.run(sim, future));
        };
        for _ in 0..turns {
            let output = poll(future.as_mut());
            if output.is_some() {
                return output;
            }
            sim.turn();
            self.go_on();
        }
        poll(future)
    }
}

/// Holds all.
fn hold_all(sim: &Sim) -> Others {
    let mut others = Others::default();
    others.hold_all(sim);
    others
}

fn content(len: usize) -> Vec<u8> {
    // No stretch of it is like another one.
    let words = (0..).flat_map(|n: u32| n.wrapping_mul(0x9e37_79b1).to_le_bytes());
    words.take(len).collect()
}

fn opened(habits: Habits, data: &[u8]) -> (Sim, File) {
    let mut sim = Sim::new(habits, 7);
    sim.server.file("/a", data.to_vec());
    let sftp = sim.sftp.clone();
    let options = OpenOptions::new().read().write();
    let file = sim.run(sftp.open("/a", options)).unwrap();
    sim.settle();
    (sim, file)
}

/// What is read in one piece after another, up to `len` bytes.
async fn read_up_to(file: &mut File, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    file.take(len as u64).read_to_end(&mut got).await.unwrap();
    got
}

#[test]
fn what_is_written_after_a_flush_was_given_up_is_sent_too() {
    let (mut sim, mut file) = opened(Habits::default(), b"");
    let data = content(300);
    sim.run(file.write_all(&data[..100])).unwrap();
    let mut others = hold_all(&sim);
    assert!(poll(pin!(file.flush())).is_none());
    others.run(&mut sim, async {
        file.write_all(&data[100..]).await.unwrap();
        file.shutdown().await.unwrap();
    });
    assert!(sim.server.data("/a").unwrap() == data);
}

#[test]
fn what_is_written_after_a_shutdown_was_given_up_is_sent_before_the_close() {
    let (mut sim, mut file) = opened(Habits::default(), b"");
    let mut others = hold_all(&sim);
    assert!(poll(pin!(file.shutdown())).is_none());
    others.run(&mut sim, async {
        file.write_all(b"late").await.unwrap();
        file.shutdown().await.unwrap();
        file.close().await.unwrap();
    });
    assert_eq!(sim.server.data("/a").unwrap(), b"late");
    assert_eq!(sim.server.asked(PacketType::CLOSE), 1);
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
}

#[test]
fn a_seek_takes_back_what_was_to_be_read_elsewhere() {
    let data = content(600_000);
    let (mut sim, mut file) = opened(Habits::default(), &data);
    let mut others = hold_all(&sim);
    assert!(poll(pin!(file.read(&mut [0; 1000]))).is_none());
    let got = others.run(&mut sim, async {
        file.seek(SeekFrom::Start(400_000)).await.unwrap();
        read_up_to(&mut file, 100_000).await
    });
    assert!(got == data[400_000..500_000]);
}

#[test]
fn after_the_end_nothing_is_left_of_what_was_to_be_read_behind_it() {
    let data = content(100_000);
    let (mut sim, mut file) = opened(Habits::default(), &data[..30_000]);
    let mut buffer = vec![0; 30_000];
    sim.run(file.read_exact(&mut buffer)).unwrap();
    // What was read to here was asked for; what comes next waits, and the end is told meanwhile.
    let mut others = hold_all(&sim);
    assert_eq!(others.run(&mut sim, file.read(&mut buffer)).unwrap(), 0);
    sim.server.file("/a", data.clone());
    let got = others.run(&mut sim, read_up_to(&mut file, 100_000));
    assert!(got == data[30_000..]);
}

#[test]
fn a_short_answer_is_completed_while_the_last_piece_waits() {
    let habits = Habits {
        short: true,
        ..Habits::default()
    };
    let data = content(2_000_000);
    let (mut sim, mut file) = opened(habits, &data);
    let mut others = Others::default();
    let mut got = Vec::new();
    while got.len() < data.len() {
        if others.0.len() < 2 {
            others.hold_all(&sim);
        }
        let mut buffer = vec![0; 10_000];
        let len = others.run(&mut sim, file.read(&mut buffer)).unwrap();
        assert!(len > 0, "the end, at {}", got.len());
        got.extend_from_slice(&buffer[..len]);
        assert!(got == data[..got.len()], "at {}", got.len());
    }
}

#[test]
fn a_read_that_waits_is_not_sent_for_a_write() {
    let data = content(1000);
    let (mut sim, mut file) = opened(Habits::default(), &data);
    let mut others = hold_all(&sim);
    assert!(poll(pin!(file.read(&mut [0; 1000]))).is_none());
    others.run(&mut sim, async {
        file.write_all(b"new").await.unwrap();
        file.flush().await.unwrap();
    });
    let now = sim.server.data("/a").unwrap();
    assert!(now[..3] == *b"new" && now[3..] == data[3..]);
    assert_eq!(sim.server.asked(PacketType::READ), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Write(u8, usize),
    SeekTo(u64),
    SeekFromEnd(i64),
    Flush,
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..150_000_usize).prop_map(Step::Read),
        4 => (any::<u8>(), 1..150_000_usize).prop_map(|(byte, len)| Step::Write(byte, len)),
        1 => (0..300_000_u64).prop_map(Step::SeekTo),
        1 => (-100_000..1000_i64).prop_map(Step::SeekFromEnd),
        2 => Just(Step::Flush),
        1 => Just(Step::Shutdown),
    ]
}

/// A step, whether others hold all before it, and how many turns it may take.
fn steps() -> impl Strategy<Value = Vec<(Step, bool, Option<usize>)>> {
    let patience = prop_oneof![2 => Just(None), 3 => (0..4_usize).prop_map(Some)];
    vec((step(), any::<bool>(), patience), 1..40)
}

/// The file as it should be.
#[derive(Default)]
struct Model {
    data: Vec<u8>,
    position: usize,
}

impl Model {
    fn left(&self) -> &[u8] {
        self.data.get(self.position..).unwrap_or_default()
    }

    fn write(&mut self, bytes: &[u8]) {
        let end = self.position + bytes.len();
        self.data.resize(self.data.len().max(end), 0);
        self.data[self.position..end].copy_from_slice(bytes);
        self.position = end;
    }
}

/// All that takes part.
struct Scene {
    sim: Sim,
    others: Others,
    file: File,
    model: Model,
    /// It was to be closed.
    shut: bool,
}

impl Scene {
    fn step(&mut self, step: &Step, turns: Option<usize>) {
        let Self {
            sim,
            others,
            file,
            model,
            shut,
        } = self;
        match *step {
            Step::Read(len) => {
                let mut buffer = vec![0; len];
                let Some(got) = others.try_for(sim, turns, file.read(&mut buffer)) else {
                    return;
                };
                let got = got.unwrap();
                assert!(got > 0 || model.left().is_empty());
                assert!(model.left().starts_with(&buffer[..got]), "other bytes");
                model.position += got;
            }
            Step::Write(byte, len) => {
                let mut bytes = content(len);
                bytes.iter_mut().for_each(|b| *b ^= byte);
                if let Some(written) = others.try_for(sim, turns, file.write(&bytes)) {
                    model.write(&bytes[..written.unwrap()]);
                }
            }
            Step::SeekTo(to) => {
                // The one before may have been to a place before the start.
                let _ = others.run(sim, file.seek(SeekFrom::Start(to)));
                let there = others.run(sim, file.seek(SeekFrom::Start(to)));
                assert_eq!(there.unwrap(), to);
                model.position = usize::try_from(to).unwrap();
            }
            Step::SeekFromEnd(by) => {
                match others.try_for(sim, turns, file.seek(SeekFrom::End(by))) {
                    Some(Ok(to)) => {
                        model.position = usize::try_from(to).unwrap();
                        let by = isize::try_from(by).unwrap();
                        let wanted = model.data.len().checked_add_signed(by);
                        assert_eq!(wanted, Some(model.position));
                    }
                    Some(Err(error)) => assert_eq!(error.kind(), io::ErrorKind::InvalidInput),
                    // Reads and writes give it up, another seek does it first.
                    None => self.step(&Step::SeekTo(5), None),
                }
            }
            Step::Flush => {
                if let Some(flushed) = others.try_for(sim, turns, file.flush()) {
                    flushed.unwrap();
                    assert!(sim.server.data("/a").unwrap() == model.data);
                }
            }
            // The second time the CLOSE of the first may have its turn.
            Step::Shutdown if *shut => {}
            Step::Shutdown => {
                // Given up before the CLOSE has had its turn: others hold all.
                *shut = true;
                others.hold_all(sim);
                assert!(poll(pin!(file.shutdown())).is_none());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_dropped_half_way_changes_nothing_else(
        steps in steps(),
        start in 0..300_000_usize,
        short in any::<bool>(),
        shuffle in any::<bool>(),
    ) {
        let habits = Habits { short, shuffle, ..Habits::default() };
        let model = Model { data: content(start), position: 0 };
        let (sim, file) = opened(habits, &model.data);
        let mut scene = Scene { sim, others: Others::default(), file, model, shut: false };
        for (step, is_held, turns) in steps {
            if is_held {
                scene.others.hold_all(&scene.sim);
            }
            scene.step(&step, turns);
        }
        let Scene { mut sim, mut others, mut file, model, .. } = scene;
        others.run(&mut sim, file.shutdown()).unwrap();
        prop_assert!(sim.server.data("/a").unwrap() == model.data);
        drop(file);
        sim.settle();
        prop_assert_eq!(sim.server.handles(), 0);
        prop_assert_eq!(sim.server.asked(PacketType::CLOSE), 1);
    }
}
