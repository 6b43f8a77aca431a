//! Many callers on one channel: transfers in both directions and calls share it fairly.

use std::{fs, future::Future, pin::Pin};

use ketch_protocol::{ExtensionName, PacketType};

use super::{
    server::Habits,
    sim::{Sim, poll},
};
use crate::{GetOptions, PutOptions, Sftp, requests::calls::Shared};

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Turns until all are done, and says in which order that was.
fn run_all(sim: &mut Sim, mut running: Vec<(usize, Running<'_>)>) -> Vec<usize> {
    let mut order = Vec::new();
    let mut idle = 0;
    while !running.is_empty() {
        running.retain_mut(|(name, future)| {
            let done = poll(future.as_mut()).is_some();
            if done {
                order.push(*name);
            }
            !done
        });
        idle = if sim.turn() { 0 } else { idle + 1 };
        assert!(idle < 10, "nothing happens any more: {:?}", sim.requests);
    }
    order
}

#[test]
fn transfers_and_calls_share_a_channel() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let shuffle = seed % 2 == 1;
        let mut sim = Sim::new(
            Habits {
                shuffle,
                ..Habits::default()
            },
            seed,
        );
        sim.settle();
        let len = |n: usize| 40_000 + n * 300_000;
        for n in 0..6 {
            sim.server
                .file(&format!("/down{n}"), vec![u8::try_from(n).unwrap(); len(n)]);
            fs::write(
                dir.path().join(format!("up{n}")),
                vec![u8::try_from(n).unwrap(); len(n)],
            )
            .unwrap();
        }
        let sftp = sim.sftp.clone();
        let mut running: Vec<(usize, Running<'_>)> = Vec::new();
        for n in 0..6 {
            let (sftp, dir) = (&sftp, dir.path());
            running.push((
                n,
                Box::pin(async move {
                    let report = sftp
                        .get(
                            format!("/down{n}"),
                            dir.join(format!("down{n}")),
                            GetOptions::new(),
                        )
                        .await;
                    assert_eq!(report.unwrap().bytes, len(n) as u64);
                }),
            ));
            running.push((
                10 + n,
                Box::pin(async move {
                    let report = sftp
                        .put(
                            dir.join(format!("up{n}")),
                            format!("/up{n}"),
                            PutOptions::new(),
                        )
                        .await;
                    assert_eq!(report.unwrap().bytes, len(n) as u64);
                }),
            ));
            running.push((
                20 + n,
                Box::pin(async move {
                    for _ in 0..5 {
                        sftp.stat("/down0").await.unwrap();
                    }
                }),
            ));
        }
        let order = run_all(&mut sim, running);
        for n in 0..6 {
            let whole = vec![u8::try_from(n).unwrap(); len(n)];
            assert!(fs::read(dir.path().join(format!("down{n}"))).unwrap() == whole);
            assert!(sim.server.data(&format!("/up{n}")) == Some(&whole[..]));
        }
        sim.settle();
        assert_eq!(sim.server.handles(), 0);
        if !shuffle {
            let place = |name| order.iter().position(|&n| n == name).unwrap();
            assert!(
                place(0) < place(5) && place(10) < place(15),
                "small ones do not wait: {order:?}"
            );
            assert!(
                place(20) < place(15),
                "calls do not wait for transfers: {order:?}"
            );
        }
    }
}

#[test]
fn a_session_that_nobody_holds_ends_when_its_transfers_have_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), vec![7; 3_000_000]).unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    sim.settle();
    sim.packets_max = 2;
    let sftp = std::mem::replace(&mut sim.sftp, Sftp::new(Shared::new(), ()));
    {
        let mut put = Box::pin(sftp.put(dir.path().join("a"), "/a", PutOptions::new()));
        assert!(poll(put.as_mut()).is_none());
        while sim.server.asked(PacketType::WRITE) == 0 {
            sim.turn();
        }
    }
    drop(sftp);
    assert!(!sim.link.closed);
    sim.settle();
    assert!(sim.link.closed);
    assert_eq!(sim.server.paths(), ["/"]);
    assert_eq!(sim.server.handles(), 0);
}

#[test]
fn small_files_do_not_flood_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let extensions = vec![ExtensionName::Limits];
    let mut habits = Habits {
        extensions,
        ..Habits::default()
    };
    habits.limits.open_handles = 20;
    let mut sim = Sim::new(habits, 1);
    sim.server.dir("/t");
    for n in 0..500 {
        sim.server.file(&format!("/t/{n}"), vec![7; 100]);
    }
    let sftp = sim.sftp.clone();
    let report = sim
        .run(sftp.get("/t", dir.path(), GetOptions::new().recursive(true)))
        .unwrap();
    assert_eq!(report.files, 500);
    assert!(sim.server.open_peak <= 20, "{}", sim.server.open_peak);
}

#[test]
fn many_named_files_go_in_one_transfer() {
    let dir = tempfile::tempdir().unwrap();
    let mut sim = Sim::new(Habits::default(), 1);
    for n in 0..300 {
        sim.server.file(&format!("/{n}"), vec![7; n]);
    }
    let sftp = sim.sftp.clone();
    let names = |n: usize| (format!("/{n}").into(), dir.path().join(n.to_string()));
    let report = sim
        .run(sftp.get_all((0..300).map(names), GetOptions::new()))
        .unwrap();
    assert_eq!((report.files, report.bytes), (300, 299 * 150));
    let back = |n: usize| (dir.path().join(n.to_string()), format!("/b{n}").into());
    let report = sim
        .run(sftp.put_all((0..300).map(back), PutOptions::new()))
        .unwrap();
    assert_eq!((report.files, report.bytes), (300, 299 * 150));
    assert_eq!(sim.server.data("/b299"), Some(&[7; 299][..]));
    let nothing = sim.run(sftp.get_all([], GetOptions::new())).unwrap();
    assert_eq!(nothing.files, 0);
    // One that is not there is told, and the others arrive.
    let items = [names(5), names(1000), names(6)];
    let error = sim.run(sftp.get_all(items, GetOptions::new())).unwrap_err();
    let crate::TransferError::Incomplete { report } = error else {
        panic!("{error}")
    };
    assert_eq!((report.files, report.failed_count), (2, 1));
}
