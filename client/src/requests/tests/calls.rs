//! Calls: pipelining, limits of patience, futures that are dropped, servers that misbehave.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use ketch_protocol::{Data, PacketType, Response, Status, StatusCode};

use super::{
    server::Habits,
    sim::{Sim, poll},
};
use crate::{
    Failure, Kind, OpenOptions, Outcome, SftpError,
    requests::{Settings, stall::STALL_TIMEOUT},
};

#[test]
fn a_file_is_written_read_and_looked_at() {
    for seed in 0..20 {
        let habits = Habits {
            short: seed % 2 == 1,
            read_max: 40_000,
            ..Habits::default()
        };
        let mut sim = Sim::new(habits, seed);
        let sftp = sim.sftp.clone();
        let data: Vec<u8> = (0..600_000)
            .map(|i| u8::try_from(i % 253).unwrap())
            .collect();
        sim.run(async {
            let file = sftp.open("/a", OpenOptions::writing()).await.unwrap();
            file.write_at(0, &data).await.unwrap();
            file.close().await.unwrap();
            assert_eq!(sftp.stat("/a").await.unwrap().size, Some(600_000));
            let file = sftp.open("/a", OpenOptions::reading()).await.unwrap();
            assert_eq!(file.read_at(0, 600_000).await.unwrap(), data, "seed {seed}");
            assert_eq!(file.read_at(599_990, 100).await.unwrap(), data[599_990..]);
            assert!(file.read_at(600_000, 10).await.unwrap().is_empty());
        });
        sim.settle();
        assert_eq!(sim.server.handles(), 0, "dropped files are closed");
    }
}

#[test]
fn many_calls_are_under_way_at_once_and_wake_the_driver_once() {
    let mut sim = Sim::new(Habits::default(), 7);
    sim.settle();
    sim.server.file("/a", b"x".to_vec());
    sim.wakes.store(0, Ordering::Relaxed);
    let sftp = sim.sftp.clone();
    let mut calls: Vec<_> = (0..100).map(|_| Box::pin(sftp.stat("/a"))).collect();
    assert!(calls.iter_mut().all(|call| poll(call.as_mut()).is_none()));
    assert_eq!(sim.wakes.load(Ordering::Relaxed), 1);
    sim.packets_max = 1000;
    sim.turn();
    assert_eq!(sim.server.asked(PacketType::STAT), 100, "all in one flight");
    sim.settle();
    assert!(
        calls
            .iter_mut()
            .all(|call| matches!(poll(call.as_mut()), Some(Ok(_))))
    );
}

#[test]
fn requests_may_follow_the_greeting_at_once() {
    let settings = Settings {
        early: true,
        ..Settings::default()
    };
    let mut sim = Sim::with_settings(Habits::default(), 1, settings);
    sim.server.file("/a", b"x".to_vec());
    let sftp = sim.sftp.clone();
    let mut call = pin!(sftp.stat("/a"));
    assert!(poll(call.as_mut()).is_none());
    sim.requests.drive(&mut sim.link);
    let first_flight = std::mem::take(&mut sim.link.out);
    sim.server.receive(&first_flight);
    assert_eq!(sim.server.log, [PacketType::STAT], "before any answer");
    sim.settle();
    assert!(matches!(poll(call), Some(Ok(_))));
}

#[test]
fn a_dropped_call_gives_its_slot_up_and_a_late_handle_is_closed() {
    let mut sim = Sim::new(Habits::default(), 3);
    sim.settle();
    sim.server.file("/a", b"x".to_vec());
    let sftp = sim.sftp.clone();
    for stage in 0..3 {
        {
            let mut call = pin!(sftp.open("/a", OpenOptions::reading()));
            assert!(poll(call.as_mut()).is_none());
            match stage {
                0 => {} // dropped before it was sent
                1 => {
                    // dropped while the server has it
                    sim.requests.drive(&mut sim.link);
                }
                _ => {
                    // dropped when the answer is here, and nobody has looked at it
                    sim.turn();
                    sim.turn();
                }
            }
        }
        sim.settle();
        assert_eq!(sim.server.handles(), 0, "stage {stage}");
    }
}

