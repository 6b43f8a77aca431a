//! The same requests without SSH: over the pipes of OpenSSH's own `sftp-server`.
//!
//! Where the program is not installed there is nothing to test against, and the tests say so.

use std::{
    fs,
    future::Future,
    io::{IoSliceMut, Read, Write},
    path::Path,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        Requests, Settings,
        calls::Shared,
        link::{Fill, Full, Link, Place, Places},
    },
    sim::poll,
};
use crate::{
    Attrs, Failure, FileType, GetOptions, Kind, OpenOptions, PutOptions, Times, sftp::Sftp,
    transfer::disk::Disk,
};

const SERVER: &str = "/usr/lib/openssh/sftp-server";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Pipe {
    requests: Requests,
    link: PipeLink,
    pub(super) sftp: Sftp,
    from_server: mpsc::Receiver<Vec<u8>>,
    server: Child,
}

struct PipeLink {
    to_server: mpsc::Sender<Vec<u8>>,
    closed: bool,
}

impl Link for PipeLink {
    #[expect(clippy::disallowed_methods, reason = "this is a driver")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn queued(&mut self) -> usize {
        0
    }

    fn sendable_peak(&mut self) -> usize {
        usize::MAX
    }

    fn send(&mut self, packet: &[u8]) -> Result<(), Full> {
        self.to_server.send(packet.to_vec()).map_err(|_| Full)
    }

    fn send_filled(&mut self, packet: &mut dyn Fill) -> Option<usize> {
        let (_, data_len) = packet.len();
        let mut data = vec![0; data_len];
        let filled = packet.fill(&mut [IoSliceMut::new(&mut data)]);
        if filled > 0 {
            let mut whole = packet.header(filled).to_vec();
            whole.extend_from_slice(&data[..filled]);
            self.send(&whole).ok()?;
        }
        Some(filled)
    }

    fn give_credit(&mut self, _bytes: usize) {}

    fn close(&mut self) {
        self.closed = true;
    }
}

struct Received(Vec<u8>);

impl Places for Received {
    fn bytes(&self, place: Place) -> &[u8] {
        &self.0[place.start..place.start + place.len]
    }
}

