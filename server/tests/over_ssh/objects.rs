//! The example file system over an object store, through the whole server.

use ketch_protocol::{Mkdir, Opendir, PosixRename, Readdir, Remove, Rename, Rmdir};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;

#[path = "../../examples/object_store/files.rs"]
mod files;

/// So short that a small file has several.
const PART: usize = 64 * 1024;
const WRITE: usize = 20_000;

const DONE: Got = Got::Status(StatusCode::OK);
const FAILED: Got = Got::Status(StatusCode::FAILURE);
const MISSING: Got = Got::Status(StatusCode::NO_SUCH_FILE);
const UNSUPPORTED: Got = Got::Status(StatusCode::OP_UNSUPPORTED);

/// A store, and a client of a server that serves it.
async fn session() -> (Arc<InMemory>, ConnectionHandle, Client) {
    let store = Arc::new(InMemory::new());
    let files = files::ObjectFiles::new(Arc::clone(&store) as Arc<dyn ObjectStore>, PART);
    let anna = User::with_file_system("anna", Arc::new(files)).password(PASSWORD);
    let server = Server::builder().host_key(host_key()).user(anna).build();
    let connection = connected(&server.unwrap(), 1 << 20).await;
    let client = Client::open(&connection).await.unwrap();
    (store, connection, client)
}

async fn object(store: &InMemory, key: &str) -> Option<Vec<u8>> {
    let got = store.get(&Path::from(key)).await.ok()?;
    Some(got.bytes().await.unwrap().to_vec())
}

async fn open(client: &mut Client, path: &str, flags: OpenFlags) -> Got {
    let open = Open {
        path: path.as_bytes(),
        flags,
        attrs: Attrs::NONE.into(),
    };
    client.ask(open).await
}

async fn opened(client: &mut Client, path: &str, flags: OpenFlags) -> Vec<u8> {
    match open(client, path, flags).await {
        Got::Handle(handle) => handle,
        other => panic!("{path}: {other:?} {}", client.said),
    }
}

fn upload() -> OpenFlags {
    OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE
}

/// Everything but the `CLOSE`, all writes in flight at once.
async fn written(client: &mut Client, path: &str, content: &[u8]) -> Vec<u8> {
    let handle = opened(client, path, upload()).await;
    let mut ids = Vec::new();
    for (n, data) in content.chunks(WRITE).enumerate() {
        ids.push(client.request(Write {
            handle: &handle,
            offset: (n * WRITE) as u64,
            data,
        }));
    }
    for id in ids {
        assert_eq!(client.reply(id).await, DONE);
    }
    handle
}

async fn put(client: &mut Client, path: &str, content: &[u8]) {
    let handle = written(client, path, content).await;
    assert_eq!(client.ask(Close { handle: &handle }).await, DONE);
}

/// All of a file, by reads of odd length that are in flight at once.
async fn get(client: &mut Client, path: &str, len: usize) -> Vec<u8> {
    let handle = opened(client, path, OpenFlags::READ).await;
    let read = |offset: usize| Read {
        handle: &handle,
        offset: offset as u64,
        len: 33_333,
    };
    let offsets = (0..len).step_by(33_333);
    let ids: Vec<_> = offsets.map(|offset| client.request(read(offset))).collect();
    let end = client.request(read(len));
    let mut content = Vec::new();
    for id in ids {
        match client.reply(id).await {
            Got::Data(data) => content.extend_from_slice(&data),
            other => panic!("{other:?} {}", client.said),
        }
    }
    assert_eq!(client.reply(end).await, Got::Status(StatusCode::EOF));
    assert_eq!(client.ask(Close { handle: &handle }).await, DONE);
    content
}

async fn list(client: &mut Client, path: &str) -> Vec<String> {
    let path = path.as_bytes();
    let Got::Handle(handle) = client.ask(Opendir { path }).await else {
        panic!("{}", client.said);
    };
    let mut listed = Vec::new();
    while let Got::Names(names) = client.ask(Readdir { handle: &handle }).await {
        let names = names.into_iter();
        listed.extend(names.map(|name| String::from_utf8(name).unwrap()));
    }
    assert_eq!(client.ask(Close { handle: &handle }).await, DONE);
    listed.retain(|name| name != "." && name != "..");
    listed.sort();
    listed
}

async fn mkdir(client: &mut Client, path: &str) -> Got {
    let mkdir = Mkdir {
        path: path.as_bytes(),
        attrs: Attrs::NONE.into(),
    };
    client.ask(mkdir).await
}

#[tokio::test]
async fn objects_are_put_and_got_in_parts_and_ranges() {
    let (store, _connection, mut client) = session().await;
    for len in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART + 77] {
        let content = pattern(len, len);
        let handle = written(&mut client, "/file", &content).await;
        // Until it is closed, what was there before is.
        let before = object(&store, "file").await;
        assert!(before.is_none_or(|before| before.len() < len), "{len}");
        assert_eq!(client.ask(Close { handle: &handle }).await, DONE);
        assert!(object(&store, "file").await.unwrap() == content, "{len}");
        let path = b"/file";
        assert_eq!(client.ask(Stat { path }).await, Got::Size(len as u64));
        assert!(get(&mut client, "/file", len).await == content, "{len}");
    }
}

