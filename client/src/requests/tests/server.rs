//! A server in memory, with habits: what real ones do, and what they should not.

mod habits;

use std::collections::{BTreeMap, HashMap};

use ketch_protocol::{
    Attrs, Data, Extension, ExtensionName, FileType, Limits, NameEntry, NamesWriter, OpenFlags,
    PacketType, Pair, Pairs, Request, RequestDecoder, RequestEvent, RequestId, Response, Status,
    StatusCode, Times, Version, WireAttrs,
};

pub(crate) use self::habits::Habits;

/// Answers some requests in its own way: whole packets, or nothing where the server is to answer.
pub(crate) type Lies = Box<dyn FnMut(RequestId, &Request<'_>) -> Option<Vec<u8>>>;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Node {
    File {
        data: Vec<u8>,
        times: Option<Times>,
        mode: u32,
    },
    Dir,
    Link,
}

#[derive(Debug)]
struct Handle {
    path: Vec<u8>,
    listing: Option<Vec<(Vec<u8>, Attrs)>>,
}

pub(crate) struct Server {
    pub(crate) habits: Habits,
    pub(crate) nodes: BTreeMap<Vec<u8>, Node>,
    handles: HashMap<u32, Handle>,
    next_handle: u32,
    decoder: RequestDecoder,
    write: Option<(u32, u64, Vec<u8>)>,
    answers: Vec<Vec<u8>>,
    seen: HashMap<PacketType, usize>,
    /// Everything that was asked, by type.
    pub(crate) log: Vec<PacketType>,
    pub(crate) open_peak: usize,
    /// Most answers that were due at a time.
    pub(crate) answers_peak: usize,
    /// The longest READ and the longest WRITE, in bytes of data.
    pub(crate) read_peak: u32,
    pub(crate) write_peak: u32,
    /// Asked before the server does what it should.
    pub(crate) lies: Option<Lies>,
    /// Bytes that were read from files, and written to them.
    pub(crate) bytes_read: usize,
    pub(crate) bytes_written: usize,
    /// Asked before each WRITE: whether it is refused.
    pub(crate) refuses_writes: Option<Box<dyn FnMut() -> bool>>,
    /// What was gone when it was closed.
    pub(crate) moved_on: Vec<(Vec<u8>, Vec<u8>)>,
    /// Files that are open now, not counting directories, and most of them at a time.
    pub(crate) files: usize,
    pub(crate) files_peak: usize,
    /// WRITEs in one batch of requests.
    batch: usize,
    rng: u64,
}

