//! A server that keeps what it is given, over many connections, and does what it is asked at once;
//! what it answers the script may change, hold back or mix up.

use std::collections::BTreeMap;

use ketch_protocol::{
    Attrs, Data, Extension, ExtensionName, FileType, Limits, OpenFlags, Pair, Pairs, Request,
    RequestDecoder, RequestEvent, RequestId, Response, Status, StatusCode, Times, Version,
};

use crate::sftp_client::{packet, status};

/// The files of a server.
pub(super) type Store = BTreeMap<Vec<u8>, Vec<u8>>;

/// When all of them were changed last.
const MODIFIED: u32 = 1_000_000_000;

/// An answer that was not given yet.
pub(super) struct Due {
    pub id: RequestId,
    pub bytes: Vec<u8>,
    /// Bytes of a file that it holds.
    pub data_len: usize,
    /// Whether it says that something was done.
    pub is_done: bool,
}

/// The server's side of one connection.
pub(super) struct Server<'s> {
    pub store: &'s mut Store,
    pub due: Vec<Due>,
    /// What the next request is refused with, without doing it.
    pub refuses: Option<StatusCode>,
    /// Bytes that came to be written.
    pub written: usize,
    decoder: RequestDecoder,
    handles: BTreeMap<u32, Vec<u8>>,
    next: u32,
    write: Option<(Vec<u8>, u64, Vec<u8>)>,
}

impl<'s> Server<'s> {
    pub(super) fn new(store: &'s mut Store) -> Self {
        Self {
            store,
            due: Vec::new(),
            refuses: None,
            written: 0,
            decoder: RequestDecoder::new(Limits::default()),
            handles: BTreeMap::new(),
            next: 0,
            write: None,
        }
    }

