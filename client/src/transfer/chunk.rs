//! How long one READ is: as long as the server answers whole.
//!
//! Servers cap reads and say so only by answering short: SFTPGo and `rclone serve sftp` give
//! 32 KiB whatever is asked. The length follows what comes, and tries the longer one again later.

/// The shortest READ that is asked for, unless the file has less left.
pub(crate) const CHUNK_MIN: u32 = 512;

/// Whole answers before a longer READ is tried again; doubled with every disappointment.
const PATIENCE_MIN: u32 = 64;
const PATIENCE_MAX: u32 = 1 << 16;

/// The length of the next READ of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    max: u32,
    len: u32,
    whole: u32,
    patience: u32,
}

impl Chunk {
    /// Starts at `max` bytes, the most that server and limits allow.
    pub(crate) fn new(max: u32) -> Self {
        let max = max.max(CHUNK_MIN);
        Self {
            max,
            len: max,
            whole: 0,
            patience: PATIENCE_MIN,
        }
    }

    /// The server said that it allows `max` bytes: it may be asked before it says so.
    pub(crate) const fn allow(&mut self, max: u32) {
        if max > self.max {
            if self.len == self.max {
                self.len = max;
            }
            self.max = max;
        }
    }

    /// Bytes to ask for.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// An answer held all that was asked for.
    pub(crate) fn on_whole(&mut self) {
        if self.len == self.max {
            return;
        }
        self.whole += 1;
        if self.whole >= self.patience {
            self.whole = 0;
            self.len = self.len.saturating_mul(2).min(self.max);
        }
    }

    /// An answer held `got` bytes of more, although the file goes on.
    pub(crate) fn on_short(&mut self, got: u32) {
        // Answers to longer requests sent before the first short one teach nothing new.
        if got < self.len {
            self.len = got.max(CHUNK_MIN);
            self.patience = self.patience.saturating_mul(2).min(PATIENCE_MAX);
        }
        self.whole = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_follows_a_server_that_caps_reads() {
        let mut chunk = Chunk::new(261_120);
        chunk.on_short(32_768);
        chunk.on_short(32_768);
        assert_eq!(chunk.len(), 32_768);
        for _ in 0..2 * PATIENCE_MIN {
            chunk.on_whole();
        }
        assert_eq!(chunk.len(), 65_536);
        for _ in 0..1_000_000 {
            chunk.on_whole();
        }
        assert_eq!(chunk.len(), 261_120);
    }

    #[test]
    fn more_is_asked_for_as_soon_as_it_is_allowed_and_not_where_less_came() {
        let mut chunk = Chunk::new(32_755);
        chunk.allow(65_523);
        assert_eq!(chunk.len(), 65_523);
        chunk.allow(32_755);
        assert_eq!(chunk.len(), 65_523);
        chunk.on_short(16_384);
        chunk.allow(261_120);
        assert_eq!(chunk.len(), 16_384);
    }

    #[test]
    fn a_server_that_gives_single_bytes_is_asked_for_no_less_than_the_minimum() {
        let mut chunk = Chunk::new(32_768);
        chunk.on_short(1);
        assert_eq!(chunk.len(), CHUNK_MIN);
    }
}
