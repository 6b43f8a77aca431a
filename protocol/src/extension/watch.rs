//! The change feed: `watch@ketch` and `watch-read@ketch`, as `docs/watch-extension.md` has them.
//!
//! A client subscribes to a directory and gets a handle. A read on that handle stays unanswered
//! until something has happened or its time is over, so the stream keeps to requests and replies.

use crate::limits::{HANDLE_LEN_MAX, PATH_LEN_MAX};
use crate::list::Element;
use crate::request::debug_fields;
use crate::{DecodeError, Escaped, List, Reader, Writer};

/// Most events of one reply.
pub const WATCH_EVENTS_MAX: usize = 4096;
/// Longest event, in bytes: two paths, and room for what later versions add.
const EVENT_LEN_MAX: usize = 2 * PATH_LEN_MAX + 1024;

/// What happened to a name.
///
/// Numbers that are not known here are kept: a client passes them over.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WatchKind(pub u8);

impl WatchKind {
    /// The name is new: a file, directory or link was made or moved here. For a directory that was
    /// made with files in it, each of them is told as well.
    pub const CREATED: Self = Self(1);
    /// The content of a file changed, and may go on changing.
    pub const MODIFIED: Self = Self(2);
    /// A file that was open for writing was closed.
    pub const WRITTEN: Self = Self(3);
    /// Mode, owner or times changed.
    pub const ATTRIBUTES: Self = Self(4);
    /// The name is gone: removed, or moved to where nothing is watched.
    pub const REMOVED: Self = Self(5);
    /// A name became another, both of them watched.
    pub const RENAMED: Self = Self(6);
    /// Events were lost at this point of the stream: whoever wants to know lists again.
    pub const OVERFLOW: Self = Self(7);
}

/// A set of [`WatchKind`]s: bit `n` stands for number `n`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct WatchKinds(pub u32);

impl WatchKinds {
    /// All, those of later versions too.
    pub const ALL: Self = Self(u32::MAX);

    /// Whether a kind is in it. [`WatchKind::OVERFLOW`] is told whatever was asked for.
    #[must_use]
    pub const fn contains(self, kind: WatchKind) -> bool {
        let bit = if kind.0 < 32 { 1_u32 << kind.0 } else { 0 };
        self.0 & bit != 0 || kind.0 == WatchKind::OVERFLOW.0
    }
}

impl FromIterator<WatchKind> for WatchKinds {
    fn from_iter<I: IntoIterator<Item = WatchKind>>(kinds: I) -> Self {
        let bit = |kind: WatchKind| 1_u32.checked_shl(u32::from(kind.0)).unwrap_or(0);
        Self(kinds.into_iter().fold(0, |all, kind| all | bit(kind)))
    }
}

/// `watch@ketch`: subscribes to changes in a directory.
///
/// The server answers with `Handle`, or with `Status`. What happens after the handle was made is
/// told by [`WatchRead`]. Source: `docs/watch-extension.md`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Watch<'a> {
    /// The directory, at most [`PATH_LEN_MAX`] bytes.
    pub path: &'a [u8],
    /// [`Watch::RECURSIVE`], or zero. Bits that are not known here are refused by servers.
    pub flags: u32,
    /// What is to be told.
    pub kinds: WatchKinds,
}

impl<'a> Watch<'a> {
    /// Flag: also what happens in the directories beneath.
    pub const RECURSIVE: u32 = 1;

    /// Decodes the fields after the name of the extension.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            path: r.string(PATH_LEN_MAX)?,
            flags: r.u32()?,
            kinds: WatchKinds(r.u32()?),
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the name of the extension.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { path, flags, kinds } = *self;
        w.string(path);
        w.u32(flags);
        w.u32(kinds.0);
    }
}

debug_fields!(Watch { esc path, val flags, val kinds });

/// `watch-read@ketch`: asks for events, and waits for them.
///
/// The server answers with `ExtendedReply` ([`WatchReply`]), without events if none came in time;
/// with the status `EOF` when the subscription is over. Source: `docs/watch-extension.md`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct WatchRead<'a> {
    /// Handle from `watch@ketch`, at most [`HANDLE_LEN_MAX`] bytes.
    pub handle: &'a [u8],
    /// Longest that it may stay unanswered, in milliseconds; zero for an answer at once.
    pub wait: u32,
}

impl<'a> WatchRead<'a> {
    /// Decodes the fields after the name of the extension.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or bytes are left over.
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let message = Self {
            handle: r.string(HANDLE_LEN_MAX)?,
            wait: r.u32()?,
        };
        r.finish()?;
        Ok(message)
    }

    /// Appends the fields after the name of the extension.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { handle, wait } = *self;
        w.string(handle);
        w.u32(wait);
    }
}

debug_fields!(WatchRead { esc handle, val wait });

