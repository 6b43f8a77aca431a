//! The server's SFTP session on a file system in memory, against a client that the fuzzer writes the
//! script of, and the paths that clients name.
//!
//! Whatever the client sends, in whatever pieces, however slowly it reads and in whatever order
//! threads end:
//!
//! - nothing panics and nothing hangs;
//! - every request that was whole is answered, once, and no other number is;
//! - work for threads and bytes without credit stay within their bounds;
//! - when the client has fallen silent and reads, nothing is left to do and all credit is given back.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ketch_protocol::{
    Attrs, CHECK_FILE, CheckFileHandle, CheckFileName, Close, CopyData, Extension, Fsetstat, Fstat,
    Fstatvfs, Fsync, Hardlink, HomeDirectory, Init, Limits, Lsetstat, Lstat, Mkdir, Open,
    OpenFlags, Opendir, PROTOCOL_VERSION, Pairs, PosixRename, Read, Readdir, Readlink, Realpath,
    Remove, Rename, ReplyDecoder, ReplyEvent, Request, RequestDecoder, RequestEvent, RequestId,
    Response, Rmdir, Setstat, Stat, Statvfs, Symlink, SymlinkOrder, Watch, WatchKinds, WatchRead,
    Write,
};
use ketch_server::{
    MemoryFileSystem, VPath,
    fuzzing::{Machine, WINDOW},
};

use crate::script::Script;

/// Requests of a script at most.
const STEPS_MAX: usize = 400;
/// Most work that may wait for threads: what the engine says of itself.
const WORK_MAX: usize = 32;
/// Files reach no further than this, in bytes: what a fuzzer writes must not fill its memory.
const FILE_END_MAX: u64 = 1 << 20;
/// Turns after which a session has come to rest.
const TURNS_MAX: usize = 20_000;

const PATHS: [&[u8]; 12] = [
    b"/f",
    b"/g",
    b"/d",
    b"/d/f",
    b"/d/e/g",
    b"",
    b"..",
    b"/d/../f/",
    b"//d//.",
    b"/l",
    b"/none/none",
    b"a\\b\0",
];

/// A client, and what it knows.
struct Play {
    machine: Machine,
    decoder: ReplyDecoder,
    handles: Vec<Vec<u8>>,
    /// Requests that are not answered.
    open: BTreeSet<RequestId>,
    outgoing: Vec<u8>,
    /// What was sent may be no requests at all.
    is_raw: bool,
    /// The server ended the session: nothing more may be asked of it.
    is_over: bool,
    next: RequestId,
}

/// One session and one script.
pub fn sftp_server(data: &[u8]) {
    let mut script = Script(data);
    let mode = script.byte();
    let mut play = Play::new(mode & 1 != 0);
    if mode & 2 == 0 {
        play.requests(&mut script);
    } else if !play.raw(&mut script) {
        return;
    }
    play.rest();
}

impl Play {
    #[expect(clippy::disallowed_methods, reason = "an origin of simulated time")]
    fn new(read_only: bool) -> Self {
        let files = Arc::new(MemoryFileSystem::new());
        for (path, len) in [(b"/f".as_slice(), 100_000), (b"/d/f", 10), (b"/d/e/g", 0)] {
            let path = VPath::resolve(path).expect("a path");
            files
                .put(&path, vec![7; len])
                .expect("there is nothing yet");
        }
        let mut outgoing = Vec::new();
        let init = Init {
            version: PROTOCOL_VERSION,
            extensions: Pairs::EMPTY,
        };
        init.encode_packet(&mut outgoing);
        Self {
            machine: Machine::new(files, read_only, Instant::now()),
            decoder: ReplyDecoder::new(Limits::default()),
            handles: Vec::new(),
            open: BTreeSet::new(),
            outgoing,
            is_raw: false,
            is_over: false,
            next: 0,
        }
    }

    /// Requests that are whole, pipelined, with turns between them.
    fn requests(&mut self, script: &mut Script<'_>) {
        for _ in 0..STEPS_MAX {
            if script.is_over() {
                break;
            }
            match script.byte() {
                0..30 => self.turn(script),
                30..50 => {
                    self.machine.work(usize::from(script.byte()));
                }
                50..60 => {
                    self.machine.open_window(usize::from(script.byte()) * 700);
                }
                60..63 => self.machine.pass(Duration::from_secs(script.byte().into())),
                kind => self.request(kind, script),
            }
        }
    }

