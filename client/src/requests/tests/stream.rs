//! A file as a stream: the same bytes as a buffer in memory, bounded, and errors that are told.

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    pin::pin,
};

use ketch_protocol::{PacketType, StatusCode};
use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{
    server::Habits,
    sim::{Sim, poll},
};
use crate::{File, OpenOptions};

#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Write(Vec<u8>),
    Seek(SeekFrom),
    SetLen(u64),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..200_000_usize).prop_map(Step::Read),
        3 => (any::<u8>(), 1..150_000_usize).prop_map(|(byte, len)| Step::Write(
            (0..len).map(|n| byte.wrapping_add(n.to_le_bytes()[0])).collect()
        )),
        1 => vec(any::<u8>(), 1..20).prop_map(Step::Write),
        1 => (0..400_000_u64).prop_map(|to| Step::Seek(SeekFrom::Start(to))),
        1 => (-50_000..50_000_i64).prop_map(|by| Step::Seek(SeekFrom::Current(by))),
        1 => (-100_000..1000_i64).prop_map(|by| Step::Seek(SeekFrom::End(by))),
        1 => (0..300_000_u64).prop_map(Step::SetLen),
        1 => Just(Step::Flush),
    ]
}

/// Reads until `len` bytes have come or there are no more.
async fn read_up_to(file: &mut File, len: usize) -> io::Result<Vec<u8>> {
    let mut got = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read(&mut got[filled..]).await? {
            0 => break,
            n => filled += n,
        }
    }
    got.truncate(filled);
    Ok(got)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_mix_of_steps_gives_what_a_buffer_gives(
        steps in vec(step(), 1..25),
        start in 0..300_000_usize,
        short in any::<bool>(),
        shuffle in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut sim = Sim::new(Habits { short, shuffle, ..Habits::default() }, seed);
        let content: Vec<u8> = (0..start).map(|n| n.to_le_bytes()[1] ^ 7).collect();
        sim.server.file("/a", content.clone());
        let sftp = sim.sftp.clone();
        let mut model = Cursor::new(content);
        sim.run(async {
            let mut file = sftp.open("/a", OpenOptions::new().read().write()).await.unwrap();
            for step in steps {
                match step {
                    Step::Read(len) => {
                        let mut wanted = Vec::new();
                        let mut part = Read::take(&mut model, len as u64);
                        Read::read_to_end(&mut part, &mut wanted).unwrap();
                        let got = read_up_to(&mut file, len).await.unwrap();
                        assert!(got == wanted, "{} and {} bytes", got.len(), wanted.len());
                    }
                    Step::Write(bytes) => {
                        Write::write_all(&mut model, &bytes).unwrap();
                        file.write_all(&bytes).await.unwrap();
                    }
                    Step::Seek(to) => match (Seek::seek(&mut model, to), file.seek(to).await) {
                        (Ok(wanted), Ok(got)) => assert_eq!(wanted, got),
                        (Err(_), Err(error)) => {
                            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                        }
                        (wanted, got) => panic!("{to:?}: {wanted:?} and {got:?}"),
                    },
                    Step::SetLen(len) => {
                        file.flush().await.unwrap();
                        file.set_len(len).await.unwrap();
                        // What was read ahead may be what stood there.
                        let position = file.stream_position().await.unwrap();
                        file.seek(SeekFrom::Start(u64::MAX >> 1)).await.unwrap();
                        file.seek(SeekFrom::Start(position)).await.unwrap();
                        model.get_mut().resize(usize::try_from(len).unwrap(), 0);
                    }
                    Step::Flush => file.flush().await.unwrap(),
                }
            }
            file.shutdown().await.unwrap();
        });
        prop_assert!(sim.server.data("/a").unwrap() == &model.get_ref()[..]);
        sim.settle();
        prop_assert_eq!(sim.server.handles(), 0);
    }
}

