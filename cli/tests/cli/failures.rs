//! What goes wrong ends in one clear sentence and the right exit code, and leaves no file under
//! its final name that is not whole.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use crate::scene::{Scene, failure, listening, serve};

#[test]
fn a_wrong_password_is_refused_login() {
    let scene = Scene::trusted();
    fs::write(scene.path("wrong"), "incorrect horse").unwrap();
    let wrong = scene.path("wrong");
    let args = [
        "ls",
        &scene.remote(""),
        "--password-file",
        wrong.to_str().unwrap(),
    ];
    let said = scene.fails(&args, 7);
    assert!(said.contains("ann"), "{said}");
    assert!(!said.contains("incorrect horse"), "{said}");
}

#[test]
fn an_unknown_host_is_refused_and_accepted_on_request() {
    let scene = Scene::new();
    let said = scene.fails(&["ls", &scene.remote("")], 8);
    assert!(said.contains("SHA256:"), "{said}");
    assert!(
        !scene.path("home/.ssh/known_hosts").exists(),
        "a refused key is not remembered"
    );
    assert!(
        scene
            .ketch(&["ls", "--accept-new", &scene.remote("")])
            .status
            .success()
    );
    assert!(
        scene.ketch(&["ls", &scene.remote("")]).status.success(),
        "it is remembered"
    );
}

#[test]
fn a_changed_host_key_is_refused_even_with_accept_new() {
    let mut scene = Scene::trusted();
    scene.server.kill().unwrap();
    scene.server.wait().unwrap();
    fs::remove_file(scene.path("host_key")).unwrap();
    let (server, address) = serve(&scene.dir);
    scene.server = server;
    // The new server has another port: put that into the old line.
    let known = scene.path("home/.ssh/known_hosts");
    let line = fs::read_to_string(&known).unwrap();
    let line = line.replace(
        &scene.address.port().to_string(),
        &address.port().to_string(),
    );
    fs::write(&known, &line).unwrap();
    scene.address = address;
    for flags in [&[][..], &["--accept-new"]] {
        let said = scene.fails(&[&["ls", &scene.remote("")][..], flags].concat(), 8);
        assert!(said.contains("known_hosts"), "{said}");
    }
    assert_eq!(
        fs::read_to_string(&known).unwrap(),
        line,
        "nothing is overwritten"
    );
}

#[test]
fn a_missing_remote_file_is_named() {
    let scene = Scene::trusted();
    for args in [&["get"][..], &["get", "-r"], &["ls"], &["listen"]] {
        let remote = scene.remote("no/such.csv");
        let said = scene.fails(&[args, &[remote.as_str()]].concat(), 3);
        assert!(said.contains("such.csv"), "{said}");
    }
    assert!(scene.local_names().is_empty());
}

#[test]
fn an_unwritable_local_directory_is_named() {
    let scene = Scene::trusted();
    fs::write(scene.path("root/a.csv"), "a").unwrap();
    // Nobody creates files there, not even root.
    let said = scene.fails(&["get", &scene.remote("a.csv"), "/sys/ketch-test.csv"], 4);
    assert!(said.contains("/sys"), "{said}");
    let said = scene.fails(
        &["get", &scene.remote("a.csv"), "no-such-directory/a.csv"],
        3,
    );
    assert!(said.contains("no-such-directory"), "{said}");
}

#[test]
fn a_missing_local_file_is_named() {
    let scene = Scene::trusted();
    let said = scene.fails(&["put", "no-such.csv", &scene.remote("")], 3);
    assert!(said.contains("no-such.csv"), "{said}");
}

#[test]
fn a_server_that_dies_in_mid_transfer_ends_it() {
    let mut scene = Scene::trusted();
    // Sparse: large enough that no machine is through before the server is killed.
    File::create(scene.path("root/large"))
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    let mut get = scene.command(&["get", &scene.remote("large")]);
    let get = get
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while scene.local_names().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    scene.server.kill().unwrap();
    failure(&get.wait_with_output().unwrap(), 10);
    assert!(!scene.local_names().contains(&"large".to_owned()));
}

#[test]
fn a_server_that_stops_answering_ends_in_a_timeout() {
    let scene = Scene::trusted();
    File::create(scene.path("root/large"))
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    // A busy machine may be as silent before the server is stopped.
    let begin = |time: &&str| {
        let mut get = scene.command(&["get", "--timeout", time, &scene.remote("large")]);
        let get = get.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut get = get.spawn().unwrap();
        while scene.local_names().is_empty() {
            if get.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Some(get)
    };
    let get = ["2s", "15s", "60s"].iter().find_map(begin);
    let get = get.expect("it begins");
    let server = scene.server.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-STOP", &server])
            .status()
            .unwrap()
            .success()
    );
    failure(&get.wait_with_output().unwrap(), 11);
    assert!(!scene.local_names().contains(&"large".to_owned()));
}

#[test]
fn an_interrupted_transfer_leaves_no_temporary_file() {
    let scene = Scene::trusted();
    File::create(scene.path("root/large"))
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    File::create(scene.path("local/huge"))
        .unwrap()
        .set_len(64 << 30)
        .unwrap();
    let names = |dir: &str| fs::read_dir(scene.path(dir)).unwrap().count();
    let (from, to) = (scene.remote("large"), scene.remote(""));
    // Holes would not be sent at all.
    let put = ["put", "--sparse", "never", "huge", &to];
    for (command, dir) in [(&["get", &from, "."][..], "local"), (&put, "root")] {
        let mut transfer = scene.command(command);
        let transfer = transfer
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while names(dir) < 2 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let id = transfer.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        let said = failure(&transfer.wait_with_output().unwrap(), 130);
        assert_eq!(said, "interrupted");
        assert_eq!(names(dir), 1, "{command:?}");
    }
}

