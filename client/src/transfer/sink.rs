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

    /// Reads back what was written, into `buf` from `offset` on, and says how much; fewer than fit
    /// mean that there is no more. Asked only for
    /// [`Verify::Checksum`](crate::Verify::Checksum), after all bytes were written and before
    /// [`Sink::finish`]. Default: it cannot, and such a download fails.
    ///
    /// # Errors
    /// Whatever it likes: the download ends with it.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let _ = (offset, buf);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The download failed, or was given up: what was written is no whole file. Default: nothing.
    ///
    /// It is called once at most. It may follow [`Sink::finish`]: where that failed, or where the
    /// caller gave the download up while it ran. Other calls that are under way on other threads may
    /// return after it; none is begun.
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
