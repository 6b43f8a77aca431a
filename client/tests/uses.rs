//! Uses of the library that need a whole connection: blocking calls, servers on demand, folders.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test is its own driver")]

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ketch_client::blocking::{self, BlockingError};
use ketch_client::exec::Exit;
use ketch_client::hostkey::HostKeys;
use ketch_client::identity::Identity;
use ketch_client::operations::{
    AfterRead, Condition, Create, Folder, IfExists, NameTemplate, OperationError, Query, SortBy,
};
use ketch_client::{
    Connect, Control, Failure, GetOptions, Kind, OnDemand, OpenOptions, PutOptions, RateLimit,
    SyncOptions, WalkOptions,
};
use ketch_conformance::openssh::{OpenSshConfig, OpenSshServer};
use tokio::io::AsyncWriteExt;

fn server() -> (OpenSshServer, tempfile::TempDir) {
    let server = OpenSshServer::start(OpenSshConfig::default()).unwrap();
    (server, tempfile::tempdir().unwrap())
}

fn connect(server: &OpenSshServer) -> Connect {
    Connect::to("127.0.0.1")
        .port(server.port())
        .user(server.user())
        .identity(Identity::from_file(server.identity().private()).unwrap())
        .host_keys(HostKeys::files([server.known_hosts()]))
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

#[test]
fn everything_works_without_async() {
    let (server, dir) = server();
    let at = |name: &str| path(dir.path(), name);
    let session = blocking::Session::connect(connect(&server)).unwrap();
    let sftp = session.sftp().unwrap();
    sftp.create_dir_all(at("a/b")).unwrap();

    let content: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut file = sftp
        .open(at("a/file"), OpenOptions::writing().read())
        .unwrap();
    io::copy(&mut &content[..], &mut file).unwrap();
    file.seek(SeekFrom::Start(1_000_000)).unwrap();
    file.write_all(b"here").unwrap();
    file.seek(SeekFrom::Current(-4)).unwrap();
    let mut word = [0; 4];
    file.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"here");
    assert_eq!(file.read_at(2, 3).unwrap()[..], content[2..5]);
    assert_eq!(file.attrs().unwrap().size, Some(2_000_000));
    file.sync_all().unwrap();
    file.close().unwrap();
    let mut back = Vec::new();
    sftp.open(at("a/file"), OpenOptions::reading())
        .unwrap()
        .read_to_end(&mut back)
        .unwrap();
    assert!(back[..1_000_000] == content[..1_000_000] && &back[1_000_000..1_000_004] == b"here");

    let names: Vec<_> = sftp.read_dir(at("a")).unwrap().collect();
    assert_eq!(names.len(), 2);
    assert_eq!(sftp.walk(at(""), WalkOptions::new()).unwrap().count(), 3);
    assert_eq!(sftp.glob(at("*/f*")).unwrap().count(), 1);
    let error = sftp.stat(at("none")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let error = sftp.open(at("none"), OpenOptions::reading()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);

    // Programs, carried connections and forwarded ports.
    let output = session.exec("echo hello; exit 3").unwrap();
    let output = output.output(100).unwrap();
    assert_eq!(
        (&output.stdout[..], output.exit),
        (&b"hello\n"[..], Exit::Status(3))
    );
    let mut sort = session.exec("sort").unwrap();
    let mut stdin = sort.stdin.take().unwrap();
    stdin.write_all(b"b\na\n").unwrap();
    drop(stdin);
    let mut sorted = String::new();
    sort.stdout
        .take()
        .unwrap()
        .read_to_string(&mut sorted)
        .unwrap();
    assert_eq!(
        (sorted.as_str(), sort.wait().unwrap()),
        ("a\nb\n", Exit::Status(0))
    );
    let mut carried = session.direct_tcpip("127.0.0.1", server.port()).unwrap();
    let mut greeting = [0; 8];
    carried.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    let mut forward = session.forward_tcpip("localhost", 0).unwrap();
    let mut there = TcpStream::connect(("127.0.0.1", forward.port())).unwrap();
    let (mut read, mut write) = forward.next().unwrap().unwrap().stream.split();
    there.write_all(b"ping").unwrap();
    read.read_exact(&mut word).unwrap();
    write.write_all(b"pong").unwrap();
    write.shutdown().unwrap();
    let mut answer = Vec::new();
    there.read_to_end(&mut answer).unwrap();
    assert_eq!((&word, &answer[..]), (b"ping", &b"pong"[..]));
    forward.cancel().unwrap();

    // Whole directories, and transfers that another thread steers.
    let local = dir.path().join("local");
    let report = sftp.sync_down(at("a"), &local, SyncOptions::new()).unwrap();
    assert_eq!((report.copied, report.bytes), (1, 2_000_000));
    let items = [
        (local.join("file"), at("a/one").into()),
        (local.join("file"), at("a/two").into()),
    ];
    assert_eq!(sftp.put_all(items, PutOptions::new()).unwrap().files, 2);
    let (control, limit) = (Control::new(), RateLimit::new(2_000_000));
    control.pause();
    let options = GetOptions::new().control(control.clone()).limit(limit);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let get = scope.spawn(|| sftp.get(at("a/one"), dir.path().join("copy"), options));
        assert!(!dir.path().join("copy").exists());
        control.resume();
        let report = get.join().unwrap().unwrap();
        assert_eq!(report.bytes, 2_000_000);
    });
    // A bound from one side: what is slow for other reasons is no fault.
    assert!(began.elapsed() > Duration::from_millis(850));
    control.cancel();
    let options = GetOptions::new().control(control);
    let error = sftp
        .get(at("a/one"), dir.path().join("none"), options)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert!(fs::remove_dir_all(local).is_ok() && sftp.remove_file(at("a/one")).is_ok());
    sftp.remove_file(at("a/two")).unwrap();

    // Several threads at the same time.
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (sftp, at) = (sftp.clone(), &at);
            scope.spawn(move || {
                sftp.create_dir(at(&format!("a/{n}"))).unwrap();
            });
        }
    });
    assert_eq!(sftp.remove_all(at("a")).unwrap().directories, 6);

    // Where nothing may block it says so, and does not panic.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let error = sftp.stat(at("")).unwrap_err();
        assert!(matches!(error, BlockingError::InsideAsync), "{error}");
        let error = blocking::Session::connect(connect(&server)).unwrap_err();
        assert_eq!(error.kind(), Kind::Local);
    });
    session.disconnect().unwrap();
    let error = sftp.stat(at("")).unwrap_err();
    assert_eq!(error.kind(), Kind::Network);
}

