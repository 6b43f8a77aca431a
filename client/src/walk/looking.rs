//! Looking at what a walk met: at links that are followed, and at what a server hides the kind of.
//!
//! A directory that a link leads to is known by its real path, and not entered again below itself.

use std::sync::Arc;

use ketch_protocol::{Attrs, FileType, RemotePath};

use super::{Directory, Walk, WalkEntry, WalkError};
use crate::sftp::SftpError;

/// What a look at a path found.
pub(super) enum Look {
    /// A link, or the root, with what it leads to.
    Entered {
        entry: Option<WalkEntry>,
        directory: Directory,
        found: Result<(Attrs, RemotePath), SftpError>,
    },
    /// A name that a pattern ends with.
    Named(RemotePath, u32, Result<Attrs, SftpError>),
}

/// A directory that others are in, by its real path.
pub(super) struct Above {
    pub path: RemotePath,
    pub above: Option<Arc<Self>>,
}

impl Walk {
    /// Looks what something is, and where a link leads if links are followed.
    pub(super) fn look(&mut self, entry: Option<WalkEntry>, directory: Directory) {
        let (sftp, path) = (self.sftp.clone(), directory.path.clone());
        let follows = self.options.follow_links;
        self.looks.push(async move {
            let found = async {
                if !follows {
                    return Ok((sftp.lstat(&path).await?, path));
                }
                let attrs = sftp.stat(&path).await?;
                let real = sftp.canonicalize(&path).await?;
                Ok((attrs, real))
            };
            Look::Entered {
                entry,
                found: found.await,
                directory,
            }
        });
    }

    /// Takes what a look found.
    pub(super) fn on_look(&mut self, look: Look) {
        match look {
            Look::Named(path, depth, Ok(attrs)) => self.ready.push_back(Ok(WalkEntry {
                path,
                depth,
                attrs,
                file_type: attrs.file_type(),
            })),
            Look::Named(_, _, Err(SftpError::Refused { .. })) => {}
            Look::Named(path, _, Err(source)) => {
                self.ready
                    .push_back(Err(WalkError::Unreadable { path, source }));
            }
            Look::Entered {
                entry,
                mut directory,
                found: Ok((attrs, real)),
            } => {
                let is_directory = attrs.file_type() == FileType::Directory;
                if let Some(entry) = entry {
                    self.ready.push_back(Ok(WalkEntry {
                        attrs,
                        file_type: attrs.file_type(),
                        ..entry
                    }));
                }
                let mut above = directory.above.as_ref();
                while let Some(inner) = above {
                    if inner.path == real {
                        return; // below itself
                    }
                    above = inner.above.as_ref();
                }
                let is_inner = self.glob.is_none() || !directory.states.is_empty();
                if is_inner && (is_directory || directory.depth == 0) {
                    if self.options.follow_links {
                        directory.above = Some(Arc::new(Above {
                            path: real,
                            above: directory.above.take(),
                        }));
                    }
                    self.enter(directory);
                }
            }
            Look::Entered {
                entry: None,
                directory,
                found: Err(source),
            } => self.on_unreadable(directory, source),
            // A link that leads nowhere is told as what it is.
            Look::Entered {
                entry: Some(entry), ..
            } => self.ready.push_back(Ok(entry)),
        }
    }
}
