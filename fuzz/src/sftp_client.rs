//! The SFTP client of one channel against a server that the fuzzer writes the script of.
//!
//! Downloads, an upload, listings and calls are under way; each step of the script says which
//! request is answered, how, and with what lie. Whatever the server does:
//!
//! - nothing panics, and when the server has fallen silent everything that was begun has ended
//!   after two stalls;
//! - a download that is called done has every byte in its place, one of the sizes it was told;
//! - an upload that is called done has every byte at the server, and no write of it was refused;
//! - no file is written outside of the destination, and no part of one is left.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ketch_client::fuzzing::Machine;
use ketch_client::{
    GetOptions, OpenOptions, PutOptions, Report, Sftp, Sink, Source, TransferError,
};
use ketch_protocol::{
    Attrs, Data, Extension, ExtensionName, FileType, Limits, NameEntry, Names, Open, Pair, Pairs,
    Request, RequestDecoder, RequestEvent, RequestId, Response, ServerLimits, Status, StatusCode,
    Version,
};

/// Steps of a script at most.
const STEPS_MAX: usize = 400;
/// Requests that a client may have under way on one channel.
const REQUESTS_MAX: usize = 8192;
/// Bytes of the upload.
const SOURCE_LEN: usize = 150_001;
/// Turns after which a server that is silent has been given up.
const STALLS: usize = 4;

/// What the byte of every file at this offset is.
fn byte_at(offset: u64) -> u8 {
    u8::try_from(offset % 251).unwrap_or_default()
}

fn content(offset: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| byte_at(offset.wrapping_add(at)))
        .collect()
}

