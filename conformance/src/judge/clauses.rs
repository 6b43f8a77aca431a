//! The clauses, in the order of the draft.

use std::io::{Read, Write};

use ketch_protocol::{
    Attrs, Close, Extension, Fstat, Open, OpenFlags, Opendir, PROTOCOL_VERSION, PacketType,
    Readdir, Realpath, RemotePath, Remove, Request, Response, Stat, StatusCode,
};

use super::client::version;
use super::{Finding, JudgeError, RawClient, Reply, Verdict};

/// Content of the judge's file.
const CONTENT: &[u8] = b"judged";
/// Requests in flight where a clause is about several.
const MANY: usize = 8;

/// One conversation, and what it showed.
struct Trial<'c, S> {
    client: &'c mut RawClient<S>,
    findings: Vec<Finding>,
}

pub(super) fn judge<S: Read + Write>(
    client: &mut RawClient<S>,
    dir: &[u8],
) -> Result<Vec<Finding>, JudgeError> {
    let mut trial = Trial {
        client,
        findings: Vec::new(),
    };
    trial.greeting()?;
    let path = RemotePath::from(dir).join("ketch-judge");
    trial.file(path.as_bytes())?;
    trial.missing(path.join("missing").as_bytes())?;
    trial.directory(dir)?;
    trial.numbers()?;
    trial.unknown()?;
    Ok(trial.findings)
}

