//! A file that several channels write, or one after another: it has its name only when all of them
//! could close it, and when nobody can take it away again.

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

/// Uploads over an old file, to a server that cannot replace one, and loses the connection when the
/// old file is to be removed; says what came of it, and under which names files are in the end.
fn lose_while_clearing(is_done_late: bool) -> (Result<Report, TransferError>, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), content(30_000, 3)).unwrap();
    let mut habits = Habits::default();
    (habits.extensions).retain(|&name| name != ExtensionName::PosixRename);
    let mut team = Team::new(habits, 1);
    team.sims[0].server.file("/b", content(9, 9));
    team.nodes = team.sims[0].server.nodes.clone();
    team.sims[0].server.lies = Some(Box::new(move |_, request| match request {
        Request::Remove(_) if is_done_late => Some(Vec::new()),
        _ => None,
    }));
    let shared = team.sims[0].sftp.shared().clone();
    let from = dir.path().join("a");
    let mut up = put::start_from_path(&shared, from, "/b".into(), PutOptions::new());
    up.plan().set_second_chance(true);
    while team.sims[0].server.asked(PacketType::REMOVE) == 0 {
        assert!(poll(Pin::new(&mut up)).is_none());
        team.turn();
    }
    team.lose(0);
    team.grow(&up);
    let result = team.run(&mut up, |_, _, _| {});
    if is_done_late {
        team.nodes.remove(&b"/b"[..]); // the lost connection's process comes to it only now
    }
    let whole = content(30_000, 3);
    let is_whole = |node: &Node| matches!(node, Node::File { data, .. } if *data == whole);
    let found = team.nodes.iter().filter(|(_, node)| is_whole(node));
    (result, found.map(|(path, _)| path.clone()).collect())
}

#[test]
fn what_a_lost_connection_removes_late_is_not_the_new_file() {
    let (result, found) = lose_while_clearing(true);
    let Err(TransferError::LeftAs { temporary, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(found, [temporary.as_bytes()]);
    // Where it was removed already, the file has its name.
    let (result, found) = lose_while_clearing(false);
    assert_eq!(result.unwrap().files, 1);
    assert_eq!(found, [b"/b"]);
}
