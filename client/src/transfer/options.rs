//! What a caller may choose about a transfer.

use std::sync::Arc;

use super::{
    control::Control,
    plan::{Plan, Work},
    rate::RateLimit,
};
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

/// What becomes of a part that an earlier run left.
///
/// A part is found again only by the same source: destination, size and time of change are in its
/// name. It is checked before anything is added to it, and started anew if it differs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Resume {
    /// It is not looked for, and none is left behind where that can be helped. The default.
    #[default]
    No,
    /// Its first 64 KiB and its last 1 MiB are compared with the source. A failed or killed
    /// transfer leaves its part for the next.
    ///
    /// Whoever changes a file without changing its size and its time (in whole seconds), and
    /// neither its beginning nor what was transferred last, is found out by `Full` alone.
    Verified,
    /// All of it is compared with the source, byte by byte, which takes as long as transferring it
    /// anew.
    Full,
}

/// Which attributes a copy shares with its original: as far as the other side lets them be set, and
/// with a [`Remark`](crate::Remark) where it does not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Preserve {
    /// When it was last changed and read, in seconds. Default: no.
    pub times: bool,
    /// Permission bits: exactly those of the original, set-id bits left out. Default: no; a new
    /// file gets those of the original as far as the umask lets it.
    pub permissions: bool,
    /// User and group, by number: for those who may give files away. Default: no.
    pub owner: bool,
}

impl Preserve {
    /// None of them.
    pub const NONE: Self = Self {
        times: false,
        permissions: false,
        owner: false,
    };
    /// Times and permissions, as `cp -p` and `sftp -p` have it for ordinary users.
    pub const TIMES_AND_PERMISSIONS: Self = Self {
        times: true,
        permissions: true,
        owner: false,
    };
    /// All of them.
    pub const ALL: Self = Self {
        times: true,
        permissions: true,
        owner: true,
    };

    /// Whether any attribute is to be set.
    #[must_use]
    pub const fn any(self) -> bool {
        self.times || self.permissions || self.owner
    }
}

/// What is looked at before a file gets its name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Verify {
    /// That it has as many bytes as the source. The default: SSH lets no byte be changed on the
    /// way. A small file is not asked about where the server is known to refuse every write of which
    /// it did not take all (OpenSSH's and ours).
    #[default]
    Size,
    /// That it has the same bytes, by their SHA-256: the server's own (`check-file-handle`) where
    /// it has that, else all is read once more and compared.
    Checksum,
}

/// What becomes of the holes of a file: runs of zeros that take no place on the disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sparse {
    /// The holes of a local file are not sent, and are holes on a server that has any. SFTP does
    /// not tell where a remote file has them: a download writes all. The default.
    #[default]
    Auto,
    /// Zeros are written like all else.
    Never,
    /// Zeros of a download become holes, whatever they were on the server.
    Always,
}

/// What becomes of the symbolic links in a directory that is copied.
///
/// A link that the user named is always followed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Links {
    /// They are left out, and reported. The default.
    #[default]
    Skip,
    /// What they lead to is copied in their place. A link that leads nowhere, or to a directory that
    /// it is in, is left out and reported.
    ///
    /// It may lead out of the directory: to whatever the server, or here the user, may read.
    Follow,
    /// They are made anew on the other side, and lead there to whatever has that name.
    ///
    /// A download makes no link that leads out of the directory which it fills: one whose target
    /// begins with `/`, has more `..` than there are directories above it, or has `..` behind
    /// another name, which may itself be a link. Such links are left out and reported. An upload
    /// takes over all that are here.
    ///
    /// No copy goes through a link that it finds at its destination, whoever made that.
    Copy,
}

/// How many channels and connections a transfer may take.
///
/// More than one are taken where one is the limit and enough is left to do: channels for uploads
/// over long paths, where a server's window is, and connections where a server's process is. Only
/// OpenSSH's servers and ours are known to bear that; with others, one of each is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Streams {
    pub(crate) channels: u32,
    pub(crate) connections: u32,
}