    fn turn(&mut self, script: &mut Script<'_>) {
        let most = 1 + usize::from(script.byte()) * usize::from(script.byte());
        let piece = 1 + usize::from(script.byte());
        self.send(most, piece);
    }

    /// Sends what waits, as far as the window goes; says whether anything was.
    fn send(&mut self, most: usize, piece: usize) -> bool {
        if self.is_over {
            return false;
        }
        let len = self.outgoing.len().min(self.machine.window()).min(most);
        let bytes: Vec<u8> = self.outgoing.drain(..len).collect();
        let result = self.machine.turn(&bytes, piece);
        assert!(
            self.machine.waiting_work() <= WORK_MAX,
            "threads without number"
        );
        self.replies();
        match result {
            Ok(()) => len > 0,
            Err(why) => {
                assert!(self.is_raw, "requests ended a session: {why}");
                self.outgoing.clear();
                self.is_over = true;
                false
            }
        }
    }

    fn replies(&mut self) {
        let bytes = self.machine.take();
        let mut rest = &bytes[..];
        loop {
            let step = self
                .decoder
                .next(rest)
                .expect("a server keeps the protocol");
            rest = &rest[step.consumed..];
            let id = match step.event {
                None => break,
                Some(ReplyEvent::DataEnd { id }) => id,
                Some(ReplyEvent::Reply { id, response }) => {
                    if let Response::Handle(handle) = response {
                        self.handles.push(handle.to_vec());
                    }
                    id
                }
                Some(_) => continue,
            };
            assert!(
                self.open.remove(&id),
                "{id} was not asked, or answered twice"
            );
        }
    }

