//! What observers are told of connections, through the whole transport.
#![cfg(unix)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ketch_server::{
    Answer, Call, Event, FileSystem, MemoryFileSystem, Observer, Penalties, Server, Timeouts, User,
    Work, blocking, generate_host_key,
};
use ketch_transport::auth::Credential;
use ketch_transport::config::ClientConfig;
use ketch_transport::driver::{
    ChannelStream, CloseReason, ConnectionHandle, Login, LoginEvent, RefuseAll, stream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeroize::Zeroizing;

/// Writes everything down that is about connections.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn has(&self, line: &str) -> bool {
        self.0.lock().unwrap().iter().any(|told| told == line)
    }

    /// Waits for a line; it is the test's own time-out that ends this if it never comes.
    async fn until(&self, line: &str) {
        while !self.has(line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        let who = event.who();
        assert!(who.peer.starts_with("127.0.0.1:"), "{who}");
        let user = who.user.as_deref().unwrap_or("-");
        let detail = match event {
            Event::Refused { why, .. } => why.name().to_owned(),
            Event::LoginRefused { user, method, .. } => format!("{user:?} {method}"),
            Event::LoggedIn { method, .. } => (*method).to_owned(),
            Event::Penalised { offence, .. } => (*offence).to_owned(),
            _ => String::new(),
        };
        let line = format!("{} {user} {} {detail}", who.connection, event.name());
        self.0.lock().unwrap().push(line.trim_end().to_owned());
    }
}

async fn log_in(
    address: std::net::SocketAddr,
    user: &str,
    passwords: &[&str],
) -> Result<ConnectionHandle, CloseReason> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut login = Login::client(stream, ClientConfig::new(user))?;
    let mut passwords = passwords.iter();
    loop {
        match login.next().await? {
            LoginEvent::HostKey(_) => login.accept_host_key()?,
            LoginEvent::AuthWanted { .. } => {
                let Some(password) = passwords.next() else {
                    return Err(CloseReason::Requested);
                };
                let password = Zeroizing::new((*password).to_owned());
                login.authenticate(&Credential::Password(password))?;
            }
            LoginEvent::Authenticated { .. } => break,
            _ => {}
        }
    }
    let (handle, connection) = login.run(Box::new(RefuseAll));
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    tokio::spawn(connection);
    Ok(handle)
}

#[tokio::test]
async fn a_visit_is_told_from_its_beginning_to_its_end() {
    let told = Arc::new(Told::default());
    let anna = User::with_file_system("anna", Arc::new(MemoryFileSystem::new())).password("right");
    let mut penalties = Penalties::default();
    penalties.auth_fail = Duration::from_secs(100);
    let server = Server::builder()
        .host_key(generate_host_key().unwrap())
        .user(anna)
        .penalties(penalties)
        .observer(Arc::clone(&told) as Arc<dyn Observer>)
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = server.clone();
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    let serving = tokio::spawn(async move { serving.serve(listener).await });

    let connection = log_in(address, "anna", &["wrong", "right"]).await.unwrap();
    let (mut channel, application) = stream();
    connection
        .open_session("sftp", 1 << 20, application)
        .await
        .unwrap();
    // A greeting, of version 3, and its answer.
    channel
        .write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3])
        .await
        .unwrap();
    channel.read_exact(&mut [0; 9]).await.unwrap();
    connection.disconnect();
    told.until("1 anna disconnected").await;

    assert!(log_in(address, "eve\n", &["guess"]).await.is_err());
    told.until("2 - disconnected").await;
    // It owes 100 s now: nobody else comes in from there.
    assert!(log_in(address, "anna", &["right"]).await.is_err());
    told.until("3 - refused penalty").await;

    let lines = told.0.lock().unwrap().clone();
    let expected = [
        "1 - connected",
        "1 - login-refused \"anna\" password",
        "1 anna logged-in password",
        "1 anna session-opened",
        "1 anna session-closed",
        "1 anna disconnected",
        "2 - connected",
        "2 - login-refused \"eve\\n\" password",
        "2 - penalised authfail",
        "2 - disconnected",
        "3 - refused penalty",
    ];
    assert_eq!(lines, expected);
    server.shutdown();
    serving.await.unwrap().unwrap();
}

/// Panics where it is asked for anything: in place, or on a thread.
#[derive(Debug)]
struct Broken {
    in_place: bool,
}