#[tokio::test]
async fn a_connection_lasts_as_long_as_it_is_used() {
    let (server, dir) = server();
    let here = path(dir.path(), "");
    let on_demand = OnDemand::new(connect(&server));
    let (first, second) = tokio::join!(on_demand.open(), on_demand.open());
    let (first, second) = (first.unwrap(), second.unwrap());
    let session = first.session().clone();
    first.close().await;
    assert!(!session.is_closed(), "somebody uses it");
    second.stat(&here).await.unwrap();
    second.close().await;
    assert!(session.is_closed());
    // Asked again, it connects again.
    on_demand.check().await.unwrap();

    let kept = OnDemand::keep_for(connect(&server), Duration::from_millis(200));
    let first = kept.open().await.unwrap();
    let session = first.session().clone();
    drop(first);
    let second = kept.open().await.unwrap();
    assert!(!session.is_closed() && !second.session().is_closed());
    drop(second);
    session.closed().await;

    // One that was lost is made anew.
    let first = kept.open().await.unwrap();
    first.session().disconnect().await;
    let second = kept.open().await.unwrap();
    drop(first);
    second.stat(&here).await.unwrap();

    let nowhere = OnDemand::new(connect(&server).user("nobody-of-that-name"));
    assert_eq!(nowhere.check().await.unwrap_err().kind(), Kind::Auth);
}

#[tokio::test]
async fn a_long_file_goes_through_streams() {
    let (server, dir) = server();
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[2]).collect();
    fs::write(dir.path().join("from"), &content).unwrap();
    let session = connect(&server).connect().await.unwrap();
    let sftp = session.sftp().await.unwrap();
    let reading = OpenOptions::reading();
    let mut from = sftp.open(path(dir.path(), "from"), reading).await.unwrap();
    let writing = OpenOptions::writing();
    let mut to = sftp.open(path(dir.path(), "to"), writing).await.unwrap();
    let copied = tokio::io::copy(&mut from, &mut to).await.unwrap();
    to.shutdown().await.unwrap();
    assert_eq!(copied, 20_000_000);
    assert!(fs::read(dir.path().join("to")).unwrap() == content);
    // What the server refuses comes out of a stream, too.
    let mut full = sftp
        .open("/dev/full", OpenOptions::new().write())
        .await
        .unwrap();
    full.write_all(b"x").await.unwrap();
    assert!(full.shutdown().await.is_err());
    session.disconnect().await;
}

