//! How fast a user may be.

/// How many bytes a second a user may move, in all sessions together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Bandwidth {
    /// To the server, in bytes a second. Default: as many as one likes.
    pub upload: Option<u64>,
    /// From the server, in bytes a second. Default: as many as one likes.
    pub download: Option<u64>,
}

impl Bandwidth {
    /// The same in both directions, in bytes a second; 0 is taken as 1.
    #[must_use]
    pub const fn both(bytes_per_second: u64) -> Self {
        Self {
            upload: Some(bytes_per_second),
            download: Some(bytes_per_second),
        }
    }

    /// At most so many bytes a second to the server.
    #[must_use]
    pub const fn upload(mut self, bytes_per_second: u64) -> Self {
        self.upload = Some(bytes_per_second);
        self
    }

    /// At most so many bytes a second from the server.
    #[must_use]
    pub const fn download(mut self, bytes_per_second: u64) -> Self {
        self.download = Some(bytes_per_second);
        self
    }
}
