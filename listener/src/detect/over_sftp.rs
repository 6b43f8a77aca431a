//! A [`Lister`] over SFTP: many directories at a time, so that a tree takes few round trips, and over
//! several channels where there are many, so that the server's processes work side by side.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use ketch_client::{Attrs, Failure, Kind, ReadDir, RemotePath, Sftp, SftpError};

use super::{Answer, ListError, Lister, Plan};
use crate::listing::{ENTRIES_MAX, Listing};
use crate::remote::Remote;
use crate::remote::channels;

/// Directories that are listed at a time on a channel: at 50 ms there and back some 1,200 small ones a
/// second. OpenSSH's server has as many handles as files may be open; one with fewer is asked for
/// fewer.
const LISTINGS_MAX: usize = 128;

/// Bytes of names that unfinished listings may hold; beyond, no other is begun.
const HELD_MAX: usize = 64 << 20;

/// Attributes that are asked for at a time on a channel.
const LOOKS_AT_A_TIME: usize = 1_024;

/// Paths to look at that are as much work as listing a directory.
const LOOKS_OF_A_LISTING: usize = 16;

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

    /// Looks at paths, in turn over `channels`.
    async fn look_over(
        &self,
        channels: &[Sftp],
        paths: impl Iterator<Item = &RemotePath>,
    ) -> Vec<Result<Attrs, ListError>> {
        let mut answers = Vec::with_capacity(paths.size_hint().0);
        let mut waiting: VecDeque<Looking> = VecDeque::new();
        let mut rest = channels.iter().cycle().zip(paths);
        let at_a_time = LOOKS_AT_A_TIME * channels.len();
        poll_fn(|cx| {
            loop {
                while waiting.len() < at_a_time
                    && let Some((sftp, path)) = rest.next()
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
    }
}

/// A directory being listed.
struct Reading {
    directory: RemotePath,
    /// The channel that it is listed on.
    on: usize,
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

/// A channel that directories are listed on.
struct Line {
    sftp: Sftp,
    /// Directories that are being listed on it.
    readings: usize,
    is_lost: bool,
}

type Opening<'a> = Pin<Box<dyn Future<Output = Option<Sftp>> + Send + 'a>>;

/// Directories being listed over several channels.
struct Readings<'a> {
    lister: &'a SftpLister,
    lines: Vec<Line>,
    /// One more channel.
    opening: Option<Opening<'a>>,
    channels_max: usize,
    under_way: Vec<Reading>,
    at_a_time: usize,
    /// Why a channel was lost.
    lost: Option<ListError>,
    /// Of channels that were lost: they are listed on another.
    moved: Vec<RemotePath>,
    /// Refused, maybe because too many were open: they are listed when the others are done.
    again: Vec<RemotePath>,
    /// Directories begun so far.
    begun: usize,
}

impl<'a> Readings<'a> {
    fn new(lister: &'a SftpLister, first: Sftp) -> Self {
        let more = lister.remote.open_beside();
        let lines: Vec<_> = std::iter::once(first).chain(more).map(Line::new).collect();
        Self {
            lister,
            opening: None,
            channels_max: lister.remote.channels_max(),
            under_way: Vec::new(),
            at_a_time: LISTINGS_MAX * lines.len(),
            lines,
            lost: None,
            moved: Vec::new(),
            again: Vec::new(),
            begun: 0,
        }
    }

    /// Begins what is to be listed, and takes what has come. Ready when all is done.
    fn poll(&mut self, cx: &mut Context<'_>, plan: &mut dyn Plan) -> Poll<()> {
        loop {
            self.poll_opening(cx);
            self.begin(plan);
            if self.under_way.is_empty() {
                self.give_up(plan);
                return Poll::Ready(());
            }
            if !self.poll_readings(cx, plan) {
                return Poll::Pending;
            }
        }
    }

    /// Another channel, where there is work for one.
    fn poll_opening(&mut self, cx: &mut Context<'_>) {
        let count = self.lines.len();
        if self.opening.is_none() && count < channels::wanted(self.begun, self.channels_max) {
            let remote = &self.lister.remote;
            let first = self.lines.first().map(|line| line.sftp.clone());
            self.opening = first.map(|first| -> Opening<'a> {
                Box::pin(async move { remote.beside(&first, count - 1).await })
            });
        }
        let Some(opening) = &mut self.opening else {
            return;
        };
        if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
            self.opening = None;
            match opened {
                Some(sftp) => {
                    self.lines.push(Line::new(sftp));
                    self.at_a_time += LISTINGS_MAX;
                }
                None => self.channels_max = count,
            }
        }
    }

    fn begin(&mut self, plan: &mut dyn Plan) {
        let names = |reading: &Reading| reading.listing.names_len();
        let held: usize = self.under_way.iter().map(names).sum();
        while self.under_way.len() < self.at_a_time
            && (held < HELD_MAX || self.under_way.is_empty())
        {
            // The channel with the fewest.
            let living = self.lines.iter_mut().enumerate();
            let living = living.filter(|(_, line)| !line.is_lost);
            let Some((on, line)) = living.min_by_key(|(_, line)| line.readings) else {
                return;
            };
            let mut next = self.moved.pop().or_else(|| plan.next());
            if next.is_none() && self.under_way.is_empty() {
                next = self.again.pop();
            }
            let Some(directory) = next else {
                return;
            };
            line.readings += 1;
            self.begun += 1;
            self.under_way.push(Reading {
                reader: line.sftp.read_dir(self.lister.path(&directory)),
                directory,
                on,
                listing: Listing::new(self.lister.entries_max),
            });
        }
    }

    /// Whether one of them is over.
    fn poll_readings(&mut self, cx: &mut Context<'_>, plan: &mut dyn Plan) -> bool {
        let mut moved = false;
        let mut index = 0;
        while let Some(reading) = self.under_way.get_mut(index) {
            let Poll::Ready(result) = reading.poll(cx) else {
                index += 1;
                continue;
            };
            moved = true;
            let done = self.under_way.swap_remove(index);
            self.over(done, result, plan);
        }
        moved
    }

    /// What is left when no channel lives.
    fn give_up(&mut self, plan: &mut dyn Plan) {
        if let Some(error) = self.lost.take() {
            for directory in self.moved.drain(..).chain(self.again.drain(..)) {
                plan.listed(directory, Err(error.clone()));
            }
        }
    }

    fn over(&mut self, done: Reading, mut result: Result<(), ListError>, plan: &mut dyn Plan) {
        if let Some(line) = self.lines.get_mut(done.on) {
            line.readings -= 1;
            if line.sftp.has_ended() {
                result = result.map_err(ListError::lost);
            }
            if let Err(error) = &result
                && error.is_lost()
            {
                line.is_lost = true;
                self.lost = Some(error.clone());
            }
            // Half of a directory says nothing: another channel lists it from the start.
            if line.is_lost && result.is_err() && self.lines.iter().any(|line| !line.is_lost) {
                self.moved.push(done.directory);
                return;
            }
        }
        if is_full(&result) && !self.under_way.is_empty() {
            self.at_a_time = self.under_way.len();
            self.again.push(done.directory);
            return;
        }
        let result = result.map(|()| done.listing.finish());
        plan.listed(done.directory, result);
    }
}