/// One client with its work under way, and one script.
pub fn sftp_client(data: &[u8]) {
    let mut script = Script(data);
    let outside = tempfile::tempdir().expect("a directory for a test");
    let play = Play::begin(&mut script, outside.path());
    play.run(&mut script);
    let left: Vec<_> = walk(outside.path());
    for path in &left {
        let path = path.strip_prefix(outside.path()).expect("below it");
        assert!(
            path.starts_with("a/b") || path == Path::new("a"),
            "outside of the destination: {}",
            path.display()
        );
        assert!(
            !path.to_string_lossy().contains(".ketch-"),
            "left behind: {}",
            path.display()
        );
    }
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

/// The fuzzer's bytes, read as choices.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A number of which small ones and extreme ones are likely.
    fn number(&mut self) -> u64 {
        match self.byte() {
            0..100 => u64::from(self.byte()),
            100..150 => u64::from(self.byte()) * 1021,
            150..170 => u64::MAX - u64::from(self.byte()),
            170..190 => (1 << 63) - 128 + u64::from(self.byte()),
            190..210 => (1 << 32) - 128 + u64::from(self.byte()),
            other => u64::from(other) << (self.byte() % 56),
        }
    }

    const fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

struct Play {
    machine: Machine,
    sftp: Option<Sftp>,
    server: Server,
    running: Vec<Running>,
    truth: Arc<Mutex<Truth>>,
    /// The longest piece in which the client receives.
    cut: usize,
}

/// What is to be compared in the end.
#[derive(Default)]
struct Truth {
    sunk: Vec<Option<u8>>,
    finished: Option<u64>,
    aborted: bool,
    downloaded: Option<Result<Report, TransferError>>,
    uploaded: Option<Result<Report, TransferError>>,
}

impl Play {
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn begin(script: &mut Script<'_>, outside: &Path) -> Self {
        let (work, manner) = (script.byte(), script.byte());
        let (machine, sftp) = Machine::new(Instant::now(), manner & 1 != 0);
        let mut server = Server::new(script);
        let truth: Arc<Mutex<Truth>> = Arc::default();
        let mut running: Vec<Running> = Vec::new();
        if work & 1 != 0 || work == 0 {
            running.push(download(&sftp, &truth));
        }
        if work & 2 != 0 || work == 0 {
            running.push(upload(&sftp, &truth));
        }
        if work & 4 != 0 {
            running.push(tree(&sftp, outside));
        }
        if work & 8 != 0 {
            calls(&sftp, &mut running);
        }
        if work & 16 != 0 {
            running.push(listing(&sftp));
        }
        server.greets = manner & 2 == 0;
        Self {
            machine,
            sftp: Some(sftp),
            server,
            running,
            truth,
            cut: usize::MAX,
        }
    }

    fn run(mut self, script: &mut Script<'_>) {
        self.turn();
        if self.server.greets {
            let greeting = self.server.greeting();
            self.deliver(&greeting);
        }
        for _ in 0..STEPS_MAX {
            if script.is_over() || self.machine.is_closed() {
                break;
            }
            self.step(script);
            self.turn();
        }
        // The server falls silent: whatever was begun comes to its end.
        for _ in 0..STALLS {
            self.machine
                .pass_time(self.machine.stall() + Duration::from_secs(1));
            self.turn();
            self.turn();
        }
        assert!(
            self.running.is_empty(),
            "{} wait for ever: {:?}",
            self.running.len(),
            self.machine
        );
        self.sftp = None;
        self.machine.cut();
        self.judge();
    }

    /// The client does what it can, and who waits for it looks.
    fn turn(&mut self) {
        self.running.retain_mut(|future| {
            let cx = &mut Context::from_waker(Waker::noop());
            future.as_mut().poll(cx).is_pending()
        });
        let out = self.machine.turn();
        self.server.receive(&out);
    }

    fn deliver(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.cut.max(1)) {
            self.machine.receive(piece);
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte() % 20;
        match op {
            0..=3 => {
                let which = script.byte();
                let reply = self.server.honest_at(usize::from(which));
                self.deliver(&reply);
            }
            4..=6 => {
                let replies = self.server.honest_all(script.byte());
                self.deliver(&replies);
            }
            7 => self
                .machine
                .pass_time(Duration::from_secs(script.number() % 100)),
            8 => {
                let which = usize::from(script.byte());
                if !self.running.is_empty() {
                    drop(self.running.swap_remove(which % self.running.len()));
                }
            }
            9 => self.cut = usize::from(script.byte()).max(1) * 7,
            10 => {
                self.server.is_truthful = false;
                let len = usize::from(script.byte());
                let raw = script.bytes(len);
                self.deliver(raw);
            }
            11 => {
                let reply = self.server.last.clone();
                self.deliver(&reply);
            }
            12 if script.byte() > 200 => self.machine.end_of_stream(),
            _ => {
                let reply = self.server.lie(script);
                self.deliver(&reply);
            }
        }
    }

    fn judge(self) {
        let truth = self.truth.lock().expect("nobody panicked");
        if let Some(Ok(report)) = &truth.downloaded {
            assert_eq!(truth.finished, Some(report.bytes));
            assert!(!truth.aborted);
        }
        // The last word may be that the server fell silent, though the file was whole by then.
        if let Some(len) = truth.finished {
            let len = usize::try_from(len).expect("it was held in memory");
            assert!(len <= truth.sunk.len(), "{len} of {}", truth.sunk.len());
            for (at, byte) in truth.sunk.iter().take(len).enumerate() {
                assert!(byte.is_some(), "nothing at {at}");
                if self.server.is_truthful {
                    assert_eq!(*byte, Some(byte_at(at as u64)), "at {at}");
                }
            }
        }
        if let Some(Ok(report)) = &truth.uploaded {
            assert_eq!(report.bytes, SOURCE_LEN as u64);
            if self.server.is_truthful {
                let whole = content(0, SOURCE_LEN);
                let there = self.server.written.values();
                assert!(
                    there
                        .clone()
                        .any(|file| !file.refused && file.data == whole),
                    "called done, and is nowhere"
                );
            }
        }
    }
}

fn download(sftp: &Sftp, truth: &Arc<Mutex<Truth>>) -> Running {
    let (sftp, truth) = (sftp.clone(), Arc::clone(truth));
    Box::pin(async move {
        let sink = Arc::new(Memory(Arc::clone(&truth)));
        let result = sftp.get_to("/file", sink, GetOptions::new()).await;
        truth.lock().expect("nobody panicked").downloaded = Some(result);
    })
}

fn upload(sftp: &Sftp, truth: &Arc<Mutex<Truth>>) -> Running {
    let (sftp, truth) = (sftp.clone(), Arc::clone(truth));
    Box::pin(async move {
        let source = Arc::new(Constant);
        let result = sftp.put_from(source, "/up", PutOptions::new()).await;
        truth.lock().expect("nobody panicked").uploaded = Some(result);
    })
}

fn tree(sftp: &Sftp, outside: &Path) -> Running {
    let (sftp, to) = (sftp.clone(), outside.join("a/b"));
    std::fs::create_dir_all(&to).expect("a directory for a test");
    Box::pin(async move {
        let options = GetOptions::new().recursive(true);
        drop(sftp.get("/dir", to, options).await);
    })
}

fn calls(sftp: &Sftp, running: &mut Vec<Running>) {
    let one = sftp.clone();
    running.push(Box::pin(async move {
        drop(one.stat("/file").await);
        drop(one.canonicalize("x").await);
        drop(one.read_link("x").await);
        drop(one.statvfs("/").await);
        drop(one.limits().await);
        drop(one.users_groups(&[1, 2], &[3]).await);
        drop(one.rename("/a", "/b").await);
    }));
    let two = sftp.clone();
    running.push(Box::pin(async move {
        if let Ok(file) = two.open("/file", OpenOptions::reading()).await {
            if let Ok(bytes) = file.read_at(5, 100_000).await {
                assert!(bytes.len() <= 100_000);
            }
            drop(file.close().await);
        }
        if let Ok(file) = two.open("/new", OpenOptions::writing()).await {
            drop(file.write_at(0, &[7; 70_000]).await);
            drop(file.sync_all().await);
        }
    }));
}

fn listing(sftp: &Sftp) -> Running {
    let sftp = sftp.clone();
    Box::pin(async move {
        let mut dir = sftp.read_dir("/dir");
        while let Some(Ok(_)) = dir.next().await {}
    })
}

/// Keeps what it is given, if that is not far out.
struct Memory(Arc<Mutex<Truth>>);

const SUNK_MAX: u64 = 4 << 20;

impl Sink for Memory {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut truth = self.0.lock().expect("nobody panicked");
        assert!(truth.finished.is_none() && !truth.aborted, "after the end");
        if offset > SUNK_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let at = usize::try_from(offset).expect("small");
        let end = at + bytes.len();
        if truth.sunk.len() < end {
            truth.sunk.resize(end, None);
        }
        for (place, byte) in truth.sunk[at..end].iter_mut().zip(bytes) {
            *place = Some(*byte);
        }
        Ok(())
    }

    fn finish(&self, size: u64) -> io::Result<()> {
        let mut truth = self.0.lock().expect("nobody panicked");
        assert_eq!(truth.finished.replace(size), None, "finished once");
        Ok(())
    }

    fn abort(&self) {
        self.0.lock().expect("nobody panicked").aborted = true;
    }
}

