//! The server of the script: it answers when it is told to, honestly or not.

use std::collections::BTreeMap;

use ketch_protocol::{
    Attrs, Data, Extension, ExtensionName, FileType, Limits, NameEntry, Names, Open, Pair, Pairs,
    Request, RequestDecoder, RequestEvent, RequestId, Response, ServerLimits, Status, StatusCode,
    Version,
};

use super::content;
use crate::script::Script;

/// Requests that a client may have under way on one channel.
const REQUESTS_MAX: usize = 8192;

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
pub(super) struct Written {
    pub data: Vec<u8>,
    pub refused: bool,
}

pub(super) struct Server {
    pub greets: bool,
    extensions: u8,
    size: u64,
    decoder: RequestDecoder,
    write: Option<(Vec<u8>, u64, Vec<u8>)>,
    asked: Vec<(RequestId, Asked)>,
    handles: u32,
    pub written: BTreeMap<Vec<u8>, Written>,
    /// How often a directory was listed.
    listed: BTreeMap<Vec<u8>, u32>,
    pub last: Vec<u8>,
    /// Whether all bytes that were given are those of the file.
    pub is_truthful: bool,
}

impl Server {
    pub(crate) fn new(script: &mut Script<'_>) -> Self {
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

    pub(crate) fn greeting(&self) -> Vec<u8> {
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

    pub(crate) fn receive(&mut self, mut input: &[u8]) {
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

    pub(crate) fn honest_at(&mut self, which: usize) -> Vec<u8> {
        if self.asked.is_empty() {
            return Vec::new();
        }
        let (id, asked) = self.asked.remove(which % self.asked.len());
        self.last = self.honest(id, &asked);
        self.last.clone()
    }

    /// Answers all, from the front or from the back.
    pub(crate) fn honest_all(&mut self, order: u8) -> Vec<u8> {
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
    pub(crate) fn lie(&mut self, script: &mut Script<'_>) -> Vec<u8> {
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

pub(crate) fn packet(id: RequestId, response: &Response<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    response.encode_packet(id, &mut bytes);
    bytes
}

pub(crate) fn status(id: RequestId, code: StatusCode) -> Vec<u8> {
    packet(id, &Response::Status(Status::new(code)))
}
