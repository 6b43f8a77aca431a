//! Programs, forwarding and the rest of the connection protocol against a real sshd (RFC 4254).
#![expect(clippy::disallowed_methods, reason = "a test is its own driver")]

use std::time::Duration;

use ketch_client::exec::{Exit, Program, Pty, TerminalMode, WaitError, WindowSize};
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::{Connect, OpenError, Session};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;
/// What has not happened after this time will not.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the user's shell does when it starts is none of this: it finds no file that says so.
const NO_START_FILES: &str = "SetEnv HOME=/nonexistent";

fn sshd(lines: &[&str], max_sessions: u32) -> OpenSshServer {
    let lines = lines.iter().chain([&NO_START_FILES]);
    OpenSshServer::start(OpenSshConfig {
        max_sessions,
        lines: lines.map(|&line| line.to_owned()).collect(),
        ..OpenSshConfig::default()
    })
    .unwrap()
}

fn way_to(server: &OpenSshServer) -> Connect {
    Connect::to(&server.addr().ip().to_string())
        .port(server.port())
        .user(server.user())
        .host_keys(HostKeys::files([server.known_hosts()]))
        .identity(Identity::from_file(server.identity().private()).unwrap())
}

async fn session(server: &OpenSshServer) -> Session {
    way_to(server).connect().await.unwrap()
}

async fn said(session: &Session, program: Program) -> String {
    let process = session.run(program).await.unwrap();
    let output = timeout(PATIENCE, process.output(MIB)).await.unwrap();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_go_through_a_command_both_ways_while_it_complains() {
    let server = sshd(&[], 10);
    let session = session(&server).await;
    // Beside the copy, as much again on stderr, which is read by nobody before the end.
    let mut process = session
        .exec("head -c 10485760 /dev/zero >&2 & cat; wait; exit 7")
        .await
        .unwrap();
    let sent: Vec<u8> = (0..=250).cycle().take(10 * MIB).collect();
    let mut stdin = process.stdin.take().unwrap();
    let mut stdout = process.stdout.take().unwrap();
    let mut stderr = process.stderr.take().unwrap();
    let copy = sent.clone();
    let writer = tokio::task::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    timeout(PATIENCE, stdout.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    writer.await.unwrap();
    assert!(received == sent, "{} bytes", received.len());
    let exit = timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
    assert_eq!(exit, Exit::Status(7));
    let mut complaints = Vec::new();
    stderr.read_to_end(&mut complaints).await.unwrap();
    let dropped = usize::try_from(stderr.dropped()).unwrap();
    assert_eq!(complaints.len() + dropped, 10 * MIB);
    assert!(dropped > 0 && complaints.len() >= MIB, "{dropped} dropped");

    // Whoever reads loses nothing.
    let process = session
        .exec("head -c 3000000 /dev/zero >&2; printf done")
        .await
        .unwrap();
    let output = timeout(PATIENCE, process.output(4 * MIB))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.exit, Exit::Status(0));
    assert_eq!((output.stdout.len(), output.stderr.len()), (4, 3_000_000));
}

#[tokio::test]
async fn signals_are_sent_and_told() {
    let server = sshd(&["LogLevel DEBUG1"], 10);
    let session = session(&server).await;
    let mut process = session.exec("kill -TERM $$").await.unwrap();
    let exit = timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
    let Exit::Signal {
        name, core_dumped, ..
    } = exit
    else {
        panic!("{exit:?}")
    };
    assert_eq!((name.as_str(), core_dumped), ("TERM", false));

    let mut process = session.exec("echo ready; exec sleep 600").await.unwrap();
    let mut stdout = process.stdout.take().unwrap();
    let mut line = [0; 6];
    stdout.read_exact(&mut line).await.unwrap();
    process.signal("TERM");
    // A session of root has no monitor that could deliver it: sshd says so, and that it came.
    let came = " req signal";
    let waiting = async {
        while !server.log().contains(came) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
    drop((process, stdout));
}

#[tokio::test]
async fn a_terminal_has_the_size_and_the_modes_that_were_asked_for() {
    let server = sshd(&[], 10);
    let session = session(&server).await;
    let pty = Pty::new("vt220", 101, 37).mode(TerminalMode::ECHO, 0);
    let stty = Program::exec("echo $TERM; stty size; stty -a").pty(pty.clone());
    let output = said(&session, stty).await;
    assert!(output.contains("vt220\r\n37 101\r\n"), "{output}");
    assert!(output.contains("-echo "), "{output}");

    // Waits until its size is another, and shows it.
    let watch = "echo ready; while [ \"$(stty size)\" = '37 101' ]; do sleep 0.05; done; stty size";
    let mut process = session.run(Program::exec(watch).pty(pty)).await.unwrap();
    let mut stdout = process.stdout.take().unwrap();
    let mut line = [0; 7];
    stdout.read_exact(&mut line).await.unwrap();
    process.resize(WindowSize {
        columns: 60,
        rows: 20,
        ..WindowSize::default()
    });
    let mut rest = String::new();
    let reading = stdout.read_to_string(&mut rest);
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert_eq!(rest, "20 60\r\n");
    process.wait().await.unwrap();
}

#[tokio::test]
async fn the_environment_holds_what_the_server_accepts() {
    let server = sshd(&["AcceptEnv KETCH_*"], 10);
    let session = session(&server).await;
    let env = Program::exec("echo $KETCH_A-$KETCH_B-$OTHER")
        .env("KETCH_A", "one two")
        .env("OTHER", "refused")
        .env("KETCH_B", "ü");
    assert_eq!(said(&session, env).await, "one two-ü-\n");
    let shell = session.shell().await.unwrap();
    let mut shell = shell;
    let mut stdin = shell.stdin.take().unwrap();
    stdin
        .write_all(b"echo from a shell\nexit 4\n")
        .await
        .unwrap();
    drop(stdin);
    let output = timeout(PATIENCE, shell.output(MIB)).await.unwrap().unwrap();
    assert_eq!(output.exit, Exit::Status(4));
    assert_eq!(output.stdout, b"from a shell\n");
}

#[tokio::test]
async fn sftp_and_fifty_commands_share_a_connection() {
    let server = sshd(&[], 50);
    let session = session(&server).await;
    let sftp = session.sftp().await.unwrap();
    sftp.stat("/").await.unwrap();
    for _ in 0..3 {
        let mut processes = Vec::new();
        for n in 0..49_u32 {
            // A channel is free when both sides have closed it.
            let opening = async {
                loop {
                    let command = format!("read line; echo $line; exit {n}");
                    match session.exec(command).await {
                        Err(OpenError::Refused(_)) => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        opened => break opened.unwrap(),
                    }
                }
            };
            processes.push(timeout(PATIENCE, opening).await.unwrap());
        }
        let refused = session.exec("true").await;
        assert!(matches!(refused, Err(OpenError::Refused(_))), "{refused:?}");
        for (n, mut process) in processes.into_iter().enumerate() {
            let mut stdin = process.stdin.take().unwrap();
            stdin
                .write_all(format!("line {n}\n").as_bytes())
                .await
                .unwrap();
            drop(stdin);
            let output = timeout(PATIENCE, process.output(MIB))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(output.exit, Exit::Status(u32::try_from(n).unwrap()));
            assert_eq!(output.stdout, format!("line {n}\n").into_bytes());
        }
    }
    sftp.stat("/").await.unwrap();
}

#[tokio::test]
async fn a_program_that_was_killed_with_its_connection_is_no_success() {
    let server = sshd(&[], 10);
    let session = session(&server).await;
    let mut process = session.exec("sleep 600").await.unwrap();
    server.kill_connections();
    let lost = timeout(PATIENCE, process.wait()).await.unwrap();
    assert!(matches!(lost, Err(WaitError::Lost(_))), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_carried_to_a_listener_and_through_another_server() {
    let server = sshd(&[], 10);
    let session = session(&server).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::task::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut from, mut to) = stream.into_split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
    });
    let stream = session.direct_tcpip("127.0.0.1", port).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..=252).cycle().take(3 * MIB).collect();
    let copy = sent.clone();
    let writer = tokio::task::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
        write
    });
    let mut received = Vec::new();
    let reading = read.read_to_end(&mut received);
    timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert!(received == sent, "{} bytes", received.len());
    drop(writer.await.unwrap());
    echo.await.unwrap();

    // Nobody listens there any more.
    let refused = session.direct_tcpip("127.0.0.1", port).await;
    assert!(matches!(refused, Err(OpenError::Refused(_))), "{refused:?}");

    let inner = sshd(&[], 10);
    let stream = session.direct_tcpip("127.0.0.1", inner.port()).await;
    let inside = way_to(&inner).connect_over(stream.unwrap()).await.unwrap();
    assert_eq!(
        said(&inside, Program::exec("echo inside")).await,
        "inside\n"
    );
}

