//! Where an embedder has bytes go to, or come from, in place of a local file.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

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

/// A sink that a download feeds, over one connection or one after another.
pub(crate) struct Fed {
    pub sink: Arc<dyn Sink>,
    /// How its end went, once it did.
    ended: Mutex<Option<bool>>,
}

impl Fed {
    pub(crate) fn new(sink: Arc<dyn Sink>) -> Arc<Self> {
        let ended = Mutex::new(None);
        Arc::new(Self { sink, ended })
    }

    /// Tells the sink that all is there. It is told once: who was lost while it was told leaves the
    /// next one in doubt whether it was.
    pub(crate) fn finish(&self, size: u64) -> io::Result<()> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match *ended {
            Some(true) => Ok(()),
            Some(false) => Err(io::Error::other("it failed before")),
            None => {
                let result = self.sink.finish(size);
                *ended = Some(result.is_ok());
                result
            }
        }
    }
}

impl fmt::Debug for Fed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fed").finish_non_exhaustive()
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[derive(Default)]
    struct Counting {
        finished: AtomicUsize,
        fails: bool,
    }

    impl Sink for Counting {
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn finish(&self, _: u64) -> io::Result<()> {
            self.finished.fetch_add(1, Relaxed);
            if self.fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    #[test]
    fn a_sink_is_told_once_that_all_is_there() {
        for fails in [false, true] {
            let sink = Arc::new(Counting {
                fails,
                ..Counting::default()
            });
            let fed = Fed::new(Arc::clone(&sink) as Arc<dyn Sink>);
            // The connection over which it was told is lost before anybody knew.
            for _ in 0..3 {
                assert_eq!(fed.finish(7).is_err(), fails);
            }
            assert_eq!(sink.finished.load(Relaxed), 1);
        }
    }
}
