//! The largest things that are read, and what a decoder's owner may set.
//!
//! The draft names few maxima; the others are ketch's, chosen so that every server and client in
//! use fits. Nothing is allocated by any of them: they say what is refused.

/// Longest packet that is read unless [`Limits`] says otherwise: the value of the length field.
///
/// OpenSSH takes 256 KiB; the rest leaves room for the fields around 256 KiB of file data.
pub const PACKET_LEN_MAX: usize = 257 * 1024;
/// Longest packet that every server should take, the length field included, in bytes (draft-02 §3).
pub const PACKET_LEN_PORTABLE: usize = 34_000;
/// Longest handle in bytes (draft-02 §6.3).
pub const HANDLE_LEN_MAX: usize = 256;
/// Longest path that is read from a request, in bytes. Replies are bounded by their packet.
pub const PATH_LEN_MAX: usize = 4096;
/// Most extended pairs in one set of attributes.
pub const ATTRS_PAIRS_MAX: usize = 16;
/// Most extension pairs in an `INIT` or `VERSION`.
pub const EXTENSIONS_MAX: usize = 64;
/// Longest name of an extension or of an extended attribute, in bytes.
pub const EXTENSION_NAME_LEN_MAX: usize = 256;
/// Longest user name that `home-directory` may ask for, in bytes.
pub const USER_NAME_LEN_MAX: usize = 255;
/// Most file data asked for or sent in one request, in bytes: what OpenSSH's `limits` announces.
pub const DATA_LEN_MAX: u32 = 255 * 1024;
/// File data in one request that every server takes, in bytes: it fits [`PACKET_LEN_PORTABLE`].
pub const DATA_LEN_PORTABLE: u32 = 32 * 1024;

/// What a decoder accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest packet in bytes, the length field itself not counted. Default:
    /// [`PACKET_LEN_MAX`].
    pub packet_len: usize,
}

impl Limits {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            packet_len: PACKET_LEN_MAX,
        }
    }

    /// Longest packet in bytes, the length field itself not counted. Default: [`PACKET_LEN_MAX`].
    #[must_use]
    pub const fn packet_len(mut self, bytes: usize) -> Self {
        self.packet_len = bytes;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}
