//! The SFTP session: every request of version 3 and of OpenSSH's extensions as an async function.
//!
//! A [`Sftp`] is a handle; the work is done by the task of the connection (`requests.rs`). Any
//! number of callers may use clones of it at the same time: each request goes out when it is
//! called, none waits for the answer to another.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

use ketch_protocol::{
    Attrs, CopyData, ExpandPath, Extension, ExtensionName, Hardlink, HomeDirectory, List, Lsetstat,
    Lstat, Mkdir, Open, OpenFlags, PosixRename, Reader, Readlink, Realpath, RemotePath, Remove,
    Rename, Request, Rmdir, ServerLimits, Setstat, Stat, StatVfs, StatusCode, Statvfs, Symlink,
    UsersGroups, UsersGroupsById, WireAttrs,
};

mod answers;
mod checksum;
mod conveniences;
mod error;
mod open;

mod transfers;

pub(crate) use self::error::kind_of_status;
pub use self::error::{Operation, SftpError};
pub(crate) use self::open::{EarlySftp, takes_early};
use crate::{
    dir::ReadDir,
    file::{File, OpenOptions},
    quirks::Quirk,
    requests::{
        calls::{Shared, Submission},
        table::Expect,
    },
    session::Session,
};

/// Bytes that a call with paths and attributes is counted as, with its answer.
const SMALL_CALL_LEN: usize = 4 * 1024;

/// An SFTP session.
///
/// Cheap to clone; the session ends when the last clone, [`File`] and [`ReadDir`] is dropped.
///
/// # Errors
/// Everything here fails with [`SftpError`]: the server refused, it stopped answering, the
/// connection ended, or the server broke the protocol. Dropping a future gives the request up; a
/// change on the server may then have happened or not.
#[derive(Clone)]
pub struct Sftp {
    anchor: Arc<Anchor>,
}

/// What all handles of a session hold: the session ends with the last of them.
struct Anchor {
    shared: Arc<Shared>,
    /// Keeps the connection; comes later where requests leave along with the login.
    connection: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Drop for Anchor {
    fn drop(&mut self) {
        self.shared.submit(Submission::Goodbye);
    }
}

impl Sftp {
    /// A handle for the session whose requests `shared` leads to; keeps `connection` as long as
    /// there are handles.
    pub(crate) fn new(shared: Arc<Shared>, connection: impl Any + Send + Sync) -> Self {
        Self {
            anchor: Arc::new(Anchor {
                shared,
                connection: OnceLock::from(Box::new(connection) as Box<_>),
            }),
        }
    }

    /// A handle for a session on a connection that is still being made.
    pub(crate) fn ahead(shared: Arc<Shared>) -> Self {
        Self {
            anchor: Arc::new(Anchor {
                shared,
                connection: OnceLock::new(),
            }),
        }
    }

    /// The connection has been made: all handles keep it from now on.
    pub(crate) fn made_on(&self, session: Session) {
        let _ = self.anchor.connection.set(Box::new(session));
    }

    /// The connection below, if it is one of SSH, and has been made.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        self.anchor.connection.get()?.downcast_ref()
    }