impl<S: Read + Write> Trial<'_, S> {
    /// §4: the greeting.
    fn greeting(&mut self) -> Result<(), JudgeError> {
        let (packet_type, fields) = self.client.greet()?;
        self.find(
            "draft-02 §4",
            "INIT is answered with VERSION",
            expect(packet_type == PacketType::VERSION, || {
                format!("{packet_type}")
            }),
        );
        let version = version(&fields)?;
        self.find(
            "draft-02 §4",
            "the version is the lower of both sides'",
            expect(version.version == PROTOCOL_VERSION, || {
                version.version.to_string()
            }),
        );
        Ok(())
    }

    /// §6.3, §6.4, §6.8: a file is made, written, read to its end and removed.
    fn file(&mut self, path: &[u8]) -> Result<(), JudgeError> {
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
        let open = Request::Open(Open {
            path,
            flags,
            attrs: Attrs::NONE.into(),
        });
        let Some(handle) = self.handle("§6.3: a file is made", &open)? else {
            return Ok(());
        };
        let handle = &handle[..];

        let (_, reply) = self.client.ask(&open)?;
        self.find(
            "draft-02 §6.3",
            "SSH_FXF_EXCL fails if the file is there already",
            expect(
                reply.status().is_some_and(|code| code != StatusCode::OK),
                || told(&reply),
            ),
        );

        let write = ketch_protocol::Write {
            handle,
            offset: 0,
            data: CONTENT,
        };
        self.expect_status(
            "draft-02 §6.4",
            "WRITE is answered with OK",
            write,
            StatusCode::OK,
        )?;
        let empty = ketch_protocol::Write {
            handle,
            offset: 0,
            data: b"",
        };
        self.expect_status(
            "draft-02 §6.4",
            "an empty WRITE is one, too",
            empty,
            StatusCode::OK,
        )?;

        let read = |offset, len| {
            Request::Read(ketch_protocol::Read {
                handle,
                offset,
                len,
            })
        };
        let (_, reply) = self.client.ask(&read(2, 1024))?;
        let data =
            matches!(reply.response(), Ok(Response::Data(data)) if data.data == &CONTENT[2..]);
        self.find(
            "draft-02 §6.4",
            "READ across the end answers what is there",
            expect(data, || told(&reply)),
        );
        for offset in [CONTENT.len() as u64, 1 << 40] {
            let clause = "READ at the end or past it answers EOF";
            self.expect_status("draft-02 §6.4", clause, read(offset, 1), StatusCode::EOF)?;
        }

        let (_, reply) = self.client.ask(&Request::Fstat(Fstat { handle }))?;
        let size = match reply.response() {
            Ok(Response::Attrs(attrs)) => attrs.attrs.size,
            _ => None,
        };
        self.find(
            "draft-02 §6.8",
            "FSTAT tells the size of an open file",
            expect(size == Some(CONTENT.len() as u64), || told(&reply)),
        );

        let close = || Request::Close(Close { handle });
        self.expect_status(
            "draft-02 §6.3",
            "CLOSE is answered",
            close(),
            StatusCode::OK,
        )?;
        let (_, reply) = self.client.ask(&close())?;
        self.find(
            "draft-02 §6.3",
            "a handle is invalid after CLOSE, whatever CLOSE answered",
            expect(
                reply.status().is_some_and(|code| code != StatusCode::OK),
                || told(&reply),
            ),
        );
        let remove = Request::Remove(Remove { path });
        self.expect_status(
            "draft-02 §6.5",
            "REMOVE removes a file",
            remove,
            StatusCode::OK,
        )
    }

    /// §7: a missing name has a code of its own.
    fn missing(&mut self, path: &[u8]) -> Result<(), JudgeError> {
        let clause = "a reference to a file that should exist answers NO_SUCH_FILE";
        let (_, reply) = self.client.ask(&Request::Stat(Stat { path }))?;
        // §7 has no finer code: PERMISSION_DENIED is what a careful server may say.
        let kept = matches!(
            reply.status(),
            Some(StatusCode::NO_SUCH_FILE | StatusCode::PERMISSION_DENIED)
        );
        self.find("draft-02 §7", clause, expect(kept, || told(&reply)));
        Ok(())
    }

    /// §6.7, §6.11: a directory is listed to its end, and has a canonical name.
    fn directory(&mut self, dir: &[u8]) -> Result<(), JudgeError> {
        let opendir = Request::Opendir(Opendir { path: dir });
        let Some(handle) = self.handle("§6.7: a directory is opened", &opendir)? else {
            return Ok(());
        };
        let mut verdict = expect(false, || "no end was seen".to_owned());
        // Some 100 entries come at a time: the bound is for servers that never end.
        for _ in 0..100_000 {
            let (_, reply) = self
                .client
                .ask(&Request::Readdir(Readdir { handle: &handle }))?;
            match reply.response() {
                Ok(Response::Name(names)) if !names.is_empty() => {}
                _ => {
                    verdict = expect(reply.status() == Some(StatusCode::EOF), || told(&reply));
                    break;
                }
            }
        }
        self.find("draft-02 §6.7", "READDIR answers names, then EOF", verdict);
        let close = Request::Close(Close { handle: &handle });
        self.expect_status(
            "draft-02 §6.7",
            "CLOSE ends a listing",
            close,
            StatusCode::OK,
        )?;

        let (_, reply) = self
            .client
            .ask(&Request::Realpath(Realpath { path: b"." }))?;
        let absolute = match reply.response() {
            Ok(Response::Name(names)) => {
                names.len() == 1 && names.iter().all(|entry| entry.filename.starts_with(b"/"))
            }
            _ => false,
        };
        self.find(
            "draft-02 §6.11",
            "REALPATH answers one absolute name",
            expect(absolute, || told(&reply)),
        );
        Ok(())
    }

    /// §6, §6.1: every request is answered once, under its own number.
    fn numbers(&mut self) -> Result<(), JudgeError> {
        let mut asked = Vec::new();
        for _ in 0..MANY {
            asked.push(
                self.client
                    .send(&Request::Realpath(Realpath { path: b"/" }))?,
            );
        }
        let mut answered = Vec::new();
        for _ in 0..MANY {
            answered.push(self.client.receive()?.id);
        }
        answered.sort_unstable();
        self.find(
            "draft-02 §6",
            "each of several requests in flight is answered once, under its number",
            expect(answered == asked, || {
                format!("{asked:?} were answered as {answered:?}")
            }),
        );
        Ok(())
    }

    /// §8: an extension that a server does not know is refused, and the session goes on.
    ///
    /// Nothing is asked of packets of an unknown type, because OpenSSH's server passes them over
    /// in silence, and then looks at what came with them only when more comes.
    fn unknown(&mut self) -> Result<(), JudgeError> {
        let extension = Extension::Unknown {
            name: b"no-such-extension@ketch",
            data: b"",
        };
        let clause = "an unknown EXTENDED request answers OP_UNSUPPORTED";
        let request = Request::Extended(extension);
        self.expect_status("draft-02 §8", clause, request, StatusCode::OP_UNSUPPORTED)?;

        let (id, reply) = self
            .client
            .ask(&Request::Realpath(Realpath { path: b"/" }))?;
        self.find(
            "draft-02 §8",
            "the session goes on after an unknown EXTENDED request",
            expect(
                reply.id == id && reply.packet_type == PacketType::NAME,
                || told(&reply),
            ),
        );
        Ok(())
    }

    /// Asks for a handle and judges that one comes.
    fn handle(
        &mut self,
        clause: &'static str,
        request: &Request<'_>,
    ) -> Result<Option<Vec<u8>>, JudgeError> {
        let (_, reply) = self.client.ask(request)?;
        let handle = match reply.response() {
            Ok(Response::Handle(handle)) => Some(handle.to_vec()),
            _ => None,
        };
        self.find(
            "draft-02 §7",
            clause,
            expect(handle.is_some(), || told(&reply)),
        );
        Ok(handle)
    }

    /// Judges that `request` is answered with the status `code`, under its own number.
    fn expect_status<'r>(
        &mut self,
        source: &'static str,
        clause: &'static str,
        request: impl Into<Request<'r>>,
        code: StatusCode,
    ) -> Result<(), JudgeError> {
        let (id, reply) = self.client.ask(&request.into())?;
        let kept = reply.id == id && reply.status() == Some(code);
        self.find(source, clause, expect(kept, || told(&reply)));
        Ok(())
    }

    fn find(&mut self, source: &'static str, clause: &'static str, verdict: Verdict) {
        self.findings.push(Finding {
            source,
            clause,
            verdict,
        });
    }
}

fn expect(kept: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if kept {
        Verdict::Kept
    } else {
        Verdict::Broken(otherwise())
    }
}

/// A reply in words.
fn told(reply: &Reply) -> String {
    match reply.response() {
        Ok(response) => format!("it answered {response:?}"),
        Err(error) => error.to_string(),
    }
}