/// The reply to `watch-read@ketch`: events in the order in which they happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WatchReply<'a> {
    /// None if nothing happened in time.
    pub events: List<'a, WatchEvent<'a>>,
}

impl<'a> WatchReply<'a> {
    /// Decodes the content of the reply. Bytes behind the last event are passed over.
    ///
    /// # Errors
    /// [`DecodeError`] if a field is cut or too long, or there are more than [`WATCH_EVENTS_MAX`].
    pub fn decode(mut r: Reader<'a>) -> Result<Self, DecodeError> {
        let count = r.u32()?;
        let max = WATCH_EVENTS_MAX;
        match usize::try_from(count) {
            Ok(len) if len <= max => {}
            len => {
                let len = len.unwrap_or(usize::MAX);
                return Err(DecodeError::TooLong { len, max });
            }
        }
        let events = List::decode_counted(&mut r, count)?;
        Ok(Self { events })
    }

    /// Appends the content of the reply.
    pub fn encode(&self, w: &mut Writer<'_>) {
        let Self { events } = self;
        w.u32(events.count());
        events.encode(w);
    }
}

/// Something that happened.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct WatchEvent<'a> {
    /// What.
    pub kind: WatchKind,
    /// Whether it is known to be a directory.
    pub is_directory: bool,
    /// To which name: from the root as the client sees it. Empty for [`WatchKind::OVERFLOW`].
    pub path: &'a [u8],
    /// The new name of [`WatchKind::RENAMED`]; empty for all others.
    pub to: &'a [u8],
}

/// Bit of an event's flags: it is about a directory.
const DIRECTORY: u8 = 1;

impl<'a> Element<'a> for WatchEvent<'a> {
    fn decode_next(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        // What a later version puts behind the last field is passed over.
        let mut r = Reader::new(r.string(EVENT_LEN_MAX)?);
        Ok(Self {
            kind: WatchKind(r.u8()?),
            is_directory: r.u8()? & DIRECTORY != 0,
            path: r.string(PATH_LEN_MAX)?,
            to: r.string(PATH_LEN_MAX)?,
        })
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let Self {
            kind,
            is_directory,
            path,
            to,
        } = *self;
        w.scope(|w| {
            w.u8(kind.0);
            w.u8(if is_directory { DIRECTORY } else { 0 });
            w.string(path);
            w.string(to);
        });
    }
}

impl std::fmt::Debug for WatchEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchEvent")
            .field("kind", &self.kind)
            .field("is_directory", &self.is_directory)
            .field("path", &Escaped(self.path))
            .field("to", &Escaped(self.to))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reply_stands_as_the_document_has_it() {
        let events = [
            WatchEvent {
                kind: WatchKind::RENAMED,
                is_directory: true,
                path: b"/a",
                to: b"/b",
            },
            WatchEvent {
                kind: WatchKind::OVERFLOW,
                is_directory: false,
                path: b"",
                to: b"",
            },
        ];
        let reply = WatchReply {
            events: List::new(&events),
        };
        let mut bytes = Vec::new();
        reply.encode(&mut Writer::new(&mut bytes));
        let expected = b"\0\0\0\x02\
            \0\0\0\x0e\x06\x01\0\0\0\x02/a\0\0\0\x02/b\
            \0\0\0\x0a\x07\x00\0\0\0\0\0\0\0\0";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_a_later_version_appends_is_passed_over() {
        let bytes = b"\0\0\0\x01\0\0\0\x0e\x63\xff\0\0\0\x01x\0\0\0\0newmore";
        let reply = WatchReply::decode(Reader::new(bytes)).unwrap();
        let event = reply.events.iter().next().unwrap();
        assert_eq!((event.kind, event.path), (WatchKind(0x63), &b"x"[..]));
        assert!(event.is_directory);
    }

    #[test]
    fn a_count_that_nobody_sends_is_refused() {
        let bytes = [0xff; 8];
        assert!(WatchReply::decode(Reader::new(&bytes)).is_err());
        assert!(WatchKinds(0).contains(WatchKind::OVERFLOW));
        assert!(!WatchKinds(0).contains(WatchKind(200)));
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(
            path in proptest::collection::vec(any::<u8>(), 0..64),
            to in proptest::collection::vec(any::<u8>(), 0..64),
            flags in any::<u32>(), kinds in any::<u32>(), kind in any::<u8>(),
            is_directory in any::<bool>(), count in 0..4_usize,
        ) {
            assert_survives!(Watch, Watch { path: &path, flags, kinds: WatchKinds(kinds) });
            assert_survives!(WatchRead, WatchRead { handle: &path, wait: flags });
            let event = WatchEvent { kind: WatchKind(kind), is_directory, path: &path, to: &to };
            let events = vec![event; count];
            assert_survives!(WatchReply, WatchReply { events: List::new(&events) });
        }
    }
}