#[test]
fn nobody_there_is_said() {
    let mut scene = Scene::trusted();
    // Its port is taken, so no other test's server can come to be there, and nobody listens.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind(([127, 0, 0, 1], 0).into()).unwrap();
    scene.address = nobody.local_addr().unwrap();
    let said = scene.fails(&["ls", &scene.remote("")], 10);
    assert!(said.contains("127.0.0.1"), "{said}");
}

#[test]
fn a_listener_that_is_no_ssh_server_is_said() {
    let scene = Scene::trusted();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let output = scene.ketch(&["ls", &format!("sftp://ann@{address}/")]);
    let code = output.status.code().unwrap();
    assert!(code == 10 || code == 12, "{output:?}");
    failure(&output, code);
    answer.join().unwrap();
}

#[test]
fn arguments_that_make_no_sense_are_told_before_anything_is_connected() {
    let scene = Scene::trusted();
    for args in [
        &["get", "just-a-name"][..],
        &["get", "sftp://ann:secret@host/x"],
        &["get", "sftp://ann@host:22/x", "-P", "23"],
        &["get", "ann@host:/"],
        &["put", ".", "ann@host:/"],
        &["ls", "sftp://-oProxyCommand=x/"],
    ] {
        scene.fails(args, 2);
    }
}

#[test]
fn a_directory_is_not_got_without_r() {
    let scene = Scene::trusted();
    fs::create_dir(scene.path("root/in")).unwrap();
    let said = scene.fails(&["get", &scene.remote("in")], 2);
    assert_eq!(said, "/in is a directory: use -r");
    assert!(scene.local_names().is_empty());
}

#[test]
fn a_file_is_not_put_into_a_file() {
    let scene = Scene::trusted();
    fs::write(scene.path("root/a"), "old").unwrap();
    fs::write(scene.path("local/b"), "new").unwrap();
    let said = scene.fails(&["put", "b", &scene.remote("a/")], 2);
    assert_eq!(said, "/a/ is not a directory");
    assert_eq!(fs::read(scene.path("root/a")).unwrap(), b"old");
}

#[test]
fn each_file_of_many_that_fails_is_named() {
    let scene = Scene::trusted();
    fs::create_dir(scene.path("root/in")).unwrap();
    for name in ["a", "b"] {
        fs::write(scene.path("root/in").join(name), name).unwrap();
    }
    // There is a directory where the file should go.
    fs::create_dir_all(scene.path("local/in/b/x")).unwrap();
    let output = scene.ketch(&["get", "-r", &scene.remote("in")]);
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert!(!output.status.success() && lines.len() == 2, "{said}");
    assert!(
        lines[0].starts_with("ketch: ") && lines[0].contains("in/b"),
        "{said}"
    );
    assert_eq!(lines[1], "ketch: 1 of 2 could not be transferred");
    assert_eq!(fs::read(scene.path("local/in/a")).unwrap(), b"a");
}

#[test]
fn a_read_only_server_says_so() {
    let scene = Scene::trusted();
    fs::write(scene.path("local/a"), "a").unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args([
            "serve",
            "--read-only",
            "--listen",
            "127.0.0.1:0",
            "--user",
            "ann",
            "--root",
        ])
        .arg(scene.path("root"))
        .arg("--password-file")
        .arg(scene.path("password"))
        .arg("--host-key")
        .arg(scene.path("host_key"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = listening(&mut server);
    let output = scene.ketch(&[
        "put",
        "--accept-new",
        "a",
        &format!("sftp://ann@{address}/"),
    ]);
    server.kill().unwrap();
    server.wait().unwrap();
    failure(&output, 4);
    assert!(!scene.path("root/a").exists());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let scene = Scene::new();
    let password = scene.path("password");
    let serve = |flags: &[&str], root: &str, code| {
        let output = Command::new(env!("CARGO_BIN_EXE_ketch"))
            .args(["serve", "--user", "ann", "--listen", "127.0.0.1:0"])
            .arg("--root")
            .arg(scene.path(root))
            .args(flags)
            .env("XDG_STATE_HOME", scene.path("state"))
            .output()
            .unwrap();
        failure(&output, code)
    };
    let password = ["--password-file", password.to_str().unwrap()];
    assert!(serve(&password, "no-such-root", 3).contains("no-such-root"));
    assert!(serve(&["--password-file", "no-such-file"], "root", 3).contains("no-such-file"));
    assert!(serve(&["--authorized-keys", password[1]], "root", 13).contains("line 1"));
    let taken = scene.address.to_string();
    let flags = [&password[..], &["--listen", &taken]].concat();
    let output = Command::new(env!("CARGO_BIN_EXE_ketch"))
        .args(["serve", "--user", "ann", "--root"])
        .arg(scene.path("root"))
        .args(flags)
        .env("XDG_STATE_HOME", scene.path("state"))
        .output()
        .unwrap();
    assert!(failure(&output, 13).contains(&taken));
}