impl Streams {
    /// One channel on one connection.
    #[must_use]
    pub const fn one() -> Self {
        Self {
            channels: 1,
            connections: 1,
        }
    }

    /// At most so many channels of a connection; OpenSSH allows 10 by default. Zero counts as one.
    #[must_use]
    pub const fn channels(mut self, max: u32) -> Self {
        self.channels = if max == 0 { 1 } else { max };
        self
    }

    /// At most so many connections. Zero counts as one.
    #[must_use]
    pub const fn connections(mut self, max: u32) -> Self {
        self.connections = if max == 0 { 1 } else { max };
        self
    }
}

impl Default for Streams {
    /// At most ten channels of a connection, and four connections.
    fn default() -> Self {
        Self {
            channels: 10,
            connections: 4,
        }
    }
}

macro_rules! options {
    ($name:ident, $what:literal, $other:literal) => {
        #[doc = concat!("How to ", $what, ". The defaults: one file, replaced atomically, new times.")]
        #[derive(Clone, Debug, Default)]
        pub struct $name {
            pub(crate) recursive: bool,
            pub(crate) overwrite: Overwrite,
            pub(crate) durability: Durability,
            pub(crate) resume: Resume,
            pub(crate) preserve: Preserve,
            pub(crate) verify: Verify,
            pub(crate) sparse: Sparse,
            pub(crate) progress: Option<Arc<Progress>>,
            pub(crate) streams: Streams,
            pub(crate) filter: Option<Arc<Filter>>,
            pub(crate) links: Links,
            pub(crate) control: Control,
            pub(crate) limit: Option<RateLimit>,
        }

        impl $name {
            /// The defaults.
            #[must_use]
            pub fn new() -> Self {
                Self::default()
            }

            /// A plan of what is transferred so.
            pub(crate) fn plan<W: Work>(&self) -> Arc<Plan<W>> {
                Plan::new(self.progress.clone(), &self.control, self.limit.as_ref())
            }

            /// Whether a directory is transferred with all that is below it. Default: no, a
            /// directory is an error.
            ///
            /// Special files are left out, and reported; so are links, unless
            /// [`links`](Self::links) says otherwise.
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
                self.preserve.times = yes;
                self
            }

            #[doc = concat!("Which attributes ", $other, " share with their originals. Default: none.")]
            #[must_use]
            pub const fn preserve(mut self, preserve: Preserve) -> Self {
                self.preserve = preserve;
                self
            }

            /// Whether a part left by an earlier run is continued. Default: no.
            #[must_use]
            pub const fn resume(mut self, resume: Resume) -> Self {
                self.resume = resume;
                self
            }

            /// What is looked at before a file gets its name. Default: its size.
            #[must_use]
            pub const fn verify(mut self, verify: Verify) -> Self {
                self.verify = verify;
                self
            }

            /// What becomes of holes. Default: those of local files are kept.
            #[must_use]
            pub const fn sparse(mut self, sparse: Sparse) -> Self {
                self.sparse = sparse;
                self
            }

            /// Which entries below a directory are taken, with
            /// [`recursive`](Self::recursive). Default: all. What the user named is always taken.
            #[must_use]
            pub fn select(mut self, filter: Filter) -> Self {
                self.filter = (!filter.is_empty()).then(|| Arc::new(filter));
                self
            }

            /// What becomes of links below a directory, with [`recursive`](Self::recursive).
            /// Default: they are left out.
            #[must_use]
            pub const fn links(mut self, links: Links) -> Self {
                self.links = links;
                self
            }

            /// How many channels and connections it may take. Default: as many as make it faster.
            #[must_use]
            pub const fn streams(mut self, streams: Streams) -> Self {
                self.streams = streams;
                self
            }

            /// What pauses, resumes, cancels and ranks it while it runs. Default: nothing does.
            #[must_use]
            pub fn control(mut self, control: Control) -> Self {
                self.control = control;
                self
            }

            /// How many bytes a second it may take; others that have the same limit share it.
            /// Default: as many as there are.
            #[must_use]
            pub fn limit(mut self, limit: impl Into<Option<RateLimit>>) -> Self {
                self.limit = limit.into();
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
