//! A connection that is lost in the middle of an upload: what stands under the name then, what beside
//! it, and what observers are told.

use std::path::Path;
use std::sync::Mutex;

use ketch_server::{Arrivals, Durability, Event, Observer};

use super::*;

const PIECE: usize = 32 * 1024;
const BEFORE: &[u8] = b"what was there before";

/// What came of files, and which connections are over.
#[derive(Debug, Default)]
struct Told {
    arrived: Mutex<Vec<Vec<u8>>>,
    /// Path, and whether it was closed.
    transferred: Mutex<Vec<(Vec<u8>, bool)>>,
}

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Arrived(file) => self.arrived.lock().unwrap().push(file.path.to_vec()),
            Event::Transferred(file) => {
                let told = (file.path.to_vec(), file.is_closed);
                self.transferred.lock().unwrap().push(told);
            }
            _ => {}
        }
    }
}

/// A server whose uploads arrive when they are closed, with a file in its tree.
fn server(root: &Path, durability: Option<Durability>) -> (Server, Arc<Told>) {
    std::fs::write(root.join("there"), BEFORE).unwrap();
    let anna = User::new("anna", root).password(PASSWORD);
    let anna = anna.arrivals(Arrivals::on_close());
    let anna = match durability {
        Some(durability) => anna.atomic_uploads(durability),
        None => anna,
    };
    let told = Arc::new(Told::default());
    let builder = Server::builder().host_key(host_key()).user(anna);
    let observed = builder.observer(Arc::clone(&told) as Arc<dyn Observer>);
    (observed.build().unwrap(), told)
}

/// How much of an upload has come when the connection is lost.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// Nothing but that it begins.
    Opened,
    /// Writes that were answered.
    Answered,
    /// More behind them, of which the last ends in the middle of its bytes.
    InMidWrite,
}

const WRITES: usize = 5;

/// Begins to upload to `name` over a line that is cut then; returns how many bytes were answered.
async fn lose(server: &Server, name: &str, content: &[u8], lost: Lost) -> usize {
    let (ours, near) = tokio::io::duplex(1 << 20);
    let (far, theirs) = tokio::io::duplex(1 << 20);
    let serving = server.clone();
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    let serving = tokio::spawn(async move { serving.serve_stream(theirs, "test").await });
    #[expect(clippy::disallowed_methods, reason = "a test drives both ends")]
    let line = tokio::spawn(async move {
        let (mut near, mut far) = (near, far);
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    });
    let connection = log_in(ours, "anna", vec![Try::Password(PASSWORD)]);
    let connection = connection.await.unwrap();
    let mut client = Client::open(&connection).await.unwrap();
    let open = Open {
        path: name.as_bytes(),
        flags: OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE,
        attrs: Attrs::NONE.into(),
    };
    let Got::Handle(handle) = client.ask(open).await else {
        panic!("{name} was not opened");
    };
    let mut answered = 0;
    let mut pieces = content.chunks(PIECE).enumerate().map(|(n, data)| Write {
        handle: &handle,
        offset: (n * PIECE) as u64,
        data,
    });
    if !matches!(lost, Lost::Opened) {
        for write in pieces.by_ref().take(WRITES) {
            assert_eq!(client.ask(write).await, Got::Status(StatusCode::OK));
            answered += write.data.len();
        }
    }
    if matches!(lost, Lost::InMidWrite) {
        for write in pieces {
            client.request(write);
        }
        let unsent = std::mem::take(&mut client.outgoing);
        let half = &unsent[..unsent.len() - PIECE / 2];
        client.stream.write_all(half).await.unwrap();
    }
    line.abort();
    assert!(line.await.unwrap_err().is_cancelled());
    // The server notices by itself, and is done with all of it then.
    let _ = serving.await.unwrap();
    answered
}

fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(name)
        .map(|name| name.into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// An upload that is whole arrives, and it is the only one.
async fn nothing_else_arrived(server: &Server, told: &Told) {
    let connection = connected(server, 1 << 16).await;
    let mut client = Client::open(&connection).await.unwrap();
    let handle = client.open_file("/whole").await;
    let write = Write {
        handle: &handle,
        offset: 0,
        data: b"whole",
    };
    assert_eq!(client.ask(write).await, Got::Status(StatusCode::OK));
    let close = Close { handle: &handle };
    assert_eq!(client.ask(close).await, Got::Status(StatusCode::OK));
    // It is told when it is hashed.
    while told.arrived.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    connection.disconnect();
    assert_eq!(*told.arrived.lock().unwrap(), [b"/whole"]);
}

const ALL: [Lost; 3] = [Lost::Opened, Lost::Answered, Lost::InMidWrite];

#[tokio::test]
async fn an_atomic_upload_that_is_cut_off_leaves_nothing() {
    let content = pattern(WRITES * PIECE * 2, 7);
    for durability in [Durability::None, Durability::Full] {
        let root = tempfile::tempdir().unwrap();
        let (server, told) = server(root.path(), Some(durability));
        for lost in ALL {
            for name in ["/there", "/new"] {
                lose(&server, name, &content, lost).await;
                // What a thread was writing in that moment is let go after the connection.
                while names(root.path()).len() > 1 {
                    assert!(!root.path().join("new").exists(), "{lost:?}");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                assert_eq!(names(root.path()), ["there"], "{lost:?} {name}");
                let there = std::fs::read(root.path().join("there")).unwrap();
                assert_eq!(there, BEFORE, "{lost:?} {name}");
                let last = told.transferred.lock().unwrap().pop();
                assert_eq!(last, Some((name.as_bytes().to_vec(), false)));
            }
        }
        nothing_else_arrived(&server, &told).await;
    }
}

/// The control: what was written is there, cut short, and nobody is told that it arrived.
#[tokio::test]
async fn an_upload_in_place_that_is_cut_off_is_there_as_far_as_it_came() {
    let content = pattern(WRITES * PIECE * 2, 7);
    let root = tempfile::tempdir().unwrap();
    let (server, told) = server(root.path(), None);
    for lost in ALL {
        for name in ["/there", "/new"] {
            let answered = lose(&server, name, &content, lost).await;
            let file = root.path().join(&name[1..]);
            let got = std::fs::read(&file).unwrap();
            assert!(content.starts_with(&got), "{lost:?} {name}");
            assert!(got.len() >= answered, "{lost:?} {name}: {}", got.len());
            assert!(got.len() < content.len(), "{lost:?} {name}");
            let last = told.transferred.lock().unwrap().pop();
            assert_eq!(last, Some((name.as_bytes().to_vec(), false)));
        }
    }
    assert_eq!(names(root.path()), ["new", "there"]);
    nothing_else_arrived(&server, &told).await;
}

/// A name that is there already, is being written, and that another file takes and arrives by.
#[tokio::test]
async fn an_atomic_upload_does_not_replace_what_has_arrived_meanwhile() {
    for durability in [Durability::None, Durability::Full] {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a"), BEFORE).unwrap();
        let arrivals = Arrivals::on_close().temporary_name("*.part").unwrap();
        let anna = User::new("anna", root.path()).password(PASSWORD);
        let anna = anna.arrivals(arrivals).atomic_uploads(durability);
        let server = Server::builder().host_key(host_key()).user(anna).build();
        let connection = connected(&server.unwrap(), 1 << 16).await;
        let mut client = Client::open(&connection).await.unwrap();
        let ok = Got::Status(StatusCode::OK);

        let mut handles = Vec::new();
        for path in [&b"/a"[..], b"/a.part"] {
            let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
            let attrs = Attrs::NONE.into();
            let Got::Handle(handle) = client.ask(Open { path, flags, attrs }).await else {
                panic!("it was not opened");
            };
            handles.push(handle);
        }
        let [late, part] = &handles[..] else {
            panic!("two handles")
        };
        let data = b"arrived";
        let (handle, offset) = (&part[..], 0);
        let write = Write {
            handle,
            offset,
            data,
        };
        assert_eq!(client.ask(write).await, ok);
        assert_eq!(client.ask(Close { handle }).await, ok);
        let (from, to) = (b"/a.part", b"/a");
        let rename = Extension::PosixRename(PosixRename { from, to });
        assert_eq!(client.ask(rename).await, ok);
        let closed = client.ask(Close { handle: late }).await;
        assert_eq!(closed, Got::Status(StatusCode::PERMISSION_DENIED));
        connection.disconnect();
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(std::fs::read(root.path().join("a")).unwrap(), data);
    }
}
