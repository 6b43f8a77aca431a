//! What the client of a hostile SFTP server holds, over a real connection: both ends are ketch's own
//! up to the subsystem, and what is in it lies, floods, stretches and delays.
//!
//! Every scene says what becomes of the client's work, and the heap of the whole process, both ends
//! of the connection and the stream between, stays within a bound. One test without a harness,
//! because the profiler counts for the whole process.
#![expect(clippy::disallowed_methods, reason = "a test owns time and tasks")]

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use ketch_client::{
    Connect, GetOptions, PeerMisbehaved, PutOptions, ReadDir, Session, Sftp, SftpError,
    hostkey::HostKeys,
};
use ketch_server::{Application, ChannelStream, generate_host_key, stream};
use ketch_transport::{
    auth::Method,
    config::ServerConfig,
    driver::{Acceptor, Login, LoginEvent},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PASSWORD: &str = "correct horse";
/// What has not happened after this time will not.
const PATIENCE: Duration = Duration::from_secs(60);
/// Heap of both ends beside what the client holds of answers: receive arenas, outgoing buffers and
/// queues, the duplex stream's, and the server's own packets.
const HEAP_AROUND: usize = 8 << 20;
/// What the client may hold of answers.
const HEAP_OF_ANSWERS: usize = 17 << 20;

/// Numbers of packets (draft-ietf-secsh-filexfer-02 §3).
const OPEN: u8 = 3;
const READ: u8 = 5;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED: u8 = 200;
const OK: u32 = 0;
const EOF: u32 = 1;

/// About the longest packet that the client takes.
const LONG: usize = 250 * 1024;

/// A request, as the server sees it.
#[derive(Clone, Copy, Debug)]
struct Asked {
    kind: u8,
    id: u32,
    /// How many of its kind came before it.
    nth: usize,
    /// Bytes that a READ asks for.
    len: u32,
}

/// What the server does with a request.
enum Does {
    /// What it should.
    Honest,
    /// It sends this.
    Sends(Vec<u8>),
    /// It sends this over and over.
    Floods(Vec<u8>),
    /// It answers as it should, when so many requests wait.
    Waits(usize),
    /// It sends a list of long names to each, when so many requests wait.
    WaitsAndSwells(usize),
}

type Manner = fn(Asked) -> Does;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        lies_end_what_they_are_told_to().await;
        listings_without_end_are_read_without_end().await;
        listings_that_swell_are_not_held().await;
        long_answers_to_many_calls_are_not_held().await;
        transfers_that_are_given_up_leave_nothing().await;
    });
}