/// The file to be sent.
struct Constant;

impl Source for Constant {
    fn size(&self) -> Option<u64> {
        Some(SOURCE_LEN as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = (SOURCE_LEN as u64).saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or_default().min(buf.len());
        for (byte, at) in buf.iter_mut().zip(offset..).take(len) {
            *byte = byte_at(at);
        }
        Ok(len)
    }
}

/// A request that was not answered yet.
#[derive(Clone, Debug)]
enum Asked {
    Open { writes: bool },
    OpenDir,
    Read { offset: u64, len: u32 },
    Write { handle: Vec<u8> },
    ReadDir { handle: Vec<u8> },
    Stat { is_dir: bool },
    Fstat { handle: Vec<u8> },
    Path,
    Limits,
    Extended,
    Change,
}

/// A file that the client writes.
#[derive(Default)]
struct Written {
    data: Vec<u8>,
    refused: bool,
}

struct Server {
    greets: bool,
    extensions: u8,
    size: u64,
    decoder: RequestDecoder,
    write: Option<(Vec<u8>, u64, Vec<u8>)>,
    asked: Vec<(RequestId, Asked)>,
    handles: u32,
    written: BTreeMap<Vec<u8>, Written>,
    /// How often a directory was listed.
    listed: BTreeMap<Vec<u8>, u32>,
    last: Vec<u8>,
    /// Whether all bytes that were given are those of the file.
    is_truthful: bool,
}

impl Server {
    fn new(script: &mut Script<'_>) -> Self {
        Self {
            greets: true,
            extensions: script.byte(),
            size: u64::from(script.byte()) * 1201,
            decoder: RequestDecoder::new(Limits::default()),
            write: None,
            asked: Vec::new(),
            handles: 0,
            written: BTreeMap::new(),
            listed: BTreeMap::new(),
            last: Vec::new(),
            is_truthful: true,
        }
    }