#[tokio::test]
async fn a_port_of_the_server_leads_here_until_it_is_cancelled() {
    let server = sshd(&[], 10);
    let session = session(&server).await;
    let mut forward = session.forward_tcpip("localhost", 0).await.unwrap();
    let port = forward.port();
    assert_ne!(port, 0);
    for round in 0..3_u8 {
        let mut outside = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let incoming = timeout(PATIENCE, forward.accept()).await.unwrap();
        let mut stream = incoming.unwrap().stream;
        outside.write_all(&[round; 1000]).await.unwrap();
        let mut heard = [0; 1000];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [round; 1000]);
        stream.write_all(b"back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        outside.shutdown().await.unwrap();
        outside.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"back");
    }
    let again = session.forward_tcpip("localhost", port).await;
    assert!(again.is_err(), "it is taken: {again:?}");
    forward.cancel().await.unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    let forward = session.forward_tcpip("localhost", port).await.unwrap();
    assert_eq!(forward.port(), port);
}

#[tokio::test]
async fn after_no_more_sessions_there_are_none() {
    let server = sshd(&[], 10);
    let session = session(&server).await;
    let mut before = session.exec("read line; exit 3").await.unwrap();
    session.no_more_sessions();
    let refused = session.exec("true").await;
    assert!(
        matches!(refused, Err(OpenError::NoMoreSessions)),
        "{refused:?}"
    );
    let exit = timeout(PATIENCE, before.wait()).await.unwrap().unwrap();
    assert_eq!(exit, Exit::Status(3));
    let pinged = session.ping().await;
    assert!(pinged.is_err(), "OpenSSH 9.2 answers no pings");
}
