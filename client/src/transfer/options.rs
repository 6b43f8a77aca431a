//! What a caller may choose about a transfer.

use std::sync::Arc;

use crate::{filter::Filter, progress::Progress};

/// What happens to a file that has the final name already.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Overwrite {
    /// It is replaced when the new one is whole. The default.
    #[default]
    Replace,
    /// It stays, and the transfer of that file fails.
    Never,
}

/// What has reached the disk when a transfer says that it is done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Durability {
    /// What the system chose to write: a power failure may take the file. The default, as with
    /// other SFTP clients.
    #[default]
    None,
    /// The content of the file, before it gets its name.
    File,
    /// The content and the name. SFTP cannot ask a server for the latter: uploads get the former.
    FileAndDirectory,
}

macro_rules! options {
    ($name:ident, $what:literal, $other:literal) => {
        #[doc = concat!("How to ", $what, ". The defaults: one file, replaced atomically, new times.")]
        #[derive(Clone, Debug, Default)]
        pub struct $name {
            pub(crate) recursive: bool,
            pub(crate) overwrite: Overwrite,
            pub(crate) durability: Durability,
            pub(crate) preserve_times: bool,
            pub(crate) progress: Option<Arc<Progress>>,
            pub(crate) filter: Option<Arc<Filter>>,
        }

        impl $name {
            /// The defaults.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// Whether a directory is transferred with all that is below it. Default: no, a
            /// directory is an error.
            ///
            /// Links and special files are left out, and reported.
            #[must_use]
            pub const fn recursive(mut self, yes: bool) -> Self {
                self.recursive = yes;
                self
            }

            /// What happens to files that are there already. Default: they are replaced.
            #[must_use]
            pub const fn overwrite(mut self, overwrite: Overwrite) -> Self {
                self.overwrite = overwrite;
                self
            }

            /// What has to be on the disk in the end. Default: nothing in particular.
            #[must_use]
            pub const fn durability(mut self, durability: Durability) -> Self {
                self.durability = durability;
                self
            }

            #[doc = concat!("Whether ", $other, " get the times of their originals. Default: no.")]
            #[must_use]
            pub const fn preserve_times(mut self, yes: bool) -> Self {
                self.preserve_times = yes;
                self
            }

            /// Which entries below a directory are taken, with
            /// [`recursive`](Self::recursive). Default: all. What the user named is always taken.
            #[must_use]
            pub fn select(mut self, filter: Filter) -> Self {
                self.filter = (!filter.is_empty()).then(|| Arc::new(filter));
                self
            }

            /// Counters to be kept up while the transfer runs. Default: none.
            #[must_use]
            pub fn progress(mut self, progress: Arc<Progress>) -> Self {
                self.progress = Some(progress);
                self
            }
        }
    };
}

options!(GetOptions, "download", "local files");
options!(PutOptions, "upload", "files on the server");