    fn greeting(&self) -> Vec<u8> {
        let all = [
            ExtensionName::PosixRename,
            ExtensionName::Fsync,
            ExtensionName::Limits,
            ExtensionName::Statvfs,
            ExtensionName::UsersGroupsById,
            ExtensionName::Hardlink,
            ExtensionName::CopyData,
            ExtensionName::ExpandPath,
        ];
        let pairs: Vec<Pair<'_>> = all
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.extensions >> bit & 1 == 0)
            .map(|(_, name)| name.pair())
            .collect();
        let mut out = Vec::new();
        Version {
            version: 3,
            extensions: Pairs::new(&pairs),
        }
        .encode_packet(&mut out);
        out
    }

    fn receive(&mut self, mut input: &[u8]) {
        let mut decoder =
            std::mem::replace(&mut self.decoder, RequestDecoder::new(Limits::default()));
        loop {
            let step = decoder
                .next(input)
                .expect("the client keeps to the protocol");
            input = &input[step.consumed..];
            let Some(event) = step.event else { break };
            self.on_event(event);
        }
        self.decoder = decoder;
        assert!(self.asked.len() <= REQUESTS_MAX, "requests without end");
        let mut ids: Vec<_> = self.asked.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), self.asked.len(), "an id was used again");
    }

    fn on_event(&mut self, event: RequestEvent<'_>) {
        match event {
            RequestEvent::Init(_) => {}
            RequestEvent::Request { id, request } => {
                let asked = match request {
                    Request::Open(Open { flags, .. }) => Asked::Open {
                        writes: flags.contains(ketch_protocol::OpenFlags::WRITE),
                    },
                    Request::Opendir(_) => Asked::OpenDir,
                    Request::Read(read) => Asked::Read {
                        offset: read.offset,
                        len: read.len,
                    },
                    Request::Readdir(read) => Asked::ReadDir {
                        handle: read.handle.to_vec(),
                    },
                    Request::Stat(stat) => Asked::Stat {
                        is_dir: stat.path.starts_with(b"/dir"),
                    },
                    Request::Lstat(stat) => Asked::Stat {
                        is_dir: stat.path.ends_with(b"d"),
                    },
                    Request::Fstat(stat) => Asked::Fstat {
                        handle: stat.handle.to_vec(),
                    },
                    Request::Realpath(_) | Request::Readlink(_) => Asked::Path,
                    Request::Extended(Extension::Limits) => Asked::Limits,
                    Request::Extended(
                        Extension::PosixRename(_) | Extension::Fsync(_) | Extension::Hardlink(_),
                    ) => Asked::Change,
                    Request::Extended(_) => Asked::Extended,
                    _ => Asked::Change,
                };
                self.asked.push((id, asked));
            }
            RequestEvent::WriteStart { handle, offset, .. } => {
                self.write = Some((handle.to_vec(), offset, Vec::new()));
            }
            RequestEvent::WritePiece { bytes, .. } => {
                if let Some((_, _, data)) = &mut self.write {
                    data.extend_from_slice(bytes);
                }
            }
            RequestEvent::WriteEnd { id } => {
                let Some((handle, offset, bytes)) = self.write.take() else {
                    return;
                };
                let file = self.written.entry(handle.clone()).or_default();
                let at = usize::try_from(offset).expect("within the source");
                file.data.resize(file.data.len().max(at + bytes.len()), 0);
                file.data[at..at + bytes.len()].copy_from_slice(&bytes);
                self.asked.push((id, Asked::Write { handle }));
            }
            RequestEvent::Refused { .. } => panic!("the client keeps to the protocol"),
        }
    }

    fn honest_at(&mut self, which: usize) -> Vec<u8> {
        if self.asked.is_empty() {
            return Vec::new();
        }
        let (id, asked) = self.asked.remove(which % self.asked.len());
        self.last = self.honest(id, &asked);
        self.last.clone()
    }

    /// Answers all, from the front or from the back.
    fn honest_all(&mut self, order: u8) -> Vec<u8> {
        let mut all = Vec::new();
        let mut asked = std::mem::take(&mut self.asked);
        if order & 1 != 0 {
            asked.reverse();
        }
        for (id, asked) in asked {
            self.last = self.honest(id, &asked);
            all.extend_from_slice(&self.last);
        }
        all
    }

    fn attrs(&self, is_dir: bool) -> Attrs {
        let kind = if is_dir {
            FileType::Directory
        } else {
            FileType::Regular
        };
        Attrs {
            size: Some(self.size),
            ..Attrs::with_permissions(kind.mode_bits() | 0o644)
        }
    }

    fn handle(&mut self) -> Vec<u8> {
        self.handles += 1;
        self.handles.to_be_bytes().to_vec()
    }

    fn honest(&mut self, id: RequestId, asked: &Asked) -> Vec<u8> {
        match asked {
            Asked::Open { writes } => {
                let handle = self.handle();
                if *writes {
                    self.written.insert(handle.clone(), Written::default());
                }
                packet(id, &Response::Handle(&handle))
            }
            Asked::OpenDir => {
                let handle = self.handle();
                packet(id, &Response::Handle(&handle))
            }
            Asked::Read { offset, len } => {
                let len = self.size.saturating_sub(*offset).min(u64::from(*len));
                let Ok(len @ 1..) = usize::try_from(len) else {
                    return status(id, StatusCode::EOF);
                };
                let data = content(*offset, len);
                packet(id, &Response::Data(Data { data: &data }))
            }
            Asked::ReadDir { handle } => {
                let times = self.listed.entry(handle.clone()).or_default();
                *times += 1;
                if *times > 2 {
                    return status(id, StatusCode::EOF);
                }
                let name = format!("f{times}");
                let entry = |name, attrs: Attrs| NameEntry {
                    filename: name,
                    longname: b"",
                    attrs: attrs.into(),
                };
                let entries = [
                    entry(&b"."[..], Attrs::NONE),
                    entry(name.as_bytes(), self.attrs(false)),
                    entry(b"unknown", Attrs::NONE),
                    entry(b"d", self.attrs(true)),
                ];
                packet(id, &Response::Name(Names::new(&entries)))
            }
            Asked::Stat { is_dir } => {
                let attrs = self.attrs(*is_dir);
                packet(id, &Response::Attrs(attrs.into()))
            }
            Asked::Fstat { handle } => {
                let size = self.written.get(handle).map(|file| file.data.len() as u64);
                let attrs = Attrs {
                    size: size.or(Some(self.size)),
                    ..self.attrs(false)
                };
                packet(id, &Response::Attrs(attrs.into()))
            }
            Asked::Path => {
                let entries = [NameEntry {
                    filename: b"/x",
                    longname: b"",
                    attrs: Attrs::NONE.into(),
                }];
                packet(id, &Response::Name(Names::new(&entries)))
            }
            Asked::Limits => {
                let mut data = Vec::new();
                ServerLimits {
                    packet_len: 262_144,
                    read_len: 261_120,
                    write_len: 261_120,
                    open_handles: 100,
                }
                .encode(&mut ketch_protocol::Writer::new(&mut data));
                packet(id, &Response::ExtendedReply(&data))
            }
            Asked::Extended => status(id, StatusCode::OP_UNSUPPORTED),
            Asked::Write { .. } | Asked::Change => status(id, StatusCode::OK),
        }
    }

    /// An answer that no server should give, to some request or to none.
    fn lie(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let how = script.byte();
        let index = usize::from(script.byte());
        if how.is_multiple_of(8) || self.asked.is_empty() {
            // To a request that nobody has made.
            let id = u32::try_from(script.number() & 0xffff_ffff).unwrap_or_default();
            if let Some(at) = self.asked.iter().position(|(asked, _)| *asked == id) {
                let (_, asked) = self.asked.remove(at);
                self.refuse(&asked);
            }
            return status(id, StatusCode(u32::from(script.byte() % 32)));
        }
        let (id, asked) = self.asked.remove(index % self.asked.len());
        let reply = match how % 8 {
            1 | 2 => {
                let code = StatusCode(u32::from(script.byte() % 32));
                if code != StatusCode::OK {
                    self.refuse(&asked);
                }
                if script.byte() & 1 == 0 {
                    status(id, code)
                } else {
                    // Without text, as servers of version 2 have it.
                    let mut bytes = vec![0, 0, 0, 9, 101];
                    bytes.extend_from_slice(&id.to_be_bytes());
                    bytes.extend_from_slice(&code.0.to_be_bytes());
                    bytes
                }
            }
            3 => {
                let len = match (&asked, script.byte()) {
                    (Asked::Read { len, .. }, choice) => match choice % 4 {
                        0 => 0,
                        1 => len.saturating_add(1),
                        2 => (*len).min(u32::from(script.byte())),
                        _ => len / 2,
                    },
                    (_, choice) => u32::from(choice),
                };
                let offset = match asked {
                    Asked::Read { offset, .. } => offset,
                    _ => 0,
                };
                let data = content(offset, len as usize);
                packet(id, &Response::Data(Data { data: &data }))
            }
            4 => self.names(id, script),
            5 => {
                let attrs = Attrs {
                    size: (script.byte() & 1 == 0).then(|| script.number()),
                    permissions: (script.byte() & 1 == 0)
                        .then(|| u32::from(script.byte()) << 8 | 0o644),
                    ..Attrs::NONE
                };
                packet(id, &Response::Attrs(attrs.into()))
            }
            6 => {
                let len = usize::from(script.byte()) * 2;
                packet(id, &Response::Handle(&vec![7; len]))
            }
            _ => {
                let len = usize::from(script.byte());
                packet(id, &Response::ExtendedReply(script.bytes(len)))
            }
        };
        self.last.clone_from(&reply);
        reply
    }

    fn names(&self, id: RequestId, script: &mut Script<'_>) -> Vec<u8> {
        let many = usize::from(script.byte());
        let lengths: Vec<usize> = (0..many % 8).map(|_| usize::from(script.byte())).collect();
        let mut entries = Vec::new();
        for len in lengths {
            let filename = script.bytes(len);
            let attrs = Attrs {
                size: Some(script.number()),
                permissions: (script.byte() & 1 == 0)
                    .then(|| u32::from(script.byte()) << 8 | 0o644),
                ..self.attrs(false)
            };
            entries.push(NameEntry {
                filename,
                longname: b"l",
                attrs: attrs.into(),
            });
        }
        if many > 200
            && let Some(first) = entries.first().copied()
        {
            entries.resize(many * 8, first);
        }
        packet(id, &Response::Name(Names::new(&entries)))
    }

    fn refuse(&mut self, asked: &Asked) {
        if let Asked::Write { handle } = asked
            && let Some(file) = self.written.get_mut(handle)
        {
            file.refused = true;
        }
    }
}