#[tokio::test]
async fn a_folder_does_what_integrations_ask_for() {
    let (server, dir) = server();
    let session = connect(&server).connect().await.unwrap();
    let sftp = session.sftp().await.unwrap();
    let folder = Folder::new(sftp.clone(), path(dir.path(), "in")).content_max(1000);
    let local = |name: &str| fs::read(dir.path().join("in").join(name));

    let new = Create::new();
    assert_eq!(
        folder
            .create("a.txt", b"1", new.clone())
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound,
        "the directory is not there"
    );
    let made = folder.upsert("a.txt", b"one", false).await.unwrap();
    assert_eq!((made.size, made.name), (Some(3), b"a.txt".to_vec()));
    let error = folder.create("a.txt", b"2", new.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
    folder.upsert("a.txt", b" and two", true).await.unwrap();
    assert_eq!(local("a.txt").unwrap(), b"one and two");
    folder.upsert("a.txt", b"three", false).await.unwrap();
    assert_eq!(local("a.txt").unwrap(), b"three");
    let number = new.clone().if_exists(IfExists::Number);
    for wanted in ["a1.txt", "a2.txt"] {
        let made = folder.create("a.txt", b"n", number.clone()).await.unwrap();
        assert_eq!(made.name, wanted.as_bytes());
    }
    fs::create_dir(dir.path().join("staging")).unwrap();
    let staged = new
        .clone()
        .temporary_extension(".part")
        .staging(path(dir.path(), "staging"))
        .permissions(0o600);
    folder.create("b.bin", b"staged", staged).await.unwrap();
    assert_eq!(local("b.bin").unwrap(), b"staged");
    assert_eq!(fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);

    // Names by templates: another one for the second, and a temporary one that nobody has.
    let by = |text: &str| NameTemplate::new(text).unwrap();
    let templates = new
        .clone()
        .if_exists(IfExists::Number)
        .named_by(by("$BASE.made.$EXTENSION"))
        .unique_by(by("$BASE-$UUID.$EXTENSION"))
        .temporary_by(by("$BASE.$NUMBER.part"));
    fs::write(dir.path().join("in/t.made.1.part"), "somebody's").unwrap();
    for unique_len in [0, 1 + 36] {
        let made = folder.create("t.xml", b"t", templates.clone()).await;
        let name = made.unwrap().name;
        assert_eq!(name.len(), "t.made.xml".len() + unique_len);
        assert!(folder.delete(&name).await.unwrap());
        if unique_len == 0 {
            fs::write(dir.path().join("in/t.made.xml"), "again").unwrap();
        }
    }
    for left in ["t.made.xml", "t.made.1.part"] {
        assert!(folder.delete(left).await.unwrap(), "{left}");
    }
    let evil = new.named_by(by(".."));
    let error = folder.create("t.xml", b"t", evil).await.unwrap_err();
    assert!(matches!(error, OperationError::BadName(_)), "{error}");

    fs::create_dir(dir.path().join("in/sub")).unwrap();
    fs::write(dir.path().join("in/sub/c.txt"), "c").unwrap();
    let names = |found: Vec<ketch_client::operations::FileInfo>| -> Vec<_> {
        let name = |file: ketch_client::operations::FileInfo| String::from_utf8(file.name);
        found.into_iter().map(|file| name(file).unwrap()).collect()
    };
    let all = Query::new(Condition::everything()).sort(SortBy::Path);
    let listed = names(folder.list(&all).await.unwrap());
    assert_eq!(listed, ["a.txt", "a1.txt", "a2.txt", "b.bin", "sub"]);
    let deep = all.clone().recursive(true).skip(4);
    assert_eq!(names(folder.list(&deep).await.unwrap()), ["sub", "c.txt"]);
    let contents = folder.query(&all).await.unwrap();
    assert_eq!(contents.len(), 4, "a directory has no content");
    assert_eq!(contents[3].content, b"staged");

    let read = folder.get("b.bin", AfterRead::Delete).await.unwrap();
    assert_eq!(read.content, b"staged");
    assert!(read.not_deleted.is_none() && local("b.bin").is_err());
    fs::write(dir.path().join("in/large"), vec![0; 2000]).unwrap();
    let error = folder.get("large", AfterRead::Keep).await.unwrap_err();
    assert!(
        matches!(error, OperationError::TooLarge { max: 1000, .. }),
        "{error}"
    );
    for wrong in ["", "..", "../a", "a/b"] {
        let error = folder.get(wrong, AfterRead::Keep).await.unwrap_err();
        assert!(matches!(error, OperationError::BadName(_)), "{error}");
    }
    assert!(folder.delete("a.txt").await.unwrap());
    assert!(!folder.delete("a.txt").await.unwrap());
    assert!(matches!(
        folder.delete("sub").await.unwrap_err(),
        OperationError::NotAFile(_)
    ));

    // The same on a server that is connected to for each call.
    let on_demand = Folder::new(OnDemand::new(connect(&server)), path(dir.path(), "in"));
    assert_eq!(on_demand.list(&all).await.unwrap().len(), 4);
    assert!(on_demand.delete("a1.txt").await.unwrap());
    session.disconnect().await;
}