    fn request(&mut self, kind: u8, script: &mut Script<'_>) {
        let handles = &self.handles;
        let path = |script: &mut Script<'_>| match script.byte() {
            byte @ 0..200 => PATHS[usize::from(byte) % PATHS.len()].to_vec(),
            byte => script.bytes(usize::from(byte % 24)).to_vec(),
        };
        let handle = |script: &mut Script<'_>| match script.byte() {
            byte @ 0..240 if !handles.is_empty() => {
                handles[handles.len() - 1 - usize::from(byte) % handles.len()].clone()
            }
            byte => script.bytes(usize::from(byte % 20)).to_vec(),
        };
        let bounded = |script: &mut Script<'_>| match script.number() {
            far if far > 1 << 40 => far,
            near => near % FILE_END_MAX,
        };
        let attrs = |script: &mut Script<'_>| {
            let what = script.byte();
            Attrs {
                size: (what & 1 != 0).then(|| bounded(script)),
                permissions: (what & 2 != 0).then(|| u32::from(script.byte()) << 4),
                ..Attrs::NONE
            }
        };
        let (one, two) = (path(script), path(script));
        let (here, there) = (handle(script), handle(script));
        let (one, two, here, there) = (&one[..], &two[..], &here[..], &there[..]);
        let (offset, len) = (bounded(script), script.number());
        let data = vec![script.byte(); usize::from(script.byte()) * 97];
        let attributes = attrs(script);
        let algorithms: &[u8] =
            [&b"sha256"[..], b"md5,sha512", b"crc32", b"sha1"][usize::from(script.byte() % 4)];
        let block_len = u32::from(script.byte()) * 16;
        let int = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let (path, attrs) = (one, attributes.into());
        let mut named = Vec::new();
        let request: Request<'_> = match kind % 36 {
            0..4 => {
                let flags = OpenFlags(u32::from(script.byte() & 0x3f));
                Open { path, flags, attrs }.into()
            }
            4 | 5 => Close { handle: here }.into(),
            6..9 => Read {
                handle: here,
                offset,
                len: int(len),
            }
            .into(),
            9..12 => Write {
                handle: here,
                offset,
                data: &data,
            }
            .into(),
            12 => Lstat { path }.into(),
            13 => Fstat { handle: here }.into(),
            14 => Setstat { path, attrs }.into(),
            15 => Fsetstat {
                handle: here,
                attrs,
            }
            .into(),
            16 => Opendir { path }.into(),
            17 => Readdir { handle: here }.into(),
            18 => Remove { path }.into(),
            19 => Mkdir { path, attrs }.into(),
            20 => Rmdir { path }.into(),
            21 => Realpath { path }.into(),
            22 => Stat { path }.into(),
            23 => Rename { from: one, to: two }.into(),
            24 => Readlink { path }.into(),
            25 => Symlink {
                target: one,
                link: two,
                order: SymlinkOrder::OpenSsh,
            }
            .into(),
            26 => Extension::PosixRename(PosixRename { from: one, to: two }).into(),
            27 => match len % 6 {
                0 => Extension::Statvfs(Statvfs { path }),
                1 => Extension::Fstatvfs(Fstatvfs { handle: here }),
                2 => Extension::Limits,
                3 => Extension::HomeDirectory(HomeDirectory { user: path }),
                4 => Extension::Lsetstat(Lsetstat { path, attrs }),
                _ => Extension::Unknown {
                    name: path,
                    data: &data,
                },
            }
            .into(),
            28 => Extension::Hardlink(Hardlink { from: one, to: two }).into(),
            29 => Extension::Fsync(Fsync { handle: here }).into(),
            30 => Extension::CopyData(CopyData {
                from: here,
                from_offset: offset,
                len,
                to: there,
                to_offset: script.number() % FILE_END_MAX,
            })
            .into(),
            31 | 32 => {
                let check = CheckFileHandle {
                    handle: here,
                    algorithms,
                    offset,
                    len,
                    block_len,
                };
                if len % 2 == 0 {
                    Extension::CheckFileHandle(check).into()
                } else {
                    check.encode(&mut ketch_protocol::Writer::new(&mut named));
                    Extension::Unknown {
                        name: CHECK_FILE,
                        data: &named,
                    }
                    .into()
                }
            }
            33 => Extension::CheckFileName(CheckFileName {
                path,
                algorithms,
                offset,
                len,
                block_len,
            })
            .into(),
            34 => Extension::Watch(Watch {
                path,
                flags: int(len) % 3,
                kinds: WatchKinds(int(offset)),
            })
            .into(),
            _ => Extension::WatchRead(WatchRead {
                handle: here,
                wait: int(len),
            })
            .into(),
        };
        self.next = self.next.wrapping_add(1);
        request.encode_packet(self.next, &mut self.outgoing);
        self.open.insert(self.next);
    }

    /// Any bytes. Says whether they are to be played: not if they would fill the memory of a test.
    fn raw(&mut self, script: &mut Script<'_>) -> bool {
        self.is_raw = true;
        let piece = 1 + usize::from(script.byte());
        let bytes = script.0;
        let mut decoder = RequestDecoder::new(Limits::default());
        let all = [&self.outgoing[..], bytes].concat();
        let mut rest = &all[..];
        while let Ok(step) = decoder.next(rest) {
            rest = &rest[step.consumed..];
            let id = match step.event {
                None => break,
                Some(RequestEvent::Request { id, request }) => {
                    let sizes = match request {
                        Request::Open(open) => open.attrs.attrs.size,
                        Request::Setstat(set) => set.attrs.attrs.size,
                        Request::Fsetstat(set) => set.attrs.attrs.size,
                        Request::Extended(Extension::Lsetstat(set)) => set.attrs.attrs.size,
                        Request::Extended(Extension::CopyData(copy)) => Some(copy.to_offset),
                        _ => None,
                    };
                    if sizes.is_some_and(|size| size > FILE_END_MAX) {
                        return false;
                    }
                    id
                }
                Some(RequestEvent::Refused { id, .. } | RequestEvent::WriteEnd { id }) => id,
                Some(RequestEvent::WriteStart { offset, .. }) => {
                    if offset > FILE_END_MAX {
                        return false;
                    }
                    continue;
                }
                Some(_) => continue,
            };
            if !self.open.insert(id) {
                return false; // answers could not be told apart
            }
        }
        self.outgoing = all;
        while self.send(piece * 7, piece) {}
        true
    }

    /// The client asks for nothing more, and reads.
    fn rest(&mut self) {
        if self.is_over {
            return;
        }
        self.machine.open_window(1 << 40);
        let mut still = 0;
        for turn in 0..TURNS_MAX {
            let mut progress = self.send(WINDOW, 1 << 16);
            progress |= self.machine.work(turn);
            if self.outgoing.is_empty() && !progress {
                self.machine.end();
                self.machine.pass(Duration::from_secs(61));
                still += 1;
            }
            if still > 2 {
                break;
            }
        }
        assert!(self.outgoing.is_empty(), "the server takes nothing more");
        if self.is_over {
            return;
        }
        if !self.is_raw {
            assert!(self.open.is_empty(), "without an answer: {:?}", self.open);
            assert!(self.machine.is_idle(), "something is left to do");
            assert_eq!(self.machine.window(), WINDOW, "credit was kept");
        }
        assert_eq!(self.machine.waiting_work(), 0);
    }
}

