//! Replies on their way out: everything but the bodies of `DATA`, which never pass here.

use ketch_protocol::{
    Attrs, CheckFileReply, List, NameEntry, NamesWriter, Owner, RequestId, Response, StatVfs,
    Times, Version, WatchEvent, WatchReply, Writer, limits::PACKET_LEN_MAX,
};

use super::HashPlan;
use crate::fs::{Batch, Metadata};
use crate::longname;
use crate::refusal::Refusal;

/// Encoded replies, one behind the other: those of one turn leave as one piece.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    bytes: Vec<u8>,
    /// How many of them have left.
    sent: usize,
    longname: String,
}

impl Replies {
    pub(crate) fn version(&mut self, version: &Version<'_>) {
        version.encode_packet(&mut self.bytes);
    }

    pub(crate) fn ok(&mut self, id: RequestId) {
        let status = ketch_protocol::Status::new(ketch_protocol::StatusCode::OK);
        self.push(id, &Response::Status(status));
    }

    pub(crate) fn refuse(&mut self, id: RequestId, why: Refusal) {
        self.push(id, &Response::Status(why.status()));
    }

    pub(crate) fn done(&mut self, id: RequestId, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.ok(id),
            Err(why) => self.refuse(id, why),
        }
    }

    pub(crate) fn handle(&mut self, id: RequestId, handle: &[u8]) {
        self.push(id, &Response::Handle(handle));
    }

    pub(crate) fn attrs(&mut self, id: RequestId, of: &Metadata) {
        self.push(id, &Response::Attrs(attrs(of).into()));
    }

    pub(crate) fn space(&mut self, id: RequestId, space: &StatVfs) {
        self.extended(id, |w| space.encode(w));
    }

    /// Names for numbers, in the order in which they were asked for; empty where there is none.
    pub(crate) fn owners(&mut self, id: RequestId, users: &[Vec<u8>], groups: &[Vec<u8>]) {
        self.extended(id, |w| {
            for names in [users, groups] {
                w.scope(|w| names.iter().for_each(|name| w.string(name)));
            }
        });
    }

    /// A reply of an extension's own form.
    pub(crate) fn extended(&mut self, id: RequestId, content: impl FnOnce(&mut Writer<'_>)) {
        let mut bytes = Vec::new();
        content(&mut Writer::new(&mut bytes));
        self.push(id, &Response::ExtendedReply(&bytes));
    }

    /// Events of a subscription, or that there were none in time.
    pub(crate) fn events(&mut self, id: RequestId, events: &[WatchEvent<'_>]) {
        let events = List::new(events);
        self.extended(id, |w| WatchReply { events }.encode(w));
    }

    /// Checksums, in the form that was asked for.
    pub(crate) fn hashes(&mut self, id: RequestId, plan: &HashPlan, hashes: &[u8]) {
        let reply = CheckFileReply {
            algorithm: plan.digest.algorithm.as_str().as_bytes(),
            hashes,
        };
        self.extended(id, |w| match plan.is_named {
            true => reply.encode_named(w),
            false => reply.encode(w),
        });
    }

    /// One name without attributes: the answer to `REALPATH`, `READLINK` and their like.
    pub(crate) fn name(&mut self, id: RequestId, name: &[u8]) {
        self.longname.clear();
        longname::push_harmless(&mut self.longname, name);
        let entry = NameEntry {
            filename: name,
            longname: self.longname.as_bytes(),
            attrs: Attrs::NONE.into(),
        };
        // One name fits: a path has at most 4 KiB, a link's content at most a page.
        let _ = NamesWriter::new(id, &mut self.bytes).push(&entry, PACKET_LEN_MAX);
    }

    /// Entries of a directory, or the end of it.
    pub(crate) fn entries(&mut self, id: RequestId, batch: &Batch, now: u64) {
        if batch.entries().is_empty() {
            return self.refuse(id, Refusal::END_OF_FILE);
        }
        let mut names = NamesWriter::new(id, &mut self.bytes);
        for entry in batch.entries() {
            self.longname.clear();
            longname::write(
                &mut self.longname,
                &entry.name,
                &entry.metadata,
                batch.known_owners(),
                now,
            );
            let entry = NameEntry {
                filename: &entry.name,
                longname: self.longname.as_bytes(),
                attrs: attrs(&entry.metadata).into(),
            };
            // A batch is bounded far below a packet.
            let _ = names.push(&entry, PACKET_LEN_MAX);
        }
    }

    fn push(&mut self, id: RequestId, response: &Response<'_>) {
        response.encode_packet(id, &mut self.bytes);
    }

    /// What has not left yet.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// The first `len` unsent bytes have left.
    pub(crate) fn sent(&mut self, len: usize) {
        self.sent = self.sent.saturating_add(len);
        if self.sent >= self.bytes.len() {
            self.bytes.clear();
            // What one long listing needed is not kept for ever.
            self.bytes.shrink_to(KEPT);
            self.sent = 0;
        }
    }
}

/// Capacity that an idle session keeps for replies, in bytes.
const KEPT: usize = 16 * 1024;

/// What a client is told of a file.
fn attrs(of: &Metadata) -> Attrs {
    Attrs {
        size: Some(of.size),
        owner: Some(Owner {
            uid: of.uid,
            gid: of.gid,
        }),
        permissions: Some(of.mode),
        times: Some(Times {
            atime: of.accessed,
            mtime: of.modified,
        }),
    }
}
