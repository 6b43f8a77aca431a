//! A server whose descriptors run out, because clients open files and because they connect: what is
//! refused is said, everything else goes on, and what is let go can be had again. The server is a
//! process of its own, which may have few.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use ketch_protocol::{Mkdir, Opendir, Remove, Rename};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::*;

/// Set in that process: the directory that it serves.
const CHILD: &str = "KETCH_TEST_FEW_DESCRIPTORS_ROOT";
const NAME: &str =
    "descriptors::files_that_are_opened_without_end_are_refused_and_all_else_goes_on";
const DESCRIPTORS: u64 = 64;
/// More than that: connections.
const CONNECTS: usize = 100;

/// Serves until nobody wants it any more.
fn child(root: &std::ffi::OsStr) {
    let few = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(DESCRIPTORS),
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut limits = ketch_server::ServerLimits::default();
    limits.half_open_per_source_max = CONNECTS;
    limits.half_open_start = CONNECTS;
    let anna = User::new("anna", root).password(PASSWORD);
    let builder = Server::builder().host_key(host_key()).user(anna);
    let server = builder.limits(limits).without_penalties().build().unwrap();
    runtime.block_on(async {
        let (address, serving) = listening(&server).await;
        println!("\naddress {address}");
        let unwanted =
            tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        tokio::select! {
            ended = serving => panic!("{ended:?}"),
            _ = unwanted => {}
        }
    });
}

async fn come(address: SocketAddr) -> Result<ConnectionHandle, CloseReason> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    log_in(socket, "anna", vec![Try::Password(PASSWORD)]).await
}

async fn open_new(client: &mut Client, name: &str) -> Got {
    let open = Open {
        path: name.as_bytes(),
        flags: OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE,
        attrs: Attrs::NONE.into(),
    };
    client.ask(open).await
}

const REFUSED: Got = Got::Status(StatusCode::FAILURE);
const DONE: Got = Got::Status(StatusCode::OK);
const TEXT: &str = "too many files are open on this server";

/// What needs no descriptor for long is done.
async fn works(client: &mut Client, name: &str) {
    let (made, renamed) = (format!("/d/{name}"), format!("/d/{name}-renamed"));
    let mkdir = Mkdir {
        path: made.as_bytes(),
        attrs: Attrs::NONE.into(),
    };
    assert_eq!(client.ask(mkdir).await, DONE);
    let rename = Rename {
        from: made.as_bytes(),
        to: renamed.as_bytes(),
    };
    assert_eq!(client.ask(rename).await, DONE);
    let path = renamed.as_bytes();
    assert!(matches!(client.ask(Stat { path }).await, Got::Size(_)));
    let removed = client.ask(ketch_protocol::Rmdir { path }).await;
    assert_eq!(removed, DONE);
}

#[tokio::test]
async fn files_that_are_opened_without_end_are_refused_and_all_else_goes_on() {
    if let Some(root) = std::env::var_os(CHILD) {
        // It has a runtime of its own.
        return std::thread::spawn(move || child(&root)).join().unwrap();
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("d")).unwrap();
    // What stood there is not emptied by an open that is refused.
    std::fs::write(root.path().join("before"), "before").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", NAME])
        .env(CHILD, root.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    // The harness of tests writes into the same line.
    let address = lines.find_map(|line| Some(line.split_once("address ")?.1.to_owned()));
    let address: SocketAddr = address.unwrap().parse().unwrap();

    let connections = [come(address).await.unwrap(), come(address).await.unwrap()];
    let mut greedy = Client::open(&connections[0]).await.unwrap();
    let mut beside = Client::open(&connections[0]).await.unwrap();
    let mut apart = Client::open(&connections[1]).await.unwrap();
    let mut handles = Vec::new();
    let refused = loop {
        match open_new(&mut greedy, &format!("/f{}", handles.len())).await {
            Got::Handle(handle) => handles.push(handle),
            other => break other,
        }
    };
    assert_eq!((refused, &greedy.said[..]), (REFUSED, TEXT));
    assert!((20..60).contains(&handles.len()), "{}", handles.len());
    // It was not made either.
    assert!(!root.path().join(format!("f{}", handles.len())).exists());

    for round in 0..3 {
        for (n, client) in [&mut greedy, &mut beside, &mut apart]
            .into_iter()
            .enumerate()
        {
            assert_eq!(open_new(client, "/before").await, REFUSED);
            assert_eq!(client.said, TEXT);
            assert_eq!(client.ask(Opendir { path: b"/" }).await, REFUSED);
            works(client, &format!("{round}-{n}")).await;
        }
        for (n, handle) in handles.iter().enumerate() {
            let data = format!("{n}").into_bytes();
            let (offset, len) = (0, 100);
            let write = Write {
                handle,
                offset,
                data: &data,
            };
            assert_eq!(greedy.ask(write).await, DONE);
            let read = Read {
                handle,
                offset,
                len,
            };
            assert_eq!(greedy.ask(read).await, Got::Data(data));
        }
        // Somebody comes, whom no file keeps out, and can do everything but open one.
        let visitor = come(address).await.unwrap();
        let mut client = Client::open(&visitor).await.unwrap();
        works(&mut client, "visitor").await;
        assert_eq!(open_new(&mut client, "/before").await, REFUSED);
        visitor.disconnect();
    }
    assert_eq!(
        std::fs::read(root.path().join("before")).unwrap(),
        b"before"
    );

    // Nothing at all is left: those who come are turned away, and those who are there are answered.
    let mut crowd = Vec::new();
    for _ in 0..CONNECTS {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // Each is greeted or closed: it was taken.
        let _ = stream.read(&mut [0]).await;
        crowd.push(stream);
    }
    for client in [&mut greedy, &mut beside, &mut apart] {
        assert_eq!(client.ask(Stat { path: b"/none" }).await, REFUSED);
        assert_eq!(client.said, TEXT);
        assert_eq!(open_new(client, "/before").await, REFUSED);
    }
    assert!(come(address).await.is_err());
    drop(crowd);
    let visitor = loop {
        // The server has to hear first that they left.
        if let Ok(visitor) = come(address).await {
            break visitor;
        }
    };
    works(&mut Client::open(&visitor).await.unwrap(), "late").await;
    works(&mut greedy, "late").await;

    // What is closed can be opened by anybody.
    for handle in handles.drain(..3) {
        assert_eq!(greedy.ask(Close { handle: &handle }).await, DONE);
    }
    let mut again = Vec::new();
    for client in [&mut greedy, &mut beside, &mut apart] {
        let Got::Handle(handle) = open_new(client, "/again").await else {
            panic!("{}", client.said);
        };
        again.push(handle);
    }
    let remove = Remove { path: b"/again" };
    assert_eq!(apart.ask(remove).await, DONE);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