/// Each lie ends the work that met it, with an error, and is not paid for in memory.
async fn lies_end_what_they_are_told_to() {
    let lies: &[(&str, Manner)] = &[
        ("an id that nobody asked for", |asked| match asked.kind {
            OPEN => Does::Sends(status(asked.id.wrapping_add(77), OK)),
            _ => Does::Honest,
        }),
        ("a flood of such", |asked| match asked.kind {
            OPEN => Does::Floods(data(0xffff_0000, LONG)),
            _ => Does::Honest,
        }),
        ("a flood of what is no answer", |asked| match asked.kind {
            OPEN => Does::Floods(packet(EXTENDED, 1, &vec![7; LONG])),
            _ => Does::Honest,
        }),
        ("a handle for attributes", |asked| match asked.kind {
            STAT | LSTAT => Does::Sends(packet(HANDLE, asked.id, &string(b"x"))),
            _ => Does::Honest,
        }),
        ("names for a handle", |asked| match asked.kind {
            OPEN => Does::Sends(names(asked.id, 900, 200)),
            _ => Does::Honest,
        }),
        ("a handle without end", |asked| match asked.kind {
            OPEN => Does::Sends(packet(HANDLE, asked.id, &string(&vec![7; LONG]))),
            _ => Does::Honest,
        }),
        ("a packet of four gigabytes", |asked| match asked.kind {
            OPEN => Does::Sends(vec![0xff, 0xff, 0xff, 0xf0, HANDLE, 0, 0, 0, 0]),
            _ => Does::Honest,
        }),
        ("a packet of nothing", |asked| match asked.kind {
            OPEN => Does::Sends(vec![0; 4]),
            _ => Does::Honest,
        }),
        ("data of four gigabytes", |asked| match asked.kind {
            READ => {
                let mut packet = packet(DATA, asked.id, &[0xff, 0xff, 0xff, 0xff]);
                packet.extend([7; 100]);
                packet[3] += 100;
                Does::Sends(packet)
            }
            _ => Does::Honest,
        }),
        ("a byte too much", |asked| match asked.kind {
            READ => Does::Sends(data(asked.id, asked.len as usize + 1)),
            _ => Does::Honest,
        }),
        ("data of no bytes", |asked| match asked.kind {
            READ => Does::Sends(data(asked.id, 0)),
            _ => Does::Honest,
        }),
        (
            "names that are counted and do not come",
            |asked| match asked.kind {
                READDIR => Does::Sends(packet(NAME, asked.id, &0xffff_fff0_u32.to_be_bytes())),
                STAT | LSTAT => Does::Sends(attributes(asked.id, 0o040_755)),
                _ => Does::Honest,
            },
        ),
        ("success in place of names", |asked| match asked.kind {
            READDIR => Does::Sends(status(asked.id, OK)),
            STAT | LSTAT => Does::Sends(attributes(asked.id, 0o040_755)),
            _ => Does::Honest,
        }),
        ("a greeting once more", |asked| match asked.kind {
            OPEN => Does::Floods(vec![0, 0, 0, 5, 2, 0, 0, 0, 3]),
            _ => Does::Honest,
        }),
    ];
    for &(lie, manner) in lies {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("f");
        let (session, sftp) = connect(manner).await;
        within(lie, HEAP_AROUND, async {
            let options = GetOptions::new().recursive(lie.contains("names"));
            let result = sftp.get("/f", &to, options).await;
            // A file that ends at its first byte, and does so twice, is empty whatever was said.
            match lie {
                "data of no bytes" => assert_eq!(result.unwrap().bytes, 0),
                _ => assert!(result.is_err(), "{lie}"),
            }
        })
        .await;
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert!(left <= usize::from(to.exists()), "{lie}");
        session.disconnect().await;
    }
}

async fn listings_without_end_are_read_without_end() {
    let (session, sftp) = connect(|asked| match asked.kind {
        READDIR => Does::Sends(names(asked.id, 900, 240)),
        _ => Does::Honest,
    })
    .await;
    within("a listing without end", HEAP_AROUND, async {
        let mut directory = sftp.read_dir("/d");
        let mut seen = 0;
        while seen < 50_000 {
            let entries = directory.next_entries().await.unwrap().unwrap();
            seen += entries.iter().count();
        }
    })
    .await;
    // Who does not read on does not have it pile up.
    within("a listing that nobody reads on", HEAP_AROUND, async {
        let mut directory = sftp.read_dir("/d");
        directory.next().await.unwrap().unwrap();
        settle(&sftp).await;
    })
    .await;
    session.disconnect().await;
}