fn packet(id: RequestId, response: &Response<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    response.encode_packet(id, &mut bytes);
    bytes
}

fn status(id: RequestId, code: StatusCode) -> Vec<u8> {
    packet(id, &Response::Status(Status::new(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that answers everything honestly.
    fn honest(work: u8, extensions: u8, size: u8) -> Vec<u8> {
        let mut script = vec![work, 0, extensions, size];
        script.extend([4, 0].repeat(60));
        script
    }

    #[test]
    fn an_honest_server_serves_everything() {
        for (work, extensions, size) in [(31, 0, 0), (8, 0xff, 200), (31, 0xff, 90), (31, 2, 1)] {
            sftp_client(&honest(work, extensions, size));
        }
        let outside = tempfile::tempdir().unwrap();
        let bytes = honest(7, 0, 200);
        let mut script = Script(&bytes);
        let mut play = Play::begin(&mut script, outside.path());
        let truth = Arc::clone(&play.truth);
        play.server.is_truthful = true;
        play.run(&mut script);
        let truth = truth.lock().unwrap();
        assert!(matches!(truth.downloaded, Some(Ok(_))));
        assert!(matches!(truth.uploaded, Some(Ok(_))));
        assert!(outside.path().join("a/b/d/f1").exists());
    }

    #[test]
    fn servers_that_lie_at_random_are_borne() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            u8::try_from(seed >> 56).unwrap()
        };
        for _ in 0..100 {
            let script: Vec<u8> = (0..200).map(|_| random()).collect();
            sftp_client(&script);
        }
    }
}