impl Server {
    pub(crate) fn new(habits: Habits, seed: u64) -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert(b"/".to_vec(), Node::Dir);
        Self {
            habits,
            nodes,
            handles: HashMap::new(),
            next_handle: 0,
            decoder: RequestDecoder::new(Limits::default()),
            write: None,
            answers: Vec::new(),
            seen: HashMap::new(),
            log: Vec::new(),
            open_peak: 0,
            answers_peak: 0,
            read_peak: 0,
            write_peak: 0,
            lies: None,
            bytes_read: 0,
            bytes_written: 0,
            refuses_writes: None,
            moved_on: Vec::new(),
            files: 0,
            files_peak: 0,
            batch: 0,
            rng: seed | 1,
        }
    }

    pub(crate) fn random(&mut self, below: usize) -> usize {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        usize::try_from(self.rng >> 16).unwrap() % below.max(1)
    }

    pub(crate) fn file(&mut self, path: &str, data: Vec<u8>) {
        let times = Some(Times {
            atime: 1_000_000_000,
            mtime: 1_000_000_001,
        });
        self.nodes.insert(
            path.as_bytes().to_vec(),
            Node::File {
                data,
                times,
                mode: 0o644,
            },
        );
    }

    pub(crate) fn dir(&mut self, path: &str) {
        self.nodes.insert(path.as_bytes().to_vec(), Node::Dir);
    }

    pub(crate) fn data(&self, path: &str) -> Option<&[u8]> {
        match self.nodes.get(path.as_bytes()) {
            Some(Node::File { data, .. }) => Some(data),
            _ => None,
        }
    }

    pub(crate) fn handles(&self) -> usize {
        self.handles.len()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.nodes
            .keys()
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect()
    }

    pub(crate) fn asked(&self, packet_type: PacketType) -> usize {
        self.log.iter().filter(|&&seen| seen == packet_type).count()
    }

    /// Takes bytes from the client.
    pub(crate) fn receive(&mut self, mut input: &[u8]) {
        self.batch = 0;
        loop {
            let mut decoder =
                std::mem::replace(&mut self.decoder, RequestDecoder::new(Limits::default()));
            let step = decoder
                .next(input)
                .expect("the client keeps to the protocol");
            input = &input[step.consumed..];
            let more = step.event.is_some();
            if let Some(event) = step.event {
                self.on_event(event);
            }
            self.decoder = decoder;
            if !more {
                return;
            }
        }
    }

    /// Gives what was answered, perhaps in another order.
    pub(crate) fn send(&mut self, packets_max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..packets_max.min(self.answers.len()) {
            let index = if self.habits.shuffle {
                self.random(self.answers.len())
            } else {
                0
            };
            out.extend(self.answers.remove(index));
        }
        out
    }

    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    fn on_event(&mut self, event: RequestEvent<'_>) {
        match event {
            RequestEvent::Init(_) => {
                if !self.habits.greets {
                    return;
                }
                let pairs: Vec<Pair<'_>> = self
                    .habits
                    .extensions
                    .iter()
                    .map(|name| name.pair())
                    .collect();
                let mut out = Vec::new();
                Version {
                    version: 3,
                    extensions: Pairs::new(&pairs),
                }
                .encode_packet(&mut out);
                self.answers.push(out);
            }
            RequestEvent::Request { id, request } => {
                if self.admit(id, request.packet_type()) {
                    match self.lies.as_mut().and_then(|lies| lies(id, &request)) {
                        Some(packets) => self.answers.push(packets),
                        None => self.on_request(id, request),
                    }
                }
            }
            RequestEvent::WriteStart { handle, offset, .. } => {
                let handle = u32::from_be_bytes(handle.try_into().expect("one of ours"));
                self.write = Some((handle, offset, Vec::new()));
            }
            RequestEvent::WritePiece { bytes, .. } => {
                self.write
                    .as_mut()
                    .expect("begun")
                    .2
                    .extend_from_slice(bytes);
            }
            RequestEvent::WriteEnd { id } => {
                let (handle, offset, bytes) = self.write.take().expect("begun");
                self.bytes_written += bytes.len();
                self.write_peak = self.write_peak.max(u32::try_from(bytes.len()).unwrap());
                if self.admit(id, PacketType::WRITE) {
                    let (status, text) = self.write_file(handle, offset, bytes);
                    let status = Status {
                        message: text.as_bytes(),
                        ..Status::new(status)
                    };
                    self.answer(id, &Response::Status(status));
                }
            }
            RequestEvent::Refused { id, .. } => self.status(id, StatusCode::BAD_MESSAGE),
        }
    }

    fn admit(&mut self, id: RequestId, packet_type: PacketType) -> bool {
        self.log.push(packet_type);
        let count = self.seen.entry(packet_type).or_default();
        *count += 1;
        let count = *count;
        if let Some((silent, from)) = self.habits.silent_from
            && ((silent == packet_type && count >= from)
                || (self.habits.silent_for_good
                    && self.seen.get(&silent).is_some_and(|seen| *seen >= from)))
        {
            return false;
        }
        if let Some((failing, nth, status)) = self.habits.fails
            && failing == packet_type
            && count == nth
        {
            self.status(id, status);
            return false;
        }
        true
    }

    fn status(&mut self, id: RequestId, code: StatusCode) {
        self.answer(id, &Response::Status(Status::new(code)));
    }

    /// Says whole packets that nobody had it answer.
    pub(crate) fn say(&mut self, packets: Vec<u8>) {
        self.answers.push(packets);
    }

    fn answer(&mut self, id: RequestId, response: &Response<'_>) {
        let mut out = Vec::new();
        response.encode_packet(id, &mut out);
        self.answers.push(out);
        self.answers_peak = self.answers_peak.max(self.answers.len());
        if self
            .habits
            .hangs_at
            .is_some_and(|most| self.answers.len() >= most)
        {
            self.answers.clear();
        }
    }

    fn attrs(&self, path: &[u8]) -> Option<Attrs> {
        let node = self.nodes.get(path)?;
        Some(match node {
            Node::File { data, times, mode } => Attrs {
                size: (self.habits.tells_size).then_some(data.len() as u64 + self.habits.boasts),
                permissions: Some(FileType::Regular.mode_bits() | mode),
                times: *times,
                owner: None,
            },
            Node::Dir => Attrs::with_permissions(FileType::Directory.mode_bits() | 0o755),
            Node::Link => Attrs::with_permissions(FileType::Symlink.mode_bits() | 0o777),
        })
    }

    fn write_file(
        &mut self,
        handle: u32,
        offset: u64,
        mut bytes: Vec<u8>,
    ) -> (StatusCode, &'static str) {
        self.batch += 1;
        if self.habits.mixes_up && self.batch > 1 {
            bytes.reverse();
        }
        let is_refused = self
            .refuses_writes
            .as_mut()
            .is_some_and(|refuses| refuses());
        if is_refused || bytes.len() > self.habits.write_max as usize {
            return (StatusCode::FAILURE, "");
        }
        let Some(open) = self.handles.get(&handle) else {
            return (StatusCode::FAILURE, "");
        };
        let Some(Node::File { data, .. }) = self.nodes.get_mut(&open.path) else {
            return (StatusCode::FAILURE, "");
        };
        let at = usize::try_from(offset).unwrap();
        if let Some(text) = self.habits.in_order
            && at != data.len()
        {
            return (StatusCode::FAILURE, text);
        }
        data.resize(data.len().max(at + bytes.len()), 0);
        data[at..at + bytes.len()].copy_from_slice(&bytes);
        if let Some(spoilt) = self.habits.spoils_at
            && (at..at + bytes.len()).contains(&spoilt)
        {
            data[spoilt] ^= 1;
        }
        (StatusCode::OK, "")
    }

    fn open(&mut self, id: RequestId, path: &[u8], listing: Option<Vec<(Vec<u8>, Attrs)>>) {
        self.next_handle += 1;
        let handle = self.next_handle;
        self.handles.insert(
            handle,
            Handle {
                path: path.to_vec(),
                listing,
            },
        );
        self.open_peak = self.open_peak.max(self.handles.len());
        let files = self.handles.values().filter(|open| open.listing.is_none());
        self.files = files.count();
        self.files_peak = self.files_peak.max(self.files);
        self.answer(id, &Response::Handle(&handle.to_be_bytes()));
    }

    fn on_request(&mut self, id: RequestId, request: Request<'_>) {
        let number = |handle: &[u8]| u32::from_be_bytes(handle.try_into().unwrap_or_default());
        match request {
            Request::Open(open) => {
                let there = self.nodes.contains_key(open.path);
                let is_open = self.handles.values().any(|other| other.path == open.path);
                if self.habits.read_once && is_open {
                    return self.status(id, StatusCode::NO_SUCH_FILE);
                }
                if let Some((max, status, text)) = self.habits.files_max
                    && self.files >= max
                {
                    let status = Status {
                        message: text.as_bytes(),
                        ..Status::new(status)
                    };
                    return self.answer(id, &Response::Status(status));
                }
                if open.flags.contains(OpenFlags::EXCLUSIVE) && self.habits.refuses_exclusive {
                    return self.status(id, StatusCode::OP_UNSUPPORTED);
                }
                let create = open.flags.contains(OpenFlags::CREATE);
                if there && open.flags.contains(OpenFlags::EXCLUSIVE) {
                    return self.status(id, StatusCode::FAILURE);
                }
                if !there && !create {
                    return self.status(id, StatusCode::NO_SUCH_FILE);
                }
                if create && (!there || open.flags.contains(OpenFlags::TRUNCATE)) {
                    let mode = open.attrs.attrs.permissions.unwrap_or(0o644);
                    let node = Node::File {
                        data: Vec::new(),
                        times: None,
                        mode,
                    };
                    self.nodes.insert(open.path.to_vec(), node);
                }
                self.open(id, open.path, None);
            }
            Request::Close(close) => {
                let closed = self.handles.remove(&number(close.handle));
                if let Some(Handle {
                    path,
                    listing: None,
                }) = &closed
                {
                    self.files = self.files.saturating_sub(1);
                    let goes = self.habits.moves_on || self.habits.read_once;
                    if goes && let Some(Node::File { data, .. }) = self.nodes.remove(path) {
                        self.moved_on.push((path.clone(), data));
                    }
                }
                self.status(
                    id,
                    if closed.is_some() {
                        StatusCode::OK
                    } else {
                        StatusCode::FAILURE
                    },
                );
            }
            Request::Read(read) => {
                self.read_peak = self.read_peak.max(read.len);
                let Some(open) = self.handles.get(&number(read.handle)) else {
                    return self.status(id, StatusCode::FAILURE);
                };
                let Some(Node::File { data, .. }) = self.nodes.get(&open.path) else {
                    return self.status(id, StatusCode::FAILURE);
                };
                let at = usize::try_from(read.offset).unwrap().min(data.len());
                let mut len = (data.len() - at).min(read.len.min(self.habits.read_max) as usize);
                let piece = data[at..at + len].to_vec();
                if len == 0 {
                    return self.status(id, StatusCode::EOF);
                }
                if self.habits.short && self.random(4) == 0 {
                    len = 1 + self.random(len);
                }
                self.bytes_read += len;
                self.answer(
                    id,
                    &Response::Data(Data {
                        data: &piece[..len],
                    }),
                );
            }
            Request::Lstat(_) if self.habits.no_lstat => {
                self.status(id, StatusCode::OP_UNSUPPORTED);
            }
            Request::Stat(_) | Request::Lstat(_) | Request::Fstat(_) if self.habits.read_once => {
                self.status(id, StatusCode::NO_SUCH_FILE);
            }
            Request::Fsetstat(_) | Request::Setstat(_) if self.habits.no_setstat => {
                self.status(id, StatusCode::OP_UNSUPPORTED);
            }
            Request::Stat(ketch_protocol::Stat { path })
            | Request::Lstat(ketch_protocol::Lstat { path }) => match self.attrs(path) {
                Some(attrs) => self.answer(id, &Response::Attrs(attrs.into())),
                None => self.status(id, StatusCode::NO_SUCH_FILE),
            },
            Request::Fstat(fstat) => {
                let path = self
                    .handles
                    .get(&number(fstat.handle))
                    .map(|open| open.path.clone());
                match path.and_then(|path| self.attrs(&path)) {
                    Some(attrs) => self.answer(id, &Response::Attrs(attrs.into())),
                    None => self.status(id, StatusCode::FAILURE),
                }
            }
            Request::Fsetstat(set) => {
                let path = self
                    .handles
                    .get(&number(set.handle))
                    .map(|open| open.path.clone());
                let attrs = set.attrs.attrs;
                if attrs.owner.is_some() {
                    return self.status(id, StatusCode::PERMISSION_DENIED);
                }
                if let Some(Node::File { times, data, mode }) =
                    path.and_then(|path| self.nodes.get_mut(&path))
                {
                    if let Some(size) = attrs.size {
                        data.resize(usize::try_from(size).unwrap(), 0);
                    }
                    *times = attrs.times.or(*times);
                    *mode = attrs.permissions.unwrap_or(*mode);
                }
                self.status(id, StatusCode::OK);
            }
            Request::Opendir(opendir) => {
                if self.nodes.get(opendir.path) != Some(&Node::Dir) {
                    return self.status(id, StatusCode::NO_SUCH_FILE);
                }
                let listing = self.listing(opendir.path);
                self.open(id, opendir.path, Some(listing));
            }
            Request::Readdir(readdir) => self.readdir(id, number(readdir.handle)),
            Request::Remove(remove) => {
                let gone = matches!(
                    self.nodes.get(remove.path),
                    Some(Node::File { .. } | Node::Link)
                );
                if gone {
                    self.nodes.remove(remove.path);
                }
                self.status(
                    id,
                    if gone {
                        StatusCode::OK
                    } else {
                        StatusCode::NO_SUCH_FILE
                    },
                );
            }
            Request::Rmdir(rmdir) => {
                let below = [rmdir.path, b"/"].concat();
                // What is evil counts as full.
                let empty = self.habits.evil.is_empty()
                    && !self.nodes.keys().any(|path| path.starts_with(&below));
                let status = match self.nodes.get(rmdir.path) {
                    Some(Node::Dir) if empty => {
                        self.nodes.remove(rmdir.path);
                        StatusCode::OK
                    }
                    Some(_) => StatusCode::FAILURE,
                    None => StatusCode::NO_SUCH_FILE,
                };
                self.status(id, status);
            }
            Request::Realpath(realpath) => {
                let mut out = Vec::new();
                let entry = NameEntry {
                    filename: realpath.path,
                    longname: b"",
                    attrs: WireAttrs::default(),
                };
                assert!(NamesWriter::new(id, &mut out).push(&entry, 64 * 1024));
                self.answers.push(out);
            }
            Request::Mkdir(mkdir) => {
                if self.nodes.contains_key(mkdir.path) {
                    return self.status(id, StatusCode::FAILURE);
                }
                self.nodes.insert(mkdir.path.to_vec(), Node::Dir);
                self.status(id, StatusCode::OK);
            }
            Request::Symlink(symlink) => {
                let free = !self.nodes.contains_key(symlink.link);
                if free {
                    self.nodes.insert(symlink.link.to_vec(), Node::Link);
                }
                let status = if free {
                    StatusCode::OK
                } else {
                    StatusCode::FAILURE
                };
                self.status(id, status);
            }
            Request::Rename(rename) => {
                let free = !self.nodes.contains_key(rename.to);
                let status = if free {
                    self.rename(rename.from, rename.to)
                } else {
                    StatusCode::FAILURE
                };
                self.status(id, status);
            }
            Request::Extended(Extension::PosixRename(rename))
                if self.habits.never_replaces && self.nodes.contains_key(rename.to) =>
            {
                self.status(id, StatusCode::FAILURE);
            }
            Request::Extended(Extension::PosixRename(rename)) => {
                let status = self.rename(rename.from, rename.to);
                self.status(id, status);
            }
            Request::Extended(Extension::Hardlink(link)) => {
                let node = self.nodes.get(link.from).cloned();
                let status = match node {
                    Some(node) if !self.nodes.contains_key(link.to) => {
                        self.nodes.insert(link.to.to_vec(), node);
                        StatusCode::OK
                    }
                    _ => StatusCode::FAILURE,
                };
                self.status(id, status);
            }
            Request::Extended(Extension::Fsync(_)) => self.status(id, StatusCode::OK),
            Request::Extended(Extension::CheckFileHandle(check))
                if self
                    .habits
                    .extensions
                    .contains(&ExtensionName::CheckFileHandle) =>
            {
                let path = self
                    .handles
                    .get(&number(check.handle))
                    .map(|open| open.path.clone());
                self.check_file(id, &path.unwrap_or_default());
            }
            Request::Extended(Extension::CheckFileName(check))
                if self
                    .habits
                    .extensions
                    .contains(&ExtensionName::CheckFileName) =>
            {
                self.check_file(id, check.path);
            }
            Request::Extended(Extension::Limits) => {
                let mut data = Vec::new();
                self.habits
                    .limits
                    .encode(&mut ketch_protocol::Writer::new(&mut data));
                self.answer(id, &Response::ExtendedReply(&data));
            }
            _ => self.status(id, StatusCode::OP_UNSUPPORTED),
        }
    }

    /// Hashes all of a file, as mod_sftp does.
    fn check_file(&mut self, id: RequestId, path: &[u8]) {
        let Some(Node::File { data, .. }) = self.nodes.get(path) else {
            return self.status(id, StatusCode::NO_SUCH_FILE);
        };
        let hash = ring::digest::digest(&ring::digest::SHA256, data);
        let mut reply = Vec::new();
        ketch_protocol::CheckFileReply {
            algorithm: b"sha256",
            hashes: hash.as_ref(),
        }
        .encode(&mut ketch_protocol::Writer::new(&mut reply));
        self.answer(id, &Response::ExtendedReply(&reply));
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) -> StatusCode {
        let Some(node) = self.nodes.remove(from) else {
            return StatusCode::NO_SUCH_FILE;
        };
        for open in self.handles.values_mut().filter(|open| open.path == from) {
            open.path = to.to_vec();
        }
        self.nodes.insert(to.to_vec(), node);
        StatusCode::OK
    }

    fn listing(&self, dir: &[u8]) -> Vec<(Vec<u8>, Attrs)> {
        let mut prefix = dir.to_vec();
        if dir != b"/" {
            prefix.push(b'/');
        }
        let mut listing = vec![(b".".to_vec(), Attrs::NONE), (b"..".to_vec(), Attrs::NONE)];
        for path in self.nodes.keys() {
            if let Some(name) = path.strip_prefix(&prefix[..])
                && !name.is_empty()
                && !name.contains(&b'/')
            {
                listing.push((name.to_vec(), self.attrs(path).expect("it is there")));
            }
        }
        for evil in &self.habits.evil {
            let attrs = Attrs::with_permissions(FileType::Regular.mode_bits() | 0o644);
            listing.push((
                evil.clone(),
                Attrs {
                    size: Some(3),
                    ..attrs
                },
            ));
        }
        listing
    }

    fn readdir(&mut self, id: RequestId, handle: u32) {
        let (names_max, endless) = (self.habits.names_max, self.habits.endless);
        let Some(Handle {
            listing: Some(listing),
            ..
        }) = self.handles.get_mut(&handle)
        else {
            return self.status(id, StatusCode::FAILURE);
        };
        if listing.is_empty() && !endless {
            return self.status(id, StatusCode::EOF);
        }
        let mut out = Vec::new();
        let mut names = NamesWriter::new(id, &mut out);
        if endless {
            let attrs = WireAttrs::from(Attrs::with_permissions(FileType::Symlink.mode_bits()));
            for _ in 0..1000 {
                assert!(names.push(
                    &NameEntry {
                        filename: b"x",
                        longname: b"",
                        attrs
                    },
                    256 * 1024
                ));
            }
        }
        for (name, attrs) in listing.drain(..names_max.min(listing.len())) {
            let entry = NameEntry {
                filename: &name,
                longname: b"",
                attrs: attrs.into(),
            };
            assert!(names.push(&entry, 256 * 1024));
        }
        self.answers.push(out);
    }
}
