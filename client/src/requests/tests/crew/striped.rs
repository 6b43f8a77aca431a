//! A file that several channels write: it has its name only when all of them could close it.

use super::*;

#[test]
fn a_file_that_one_of_several_could_not_close_gets_no_name() {
    for seed in 1..5 {
        for failing in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a"), content(3_000_000, 3)).unwrap();
            let mut team = Team::new(Habits::default(), seed);
            team.sims[0].server.file("/b", content(9, 9));
            team.nodes = team.sims[0].server.nodes.clone();
            let shared = team.sims[0].sftp.shared().clone();
            let from = dir.path().join("a");
            let mut up = put::start_from_path(&shared, from, "/b".into(), PutOptions::new());
            team.grow(&up);
            team.grow(&up);
            let fails = Some((PacketType::CLOSE, 1, StatusCode::FAILURE));
            team.sims[failing].server.habits.fails = fails;
            let error = team.run(&mut up, |_, _, _| {}).unwrap_err();
            let place = format!("seed {seed}, channel {failing}: {error:?}");
            assert!(matches!(error, TransferError::Refused { .. }), "{place}");
            // What was there is there, and nothing else.
            assert_eq!(team.nodes.len(), 2, "{place}");
            let there = team.nodes.get(&b"/b"[..]);
            let is_old = matches!(there, Some(Node::File { data, .. }) if *data == content(9, 9));
            assert!(is_old, "{place}");
        }
    }
}