impl Pipe {
    pub(super) fn open(home: &Path) -> Self {
        let mut server = Command::new(SERVER)
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{SERVER}: {error}; scripts/setup-peers installs it"));
        let (to_server, outgoing) = mpsc::channel::<Vec<u8>>();
        let (incoming, from_server) = mpsc::channel();
        let mut stdin = server.stdin.take().unwrap();
        let mut stdout = server.stdout.take().unwrap();
        thread::spawn(move || {
            while outgoing
                .recv()
                .is_ok_and(|bytes| stdin.write_all(&bytes).is_ok())
            {}
        });
        thread::spawn(move || {
            let mut buffer = vec![0; 100_000];
            while let Ok(len @ 1..) = stdout.read(&mut buffer) {
                if incoming.send(buffer[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        let shared = Shared::new();
        let disk = Disk::new(Arc::new(|work| drop(thread::spawn(work))));
        let mut requests = Requests::new(Arc::clone(&shared), disk, Settings::default());
        let mut link = PipeLink {
            to_server,
            closed: false,
        };
        requests.on_open(&mut link, Arc::new(|| ()));
        Self {
            requests,
            link,
            sftp: Sftp::new(shared, ()),
            from_server,
            server,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is a driver")]
    pub(super) fn run<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        let began = Instant::now();
        loop {
            if let Some(output) = poll(future.as_mut()) {
                return output;
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", self.requests);
            // Work on threads is looked for now and then.
            if let Ok(bytes) = self.from_server.recv_timeout(Duration::from_millis(1)) {
                self.requests.on_data(&bytes, 0, &mut self.link);
                self.requests.end_of_turn(&Received(bytes), &mut self.link);
            }
            self.requests.drive(&mut self.link);
            assert!(!self.link.closed);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn every_request_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let at = dir.path().to_str().unwrap().to_owned();
    let path = |name: &str| format!("{at}/{name}");
    pipe.run(async {
        let home = sftp.canonicalize(".").await.unwrap();
        assert_eq!(home.to_str(), Some(&at[..]));
        assert_eq!(
            sftp.expand_path("~/x").await.unwrap().file_name(),
            Some(&b"x"[..])
        );

        sftp.create_dir(path("d")).await.unwrap();
        assert_eq!(
            sftp.create_dir(path("d")).await.unwrap_err().kind(),
            Kind::Peer
        );
        let file = sftp
            .open(path("d/a"), OpenOptions::writing().permissions(0o640))
            .await
            .unwrap();
        file.write_at(0, b"hello").await.unwrap();
        file.sync_all().await.unwrap();
        assert!(file.statvfs().await.unwrap().block_size > 0);
        let times = Times {
            atime: 1_000_000_000,
            mtime: 1_000_000_001,
        };
        file.set_attrs(Attrs {
            times: Some(times),
            ..Attrs::NONE
        })
        .await
        .unwrap();
        let attrs = file.attrs().await.unwrap();
        assert_eq!((attrs.size, attrs.times), (Some(5), Some(times)));
        file.close().await.unwrap();

        let mode = Attrs::with_permissions(0o600);
        sftp.set_attrs(path("d/a"), mode).await.unwrap();
        assert_eq!(sftp.stat(path("d/a")).await.unwrap().mode(), Some(0o600));
        sftp.symlink("a", path("d/link")).await.unwrap();
        assert_eq!(
            sftp.read_link(path("d/link")).await.unwrap().as_bytes(),
            b"a"
        );
        assert_eq!(
            sftp.lstat(path("d/link")).await.unwrap().file_type(),
            FileType::Symlink
        );
        sftp.set_link_attrs(
            path("d/link"),
            Attrs {
                times: Some(times),
                ..Attrs::NONE
            },
        )
        .await
        .unwrap();
        sftp.hard_link(path("d/a"), path("d/b")).await.unwrap();
        assert_eq!(
            sftp.rename(path("d/a"), path("d/b"))
                .await
                .unwrap_err()
                .kind(),
            Kind::Peer
        );
        sftp.posix_rename(path("d/b"), path("d/c")).await.unwrap();
        sftp.rename(path("d/c"), path("d/e")).await.unwrap();

        let from = sftp
            .open(path("d/e"), OpenOptions::reading())
            .await
            .unwrap();
        let to = sftp
            .open(path("d/copy"), OpenOptions::writing())
            .await
            .unwrap();
        sftp.copy_data((&from, 1), (&to, 0), 0).await.unwrap();
        drop((from, to));
        let copy = sftp
            .open(path("d/copy"), OpenOptions::reading())
            .await
            .unwrap();
        assert_eq!(&copy.read_at(0, 100).await.unwrap()[..], b"ello");

        assert_eq!(sftp.limits().await.unwrap().write_len, 261_120);
        assert!(sftp.statvfs(path("d")).await.unwrap().bytes_available() > 0);
        let names = sftp.users_groups(&[0, 4_000_000_000], &[0]).await.unwrap();
        assert_eq!(names.users, [b"root".to_vec(), Vec::new()]);
        assert_eq!(
            sftp.home_directory("root").await.unwrap().to_str(),
            Some("/root")
        );

        let mut names = Vec::new();
        let mut listing = sftp.read_dir(path("d"));
        while let Some(entry) = listing.next().await {
            names.push(entry.unwrap().display_name());
        }
        names.sort();
        assert_eq!(names, ["a", "copy", "e", "link"]);
        for name in names {
            sftp.remove_file(path(&format!("d/{name}"))).await.unwrap();
        }
        sftp.remove_dir(path("d")).await.unwrap();
        assert_eq!(
            sftp.stat(path("d")).await.unwrap_err().kind(),
            Kind::NotFound
        );
    });
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_tree_goes_there_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut pipe = Pipe::open(dir.path());
    let sftp = pipe.sftp.clone();
    let content = |n: usize| vec![u8::try_from(n % 251).unwrap(); n * n * 100];
    for n in 0..100 {
        let below = dir.path().join(format!("here/d{}/deep", n % 7));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(format!("f{n}")), content(n)).unwrap();
    }
    let at = dir.path().to_str().unwrap().to_owned();
    let put = PutOptions::new().recursive(true).preserve_times(true);
    let report = pipe
        .run(sftp.put(format!("{at}/here"), format!("{at}/there"), put))
        .unwrap();
    assert_eq!((report.files, report.directories), (100, 15));
    let get = GetOptions::new().recursive(true).preserve_times(true);
    let report = pipe
        .run(sftp.get(format!("{at}/there"), format!("{at}/back"), get))
        .unwrap();
    assert_eq!((report.files, report.directories), (100, 15));
    for n in 0..100 {
        let name = format!("d{}/deep/f{n}", n % 7);
        assert!(
            fs::read(dir.path().join("back").join(&name)).unwrap() == content(n),
            "{name}"
        );
        let modified = |side: &str| {
            fs::metadata(dir.path().join(side).join(&name))
                .unwrap()
                .modified()
                .unwrap()
        };
        let seconds = |side| crate::platform::seconds(modified(side));
        assert_eq!(seconds("here"), seconds("back"));
    }
}
