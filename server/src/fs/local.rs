//! A directory of this machine, out of which no path, `..` or link leads.
//!
//! The kernel does the confining: every name is opened by `openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_MAGICLINKS`, relative to a descriptor of the root that is opened once. What acts on a
//! name instead of a file (removing, renaming, linking) acts on one component, relative to a
//! descriptor of the directory that holds it. Nothing is checked first and used by name
//! afterwards, so there is no moment in which a swapped link could lead away.
//!
//! That call is Linux's, since 5.6. Where it is missing, or a filter of system calls keeps it out,
//! `by_steps.rs` opens one component after the other to the same end.

#[cfg(target_os = "linux")]
pub(crate) mod attributes;
#[cfg(target_os = "linux")]
mod beneath;
#[cfg(target_os = "linux")]
mod by_steps;
#[cfg(target_os = "linux")]
mod directory;
#[cfg(target_os = "linux")]
mod listing;
#[cfg(target_os = "linux")]
pub(crate) mod names;
#[cfg(target_os = "linux")]
mod opened;
#[cfg(target_os = "linux")]
mod room;
#[cfg(target_os = "linux")]
mod watch;

#[cfg(target_os = "linux")]
pub use directory::LocalDirectory;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::LocalDirectory;

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    //! Stands in for the real one where the kernel cannot confine.

    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use crate::fs::{Answer, Call, FileSystem, Work};

    /// A directory of this machine: only on Linux, whose kernel confines it.
    #[derive(Debug)]
    #[non_exhaustive]
    pub struct LocalDirectory {}

    impl LocalDirectory {
        /// Opens nothing: there is no `openat2` here.
        ///
        /// # Errors
        /// Always `Unsupported`.
        pub fn open(_: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// The same.
        #[must_use]
        pub fn without_links(self) -> Self {
            self
        }

        /// The same.
        #[must_use]
        pub const fn resolved_by_steps(self) -> Self {
            self
        }
    }

    impl FileSystem for LocalDirectory {
        fn call(self: Arc<Self>, _: Call) -> Work<Answer> {
            Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
        }
    }
}
