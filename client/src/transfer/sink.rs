//! Where an embedder has bytes go to, or come from, in place of a local file.

use std::io;

/// Takes the bytes of a download.
///
/// Its methods are called on a thread that may block, never on the task that drives the
/// connection; several calls may be under way at once, for different parts of the file, in any
/// order. While they are slow, less is asked of the server.
pub trait Sink: Send + Sync + 'static {
    /// Takes `bytes`, which belong at `offset` (bytes from the start of the file).
    ///
    /// # Errors
    /// Whatever it likes: the download ends with it.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// All `size` bytes were written. Default: nothing.
    ///
    /// # Errors
    /// Whatever it likes: the download ends with it.
    fn finish(&self, size: u64) -> io::Result<()> {
        let _ = size;
        Ok(())
    }

    /// The download ended early: what was written is no whole file. Default: nothing.
    fn abort(&self) {}
}

/// Gives the bytes of an upload.
///
/// It is read on a thread that may block, never on the task that drives the connection.
pub trait Source: Send + Sync + 'static {
    /// Bytes there are, if that is known. Default: unknown. Asked once, when the upload is
    /// started, by the caller's task.
    fn size(&self) -> Option<u64> {
        None
    }

    /// Reads into `buf` from `offset` (bytes from the start) on, and says how much; zero means
    /// the end, fewer than fit do not.
    ///
    /// # Errors
    /// Whatever it likes: the upload ends with it.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}
