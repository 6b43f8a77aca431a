//! The places at which a process may be killed, for tests: a sink passes one before each step that
//! changes something at its destination.

use std::io;

/// What a sink passes before each step. Outside tests it is nothing.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    #[cfg(test)]
    left: std::sync::atomic::AtomicI64,
    #[cfg(test)]
    is_counted: std::sync::atomic::AtomicBool,
}

impl Steps {
    /// Passes one. In a test that let so many pass, this and all that follow fail, also those of the
    /// tidying up: a process that was killed does not tidy up.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "tests count"))]
    #[cfg_attr(
        not(test),
        expect(clippy::unnecessary_wraps, reason = "tests fail here")
    )]
    pub(crate) fn pass(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering;
            if self.is_counted.load(Ordering::Acquire)
                && self.left.fetch_sub(1, Ordering::AcqRel) <= 0
            {
                return Err(io::Error::other("killed here"));
            }
        }
        Ok(())
    }

    /// Lets `left` pass from now on, or all.
    #[cfg(test)]
    pub(crate) fn kill_after(&self, left: Option<i64>) {
        use std::sync::atomic::Ordering;
        self.left.store(left.unwrap_or(0), Ordering::Release);
        self.is_counted.store(left.is_some(), Ordering::Release);
    }
}
