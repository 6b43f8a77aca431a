//! A [`Lister`] over SFTP: many directories at a time on one connection, so that a tree takes few
//! round trips.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use ketch_client::{Attrs, Failure, Kind, ReadDir, RemotePath, Sftp, SftpError};

use super::{Answer, ListError, Lister, Plan};
use crate::listing::{ENTRIES_MAX, Listing};
use crate::remote::Remote;

/// Directories that are listed at a time: at 50 ms there and back some 600 small ones a second.
/// OpenSSH's server has as many handles as files may be open; one with fewer is asked for fewer.
const LISTINGS_MAX: usize = 64;

/// Bytes of names that unfinished listings may hold; beyond, no other is begun.
const HELD_MAX: usize = 64 << 20;

/// Attributes that are asked for at a time.
const LOOKS_AT_A_TIME: usize = 1_024;

/// Lists directories on a server.
#[derive(Debug)]
pub struct SftpLister {
    remote: Remote,
    entries_max: usize,
}

impl SftpLister {
    /// Lists what is below the root of `remote`.
    #[must_use]
    pub const fn new(remote: Remote) -> Self {
        Self {
            remote,
            entries_max: ENTRIES_MAX,
        }
    }

    /// Names that one directory may hold; one with more is an error. Default: [`ENTRIES_MAX`].
    #[must_use]
    pub const fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    async fn sftp(&self) -> Result<Sftp, ListError> {
        let sftp = self.remote.sftp().await;
        sftp.map_err(|error| ListError::new(error.kind(), error).lost())
    }

    /// The path on the server: `.` where that is the directory the session starts in.
    fn path(&self, path: &RemotePath) -> RemotePath {
        let path = self.remote.path(path);
        if path.as_bytes().is_empty() {
            RemotePath::from(".")
        } else {
            path
        }
    }
}

/// A directory being listed.
struct Reading {
    directory: RemotePath,
    reader: ReadDir,
    listing: Listing,
}

impl Reading {
    /// Whether it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ListError>> {
        loop {
            let next = pin!(self.reader.next_entries());
            let Poll::Ready(entries) = next.poll(cx) else {
                return Poll::Pending;
            };
            let Some(entries) = entries else {
                return Poll::Ready(Ok(()));
            };
            for entry in entries?.iter() {
                let kind = entry.file_type();
                self.listing.push_typed(entry.name(), kind, entry.attrs())?;
            }
        }
    }
}

impl Lister for SftpLister {
    fn list<'a>(&'a self, plan: &'a mut dyn Plan) -> Answer<'a, ()> {
        Box::pin(async move {
            let sftp = match self.sftp().await {
                Ok(sftp) => sftp,
                Err(error) => {
                    if let Some(directory) = plan.next() {
                        plan.listed(directory, Err(error));
                    }
                    return;
                }
            };
            let mut readings: Vec<Reading> = Vec::new();
            let (mut at_a_time, mut again) = (LISTINGS_MAX, Vec::new());
            poll_fn(|cx| {
                loop {
                    let held: usize = readings.iter().map(|r| r.listing.names_len()).sum();
                    while readings.len() < at_a_time
                        && (held < HELD_MAX || readings.is_empty())
                        && let Some(directory) = again.pop().or_else(|| plan.next())
                    {
                        readings.push(Reading {
                            reader: sftp.read_dir(self.path(&directory)),
                            directory,
                            listing: Listing::new(self.entries_max),
                        });
                    }
                    let mut moved = false;
                    let mut index = 0;
                    while let Some(reading) = readings.get_mut(index) {
                        match reading.poll(cx) {
                            Poll::Pending => index += 1,
                            Poll::Ready(result) => {
                                moved = true;
                                let done = readings.swap_remove(index);
                                if !readings.is_empty() && is_full(&result) {
                                    at_a_time = readings.len();
                                    again.push(done.directory);
                                    continue;
                                }
                                let result = result.map(|()| done.listing.finish());
                                plan.listed(done.directory, result);
                            }
                        }
                    }
                    if readings.is_empty() && !moved {
                        return Poll::Ready(());
                    }
                    if !moved {
                        return Poll::Pending;
                    }
                }
            })
            .await;
        })
    }

    fn look<'a>(&'a self, paths: &'a [RemotePath]) -> Answer<'a, Vec<Result<Attrs, ListError>>> {
        Box::pin(async move {
            let sftp = match self.sftp().await {
                Ok(sftp) => sftp,
                Err(error) => return vec![Err(error); paths.len()],
            };
            let mut answers = Vec::with_capacity(paths.len());
            let mut waiting: VecDeque<Looking> = VecDeque::new();
            let mut rest = paths.iter();
            poll_fn(|cx| {
                loop {
                    while waiting.len() < LOOKS_AT_A_TIME
                        && let Some(path) = rest.next()
                    {
                        let (sftp, path) = (sftp.clone(), self.path(path));
                        let future = Box::pin(async move { sftp.lstat(path).await });
                        let mut looking = Looking::Asked(future);
                        looking.poll(cx); // sends the request
                        waiting.push_back(looking);
                    }
                    // Servers answer in order, more or less: who waits for the first waits for all.
                    let Some(first) = waiting.front_mut() else {
                        return Poll::Ready(());
                    };
                    first.poll(cx);
                    if matches!(first, Looking::Asked(_)) {
                        return Poll::Pending;
                    }
                    if let Some(Looking::Answered(answer)) = waiting.pop_front() {
                        answers.push(answer.map_err(ListError::from));
                    }
                }
            })
            .await;
            answers
        })
    }
}

/// Whether a server may have refused a directory because too many are open: it says no more than
/// `SSH_FX_FAILURE` then.
fn is_full(result: &Result<(), ListError>) -> bool {
    let kind = result.as_ref().err().map(ListError::kind);
    matches!(kind, Some(Kind::Peer | Kind::NoSpace))
}

enum Looking {
    Asked(Pin<Box<dyn Future<Output = Result<Attrs, SftpError>> + Send>>),
    Answered(Result<Attrs, SftpError>),
}

impl Looking {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Self::Asked(future) = self
            && let Poll::Ready(answer) = future.as_mut().poll(cx)
        {
            *self = Self::Answered(answer);
        }
    }
}