/// A path that a client names, and a link's target, against a model that is easy to believe.
pub fn vpath(data: &[u8]) {
    let (link, named) = match data.iter().position(|&byte| byte == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&b"/a/b/c"[..], data),
    };
    if let Ok(path) = VPath::resolve(named) {
        assert_eq!(
            path.as_bytes(),
            naive(b"/", named),
            "{}",
            named.escape_ascii()
        );
        assert_eq!(
            VPath::resolve(path.as_bytes()),
            Ok(path.clone()),
            "canonical"
        );
        assert!(path.as_bytes().starts_with(b"/"));
        assert!(!path.as_bytes().contains(&0) && !path.as_bytes().contains(&b'\\'));
        assert!(
            path.components()
                .all(|name| !matches!(name, b"" | b"." | b".."))
        );
        if let Some((parent, name)) = path.split() {
            assert_eq!(parent.walk(name), Ok(path));
        }
    }
    let Ok(link) = VPath::resolve(link) else {
        return;
    };
    if let Ok(path) = link.walk(named) {
        assert_eq!(path.as_bytes(), naive(link.as_bytes(), named));
    }
    // The root is no link.
    if !link.is_root() && VPath::keeps_link_beneath(named) {
        // However deep the root lies, the target stays in it.
        let deep = [b"/one/two/three", link.as_bytes()].concat();
        let deep = VPath::resolve(&deep).expect("a path");
        if let Some((parent, _)) = deep.split()
            && let Ok(target) = parent.walk(named)
        {
            let target = target.as_bytes();
            let is_beneath = target == b"/one/two/three" || target.starts_with(b"/one/two/three/");
            assert!(is_beneath, "{} in {link}", named.escape_ascii());
        }
    }
}

/// A stack of components.
fn naive(from: &[u8], named: &[u8]) -> Vec<u8> {
    let mut stack: Vec<&[u8]> = Vec::new();
    let from = if named.starts_with(b"/") {
        &b""[..]
    } else {
        from
    };
    for component in from
        .split(|&b| b == b'/')
        .chain(named.split(|&b| b == b'/'))
    {
        match component {
            b".." => drop(stack.pop()),
            b"" | b"." => {}
            name => stack.push(name),
        }
    }
    let mut out = b"/".to_vec();
    out.extend(stack.join(&b'/'));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random and are the same for the same seed (xorshift).
    fn random(seed: u64, len: usize) -> Vec<u8> {
        let mut x = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_be_bytes()[2]
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn a_session_that_a_length_ends_is_asked_nothing_more() {
        // A request without a kind, and behind it a length that no packet has.
        sftp_server(b"\xaa\x2a\0\0\0\x08\0\0\0\xcb\xcb\xcb\xcb\x08\x0a\x07\xff\xf7\xff\xff\x12");
    }

    #[test]
    fn the_law_of_the_server_holds_for_random_scripts() {
        for seed in 0..100 {
            let mut script = random(seed, 3000);
            script[0] &= !2;
            sftp_server(&script);
        }
    }

    #[test]
    fn the_law_of_the_server_holds_for_bytes_that_are_nearly_requests() {
        for seed in 0..60 {
            let mut packets = Vec::new();
            for (number, &path) in PATHS.iter().enumerate() {
                let id = u32::try_from(number).unwrap();
                Request::from(Stat { path }).encode_packet(id, &mut packets);
                Request::from(Opendir { path }).encode_packet(100 + id, &mut packets);
            }
            let noise = random(seed, 6);
            let at = usize::from(noise[0]) * 3 % packets.len();
            packets[at] = noise[1];
            let start = [2 | noise[2] & 1, noise[3]];
            sftp_server(&[&start[..], &packets].concat());
        }
        sftp_server(&[2, 0]);
    }

    #[test]
    fn the_law_of_paths_holds_for_random_ones() {
        let parts: [&[u8]; 9] = [
            b"/", b"..", b".", b"a", b"%2e", b"\\", b"\0", b"\xff", b"/../",
        ];
        for seed in 0..5000 {
            let choices = random(seed, 16);
            let named: Vec<&[u8]> = choices
                .iter()
                .map(|&c| parts[usize::from(c) % parts.len()])
                .collect();
            vpath(&named.concat());
        }
    }
}
