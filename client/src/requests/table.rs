//! The requests that wait for an answer.
//!
//! A request id is the key of a slot: an answer to a request that is no longer there is told from
//! one that is (draft-ietf-secsh-filexfer-02 §3 lets the client choose ids, and demands only that
//! they differ).

use std::time::Instant;

use ketch_protocol::{PacketType, RemotePath};

use super::{
    calls::WaitingCall,
    slots::{Key, Slots},
};
use crate::transfer::{download::Ask, pace::Sent, ranges::Span};

/// The requests in flight, by id.
pub(crate) type Table = Slots<Entry>;

/// One request in flight.
pub(crate) struct Entry {
    /// Who waits.
    pub owner: Owner,
    /// What may be answered besides `STATUS`.
    pub expect: Expect,
    /// When it was sent.
    pub sent_at: Instant,
    /// The server was silent for too long since: it may never be answered, and others do not wait
    /// for that.
    pub is_owed: bool,
}

/// Who waits for an answer.
pub(crate) enum Owner {
    /// A caller in another task.
    Call(Box<WaitingCall>),
    /// A transfer.
    Job {
        /// Which one.
        job: Key,
        /// Which of its files or directories.
        item: Key,
        /// What it had asked.
        what: What,
    },
    /// The request table itself: `limits@openssh.com`.
    Limits,
    /// Nobody any more: a handle that comes is closed, and the file removed that was created.
    Nobody {
        /// The file to remove if it was opened.
        remove: Option<RemotePath>,
    },
}

/// What a transfer had asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// Bytes of a file.
    Read(Ask, Sent),
    /// That bytes be written.
    Write {
        /// Which bytes.
        span: Span,
        /// For the pace.
        sent: Sent,
    },
    /// Entries of a directory: the how manieth time.
    ReadDir {
        /// Counted from zero.
        turn: u32,
    },
    /// All else; the transfer knows what its steps mean.
    Step(Step),
}

/// The steps of a transfer that have a request of their own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Stat,
    Open,
    Fstat,
    SetAttrs,
    Fsync,
    Close,
    /// What has a name: by `LSTAT`, or by `STAT` where the server has only that.
    Look,
    LookThrough,
    Rename,
    RenameAgain,
    RemoveOld,
    MakeDir,
    OpenDir,
    ReadLink,
    MakeLink,
    /// Where something really is.
    Locate,
    /// A checksum was asked for.
    Checksum,
    /// How much room there is.
    Room,
}

/// The answer that a request has when it succeeds (draft-02 §6 and §7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Expect {
    /// `STATUS` alone: `OK` is the success.
    Status,
    /// `HANDLE`.
    Handle,
    /// `DATA` of at most so many bytes.
    Data(u32),
    /// `NAME`.
    Name,
    /// `ATTRS`.
    Attrs,
    /// `EXTENDED_REPLY`.
    Extended,
}

impl Expect {
    /// Whether a packet of this type is an answer to such a request.
    pub(crate) fn allows(self, packet_type: PacketType) -> bool {
        let success = match self {
            Self::Status => PacketType::STATUS,
            Self::Handle => PacketType::HANDLE,
            Self::Data(_) => PacketType::DATA,
            Self::Name => PacketType::NAME,
            Self::Attrs => PacketType::ATTRS,
            Self::Extended => PacketType::EXTENDED_REPLY,
        };
        packet_type == PacketType::STATUS || packet_type == success
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_type_that_was_asked_for_is_an_answer() {
        assert!(Expect::Handle.allows(PacketType::STATUS));
        assert!(Expect::Handle.allows(PacketType::HANDLE));
        assert!(!Expect::Handle.allows(PacketType::DATA));
        assert!(!Expect::Status.allows(PacketType::ATTRS));
    }
}
