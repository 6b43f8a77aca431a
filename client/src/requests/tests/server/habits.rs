//! What the server in memory does differently from the letter.

use ketch_protocol::{ExtensionName, PacketType, ServerLimits, StatusCode};

/// What the server does differently from the letter.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Longest answer to a READ.
    pub(crate) read_max: u32,
    /// Whether READs are answered short at random.
    pub(crate) short: bool,
    /// Whether answers come in any order.
    pub(crate) shuffle: bool,
    pub(crate) extensions: Vec<ExtensionName>,
    pub(crate) limits: ServerLimits,
    /// The n-th request of a type fails with this status.
    pub(crate) fails: Option<(PacketType, usize, StatusCode)>,
    /// From the n-th request of a type on, none of that type is answered.
    pub(crate) silent_from: Option<(PacketType, usize)>,
    /// Whether nothing at all is done or answered after such a one.
    pub(crate) silent_for_good: bool,
    /// Whether the size in attributes is told.
    pub(crate) tells_size: bool,
    /// A name that every listing also holds.
    pub(crate) evil: Vec<Vec<u8>>,
    /// Whether the listing never ends.
    pub(crate) endless: bool,
    /// Entries in one answer to READDIR.
    pub(crate) names_max: usize,
    /// Whether a VERSION comes at all.
    pub(crate) greets: bool,
    /// It says that files have so many bytes more than they have.
    pub(crate) boasts: u64,
    /// The byte at this offset is not kept as it was written.
    pub(crate) spoils_at: Option<usize>,
    /// It does not know `OPEN` with `EXCL`.
    pub(crate) refuses_exclusive: bool,
    /// With so many requests at a time it answers none of them.
    pub(crate) hangs_at: Option<usize>,
    /// Longest WRITE that it takes, in bytes of data.
    pub(crate) write_max: u32,
    /// Bytes are taken only behind those that are there; what else comes gets this text.
    pub(crate) in_order: Option<&'static str>,
    /// Bytes of several WRITEs that come at a time are mixed up.
    pub(crate) mixes_up: bool,
    /// Files that may be open at a time, and what it says to one more.
    pub(crate) files_max: Option<(usize, StatusCode, &'static str)>,
    /// It does not know `LSTAT`.
    pub(crate) no_lstat: bool,
    /// It sets no attributes.
    pub(crate) no_setstat: bool,
    /// Nothing is renamed to a name that is taken, whatever the request.
    pub(crate) never_replaces: bool,
    /// A file can be opened once, is gone as soon as it is closed, and cannot be looked at.
    pub(crate) read_once: bool,
    /// A file is gone as soon as it is closed.
    pub(crate) moves_on: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            read_max: u32::MAX,
            short: false,
            shuffle: false,
            extensions: vec![
                ExtensionName::PosixRename,
                ExtensionName::Fsync,
                ExtensionName::Limits,
            ],
            limits: ServerLimits {
                packet_len: 262_144,
                read_len: 261_120,
                write_len: 261_120,
                open_handles: 1000,
            },
            fails: None,
            silent_from: None,
            silent_for_good: false,
            tells_size: true,
            evil: Vec::new(),
            endless: false,
            names_max: 10,
            greets: true,
            boasts: 0,
            spoils_at: None,
            refuses_exclusive: false,
            hangs_at: None,
            write_max: u32::MAX,
            in_order: None,
            mixes_up: false,
            files_max: None,
            no_lstat: false,
            no_setstat: false,
            never_replaces: false,
            read_once: false,
            moves_on: false,
        }
    }
}