    /// Whether nothing will be answered on it any more: its channel has ended, or the connection.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.anchor.shared.has_ended()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.anchor.shared
    }

    /// Attributes of a file; a link is followed.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn stat(&self, path: impl Into<RemotePath>) -> Result<Attrs, SftpError> {
        let path = path.into();
        let request = Request::Stat(Stat {
            path: path.as_bytes(),
        });
        self.attrs(Operation::Stat, &path, &request).await
    }

    /// Attributes of a file, or of a link itself; of what a link leads to, on the few servers that
    /// cannot tell.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn lstat(&self, path: impl Into<RemotePath>) -> Result<Attrs, SftpError> {
        let path = path.into();
        if !self.shared().server_now().quirks.has(Quirk::NoLstat) {
            let request = Request::Lstat(Lstat {
                path: path.as_bytes(),
            });
            let attrs = self.attrs(Operation::Stat, &path, &request).await;
            match attrs {
                // No server lacks `STAT`: better what a link leads to than nothing.
                Err(SftpError::Refused {
                    status: StatusCode::OP_UNSUPPORTED,
                    ..
                }) => {}
                attrs => return attrs,
            }
        }
        self.stat(path).await
    }

    /// Sets those attributes that are given; a link is followed.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn set_attrs(
        &self,
        path: impl Into<RemotePath>,
        attrs: Attrs,
    ) -> Result<(), SftpError> {
        let path = path.into();
        let request = Setstat {
            path: path.as_bytes(),
            attrs: attrs.into(),
        };
        self.done(Operation::SetAttrs, &path, &Request::Setstat(request))
            .await
    }

    /// Sets those attributes that are given; of a link itself (`lsetstat@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn set_link_attrs(
        &self,
        path: impl Into<RemotePath>,
        attrs: Attrs,
    ) -> Result<(), SftpError> {
        let path = path.into();
        let request = Extension::Lsetstat(Lsetstat {
            path: path.as_bytes(),
            attrs: attrs.into(),
        });
        self.need(ExtensionName::Lsetstat).await?;
        self.done(Operation::SetAttrs, &path, &Request::Extended(request))
            .await
    }

    /// Opens or creates a file.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn open(
        &self,
        path: impl Into<RemotePath>,
        options: OpenOptions,
    ) -> Result<File, SftpError> {
        let path = path.into();
        let request = Open {
            path: path.as_bytes(),
            flags: options.flags(),
            attrs: WireAttrs::from(options.attrs()),
        };
        let changes = options.flags().contains(OpenFlags::CREATE)
            || options.flags().contains(OpenFlags::TRUNCATE);
        let operation = if changes {
            Operation::Create
        } else {
            Operation::Open
        };
        let handle = self
            .handle(operation, &path, &Request::Open(request))
            .await?;
        Ok(File::new(self.clone(), path, handle))
    }

    /// Lists a directory: a stream of entries, `.` and `..` left out.
    ///
    /// Several requests are under way at a time, so a long listing takes few round trips. Names
    /// are what the server says: check them before they become local ones.
    pub fn read_dir(&self, path: impl Into<RemotePath>) -> ReadDir {
        ReadDir::new(self.clone(), path.into())
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// See [`Sftp`]. Version 3 has no status for a name that is taken: most servers say `FAILURE`.
    pub async fn create_dir(&self, path: impl Into<RemotePath>) -> Result<(), SftpError> {
        let path = path.into();
        let request = Mkdir {
            path: path.as_bytes(),
            attrs: WireAttrs::default(),
        };
        self.done(Operation::CreateDir, &path, &Request::Mkdir(request))
            .await
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn remove_file(&self, path: impl Into<RemotePath>) -> Result<(), SftpError> {
        let path = path.into();
        let request = Request::Remove(Remove {
            path: path.as_bytes(),
        });
        self.done(Operation::Remove, &path, &request).await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn remove_dir(&self, path: impl Into<RemotePath>) -> Result<(), SftpError> {
        let path = path.into();
        let request = Request::Rmdir(Rmdir {
            path: path.as_bytes(),
        });
        self.done(Operation::RemoveDir, &path, &request).await
    }

    /// Renames as version 3 has it: most servers refuse if the new name is taken, some replace it.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn rename(
        &self,
        from: impl Into<RemotePath>,
        to: impl Into<RemotePath>,
    ) -> Result<(), SftpError> {
        let (from, to) = (from.into(), to.into());
        let request = Request::Rename(Rename {
            from: from.as_bytes(),
            to: to.as_bytes(),
        });
        self.done(Operation::Rename, &from, &request).await
    }

    /// Whether the server can replace what has a new name in the same instant:
    /// [`posix_rename`](Self::posix_rename) is there (`posix-rename@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`], if the channel ended before the server had said what it has.
    pub async fn has_posix_rename(&self) -> Result<bool, SftpError> {
        let extensions = &self.server().await?.extensions;
        Ok(extensions.contains(ExtensionName::PosixRename))
    }

    /// Renames, and replaces what has the new name in the same instant
    /// (`posix-rename@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn posix_rename(
        &self,
        from: impl Into<RemotePath>,
        to: impl Into<RemotePath>,
    ) -> Result<(), SftpError> {
        let (from, to) = (from.into(), to.into());
        self.need(ExtensionName::PosixRename).await?;
        let request = PosixRename {
            from: from.as_bytes(),
            to: to.as_bytes(),
        };
        let request = Request::Extended(Extension::PosixRename(request));
        self.done(Operation::Rename, &from, &request).await
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn read_link(&self, path: impl Into<RemotePath>) -> Result<RemotePath, SftpError> {
        let path = path.into();
        let request = Request::Readlink(Readlink {
            path: path.as_bytes(),
        });
        self.one_name(Operation::ReadLink, &path, &request, Expect::Name)
            .await
    }

    /// Creates a symbolic link `link` that points to `target`.
    ///
    /// The fields go out in the order that OpenSSH and nearly all others expect, which is not the
    /// draft's; to the few that keep to the draft, in its.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn symlink(
        &self,
        target: impl Into<RemotePath>,
        link: impl Into<RemotePath>,
    ) -> Result<(), SftpError> {
        let (target, link) = (target.into(), link.into());
        let order = self.shared().server_now().quirks.symlink_order();
        let request = Symlink {
            target: target.as_bytes(),
            link: link.as_bytes(),
            order,
        };
        self.done(Operation::Link, &link, &Request::Symlink(request))
            .await
    }

    /// Gives a file a second name (`hardlink@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn hard_link(
        &self,
        from: impl Into<RemotePath>,
        to: impl Into<RemotePath>,
    ) -> Result<(), SftpError> {
        let (from, to) = (from.into(), to.into());
        self.need(ExtensionName::Hardlink).await?;
        let request = Hardlink {
            from: from.as_bytes(),
            to: to.as_bytes(),
        };
        let request = Request::Extended(Extension::Hardlink(request));
        self.done(Operation::Link, &to, &request).await
    }

    /// The absolute path of what `path` names, links resolved: `.` is where the session starts.
    ///
    /// # Errors
    /// See [`Sftp`].
    pub async fn canonicalize(&self, path: impl Into<RemotePath>) -> Result<RemotePath, SftpError> {
        let path = path.into();
        let request = Request::Realpath(Realpath {
            path: path.as_bytes(),
        });
        self.one_name(Operation::Canonicalize, &path, &request, Expect::Name)
            .await
    }

    /// The same with `~` and `~user` understood (`expand-path@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn expand_path(&self, path: impl Into<RemotePath>) -> Result<RemotePath, SftpError> {
        let path = path.into();
        self.need(ExtensionName::ExpandPath).await?;
        let request = Extension::ExpandPath(ExpandPath {
            path: path.as_bytes(),
        });
        self.one_name(
            Operation::Canonicalize,
            &path,
            &Request::Extended(request),
            Expect::Name,
        )
        .await
    }

    /// The home directory of a user; of the session's own for the empty name (`home-directory`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn home_directory(&self, user: &str) -> Result<RemotePath, SftpError> {
        self.need(ExtensionName::HomeDirectory).await?;
        let request = Extension::HomeDirectory(HomeDirectory {
            user: user.as_bytes(),
        });
        let path = RemotePath::from(user);
        self.one_name(
            Operation::Canonicalize,
            &path,
            &Request::Extended(request),
            Expect::Name,
        )
        .await
    }

    /// How large and how full the file system of `path` is (`statvfs@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn statvfs(&self, path: impl Into<RemotePath>) -> Result<StatVfs, SftpError> {
        let path = path.into();
        self.need(ExtensionName::Statvfs).await?;
        let request = Extension::Statvfs(Statvfs {
            path: path.as_bytes(),
        });
        let data = self
            .extended(Operation::StatVfs, &path, &Request::Extended(request))
            .await?;
        StatVfs::decode(Reader::new(&data))
            .map_err(|_| SftpError::malformed(Operation::StatVfs, &path))
    }

    /// What the server accepts (`limits@openssh.com`). A limit of zero means that it names none.
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn limits(&self) -> Result<ServerLimits, SftpError> {
        self.need(ExtensionName::Limits).await?;
        let path = RemotePath::from("");
        let request = Request::Extended(Extension::Limits);
        let data = self.extended(Operation::Limits, &path, &request).await?;
        ServerLimits::decode(Reader::new(&data))
            .map_err(|_| SftpError::malformed(Operation::Limits, &path))
    }

    /// Copies `len` bytes (all up to the end for 0) between two files open on the server, without
    /// sending them here (`copy-data`).
    ///
    /// The server does nothing else on this session meanwhile.
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn copy_data(
        &self,
        (from, from_offset): (&File, u64),
        (to, to_offset): (&File, u64),
        len: u64,
    ) -> Result<(), SftpError> {
        self.need(ExtensionName::CopyData).await?;
        let request = CopyData {
            from: from.handle(),
            from_offset,
            len,
            to: to.handle(),
            to_offset,
        };
        let request = Request::Extended(Extension::CopyData(request));
        self.done(Operation::Write, to.path(), &request).await
    }

    /// Names of users and groups by number, in the order asked; empty for those the server does
    /// not know (`users-groups-by-id@openssh.com`).
    ///
    /// # Errors
    /// See [`Sftp`]; `Unsupported` if the server lacks the extension.
    pub async fn users_groups(&self, uids: &[u32], gids: &[u32]) -> Result<UserNames, SftpError> {
        self.need(ExtensionName::UsersGroupsById).await?;
        let request = UsersGroupsById {
            uids: List::new(uids),
            gids: List::new(gids),
        };
        let request = Request::Extended(Extension::UsersGroupsById(request));
        let path = RemotePath::from("");
        let data = self.extended(Operation::Users, &path, &request).await?;
        let names = UsersGroups::decode(Reader::new(&data))
            .map_err(|_| SftpError::malformed(Operation::Users, &path))?;
        let own = |list: List<'_, &[u8]>| list.iter().map(<[u8]>::to_vec).collect();
        Ok(UserNames {
            users: own(names.users),
            groups: own(names.groups),
        })
    }
}

/// Names of users and groups: bytes as the server sent them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserNames {
    /// Users, in the order asked.
    pub users: Vec<Vec<u8>>,
    /// Groups, in the order asked.
    pub groups: Vec<Vec<u8>>,
}

impl fmt::Debug for Sftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sftp").finish_non_exhaustive()
    }
}