#[test]
fn listings_are_read_ahead_and_end_once() {
    let mut sim = Sim::new(
        Habits {
            names_max: 7,
            ..Habits::default()
        },
        5,
    );
    sim.server.dir("/d");
    for n in 0..100 {
        sim.server.file(&format!("/d/{n:03}"), vec![0; n]);
    }
    let sftp = sim.sftp.clone();
    let names = sim.run(async {
        let mut dir = sftp.read_dir("/d");
        let mut names = Vec::new();
        while let Some(entry) = dir.next().await {
            names.push(entry.unwrap().display_name());
        }
        assert!(dir.next().await.is_none());
        names
    });
    assert_eq!(names.len(), 100);
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
    let missing = sim.run(async { sftp.read_dir("/none").next().await });
    assert_eq!(missing.unwrap().unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_long_listing_takes_few_round_trips_and_bounded_memory() {
    let mut sim = Sim::new(
        Habits {
            names_max: 3,
            ..Habits::default()
        },
        5,
    );
    sim.server.dir("/d");
    for n in 0..3_000 {
        sim.server.file(&format!("/d/{n:04}"), Vec::new());
    }
    sim.packets_max = usize::MAX;
    let sftp = sim.sftp.clone();
    let mut directory = sftp.read_dir("/d");
    let (mut seen, mut peak) = (0, 0);
    let mut turns = 0;
    loop {
        let mut next = pin!(directory.next_entries());
        match poll(next.as_mut()) {
            Some(Some(entries)) => seen += entries.unwrap().iter().count(),
            Some(None) => break,
            None => {
                let before = sim.server.asked(PacketType::READDIR);
                sim.pass_time(Duration::from_millis(50));
                sim.turn();
                turns += 1;
                peak = peak.max(sim.server.asked(PacketType::READDIR) - before);
            }
        }
    }
    assert_eq!(seen, 3_000);
    // One after the other it would be a thousand.
    assert!(turns < 25, "{turns} round trips");
    assert!((100..=192).contains(&peak), "{peak} at a time");
    sim.settle();
    assert_eq!(sim.server.handles(), 0);
}

#[test]
fn entries_and_answers_may_be_asked_for_in_turn() {
    let mut sim = Sim::new(Habits::default(), 5);
    sim.server.dir("/d");
    for n in 0..25 {
        sim.server.file(&format!("/d/{n:02}"), vec![0; n]);
    }
    let sftp = sim.sftp.clone();
    let names = sim.run(async {
        let mut names = Vec::new();
        let mut directory = sftp.read_dir("/d");
        while let Some(entry) = directory.next().await {
            let entry = entry.unwrap();
            assert_eq!(
                entry.attrs().size,
                Some(entry.display_name().parse().unwrap())
            );
            names.push(entry.display_name());
            if let Some(entries) = directory.next_entries().await {
                let entries = entries.unwrap();
                names.extend(entries.iter().map(|entry| entry.to_entry().display_name()));
            }
        }
        names
    });
    let wanted: Vec<_> = (0..25).map(|n| format!("{n:02}")).collect();
    assert_eq!(names, wanted);
}

#[test]
fn a_silent_server_ends_the_operation_and_then_the_channel() {
    let habits = Habits {
        silent_from: Some((PacketType::REMOVE, 1)),
        ..Habits::default()
    };
    let mut sim = Sim::new(habits, 1);
    sim.settle();
    let sftp = sim.sftp.clone();
    {
        let mut call = pin!(sftp.remove_file("/a"));
        assert!(poll(call.as_mut()).is_none());
        sim.settle();
        assert!(poll(call.as_mut()).is_none());
        let deadline = sim.requests.deadline().expect("something waits");
        sim.pass_time(STALL_TIMEOUT);
        sim.turn();
        assert!(deadline <= crate::requests::link::Link::now(&sim.link));
        let error = poll(call.as_mut()).expect("ended").unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (Kind::Timeout, Outcome::Unknown)
        );
    }
    assert!(!sim.link.closed);
    let mut call = pin!(sftp.remove_file("/b"));
    assert!(poll(call.as_mut()).is_none());
    sim.settle();
    sim.pass_time(STALL_TIMEOUT + Duration::from_secs(1));
    sim.turn();
    assert!(poll(call.as_mut()).is_some_and(|result| result.is_err()));
    assert!(sim.link.closed, "the second stall ends the channel");
}

#[test]
fn a_close_that_nobody_waits_for_closes_all_the_same() {
    // Dropped unpolled, queued, sent: the file is closed once, whenever that was.
    for turns in 0..3 {
        let mut sim = Sim::new(Habits::default(), 1);
        let sftp = sim.sftp.clone();
        let file = sim
            .run(sftp.open("/a", OpenOptions::writing()))
            .expect("opened");
        {
            let mut close = pin!(file.close());
            if turns > 0 {
                assert!(poll(close.as_mut()).is_none());
            }
            if turns > 1 {
                sim.turn();
            }
        }
        sim.settle();
        let closes = sim.server.log.iter();
        let closes = closes.filter(|&&asked| asked == PacketType::CLOSE).count();
        assert_eq!(closes, 1, "dropped after {turns}");
    }
}

#[test]
fn a_call_that_was_never_sent_cannot_have_happened() {
    let mut sim = Sim::new(
        Habits {
            greets: false,
            ..Habits::default()
        },
        1,
    );
    let sftp = sim.sftp.clone();
    let mut call = pin!(sftp.remove_file("/a"));
    assert!(poll(call.as_mut()).is_none());
    sim.settle();
    sim.requests
        .on_closed(std::sync::Arc::new(std::io::Error::other("cut")));
    let error = poll(call).expect("ended").unwrap_err();
    assert!(
        matches!(
            error,
            SftpError::Lost {
                outcome: Outcome::NotDone,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn calls_whose_answer_was_lost_may_have_happened_if_they_change_something() {
    let habits = Habits {
        silent_from: Some((PacketType::STAT, 1)),
        ..Habits::default()
    };
    let mut sim = Sim::new(habits, 1);
    sim.settle();
    let sftp = sim.sftp.clone();
    let mut change = pin!(sftp.rename("/a", "/b"));
    let mut look = pin!(sftp.stat("/a"));
    assert!(poll(change.as_mut()).is_none() && poll(look.as_mut()).is_none());
    sim.requests.drive(&mut sim.link);
    sim.requests
        .on_closed(std::sync::Arc::new(std::io::Error::other("cut")));
    assert_eq!(
        poll(change).unwrap().unwrap_err().outcome(),
        Outcome::Unknown
    );
    assert_eq!(poll(look).unwrap().unwrap_err().outcome(), Outcome::NotDone);
    let later = sim.run(sftp.stat("/a"));
    assert_eq!(later.unwrap_err().kind(), Kind::Network);
}

#[test]
fn answers_that_nobody_asked_for_end_the_channel() {
    let mut evil: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut packet = |name, id, response: Response<'_>| {
        let mut bytes = Vec::new();
        response.encode_packet(id, &mut bytes);
        evil.push((name, bytes));
    };
    packet(
        "an unknown id",
        99,
        Response::Status(Status::new(StatusCode::OK)),
    );
    packet("a wrong type", 1, Response::Handle(b"h"));
    packet("data for a stat", 1, Response::Data(Data { data: b"x" }));
    packet(
        "success and nothing else",
        1,
        Response::Status(Status::new(StatusCode::OK)),
    );
    evil.push(("a second greeting", vec![0, 0, 0, 5, 2, 0, 0, 0, 3]));
    evil.push(("an endless packet", vec![0xff; 5]));
    for (name, bytes) in evil {
        let habits = Habits {
            silent_from: Some((PacketType::STAT, 1)),
            ..Habits::default()
        };
        let mut sim = Sim::new(
            Habits {
                extensions: Vec::new(),
                ..habits
            },
            1,
        );
        sim.settle();
        let sftp = sim.sftp.clone();
        // Id 0 is taken, id 1 is the call.
        let mut first = pin!(sftp.stat("/a"));
        let mut call = pin!(sftp.stat("/a"));
        assert!(poll(first.as_mut()).is_none() && poll(call.as_mut()).is_none());
        sim.settle();
        sim.deliver(&bytes);
        assert!(sim.link.closed, "{name}");
        assert_eq!(
            poll(call).expect(name).unwrap_err().kind(),
            Kind::Peer,
            "{name}"
        );
    }
}

#[test]
fn credit_is_given_for_every_byte() {
    let mut sim = Sim::new(Habits::default(), 1);
    sim.server.file("/a", vec![7; 100_000]);
    let sftp = sim.sftp.clone();
    let mut came = 0;
    let mut read = pin!(async {
        let file = sftp.open("/a", OpenOptions::reading()).await.unwrap();
        file.read_at(0, 100_000).await.unwrap()
    });
    let data = loop {
        if let Some(data) = poll(read.as_mut()) {
            break data;
        }
        let bytes = sim.server.send(16);
        came += bytes.len();
        if !bytes.is_empty() {
            sim.deliver(&bytes);
        }
        sim.turn();
    };
    assert_eq!(data.len(), 100_000);
    assert!(sim.link.credit >= 100_000 && sim.link.credit >= came);
}