impl FileSystem for Broken {
    fn try_call(&self, _: &Call) -> std::io::Result<Answer> {
        assert!(!self.in_place, "as it was built to");
        Err(std::io::ErrorKind::WouldBlock.into())
    }

    fn call(self: Arc<Self>, _: Call) -> Work<Answer> {
        blocking(|| panic!("as it was built to"))
    }
}

/// Asks for what is known of `/`; whether there was an answer.
async fn ask(channel: &mut ChannelStream) -> bool {
    // `STAT`, number 7, of "/".
    let request = [0, 0, 0, 10, 17, 0, 0, 0, 7, 0, 0, 0, 1, b'/'];
    let mut head = [0; 4];
    if channel.write_all(&request).await.is_err() || channel.read_exact(&mut head).await.is_err() {
        return false;
    }
    let mut rest = vec![0; u32::from_be_bytes(head) as usize];
    channel.read_exact(&mut rest).await.is_ok()
}

/// A session, greeted, if the connection lasts until then.
async fn session(connection: &ConnectionHandle) -> Option<ChannelStream> {
    let (mut channel, application) = stream();
    let opened = connection.open_session("sftp", 1 << 20, application);
    opened.await.ok()?;
    let greeting = [0, 0, 0, 5, 1, 0, 0, 0, 3];
    channel.write_all(&greeting).await.ok()?;
    let mut head = [0; 4];
    channel.read_exact(&mut head).await.ok()?;
    let mut rest = vec![0; u32::from_be_bytes(head) as usize];
    channel.read_exact(&mut rest).await.ok()?;
    Some(channel)
}

#[tokio::test]
async fn a_panic_leaves_other_connections_alone_and_keeps_its_source_out() {
    for (in_place, is_answered) in [(true, false), (false, true)] {
        let told = Arc::new(Told::default());
        let anna =
            User::with_file_system("anna", Arc::new(MemoryFileSystem::new())).password("right");
        let bob = User::with_file_system("bob", Arc::new(Broken { in_place })).password("right");
        let server = Server::builder()
            .host_key(generate_host_key().unwrap())
            .user(anna)
            .user(bob)
            .observer(Arc::clone(&told) as Arc<dyn Observer>)
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { serving.serve(listener).await });

        let first = log_in(address, "anna", &["right"]).await.unwrap();
        let mut files = session(&first).await.unwrap();
        let second = log_in(address, "bob", &["right"]).await.unwrap();
        let mut broken = session(&second).await.unwrap();
        assert_eq!(ask(&mut broken).await, is_answered, "{in_place}");
        told.until("2 bob panicked").await;
        told.until("2 bob penalised crash").await;
        assert!(ask(&mut files).await, "others go on");
        assert!(log_in(address, "anna", &["right"]).await.is_err());
        told.until("3 - refused penalty").await;
        assert!(ask(&mut files).await, "who is in stays in");
        drop((broken, second));
        told.until("2 bob disconnected").await;
        server.shutdown();
    }
}

/// Who is logged in and opens no session, or has closed the only one, takes a place all the same.
#[tokio::test]
async fn a_connection_without_a_session_ends_when_it_was_idle_for_long() {
    // A session has to be opened within that time, which a busy machine may take its time for.
    for seconds in [2, 10, 60] {
        let told = Arc::new(Told::default());
        let files = Arc::new(MemoryFileSystem::new());
        let mut timeouts = Timeouts::default();
        timeouts.idle = Duration::from_secs(seconds);
        let server = Server::builder()
            .host_key(generate_host_key().unwrap())
            .user(User::with_file_system("anna", files).password("right"))
            .timeouts(timeouts)
            .observer(Arc::clone(&told) as Arc<dyn Observer>)
            .build()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = server.clone();
        #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
        tokio::spawn(async move { serving.serve(listener).await });
        let first = log_in(address, "anna", &["right"]).await.unwrap();
        told.until("1 anna disconnected").await;
        let second = log_in(address, "anna", &["right"]).await.unwrap();
        let Some(channel) = session(&second).await else {
            continue;
        };
        told.until("2 anna session-closed").await;
        told.until("2 anna disconnected").await;
        drop((first, second, channel));
        server.shutdown();
        return;
    }
    panic!("no session was opened within a minute");
}