    pub(super) fn greeting(extensions: u8) -> Vec<u8> {
        let all = [ExtensionName::PosixRename, ExtensionName::Fsync];
        let pairs: Vec<Pair<'_>> = all
            .iter()
            .enumerate()
            .filter(|(bit, _)| extensions >> bit & 1 == 0)
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

    pub(super) fn receive(&mut self, mut input: &[u8]) {
        let mut decoder =
            std::mem::replace(&mut self.decoder, RequestDecoder::new(Limits::default()));
        loop {
            let step = decoder
                .next(input)
                .expect("the client keeps to the protocol");
            input = &input[step.consumed..];
            let Some(event) = step.event else { break };
            match event {
                RequestEvent::Init(_) => {}
                RequestEvent::Request { id, request } => self.on_request(id, &request),
                RequestEvent::WriteStart { handle, offset, .. } => {
                    self.write = Some((handle.to_vec(), offset, Vec::new()));
                }
                RequestEvent::WritePiece { bytes, .. } => {
                    let write = self.write.as_mut().expect("begun");
                    write.2.extend_from_slice(bytes);
                }
                RequestEvent::WriteEnd { id } => {
                    let (handle, offset, bytes) = self.write.take().expect("begun");
                    self.on_write(id, &handle, offset, &bytes);
                }
                RequestEvent::Refused { .. } => panic!("the client keeps to the protocol"),
            }
        }
        self.decoder = decoder;
    }

    fn answer(&mut self, id: RequestId, response: &Response<'_>) {
        let data_len = match response {
            Response::Data(data) => data.data.len(),
            _ => 0,
        };
        let is_done = matches!(response, Response::Status(status) if status.code == StatusCode::OK);
        self.due.push(Due {
            id,
            bytes: packet(id, response),
            data_len,
            is_done,
        });
    }

    fn status(&mut self, id: RequestId, code: StatusCode) {
        self.answer(id, &Response::Status(Status::new(code)));
    }

    fn path(&self, handle: &[u8]) -> Option<&Vec<u8>> {
        let number = u32::from_be_bytes(handle.try_into().ok()?);
        self.handles.get(&number)
    }

    fn on_write(&mut self, id: RequestId, handle: &[u8], offset: u64, bytes: &[u8]) {
        self.written += bytes.len();
        if let Some(code) = self.refuses.take() {
            return self.status(id, code);
        }
        let path = self.path(handle).cloned();
        let Some(file) = path.and_then(|path| self.store.get_mut(&path)) else {
            return self.status(id, StatusCode::FAILURE);
        };
        let at = usize::try_from(offset).expect("within the source");
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        self.status(id, StatusCode::OK);
    }

    fn attrs(len: usize) -> Attrs {
        Attrs {
            size: Some(len as u64),
            times: Some(Times {
                atime: MODIFIED,
                mtime: MODIFIED,
            }),
            ..Attrs::with_permissions(FileType::Regular.mode_bits() | 0o644)
        }
    }

    fn on_request(&mut self, id: RequestId, request: &Request<'_>) {
        if let Some(code) = self.refuses.take() {
            return self.status(id, code);
        }
        match request {
            Request::Open(open) => {
                let there = self.store.contains_key(open.path);
                let creates = open.flags.contains(OpenFlags::CREATE);
                if there && open.flags.contains(OpenFlags::EXCLUSIVE) {
                    return self.status(id, StatusCode::FAILURE);
                }
                if !there && !creates {
                    return self.status(id, StatusCode::NO_SUCH_FILE);
                }
                let file = self.store.entry(open.path.to_vec()).or_default();
                if open.flags.contains(OpenFlags::TRUNCATE) {
                    file.clear();
                }
                self.next += 1;
                self.handles.insert(self.next, open.path.to_vec());
                let handle = self.next.to_be_bytes();
                self.answer(id, &Response::Handle(&handle));
            }
            Request::Close(close) => {
                let number = u32::from_be_bytes(close.handle.try_into().unwrap_or_default());
                let known = self.handles.remove(&number).is_some();
                assert!(known, "a handle that nobody was given, or closed twice");
                self.status(id, StatusCode::OK);
            }
            Request::Read(read) => {
                let file = self.path(read.handle).and_then(|path| self.store.get(path));
                let Some(file) = file else {
                    return self.status(id, StatusCode::FAILURE);
                };
                let at = usize::try_from(read.offset).map_or(file.len(), |at| at.min(file.len()));
                let len = (file.len() - at).min(read.len as usize);
                let data = file[at..at + len].to_vec();
                if data.is_empty() {
                    return self.status(id, StatusCode::EOF);
                }
                self.answer(id, &Response::Data(Data { data: &data }));
            }
            Request::Stat(ketch_protocol::Stat { path })
            | Request::Lstat(ketch_protocol::Lstat { path }) => {
                match self.store.get(*path).map(Vec::len) {
                    Some(len) => self.answer(id, &Response::Attrs(Self::attrs(len).into())),
                    None => self.status(id, StatusCode::NO_SUCH_FILE),
                }
            }
            Request::Fstat(fstat) => {
                let file = self
                    .path(fstat.handle)
                    .and_then(|path| self.store.get(path));
                match file.map(Vec::len) {
                    Some(len) => self.answer(id, &Response::Attrs(Self::attrs(len).into())),
                    None => self.status(id, StatusCode::FAILURE),
                }
            }
            Request::Remove(remove) => {
                let code = match self.store.remove(remove.path) {
                    Some(_) => StatusCode::OK,
                    None => StatusCode::NO_SUCH_FILE,
                };
                self.status(id, code);
            }
            Request::Rename(rename) if self.store.contains_key(rename.to) => {
                self.status(id, StatusCode::FAILURE);
            }
            Request::Rename(rename) => self.rename(id, rename.from, rename.to),
            Request::Extended(Extension::PosixRename(rename)) => {
                self.rename(id, rename.from, rename.to);
            }
            Request::Extended(Extension::Fsync(_)) | Request::Fsetstat(_) => {
                self.status(id, StatusCode::OK);
            }
            _ => self.status(id, StatusCode::OP_UNSUPPORTED),
        }
    }

    fn rename(&mut self, id: RequestId, from: &[u8], to: &[u8]) {
        let Some(file) = self.store.remove(from) else {
            return self.status(id, StatusCode::NO_SUCH_FILE);
        };
        self.store.insert(to.to_vec(), file);
        for path in self.handles.values_mut().filter(|path| path[..] == *from) {
            *path = to.to_vec();
        }
        self.status(id, StatusCode::OK);
    }
}

impl Due {
    /// It refuses, whatever was done.
    pub(super) fn refuse(&mut self, code: StatusCode) {
        self.bytes = status(self.id, code);
        self.data_len = 0;
    }

    /// It has fewer bytes, if it has any; says so.
    pub(super) fn shorten(&mut self, len: usize) {
        if self.data_len > 0 {
            let len = 1 + len % self.data_len;
            let start = self.bytes.len() - self.data_len;
            let data = self.bytes[start..start + len].to_vec();
            self.bytes = packet(self.id, &Response::Data(Data { data: &data }));
            self.data_len = len;
        }
    }

    /// One of its bytes is another, if it has any.
    pub(super) fn flip(&mut self, at: usize) -> bool {
        if self.data_len == 0 {
            return false;
        }
        let start = self.bytes.len() - self.data_len;
        self.bytes[start + at % self.data_len] ^= 1;
        true
    }
}