impl Line {
    const fn new(sftp: Sftp) -> Self {
        Self {
            sftp,
            readings: 0,
            is_lost: false,
        }
    }
}

impl Lister for SftpLister {
    fn list<'a>(&'a self, plan: &'a mut dyn Plan) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.sftp().await {
                Ok(first) => {
                    let mut readings = Readings::new(self, first);
                    poll_fn(|cx| readings.poll(cx, plan)).await;
                }
                Err(error) => {
                    if let Some(directory) = plan.next() {
                        plan.listed(directory, Err(error));
                    }
                }
            }
        })
    }

    fn look<'a>(&'a self, paths: &'a [RemotePath]) -> Answer<'a, Vec<Result<Attrs, ListError>>> {
        Box::pin(async move {
            let first = match self.sftp().await {
                Ok(sftp) => sftp,
                Err(error) => return vec![Err(error); paths.len()],
            };
            let work = paths.len() / LOOKS_OF_A_LISTING;
            let wanted = channels::wanted(work, self.remote.channels_max());
            let mut lines = vec![first.clone()];
            while lines.len() < wanted
                && let Some(sftp) = self.remote.beside(&first, lines.len() - 1).await
            {
                lines.push(sftp);
            }
            let mut answers = self.look_over(&lines, paths.iter()).await;
            // What another channel took with it is asked for on the first.
            let is_lost =
                |answer: &Result<_, ListError>| answer.as_ref().is_err_and(ListError::is_lost);
            if lines.len() > 1 && answers.iter().any(is_lost) {
                let lost = |(path, answer)| is_lost(answer).then_some(path);
                let lost: Vec<_> = paths.iter().zip(&answers).filter_map(lost).collect();
                let mut second = self.look_over(&[first], lost.into_iter()).await.into_iter();
                for answer in answers.iter_mut().filter(|answer| is_lost(answer)) {
                    if let Some(second) = second.next() {
                        *answer = second;
                    }
                }
            }
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