#[test]
fn a_copy_keeps_many_requests_under_way() {
    let mut sim = Sim::new(Habits::default(), 3);
    let content: Vec<u8> = (0..5_000_000_usize).map(|n| n.to_le_bytes()[2]).collect();
    sim.server.file("/from", content.clone());
    let sftp = sim.sftp.clone();
    // Each turn of the simulation is a round trip for all that is under way.
    let copied = sim.run(async {
        let mut from = sftp.open("/from", OpenOptions::reading()).await.unwrap();
        let mut to = sftp.open("/to", OpenOptions::writing()).await.unwrap();
        let copied = tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
        to.close().await.unwrap();
        copied
    });
    assert_eq!(copied, 5_000_000);
    assert!(sim.server.data("/to").unwrap() == content);
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
    let writes = sim.server.asked(PacketType::WRITE);
    assert!((76..=90).contains(&writes), "{writes} pieces of 64 KiB");
    let closes = sim.server.asked(PacketType::CLOSE);
    assert_eq!(closes, 2, "none twice");
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.file("/a", vec![1; 1_000]);
    let sftp = sim.sftp.clone();
    let mut file = sim
        .run(sftp.open("/a", OpenOptions::new().read().write()))
        .unwrap();
    let piece = vec![9; 100_000];
    let mut written = 0;
    // Nobody answers meanwhile.
    while let Some(len) = poll(pin!(file.write(&piece))) {
        written += len.unwrap();
        assert!(written < 20_000_000, "no end in sight");
    }
    assert!(written < 9_000_000, "{written}");
    sim.run(file.flush()).unwrap();
    assert_eq!(sim.server.data("/a").unwrap().len(), written);
}

#[test]
fn a_write_that_fails_is_told_by_what_comes_after_it() {
    for late in ["write", "flush", "shutdown", "close", "read", "seek"] {
        let habits = Habits {
            fails: Some((PacketType::WRITE, 2, StatusCode::NO_SPACE_ON_FILESYSTEM)),
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, 1);
        let sftp = sim.sftp.clone();
        let error = sim.run(async {
            let options = OpenOptions::writing().read();
            let mut file = sftp.open("/a", options).await.unwrap();
            file.write_all(&[7; 200_000]).await.unwrap();
            match late {
                "write" => loop {
                    if let Err(error) = file.write_all(&[7; 500_000]).await {
                        break error;
                    }
                },
                "flush" => file.flush().await.unwrap_err(),
                "shutdown" => file.shutdown().await.unwrap_err(),
                "close" => file.close().await.unwrap_err().into(),
                "read" => file.read(&mut [0]).await.unwrap_err(),
                _ => file.seek(SeekFrom::End(0)).await.unwrap_err(),
            }
        });
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{late}");
        sim.settle();
        assert_eq!(sim.server.handles(), 0, "{late}");
    }
}

#[test]
fn dropped_in_the_middle_it_is_closed() {
    for turns in 0..6 {
        let mut sim = Sim::new(Habits::default(), 5);
        sim.server.file("/a", vec![1; 3_000_000]);
        let sftp = sim.sftp.clone();
        let options = OpenOptions::new().read().write();
        let mut file = sim.run(sftp.open("/a", options)).unwrap();
        let mut buffer = [0; 1000];
        if turns % 2 == 0 {
            let mut read = pin!(file.read(&mut buffer));
            assert!(poll(read.as_mut()).is_none());
            if turns > 0 {
                sim.turn();
                let _ = poll(read.as_mut());
            }
        } else {
            let _ = poll(pin!(file.write(&buffer)));
            let _ = poll(pin!(file.shutdown()));
            for _ in 0..turns / 2 {
                sim.turn();
            }
        }
        drop(file);
        sim.settle();
        assert_eq!(sim.server.handles(), 0, "after {turns}");
    }
}

#[test]
fn a_file_that_has_grown_is_read_on() {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.file("/a", b"one".to_vec());
    let sftp = sim.sftp.clone();
    let mut file = sim.run(sftp.open("/a", OpenOptions::reading())).unwrap();
    let mut text = String::new();
    sim.run(file.read_to_string(&mut text)).unwrap();
    sim.server.file("/a", b"one, two".to_vec());
    sim.run(file.read_to_string(&mut text)).unwrap();
    assert_eq!(text, "one, two");
}
