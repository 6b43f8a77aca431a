//! Programs, carried connections, forwarded ports and channels that are used early, with the driver
//! on both sides (RFC 4254 §6 and §7).

#![expect(clippy::disallowed_methods, reason = "the tests of a driver own tasks")]

mod ends;

use std::sync::{Arc, Mutex};

use ends::{Ends, Programs, WINDOW, host_key, join, log_in_server};
use ketch_keys::PublicKey;
use ketch_transport::auth::Credential;
use ketch_transport::config::{ClientConfig, ServerConfig};
use ketch_transport::driver::{
    Acceptor, Application, CloseReason, ForwardError, Login, LoginEvent, OpenError, RefuseAll,
    process, stream,
};
use ketch_transport::event::{Exit, Refusal};
use ketch_transport::session::{Pty, SessionStart, Tcpip, WindowSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

#[tokio::test]
async fn a_program_hears_of_its_surroundings_and_says_how_it_ended() {
    let ends = join(10_000).await;
    let start = SessionStart::exec("work")
        .env("OK_A", "1")
        .env("NOT_B", "2")
        .env("OK_C", "3")
        .pty(Pty::new("vt100", 80, 24));
    let (mut program, application) = process();
    ends.client
        .open_session(start, WINDOW, application)
        .await
        .unwrap();
    program.resize(WindowSize {
        columns: 10,
        rows: 5,
        ..WindowSize::default()
    });
    program.signal("USR1");
    let mut stdin = program.stdin.take().unwrap();
    stdin.write_all(&[1; 300_000]).await.unwrap();
    drop(stdin);
    let output = program.output(10_000).await.unwrap();
    assert_eq!(output.exit, Exit::Status(5));
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = r#"work [("OK_A", "1"), ("OK_C", "3")] Some("vt100") 300000"#;
    assert_eq!(said, expected);
    assert_eq!(output.stderr, b"10x5;USR1;");

    let (mut program, application) = process();
    let start = SessionStart::exec("signal");
    ends.client
        .open_session(start, WINDOW, application)
        .await
        .unwrap();
    let exit = program.wait().await.unwrap();
    let (name, message) = ("TERM".to_owned(), "so it is".to_owned());
    let core_dumped = true;
    assert_eq!(
        exit,
        Exit::Signal {
            name,
            core_dumped,
            message
        }
    );
}

#[tokio::test]
async fn what_a_server_does_not_give_is_refused_by_its_name() {
    let ends = join(10_000).await;
    for (start, refusal) in [
        (SessionStart::exec("none"), Refusal::Exec),
        (
            SessionStart::shell().pty(Pty::new("none", 1, 1)),
            Refusal::Pty,
        ),
        (SessionStart::subsystem("none"), Refusal::Subsystem),
    ] {
        let (_program, application) = process();
        let outcome = ends.client.open_session(start, WINDOW, application).await;
        assert!(
            matches!(&outcome, Err(OpenError::Refused(seen)) if *seen == refusal),
            "{outcome:?}"
        );
    }
    let (_stream, application) = stream();
    let outcome = ends
        .client
        .open_direct_tcpip(Tcpip::to("elsewhere", 1), WINDOW, application)
        .await;
    assert!(
        matches!(
            outcome,
            Err(OpenError::Refused(Refusal::Channel { reason: 1, .. }))
        ),
        "{outcome:?}"
    );
    let (_program, application) = process();
    let long = SessionStart::exec(vec![b'x'; 100_000]);
    let outcome = ends.client.open_session(long, WINDOW, application).await;
    assert!(matches!(outcome, Err(OpenError::TooLong)), "{outcome:?}");
    Ends::echoes(&mut ends.open("echo").await, 1_000).await;
}

#[tokio::test]
async fn connections_are_carried_and_pings_answered() {
    let ends = join(10_000).await;
    let (mut channel, application) = stream();
    ends.client
        .open_direct_tcpip(Tcpip::to("echo", 7), WINDOW, application)
        .await
        .unwrap();
    Ends::echoes(&mut channel, 200_000).await;
    for _ in 0..20 {
        ends.client.ping().await.unwrap();
    }
}

#[tokio::test]
async fn forwarded_ports_lead_to_who_asked_until_they_are_cancelled() {
    let ends = join(10_000).await;
    let (sender, mut incoming) = mpsc::unbounded_channel();
    let target = Box::new(move |at: Tcpip| {
        let (channel, application) = stream();
        sender.send((channel, at.originator_port)).ok()?;
        Some(application as Box<dyn Application>)
    });
    let port = ends.client.request_forward("localhost", 0, target).await;
    assert_eq!(port.unwrap(), 4_000);
    let refused = ends
        .client
        .request_forward("elsewhere", 80, Box::new(|_| None))
        .await;
    assert!(matches!(refused, Err(ForwardError::Refused)), "{refused:?}");

    let at = Tcpip::to("127.0.0.1", 4_000).originator("192.0.2.1", 1234);
    let (mut there, application) = stream();
    ends.server
        .open_forwarded_tcpip(at.clone(), WINDOW, application)
        .await
        .unwrap();
    let (mut here, originator) = incoming.recv().await.unwrap();
    assert_eq!(originator, 1234);
    there.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    here.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");

    let (_there, application) = stream();
    let other = Tcpip::to("localhost", 4_001);
    let refused = ends
        .server
        .open_forwarded_tcpip(other, WINDOW, application)
        .await;
    assert!(matches!(refused, Err(OpenError::Refused(_))), "{refused:?}");

    ends.client
        .cancel_forward("localhost", 4_000)
        .await
        .unwrap();
    let (_there, application) = stream();
    let refused = ends
        .server
        .open_forwarded_tcpip(at, WINDOW, application)
        .await;
    assert!(matches!(refused, Err(OpenError::Refused(_))), "{refused:?}");
    let unknown = ends.client.cancel_forward("localhost", 4_000).await;
    assert!(
        matches!(unknown, Err(ForwardError::NotForwarded)),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn the_first_channel_is_used_before_it_is_open() {
    let ends = join(10_000).await;
    let (mut channel, application) = stream();
    let first = ends.client.early().unwrap();
    let opened = first.open_session("echo", WINDOW, application).unwrap();
    Ends::echoes(&mut channel, 100_000).await;
    opened.opened().await.unwrap();
    assert!(ends.client.early().is_none(), "it was the first");

    // Refused, whoever uses it learns why.
    let ends = join(10_000).await;
    let (mut channel, application) = stream();
    let first = ends.client.early().unwrap();
    let opened = first.open_session("none", WINDOW, application).unwrap();
    let refused = opened.opened().await;
    assert!(
        matches!(refused, Err(OpenError::Refused(Refusal::Subsystem))),
        "{refused:?}"
    );
    let mut nothing = Vec::new();
    assert!(channel.read_to_end(&mut nothing).await.is_err());
    Ends::echoes(&mut ends.open("echo").await, 1_000).await;
}

/// Logs in with a channel behind each password, the first of which may be wrong.
async fn log_in_early(passwords: &[&str]) -> Vec<Result<(), OpenError>> {
    let (ours, theirs) = tokio::io::duplex(10_000);
    let server = tokio::task::spawn(async {
        let login = Login::server(theirs, ServerConfig::new([host_key()])).unwrap();
        let login = log_in_server(login).await.unwrap();
        let (collected, _received) = mpsc::unbounded_channel();
        login.run(Box::new(Programs { collected })).1.await;
    });
    let mut login = Login::client(ours, ClientConfig::new("ann")).unwrap();
    let (mut channels, mut opening) = (Vec::new(), Vec::new());
    let mut passwords = passwords.iter();
    loop {
        match login.next().await.unwrap() {
            LoginEvent::HostKey(_) => login.accept_host_key().unwrap(),
            LoginEvent::AuthWanted { .. } => {
                let password = (*passwords.next().unwrap()).to_owned();
                let credential = Credential::Password(Zeroizing::new(password));
                login.authenticate(&credential).unwrap();
                let (channel, application) = stream();
                let early = login.open_early("echo", WINDOW, application).unwrap();
                opening.push(early.expect("the time is right"));
                channels.push(channel);
            }
            LoginEvent::Authenticated { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    let (handle, task) = login.run(Box::new(RefuseAll));
    let task = tokio::task::spawn(task);
    let mut last = channels.pop().unwrap();
    Ends::echoes(&mut last, 50_000).await;
    for mut void in channels {
        let mut nothing = Vec::new();
        assert!(void.read_to_end(&mut nothing).await.is_err());
    }
    assert!(handle.early().is_none());
    let mut outcomes = Vec::new();
    for early in opening {
        outcomes.push(early.opened().await.map(drop));
    }
    handle.disconnect();
    task.await.unwrap();
    server.await.unwrap();
    outcomes
}

#[tokio::test]
async fn a_channel_travels_behind_the_request_to_log_in() {
    let outcomes = log_in_early(&["secret"]).await;
    assert!(matches!(outcomes[..], [Ok(())]), "{outcomes:?}");
}

#[tokio::test]
async fn keys_that_a_server_tells_are_proved_to_who_asks() {
    struct Curious(Arc<Mutex<Vec<PublicKey>>>, mpsc::UnboundedSender<()>);
    impl Acceptor for Curious {
        fn subsystem(&mut self, _name: &str) -> Option<Box<dyn Application>> {
            None
        }
        fn host_keys_offered(&mut self, keys: &[PublicKey]) -> Vec<PublicKey> {
            keys.to_vec()
        }
        fn host_keys_proved(&mut self, keys: Vec<PublicKey>) {
            *self.0.lock().unwrap() = keys;
            let _ = self.1.send(());
        }
    }
    let (ours, theirs) = tokio::io::duplex(10_000);
    let server = tokio::task::spawn(async {
        let mut config = ServerConfig::new([host_key()]);
        config.announce_host_keys = true;
        let login = Login::server(theirs, config).unwrap();
        let login = log_in_server(login).await.unwrap();
        let (_handle, task) = login.run(Box::new(RefuseAll));
        task.await;
    });
    let login = Login::client(ours, ClientConfig::new("ann")).unwrap();
    let login = ends::log_in_client(login, "secret").await.unwrap();
    let (proved, (done, mut told)) = (Arc::default(), mpsc::unbounded_channel());
    let (handle, task) = login.run(Box::new(Curious(Arc::clone(&proved), done)));
    let task = tokio::task::spawn(task);
    told.recv().await.unwrap();
    assert_eq!(*proved.lock().unwrap(), [host_key().public_key().clone()]);
    handle.disconnect();
    task.await.unwrap();
    server.await.unwrap();
    let closed = handle.close_reason().unwrap();
    assert!(matches!(*closed, CloseReason::Requested));
}
