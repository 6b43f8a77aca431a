//! The real peers are real: sshd and sftp from the system talk to each other here, so that a test
//! elsewhere that fails with one of them fails because of ketch.

use std::net::TcpStream;
use std::time::Duration;

use ketch_conformance::PeerError;
use ketch_conformance::content::{Sha256, random_file};
use ketch_conformance::openssh::{
    KeyPair, OpenSshClient, OpenSshConfig, OpenSshServer, SftpProgram, batch_word,
};
use ketch_conformance::process::Process;

const MIB: u64 = 1024 * 1024;

fn round_trip(server: &OpenSshServer, client: &OpenSshClient, len: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let hash = random_file(&path("here"), len).unwrap();
    let word = |name: &str| batch_word(&path(name)).unwrap();
    let batch = format!(
        "put {} {}\nget {} {}\n",
        word("here"),
        word("the re"),
        word("the re"),
        word("back")
    );
    let run = client.batch(&batch).unwrap().check();
    run.unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
    assert_eq!(Sha256::of_file(&path("the re")).unwrap(), hash);
    assert_eq!(Sha256::of_file(&path("back")).unwrap(), hash);
}

#[test]
fn a_file_goes_up_and_down_with_the_chosen_cipher() {
    let server = OpenSshServer::start(OpenSshConfig {
        ciphers: Some("aes256-gcm@openssh.com".into()),
        ..OpenSshConfig::default()
    })
    .unwrap();
    round_trip(&server, &OpenSshClient::to(&server), MIB + 1);
    let other = OpenSshClient::to(&server)
        .option("Ciphers=aes128-ctr")
        .batch("pwd\n")
        .unwrap();
    assert!(other.stderr.contains("no matching cipher"), "{other:?}");
}

#[test]
fn new_keys_are_made_when_the_configuration_says_so() {
    let server = OpenSshServer::start(OpenSshConfig {
        rekey_limit: Some("1M".into()),
        log_level: "DEBUG1".into(),
        ..OpenSshConfig::default()
    })
    .unwrap();
    round_trip(&server, &OpenSshClient::to(&server), 8 * MIB);
    let exchanges = server.log().matches("SSH2_MSG_NEWKEYS received").count();
    assert!(exchanges >= 8, "{exchanges} key exchanges");
}

#[test]
fn sessions_start_where_they_are_told_to_with_either_program() {
    for sftp in [SftpProgram::Internal, SftpProgram::External] {
        let dir = tempfile::tempdir().unwrap();
        let start_directory = Some(dir.path().to_owned());
        let server = OpenSshServer::start(OpenSshConfig {
            sftp: sftp.clone(),
            start_directory,
            ..Default::default()
        });
        let server = server.unwrap();
        let run = OpenSshClient::to(&server)
            .batch("pwd\n")
            .unwrap()
            .check()
            .unwrap();
        let place = dir.path().canonicalize().unwrap().display().to_string();
        assert!(run.stdout.contains(&place), "{sftp:?}: {run:?}");
    }
}

#[test]
fn only_authorized_keys_log_in() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate(&dir.path().join("locked"), Some("open sesame")).unwrap();
    let client = OpenSshClient::to(&server)
        .identity(key.private())
        .password("open sesame");
    let refused = client.batch("pwd\n").unwrap();
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
    server.authorize(&key).unwrap();
    client.batch("pwd\n").unwrap().check().unwrap();
}

#[test]
fn a_wrong_password_is_a_clear_no() {
    let server = OpenSshServer::start(OpenSshConfig {
        password_authentication: true,
        ..OpenSshConfig::default()
    })
    .unwrap();
    let client = OpenSshClient::new(server.addr(), server.user()).password("surely not this");
    let run = client.batch("pwd\n").unwrap();
    assert!(run.stderr.contains("Permission denied"), "{run:?}");
    assert!(server.log().contains("Failed password"), "{}", server.log());
}

#[test]
fn an_unknown_host_key_is_refused_by_the_real_client() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let other = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let client = OpenSshClient::to(&server).known_hosts(&other.known_hosts());
    let run = client.batch("pwd\n").unwrap();
    assert!(
        run.stderr.contains("Host key verification failed"),
        "{run:?}"
    );
}

#[test]
fn a_killed_server_is_gone_with_its_connections() {
    let mut server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let client = OpenSshClient::to(&server).limit(Duration::from_secs(60));
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    // `!` runs a local command in the middle of the batch: a session that is open for long.
    let (pid, ready_word) = (dir.path().join("pid"), ready.display());
    let batch = format!(
        "!echo $$ > {0} && mv {0} {ready_word} && exec sleep 600\npwd\n",
        pid.display()
    );
    let running = std::thread::spawn(move || client.batch(&batch));
    while !ready.exists() {
        assert!(!running.is_finished(), "sftp ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    let family = server.process().descendants();
    assert!(!family.is_empty());
    server.suspend_sftp();
    server.resume_sftp();
    let addr = server.addr();
    server.kill();
    // The port is anybody's now: another test's server may be there for a while.
    let is_refused = |_| {
        std::thread::sleep(Duration::from_millis(5));
        TcpStream::connect(addr).is_err()
    };
    assert!((0..24_000).any(is_refused), "nobody listens any more");
    // The sleep is sftp's child, not sshd's: end it, and sftp finds out.
    let sleep: u32 = std::fs::read_to_string(&ready)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    Process::from_id(sleep).kill_tree();
    let run = running.join().unwrap().unwrap();
    // Whichever it notices first: that nothing more comes, or that nobody takes its goodbye.
    let noticed = ["closed by remote host", "Broken pipe"];
    assert!(
        noticed.iter().any(|said| run.stderr.contains(said)),
        "{run:?}"
    );
}

#[test]
fn the_time_of_finished_connections_is_counted() {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    let before = server.process().cpu_time().unwrap();
    let dir = tempfile::tempdir().unwrap();
    random_file(&dir.path().join("big"), 128 * MIB).unwrap();
    let big = batch_word(&dir.path().join("big")).unwrap();
    OpenSshClient::to(&server)
        .batch(&format!("get {big} /dev/null\n"))
        .unwrap();
    while !server.process().children().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let spent = server.process().cpu_time().unwrap() - before;
    assert!(
        spent >= Duration::from_millis(20),
        "{spent:?} for sending 128 MiB"
    );
}

#[test]
fn a_configuration_that_sshd_refuses_is_told_with_its_words() {
    let lines = vec!["NoSuchKeyword yes".into()];
    let error = OpenSshServer::start(OpenSshConfig {
        lines,
        ..OpenSshConfig::default()
    })
    .unwrap_err();
    let PeerError::Failed { said, .. } = error else {
        panic!("{error}")
    };
    assert!(said.contains("NoSuchKeyword"), "{said}");
}