/// Over a long path many requests are under way ahead of the reader, as many as short answers allow:
/// and then they are long.
async fn listings_that_swell_are_not_held() {
    const AHEAD: usize = 192;
    const SHORT: usize = 40;
    let swells: Manner = |asked| match (asked.kind, asked.nth) {
        (READDIR, 0..SHORT) => Does::Sends(names(asked.id, 1, 10)),
        (READDIR, _) => Does::WaitsAndSwells(AHEAD),
        _ => Does::Honest,
    };
    let (session, sftp) = connect_far(swells, Duration::from_millis(3)).await;
    let most = HEAP_AROUND + HEAP_OF_ANSWERS;
    within("a listing that swells", most, async {
        let mut directory = sftp.read_dir("/d");
        for _ in 0..SHORT {
            directory.next().await.unwrap().unwrap();
        }
        // The reader looks once more, so that requests leave, and then at nothing until all came.
        look_at(&mut directory).await;
        settle(&sftp).await;
        let mut answers = 0;
        let error = loop {
            match directory.next_entries().await.unwrap() {
                Ok(_) => answers += 1,
                Err(error) => break error,
            }
        };
        let SftpError::Misbehaved { source, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(matches!(**source, PeerMisbehaved::TooManyNames { .. }));
        assert!(answers < AHEAD, "{answers}");
        // Others on the channel go on.
        sftp.stat("/f").await.unwrap();
    })
    .await;
    session.disconnect().await;
}

async fn long_answers_to_many_calls_are_not_held() {
    const CALLS: usize = 60;
    let (session, sftp) = connect(|asked| match asked.kind {
        REALPATH => Does::WaitsAndSwells(CALLS),
        _ => Does::Honest,
    })
    .await;
    within("long answers to many calls", HEAP_AROUND, async {
        let mut calls: Vec<_> = (0..CALLS)
            .map(|n| {
                let sftp = sftp.clone();
                Box::pin(async move { sftp.canonicalize(format!("{n}")).await })
            })
            .collect();
        // All are asked, and nobody looks at an answer before the last one is here.
        poll_fn(|cx| {
            for call in &mut calls {
                let _ = call.as_mut().poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        settle(&sftp).await;
        for call in calls {
            drop(call.await);
        }
    })
    .await;
    session.disconnect().await;
}

/// Answers that come after their transfer was given up are passed over, and nothing grows.
async fn transfers_that_are_given_up_leave_nothing() {
    let (session, sftp) = connect(|asked| match asked.kind {
        READ | OPEN => Does::Waits(40),
        _ => Does::Honest,
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, vec![7; 3_000_000]).unwrap();
    within("transfers that are given up", HEAP_AROUND, async {
        for round in 0..60 {
            let to = dir.path().join("to");
            let get = sftp.get("/f", &to, GetOptions::new());
            let put = sftp.put(&source, "/up", PutOptions::new());
            let limit = Duration::from_millis(2 + round % 7);
            let _ = tokio::time::timeout(limit, async { tokio::join!(get, put) }).await;
        }
    })
    .await;
    session.disconnect().await;
}

/// Polls a listing once.
async fn look_at(directory: &mut ReadDir) {
    let mut next = Box::pin(directory.next_entries());
    poll_fn(|cx| {
        let _ = next.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

/// Waits until what was sent has come: a question behind all others is answered.
async fn settle(sftp: &Sftp) {
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(20), sftp.lstat("/x")).await;
    }
}

/// Does `work`, and sees how much heap that takes.
async fn within(what: &str, most: usize, work: impl Future<Output = ()>) {
    let profiler = dhat::Profiler::builder().testing().build();
    let began = std::time::Instant::now();
    let done = tokio::time::timeout(PATIENCE, work).await;
    assert!(done.is_ok(), "{what}: no end");
    let peak = dhat::HeapStats::get().max_bytes;
    println!("{what}: {} KiB, {:?}", peak / 1024, began.elapsed());
    drop(profiler);
    assert!(peak <= most, "{what}: {peak} bytes of heap");
}

async fn connect(manner: Manner) -> (Session, Sftp) {
    connect_far(manner, Duration::ZERO).await
}

/// As [`connect`], to a server that thinks for so long before it answers.
async fn connect_far(manner: Manner, pause: Duration) -> (Session, Sftp) {
    let (ours, theirs) = tokio::io::duplex(256 * 1024);
    let mut config = ServerConfig::new([Arc::new(generate_host_key().unwrap().into())]);
    config.common.timers.keepalive = None;
    let host_key = config.host_keys[0].public_key().clone();
    tokio::spawn(async move {
        let mut login = Login::server(theirs, config).unwrap();
        loop {
            match login.next().await.unwrap() {
                LoginEvent::Attempt(attempt) => match attempt.method {
                    Method::Password(password) if *password == PASSWORD => {
                        login.accept_auth().unwrap();
                    }
                    _ => login.reject_auth().unwrap(),
                },
                LoginEvent::Authenticated { .. } => {
                    let (_handle, connection) = login.run(Box::new(Liar { manner, pause }));
                    return connection.await;
                }
                other => panic!("{other:?}"),
            }
        }
    });
    let session = Connect::to("server.test")
        .user("ann")
        .password(PASSWORD.to_owned())
        .host_keys(HostKeys::only([host_key]))
        .connect_over(ours)
        .await
        .unwrap();
    let sftp = session.sftp().await.unwrap();
    (session, sftp)
}

/// Starts the subsystem.
struct Liar {
    manner: Manner,
    pause: Duration,
}

impl fmt::Debug for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Liar")
    }
}

impl Acceptor for Liar {
    fn subsystem(&mut self, name: &str) -> Option<Box<dyn Application>> {
        assert_eq!(name, "sftp");
        let (channel, application) = stream();
        let (from, to) = tokio::io::split(channel);
        tokio::spawn(serve(from, to, self.manner, self.pause));
        Some(application)
    }
}

/// Answers until the channel is gone.
async fn serve(
    mut from: ReadHalf<ChannelStream>,
    mut to: WriteHalf<ChannelStream>,
    manner: Manner,
    pause: Duration,
) -> std::io::Result<()> {
    static HANDLES: AtomicUsize = AtomicUsize::new(0);
    let mut counts = [0; 256];
    let mut waiting: Vec<(u32, Option<Vec<u8>>)> = Vec::new();
    loop {
        let len = from.read_u32().await?;
        let mut body = vec![0; len as usize];
        from.read_exact(&mut body).await?;
        let kind = body[0];
        if kind == 1 {
            to.write_all(&[0, 0, 0, 5, 2, 0, 0, 0, 3]).await?;
            continue;
        }
        let asked = Asked {
            kind,
            id: u32::from_be_bytes(body[1..5].try_into().unwrap()),
            nth: counts[usize::from(kind)],
            len: body.last_chunk().map_or(0, |len| u32::from_be_bytes(*len)),
        };
        counts[usize::from(kind)] += 1;
        drop(body);
        let honest = || match kind {
            OPEN | OPENDIR => {
                let handle = HANDLES.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                packet(HANDLE, asked.id, &string(&handle))
            }
            STAT | LSTAT | FSTAT => attributes(asked.id, 0o100_644),
            READ => data(asked.id, asked.len as usize),
            READDIR => status(asked.id, EOF),
            REALPATH => names(asked.id, 1, 5),
            _ => status(asked.id, OK),
        };
        let does = manner(asked);
        if pause > Duration::ZERO && matches!(does, Does::Honest | Does::Sends(_)) {
            tokio::time::sleep(pause).await;
        }
        match does {
            Does::Honest => to.write_all(&honest()).await?,
            Does::Sends(bytes) => to.write_all(&bytes).await?,
            Does::Floods(bytes) => loop {
                to.write_all(&bytes).await?;
            },
            does @ (Does::Waits(most) | Does::WaitsAndSwells(most)) => {
                let honest = matches!(does, Does::Waits(_)).then(&honest);
                waiting.push((asked.id, honest));
                if waiting.len() >= most {
                    for (id, honest) in waiting.drain(..) {
                        // Made when it is sent, so that the server holds none of it.
                        let bytes = honest.unwrap_or_else(|| names(id, 900, 240));
                        to.write_all(&bytes).await?;
                    }
                }
            }
        }
    }
}

fn packet(kind: u8, id: u32, rest: &[u8]) -> Vec<u8> {
    let len = u32::try_from(5 + rest.len()).unwrap();
    let mut packet = len.to_be_bytes().to_vec();
    packet.push(kind);
    packet.extend(id.to_be_bytes());
    packet.extend_from_slice(rest);
    packet
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

fn status(id: u32, code: u32) -> Vec<u8> {
    let text = [string(b""), string(b"")].concat();
    packet(STATUS, id, &[&code.to_be_bytes()[..], &text].concat())
}

fn data(id: u32, len: usize) -> Vec<u8> {
    packet(DATA, id, &string(&vec![7; len]))
}

/// Size and permissions.
fn attributes(id: u32, mode: u32) -> Vec<u8> {
    let mut rest = 5_u32.to_be_bytes().to_vec();
    rest.extend((1_u64 << 30).to_be_bytes());
    rest.extend(mode.to_be_bytes());
    packet(ATTRS, id, &rest)
}

/// So many entries with names of so many bytes.
fn names(id: u32, count: u32, len: usize) -> Vec<u8> {
    let mut entry = string(&vec![b'n'; len]);
    entry.extend([0; 8]); // no line for people, no attributes
    let mut rest = count.to_be_bytes().to_vec();
    (0..count).for_each(|_| rest.extend_from_slice(&entry));
    packet(NAME, id, &rest)
}