#[tokio::test]
async fn a_tree_is_made_of_keys() {
    let (store, _connection, mut client) = session().await;
    assert_eq!(mkdir(&mut client, "/in").await, DONE);
    assert_eq!(mkdir(&mut client, "/in").await, FAILED);
    assert_eq!(client.said, "already exists");
    assert_eq!(mkdir(&mut client, "/none/in").await, MISSING);
    put(&mut client, "/in/a", b"a").await;
    put(&mut client, "/in/b", b"b").await;
    assert_eq!(open(&mut client, "/in/a/x", upload()).await, MISSING);
    // Whoever else puts objects makes directories by that.
    store.put(&Path::from("x/y/z"), "z".into()).await.unwrap();
    assert_eq!(list(&mut client, "/").await, ["in", "x"]);
    assert_eq!(list(&mut client, "/in").await, ["a", "b"]);
    assert_eq!(list(&mut client, "/x").await, ["y"]);
    assert_eq!(client.ask(Stat { path: b"/x/y" }).await, Got::Size(0));
    assert_eq!(client.ask(Stat { path: b"/x/z" }).await, MISSING);
    assert_eq!(client.ask(Opendir { path: b"/in/a" }).await, MISSING);

    let rename = |from, to| Rename { from, to };
    assert_eq!(client.ask(rename(b"/in/a", b"/in/b")).await, FAILED);
    assert_eq!(client.said, "already exists");
    assert_eq!(client.ask(rename(b"/in/a", b"/x/a")).await, DONE);
    assert_eq!(client.ask(rename(b"/in/a", b"/x/a")).await, MISSING);
    assert_eq!(client.ask(rename(b"/in", b"/out")).await, UNSUPPORTED);
    for (from, to, expected) in [
        (&b"/x/a"[..], &b"/in/b"[..], DONE),
        (b"/in/b", b"/in/b", DONE),
        (b"/in/b", b"/x", FAILED),
    ] {
        let replace = Extension::PosixRename(PosixRename { from, to });
        assert_eq!(client.ask(replace).await, expected, "{}", client.said);
    }
    assert_eq!(object(&store, "in/b").await.unwrap(), b"a");
    assert_eq!(object(&store, "x/a").await, None);

    assert_eq!(client.ask(Rmdir { path: b"/in" }).await, FAILED);
    assert_eq!(client.said, "directory not empty");
    assert_eq!(client.ask(Remove { path: b"/in" }).await, FAILED);
    assert_eq!(client.ask(Remove { path: b"/in/b" }).await, DONE);
    assert_eq!(client.ask(Remove { path: b"/in/b" }).await, MISSING);
    // It was made, and stays without anything in it until it is removed.
    assert_eq!(list(&mut client, "/in").await, [""; 0]);
    assert_eq!(client.ask(Rmdir { path: b"/in" }).await, DONE);
    assert_eq!(list(&mut client, "/").await, ["x"]);
    let left = store.list_with_delimiter(None).await.unwrap();
    assert_eq!((left.objects.len(), left.common_prefixes.len()), (0, 1));
}

#[tokio::test]
async fn what_an_object_store_cannot_do_is_refused() {
    let (store, _connection, mut client) = session().await;
    put(&mut client, "/file", b"before").await;
    let content = pattern(3 * PART, 3);
    // A gap, and what was written once.
    for offset in [3 * PART + 1, 0] {
        let handle = written(&mut client, "/file", &content).await;
        let write = Write {
            handle: &handle,
            offset: offset as u64,
            data: b"more",
        };
        assert_eq!(client.ask(write).await, FAILED);
        assert!(client.said.contains("in order"), "{}", client.said);
        // It is not whole, and so it is nothing.
        assert_eq!(client.ask(Close { handle: &handle }).await, FAILED);
        assert_eq!(object(&store, "file").await.unwrap(), b"before");
    }
    for flags in [
        OpenFlags::WRITE,
        OpenFlags::WRITE | OpenFlags::APPEND,
        OpenFlags::READ | upload(),
    ] {
        let got = open(&mut client, "/file", flags).await;
        assert_eq!(got, UNSUPPORTED, "{flags:?}");
    }
    let new = upload() | OpenFlags::EXCLUSIVE;
    assert_eq!(open(&mut client, "/file", new).await, FAILED);
    // Names that are none of a client's, or of a store's.
    assert_eq!(open(&mut client, "/.directory", upload()).await, FAILED);
    let path = b"/\xff";
    let attrs = Attrs::NONE.into();
    assert_eq!(client.ask(Mkdir { path, attrs }).await, FAILED);
    // Who reads what is replaced meanwhile gets no mixture.
    let handle = opened(&mut client, "/file", OpenFlags::READ).await;
    put(&mut client, "/file", b"behind").await;
    let read = Read {
        handle: &handle,
        offset: 0,
        len: 6,
    };
    assert_eq!(client.ask(read).await, FAILED);
    assert_eq!(get(&mut client, "/file", 6).await, b"behind");
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_no_object() {
    let (store, connection, mut client) = session().await;
    written(&mut client, "/file", &pattern(3 * PART, 3)).await;
    drop(client);
    connection.disconnect();
    connection.closed().await;
    assert_eq!(object(&store, "file").await, None);
}
