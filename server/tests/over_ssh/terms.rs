//! What holds for a user once in: bandwidth, quota, idle time, through the whole server. Time is
//! tokio's, held by the tests.

use ketch_server::{Bandwidth, Quota};
use tokio::time::Instant;

use super::*;

const MIB: usize = 1024 * 1024;
/// What a test waits for at most, in time that is held: it costs nothing.
const LONG: Duration = Duration::from_secs(3600);

fn server(files: &Arc<MemoryFileSystem>, terms: impl FnOnce(User) -> User) -> Server {
    let anna = User::with_file_system("anna", Arc::clone(files) as _).password(PASSWORD);
    let builder = Server::builder().host_key(host_key()).user(terms(anna));
    builder.build().unwrap()
}

/// Two sessions share what their user may have a second.
#[tokio::test(start_paused = true)]
async fn downloads_are_as_fast_as_may_be_in_all_sessions_together() {
    let files = Arc::new(MemoryFileSystem::new());
    let content = pattern(3 * MIB, 1);
    let path = VPath::resolve(b"/f").unwrap();
    files.put(&path, content.clone()).unwrap();
    let bandwidth = Bandwidth::default().download(MIB as u64);
    let server = server(&files, |anna| anna.bandwidth(bandwidth));
    let connections = [
        connected(&server, 1 << 16).await,
        connected(&server, 1 << 16).await,
    ];
    let start = Instant::now();
    let get = async |connection: &ConnectionHandle| {
        let mut client = Client::open(connection).await.unwrap();
        let handle = client.open_file("/f").await;
        let piece = 64 * 1024;
        for (n, expected) in content.chunks(piece).enumerate() {
            let read = Read {
                handle: &handle,
                offset: (n * piece) as u64,
                len: u32::try_from(piece).unwrap(),
            };
            assert_eq!(client.ask(read).await, Got::Data(expected.to_vec()));
        }
    };
    let both = async { tokio::join!(get(&connections[0]), get(&connections[1])) };
    tokio::time::timeout(LONG, both).await.unwrap();
    // 6 MiB, of which a burst and the last pieces are free.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(5600), "{took:?}");
    assert!(took <= Duration::from_secs(12), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn uploads_are_as_fast_as_may_be() {
    let files = Arc::new(MemoryFileSystem::new());
    let bandwidth = Bandwidth::default().upload(MIB as u64);
    let server = server(&files, |anna| anna.bandwidth(bandwidth));
    let connection = connected(&server, 1 << 16).await;
    let mut client = Client::open(&connection).await.unwrap();
    let start = Instant::now();
    let content = pattern(24 * MIB, 1);
    let whole = put_and_get(&mut client, "/f", &content, 65_536);
    tokio::time::timeout(LONG, whole).await.unwrap();
    // The window is free, and grows to 16 MiB: what came in it is paid for before there is more.
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(8), "{took:?}");
    assert!(took <= Duration::from_secs(40), "{took:?}");
    // Another channel has a window of its own, and no more before all is paid for.
    let mut other = Client::open(&connection).await.unwrap();
    let whole = put_and_get(&mut other, "/g", &content[..4 * MIB], 65_536);
    tokio::time::timeout(LONG, whole).await.unwrap();
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(24), "{took:?}");
}

#[tokio::test]
async fn more_than_the_quota_is_refused_and_what_is_removed_makes_room() {
    let files = Arc::new(MemoryFileSystem::new());
    let path = VPath::resolve(b"/there").unwrap();
    files.put(&path, vec![0; 600]).unwrap();
    let quota = Quota::of_bytes(1000);
    let server = server(&files, |anna| anna.quota(quota));
    let connection = connected(&server, 1 << 16).await;
    let mut client = Client::open(&connection).await.unwrap();
    let handle = client.open_file("/f").await;
    let (handle, data) = (&handle[..], &[1; 500][..]);
    let write = |offset| Write {
        handle,
        offset,
        data,
    };
    // However far it is from the start, and also before the tree is counted.
    let far = client.ask(write(501)).await;
    assert_eq!(far, Got::Status(StatusCode::FAILURE));
    // It is counted behind the session's back.
    let ok = Got::Status(StatusCode::OK);
    while client.ask(write(0)).await == ok {
        let attrs = Attrs {
            size: Some(0),
            ..Attrs::NONE
        };
        let empty = ketch_protocol::Fsetstat {
            handle,
            attrs: attrs.into(),
        };
        assert_eq!(client.ask(empty).await, ok);
        tokio::task::yield_now().await;
    }
    let remove = ketch_protocol::Remove { path: b"/there" };
    assert_eq!(client.ask(remove).await, ok);
    assert_eq!(client.ask(write(0)).await, ok);
}

/// Commands keep a session, and nothing else does.
#[tokio::test(start_paused = true)]
async fn a_session_is_idle_since_its_last_command() {
    let files = Arc::new(MemoryFileSystem::new());
    let minute = Duration::from_secs(60);
    let server = server(&files, |anna| anna.idle_timeout(minute));
    let connection = connected(&server, 1 << 16).await;
    let mut client = Client::open(&connection).await.unwrap();
    let start = Instant::now();
    for _ in 0..5 {
        tokio::time::sleep(minute * 9 / 10).await;
        let path = b"/none";
        let got = client.ask(Stat { path }).await;
        assert_eq!(got, Got::Status(StatusCode::NO_SUCH_FILE));
    }
    assert!(start.elapsed() > minute * 4);
    // A request of 100 bytes, one of them now and then.
    let last = Instant::now();
    let drip = async {
        for byte in [0, 0, 0, 100, 200]
            .into_iter()
            .chain([0].into_iter().cycle())
        {
            if client.stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(minute / 4).await;
        }
    };
    tokio::time::timeout(LONG, drip).await.unwrap();
    let open = last.elapsed();
    assert!(open >= minute && open <= minute * 2, "{open:?}");
}
