//! A message over many packets, many messages in one: the replies are the same.

use std::env;

use ketch_protocol::{
    CheckFileHandle, Close, Extension, Fstat, Fsync, Mkdir, Read, Realpath, Request, RequestId,
    Stat, Watch, WatchKinds, Write,
};

use super::open;
use crate::engine::simulation::{Got, Mood, Simulation};

/// If it is set, every point at which the long script can be split is tried: a minute.
const EVERY: &str = "KETCH_EVERY_SPLIT";
/// The number of the script's first request.
const FIRST: RequestId = 1000;

/// A session with two open files, and `len` requests for it.
fn script(len: u32) -> (Simulation, Vec<u8>) {
    let mut simulation = Simulation::new(Mood::Ready, 5);
    let handles = [open(&mut simulation, "/f"), open(&mut simulation, "/g")];
    let mut bytes = Vec::new();
    for n in 0..len {
        let handle = &handles[(n / 3 % 2) as usize][..];
        let offset = u64::from(n * 5 % 40);
        let path = [b"/d", n.to_string().as_bytes()].concat();
        let request: Request<'_> = match n % 10 {
            0 | 5 => Write {
                handle,
                offset,
                data: &path,
            }
            .into(),
            1 | 6 => Read {
                handle,
                offset: offset / 2,
                len: 9,
            }
            .into(),
            2 => Stat { path: b"/f" }.into(),
            3 => Mkdir {
                path: &path,
                attrs: ketch_protocol::Attrs::with_permissions(0o700).into(),
            }
            .into(),
            4 => Realpath { path: b"a/../b" }.into(),
            7 => Extension::CheckFileHandle(CheckFileHandle {
                handle,
                algorithms: b"sha256",
                offset: 0,
                len: 0,
                block_len: 0,
            })
            .into(),
            8 => Fstat { handle }.into(),
            _ => match n % 4 {
                0 => Extension::Fsync(Fsync { handle }).into(),
                1 => Extension::Watch(Watch {
                    path: b"/none",
                    flags: 0,
                    kinds: WatchKinds::ALL,
                })
                .into(),
                2 => Extension::Unknown {
                    name: b"x@y",
                    data: &path,
                }
                .into(),
                _ => Close { handle: b"none" }.into(),
            },
        };
        request.encode_packet(FIRST + n, &mut bytes);
    }
    (simulation, bytes)
}

fn replies(simulation: &mut Simulation, len: u32) -> Vec<Got> {
    let replies = (FIRST..FIRST + len).map(|id| simulation.take(id)).collect();
    simulation.assert_idle();
    replies
}

fn glued(len: u32) -> Vec<Got> {
    let (mut simulation, bytes) = script(len);
    simulation.bytes(&bytes);
    simulation.settle();
    replies(&mut simulation, len)
}

fn split_at(len: u32, at: usize) -> Vec<Got> {
    let (mut simulation, bytes) = script(len);
    simulation.bytes(&bytes[..at]);
    simulation.settle();
    simulation.bytes(&bytes[at..]);
    simulation.settle();
    replies(&mut simulation, len)
}

#[test]
fn wherever_a_script_is_split_the_replies_are_the_same() {
    let is_long = env::var_os(EVERY).is_some();
    let len = if is_long { 200 } else { 20 };
    let expected = glued(len);
    let (_, bytes) = script(len);
    for at in 0..=bytes.len() {
        assert!(split_at(len, at) == expected, "split at {at}");
    }
}

#[test]
fn a_script_that_drips_byte_by_byte_gets_the_same_replies() {
    let expected = glued(200);
    let (mut simulation, bytes) = script(200);
    simulation.bytes(&bytes);
    while simulation.turn(1) {
        simulation
            .host
            .run_one(&crate::engine::simulation::Choices::new(1));
    }
    simulation.settle();
    assert!(replies(&mut simulation, 200) == expected);
    // Some more points at which the long script is split.
    for at in (0..bytes.len()).step_by(211) {
        assert!(split_at(200, at) == expected, "split at {at}");
    }
}
